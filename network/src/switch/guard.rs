//! In whose name a client may send.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr};

use devices::net::Mac;
use devices::net::headers::discovery::{
    NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_SOLICITATION, REDIRECT, ROUTER_ADVERTISEMENT, ROUTER_SOLICITATION,
};
use devices::net::headers::{Headers, Ip, ethertype, protocol};

use super::Reason;
use crate::link_local;

/// IP addresses that share their first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// One of them.
    pub address: IpAddr,
    /// How many bits they share: 0 to 32, or to 128 for IPv6.
    pub len: u8,
}

/// The ports from which servers give out addresses: DHCP, DHCPv6.
const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;
const DHCPV6_SERVER: u16 = 547;

/// The fewest bytes of a TCP header.
const TCP_HEADER: usize = 20;

/// A client's own addresses, beside which it uses none.
pub(super) struct Guard {
    mac: Mac,
    /// Its IP addresses; it may use any if there are none here.
    addresses: Vec<Prefix>,
}

impl From<IpAddr> for Prefix {
    fn from(address: IpAddr) -> Self {
        let len = if address.is_ipv4() { 32 } else { 128 };
        Prefix { address, len }
    }
}

impl Prefix {
    fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differ = own.to_bits() ^ other.to_bits();
                differ.leading_zeros() >= self.len.into()
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differ = own.to_bits() ^ other.to_bits();
                differ.leading_zeros() >= self.len.into()
            }
            _ => false,
        }
    }
}

impl Guard {
    /// A client that has this station address, and these IP addresses, or any if there are none.
    pub(super) fn new(mac: Mac, mut addresses: Vec<Prefix>) -> Self {
        if !addresses.is_empty() {
            addresses.push(IpAddr::V6(link_local(mac)).into());
        }
        Guard { mac, addresses }
    }

    /// Checks a frame whose headers are these, and whose first bytes are those that the headers were found
    /// in.
    pub(super) fn check(&self, headers: &Headers, bytes: &[u8]) -> Result<(), Reason> {
        if headers.source != self.mac {
            return Err(Reason::SpoofedMac);
        }
        if headers.claim.is_some_and(|claim| claim.mac != Some(self.mac)) {
            return Err(Reason::SpoofedMac);
        }
        let ip = headers.ip.as_ref();
        if ip.is_some_and(|ip| ip.source.is_ipv6() && conceals(ip, bytes)) {
            return Err(Reason::SpoofedMac);
        }
        if self.addresses.is_empty() {
            return Ok(());
        }
        let claims_another = headers.claim.is_some_and(|claim| !self.owns(claim.ip));
        let fine = match (headers.ethertype, &headers.ip) {
            (ethertype::ARP, _) => true,
            (_, Some(ip)) => self.allows(ip, bytes),
            _ => false,
        };
        match fine && !claims_another {
            true => Ok(()),
            false => Err(Reason::SpoofedIp),
        }
    }

    fn owns(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|prefix| prefix.contains(address))
    }

    /// Whether the client may send this IP packet.
    fn allows(&self, ip: &Ip, bytes: &[u8]) -> bool {
        // A fragment that starts inside the TCP header is made to change one that was let through (RFC 1858,
        // RFC 3128).
        let overlaps = ip.protocol == protocol::TCP && (1..TCP_HEADER).contains(&ip.offset);
        if overlaps || conceals(ip, bytes) {
            return false;
        }
        let ports = ip.ports.filter(|_| ip.protocol == protocol::UDP);
        let message = ip.transport.filter(|_| ip.protocol == protocol::ICMPV6);
        let kind = message.and_then(|at| bytes.get(at)).copied();
        // Of the first fragment of a datagram too: all of the header is in there.
        let sender = match (ip.protocol, ip.transport) {
            (protocol::UDP, Some(at)) => bytes.get(at..).and_then(|bytes| bytes.first_chunk()),
            _ => None,
        };
        let sender = sender.map(|port| u16::from_be_bytes(*port));
        let gives_addresses = match ip.source {
            IpAddr::V4(_) => sender == Some(DHCP_SERVER),
            IpAddr::V6(_) => {
                matches!(kind, Some(ROUTER_ADVERTISEMENT | REDIRECT)) || sender == Some(DHCPV6_SERVER)
            }
        };
        if gives_addresses {
            return false;
        }
        if !ip.source.is_unspecified() {
            return self.owns(ip.source);
        }
        // Somebody who has no address yet asks for one, or whether one is free.
        match ip.source {
            IpAddr::V4(_) => {
                ports.is_some_and(|ports| (ports.source, ports.destination) == (DHCP_CLIENT, DHCP_SERVER))
            }
            IpAddr::V6(_) => match kind {
                Some(NEIGHBOUR_SOLICITATION) => message
                    .and_then(|at| bytes.get(at + 8..)?.first_chunk::<16>())
                    .is_some_and(|target| self.owns(Ipv6Addr::from(*target).into())),
                kind => kind.is_some(),
            },
        }
    }
}

/// Whether a packet hides what it carries: its transport header is not all in the bytes that can be seen,
/// though it is no later fragment.
///
/// An honest sender's is, also in a first fragment (RFC 7112 demands it for IPv6), and neighbour discovery is
/// not fragmented at all (RFC 6980). What lies beyond the packet's own end counts as hidden: receivers differ
/// in whether they look there.
fn conceals(ip: &Ip, bytes: &[u8]) -> bool {
    if ip.offset != 0 {
        return false;
    }
    let Some(at) = ip.transport else { return true };
    let Some(seen) = bytes.get(..ip.end).unwrap_or(bytes).get(at..) else {
        return true;
    };
    let header = match (ip.protocol, seen.first()) {
        (protocol::TCP, _) => TCP_HEADER,
        (protocol::UDP, _) => 8,
        (protocol::ICMPV6, Some(kind @ ROUTER_SOLICITATION..=REDIRECT)) => {
            if ip.fragment {
                return true;
            }
            match *kind {
                NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT => 24,
                REDIRECT => 40,
                _ => 8,
            }
        }
        (protocol::ICMPV6, _) => 4,
        _ => 0,
    };
    seen.len() < header
}
