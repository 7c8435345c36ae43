//! Which station has which address.

use alloc::collections::{BTreeMap, VecDeque};
use core::hash::Hasher;
use core::net::Ipv4Addr;
use core::ops::RangeInclusive;

use devices::net::Mac;

use crate::hash::Fnv;
use crate::router::Reservations;
use crate::router::nat::Seconds;

/// The most stations that are remembered.
const MAX_LEASES: usize = 1024;
/// The most addresses that are avoided because they were declined. The one that was declined first may be
/// used again.
const MAX_DECLINED: usize = 16;
/// For how long an address is kept for a station that it was offered to.
const OFFERED: Seconds = 60;

struct Lease {
    address: Ipv4Addr,
    /// It is another's to have from then on; until somebody needs it, the station gets it again.
    until: Seconds,
}

/// The addresses of a pool, and who has them.
///
/// A station gets the address again that it had; one that is new gets the address that its own Ethernet
/// address stands for, or the next that is free. So addresses mostly stay the same even when everything is
/// forgotten.
pub struct Leases {
    pool: RangeInclusive<u32>,
    /// The router's own address, which lies in the pool maybe.
    own: Ipv4Addr,
    duration: Seconds,
    reserved: Reservations,
    by_station: BTreeMap<Mac, Lease>,
    by_address: BTreeMap<Ipv4Addr, Mac>,
    declined: VecDeque<Ipv4Addr>,
}

impl Leases {
    /// Nobody has an address yet.
    pub fn new(pool: (Ipv4Addr, Ipv4Addr), own: Ipv4Addr, duration: Seconds, reserved: Reservations) -> Self {
        Self {
            pool: pool.0.to_bits()..=pool.1.to_bits(),
            own,
            duration,
            reserved,
            by_station: BTreeMap::new(),
            by_address: BTreeMap::new(),
            declined: VecDeque::new(),
        }
    }

    /// How many leases have not ended.
    pub fn len(&self, now: Seconds) -> usize {
        self.by_station.values().filter(|lease| lease.until > now).count()
    }

    /// How long a lease lasts.
    pub fn duration(&self) -> Seconds {
        self.duration
    }

    /// Keeps an address for a station for a short time: the one that it shall have, or else the one that it
    /// had, or asks for, or another.
    pub fn offer(&mut self, now: Seconds, station: Mac, wanted: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
        let had = self.by_station.get(&station).map(|lease| lease.address);
        let reserved = self.reserved(station);
        let address = match reserved {
            Some(_) => reserved.filter(|address| self.may_have(now, station, *address)),
            None => [had, wanted]
                .into_iter()
                .flatten()
                .find(|address| self.may_have(now, station, *address))
                .or_else(|| self.search(now, station))
                .or_else(|| self.search_declined(now, station)),
        }?;
        let until = now + OFFERED;
        let kept = self.by_station.get(&station);
        let until = kept.map_or(until, |lease| {
            if lease.address == address {
                lease.until.max(until)
            } else {
                until
            }
        });
        self.assign(now, station, address, until).then_some(address)
    }

    /// Gives a station an address that it asks for, if it may have that.
    pub fn bind(&mut self, now: Seconds, station: Mac, address: Ipv4Addr) -> bool {
        self.reserved(station).is_none_or(|reserved| reserved == address)
            && self.may_have(now, station, address)
            && self.assign(now, station, address, now.saturating_add(self.duration))
    }

    /// The station does not need its address any more.
    pub fn release(&mut self, now: Seconds, station: Mac, address: Ipv4Addr) {
        if let Some(lease) = self.by_station.get_mut(&station)
            && lease.address == address
        {
            lease.until = now;
        }
    }

    /// The station says that somebody uses its address.
    pub fn decline(&mut self, station: Mac, address: Ipv4Addr) {
        if self.by_address.get(&address) != Some(&station) {
            return;
        }
        self.by_address.remove(&address);
        self.by_station.remove(&station);
        if self.declined.len() == MAX_DECLINED {
            self.declined.pop_front();
        }
        self.declined.push_back(address);
    }

    /// The only address that a station is to have, if there is one.
    fn reserved(&self, station: Mac) -> Option<Ipv4Addr> {
        let reserved = self.reserved.borrow();
        let own = reserved.iter().find(|(owner, _)| *owner == station);
        own.map(|(_, address)| *address)
    }

    /// Whether somebody else has an address, or is to have it.
    pub fn is_of_another(&self, now: Seconds, address: Ipv4Addr, station: Mac) -> bool {
        match self.owner(address) {
            Some(owner) => owner != station,
            None => !self.is_free(now, station, address),
        }
    }

    /// The only station that is to have an address, if there is one.
    fn owner(&self, address: Ipv4Addr) -> Option<Mac> {
        let reserved = self.reserved.borrow();
        let own = reserved.iter().find(|(_, reserved)| *reserved == address);
        own.map(|(owner, _)| *owner)
    }

    /// Whether an address is the station's to have: nobody else has it or is to have it.
    fn may_have(&self, now: Seconds, station: Mac, address: Ipv4Addr) -> bool {
        let usable = match self.owner(address) {
            Some(owner) => owner == station,
            None => self.pool.contains(&address.to_bits()) && !self.declined.contains(&address),
        };
        usable && address != self.own && self.is_free(now, station, address)
    }

    fn is_free(&self, now: Seconds, station: Mac, address: Ipv4Addr) -> bool {
        self.by_address.get(&address).is_none_or(|holder| {
            *holder == station || self.by_station.get(holder).is_none_or(|lease| lease.until <= now)
        })
    }

    /// An address that nobody had, or else one that nobody has any more; the search starts where the
    /// station's Ethernet address points.
    fn search(&self, now: Seconds, station: Mac) -> Option<Ipv4Addr> {
        let (first, last) = (*self.pool.start(), *self.pool.end());
        let size = u64::from(last.checked_sub(first)?) + 1;
        let start = (Fnv::default().with(&station).finish() % size) as u32;
        let candidates = || {
            (first + start..=last)
                .chain(first..first + start)
                .map(Ipv4Addr::from_bits)
                // There are no more than this many in use, so the search ends sooner than at the end of a
                // large pool.
                .take(2 * MAX_LEASES)
        };
        let unused = |address: &Ipv4Addr| !self.by_address.contains_key(address);
        candidates()
            .find(|address| unused(address) && self.may_have(now, station, *address))
            .or_else(|| candidates().find(|address| self.may_have(now, station, *address)))
    }

    /// When nothing else is left, the address that was declined first: a station that declines one after the
    /// other keeps nobody from having one.
    fn search_declined(&mut self, now: Seconds, station: Mac) -> Option<Ipv4Addr> {
        let free = |address: &Ipv4Addr| self.is_free(now, station, *address);
        let index = self.declined.iter().position(free)?;
        self.declined.remove(index)
    }

    fn assign(&mut self, now: Seconds, station: Mac, address: Ipv4Addr, until: Seconds) -> bool {
        if self.by_station.len() >= MAX_LEASES && !self.by_station.contains_key(&station) {
            let ended = self.by_station.iter().find(|(_, lease)| lease.until <= now);
            let Some(ended) = ended.map(|(station, _)| *station) else {
                return false;
            };
            self.forget(ended);
        }
        self.forget(station);
        if let Some(former) = self.by_address.insert(address, station) {
            self.by_station.remove(&former);
        }
        self.by_station.insert(station, Lease { address, until });
        true
    }

    fn forget(&mut self, station: Mac) {
        if let Some(lease) = self.by_station.remove(&station) {
            self.by_address.remove(&lease.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    fn address(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, last)
    }

    fn leases() -> Leases {
        let reserved = std::vec![
            ([2, 0, 0, 0, 0, 200], address(5)),
            ([2, 0, 0, 0, 0, 201], address(77)),
        ];
        let reserved = Rc::new(RefCell::new(reserved));
        Leases::new((address(2), address(9)), address(3), 100, reserved)
    }

    #[test]
    fn the_same_station_gets_the_same_address() {
        let station = [2, 0, 0, 0, 0, 1];
        let first = leases().offer(0, station, None).unwrap();
        let mut leases = leases();
        assert_eq!(leases.offer(0, station, None), Some(first));
        assert!(leases.bind(0, station, first));
        assert_eq!(leases.offer(1000, station, None), Some(first));
        leases.release(1000, station, first);
        assert_eq!(leases.offer(1000, station, None), Some(first));
    }

    #[test]
    fn reservations_are_kept() {
        let mut leases = leases();
        assert_eq!(leases.offer(0, [2, 0, 0, 0, 0, 201], None), Some(address(77)));
        assert_eq!(
            leases.offer(0, [2, 0, 0, 0, 0, 200], Some(address(6))),
            Some(address(5))
        );
        assert!(!leases.bind(0, [2, 0, 0, 0, 0, 200], address(6)));
        assert!(!leases.bind(0, [2, 0, 0, 0, 0, 1], address(5)));
    }

    #[test]
    fn a_reservation_holds_from_when_it_is_made() {
        let (early, late) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let mut leases = leases();
        let taken = leases.offer(0, early, None).unwrap();
        assert!(leases.bind(0, early, taken));
        let other = leases.offer(0, late, None).unwrap();
        assert!(leases.bind(0, late, other));
        leases.reserved.borrow_mut().push((late, taken));
        // No other address will do, and this one is somebody's for as long as his lease lasts.
        assert!(!leases.bind(1, late, other));
        assert_eq!(leases.offer(1, late, None), None);
        assert!(!leases.bind(1, early, taken), "he does not get it again");
        assert_eq!(leases.offer(100, late, None), Some(taken));
        assert!(leases.bind(100, late, taken));
        leases.reserved.borrow_mut().pop();
        assert!(leases.bind(101, late, taken), "it is in the pool");
    }

    #[test]
    fn a_declined_address_is_avoided() {
        let station = [2, 0, 0, 0, 0, 1];
        let mut leases = leases();
        let first = leases.offer(0, station, None).unwrap();
        leases.decline([2, 0, 0, 0, 0, 2], first);
        assert_eq!(leases.offer(0, station, None), Some(first));
        leases.decline(station, first);
        assert_ne!(leases.offer(0, station, Some(first)), Some(first));
    }

    #[test]
    fn declining_exhausts_nothing() {
        let (rogue, honest) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let mut leases = leases();
        for _ in 0..20 {
            let offered = leases.offer(0, rogue, None).unwrap();
            leases.decline(rogue, offered);
        }
        let offered = leases.offer(0, honest, None).unwrap();
        assert!(leases.bind(0, honest, offered));
    }

    proptest! {
        #[test]
        fn no_address_is_given_twice(steps in prop::collection::vec((0..5u8, 0..12u8, 0..12u8, 0..40u32), 1..200)) {
            let mut leases = leases();
            let mut now = 0;
            let mut bound: BTreeMap<Ipv4Addr, (Mac, Seconds)> = BTreeMap::new();
            for (step, station, last, pause) in steps {
                now += pause;
                let mac = [2, 0, 0, 0, 0, station];
                match step {
                    0 | 1 => {
                        if let Some(offered) = leases.offer(now, mac, Some(address(last))) {
                            let holder = bound.get(&offered);
                            prop_assert!(holder.is_none_or(|(holder, until)| *holder == mac || *until <= now));
                            prop_assert!((2..=9).contains(&offered.octets()[3]) && ![3, 5].contains(&offered.octets()[3]));
                        }
                    }
                    2 => {
                        if leases.bind(now, mac, address(last)) {
                            let former = bound.insert(address(last), (mac, now + 100));
                            prop_assert!(former.is_none_or(|(holder, until)| holder == mac || until <= now));
                            bound.retain(|other, (holder, _)| *other == address(last) || *holder != mac);
                        }
                    }
                    3 => {
                        leases.release(now, mac, address(last));
                        if bound.get(&address(last)).is_some_and(|(holder, _)| *holder == mac) {
                            bound.remove(&address(last));
                        }
                    }
                    _ => {
                        leases.decline(mac, address(last));
                        if bound.get(&address(last)).is_some_and(|(holder, _)| *holder == mac) {
                            bound.remove(&address(last));
                        }
                    }
                }
                // An offer of another address gives up the former one.
                let mine = leases.by_station.get(&mac).map(|lease| lease.address);
                bound.retain(|address, (holder, _)| *holder != mac || Some(*address) == mine);
                prop_assert_eq!(leases.by_station.len(), leases.by_address.len());
            }
        }
    }
}
