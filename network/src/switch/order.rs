//! Stations in the order in which they were last heard.

use alloc::vec::Vec;

use devices::net::Mac;

/// No slot.
const NONE: u16 = u16::MAX;

/// The most stations of an order.
pub(super) const MAX: usize = NONE as usize;

/// The stations of one port, each in a slot of its own for as long as it is there. Whatever is done takes the
/// same time however many there are.
pub(super) struct Order {
    slots: Vec<Slot>,
    oldest: u16,
    newest: u16,
    /// The first slot that is free; each names the next as its `newer`.
    free: u16,
    len: usize,
}

struct Slot {
    mac: Mac,
    older: u16,
    newer: u16,
}

impl Order {
    pub(super) const fn new() -> Self {
        Order {
            slots: Vec::new(),
            oldest: NONE,
            newest: NONE,
            free: NONE,
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The station that was heard longest ago.
    pub(super) fn oldest(&self) -> Option<Mac> {
        self.slots.get(usize::from(self.oldest)).map(|slot| slot.mac)
    }

    /// Whether there is memory for one more station.
    pub(super) fn has_room(&mut self) -> bool {
        self.free != NONE || self.slots.try_reserve(1).is_ok()
    }

    /// Adds a station as the newest, and tells its slot. There are less than [`MAX`], and there
    /// [is room](Self::has_room).
    pub(super) fn add(&mut self, mac: Mac) -> u16 {
        let slot = Slot {
            mac,
            older: NONE,
            newer: NONE,
        };
        let index = self.free;
        let index = match self.slots.get_mut(usize::from(index)) {
            Some(free) => {
                self.free = free.newer;
                *free = slot;
                index
            }
            None => {
                self.slots.push(slot);
                (self.slots.len() - 1) as u16
            }
        };
        self.len += 1;
        self.link(index);
        index
    }

    /// Makes a station the newest.
    pub(super) fn renew(&mut self, index: u16) {
        if index != self.newest {
            self.unlink(index);
            self.link(index);
        }
    }

    /// Takes a station out.
    pub(super) fn remove(&mut self, index: u16) {
        self.unlink(index);
        self.slot(index).newer = self.free;
        self.free = index;
        self.len -= 1;
    }

    fn link(&mut self, index: u16) {
        let newest = self.newest;
        let slot = self.slot(index);
        (slot.older, slot.newer) = (newest, NONE);
        match newest {
            NONE => self.oldest = index,
            newest => self.slot(newest).newer = index,
        }
        self.newest = index;
    }

    fn unlink(&mut self, index: u16) {
        let Slot { older, newer, .. } = *self.slot(index);
        match older {
            NONE => self.oldest = newer,
            older => self.slot(older).newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.slot(newer).older = older,
        }
    }

    fn slot(&mut self, index: u16) -> &mut Slot {
        &mut self.slots[usize::from(index)]
    }
}
