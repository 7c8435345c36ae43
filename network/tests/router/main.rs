//! Routers, with hosts around them.

mod bed;
mod dhcp;
mod dns;
mod frames;
mod hostile;
mod impostors;
mod made;
mod nat;
mod services;

use std::net::Ipv4Addr;

use bed::{Bed, Host, Segment};
use devices::net::Mac;
use network::router::{Address, Config, DhcpOptions, Inside, Limits, StationConfig, Timeouts};

const INSIDE: Mac = [2, 0, 0, 0, 0, 0xfe];
const OUTSIDE: Mac = [2, 0, 0, 0, 1, 0xfe];
const GUEST: Mac = [2, 0, 0, 0, 0, 1];
const SERVER: Mac = [2, 0, 0, 0, 1, 1];

fn ip(address: &str) -> Ipv4Addr {
    address.parse().unwrap()
}

/// A router at 10.0.0.1 inside and 192.0.2.1 outside.
fn config(inside: &Segment, outside: Option<&Segment>) -> Config<bed::Socket> {
    let station = |segment: &Segment, mac, cidr: &str| StationConfig {
        port: segment.plug(),
        mac,
        address: Some(Address::Static {
            cidr: cidr.parse().unwrap(),
            gateway: None,
            dns: vec![],
        }),
        address6: None,
        dhcp: None,
        metrics: None,
    };
    Config {
        insides: vec![Inside {
            station: station(inside, INSIDE, "10.0.0.1/24"),
            forwards: vec![],
            rules: vec![],
            isolate: false,
            advertise: true,
        }],
        outside: outside.map(|outside| {
            let mut station = station(outside, OUTSIDE, "192.0.2.1/24");
            if let Some(Address::Static { gateway, dns, .. }) = &mut station.address {
                *gateway = Some(ip("192.0.2.2"));
                dns.push(ip("192.0.2.2"));
            }
            station
        }),
        limits: Limits::default(),
        timeouts: Timeouts::default(),
        seed: [1, 2],
    }
}

fn pool() -> DhcpOptions {
    DhcpOptions {
        first: ip("10.0.0.100"),
        last: ip("10.0.0.199"),
        lease: 3600,
        reservations: Default::default(),
    }
}

/// A router with a guest inside and a server outside, at 192.0.2.2.
struct World {
    inside: Segment,
    outside: Segment,
    guest: Host,
    server: Host,
    bed: Bed,
}

impl World {
    fn new(change: impl FnOnce(&mut Config<bed::Socket>)) -> Self {
        let (inside, outside) = (Segment::new(), Segment::new());
        let mut config = config(&inside, Some(&outside));
        change(&mut config);
        Self {
            guest: Host::new(&inside, GUEST, &["10.0.0.5/24"], Some("10.0.0.1")),
            server: Host::new(&outside, SERVER, &["192.0.2.2/24"], None),
            inside,
            outside,
            bed: Bed::new(config),
        }
    }
}
