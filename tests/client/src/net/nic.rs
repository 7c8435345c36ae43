//! A network device through `virtio-drivers`, as smoltcp wants it.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use kernel::event::EventChannel;
use kernel::{shared, time};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::time::Instant;
use smoltcp::wire::EthernetAddress;
use virtio_drivers::device::net::VirtIONetRaw;

use super::packet::{self, Answer, ETHERNET};
use crate::device::Device;
use crate::ensure;
use crate::hal::{self, GrantHal};
use crate::report::Outcome;
use crate::transport::XenTransport;

/// Entries of each queue, which are as many frames.
const DEPTH: usize = 16;
/// The largest IP packet that is sent or received.
pub const MTU: usize = 1500;
/// Bytes of a receive buffer: virtio's header and a frame.
const BUFFER: usize = 12 + ETHERNET + MTU;
/// The most answers that are kept.
const ANSWERS: usize = 32;
/// How late a notification may be.
const LATE: Duration = Duration::from_secs(5);

const RECEIVE: u16 = 0;

/// A network device that is set up.
pub struct Nic {
    raw: VirtIONetRaw<GrantHal, XenTransport, DEPTH>,
    channel: Rc<EventChannel>,
    /// By token, the buffers that the device has.
    receiving: [Option<Vec<u8>>; DEPTH],
    sending: [Option<Vec<u8>>; DEPTH],
    /// Answers that have come, beside what smoltcp makes of them.
    pub answers: VecDeque<Answer>,
    /// The first error: smoltcp knows of none.
    failure: Outcome,
}

impl Nic {
    /// Resets the device and sets it up. With `ring_reset`, dropping it resets the queues alone, not the
    /// device.
    pub fn new(device: &Rc<Device>, ring_reset: bool) -> Outcome<Self> {
        let transport = XenTransport::new(device.clone(), ring_reset)?;
        let raw =
            VirtIONetRaw::new(transport.clone()).map_err(|error| format!("VirtIONetRaw::new: {error}"))?;
        transport.failure()?;
        let channel = device
            .channel(RECEIVE)
            .ok_or("the receive queue has no event channel")?;
        let mut nic = Self {
            raw,
            channel,
            receiving: Default::default(),
            sending: Default::default(),
            answers: VecDeque::new(),
            failure: Ok(()),
        };
        for _ in 0..DEPTH {
            nic.offer(vec![0; BUFFER])?;
        }
        Ok(nic)
    }

    /// The device's address.
    pub fn mac(&self) -> EthernetAddress {
        EthernetAddress(self.raw.mac_address())
    }

    /// Ends the device's use, and takes back the buffers that it had.
    pub fn finish(self) -> Outcome {
        self.failure.clone()?;
        drop(self);
        hal::reclaim();
        let in_use = hal::take_in_use();
        ensure!(in_use == 0, "{in_use} grants were still in use after a reset");
        Ok(())
    }

    /// Fails if anything has gone wrong.
    pub fn check(&self) -> Outcome {
        self.failure.clone()
    }

    /// Sends a frame. Fails if the queue is full.
    pub fn send(&mut self, frame: &[u8]) -> Outcome {
        ensure!(self.has_room()?, "the transmit queue is full");
        let mut buffer = vec![0; BUFFER - ETHERNET - MTU];
        self.raw
            .fill_buffer_header(&mut buffer)
            .map_err(|error| format!("the header of a packet: {error}"))?;
        buffer.extend_from_slice(frame);
        // SAFETY: the HAL copies the buffer to pages of its own; the queue keeps no more than its address. It
        // is kept until the token comes back.
        let token = unsafe { self.raw.transmit_begin(&buffer) };
        let token = token.map_err(|error| format!("transmitting: {error}"))?;
        self.sending[usize::from(token)] = Some(buffer);
        Ok(())
    }

    /// Takes frames back that were sent; whether there is room for one more.
    fn has_room(&mut self) -> Outcome<bool> {
        while let Some(token) = self.raw.poll_transmit() {
            let buffer = self.sending.get_mut(usize::from(token)).and_then(Option::take);
            let buffer = buffer.ok_or_else(|| format!("frame {token} has been sent, but was never given"))?;
            // SAFETY: this is the buffer that was given with this token.
            let sent = unsafe { self.raw.transmit_complete(token, &buffer) };
            sent.map_err(|error| format!("transmitting: {error}"))?;
        }
        Ok(self.sending.iter().any(Option::is_none))
    }

    /// Gives the device a buffer to receive into.
    fn offer(&mut self, mut buffer: Vec<u8>) -> Outcome {
        // SAFETY: as in `send`.
        let token = unsafe { self.raw.receive_begin(&mut buffer) };
        let token = token.map_err(|error| format!("a receive buffer: {error}"))?;
        self.receiving[usize::from(token)] = Some(buffer);
        Ok(())
    }

    /// The next frame, if one has come.
    fn next_frame(&mut self) -> Outcome<Option<Vec<u8>>> {
        let Some(token) = self.raw.poll_receive() else {
            return Ok(None);
        };
        let buffer = self.receiving.get_mut(usize::from(token)).and_then(Option::take);
        let mut buffer = buffer.ok_or_else(|| format!("buffer {token} was used, but not available"))?;
        // SAFETY: this is the buffer that was given with this token.
        let received = unsafe { self.raw.receive_complete(token, &mut buffer) };
        let (header, len) = received.map_err(|error| format!("receiving: {error}"))?;
        let frame = buffer
            .get(header..header + len)
            .ok_or_else(|| format!("{len} bytes are said to be in a buffer of {}", buffer.len()))?
            .to_vec();
        self.offer(buffer)?;
        if let Some(answer) = packet::answer(&frame) {
            self.answers.truncate(ANSWERS - 1);
            self.answers.push_front(answer);
        }
        Ok(Some(frame))
    }

    /// Waits until there are frames, for a limited time.
    pub async fn wait(&self, limit: Duration) -> Outcome {
        // The queue has just told the device which index to notify at; what the device did before it saw that
        // is seen here.
        shared::barrier();
        if self.raw.poll_receive().is_none() && time::timeout(limit, self.channel.wait()).await.is_err() {
            // What came just now is followed by its notification, or that is lost.
            let notified =
                self.raw.poll_receive().is_none() || time::timeout(LATE, self.channel.wait()).await.is_ok();
            ensure!(notified, "no notification, though a buffer was used");
        }
        Ok(())
    }

    /// Takes note of an error, and goes on with a default.
    fn noted<T: Default>(&mut self, outcome: Outcome<T>) -> T {
        outcome.unwrap_or_else(|error| {
            if self.failure.is_ok() {
                self.failure = Err(error);
            }
            T::default()
        })
    }
}

/// A frame that has come.
pub struct Received(Vec<u8>);

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

/// Room for a frame.
pub struct Room<'a>(&'a mut Nic);

impl phy::TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        let sent = self.0.send(&frame);
        self.0.noted(sent);
        result
    }
}

impl phy::Device for Nic {
    type RxToken<'a> = Received;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, _timestamp: Instant) -> Option<(Received, Room<'_>)> {
        let room = self.has_room();
        if !self.noted(room) {
            return None;
        }
        let frame = self.next_frame();
        let frame = self.noted(frame)?;
        Some((Received(frame), Room(self)))
    }

    fn transmit(&mut self, _timestamp: Instant) -> Option<Room<'_>> {
        let room = self.has_room();
        self.noted(room).then_some(Room(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = ETHERNET + MTU;
        capabilities
    }
}
