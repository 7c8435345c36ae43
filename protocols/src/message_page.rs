//! The message page of the virtio-msg bus: two rings of messages in one granted page, as
//! `docs/virtio-msg-xen.md` section 2 lays it out.
//!
//! The same code serves both ends. It works on a [`Page`], so that it runs on a granted page and, in tests,
//! on an array. The peer may write any byte at any time: its indices are checked at every use, and a message
//! is copied out before it is looked at.

use core::sync::atomic::{Ordering, fence};

/// Bytes in a slot, and so the most that a message has.
pub const SLOT_SIZE: usize = 128;
/// Slots in a ring.
pub const SLOTS: u32 = 8;
/// The least that a message has: its header.
pub const HEADER_SIZE: usize = 8;
/// Offset of `msg_size` in a message's header.
const MSG_SIZE_OFFSET: usize = 6;

/// Access to the message page. Offsets are below 4096 and aligned to the width of the access.
pub trait Page {
    /// Reads 32 bits, once.
    fn read_u32(&self, offset: usize) -> u32;
    /// Writes 32 bits, once.
    fn write_u32(&self, offset: usize, value: u32);
    /// Copies bytes out.
    fn read_bytes(&self, offset: usize, to: &mut [u8]);
    /// Copies bytes in.
    fn write_bytes(&self, offset: usize, from: &[u8]);
}

/// Which end of the page one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The front end, with the driver.
    Driver,
    /// The back end, with the device.
    Device,
}

/// The peer broke the rules of the page; nothing more can be read from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The peer's index is further from ours than a ring is long.
    Index {
        /// What the peer's index says.
        peer: u32,
        /// What our index says.
        own: u32,
    },
    /// `msg_size` is not from 8 to 128.
    MessageSize(u16),
}

impl core::fmt::Display for Violation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Index { peer, own } => {
                write!(f, "message ring index {peer} is more than {SLOTS} from {own}")
            }
            Self::MessageSize(size) => {
                write!(
                    f,
                    "message of {size} bytes, expected {HEADER_SIZE} to {SLOT_SIZE}"
                )
            }
        }
    }
}

/// A message, copied from the page.
#[derive(Clone, Copy)]
pub struct Message {
    bytes: [u8; SLOT_SIZE],
    len: usize,
}

impl Message {
    /// Header and payload: 8 to 128 bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// What a receive found.
#[derive(Clone, Copy)]
pub struct Received {
    /// The message.
    pub message: Message,
    /// The ring was full until now: the peer may wait for room, so it is to be notified.
    pub was_full: bool,
}

struct Offsets {
    send_prod: usize,
    send_cons: usize,
    send_slots: usize,
    recv_prod: usize,
    recv_cons: usize,
    recv_slots: usize,
}

const DRIVER: Offsets = Offsets {
    send_prod: 0x000,
    recv_cons: 0x004,
    recv_prod: 0x040,
    send_cons: 0x044,
    send_slots: 0x400,
    recv_slots: 0x800,
};

const DEVICE: Offsets = Offsets {
    send_prod: DRIVER.recv_prod,
    recv_cons: DRIVER.send_cons,
    recv_prod: DRIVER.send_prod,
    send_cons: DRIVER.recv_cons,
    send_slots: DRIVER.recv_slots,
    recv_slots: DRIVER.send_slots,
};

/// One end of the two rings. It keeps its own indices in private memory; the page only shows them to the
/// peer.
pub struct Endpoint<P> {
    page: P,
    offsets: &'static Offsets,
    sent: u32,
    received: u32,
}

impl<P: Page> Endpoint<P> {
    /// Takes up one end of a page on which no message has passed.
    pub fn new(page: P, side: Side) -> Self {
        let offsets = match side {
            Side::Driver => &DRIVER,
            Side::Device => &DEVICE,
        };
        Self {
            page,
            offsets,
            sent: 0,
            received: 0,
        }
    }

    /// How many messages can be sent now.
    ///
    /// # Errors
    /// When the peer's index makes no sense.
    pub fn room(&self) -> Result<u32, Violation> {
        let consumed = self.page.read_u32(self.offsets.send_cons);
        // The slots that the peer gave back are written only after its index was read.
        fence(Ordering::Acquire);
        let used = self.sent.wrapping_sub(consumed);
        if used > SLOTS {
            return Err(Violation::Index {
                peer: consumed,
                own: self.sent,
            });
        }
        Ok(SLOTS - used)
    }

    /// Sends a message of 8 to 128 bytes, with `msg_size` set to its length, after [`room`](Self::room) said
    /// that there is room. The caller then notifies the peer.
    ///
    /// # Panics
    /// If the message is shorter than a header or longer than a slot.
    pub fn send(&mut self, message: &[u8]) {
        assert!((HEADER_SIZE..=SLOT_SIZE).contains(&message.len()));
        self.page
            .write_bytes(slot(self.offsets.send_slots, self.sent), message);
        self.sent = self.sent.wrapping_add(1);
        // The peer may see the index only after the slot.
        fence(Ordering::Release);
        self.page.write_u32(self.offsets.send_prod, self.sent);
        // It sees the index before `room` is asked for: either that finds what the peer has given back by now,
        // or the peer finds that the ring was full.
        fence(Ordering::SeqCst);
    }

    /// Whether the peer has sent something that was not received yet.
    ///
    /// # Errors
    /// When the peer's index makes no sense.
    pub fn pending(&self) -> Result<u32, Violation> {
        let produced = self.page.read_u32(self.offsets.recv_prod);
        // The slots are read only after the index that covers them.
        fence(Ordering::Acquire);
        let pending = produced.wrapping_sub(self.received);
        if pending > SLOTS {
            return Err(Violation::Index {
                peer: produced,
                own: self.received,
            });
        }
        Ok(pending)
    }

    /// Takes the oldest message, if there is one.
    ///
    /// # Errors
    /// When the peer's index or the message's size makes no sense; the page is then not to be used any more.
    pub fn receive(&mut self) -> Result<Option<Received>, Violation> {
        let pending = self.pending()?;
        if pending == 0 {
            return Ok(None);
        }
        let mut bytes = [0; SLOT_SIZE];
        self.page
            .read_bytes(slot(self.offsets.recv_slots, self.received), &mut bytes);
        let size = u16::from_le_bytes([bytes[MSG_SIZE_OFFSET], bytes[MSG_SIZE_OFFSET + 1]]);
        let len = usize::from(size);
        if !(HEADER_SIZE..=SLOT_SIZE).contains(&len) {
            return Err(Violation::MessageSize(size));
        }
        let before = self.received;
        self.received = before.wrapping_add(1);
        // The slot is given back only after it was copied.
        fence(Ordering::Release);
        self.page.write_u32(self.offsets.recv_cons, self.received);
        // The peer sees the index before its own is read again: it may have filled the ring since it was read
        // first, and wait because it found no room.
        fence(Ordering::SeqCst);
        let produced = self.page.read_u32(self.offsets.recv_prod);
        Ok(Some(Received {
            message: Message { bytes, len },
            was_full: produced.wrapping_sub(before) >= SLOTS,
        }))
    }
}

fn slot(ring: usize, index: u32) -> usize {
    ring + (index % SLOTS) as usize * SLOT_SIZE
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::{Cell, RefCell};
    use std::{collections::VecDeque, rc::Rc, vec, vec::Vec};

    #[derive(Clone)]
    struct Array(Rc<RefCell<Vec<u8>>>);

    impl Array {
        fn new() -> Self {
            Self(Rc::new(RefCell::new(vec![0; 4096])))
        }
    }

    impl Page for Array {
        fn read_u32(&self, offset: usize) -> u32 {
            u32::from_le_bytes(self.0.borrow()[offset..offset + 4].try_into().unwrap())
        }
        fn write_u32(&self, offset: usize, value: u32) {
            self.0.borrow_mut()[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
        }
        fn read_bytes(&self, offset: usize, to: &mut [u8]) {
            to.copy_from_slice(&self.0.borrow()[offset..offset + to.len()]);
        }
        fn write_bytes(&self, offset: usize, from: &[u8]) {
            self.0.borrow_mut()[offset..offset + from.len()].copy_from_slice(from);
        }
    }

    fn message(len: usize, fill: u8) -> Vec<u8> {
        let mut bytes = vec![fill; len];
        bytes[6..8].copy_from_slice(&(len as u16).to_le_bytes());
        bytes
    }

    proptest! {
        /// Whatever the two ends do, each receives what the other sent, in order, and never more than eight
        /// are under way.
        #[test]
        fn both_directions_are_queues(steps in prop::collection::vec((any::<bool>(), any::<bool>(), 8usize..=128, any::<u8>()), 0..200)) {
            let page = Array::new();
            let mut ends = [Endpoint::new(page.clone(), Side::Driver), Endpoint::new(page, Side::Device)];
            let mut queues = [VecDeque::new(), VecDeque::new()];
            for (end, send, len, fill) in steps {
                let end = usize::from(end);
                if send {
                    let room = ends[end].room().unwrap() as usize;
                    prop_assert_eq!(room, 8 - queues[end].len());
                    if room > 0 {
                        let bytes = message(len, fill);
                        ends[end].send(&bytes);
                        queues[end].push_back(bytes);
                    }
                } else {
                    let full = queues[1 - end].len() == 8;
                    let received = ends[end].receive().unwrap();
                    prop_assert_eq!(received.map(|r| r.message.bytes().to_vec()), queues[1 - end].pop_front());
                    prop_assert_eq!(received.is_some_and(|r| r.was_full), full);
                }
            }
        }

        /// No contents of the page make an end panic or take more than a ring's worth.
        #[test]
        fn hostile_page(contents in prop::collection::vec(any::<u8>(), 4096)) {
            let page = Array::new();
            let mut end = Endpoint::new(page.clone(), Side::Device);
            page.0.borrow_mut().copy_from_slice(&contents);
            let _ = end.room();
            let mut taken = 0;
            while let Ok(Some(received)) = end.receive() {
                prop_assert!((HEADER_SIZE..=SLOT_SIZE).contains(&received.message.bytes().len()));
                taken += 1;
                prop_assert!(taken <= SLOTS);
            }
        }
    }

    /// A page that lets something happen before one of the accesses to it.
    struct Interrupted<F> {
        page: Array,
        countdown: Cell<Option<u32>>,
        interrupt: F,
    }

    impl<F: Fn()> Interrupted<F> {
        fn count(&self) {
            let left = self.countdown.get();
            if left == Some(0) {
                (self.interrupt)();
            }
            self.countdown.set(left.and_then(|left| left.checked_sub(1)));
        }
    }

    impl<F: Fn()> Page for Interrupted<F> {
        fn read_u32(&self, offset: usize) -> u32 {
            self.count();
            self.page.read_u32(offset)
        }
        fn write_u32(&self, offset: usize, value: u32) {
            self.count();
            self.page.write_u32(offset, value);
        }
        fn read_bytes(&self, offset: usize, to: &mut [u8]) {
            self.count();
            self.page.read_bytes(offset, to);
        }
        fn write_bytes(&self, offset: usize, from: &[u8]) {
            self.count();
            self.page.write_bytes(offset, from);
        }
    }

    /// Whenever a sender fills the ring and then waits because there is no room, the receiver finds that it
    /// was full: between any two accesses, and however many messages there were before.
    #[test]
    fn a_sender_that_waits_for_room_is_notified() {
        for (before, countdown) in (0..SLOTS).flat_map(|before| (0..40).map(move |count| (before, count))) {
            let page = Array::new();
            let mut device = Endpoint::new(page.clone(), Side::Device);
            (0..before).for_each(|_| device.send(&message(8, 0)));
            let (device, waits) = (RefCell::new(device), Cell::new(false));
            let mut driver = Endpoint::new(
                Interrupted {
                    page,
                    countdown: Cell::new(Some(countdown)),
                    interrupt: || {
                        let mut device = device.borrow_mut();
                        while device.room().unwrap() > 0 {
                            device.send(&message(8, 0));
                        }
                        waits.set(true);
                    },
                },
                Side::Driver,
            );
            let mut notified = false;
            while let Some(received) = driver.receive().unwrap() {
                notified |= waits.get() && received.was_full;
            }
            assert_eq!(
                waits.get(),
                notified,
                "{before} unread, interrupted at {countdown}"
            );
        }
    }

    #[test]
    fn indices_wrap() {
        let page = Array::new();
        let mut driver = Endpoint::new(page.clone(), Side::Driver);
        let mut device = Endpoint::new(page.clone(), Side::Device);
        driver.sent = u32::MAX;
        device.received = u32::MAX;
        page.write_u32(DRIVER.send_prod, u32::MAX);
        page.write_u32(DRIVER.send_cons, u32::MAX);
        for fill in 0..16 {
            driver.send(&message(8, fill));
            assert_eq!(device.receive().unwrap().unwrap().message.bytes()[0], fill);
        }
    }

    #[test]
    fn violations_are_named() {
        let page = Array::new();
        let mut device = Endpoint::new(page.clone(), Side::Device);
        page.write_u32(DRIVER.send_prod, 9);
        assert_eq!(device.receive().err(), Some(Violation::Index { peer: 9, own: 0 }));
        page.write_u32(DRIVER.send_prod, 1);
        assert_eq!(device.receive().err(), Some(Violation::MessageSize(0)));
        page.write_u32(DRIVER.recv_cons, 1);
        assert_eq!(device.room(), Err(Violation::Index { peer: 1, own: 0 }));
    }
}
