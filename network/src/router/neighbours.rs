//! Which Ethernet address an IPv4 neighbour has, for frames that pass through the router (ARP, RFC 826).
//!
//! What smoltcp sends has smoltcp's own cache.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::Ipv4Addr;

use devices::net::Mac;

use super::nat::Seconds;

/// The most neighbours that are known.
const MAX: usize = 512;
/// How many frames wait for one neighbour.
const WAITING: usize = 8;
/// For how long an address is taken for right without asking again.
const FRESH: Seconds = 60;
/// How often a neighbour is asked, one second apart.
const TRIES: u8 = 3;
/// How many that are not known are asked for in a second: each is a broadcast, which somebody who tries out
/// addresses causes.
const NEW: usize = 128;

struct Neighbour<F> {
    mac: Option<Mac>,
    /// When its address was confirmed, or when it was first asked for.
    since: Seconds,
    /// When it was last asked.
    asked: Seconds,
    /// How often it was asked since it last answered.
    tries: u8,
    waiting: Vec<F>,
}

/// What is to be done about a frame.
pub enum Resolved<F> {
    /// Send it there; if `ask`, ask whether that is still right.
    Known {
        /// Where the neighbour is.
        mac: Mac,
        /// The frame, given back.
        frame: F,
        /// Whether to send a request.
        ask: bool,
    },
    /// It waits; a request is to be sent.
    Ask,
    /// It waits.
    Waits,
    /// Too many wait, or too many were asked for.
    Full,
}

/// The neighbours on one line.
pub struct Neighbours<F> {
    known: BTreeMap<Ipv4Addr, Neighbour<F>>,
    /// How many were asked for that were not known, and in which second.
    new: (Seconds, usize),
}

impl<F> Neighbours<F> {
    /// Nobody is known yet.
    pub fn new() -> Self {
        Self {
            known: BTreeMap::new(),
            new: (0, 0),
        }
    }

    /// Forgets everybody.
    pub fn clear(&mut self) {
        self.known.clear();
    }

    /// Where a frame goes.
    pub fn resolve(&mut self, now: Seconds, address: Ipv4Addr, frame: F) -> Resolved<F> {
        if let Some(neighbour) = self.known.get_mut(&address) {
            return neighbour.resolve(now, frame);
        }
        if self.new.0 != now {
            self.new = (now, 0);
        }
        if self.new.1 == NEW {
            return Resolved::Full;
        }
        self.new.1 += 1;
        self.make_room();
        self.known.insert(
            address,
            Neighbour {
                mac: None,
                since: now,
                asked: now,
                tries: 1,
                waiting: alloc::vec![frame],
            },
        );
        Resolved::Ask
    }

    /// Notes what a neighbour says of itself: always if it was asked or known, and otherwise if `new` says
    /// so. Gives the frames that waited.
    pub fn learn(&mut self, now: Seconds, address: Ipv4Addr, mac: Mac, new: bool) -> Vec<F> {
        let known = self.known.contains_key(&address);
        if mac[0] & 1 != 0 || mac == [0; 6] || !(known || new) {
            return Vec::new();
        }
        if !known {
            self.make_room();
        }
        let neighbour = self.known.entry(address).or_insert(Neighbour {
            mac: None,
            since: now,
            asked: now,
            tries: 0,
            waiting: Vec::new(),
        });
        (neighbour.mac, neighbour.since, neighbour.tries) = (Some(mac), now, 0);
        core::mem::take(&mut neighbour.waiting)
    }

    /// To be called once a second: gives those that are to be asked again, and how many frames got lost
    /// because nobody answered.
    pub fn tick(&mut self, now: Seconds) -> (Vec<Ipv4Addr>, usize) {
        let (mut ask, mut lost) = (Vec::new(), 0);
        self.known.retain(|address, neighbour| {
            let open = neighbour.tries > 0 && neighbour.asked < now;
            if open && neighbour.tries >= TRIES {
                lost += neighbour.waiting.len();
                return false;
            }
            if open && neighbour.mac.is_none() {
                neighbour.tries += 1;
                neighbour.asked = now;
                ask.push(*address);
            }
            true
        });
        (ask, lost)
    }

    /// Keeps the table small: of those that have not answered, or else of all, the one goes that was asked
    /// for or confirmed longest ago. So somebody who tries out addresses does not push out the gateway.
    fn make_room(&mut self) {
        if self.known.len() < MAX {
            return;
        }
        let worth = |neighbour: &Neighbour<F>| (neighbour.mac.is_some(), neighbour.since);
        let oldest = self.known.iter().min_by_key(|(_, neighbour)| worth(neighbour));
        if let Some(address) = oldest.map(|(address, _)| *address) {
            self.known.remove(&address);
        }
    }
}

impl<F> Neighbour<F> {
    fn resolve(&mut self, now: Seconds, frame: F) -> Resolved<F> {
        match self.mac {
            Some(mac) => {
                let ask = now.saturating_sub(self.since) >= FRESH && (self.tries == 0 || self.asked < now);
                if ask {
                    self.tries = self.tries.saturating_add(1);
                    self.asked = now;
                }
                Resolved::Known { mac, frame, ask }
            }
            None if self.waiting.len() >= WAITING => Resolved::Full,
            None => {
                self.waiting.push(frame);
                Resolved::Waits
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const MAC: Mac = [2, 0, 0, 0, 0, 1];

    #[test]
    fn frames_wait_for_the_answer() {
        let mut neighbours = Neighbours::new();
        assert!(matches!(neighbours.resolve(0, A, 0), Resolved::Ask));
        for frame in 1..WAITING {
            assert!(matches!(neighbours.resolve(0, A, frame), Resolved::Waits));
        }
        assert!(matches!(neighbours.resolve(0, A, 99), Resolved::Full));
        assert!(
            neighbours.learn(0, A, [1, 0, 0, 0, 0, 1], true).is_empty(),
            "a group"
        );
        assert_eq!(
            neighbours.learn(1, A, MAC, false),
            (0..WAITING).collect::<Vec<_>>()
        );
        let known = neighbours.resolve(2, A, 5);
        assert!(matches!(
            known,
            Resolved::Known {
                mac: MAC,
                frame: 5,
                ask: false
            }
        ));
    }

    #[test]
    fn nobody_answers() {
        let mut neighbours = Neighbours::new();
        assert!(matches!(neighbours.resolve(0, A, ()), Resolved::Ask));
        assert_eq!(neighbours.tick(0), (vec![], 0));
        assert_eq!(neighbours.tick(1), (vec![A], 0));
        assert_eq!(neighbours.tick(2), (vec![A], 0));
        assert_eq!(neighbours.tick(3), (vec![], 1));
        assert!(neighbours.known.is_empty());
    }

    #[test]
    fn an_old_address_is_confirmed_or_forgotten() {
        let mut neighbours = Neighbours::new();
        neighbours.learn(0, A, MAC, false);
        assert!(neighbours.known.is_empty(), "nobody asked");
        neighbours.learn(0, A, MAC, true);
        for now in FRESH..FRESH + 3 {
            assert!(matches!(
                neighbours.resolve(now, A, ()),
                Resolved::Known { ask: true, .. }
            ));
            assert!(matches!(
                neighbours.resolve(now, A, ()),
                Resolved::Known { ask: false, .. }
            ));
            neighbours.tick(now);
        }
        neighbours.tick(FRESH + 3);
        assert!(matches!(neighbours.resolve(FRESH + 3, A, ()), Resolved::Ask));
    }

    #[test]
    fn trying_out_addresses_pushes_nobody_out() {
        let mut neighbours = Neighbours::new();
        neighbours.learn(0, A, MAC, true);
        let mut asked = 0;
        for n in 0..4 * MAX as u32 {
            let now = 1 + n / MAX as u32;
            let resolved = neighbours.resolve(now, Ipv4Addr::from_bits(n), n);
            asked += usize::from(matches!(resolved, Resolved::Ask));
        }
        assert_eq!(asked, 4 * NEW);
        for n in 0..MAX as u32 {
            neighbours.resolve(10 + n, Ipv4Addr::from_bits(MAX as u32 * 8 + n), n);
        }
        let gateway = neighbours.resolve(5, A, 0);
        assert!(matches!(gateway, Resolved::Known { mac: MAC, .. }));
    }

    #[test]
    fn the_table_is_bounded() {
        let mut neighbours = Neighbours::new();
        for n in 0..2 * MAX as u32 {
            neighbours.resolve(n, Ipv4Addr::from_bits(n), n);
        }
        assert_eq!(neighbours.known.len(), MAX);
        assert!(!neighbours.known.contains_key(&Ipv4Addr::from_bits(0)));
    }
}
