//! A queue: a transmit and a receive ring, and the port's frames in between.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;

use devices::memory::Buffer as _;
use devices::net::offload::Parts;
use devices::net::{ETHERNET_HEADER, Frame, MAX_FRAME, Offload, Port};
use protocols::netif::nodes::Features;
use protocols::netif::tx::Refused;
use protocols::netif::wire::MAX_FRAGMENTS;
use protocols::netif::{Broken, Info};

use super::counters::Counters;
use super::offload;
use super::receive::{Receive, Received, Short};
use super::transmit::{Sent, Transmit};
use super::uplink::Shared;
use crate::event::EventChannel;
use crate::mm::PAGE_SIZE;
use crate::packets::Packet;
use crate::time::{self, Sleep};

/// How much work one turn does each way before other tasks run.
const TURN_FRAMES: usize = 64;
const TURN_BYTES: usize = 256 << 10;

/// After which time it is tried again to grant pages.
const GRANT_RETRY: Duration = Duration::from_secs(1);

/// One event channel for both rings, or one for each.
pub(super) struct Channels {
    pub tx: EventChannel,
    pub rx: Option<EventChannel>,
}

impl Channels {
    /// Notifies the back end of what is new on the rings; returns how many notifications that took.
    pub fn notify(&self, tx: bool, rx: bool) -> u64 {
        match &self.rx {
            Some(channel) if rx => {
                channel.notify();
                1 + if tx { self.notify(true, false) } else { 0 }
            }
            _ if tx || rx => {
                self.tx.notify();
                1
            }
            _ => 0,
        }
    }

    /// Consumes all notifications and registers the task for the next; how many there were.
    fn poll(&self, context: &mut Context<'_>) -> u64 {
        let mut events = 0;
        for channel in [Some(&self.tx), self.rx.as_ref()].into_iter().flatten() {
            while channel.poll_wait(context).is_ready() {
                events += 1;
            }
        }
        events
    }
}

/// A queue of a connection.
pub(super) struct Queue<P> {
    pub index: u16,
    pub port: P,
    pub shared: Rc<Shared>,
    pub features: Features,
    pub receive: Receive,
    pub transmit: Transmit,
    pub channels: Channels,
    /// The frame that is being finished in software, and the packets that are still to be made of it.
    pub finishing: Option<(Frame<Packet>, Parts)>,
    /// Wakes the task when grants have run out.
    pub retry: Option<Sleep>,
    /// Kept to be filled again.
    pub scratch: Vec<u8>,
}

impl<P: Port<Buffer = Packet>> Queue<P> {
    /// Does what there is to do; `Ready` if the back end cannot be talked to any more.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Broken> {
        let events = self.channels.poll(context);
        self.count(|counters| counters.events += events);
        match self.turn(context) {
            Ok(more) => {
                if more {
                    context.waker().wake_by_ref();
                }
                Poll::Pending
            }
            Err(broken) => Poll::Ready(broken),
        }
    }

    /// One turn: a bounded amount of work. Returns whether there is more.
    fn turn(&mut self, context: &mut Context<'_>) -> Result<bool, Broken> {
        let mut more = self.receive_frames()?;
        more |= self.refill(context);
        let failed = self.transmit.reap()?;
        more |= self.send_frames(context);
        let (tx, rx) = (self.transmit.push(), self.receive.push());
        let notifications = self.channels.notify(tx, rx);
        self.count(|counters| {
            counters.tx_failed += failed;
            counters.notifications += notifications;
        });
        // Both are to be asked, so that both give notifications again.
        more |= self.transmit.final_check()?;
        if !more {
            more = self.receive.final_check()?;
        }
        Ok(more)
    }

    /// Posts pages. Where that is not all that the back end is to have, the task is woken to try again: with
    /// too few, the back end may never have anything to say. Returns whether it may try at once.
    fn refill(&mut self, context: &mut Context<'_>) -> bool {
        self.retry = None;
        match self.receive.refill(&self.shared.pool) {
            Ok(()) => false,
            Err(Short::Memory) => {
                self.count(|counters| counters.rx_no_memory += 1);
                let free = self.shared.pool.poll_free(PAGE_SIZE, context.waker());
                free.is_ready()
            }
            Err(Short::Grants) => {
                self.count(|counters| counters.rx_no_grant += 1);
                let retry = self.retry.insert(time::sleep(GRANT_RETRY));
                Pin::new(retry).poll(context).is_ready()
            }
        }
    }

    fn receive_frames(&mut self) -> Result<bool, Broken> {
        let (mut frames, mut bytes) = (0, 0);
        while frames < TURN_FRAMES && bytes < TURN_BYTES {
            match self.receive.take()? {
                None => return Ok(false),
                Some(Received::Part) => {}
                Some(Received::Failed) => {
                    frames += 1;
                    self.count(|counters| counters.rx_failed += 1);
                }
                Some(Received::Frame(packet, info)) => {
                    frames += 1;
                    bytes += packet.len();
                    self.deliver(packet, &info);
                }
            }
        }
        Ok(true)
    }

    fn deliver(&self, packet: Packet, info: &Info) {
        let len = packet.len();
        let sound = (ETHERNET_HEADER..=MAX_FRAME).contains(&len);
        let Some(offload) = sound.then(|| offload::of_received(&packet, info)).flatten() else {
            return self.count(|counters| counters.rx_malformed += 1);
        };
        self.count(|counters| {
            counters.rx_packets += 1;
            counters.rx_bytes += len as u64;
            counters.rx_segmented += u64::from(offload.segmentation.is_some());
        });
        self.port.send(Frame::new(packet, offload, None));
    }

    /// Sends what the port has for the back end. Returns whether there is more to do at once.
    fn send_frames(&mut self, context: &mut Context<'_>) -> bool {
        let (mut frames, mut bytes) = (0, 0);
        while frames < TURN_FRAMES && bytes < TURN_BYTES {
            if !self.transmit.has_room() {
                // Answers make room, and wake this task.
                self.count(|counters| counters.tx_ring_full += 1);
                return false;
            }
            frames += 1;
            bytes += match self.finishing.take() {
                Some((frame, parts)) => self.finish(frame, parts),
                None => match self.port.poll_receive(self.index, context) {
                    Poll::Ready(frame) => self.send_frame(frame),
                    Poll::Pending => return false,
                },
            };
        }
        true
    }

    /// Sends a frame, or starts to finish it in software; returns the bytes sent.
    fn send_frame(&mut self, frame: Frame<Packet>) -> usize {
        let abilities = offload::abilities(&frame, &self.features);
        let Some(parts) = Parts::new(&frame, abilities) else {
            self.count(|counters| counters.tx_unfit += 1);
            return 0;
        };
        if !parts.segments() && !parts.checksums() && self.takes(frame.buffer()) {
            let offload = frame.offload;
            return self.put(&Sent::new(frame, None), &offload);
        }
        self.count(|counters| counters.tx_software += 1);
        self.finish(frame, parts)
    }

    /// Whether the back end takes a packet in the pieces that it is in. Those of another back end may be of
    /// any size, and Linux has stumbled over headers in many small ones (XSA-432).
    fn takes(&self, packet: &Packet) -> bool {
        let (.., first) = packet.fragment(0);
        packet.fragments() == 1
            || self.features.scatter_gather
                && packet.fragments() < MAX_FRAGMENTS
                && usize::from(first) >= usize::from(offload::AT_HAND).min(packet.len())
    }

    /// Sends the next packet that a frame becomes, and keeps the rest for later; returns the bytes sent.
    fn finish(&mut self, frame: Frame<Packet>, mut parts: Parts) -> usize {
        let Some(len) = parts.next_len() else { return 0 };
        if len > PAGE_SIZE && !self.features.scatter_gather {
            self.count(|counters| counters.tx_unfit += 1);
            return 0;
        }
        let Some(packet) = self.shared.pool.allocate(len) else {
            self.count(|counters| counters.tx_no_memory += 1);
            return 0;
        };
        let mut part = Frame::new(packet, Offload::default(), None);
        if !parts.fill(frame.buffer(), &mut part, &mut self.scratch) {
            return 0;
        }
        let offload = part.offload;
        let origin = Some(frame.clone());
        if parts.next_len().is_some() {
            self.finishing = Some((frame, parts));
        }
        self.put(&Sent::new(part, origin), &offload)
    }

    /// Puts a frame on the ring; returns its bytes.
    fn put(&mut self, sent: &Sent, offload: &Offload) -> usize {
        let len = sent.len();
        let result = self.transmit.send(sent, &offload::to_info(offload));
        self.count(|counters| match result {
            Ok(()) => {
                counters.tx_packets += 1;
                counters.tx_bytes += len as u64;
                counters.tx_segmented += u64::from(offload.segmentation.is_some());
            }
            Err(Refused::Unfit | Refused::Full) => counters.tx_unfit += 1,
            Err(Refused::Grant(_)) => counters.tx_no_memory += 1,
        });
        len
    }

    fn count(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut self.shared.counters.borrow_mut());
    }
}
