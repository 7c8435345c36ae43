//! Split virtqueues (virtio 1.3, "Split Virtqueues").

use core::sync::atomic::{Ordering, fence};

use zerocopy::FromBytes;

use super::chain::{DESCRIPTOR_SIZE, Descriptor};
use super::{Chain, QueueError, Virtqueue};
use crate::features;
use crate::memory::Window;

// Fields of the available ring; the ring starts at RING, and `used_event` follows it.
const AVAIL_FLAGS: usize = 0;
const AVAIL_INDEX: usize = 2;
const AVAIL_RING: usize = 4;
/// VIRTQ_AVAIL_F_NO_INTERRUPT.
const NO_INTERRUPT: u16 = 1;

// Fields of the used ring; the ring starts at RING, and `avail_event` follows it.
const USED_FLAGS: usize = 0;
const USED_INDEX: usize = 2;
const USED_RING: usize = 4;
/// VIRTQ_USED_F_NO_NOTIFY.
const NO_NOTIFY: u16 = 1;

/// Size in bytes and alignment of one part of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// Size in bytes.
    pub len: usize,
    /// What its address is a multiple of.
    pub align: u64,
}

/// The parts of a queue of `size` entries: descriptor table, available ring, used ring.
pub const fn areas(size: u16) -> [Area; 3] {
    let size = size as usize;
    [
        Area {
            len: DESCRIPTOR_SIZE * size,
            align: 16,
        },
        Area {
            len: 6 + 2 * size,
            align: 2,
        },
        Area {
            len: 6 + 8 * size,
            align: 4,
        },
    ]
}

/// A split virtqueue. Its indices start at 0: the queue is new.
pub struct Split<W> {
    descriptors: W,
    available: W,
    used: W,
    size: u16,
    event_idx: bool,
    indirect: bool,
    /// The available index as last read.
    available_index: u16,
    /// The next entry of the available ring to take.
    next_available: u16,
    /// The next entry of the used ring to fill.
    next_used: u16,
    /// The used index as last published.
    published: u16,
    /// Buffers that were popped and not yet put.
    in_flight: u16,
    /// Whether the driver was asked to notify of the next available entry.
    listening: bool,
}

impl<W: Window> Split<W> {
    /// A queue of `size` entries, a power of two, in windows as large as [`areas`] says; the last one is
    /// writable. `features` are those negotiated.
    pub fn new(descriptors: W, available: W, used: W, size: u16, features: u64) -> Self {
        debug_assert!(size.is_power_of_two());
        let event_idx = features & features::EVENT_IDX != 0;
        Split {
            descriptors,
            available,
            used,
            size,
            event_idx,
            indirect: features & features::INDIRECT_DESC != 0,
            available_index: 0,
            next_available: 0,
            next_used: 0,
            published: 0,
            in_flight: 0,
            // The driver has set flags to 0.
            listening: !event_idx,
        }
    }

    /// The offset of an index in a ring of entries of `entry` bytes.
    fn slot(&self, index: u16, entry: usize) -> usize {
        usize::from(index & (self.size - 1)) * entry
    }

    /// Reads the available index, and tells whether there is anything to pop.
    fn refresh(&mut self) -> Result<bool, QueueError> {
        let index = self.available.read_u16(AVAIL_INDEX);
        // A driver has no more buffers than the queue has entries. What it makes available beyond those in
        // flight cannot be told from an index that moved backwards.
        if index.wrapping_sub(self.next_available) > self.size - self.in_flight {
            return Err(QueueError::AvailableIndex);
        }
        self.available_index = index;
        // Ring entries and descriptors are read after the index that covers them.
        fence(Ordering::Acquire);
        Ok(self.next_available != index)
    }

    fn descriptor(&self, index: u16) -> Descriptor {
        let mut bytes = [0; DESCRIPTOR_SIZE];
        self.descriptors
            .read_bytes(usize::from(index) * DESCRIPTOR_SIZE, &mut bytes);
        match Descriptor::read_from_bytes(&bytes) {
            Ok(descriptor) => descriptor,
            Err(_) => unreachable!("the sizes are equal"),
        }
    }
}

impl<W: Window> Virtqueue for Split<W> {
    fn size(&self) -> u16 {
        self.size
    }

    fn pop(&mut self, chain: &mut Chain) -> Result<bool, QueueError> {
        if self.next_available == self.available_index && !self.refresh()? {
            return Ok(false);
        }
        let head = self
            .available
            .read_u16(AVAIL_RING + self.slot(self.next_available, 2));
        self.next_available = self.next_available.wrapping_add(1);
        self.in_flight += 1;
        // With EVENT_IDX, it is one certain entry that is listened for.
        self.listening &= !self.event_idx;
        chain.clear(head);
        chain.walk(head, self.size, self.indirect, |index| self.descriptor(index))?;
        Ok(true)
    }

    fn put(&mut self, id: u16, written: u32) {
        let at = USED_RING + self.slot(self.next_used, 8);
        self.used.write_u32(at, u32::from(id));
        self.used.write_u32(at + 4, written);
        self.next_used = self.next_used.wrapping_add(1);
        self.in_flight -= 1;
    }

    fn publish(&mut self) -> bool {
        if self.published == self.next_used {
            return false;
        }
        // "The Virtqueue Used Ring": buffers and used elements are written before the index that covers them.
        fence(Ordering::Release);
        self.used.write_u16(USED_INDEX, self.next_used);
        // The index is visible before the driver's wish is read: either the driver, which writes its wish and
        // then looks at the index again, sees the index, or its wish is seen here.
        fence(Ordering::SeqCst);
        let (old, new) = (self.published, self.next_used);
        self.published = new;
        if self.event_idx {
            // "Used Buffer Notification Suppression": one of the entries just written has the index
            // used_event.
            let event = self.available.read_u16(AVAIL_RING + 2 * usize::from(self.size));
            new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
        } else {
            self.available.read_u16(AVAIL_FLAGS) & NO_INTERRUPT == 0
        }
    }

    fn suppress(&mut self) {
        // With EVENT_IDX an avail_event that is not moved on is suppression enough: flags stay 0.
        if !self.event_idx && self.listening {
            self.used.write_u16(USED_FLAGS, NO_NOTIFY);
            self.listening = false;
        }
    }

    fn listen(&mut self) -> Result<bool, QueueError> {
        if !self.listening {
            if self.event_idx {
                self.used
                    .write_u16(USED_RING + 8 * usize::from(self.size), self.next_available);
            } else {
                self.used.write_u16(USED_FLAGS, 0);
            }
            // The wish is visible before the index is read again: see `publish`, with the roles exchanged.
            fence(Ordering::SeqCst);
            self.listening = true;
        }
        Ok(self.next_available != self.available_index || self.refresh()?)
    }
}
