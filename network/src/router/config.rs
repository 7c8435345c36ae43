//! What a router is to be like.

use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};

use devices::net::Mac;
use smoltcp::wire::{Ipv4Cidr, Ipv6Cidr};

use super::http::Text;
use super::nat::{Endpoint, Protocol, Rule, Seconds, is_own_udp};
use super::random::Seed;

/// A router: a station in each of its segments.
pub struct Config<P> {
    /// The segments whose clients go out by NAT; or segments that lead nowhere, if there is no outside. At
    /// most 255.
    pub insides: Vec<Inside<P>>,
    /// The segment that they go out to.
    pub outside: Option<Station<P>>,
    /// How many connections there may be.
    pub limits: Limits,
    /// How long they may be idle.
    pub timeouts: Timeouts,
    /// What ports and identifiers are made of that nobody is to guess.
    pub seed: Seed,
}

/// A segment whose stations the router serves.
pub struct Inside<P> {
    /// The router's place in it. It answers questions about names there.
    pub station: Station<P>,
    /// The router advertises its IPv6 network, so that stations give themselves addresses in it.
    pub advertise: bool,
    /// What is reached from outside, and by the outside address from this segment.
    pub forwards: Vec<Forward>,
    /// What may go out: of each new connection, the first rule that fits decides; without one it may.
    pub rules: Vec<Rule>,
    /// Its stations do not reach each other, by a forward neither.
    pub isolate: bool,
}

/// The router's place in a segment.
pub struct Station<P> {
    /// Where it is plugged in.
    pub port: P,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Its IPv4 address.
    pub address: Option<Address>,
    /// Its IPv6 address.
    pub address6: Option<Ipv6Cidr>,
    /// The segment's DHCP server, if it is to be one.
    pub dhcp: Option<DhcpOptions>,
    /// A TCP port where counters are to be had by HTTP, and what writes them.
    pub metrics: Option<(u16, Text)>,
}

/// An IPv4 address of the router's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A known one.
    Static {
        /// The address and its network.
        cidr: Ipv4Cidr,
        /// The way out of that network.
        gateway: Option<Ipv4Addr>,
        /// Name servers. Those of the outside answer questions from inside.
        dns: Vec<Ipv4Addr>,
    },
    /// Whatever a DHCP server gives, with its router.
    Dhcp {
        /// Name servers; if there are none, those that the DHCP server tells.
        dns: Vec<Ipv4Addr>,
    },
}

/// What a DHCP server gives. Stations get the router's own address as the way out and as name server if there
/// is an outside, and otherwise those of its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DhcpOptions {
    /// The first address for stations.
    pub first: Ipv4Addr,
    /// The last one.
    pub last: Ipv4Addr,
    /// How long they may keep one, in seconds, without asking again.
    pub lease: Seconds,
    /// Addresses of certain stations.
    pub reservations: Reservations,
}

/// Addresses that certain stations get by DHCP instead of any other, each of both once: in the router's
/// network, in the pool or outside it. They may change at any time.
pub type Reservations = Rc<RefCell<Vec<(Mac, Ipv4Addr)>>>;

/// A port of the outside address that leads inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The port of the outside address.
    pub port: u16,
    /// Where it leads.
    pub to: Endpoint,
}

/// How many connections a router knows at a time; each takes about 400 bytes.
///
/// Who is at the end of a share loses own connections to new ones: first what nobody answered, TCP that is
/// not established, echo and UDP, last established TCP; of each kind what was idle longest. When all places
/// are taken, who has most loses one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// In all; at most 32768.
    pub connections: usize,
    /// Of one station inside, and of one forward.
    pub per_client: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 8192,
            per_client: 1024,
        }
    }
}

/// How long a connection may be idle, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Established TCP (RFC 5382 REQ-5: at least 2 h 4 min).
    pub tcp_established: Seconds,
    /// TCP that is opening or closing (RFC 5382 REQ-5: at least 4 min).
    pub tcp_transitory: Seconds,
    /// UDP (RFC 4787 REQ-5: 5 min or more).
    pub udp: Seconds,
    /// UDP that nobody has answered (RFC 4787 REQ-5: at least 2 min).
    pub udp_unanswered: Seconds,
    /// ICMP echo (RFC 5508 REQ-2: at least 60 s).
    pub icmp: Seconds,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp_established: 7440,
            tcp_transitory: 240,
            udp: 300,
            udp_unanswered: 120,
            icmp: 60,
        }
    }
}

/// Why a router cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalid(pub &'static str);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl<P> Config<P> {
    /// Whether it makes sense.
    pub(super) fn check(&self) -> Result<(), Invalid> {
        let check = |sound, expected| if sound { Ok(()) } else { Err(Invalid(expected)) };
        check(self.insides.len() <= 255, "at most 255 inside segments")?;
        check(self.limits.connections <= 32768, "at most 32768 connections")?;
        for station in self
            .insides
            .iter()
            .map(|inside| &inside.station)
            .chain(&self.outside)
        {
            station.check()?;
        }
        for inside in &self.insides {
            check(
                !matches!(inside.station.address, Some(Address::Dhcp { .. })),
                "a static address in an inside segment",
            )?;
            let metrics = self.outside.as_ref().and_then(|outside| outside.metrics.as_ref());
            let own_tcp = metrics.map(|metrics| metrics.0);
            check(
                inside.forwards.iter().all(|forward| match forward.protocol {
                    Protocol::Tcp => own_tcp != Some(forward.port),
                    Protocol::Udp => !is_own_udp(forward.port),
                    Protocol::Icmp => false,
                }),
                "forwards of TCP and UDP ports that the router does not need itself: metrics, and UDP 67, 68 and 64512 to 65535",
            )?;
        }
        Ok(())
    }
}

impl<P> Station<P> {
    fn check(&self) -> Result<(), Invalid> {
        if self.mac[0] & 1 != 0 {
            return Err(Invalid("an Ethernet address of a station"));
        }
        if self.address6.is_some_and(|own| !is_unicast6(own.address())) {
            return Err(Invalid("an IPv6 unicast address"));
        }
        let own = match &self.address {
            Some(Address::Static { cidr, .. }) => Some(cidr),
            _ => None,
        };
        if own.is_some_and(|own| !is_host(*own, own.address())) {
            return Err(Invalid("an IPv4 address of a host"));
        }
        if let Some(Address::Static {
            gateway: Some(gateway),
            ..
        }) = &self.address
            && !is_unicast(*gateway)
        {
            return Err(Invalid("an IPv4 address of a gateway"));
        }
        let Some(dhcp) = &self.dhcp else {
            return Ok(());
        };
        let own = own.ok_or(Invalid("a static address for a DHCP server"))?;
        let pool = [&dhcp.first, &dhcp.last];
        let reservations = dhcp.reservations.borrow();
        let mut addresses = pool
            .into_iter()
            .chain(reservations.iter().map(|(_, address)| address));
        if dhcp.first > dhcp.last || !addresses.all(|address| is_host(*own, *address)) {
            return Err(Invalid("addresses for stations in the router's network"));
        }
        Ok(())
    }
}

/// The Ethernet groups that frames come to for a station of a router's with these addresses: those of all
/// nodes, of all routers, and of who asks for one of its IPv6 addresses (RFC 4291, 2.7.1; RFC 2464, 7). IPv4
/// needs none.
pub fn groups(mac: Mac, address6: Option<Ipv6Cidr>) -> Vec<Mac> {
    let Some(own) = address6 else {
        return Vec::new();
    };
    let [.., d, e, f] = own.address().octets();
    vec![
        [0x33, 0x33, 0, 0, 0, 1],
        [0x33, 0x33, 0, 0, 0, 2],
        // Its link-local address ends as the Ethernet address does.
        [0x33, 0x33, 0xff, mac[3], mac[4], mac[5]],
        [0x33, 0x33, 0xff, d, e, f],
    ]
}

/// Whether an address is that of a host in a network.
pub fn is_host(network: Ipv4Cidr, address: Ipv4Addr) -> bool {
    network.contains_addr(&address)
        && (network.prefix_len() >= 31
            || (Some(address) != network.broadcast() && address != network.network().address()))
        && is_unicast(address)
}

/// Whether an address can be that of one station on a line (RFC 1122, 3.2.1.3): not of this network, of this
/// host, of a group or of all.
pub(super) fn is_unicast(address: Ipv4Addr) -> bool {
    (1..224).contains(&address.octets()[0]) && !address.is_loopback()
}

/// Whether an IPv6 address can be that of one station beyond this host.
pub fn is_unicast6(address: Ipv6Addr) -> bool {
    !address.is_multicast() && !address.is_unspecified() && !address.is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_a_station() {
        let mac = [2, 0, 0, 0xa, 0xb, 0xc];
        assert_eq!(groups(mac, None), [[0; 6]; 0]);
        let own = Some("fd00:1::1:203/64".parse().unwrap());
        let to = |end: [u8; 4]| [0x33, 0x33, end[0], end[1], end[2], end[3]];
        let expected = [[0, 0, 0, 1], [0, 0, 0, 2], [0xff, 0xa, 0xb, 0xc], [0xff, 1, 2, 3]];
        assert_eq!(groups(mac, own), expected.map(to));
    }
}
