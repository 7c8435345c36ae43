//! Which station is at which port.

use alloc::collections::BTreeMap;

use devices::net::Mac;

use super::MAX_PORTS;
use super::order::{self, Order};

/// How many turns of the generation an entry outlives that nothing is heard of.
const GENERATIONS: u32 = 10;

/// A learned entry, or one that was given.
enum Entry {
    /// The station is there as long as the port is.
    Static { port: usize },
    /// It was last heard there, in that generation, and has that slot in the port's order.
    Learned { port: usize, slot: u16, heard: u32 },
}

/// What becomes of a frame's source address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// It may be there.
    Plausible,
    /// It belongs to another port.
    Foreign,
}

/// Who learns.
#[derive(Clone, Copy)]
pub(super) struct Learner {
    /// The port.
    pub(super) port: usize,
    /// The most stations that are learned there, and no more than [`order::MAX`].
    pub(super) limit: usize,
    /// It is a client, which takes no stations from other clients, and learns no more when that many are
    /// known.
    pub(super) client: bool,
}

/// The stations of a segment. VLANs are not told apart: a station is at one port, whatever its tags.
pub(super) struct Table {
    stations: BTreeMap<Mac, Entry>,
    generation: u32,
    /// Which were learned at each port.
    learned: [Order; MAX_PORTS],
    /// How many were learned at all of them.
    total: usize,
    /// Which ports are clients.
    clients: [bool; MAX_PORTS],
}

impl Table {
    pub(super) const fn new() -> Self {
        Table {
            stations: BTreeMap::new(),
            generation: 0,
            learned: [const { Order::new() }; MAX_PORTS],
            total: 0,
            clients: [false; MAX_PORTS],
        }
    }

    /// Takes all of a port's stations out.
    pub(super) fn remove_port(&mut self, port: usize) {
        self.stations.retain(|_, entry| entry.port() != port);
        self.total -= self.learned[port].len();
        self.learned[port] = Order::new();
    }

    /// Puts a station where it stays, unless it already has such a place.
    pub(super) fn fix(&mut self, mac: Mac, port: usize) -> bool {
        if let Some(Entry::Static { .. }) = self.stations.get(&mac) {
            return false;
        }
        self.forget(&mac);
        self.stations.insert(mac, Entry::Static { port });
        true
    }

    /// Notes where a station was heard.
    pub(super) fn hear(&mut self, mac: Mac, from: &Learner) -> Source {
        let generation = self.generation;
        self.clients[from.port] = from.client;
        match self.stations.get_mut(&mac) {
            Some(Entry::Static { port }) if *port == from.port => {}
            Some(Entry::Static { .. }) => return Source::Foreign,
            Some(Entry::Learned { port, slot, heard }) if *port == from.port => {
                *heard = generation;
                self.learned[*port].renew(*slot);
            }
            Some(Entry::Learned { port, .. }) if from.client && self.clients[*port] => {}
            _ => {
                if self.make_room(from) {
                    self.forget(&mac);
                    self.learn(mac, from.port);
                }
            }
        }
        Source::Plausible
    }

    /// Whether one more station can be learned at a port. At a full one, or where memory is short, what was
    /// heard longest ago makes room: whoever makes up stations keeps those from being found that are silent,
    /// and no others.
    ///
    /// Not so for a client: it could take over what was learned at an uplink, and then make that be
    /// forgotten, for all there is.
    fn make_room(&mut self, from: &Learner) -> bool {
        let learned = &mut self.learned[from.port];
        if learned.len() < from.limit.min(order::MAX) && learned.has_room() {
            return true;
        }
        let Some(oldest) = learned.oldest().filter(|_| !from.client) else {
            return false;
        };
        self.forget(&oldest);
        true
    }

    /// Puts a station that is not in the table where it was heard. There is room.
    fn learn(&mut self, mac: Mac, port: usize) {
        let slot = self.learned[port].add(mac);
        let heard = self.generation;
        self.stations.insert(mac, Entry::Learned { port, slot, heard });
        self.total += 1;
    }

    /// Takes a station out.
    fn forget(&mut self, mac: &Mac) {
        if let Some(Entry::Learned { port, slot, .. }) = self.stations.remove(mac) {
            self.learned[port].remove(slot);
            self.total -= 1;
        }
    }

    /// The port where a station is.
    pub(super) fn find(&self, mac: &Mac) -> Option<usize> {
        self.stations.get(mac).map(Entry::port)
    }

    /// How many stations are in the table.
    pub(super) fn len(&self) -> usize {
        self.stations.len()
    }

    /// Whether there is anything that can be forgotten.
    pub(super) fn ages(&self) -> bool {
        self.total > 0
    }

    /// Turns the generation, and forgets stations that were not heard of for long.
    pub(super) fn turn(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        for port in 0..MAX_PORTS {
            while let Some(oldest) = self.learned[port].oldest().filter(|mac| self.is_old(mac)) {
                self.forget(&oldest);
            }
        }
    }

    fn is_old(&self, mac: &Mac) -> bool {
        match self.stations.get(mac) {
            Some(Entry::Learned { heard, .. }) => self.generation.wrapping_sub(*heard) > GENERATIONS,
            _ => false,
        }
    }
}

impl Entry {
    fn port(&self) -> usize {
        match self {
            Entry::Static { port } | Entry::Learned { port, .. } => *port,
        }
    }
}
