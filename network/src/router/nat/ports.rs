//! Which port of the outside address stands for which port inside.

use alloc::collections::BTreeMap;
use core::ops::RangeInclusive;

use super::flow::Protocol;
use super::table::Host;
use crate::router::random::Random;

/// UDP ports of the outside address that are the router's own.
pub const OWN_UDP: RangeInclusive<u16> = 64512..=65535;
/// UDP ports of a DHCP server and a DHCP client, which are the router's own too: relays and renewals are
/// unicast.
const DHCP: RangeInclusive<u16> = 67..=68;
/// Where the search for a port starts at the earliest.
const LOWEST: u16 = 1024;

/// Whether a UDP port of the outside address is the router's own.
pub fn is_own_udp(port: u16) -> bool {
    DHCP.contains(&port) || OWN_UDP.contains(&port)
}

struct Mapping {
    port: u16,
    /// How many connections from inside use it.
    held: usize,
}

/// Where a forwarded port leads.
#[derive(Clone, Copy)]
pub struct Target {
    /// The host inside.
    pub host: Host,
    /// The other hosts of its segment reach it by the port, too (hairpinning, RFC 4787 REQ-9).
    pub hairpin: bool,
}

/// The mappings of one outside address.
pub struct Ports {
    /// TCP port of the outside address that is the router's own.
    own_tcp: Option<u16>,
    forwards: BTreeMap<(Protocol, u16), Target>,
    by_host: BTreeMap<(Protocol, Host), Mapping>,
    by_port: BTreeMap<(Protocol, u16), Host>,
}

impl Ports {
    /// Only the forwards, which last.
    pub fn new(own_tcp: Option<u16>, forwards: impl Iterator<Item = ((Protocol, u16), Target)>) -> Self {
        let mut by_forward = BTreeMap::new();
        for (port, target) in forwards {
            by_forward.insert(port, target);
        }
        Self {
            own_tcp,
            forwards: by_forward,
            by_host: BTreeMap::new(),
            by_port: BTreeMap::new(),
        }
    }

    /// Forgets everything but the forwards.
    pub fn clear(&mut self) {
        self.by_host.clear();
        self.by_port.clear();
    }

    /// The host that a port is forwarded to.
    pub fn forward(&self, protocol: Protocol, port: u16) -> Option<Host> {
        Some(self.forwards.get(&(protocol, port))?.host)
    }

    /// Whether the port leads a host of this segment to another one of it.
    pub fn hairpin(&self, protocol: Protocol, port: u16, segment: u8) -> bool {
        let target = self.forwards.get(&(protocol, port));
        target.is_some_and(|target| target.hairpin && target.host.segment == segment)
    }

    /// The port that stands for a host's port, for one more connection.
    pub fn take(&mut self, protocol: Protocol, host: Host, random: &mut Random) -> Option<u16> {
        if let Some(mapping) = self.by_host.get_mut(&(protocol, host)) {
            mapping.held += 1;
            return Some(mapping.port);
        }
        let wanted = host.endpoint.port;
        let forwarded = self
            .forwards
            .iter()
            .find(|(key, to)| key.0 == protocol && to.host == host);
        let port = match forwarded {
            Some(((_, port), _)) => *port,
            None if self.is_free(protocol, wanted) => wanted,
            None => self.search(protocol, random)?,
        };
        self.by_host.insert((protocol, host), Mapping { port, held: 1 });
        self.by_port.insert((protocol, port), host);
        Some(port)
    }

    /// One connection less.
    pub fn give_back(&mut self, protocol: Protocol, host: Host) {
        let Some(mapping) = self.by_host.get_mut(&(protocol, host)) else {
            return;
        };
        mapping.held -= 1;
        if mapping.held == 0 {
            self.by_port.remove(&(protocol, mapping.port));
            self.by_host.remove(&(protocol, host));
        }
    }

    /// A free port, from some port on. The table has fewer connections than there are ports, so that the
    /// search is short.
    fn search(&self, protocol: Protocol, random: &mut Random) -> Option<u16> {
        let first = LOWEST + random.below(OWN_UDP.start() - LOWEST);
        (first..*OWN_UDP.start())
            .chain(LOWEST..first)
            .find(|port| self.is_free(protocol, *port))
    }

    fn is_free(&self, protocol: Protocol, port: u16) -> bool {
        let own = match protocol {
            Protocol::Tcp => port == 0 || self.own_tcp == Some(port),
            Protocol::Udp => port == 0 || is_own_udp(port),
            Protocol::Icmp => false,
        };
        !own && !self.forwards.contains_key(&(protocol, port))
            && !self.by_port.contains_key(&(protocol, port))
    }
}
