//! Network address translation for TCP, UDP and ICMP echo over IPv4 (RFC 4787, 5382, 5508).
//!
//! Packets are changed in place: addresses, ports, the time to live, and checksums by what changed (RFC
//! 1624), so that a TCP segment of 64 KiB crosses as one unit and its payload is not looked at. IPv6 is not
//! translated, nor forwarded.

mod flow;
mod fragments;
#[cfg(test)]
mod model;
mod packet;
mod ports;
mod rules;
mod session;
mod table;

pub use flow::{Endpoint, Protocol};
pub use packet::{Content, Packet};
pub use ports::{OWN_UDP, is_own_udp};
pub use rules::Rule;
pub use table::{Seconds, is_room_for};

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use devices::net::{Checksum, Mac};

use super::random::Random;
use super::{Forward, Limits, Timeouts};
use flow::Flow;
use fragments::{Fragments, Key};
use ports::{Ports, Target};
use table::{Host, Refusal, Table, Way};

/// Why a packet is not translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It belongs to no connection, and cannot begin one.
    Unknown,
    /// A rule is against it.
    Denied,
    /// There is no room for its connection, or no port.
    Full,
    /// The first fragment of its packet is not known.
    Fragment,
    /// It is of a protocol that is not translated.
    Unsupported,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unknown => Self::Unknown,
            Refusal::Full => Self::Full,
        }
    }
}

/// What is known of an inside segment.
pub struct Inside {
    /// What is reached from outside.
    pub forwards: Vec<Forward>,
    /// What may go out.
    pub rules: Vec<Rule>,
    /// Its stations do not reach each other.
    pub isolate: bool,
}

/// The translator between inside segments and one outside address.
pub struct Nat {
    table: Table,
    /// The rules of each inside segment.
    rules: Vec<Vec<Rule>>,
    fragments: Fragments,
    random: Random,
}

impl Nat {
    /// A translator that knows of no connection and has no address yet. `own_tcp` is a port of the outside
    /// address that is the router's.
    pub fn new(
        insides: Vec<Inside>,
        own_tcp: Option<u16>,
        limits: Limits,
        timeouts: Timeouts,
        random: Random,
    ) -> Self {
        let forwards = insides.iter().zip(0..).flat_map(|(inside, segment)| {
            inside.forwards.iter().map(move |forward| {
                let endpoint = forward.to;
                let target = Target {
                    host: Host { segment, endpoint },
                    hairpin: !inside.isolate,
                };
                ((forward.protocol, forward.port), target)
            })
        });
        let ports = Ports::new(own_tcp, forwards);
        Self {
            table: Table::new(Ipv4Addr::UNSPECIFIED, ports, limits, timeouts),
            rules: insides.into_iter().map(|inside| inside.rules).collect(),
            fragments: Fragments::default(),
            random,
        }
    }

    /// The connections.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The outside address, from now on.
    pub fn set_address(&mut self, address: Ipv4Addr) {
        self.table.set_address(address);
        self.fragments = Fragments::default();
    }

    /// Forgets connections that were idle for too long.
    pub fn expire(&mut self, now: Seconds) {
        self.table.expire(now);
    }

    /// Changes a packet from a station inside to what it is outside.
    ///
    /// If it is for an end `instead` of which another one is to be reached, that is a service of the router's
    /// own, which no rule is about.
    pub fn outbound(
        &mut self,
        now: Seconds,
        (segment, mac): (u8, Mac),
        packet: &mut Packet,
        checksum: Checksum,
        instead: Option<Endpoint>,
    ) -> Result<(), Refused> {
        let (flow, signal) = match packet.content() {
            Content::Connection(flow, signal) => (flow, signal),
            Content::Error(quoted) => {
                // From who got what it quotes, to who sent that: inside there is no other router which could
                // have something to say (RFC 5508, REQ-5), and rules say of the connection only who may be
                // reached.
                let ends = (packet.ip().src_addr(), packet.ip().dst_addr());
                let way = (ends == (quoted.destination.address, quoted.source.address))
                    .then(|| self.table.outbound_error(segment, &quoted))
                    .flatten()
                    .ok_or(Refused::Unknown)?;
                let outer = Flow {
                    source: way.flow.destination,
                    destination: way.flow.source,
                    ..way.flow
                };
                packet.rewrite_error(&outer, &way.flow);
                return Ok(());
            }
            Content::Fragment => {
                let key = Key::new(Some(segment), packet);
                let way = self.fragments.find(now, &key).ok_or(Refused::Fragment)?;
                packet.rewrite_fragment(&way.flow);
                return Ok(());
            }
            Content::Other => return Err(Refused::Unsupported),
        };
        let way = match self.table.outbound(now, segment, &flow, signal) {
            Err(Refusal::Unknown) => {
                let rules = self
                    .rules
                    .get(usize::from(segment))
                    .map_or(&[][..], |rules| rules);
                if instead.is_none() && !rules::allowed(rules, &flow) {
                    return Err(Refused::Denied);
                }
                let remote = instead.unwrap_or(flow.destination);
                self.table
                    .open_outbound(now, (segment, mac), &flow, remote, signal, &mut self.random)?
            }
            known => known?,
        };
        self.translate(now, Some(segment), packet, checksum, way);
        Ok(())
    }

    /// Changes a packet for the outside address to what it is inside; gives the segment that it is for.
    pub fn inbound(&mut self, now: Seconds, packet: &mut Packet, checksum: Checksum) -> Result<u8, Refused> {
        let (flow, signal) = match packet.content() {
            Content::Connection(flow, signal) => (flow, signal),
            Content::Error(quoted) => {
                let way = self.table.inbound_error(&quoted).ok_or(Refused::Unknown)?;
                let outer = Flow {
                    source: Endpoint::new(packet.ip().src_addr(), 0),
                    destination: way.flow.source,
                    ..way.flow
                };
                packet.rewrite_error(&outer, &way.flow);
                return Ok(way.segment);
            }
            Content::Fragment => {
                let key = Key::new(None, packet);
                let way = self.fragments.find(now, &key).ok_or(Refused::Fragment)?;
                packet.rewrite_fragment(&way.flow);
                return Ok(way.segment);
            }
            Content::Other => return Err(Refused::Unsupported),
        };
        let way = match self.table.inbound(now, &flow, signal) {
            Err(Refusal::Unknown) => self.table.open_inbound(now, &flow, signal)?,
            known => known?,
        };
        self.translate(now, None, packet, checksum, way);
        Ok(way.segment)
    }

    fn translate(
        &mut self,
        now: Seconds,
        from: Option<u8>,
        packet: &mut Packet,
        checksum: Checksum,
        way: Way,
    ) {
        if packet.is_fragment() {
            self.fragments.note(now, Key::new(from, packet), way);
        }
        packet.rewrite(&way.flow, checksum);
    }
}
