//! Which Ethernet address an IPv4 neighbour has, for frames that pass through the router (ARP, RFC 826).
//!
//! What smoltcp sends has smoltcp's own cache.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::net::Ipv4Addr;

use devices::net::Mac;

use super::nat::Seconds;

/// The most neighbours that are known.
const MAX: usize = 512;
/// How many frames wait for one neighbour.
const WAITING: usize = 4;
/// How many frames wait in all, and what they weigh, in bytes. They are on accounts that others depend on, so
/// neighbours that are not there must not hold many: who is there answers soon, so the oldest goes first.
const ALL_WAITING: (usize, usize) = (64, 256 << 10);
/// For how long an address is taken for right without asking again.
const FRESH: Seconds = 60;
/// How often a neighbour is asked, one second apart.
const TRIES: u8 = 3;
/// How many that are not known are asked for in a second: each is a broadcast, which somebody who tries out
/// addresses causes.
const NEW: usize = 128;

struct Neighbour {
    mac: Option<Mac>,
    /// When its address was confirmed, or when it was first asked for.
    since: Seconds,
    /// When it was last asked.
    asked: Seconds,
    /// How often it was asked since it last answered.
    tries: u8,
}

/// A frame that waits for a neighbour's answer.
struct Waiting<F> {
    address: Ipv4Addr,
    weight: usize,
    frame: F,
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
    /// It is dropped: too many wait, or too many were asked for.
    Full,
}

/// The neighbours on one line.
pub struct Neighbours<F> {
    known: BTreeMap<Ipv4Addr, Neighbour>,
    waiting: VecDeque<Waiting<F>>,
    /// What those weigh.
    weight: usize,
    /// Those that waited in vain since the last tick.
    lost: usize,
    /// How many were asked for that were not known, and in which second.
    new: (Seconds, usize),
}

impl<F> Neighbours<F> {
    /// Nobody is known yet.
    pub fn new() -> Self {
        Self {
            known: BTreeMap::new(),
            waiting: VecDeque::new(),
            weight: 0,
            lost: 0,
            new: (0, 0),
        }
    }

    /// Forgets everybody.
    pub fn clear(&mut self) {
        self.known.clear();
        self.lost += self.take_waiting(|_| true).len();
    }

    /// Where a frame goes, which weighs so many bytes of memory.
    pub fn resolve(&mut self, now: Seconds, address: Ipv4Addr, frame: F, weight: usize) -> Resolved<F> {
        if let Some(neighbour) = self.known.get_mut(&address) {
            if let Some(mac) = neighbour.mac {
                let ask = neighbour.confirm(now);
                return Resolved::Known { mac, frame, ask };
            }
            if self.waiting.iter().filter(|it| it.address == address).count() >= WAITING {
                return Resolved::Full;
            }
            self.wait(address, frame, weight);
            return Resolved::Waits;
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
            },
        );
        self.wait(address, frame, weight);
        Resolved::Ask
    }

    fn wait(&mut self, address: Ipv4Addr, frame: F, weight: usize) {
        self.waiting.push_back(Waiting {
            address,
            weight,
            frame,
        });
        self.weight += weight;
        while self.waiting.len() > ALL_WAITING.0 || self.weight > ALL_WAITING.1 {
            let Some(oldest) = self.waiting.pop_front() else {
                break;
            };
            self.weight -= oldest.weight;
            self.lost += 1;
        }
    }

    /// Those that wait for such addresses, first come first.
    fn take_waiting(&mut self, choose: impl Fn(Ipv4Addr) -> bool) -> Vec<F> {
        let mut taken = Vec::new();
        for _ in 0..self.waiting.len() {
            let Some(waiting) = self.waiting.pop_front() else {
                break;
            };
            if choose(waiting.address) {
                self.weight -= waiting.weight;
                taken.push(waiting.frame);
            } else {
                self.waiting.push_back(waiting);
            }
        }
        taken
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
        let confirmed = Neighbour {
            mac: Some(mac),
            since: now,
            asked: now,
            tries: 0,
        };
        match self.known.insert(address, confirmed) {
            Some(Neighbour { mac: None, .. }) => self.take_waiting(|waits| waits == address),
            _ => Vec::new(),
        }
    }

    /// To be called once a second: gives those that are to be asked again, and how many frames got lost
    /// because nobody answered.
    pub fn tick(&mut self, now: Seconds) -> (Vec<Ipv4Addr>, usize) {
        let (mut ask, mut silent) = (Vec::new(), Vec::new());
        self.known.retain(|address, neighbour| {
            let open = neighbour.tries > 0 && neighbour.asked < now;
            if open && neighbour.tries >= TRIES {
                silent.push(*address);
                return false;
            }
            if open && neighbour.mac.is_none() {
                neighbour.tries += 1;
                neighbour.asked = now;
                ask.push(*address);
            }
            true
        });
        if !silent.is_empty() {
            self.lost += self
                .take_waiting(|waits| silent.binary_search(&waits).is_ok())
                .len();
        }
        (ask, core::mem::take(&mut self.lost))
    }

    /// Keeps the table small: of those that have not answered, or else of all, the one goes that was asked
    /// for or confirmed longest ago. So somebody who tries out addresses does not push out the gateway.
    fn make_room(&mut self) {
        if self.known.len() < MAX {
            return;
        }
        let worth = |neighbour: &Neighbour| (neighbour.mac.is_some(), neighbour.since);
        let oldest = self.known.iter().min_by_key(|(_, neighbour)| worth(neighbour));
        if let Some(address) = oldest.map(|(address, _)| *address) {
            self.known.remove(&address);
            self.lost += self.take_waiting(|waits| waits == address).len();
        }
    }
}

impl Neighbour {
    /// Whether to ask if its address is still right.
    fn confirm(&mut self, now: Seconds) -> bool {
        let ask = now.saturating_sub(self.since) >= FRESH && (self.tries == 0 || self.asked < now);
        if ask {
            self.tries = self.tries.saturating_add(1);
            self.asked = now;
        }
        ask
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
        assert!(matches!(neighbours.resolve(0, A, 0, 1), Resolved::Ask));
        for frame in 1..WAITING {
            assert!(matches!(neighbours.resolve(0, A, frame, 1), Resolved::Waits));
        }
        assert!(matches!(neighbours.resolve(0, A, 99, 1), Resolved::Full));
        assert!(
            neighbours.learn(0, A, [1, 0, 0, 0, 0, 1], true).is_empty(),
            "a group"
        );
        assert_eq!(
            neighbours.learn(1, A, MAC, false),
            (0..WAITING).collect::<Vec<_>>()
        );
        let known = neighbours.resolve(2, A, 5, 1);
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
        assert!(matches!(neighbours.resolve(0, A, (), 1), Resolved::Ask));
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
                neighbours.resolve(now, A, (), 1),
                Resolved::Known { ask: true, .. }
            ));
            assert!(matches!(
                neighbours.resolve(now, A, (), 1),
                Resolved::Known { ask: false, .. }
            ));
            neighbours.tick(now);
        }
        neighbours.tick(FRESH + 3);
        assert!(matches!(neighbours.resolve(FRESH + 3, A, (), 1), Resolved::Ask));
    }

    #[test]
    fn trying_out_addresses_pushes_nobody_out() {
        let mut neighbours = Neighbours::new();
        neighbours.learn(0, A, MAC, true);
        let mut asked = 0;
        for n in 0..4 * MAX as u32 {
            let now = 1 + n / MAX as u32;
            let resolved = neighbours.resolve(now, Ipv4Addr::from_bits(n), n, 1);
            asked += usize::from(matches!(resolved, Resolved::Ask));
        }
        assert_eq!(asked, 4 * NEW);
        for n in 0..MAX as u32 {
            neighbours.resolve(10 + n, Ipv4Addr::from_bits(MAX as u32 * 8 + n), n, 1);
        }
        let gateway = neighbours.resolve(5, A, 0, 1);
        assert!(matches!(gateway, Resolved::Known { mac: MAC, .. }));
    }

    #[test]
    fn what_waits_is_bounded_and_the_oldest_goes() {
        let address = |n: usize| Ipv4Addr::from_bits(n as u32);
        let mut neighbours = Neighbours::new();
        for n in 0..2 * ALL_WAITING.0 {
            assert!(!matches!(
                neighbours.resolve(n as u32, address(n), n, 1),
                Resolved::Full
            ));
        }
        assert_eq!(neighbours.waiting.len(), ALL_WAITING.0);
        let last = 2 * ALL_WAITING.0 - 1;
        assert_eq!(neighbours.learn(200, address(last), MAC, false), [last]);
        assert!(neighbours.learn(200, address(0), MAC, false).is_empty());
        // One that is as large as all that may wait leaves room for nobody else.
        neighbours.resolve(300, address(last + 1), 0, ALL_WAITING.1);
        assert_eq!((neighbours.waiting.len(), neighbours.weight), (1, ALL_WAITING.1));
        neighbours.resolve(301, address(last + 2), 0, ALL_WAITING.1 + 1);
        assert_eq!((neighbours.waiting.len(), neighbours.weight), (0, 0));
        let waited_in_vain = 2 * ALL_WAITING.0 - 1 + 2;
        assert_eq!(neighbours.tick(301).1, waited_in_vain);
    }

    #[test]
    fn the_table_is_bounded() {
        let mut neighbours = Neighbours::new();
        for n in 0..2 * MAX as u32 {
            neighbours.resolve(n, Ipv4Addr::from_bits(n), n, 1);
        }
        assert_eq!(neighbours.known.len(), MAX);
        assert!(!neighbours.known.contains_key(&Ipv4Addr::from_bits(0)));
    }
}
