//! IPv4 (RFC 791) and IPv6 (RFC 8200) headers.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{array, u8_at, u16_at};

/// IP protocol numbers.
pub mod protocol {
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
}

// Extension headers of IPv6.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// The most extension headers of IPv6 that are looked behind.
const MAX_EXTENSIONS: usize = 6;

/// Size of an IPv6 header in bytes, without extension headers.
const IPV6_HEADER: usize = 40;

/// The ports of TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ports {
    /// Of the sender.
    pub source: u16,
    /// Of the receiver.
    pub destination: u16,
}

/// What is said by an IP header, and by what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    /// Whom the packet is from; of the same family as `destination`.
    pub source: IpAddr,
    /// Whom it is for.
    pub destination: IpAddr,
    /// What it carries: one of [`protocol`], or anything else, such as an extension header that is not looked
    /// behind.
    pub protocol: u8,
    /// It is a part of a larger one.
    pub fragment: bool,
    /// Where its payload belongs in that of the larger one, in bytes; 0 also if it is whole.
    pub offset: usize,
    /// Where the transport header starts, in bytes from the frame's start. Fragments but the first have none;
    /// nor has IPv6 behind more extension headers than are looked behind, or behind such as end beyond the
    /// bytes looked at.
    pub transport: Option<usize>,
    /// Where the packet ends according to itself, in bytes from the frame's start. The frame may be longer,
    /// or shorter.
    pub end: usize,
    /// The ports of TCP or UDP. Fragments have none: only the first would.
    pub ports: Option<Ports>,
}

impl Ip {
    pub(super) fn parse_v4(frame: &[u8], at: usize) -> Option<Self> {
        let first = u8_at(frame, at)?;
        let header = usize::from(first & 0xf) * 4;
        let len = usize::from(u16_at(frame, at + 2)?);
        if first >> 4 != 4 || header < 20 || len < header {
            return None;
        }
        // More fragments, and the fragment's offset.
        let fragment = u16_at(frame, at + 6)?;
        let source: [u8; 4] = array(frame, at + 12)?;
        let destination: [u8; 4] = array(frame, at + 16)?;
        let ip = Ip {
            source: Ipv4Addr::from(source).into(),
            destination: Ipv4Addr::from(destination).into(),
            protocol: u8_at(frame, at + 9)?,
            fragment: fragment & 0x3fff != 0,
            offset: usize::from(fragment & 0x1fff) * 8,
            transport: (fragment & 0x1fff == 0).then_some(at + header),
            end: at + len,
            ports: None,
        };
        Some(ip.with_ports(frame))
    }

    pub(super) fn parse_v6(frame: &[u8], at: usize) -> Option<Self> {
        if u8_at(frame, at)? >> 4 != 6 {
            return None;
        }
        let source: [u8; 16] = array(frame, at + 8)?;
        let destination: [u8; 16] = array(frame, at + 24)?;
        let mut ip = Ip {
            source: Ipv6Addr::from(source).into(),
            destination: Ipv6Addr::from(destination).into(),
            protocol: u8_at(frame, at + 6)?,
            fragment: false,
            offset: 0,
            transport: None,
            end: at + IPV6_HEADER + usize::from(u16_at(frame, at + 4)?),
            ports: None,
        };
        ip.transport = ip.skip_extensions(frame, at + IPV6_HEADER);
        Some(ip.with_ports(frame))
    }

    /// Follows the extension headers of IPv6 to the transport header.
    fn skip_extensions(&mut self, frame: &[u8], mut at: usize) -> Option<usize> {
        for _ in 0..MAX_EXTENSIONS {
            let len = match self.protocol {
                HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => (usize::from(u8_at(frame, at + 1)?) + 1) * 8,
                AUTHENTICATION => (usize::from(u8_at(frame, at + 1)?) + 2) * 4,
                FRAGMENT => 8,
                _ => return Some(at),
            };
            let next = u8_at(frame, at)?;
            if self.protocol == FRAGMENT {
                self.fragment = true;
                // In units of 8 bytes, above three bits of flags.
                self.offset = usize::from(u16_at(frame, at + 2)? & !7);
                if self.offset != 0 {
                    self.protocol = next;
                    return None;
                }
            }
            self.protocol = next;
            at += len;
        }
        None
    }

    fn with_ports(mut self, frame: &[u8]) -> Self {
        if let (protocol::TCP | protocol::UDP, false, Some(at)) =
            (self.protocol, self.fragment, self.transport)
            && at + 4 <= self.end
            && let (Some(source), Some(destination)) = (u16_at(frame, at), u16_at(frame, at + 2))
        {
            self.ports = Some(Ports { source, destination });
        }
        self
    }
}
