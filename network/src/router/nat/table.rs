//! Which connections there are, and what their ends are called on the other side.
//!
//! A host's port is known outside by one port, whomever it talks to (endpoint-independent mapping, RFC 4787
//! REQ-1), and by the same number if that is free. Only those get through to it that it has talked to
//! (address and port-dependent filtering), unless the port is forwarded.
//!
//! Each holder has a share of the table. Who is at the end of it loses own connections, the one that matters
//! least first; who has many is the first to lose some when the table itself is full.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::ops::Bound;

use devices::net::Mac;
use slab::Slab;

use super::flow::{Endpoint, Flow, Protocol, Signal};
use super::ports::Ports;
use super::session::{Class, Direction, Ends, Session};
use crate::router::random::Random;
use crate::router::{Limits, Timeouts};

/// A number of seconds since some fixed point.
pub type Seconds = u32;

/// An end inside. Segments may use the same addresses, so that the segment is a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Host {
    /// Which of the router's inside segments.
    pub segment: u8,
    /// The address and port there.
    pub endpoint: Endpoint,
}

/// Whose share a connection takes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// A station inside, which began it.
    Station(u8, Mac),
    /// A forward, through which somebody outside began it.
    Forward(Protocol, u16),
}

/// Why a packet gets no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It belongs to none, and may not begin one.
    Unknown,
    /// There is no room, or no port.
    Full,
}

/// A way through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The ends, as they are to be from here on.
    pub flow: Flow,
    /// The inside segment that it comes from or goes to.
    pub segment: u8,
}

/// All connections of one outside address.
pub struct Table {
    limits: Limits,
    timeouts: Timeouts,
    /// The address that all inside hosts have outside.
    address: Ipv4Addr,
    ports: Ports,
    sessions: Slab<Session>,
    by_inside: BTreeMap<(Protocol, Host, Endpoint), usize>,
    by_outside: BTreeMap<(Protocol, u16, Endpoint), usize>,
    /// How many connections each holder has; none has 0.
    holders: BTreeMap<Holder, usize>,
    /// The same, in order of how many.
    shares: BTreeSet<(usize, Holder)>,
    /// Whose connections [`Table::expire`] looked at last.
    looked_at: Option<Holder>,
    /// All connections, in the order in which each holder would lose them.
    idle: BTreeSet<(Holder, Class, Seconds, usize)>,
    /// Connections that began.
    pub created: u64,
    /// Connections that lost their place to a new one.
    pub evicted: u64,
}

/// Whether there is memory for so many connections. The room for them cannot be asked for in a way that may
/// fail, but the same amount can just before.
pub fn is_room_for(connections: usize) -> bool {
    // At least as large as an entry of the slab.
    let mut room: Vec<(usize, Session)> = Vec::new();
    room.try_reserve_exact(connections).is_ok()
}

/// The most connections that one call of [`Table::expire`] ends.
const EXPIRE_BATCH: usize = 1024;
/// The most holders that one call of [`Table::expire`] looks at: it goes round them, so that with 32768 each
/// gets its turn twice a minute.
const EXPIRE_HOLDERS: usize = 1024;

impl Table {
    /// An empty table.
    pub fn new(address: Ipv4Addr, ports: Ports, limits: Limits, timeouts: Timeouts) -> Self {
        Self {
            limits,
            timeouts,
            address,
            ports,
            // Once and for all: growing would need room for two of them, at a time that a client chooses.
            sessions: Slab::with_capacity(limits.connections),
            by_inside: BTreeMap::new(),
            by_outside: BTreeMap::new(),
            holders: BTreeMap::new(),
            shares: BTreeSet::new(),
            looked_at: None,
            idle: BTreeSet::new(),
            created: 0,
            evicted: 0,
        }
    }

    /// The outside address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Another outside address, with which no connection lives on.
    pub fn set_address(&mut self, address: Ipv4Addr) {
        if address == self.address {
            return;
        }
        self.address = address;
        self.sessions.clear();
        self.by_inside.clear();
        self.by_outside.clear();
        self.holders.clear();
        self.shares.clear();
        self.idle.clear();
        self.ports.clear();
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// The greatest share that a holder has.
    #[cfg(test)]
    pub fn most_held(&self) -> usize {
        assert_eq!(self.holders.len(), self.shares.len());
        assert!(
            self.shares
                .iter()
                .all(|(held, holder)| self.holders[holder] == *held)
        );
        self.shares.last().map_or(0, |(held, _)| *held)
    }

    /// The way of a packet from inside, if its connection is known.
    pub fn outbound(
        &mut self,
        now: Seconds,
        segment: u8,
        flow: &Flow,
        signal: Signal,
    ) -> Result<Way, Refusal> {
        let inside = Host {
            segment,
            endpoint: flow.source,
        };
        let id = self.by_inside.get(&(flow.protocol, inside, flow.destination));
        let id = *id.ok_or(Refusal::Unknown)?;
        self.advance(id, now, Direction::Out, signal);
        Ok(self.sessions[id].ends.outbound(self.address))
    }

    /// The way of a packet from outside to the outside address, if its connection is known.
    pub fn inbound(&mut self, now: Seconds, flow: &Flow, signal: Signal) -> Result<Way, Refusal> {
        let id = self
            .by_outside
            .get(&(flow.protocol, flow.destination.port, flow.source));
        let id = *id.ok_or(Refusal::Unknown)?;
        self.advance(id, now, Direction::In, signal);
        Ok(self.sessions[id].ends.inbound())
    }

    /// The host inside that a packet from outside is for by a forward.
    pub fn forward(&self, flow: &Flow) -> Option<Host> {
        self.ports.forward(flow.protocol, flow.destination.port)
    }

    /// Whether a station of a segment may begin a connection with an end outside. Behind the outside address
    /// itself are the stations inside: by that, nobody reaches more than what is forwarded within his own
    /// segment.
    fn may_reach(&self, segment: u8, protocol: Protocol, remote: Endpoint) -> bool {
        remote.address != self.address || self.ports.hairpin(protocol, remote.port, segment)
    }

    /// Begins a connection from inside, to an end that may be another than the one that the inside sees.
    pub fn open_outbound(
        &mut self,
        now: Seconds,
        station: (u8, Mac),
        flow: &Flow,
        remote: Endpoint,
        signal: Signal,
        random: &mut Random,
    ) -> Result<Way, Refusal> {
        if !signal.opens || !self.may_reach(station.0, flow.protocol, remote) {
            return Err(Refusal::Unknown);
        }
        let holder = Holder::Station(station.0, station.1);
        self.make_room(&holder)?;
        let inside = Host {
            segment: station.0,
            endpoint: flow.source,
        };
        let port = self
            .ports
            .take(flow.protocol, inside, random)
            .ok_or(Refusal::Full)?;
        if self.by_outside.contains_key(&(flow.protocol, port, remote)) {
            self.ports.give_back(flow.protocol, inside);
            return Err(Refusal::Full);
        }
        let ends = Ends {
            protocol: flow.protocol,
            inside,
            seen: flow.destination,
            port,
            remote,
        };
        self.insert(Session::new(ends, holder, Direction::Out, now));
        self.outbound(now, station.0, flow, signal)
    }

    /// Begins a connection from outside to a forwarded port.
    pub fn open_inbound(&mut self, now: Seconds, flow: &Flow, signal: Signal) -> Result<Way, Refusal> {
        let inside = self.forward(flow).ok_or(Refusal::Unknown)?;
        if !signal.opens || self.by_inside.contains_key(&(flow.protocol, inside, flow.source)) {
            return Err(Refusal::Unknown);
        }
        let port = flow.destination.port;
        let holder = Holder::Forward(flow.protocol, port);
        self.make_room(&holder)?;
        let ends = Ends {
            protocol: flow.protocol,
            inside,
            seen: flow.source,
            port,
            remote: flow.source,
        };
        self.insert(Session::new(ends, holder, Direction::In, now));
        self.inbound(now, flow, signal)
    }

    /// What an ICMP error from outside quotes, as the inside host sent it, and where that is.
    pub fn inbound_error(&self, quoted: &Flow) -> Option<Way> {
        let id = self
            .by_outside
            .get(&(quoted.protocol, quoted.source.port, quoted.destination))?;
        let session = self.sessions.get(*id)?;
        // It was sent from the inside to the other end, which is the way back of what comes in.
        let way = session.ends.inbound();
        (quoted.source.address == self.address).then_some(Way {
            flow: way.flow.reversed(),
            ..way
        })
    }

    /// What an ICMP error from inside quotes, as the other end sent it.
    pub fn outbound_error(&self, segment: u8, quoted: &Flow) -> Option<Way> {
        let inside = Host {
            segment,
            endpoint: quoted.destination,
        };
        let id = self.by_inside.get(&(quoted.protocol, inside, quoted.source))?;
        let way = self.sessions.get(*id)?.ends.outbound(self.address);
        Some(Way {
            flow: way.flow.reversed(),
            ..way
        })
    }

    /// Ends what has been idle for too long.
    pub fn expire(&mut self, now: Seconds) {
        let mut left = EXPIRE_BATCH;
        for _ in 0..self.holders.len().min(EXPIRE_HOLDERS) {
            let Some(holder) = self.next_holder() else {
                return;
            };
            for class in Class::ALL {
                while let Some((touched, id)) = self.oldest(&holder, class) {
                    if now.saturating_sub(touched) < self.timeout(class) || left == 0 {
                        break;
                    }
                    self.remove(id);
                    left -= 1;
                }
            }
        }
    }

    /// The holder after the one that was looked at last, or else the first.
    fn next_holder(&mut self) -> Option<Holder> {
        let after = self.looked_at.map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.holders.range((after, Bound::Unbounded)).next();
        let next = next.or_else(|| self.holders.first_key_value());
        self.looked_at = next.map(|(holder, _)| *holder);
        self.looked_at
    }

    /// Notes that a holder has another number of connections.
    fn set_share(&mut self, holder: Holder, held: usize) {
        let before = if held == 0 {
            self.holders.remove(&holder)
        } else {
            self.holders.insert(holder, held)
        };
        if let Some(before) = before {
            self.shares.remove(&(before, holder));
        }
        if held > 0 {
            self.shares.insert((held, holder));
        }
    }

    fn held(&self, holder: &Holder) -> usize {
        self.holders.get(holder).copied().unwrap_or(0)
    }

    fn timeout(&self, class: Class) -> Seconds {
        match class {
            Class::UdpUnanswered => self.timeouts.udp_unanswered,
            Class::TcpTransitory => self.timeouts.tcp_transitory,
            Class::Icmp => self.timeouts.icmp,
            Class::Udp => self.timeouts.udp,
            Class::TcpEstablished => self.timeouts.tcp_established,
        }
    }

    fn oldest(&self, holder: &Holder, class: Class) -> Option<(Seconds, usize)> {
        let all = (*holder, class, 0, 0)..=(*holder, class, Seconds::MAX, usize::MAX);
        let (_, _, touched, id) = self.idle.range(all).next()?;
        Some((*touched, *id))
    }

    fn make_room(&mut self, holder: &Holder) -> Result<(), Refusal> {
        let held = self.held(holder);
        let loser = if held >= self.limits.per_client {
            *holder
        } else if self.sessions.len() >= self.limits.connections {
            match self.shares.last() {
                Some((most, fullest)) if *most > held => *fullest,
                _ => *holder,
            }
        } else {
            return Ok(());
        };
        let victim = Class::ALL
            .iter()
            .find_map(|class| self.oldest(&loser, *class))
            .ok_or(Refusal::Full)?;
        self.remove(victim.1);
        self.evicted += 1;
        Ok(())
    }

    fn insert(&mut self, session: Session) {
        let (ends, holder, order) = (session.ends, session.holder, (session.class, session.touched));
        let id = self.sessions.insert(session);
        self.by_inside.insert((ends.protocol, ends.inside, ends.seen), id);
        self.by_outside
            .insert((ends.protocol, ends.port, ends.remote), id);
        self.idle.insert((holder, order.0, order.1, id));
        self.set_share(holder, self.held(&holder) + 1);
        self.created += 1;
    }

    fn remove(&mut self, id: usize) {
        let Some(session) = self.sessions.try_remove(id) else {
            return;
        };
        let ends = session.ends;
        self.by_inside.remove(&(ends.protocol, ends.inside, ends.seen));
        self.by_outside.remove(&(ends.protocol, ends.port, ends.remote));
        self.idle
            .remove(&(session.holder, session.class, session.touched, id));
        let held = self.held(&session.holder);
        self.set_share(session.holder, held.saturating_sub(1));
        // What came by a forward has the forward's port.
        if matches!(session.holder, Holder::Station(..)) {
            self.ports.give_back(ends.protocol, ends.inside);
        }
    }

    /// Notes a packet of a connection.
    fn advance(&mut self, id: usize, now: Seconds, direction: Direction, signal: Signal) {
        let session = &mut self.sessions[id];
        let class = session.next_class(direction, signal);
        // Once a second is enough, and keeps the order's upkeep off the path of most packets.
        if (class, now) != (session.class, session.touched) {
            self.idle
                .remove(&(session.holder, session.class, session.touched, id));
            (session.class, session.touched) = (class, now);
            self.idle.insert((session.holder, class, now, id));
        }
    }
}
