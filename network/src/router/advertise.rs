//! Router advertisements (RFC 4861), by which stations give themselves IPv6 addresses (RFC 4862) and learn of
//! a name server (RFC 8106).
//!
//! The router forwards no IPv6, and says so: its lifetime as a default router is 0.

use alloc::vec;
use alloc::vec::Vec;
use core::net::Ipv6Addr;

use devices::net::Mac;
use smoltcp::time::Duration;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, Icmpv6Message, Icmpv6Packet, IpProtocol, Ipv6Cidr,
    Ipv6Packet, NdiscOption, NdiscOptionRepr, NdiscPrefixInfoFlags, NdiscPrefixInformation, NdiscRepr,
    NdiscRouterFlags,
};

use super::build::{self, Ends};
use super::nat::Seconds;
use crate::link_local;

/// All stations on the line, and the Ethernet group that stands for them.
const ALL_NODES: (Ipv6Addr, Mac) = (
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
    [0x33, 0x33, 0, 0, 0, 1],
);
/// Time between advertisements that nobody asked for (MaxRtrAdvInterval's default).
const INTERVAL: Seconds = 600;
/// The least time between any two (MIN_DELAY_BETWEEN_RAS).
const LEAST: Seconds = 3;
/// How long a prefix is valid and preferred, and a name server is used (RFC 4861's defaults; three times the
/// interval).
const VALID: u64 = 2_592_000;
const PREFERRED: u64 = 604_800;
const NAME_SERVER: u32 = 3 * INTERVAL;

/// The one who advertises a segment's prefix.
pub struct Advertiser {
    frame: Vec<u8>,
    name_server: bool,
    /// When to advertise next.
    next: Seconds,
    last: Option<Seconds>,
}

impl Advertiser {
    /// Advertises the network of an own address, and that address as name server if it is one.
    pub fn new(mac: Mac, own: Ipv6Cidr, mtu: u16, name_server: bool) -> Self {
        Self {
            frame: advertisement(mac, own, mtu, name_server),
            name_server,
            next: 0,
            last: None,
        }
    }

    /// Whether it advertises a name server.
    pub fn name_server(&self) -> bool {
        self.name_server
    }

    /// Somebody asks: the next advertisement comes soon.
    pub fn solicit(&mut self, now: Seconds) {
        let soonest = self.last.map_or(now, |last| last + LEAST);
        self.next = self.next.min(soonest.max(now));
    }

    /// The frame to send now, if it is time.
    pub fn tick(&mut self, now: Seconds) -> Option<&[u8]> {
        if now < self.next {
            return None;
        }
        self.next = now + INTERVAL;
        self.last = Some(now);
        Some(&self.frame)
    }
}

/// Whether a frame is a router solicitation.
pub fn is_solicitation(frame: &[u8]) -> bool {
    let Ok(frame) = EthernetFrame::new_checked(frame) else {
        return false;
    };
    if frame.ethertype() != EthernetProtocol::Ipv6 {
        return false;
    }
    let Ok(ip) = Ipv6Packet::new_checked(frame.payload()) else {
        return false;
    };
    ip.next_header() == IpProtocol::Icmpv6
        && ip.hop_limit() == 255
        && Icmpv6Packet::new_checked(ip.payload()).is_ok_and(|icmp| {
            icmp.msg_type() == Icmpv6Message::RouterSolicit
                && icmp.verify_checksum(&ip.src_addr(), &ip.dst_addr())
        })
}

fn advertisement(mac: Mac, own: Ipv6Cidr, mtu: u16, name_server: bool) -> Vec<u8> {
    let network = u128::from(own.address())
        & u128::MAX
            .checked_shl(128 - u32::from(own.prefix_len()))
            .unwrap_or(0);
    let mut flags = NdiscPrefixInfoFlags::ON_LINK;
    // Addresses are made of 64 bits of prefix and 64 bits of the station's own.
    flags.set(NdiscPrefixInfoFlags::ADDRCONF, own.prefix_len() == 64);
    let message = NdiscRepr::RouterAdvert {
        hop_limit: 64,
        flags: NdiscRouterFlags::empty(),
        router_lifetime: Duration::ZERO,
        reachable_time: Duration::ZERO,
        retrans_time: Duration::ZERO,
        lladdr: Some(EthernetAddress(mac).into()),
        mtu: Some(u32::from(mtu).max(1280)),
        prefix_info: Some(NdiscPrefixInformation {
            prefix_len: own.prefix_len(),
            flags,
            valid_lifetime: Duration::from_secs(VALID),
            preferred_lifetime: Duration::from_secs(PREFERRED),
            prefix: network.into(),
        }),
    };
    let fixed = message.buffer_len();
    let mut rdnss = [0; 22];
    rdnss[2..6].copy_from_slice(&NAME_SERVER.to_be_bytes());
    rdnss[6..].copy_from_slice(&own.address().octets());
    const RDNSS: u8 = 25;
    let rdnss = NdiscOptionRepr::Unknown {
        type_: RDNSS,
        length: 3,
        data: &rdnss,
    };
    let mut bytes = vec![0; fixed + if name_server { rdnss.buffer_len() } else { 0 }];
    message.emit(&mut Icmpv6Packet::new_unchecked(&mut bytes[..fixed]));
    if name_server {
        rdnss.emit(&mut NdiscOption::new_unchecked(&mut bytes[fixed..]));
    }
    let from = link_local(mac);
    Icmpv6Packet::new_unchecked(&mut bytes[..]).fill_checksum(&from, &ALL_NODES.0);
    let ends = Ends {
        from: mac,
        to: ALL_NODES.1,
    };
    build::ipv6_local(ends, (from, ALL_NODES.0), IpProtocol::Icmpv6, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use smoltcp::wire::NdiscOptionType;

    const MAC: Mac = [2, 0, 0, 0, 0, 1];

    #[test]
    fn what_is_advertised() {
        let own = Ipv6Cidr::new("fd00:1::1".parse().unwrap(), 64);
        let frame = advertisement(MAC, own, 1500, true);
        let frame = EthernetFrame::new_checked(&frame[..]).unwrap();
        let ip = Ipv6Packet::new_checked(frame.payload()).unwrap();
        assert_eq!(ip.src_addr(), "fe80::ff:fe00:1".parse::<Ipv6Addr>().unwrap());
        let icmp = Icmpv6Packet::new_checked(ip.payload()).unwrap();
        assert!(icmp.verify_checksum(&ip.src_addr(), &ip.dst_addr()));
        let Ok(NdiscRepr::RouterAdvert {
            prefix_info: Some(prefix),
            mtu,
            router_lifetime,
            ..
        }) = NdiscRepr::parse(&icmp)
        else {
            panic!()
        };
        assert_eq!(prefix.prefix, "fd00:1::".parse::<Ipv6Addr>().unwrap());
        assert!(prefix.flags.contains(NdiscPrefixInfoFlags::ADDRCONF));
        assert_eq!((mtu, router_lifetime), (Some(1500), Duration::ZERO));
        let rdnss = NdiscOption::new_checked(&ip.payload()[ip.payload().len() - 24..]).unwrap();
        assert_eq!(rdnss.option_type(), NdiscOptionType::Unknown(25));
        assert_eq!(&rdnss.data()[6..], own.address().octets());
    }

    #[test]
    fn when() {
        let mut advertiser =
            Advertiser::new(MAC, Ipv6Cidr::new("fd00:1::1".parse().unwrap(), 64), 1500, false);
        assert!(advertiser.tick(0).is_some());
        assert!(advertiser.tick(1).is_none());
        advertiser.solicit(1);
        assert!(advertiser.tick(2).is_none());
        assert!(advertiser.tick(3).is_some());
        assert!(advertiser.tick(602).is_none());
        assert!(advertiser.tick(603).is_some());
        advertiser.solicit(700);
        assert!(advertiser.tick(700).is_some());
    }
}
