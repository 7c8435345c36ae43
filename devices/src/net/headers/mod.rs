//! Where the headers of a frame are, and what they say of who it is from and for.
//!
//! Frames come from whoever likes to send: every length is checked against what is there, the number of
//! headers looked at is bounded, and what does not add up is simply not found.

mod claim;
mod ip;

pub use claim::{Claim, discovery};
pub use ip::{Ip, Ports, protocol};

use super::{Checksum, ETHERNET_HEADER, Mac};
use crate::memory::Buffer;

/// How many bytes of a frame's start are enough to find every header that a reasonable frame has.
pub const PREFIX: usize = 256;

/// Ethernet types (IEEE 802, "EtherType").
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// A VLAN tag (802.1Q).
    pub const VLAN: u16 = 0x8100;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// A VLAN tag of a provider (802.1ad).
    pub const PROVIDER_VLAN: u16 = 0x88a8;
}

/// The most VLAN tags that are looked behind.
const MAX_TAGS: usize = 2;

/// The headers of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Whom it is for.
    pub destination: Mac,
    /// Whom it is from.
    pub source: Mac,
    /// The VLAN of its outermost tag, 0 to 4095.
    pub vlan: Option<u16>,
    /// What follows the VLAN tags: one of [`ethertype`], or anything else.
    pub ethertype: u16,
    /// Where that starts, in bytes from the frame's start.
    pub network: usize,
    /// Its IP header, if it has a well-formed one.
    pub ip: Option<Ip>,
    /// What it tells others of who has an IP address, if it does.
    pub claim: Option<Claim>,
}

impl Headers {
    /// Finds the headers of the frame in a buffer, as far as they are in its first [`PREFIX`] bytes.
    pub fn of<B: Buffer>(buffer: &B) -> Option<Self> {
        let mut prefix = [0; PREFIX];
        let prefix = &mut prefix[..buffer.len().min(PREFIX)];
        buffer.read(0, prefix);
        Self::parse(prefix)
    }

    /// Finds the headers in the first bytes of a frame ([`PREFIX`] are enough). `None` if even an Ethernet
    /// header is not there.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let destination = array(frame, 0)?;
        let source = array(frame, 6)?;
        let mut network = ETHERNET_HEADER;
        let mut ethertype = u16_at(frame, 12)?;
        let mut vlan = None;
        for _ in 0..MAX_TAGS {
            if !matches!(ethertype, ethertype::VLAN | ethertype::PROVIDER_VLAN) {
                break;
            }
            let tag = u16_at(frame, network)?;
            vlan.get_or_insert(tag & 0xfff);
            ethertype = u16_at(frame, network + 2)?;
            network += 4;
        }
        let ip = match ethertype {
            ethertype::IPV4 => Ip::parse_v4(frame, network),
            ethertype::IPV6 => Ip::parse_v6(frame, network),
            _ => None,
        };
        let claim = match (ethertype, &ip) {
            (ethertype::ARP, _) => Claim::of_arp(frame, network),
            (_, Some(ip)) => Claim::of_neighbour_discovery(frame, ip, source),
            _ => None,
        };
        Some(Headers {
            destination,
            source,
            vlan,
            ethertype,
            network,
            ip,
            claim,
        })
    }

    /// Where the frame's TCP or UDP checksum is to be computed, if that is still to be done; netif does not
    /// say it. `None` if it has no such checksum.
    pub fn partial(&self) -> Option<Checksum> {
        let ip = self.ip.as_ref().filter(|ip| !ip.fragment)?;
        let offset = match ip.protocol {
            protocol::TCP => 16,
            protocol::UDP => 6,
            _ => return None,
        };
        let start = ip.transport?;
        if start + usize::from(offset) + 2 > ip.end {
            return None;
        }
        Some(Checksum::Partial {
            start: u16::try_from(start).ok()?,
            offset,
        })
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_be_bytes)
}

fn u8_at(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

#[cfg(test)]
mod tests;
