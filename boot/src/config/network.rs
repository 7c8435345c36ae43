//! The segments of the network: `segment.<name>`, and `forward.`, `rule.` and `lease.` with the name of a
//! segment.

use alloc::{borrow::ToOwned, string::String, vec::Vec};
use core::{net::Ipv4Addr, str::FromStr};

use devices::net::Mac;
use network::router::{
    Endpoint, Forward, Ipv4Cidr, Ipv6Cidr, Protocol, Rule, is_host, is_own_udp, is_unicast6,
};
use protocols::text::{decimal, mac};

use super::is_name;

/// The most segments.
pub const MAX_SEGMENTS: usize = 16;
/// The most uplinks of a segment.
pub const MAX_UPLINKS: usize = 4;
/// The most queues of a disk, and the most pairs of queues of a network device.
const MAX_QUEUES: u16 = 8;
/// The most rules, forwards and leases of a segment, each.
const MAX_ENTRIES: usize = 64;

/// The driver domain's own IPv4 address in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// Configured, with its network.
    Static(Ipv4Cidr),
    /// Asked for by DHCP.
    Dhcp,
}

/// A `segment.<name>=<option>[,<option>…]` key, with the other keys of the segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// What it is called.
    pub name: String,
    /// `uplink=vif<N>`: network interfaces of the driver domain's own, by their device numbers.
    pub uplinks: Vec<u32>,
    /// `address=`: an IPv4 address of the driver domain's own.
    pub address: Option<Address>,
    /// `address=`: an IPv6 address of the driver domain's own.
    pub address6: Option<Ipv6Cidr>,
    /// `gateway=`: the way out, for a static address.
    pub gateway: Option<Ipv4Addr>,
    /// `dns=`: name servers.
    pub dns: Vec<Ipv4Addr>,
    /// `dhcp=<first>-<last>`: addresses for clients.
    pub dhcp: Option<(Ipv4Addr, Ipv4Addr)>,
    /// `nat=<segment>`: what is for elsewhere goes out through that segment, with the driver domain's address
    /// there.
    pub nat: Option<String>,
    /// `isolate`: clients reach uplinks and the driver domain, not each other.
    pub isolate: bool,
    /// `spoof`: clients may use any source address.
    pub spoof: bool,
    /// `queues=`: the most pairs of queues of each client, and of each uplink.
    pub queues: u16,
    /// `rate=`: Mbit/s, each way, for each client.
    pub rate: Option<u32>,
    /// `metrics=<port>`: counters are served there by HTTP.
    pub metrics: Option<u16>,
    /// `forward.<segment>=`: what is reached from outside.
    pub forwards: Vec<Forward>,
    /// `rule.<segment>=`: what may go out by NAT, in the order given; the first that fits decides.
    pub rules: Vec<Rule>,
    /// `lease.<segment>=`: clients with addresses of their own.
    pub leases: Vec<(Mac, Ipv4Addr)>,
}

/// What would have been right.
type Expected = &'static str;

/// Reads an IPv4 network, by an address in it.
fn cidr(text: &str) -> Option<Ipv4Cidr> {
    let (address, prefix) = prefixed(text, 32)?;
    Some(Ipv4Cidr::new(address, prefix))
}

/// Reads an address with or without a prefix length, which is `bits` then.
fn prefixed<A: FromStr>(text: &str, bits: u8) -> Option<(A, u8)> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, decimal(prefix)?),
        None => (text, bits.into()),
    };
    let prefix = u8::try_from(prefix).ok().filter(|prefix| *prefix <= bits)?;
    Some((address.parse().ok()?, prefix))
}

/// Reads a number of queues, or of pairs of queues.
pub(super) fn queues(text: &str) -> Option<u16> {
    decimal(text)
        .and_then(|queues| u16::try_from(queues).ok())
        .filter(|queues| (1..=MAX_QUEUES).contains(queues))
}

/// Reads a rate in Mbit/s.
pub(super) fn rate(text: &str) -> Option<u32> {
    decimal(text).filter(|rate| (1..=1_000_000).contains(rate))
}

fn port(text: &str) -> Option<u16> {
    decimal(text)
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port > 0)
}

impl Segment {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            uplinks: Vec::new(),
            address: None,
            address6: None,
            gateway: None,
            dns: Vec::new(),
            dhcp: None,
            nat: None,
            isolate: false,
            spoof: false,
            queues: 1,
            rate: None,
            metrics: None,
            forwards: Vec::new(),
            rules: Vec::new(),
            leases: Vec::new(),
        }
    }

    /// Reads the value of a `segment.<name>` key.
    pub(super) fn parse(name: &str, value: &str) -> Result<Self, Expected> {
        let mut segment = Self::new(name);
        for option in value.split(',').filter(|option| !option.is_empty()) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            segment.set(key, value)?;
        }
        Ok(segment)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), Expected> {
        match key {
            "uplink" => {
                const EXPECTED: Expected = "uplink=vif<N>, each network interface once, at most 4";
                let vif = value.strip_prefix("vif").and_then(decimal).ok_or(EXPECTED)?;
                if self.uplinks.contains(&vif) || self.uplinks.len() == MAX_UPLINKS {
                    return Err(EXPECTED);
                }
                self.uplinks.push(vif);
            }
            "address" => self.set_address(value)?,
            "gateway" => self.gateway = Some(value.parse().map_err(|_| "gateway=<IPv4 address>")?),
            "dns" => {
                const EXPECTED: Expected = "dns=<IPv4 address>, at most 3";
                self.dns.push(value.parse().map_err(|_| EXPECTED)?);
                if self.dns.len() > 3 {
                    return Err(EXPECTED);
                }
            }
            "dhcp" => {
                const EXPECTED: Expected = "dhcp=<first IPv4 address>-<last>";
                let (first, last) = value.split_once('-').ok_or(EXPECTED)?;
                let (first, last) = (
                    first.parse().map_err(|_| EXPECTED)?,
                    last.parse().map_err(|_| EXPECTED)?,
                );
                self.dhcp = (first <= last).then_some((first, last));
                self.dhcp.ok_or(EXPECTED)?;
            }
            "nat" => {
                self.nat = Some(value).filter(|name| is_name(name)).map(ToOwned::to_owned);
                self.nat.as_ref().ok_or("nat=<name of another segment>")?;
            }
            "queues" => self.queues = queues(value).ok_or("queues=<1 to 8>")?,
            "rate" => self.rate = Some(rate(value).ok_or("rate=<Mbit/s, 1 to 1000000>")?),
            "metrics" => self.metrics = Some(port(value).ok_or("metrics=<TCP port>")?),
            "isolate" if value.is_empty() => self.isolate = true,
            "spoof" if value.is_empty() => self.spoof = true,
            _ => {
                return Err(
                    "options uplink=, address=, gateway=, dns=, dhcp=, nat=, queues=, rate=, metrics=, isolate, spoof",
                );
            }
        }
        Ok(())
    }

    fn set_address(&mut self, value: &str) -> Result<(), Expected> {
        const EXPECTED: Expected =
            "address=dhcp or address=<address>/<prefix length>, one for IPv4 and one for IPv6";
        if value == "dhcp" {
            return match self.address.replace(Address::Dhcp) {
                None => Ok(()),
                Some(_) => Err(EXPECTED),
            };
        }
        if !value.contains('/') {
            return Err(EXPECTED);
        }
        let repeated = match (cidr(value), prefixed(value, 128)) {
            (Some(own), _) if (8..=30).contains(&own.prefix_len()) && is_host(own, own.address()) => {
                self.address.replace(Address::Static(own)).is_some()
            }
            (_, Some((address, prefix @ 16..=126))) if is_unicast6(address) => {
                self.address6.replace(Ipv6Cidr::new(address, prefix)).is_some()
            }
            _ => true,
        };
        if repeated { Err(EXPECTED) } else { Ok(()) }
    }

    /// Whether a client of the segment can have this address: in the driver domain's network, and not its
    /// own.
    pub(super) fn has_room_for(&self, client: Ipv4Addr) -> bool {
        matches!(self.address, Some(Address::Static(own)) if client != own.address() && is_host(own, client))
    }

    /// Reads what a `forward.<name>` key says, of this segment by itself.
    fn parse_forward(&self, value: &str) -> Option<Forward> {
        let mut parts = value.split(':');
        let forward = Forward {
            protocol: match parts.next()? {
                "tcp" => Protocol::Tcp,
                "udp" => Protocol::Udp,
                _ => return None,
            },
            port: port(parts.next()?)?,
            to: Endpoint::new(parts.next()?.parse().ok()?, port(parts.next()?)?),
        };
        (parts.next().is_none() && self.has_room_for(forward.to.address) && self.forwards.len() < MAX_ENTRIES)
            .then_some(forward)
    }

    /// Whether a port of this segment's address is wanted already: by a forward of a segment that goes out
    /// here, or by the router.
    fn has_port_in_use(&self, all: &[Self], forward: &Forward) -> bool {
        let own = match forward.protocol {
            Protocol::Tcp => self.metrics == Some(forward.port),
            Protocol::Udp => is_own_udp(forward.port),
            Protocol::Icmp => false,
        };
        let mut forwards = all
            .iter()
            .filter(|inside| inside.nat.as_ref() == Some(&self.name))
            .flat_map(|inside| &inside.forwards);
        own || forwards.any(|other| other.protocol == forward.protocol && other.port == forward.port)
    }

    /// What a `forward.<name>` key says, given all segments, of which this is number `index`.
    pub(super) fn add_forward(all: &mut [Self], index: usize, value: &str) -> Result<(), Expected> {
        const EXPECTED: Expected = "<tcp|udp>:<port>:<address of a client in the segment>:<port>, at most 64, in a segment with nat=";
        let forward = all[index].parse_forward(value).ok_or(EXPECTED)?;
        let outside = |name: &String| all.iter().find(|other| other.name == *name);
        let outside = all[index].nat.as_ref().and_then(outside).ok_or(EXPECTED)?;
        if outside.has_port_in_use(all, &forward) {
            return Err(
                "a port of the outside address that is not forwarded already, nor that of metrics=, nor UDP 67, 68 or 64512 to 65535",
            );
        }
        all[index].forwards.push(forward);
        Ok(())
    }

    /// Adds what a `rule.<name>` key says.
    pub(super) fn add_rule(&mut self, value: &str) -> Result<(), Expected> {
        const EXPECTED: Expected = "<allow|deny>[,tcp|udp|icmp][,from=<network>][,to=<network>][,port=<port>[-<port>]], at most 64, in a segment with nat=";
        let mut options = value.split(',');
        let allow = match options.next() {
            Some("allow") => true,
            Some("deny") => false,
            _ => return Err(EXPECTED),
        };
        let mut rule = Rule {
            allow,
            protocol: None,
            from: None,
            to: None,
            ports: None,
        };
        for option in options {
            match option.split_once('=').unwrap_or((option, "")) {
                ("tcp", "") => rule.protocol = Some(Protocol::Tcp),
                ("udp", "") => rule.protocol = Some(Protocol::Udp),
                ("icmp", "") => rule.protocol = Some(Protocol::Icmp),
                ("from", network) => rule.from = Some(cidr(network).ok_or(EXPECTED)?),
                ("to", network) => rule.to = Some(cidr(network).ok_or(EXPECTED)?),
                ("port", ports) => {
                    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
                    let (first, last) = (port(first).ok_or(EXPECTED)?, port(last).ok_or(EXPECTED)?);
                    rule.ports = Some(first..=last).filter(|ports| !ports.is_empty());
                    rule.ports.as_ref().ok_or(EXPECTED)?;
                }
                _ => return Err(EXPECTED),
            }
        }
        if self.nat.is_none() || self.rules.len() == MAX_ENTRIES {
            return Err(EXPECTED);
        }
        self.rules.push(rule);
        Ok(())
    }

    /// Adds what a `lease.<name>` key says.
    pub(super) fn add_lease(&mut self, value: &str) -> Result<(), Expected> {
        const EXPECTED: Expected =
            "<Ethernet address>,<free IPv4 address in the segment>, each once, in a segment with dhcp=";
        let (text, address) = value.split_once(',').ok_or(EXPECTED)?;
        let mac = mac(text).ok_or(EXPECTED)?;
        let address = address.parse().map_err(|_| EXPECTED)?;
        let repeated = |lease: &(Mac, Ipv4Addr)| lease.0 == mac || lease.1 == address;
        if self.dhcp.is_none()
            || !self.has_room_for(address)
            || self.leases.iter().any(repeated)
            || self.leases.len() == MAX_ENTRIES
        {
            return Err(EXPECTED);
        }
        self.leases.push((mac, address));
        Ok(())
    }

    /// What of the segment's options does not go together, given all segments.
    pub(super) fn contradiction(&self, all: &[Self]) -> Option<Expected> {
        let own_network = matches!(self.address, Some(Address::Static(..)));
        if let Some((first, last)) = self.dhcp {
            let pool = |own: Ipv4Cidr| (first..=last).contains(&own.address());
            if !self.has_room_for(first)
                || !self.has_room_for(last)
                || matches!(self.address, Some(Address::Static(own)) if pool(own))
            {
                return Some("dhcp= addresses inside the network of address=, and without that address");
            }
        }
        if let Some(gateway) = self.gateway
            && !self.has_room_for(gateway)
        {
            return Some("gateway= inside the network of address=");
        }
        if let Some(nat) = &self.nat {
            let outside = all
                .iter()
                .find(|other| other.name == *nat && other.name != self.name);
            let Some(outside) = outside else {
                return Some("nat= with the name of another segment");
            };
            if outside.address.is_none() || outside.nat.is_some() {
                return Some("nat= with a segment that has an IPv4 address= and no nat= itself");
            }
            if !own_network {
                return Some("nat= together with address=<IPv4 address>/<prefix length>");
            }
        }
        if !self.dns.is_empty() && self.address.is_none() {
            return Some("dns= together with an IPv4 address=");
        }
        if self.nat.is_some() && self.dns.iter().any(|server| self.has_room_for(*server)) {
            return Some("dns= outside the segment's own network, as nat= asks it from there");
        }
        if self.metrics.is_some() && self.address.is_none() {
            return Some("metrics= together with address=");
        }
        let uplinks = |other: &Self| other.uplinks.iter().any(|uplink| self.uplinks.contains(uplink));
        if all.iter().any(|other| other.name != self.name && uplinks(other)) {
            return Some("each uplink= in one segment only");
        }
        None
    }
}
