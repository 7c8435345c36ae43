//! What a segment and a port of it are like.

use alloc::string::String;
use alloc::vec::Vec;

use devices::net::{Link, Mac};

use super::{Prefix, RateLimit};

/// What a segment is like.
#[derive(Clone, Debug)]
pub struct SwitchOptions {
    /// No client reaches another one.
    pub isolate: bool,
    /// The line as clients see it while the segment has no uplink, and no router that says otherwise.
    pub link: Link,
}

impl Default for SwitchOptions {
    fn default() -> Self {
        SwitchOptions {
            isolate: false,
            link: Link {
                up: true,
                mtu: 1500,
                speed: u32::MAX,
                announcements: 0,
            },
        }
    }
}

/// What kind of port something is plugged into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of a client, which nobody trusts.
    Client,
    /// To the world outside.
    Uplink,
    /// Of a router of the driver domain's own.
    Router,
}

/// How a port is plugged in.
#[derive(Clone, Debug)]
pub struct PortOptions {
    /// What it is called where its counters are shown.
    pub label: String,
    /// What kind it is.
    pub kind: Kind,
    /// The station's address, which nobody else on the segment may have; none for uplinks.
    pub mac: Option<Mac>,
    /// Frames of the port may only come from its address, in ARP and neighbour discovery too.
    pub guard_mac: bool,
    /// IP addresses that the port may use; any if there are none. With them, it sends nothing but ARP, IPv4
    /// and IPv6; its link-local address made of its station address is allowed, and so is asking for an
    /// address. It is no DHCP server and no IPv6 router. Implies `guard_mac`.
    pub addresses: Vec<Prefix>,
    /// It does not reach clients, nor they it.
    pub isolate: bool,
    /// Bytes per second that it may send: it has to wait if it wants more. That is the speed of the line as
    /// it sees it.
    pub send_rate: Option<RateLimit>,
    /// Bytes per second that it may receive: more waits, within `receive_limit`. With it, the port has one
    /// receive queue.
    pub receive_rate: Option<RateLimit>,
    /// Copies of frames to groups and unknown stations that it may cause: more is dropped. Frames to unknown
    /// stations that go to one port only are as much work as others, and do not count.
    pub flood_rate: Option<RateLimit>,
    /// How much memory, in bytes, may be in what it has sent and nobody has received. At least a frame of the
    /// largest size.
    pub send_limit: usize,
    /// How much memory, in bytes, may be in what it has to receive. At least a frame of the largest size.
    pub receive_limit: usize,
    /// The most stations that are learned there, up to 65535. Beyond them, an uplink or router forgets the
    /// one heard longest ago; a client's further ones stay unknown.
    pub stations: usize,
}

/// What a client may cause by floods, by default: enough for a video stream of 50 Mbit/s out of an uplink, or
/// for 80 broadcasts a second to 60 neighbours.
const FLOOD_RATE: RateLimit = RateLimit {
    per_second: 5000,
    burst: 1000,
};

impl PortOptions {
    /// A client with this address, which may use no other station address, and is limited in nothing but
    /// floods and memory.
    pub fn client(label: impl Into<String>, mac: Mac) -> Self {
        PortOptions {
            label: label.into(),
            kind: Kind::Client,
            mac: Some(mac),
            guard_mac: true,
            addresses: Vec::new(),
            isolate: false,
            send_rate: None,
            receive_rate: None,
            flood_rate: Some(FLOOD_RATE),
            send_limit: 1 << 20,
            receive_limit: 1 << 20,
            stations: 64,
        }
    }

    /// An uplink. It is down until [`Plug::set_link`](super::Plug::set_link).
    pub fn uplink(label: impl Into<String>) -> Self {
        PortOptions {
            kind: Kind::Uplink,
            mac: None,
            guard_mac: false,
            flood_rate: None,
            send_limit: 4 << 20,
            receive_limit: 4 << 20,
            stations: 1024,
            ..Self::client(label, [0; 6])
        }
    }

    /// A router with this address.
    pub fn router(label: impl Into<String>, mac: Mac) -> Self {
        PortOptions {
            kind: Kind::Router,
            mac: Some(mac),
            guard_mac: false,
            flood_rate: None,
            send_limit: 4 << 20,
            receive_limit: 4 << 20,
            stations: 0,
            ..Self::client(label, mac)
        }
    }
}
