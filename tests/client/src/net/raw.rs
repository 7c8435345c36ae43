//! A network device's queues written by hand.
//!
//! Frames are sent from slots of a page in the transmit queue's data, and received into buffers of equal size
//! in the receive queue's.

use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use devices::net::features as net;
use kernel::time;

use super::packet::{self, Answer, Place};
use crate::device::{Device, features, status};
use crate::ensure;
use crate::raw::{Abandoned, Descriptor, RawQueue, negotiate, place, set_ready};
use crate::report::Outcome;

/// Entries of each queue.
pub const SIZE: u16 = 64;
/// Bytes of virtio's header before each packet.
pub const HEADER: usize = 12;
/// Bytes of a slot that frames are sent from, its header included.
pub const SLOT: usize = 4096;
/// How many there are.
pub const SLOTS: u16 = 16;

/// How long an answer may take before it is asked for again, and how often that is done.
const PATIENCE: Duration = Duration::from_secs(2);
const TRIES: u16 = 5;
/// How often the rings are looked at meanwhile.
const INTERVAL: Duration = Duration::from_millis(2);

/// A network device with its first pair of queues, and the control queue if that was negotiated.
pub struct RawNic {
    pub device: Rc<Device>,
    pub receive: RawQueue,
    pub transmit: RawQueue,
    pub control: Option<RawQueue>,
    mergeable: bool,
    /// Bytes of a receive buffer.
    buffer: u32,
    /// How many frames were sent and not given back.
    under_way: u16,
}

/// How many pairs of queues the device has.
pub fn max_pairs(device: &Device) -> Outcome<u16> {
    let (_, bytes) = device.config(8, 2)?;
    let bytes = bytes.try_into().map_err(|_| "the configuration is too short")?;
    Ok(u16::from_le_bytes(bytes))
}

impl RawNic {
    /// Resets the device and sets it up with these features besides the necessary ones.
    pub fn new(device: &Rc<Device>, extra: u64) -> Outcome<Self> {
        negotiate(device, extra)?;
        let receive = RawQueue::open(device, 0, SIZE)?;
        let transmit = RawQueue::open(device, 1, SIZE)?;
        // It comes after the queues of all pairs that there may be.
        let control = 2 * if extra & net::MQ != 0 {
            max_pairs(device)?
        } else {
            1
        };
        let has_control = extra & net::CTRL_VQ != 0;
        let control = has_control
            .then(|| RawQueue::open(device, control, SIZE))
            .transpose()?;
        set_ready(device)?;
        Ok(Self {
            device: device.clone(),
            receive,
            transmit,
            control,
            mergeable: extra & net::MRG_RXBUF != 0,
            buffer: 0,
            under_way: 0,
        })
    }

    /// Gives up the queues without a word to the device; the pages stay granted.
    pub fn abandon(self) -> Vec<Abandoned> {
        [Some(self.receive), Some(self.transmit), self.control]
            .into_iter()
            .flatten()
            .map(RawQueue::abandon)
            .collect()
    }

    /// Resets the device. Fails if the back end then still uses a page.
    pub fn finish(self) -> Outcome {
        let seen = self.device.set_status(0)?;
        ensure!(seen == 0, "the status after a reset is {seen:#x}");
        self.abandon().into_iter().try_for_each(Abandoned::released)
    }

    /// Writes a header, zeroes if it is empty, and a frame into a slot, from where it reaches into those that
    /// follow. The descriptor of both.
    pub fn store(&self, slot: u16, header: &[u8], frame: &[u8]) -> Descriptor {
        let at = place::DATA + usize::from(slot) * SLOT;
        let data = self.transmit.data();
        data.zero(at, HEADER);
        data.copy_in(at, header);
        data.copy_in(at + HEADER, frame);
        self.transmit.readable(at, (HEADER + frame.len()) as u32)
    }

    /// Makes a chain available for transmission, from this descriptor on.
    pub fn offer(&mut self, first: u16, parts: &[Descriptor]) {
        self.transmit.chain(first, parts);
        self.transmit.offer(first);
        self.under_way += 1;
    }

    /// Sends a frame, from the first slot.
    pub fn send(&mut self, header: &[u8], frame: &[u8]) {
        let part = self.store(0, header, frame);
        self.offer(0, &[part]);
        self.transmit.kick();
    }

    /// Waits until all frames that were sent are given back.
    pub async fn sent(&mut self) -> Outcome {
        self.transmit.kick();
        while self.under_way > 0 {
            let used = self.transmit.used().await?;
            ensure!(
                used.len == 0,
                "{} bytes are written to what is to be sent",
                used.len
            );
            self.under_way -= 1;
        }
        Ok(())
    }

    /// Gives the device receive buffers of this size, as many as there is room for.
    pub fn supply(&mut self, len: u32) {
        self.buffer = len;
        let room = usize::from(SLOTS) * SLOT / len as usize;
        for index in 0..SIZE.min(room as u16) {
            let at = place::DATA + usize::from(index) * len as usize;
            self.receive.chain(index, &[self.receive.writable(at, len)]);
            self.receive.offer(index);
        }
        self.receive.kick();
    }

    /// The next frame, if one has come, without its header. Its buffers are given to the device again.
    pub fn poll_frame(&mut self) -> Outcome<Option<Vec<u8>>> {
        let mut frame = Vec::new();
        let mut left = 1;
        while left > 0 {
            let Some(used) = self.receive.poll_used() else {
                ensure!(frame.is_empty(), "a frame lacks {left} buffers");
                return Ok(None);
            };
            ensure!(
                used.id < SIZE.into() && used.len <= self.buffer,
                "buffer {} of {} bytes was used for {}",
                used.id,
                self.buffer,
                used.len
            );
            let mut bytes = vec![0; used.len as usize];
            let at = place::DATA + used.id as usize * self.buffer as usize;
            self.receive.data().copy_out(at, &mut bytes);
            self.receive.offer(used.id as u16);
            if frame.is_empty() {
                ensure!(
                    bytes.len() >= HEADER,
                    "a buffer of {} bytes was used",
                    bytes.len()
                );
                left = u16::from_le_bytes([bytes[10], bytes[11]]);
                ensure!(
                    left == 1 || self.mergeable && left > 0,
                    "a frame of {left} buffers"
                );
            }
            left -= 1;
            frame.extend_from_slice(&bytes);
        }
        self.receive.kick();
        Ok(Some(frame.split_off(HEADER)))
    }

    /// Waits for an answer of some kind.
    async fn await_answer(&mut self, wanted: impl Fn(&Answer) -> bool) -> Outcome<bool> {
        let deadline = time::now() + PATIENCE;
        loop {
            while let Some(frame) = self.poll_frame()? {
                if packet::answer(&frame).as_ref().is_some_and(&wanted) {
                    return Ok(true);
                }
            }
            if (deadline - time::now()).is_zero() {
                return Ok(false);
            }
            time::sleep(INTERVAL).await;
        }
    }

    /// Fails unless the gateway says where it is, after it was asked.
    pub async fn expect_arp(&mut self, place: &Place) -> Outcome {
        let expected = Answer::Address(place.gateway, place.gateway_mac);
        let seen = self.await_answer(|answer| *answer == expected).await?;
        ensure!(seen, "the frame does not get to the gateway");
        Ok(())
    }

    /// Fails unless the gateway answers, into buffers that are supplied already.
    pub async fn expect_answer(&mut self, place: &Place) -> Outcome {
        let payload = [0x33; 56];
        for sequence in 1..=TRIES {
            // The gateway may have forgotten where we are.
            self.send(&[], &place.arp_request());
            self.sent().await?;
            self.send(&[], &place.echo_request(sequence, &payload));
            self.sent().await?;
            let echo = Answer::Echo {
                sequence,
                payload: payload.to_vec(),
            };
            if self.await_answer(|answer| *answer == echo).await? {
                return Ok(());
            }
        }
        Err("the gateway does not answer".into())
    }

    /// Fails unless the device goes on and the gateway answers: for after what should have done no harm.
    pub async fn expect_service(&mut self, place: &Place) -> Outcome {
        if self.buffer == 0 {
            self.supply(2048);
        }
        self.expect_answer(place).await?;
        let status = self.device.status()?;
        ensure!(status & status::NEEDS_RESET == 0, "the device needs a reset");
        Ok(())
    }
}

/// The features that all tests of transmission want.
pub const OFFLOADS: u64 = net::CSUM | net::HOST_TSO4 | net::HOST_TSO6 | features::INDIRECT_DESC;
