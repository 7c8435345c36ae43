//! ICMP errors that the router sends about packets which it does not forward (RFC 792, RFC 1812), and how
//! many refusals of any kind it sends.

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use devices::net::Mac;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, Icmpv4Message, Icmpv4Packet, Icmpv6Packet, IpProtocol, Ipv4Packet,
    Ipv6Packet, TcpPacket,
};

use super::build::{self, Ends};
use super::nat::{Content, Packet, Seconds};

/// What is wrong with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// It went over too many hops.
    TimeExceeded,
    /// It must not be cut, and is larger than this, its IP header included.
    TooBig(u16),
    /// There is no way out.
    NoRoute,
    /// A rule is against it.
    Prohibited,
}

impl Error {
    fn type_code(self) -> (Icmpv4Message, u8) {
        match self {
            Self::TimeExceeded => (Icmpv4Message::TimeExceeded, 0),
            Self::TooBig(_) => (Icmpv4Message::DstUnreachable, 4),
            Self::NoRoute => (Icmpv4Message::DstUnreachable, 0),
            Self::Prohibited => (Icmpv4Message::DstUnreachable, 13),
        }
    }
}

/// The frame with an error about a packet, from `own`. `None` if errors are not to be sent about it: it is an
/// error itself, or a later fragment, or from nobody in particular.
pub fn error(ends: Ends, own: Ipv4Addr, packet: &Packet, error: Error) -> Option<Vec<u8>> {
    const HEADER: usize = 8;
    let to = packet.ip().src_addr();
    if !matches!(packet.content(), Content::Connection(..))
        || to.is_unspecified()
        || to.is_multicast()
        || to.is_broadcast()
    {
        return None;
    }
    // The IP header, and the 64 bits after it, which every connection's packet has.
    let quoted = &packet.start()[..packet.header_len() + 8];
    let frame = build::ipv4(
        ends,
        (own, to),
        IpProtocol::Icmp,
        HEADER + quoted.len(),
        |bytes| {
            bytes[HEADER..].copy_from_slice(quoted);
            if let Error::TooBig(mtu) = error {
                bytes[6..8].copy_from_slice(&mtu.to_be_bytes());
            }
            let (message, code) = error.type_code();
            let mut icmp = Icmpv4Packet::new_unchecked(bytes);
            icmp.set_msg_type(message);
            icmp.set_msg_code(code);
            if ChecksumCapabilities::default().icmpv4.tx() {
                icmp.fill_checksum();
            }
        },
    );
    Some(frame)
}

/// Whether a frame is smoltcp's refusal of something: an ICMP error, or a TCP reset.
pub fn is_refusal(frame: &[u8]) -> bool {
    let Ok(frame) = EthernetFrame::new_checked(frame) else {
        return false;
    };
    let resets = |segment| TcpPacket::new_checked(segment).is_ok_and(|segment| segment.rst());
    match frame.ethertype() {
        EthernetProtocol::Ipv4 => {
            Ipv4Packet::new_checked(frame.payload()).is_ok_and(|ip| match ip.next_header() {
                IpProtocol::Icmp => Icmpv4Packet::new_checked(ip.payload())
                    .is_ok_and(|icmp| icmp.msg_type() != Icmpv4Message::EchoReply),
                IpProtocol::Tcp => resets(ip.payload()),
                _ => false,
            })
        }
        EthernetProtocol::Ipv6 => {
            Ipv6Packet::new_checked(frame.payload()).is_ok_and(|ip| match ip.next_header() {
                IpProtocol::Icmpv6 => {
                    Icmpv6Packet::new_checked(ip.payload()).is_ok_and(|icmp| icmp.msg_type().is_error())
                }
                IpProtocol::Tcp => resets(ip.payload()),
                _ => false,
            })
        }
        _ => false,
    }
}

/// How many errors and resets may be sent.
pub struct Limit {
    second: Seconds,
    /// To whom, and how many.
    sent: Vec<(Mac, u32)>,
}

impl Limit {
    /// To one station, in a second.
    const RATE: u32 = 20;
    /// To how many stations, in a second.
    const STATIONS: usize = 64;

    /// All of them.
    pub fn new() -> Self {
        Self {
            second: 0,
            sent: Vec::new(),
        }
    }

    /// Takes one for a station, if there is one left.
    pub fn take(&mut self, now: Seconds, station: Mac) -> bool {
        if self.second != now {
            self.second = now;
            self.sent.clear();
        }
        if let Some((_, sent)) = self.sent.iter_mut().find(|sent| sent.0 == station) {
            let left = *sent < Self::RATE;
            *sent += u32::from(left);
            return left;
        }
        let left = self.sent.len() < Self::STATIONS;
        if left {
            self.sent.push((station, 1));
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_station_has_its_own_limit() {
        let mut limit = Limit::new();
        let taken = |limit: &mut Limit, now, last| {
            (0..1000)
                .filter(|_| limit.take(now, [2, 0, 0, 0, 0, last]))
                .count() as u32
        };
        assert_eq!(taken(&mut limit, 0, 1), Limit::RATE);
        assert_eq!(taken(&mut limit, 0, 2), Limit::RATE);
        assert_eq!(taken(&mut limit, 0, 1), 0);
        assert_eq!(taken(&mut limit, 1, 1), Limit::RATE);
        let stations = (0..=255).filter(|last| taken(&mut limit, 2, *last) > 0);
        assert_eq!(stations.count(), Limit::STATIONS);
    }
}
