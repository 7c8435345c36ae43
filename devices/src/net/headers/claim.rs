//! What ARP and neighbour discovery tell of who has an address.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::ip::protocol;
use super::{Ip, array, u8_at, u16_at};
use crate::net::Mac;

/// What a frame makes those who hear it believe: that an IP address is at a station.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The IP address.
    pub ip: IpAddr,
    /// The station. `None` if the frame says several things, or says it where it cannot be seen: whoever does
    /// not trust the sender takes no such frame.
    pub mac: Option<Mac>,
}

/// Types of the ICMPv6 messages of neighbour discovery (RFC 4861).
pub mod discovery {
    /// Router solicitation, the first of them.
    pub const ROUTER_SOLICITATION: u8 = 133;
    /// Router advertisement.
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    /// Neighbour solicitation.
    pub const NEIGHBOUR_SOLICITATION: u8 = 135;
    /// Neighbour advertisement.
    pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    /// Redirect, the last of them.
    pub const REDIRECT: u8 = 137;
}

// Types of neighbour discovery options.
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;

/// The most options of a message that are looked at.
const MAX_OPTIONS: usize = 8;

impl Claim {
    /// What an ARP packet (RFC 826) claims. A probe for a free address claims nothing. What is not for
    /// Ethernet and IPv4 cannot be told: receivers differ in what they take for it; Linux, for one, does not
    /// mind the hardware type of IEEE 802 networks.
    pub(super) fn of_arp(frame: &[u8], at: usize) -> Option<Self> {
        // Hardware and protocol, with the sizes of their addresses.
        let ip = match array(frame, at) {
            Some([0, 1, 8, 0, 6, 4]) => array::<4>(frame, at + 14),
            _ => None,
        };
        let Some(ip) = ip.map(Ipv4Addr::from) else {
            return Some(Claim {
                ip: Ipv4Addr::UNSPECIFIED.into(),
                mac: None,
            });
        };
        (!ip.is_unspecified()).then_some(Claim {
            ip: ip.into(),
            mac: array(frame, at + 8),
        })
    }

    /// What a message of neighbour discovery (RFC 4861) claims. `source` is the frame's: it stands for an
    /// option that is not there.
    pub(super) fn of_neighbour_discovery(frame: &[u8], ip: &Ip, source: Mac) -> Option<Self> {
        let at = ip.transport.filter(|_| ip.protocol == protocol::ICMPV6)?;
        // Where a message's options start, which of them counts, and whose address it is about.
        let (options, option, target) = match u8_at(frame, at)? {
            discovery::ROUTER_SOLICITATION => (8, SOURCE_LINK_LAYER, false),
            discovery::ROUTER_ADVERTISEMENT => (16, SOURCE_LINK_LAYER, false),
            discovery::NEIGHBOUR_SOLICITATION => (24, SOURCE_LINK_LAYER, false),
            discovery::NEIGHBOUR_ADVERTISEMENT => (24, TARGET_LINK_LAYER, true),
            discovery::REDIRECT => (40, TARGET_LINK_LAYER, true),
            _ => return None,
        };
        let claimed = match target {
            true => Ipv6Addr::from(array::<16>(frame, at + 8)?).into(),
            false => ip.source,
        };
        // A solicitation from nobody looks for a free address.
        if claimed.is_unspecified() {
            return None;
        }
        let mac = link_layer(frame, at + options, ip.end, option).map(|found| found.unwrap_or(source));
        Some(Claim { ip: claimed, mac })
    }
}

/// The link-layer address in the options from `at` to `end`, if one is there; `None` if that cannot be told.
fn link_layer(frame: &[u8], mut at: usize, end: usize, wanted: u8) -> Option<Option<Mac>> {
    let mut found = None;
    for _ in 0..MAX_OPTIONS {
        if at >= end {
            return Some(found);
        }
        let [kind, len] = u16_at(frame, at)?.to_be_bytes();
        if len == 0 {
            return None;
        }
        if kind == wanted {
            let mac = array(frame, at + 2)?;
            if found.is_some_and(|other| other != mac) {
                return None;
            }
            found = Some(mac);
        }
        at += usize::from(len) * 8;
    }
    None
}
