//! The driver's side of a split virtqueue.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use devices::bus::Doorbell;
use devices::features::{EVENT_IDX, INDIRECT_DESC};

use super::Random;
use super::guest::{BASE, Guest};

/// Both ends of a queue's notifications.
#[derive(Default)]
pub struct Bell {
    kicked: Cell<bool>,
    waker: Cell<Option<Waker>>,
    pub kicks: Cell<usize>,
    /// The device has notified, and the driver has not looked yet.
    pub rung: Cell<bool>,
    pub rings: Cell<usize>,
    /// How many doorbells of the device's exist.
    pub open: Cell<usize>,
    /// None is to be had.
    pub refuse: Cell<bool>,
    /// None is to be had after the next one.
    pub once: Cell<bool>,
}

impl Bell {
    pub fn kick(&self) {
        self.kicks.set(self.kicks.get() + 1);
        self.kicked.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

pub struct BellHandle(Rc<Bell>);

impl BellHandle {
    pub fn new(bell: Rc<Bell>) -> Self {
        bell.open.set(bell.open.get() + 1);
        BellHandle(bell)
    }
}

impl Doorbell for BellHandle {
    fn poll_kick(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.0.kicked.replace(false) {
            return Poll::Ready(());
        }
        self.0.waker.set(Some(context.waker().clone()));
        Poll::Pending
    }

    fn notify(&mut self) {
        self.0.rings.set(self.0.rings.get() + 1);
        self.0.rung.set(true);
    }
}

impl Drop for BellHandle {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
    }
}

/// A segment: where in the guest's memory, how long, and whether the device writes it.
pub type Piece = (usize, usize, bool);

/// Where descriptors go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    Direct,
    /// So many direct ones, and the rest in a table at this place.
    Indirect(usize, usize),
}

/// A driver of one queue.
pub struct Driver {
    pub guest: Rc<Guest>,
    pub bell: Rc<Bell>,
    pub size: u16,
    /// Where its areas are.
    pub areas: [usize; 3],
    event_idx: bool,
    indirect: bool,
    free: Vec<u16>,
    next_available: u16,
    published: u16,
    last_used: u16,
    in_flight: HashMap<u16, Vec<u16>>,
    /// It looks at the used ring when it likes, and wants no notifications.
    pub polling: bool,
}

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

pub fn descriptor(address: u64, len: u32, flags: u16, next: u16) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&address.to_le_bytes());
    bytes[8..12].copy_from_slice(&len.to_le_bytes());
    bytes[12..14].copy_from_slice(&flags.to_le_bytes());
    bytes[14..].copy_from_slice(&next.to_le_bytes());
    bytes
}

impl Driver {
    /// A driver of a new queue; clears its areas.
    pub fn new(guest: Rc<Guest>, bell: Rc<Bell>, size: u16, base: usize, features: u64) -> Self {
        guest.write(base, &[0; 0x3000]);
        Driver {
            guest,
            bell,
            size,
            areas: [base, base + 0x1000, base + 0x2000],
            event_idx: features & EVENT_IDX != 0,
            indirect: features & INDIRECT_DESC != 0,
            free: (0..size).collect(),
            next_available: 0,
            published: 0,
            last_used: 0,
            in_flight: HashMap::new(),
            polling: false,
        }
    }

    /// How many requests are neither used nor taken back.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Makes a chain and puts it in the available ring, invisibly. `None` if there is no room.
    pub fn add(&mut self, pieces: &[Piece], layout: Layout, random: &mut Random) -> Option<u16> {
        let (direct, table) = match layout {
            Layout::Indirect(direct, at) if self.indirect => (direct.min(pieces.len()), Some(at)),
            _ => (pieces.len(), None),
        };
        let needed = direct + usize::from(table.is_some());
        if needed > self.free.len() || needed == 0 {
            return None;
        }
        let indices: Vec<u16> = (0..needed)
            .map(|_| self.free.swap_remove(random.below(self.free.len())))
            .collect();
        for (n, index) in indices.iter().enumerate() {
            let next = indices.get(n + 1);
            let link = if next.is_some() { NEXT } else { 0 };
            let bytes = match pieces.get(n) {
                Some(piece) if n < direct => entry(*piece, link, next.copied().unwrap_or(0)),
                // The device has to ignore WRITE in a descriptor of a table.
                _ => descriptor(
                    BASE + table.unwrap() as u64,
                    16 * (pieces.len() - direct) as u32,
                    INDIRECT | if random.below(2) == 0 { WRITE } else { 0 },
                    random.next() as u16,
                ),
            };
            self.guest.write(self.areas[0] + 16 * usize::from(*index), &bytes);
        }
        if let Some(at) = table {
            // The first entry of a table is the first of the chain; the others may be in any order.
            let rest = &pieces[direct..];
            if rest.is_empty() {
                // No entries: not a table. Such a chain is not for well-behaved drivers.
                panic!("an empty table");
            }
            let mut places: Vec<u16> = (0..rest.len() as u16).collect();
            for i in 2..places.len() {
                places.swap(i, 1 + random.below(i));
            }
            for (n, piece) in rest.iter().enumerate() {
                let next = places.get(n + 1);
                let bytes = entry(
                    *piece,
                    if next.is_some() { NEXT } else { 0 },
                    next.copied().unwrap_or(0),
                );
                self.guest.write(at + 16 * usize::from(places[n]), &bytes);
            }
        }
        let head = indices[0];
        let slot = usize::from(self.next_available % self.size);
        self.guest
            .write(self.areas[1] + 4 + 2 * slot, &head.to_le_bytes());
        self.next_available = self.next_available.wrapping_add(1);
        self.in_flight.insert(head, indices);
        Some(head)
    }

    /// Makes available what was added, and notifies if the device wants that.
    pub fn publish(&mut self) {
        let exposed = self.expose();
        self.kick_if_wanted(exposed);
    }

    /// Makes available what was added; gives the available index before and after.
    pub fn expose(&mut self) -> (u16, u16) {
        let old = std::mem::replace(&mut self.published, self.next_available);
        self.guest.write(self.areas[1] + 2, &self.published.to_le_bytes());
        (old, self.published)
    }

    /// Notifies the device of what was exposed, if it wants that.
    pub fn kick_if_wanted(&mut self, (old, new): (u16, u16)) {
        let wanted = if self.event_idx {
            let event = self
                .guest
                .read_u16(self.areas[2] + 4 + 8 * usize::from(self.size));
            // Whether the entry with index `event` is one of those between old and new.
            (0..new.wrapping_sub(old)).any(|n| old.wrapping_add(n) == event)
        } else {
            old != new && self.guest.read_u16(self.areas[2]) & 1 == 0
        };
        if wanted {
            self.bell.kick();
        }
    }

    /// Takes the used buffers: heads, and how many bytes were written.
    pub fn take_used(&mut self) -> Vec<(u16, u32)> {
        let mut used = Vec::new();
        while self.guest.read_u16(self.areas[2] + 2) != self.last_used {
            let at = self.areas[2] + 4 + 8 * usize::from(self.last_used % self.size);
            let (head, len) = (self.guest.read_u32(at) as u16, self.guest.read_u32(at + 4));
            let indices = self.in_flight.remove(&head).expect("a head is returned once");
            self.free.extend(indices);
            self.last_used = self.last_used.wrapping_add(1);
            used.push((head, len));
        }
        used
    }

    /// Says whether to be notified of used buffers from here on.
    pub fn listen(&mut self) {
        if self.event_idx {
            let event = if self.polling {
                self.last_used.wrapping_sub(1)
            } else {
                self.last_used
            };
            let at = self.areas[1] + 4 + 2 * usize::from(self.size);
            self.guest.write(at, &event.to_le_bytes());
        } else {
            self.guest
                .write(self.areas[1], &u16::from(self.polling).to_le_bytes());
        }
    }

    /// Whether there are used buffers to take.
    pub fn used(&self) -> bool {
        self.guest.read_u16(self.areas[2] + 2) != self.last_used
    }
}

fn entry((at, len, writable): Piece, link: u16, next: u16) -> [u8; 16] {
    descriptor(
        BASE + at as u64,
        len as u32,
        link | if writable { WRITE } else { 0 },
        next,
    )
}
