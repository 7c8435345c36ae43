//! What a client's network device is like: the segment's options, and keys that dom0 may write beside the
//! device's nodes.

use alloc::{format, string::String, vec::Vec};
use core::net::{IpAddr, Ipv4Addr};

use devices::net::Mac;
use protocols::text::{mac, printable};

use super::network::{queues, rate};
use super::{Config, Segment};

/// A client's place in the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client<'a> {
    /// Its segment.
    pub segment: &'a Segment,
    /// Its address, if one is given.
    pub mac: Option<Mac>,
    /// The addresses that it may use; empty: any.
    pub addresses: Vec<IpAddr>,
    /// The most pairs of queues.
    pub queues: u16,
    /// Mbit/s, each way.
    pub rate: Option<u32>,
    /// It reaches uplinks and the driver domain, and no other client.
    pub isolate: bool,
    /// It may use any source address.
    pub spoof: bool,
}

/// The most addresses of a client.
const MAX_ADDRESSES: usize = 8;

impl<'a> Client<'a> {
    /// The keys that may stand beside a device's nodes.
    pub const KEYS: [&'static str; 7] = ["segment", "mac", "ip", "queues", "rate", "isolate", "spoof"];

    /// The place of a client with these keys.
    ///
    /// # Errors
    /// A text that names key, value and what was expected.
    pub fn new(config: &'a Config, get: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let wrong = |key: &str, value: &str, expected: &str| {
            format!("{key}={}: expected {expected}", printable(value))
        };
        let segment = match get("segment") {
            None => config
                .segments
                .first()
                .ok_or("no segment is configured: expected segment.<name>= on the command line")?,
            Some(name) => config
                .segments
                .iter()
                .find(|segment| segment.name == name)
                .ok_or_else(|| wrong("segment", &name, "the name of a configured segment"))?,
        };
        let mut client = Self {
            segment,
            mac: None,
            addresses: Vec::new(),
            queues: segment.queues,
            rate: segment.rate,
            isolate: segment.isolate,
            spoof: segment.spoof,
        };
        for key in &Self::KEYS[1..] {
            if let Some(value) = get(key) {
                client
                    .set(key, &value)
                    .map_err(|expected| wrong(key, &value, expected))?;
            }
        }
        Ok(client)
    }

    /// The IP addresses that it may use with this Ethernet address; none: any.
    pub fn allowed(&self, mac: Mac) -> Vec<IpAddr> {
        if self.spoof || self.addresses.is_empty() {
            return Vec::new();
        }
        let lease = self.segment.leases.iter().filter(|lease| lease.0 == mac);
        let leased = lease.map(|lease| IpAddr::V4(lease.1));
        self.addresses.iter().copied().chain(leased).collect()
    }

    /// The address that DHCP is to give to it with this Ethernet address, because it may use no other that
    /// lies in the segment's network. `None` if it may use any, if a `lease.` says which, or if there is no
    /// DHCP.
    ///
    /// # Errors
    /// If none of its addresses can be given.
    pub fn reserved(&self, mac: Mac) -> Result<Option<Ipv4Addr>, &'static str> {
        let leased = self.segment.leases.iter().any(|lease| lease.0 == mac);
        if self.segment.dhcp.is_none() || leased || self.allowed(mac).is_empty() {
            return Ok(None);
        }
        let own = self.addresses.iter().find_map(|address| match address {
            IpAddr::V4(own) if self.segment.has_room_for(*own) => Some(*own),
            _ => None,
        });
        own.map(Some)
            .ok_or("no address is a client's in the segment's network")
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), &'static str> {
        let switch = || match value {
            "0" => Ok(false),
            "1" => Ok(true),
            _ => Err("0 or 1"),
        };
        match key {
            "mac" => self.mac = Some(mac(value).ok_or("an Ethernet address such as 00:16:3e:01:02:03")?),
            "ip" => {
                const EXPECTED: &str = "IP addresses with commas between them, at most 8";
                let addresses = value.split(',').map(|address| address.trim().parse());
                self.addresses = addresses.collect::<Result<_, _>>().map_err(|_| EXPECTED)?;
                if self.addresses.len() > MAX_ADDRESSES {
                    return Err(EXPECTED);
                }
            }
            "queues" => self.queues = queues(value).ok_or("1 to 8")?,
            "rate" => self.rate = Some(rate(value).ok_or("Mbit/s, 1 to 1000000")?),
            "isolate" => self.isolate = switch()?,
            "spoof" => self.spoof = switch()?,
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    fn client(config: &Config, keys: &[(&str, &str)]) -> Result<(String, Option<Mac>, u16, bool), String> {
        let get = |key: &str| {
            keys.iter()
                .find(|pair| pair.0 == key)
                .map(|pair| pair.1.to_string())
        };
        Client::new(config, get).map(|client| {
            (
                client.segment.name.clone(),
                client.mac,
                client.queues,
                client.spoof,
            )
        })
    }

    #[test]
    fn keys_override_the_segment() {
        let (config, errors) = Config::parse("segment.a=queues=2 segment.b=spoof");
        assert_eq!(errors, []);
        assert_eq!(client(&config, &[]), Ok(("a".to_string(), None, 2, false)));
        let mac = [0, 0x16, 0x3e, 1, 2, 3];
        assert_eq!(
            client(
                &config,
                &[
                    ("segment", "b"),
                    ("mac", "00:16:3e:01:02:03"),
                    ("queues", "4"),
                    ("spoof", "0")
                ]
            ),
            Ok(("b".to_string(), Some(mac), 4, false))
        );
    }

    #[test]
    fn what_dhcp_gives() {
        let (config, errors) = Config::parse(
            "segment.a=address=10.1.0.1/24,dhcp=10.1.0.100-10.1.0.199 lease.a=00:16:3e:00:00:05,10.1.0.5 segment.b=",
        );
        assert_eq!(errors, []);
        let reserved = |keys: &[(&str, &str)], last| {
            let get = |key: &str| {
                keys.iter()
                    .find(|pair| pair.0 == key)
                    .map(|pair| pair.1.to_string())
            };
            Client::new(&config, get)
                .unwrap()
                .reserved([0, 0x16, 0x3e, 0, 0, last])
        };
        let own = Ok(Some([10, 1, 0, 7].into()));
        assert_eq!(reserved(&[("ip", "10.1.0.7")], 1), own);
        assert_eq!(reserved(&[("ip", "fd00::7,10.2.0.7,10.1.0.7,10.1.0.8")], 1), own);
        assert_eq!(reserved(&[], 1), Ok(None));
        assert_eq!(reserved(&[("ip", "10.1.0.7"), ("spoof", "1")], 1), Ok(None));
        assert_eq!(reserved(&[("ip", "10.1.0.7")], 5), Ok(None));
        assert_eq!(reserved(&[("ip", "10.1.0.7"), ("segment", "b")], 1), Ok(None));
        for none in ["10.2.0.7", "10.1.0.1", "10.1.0.255", "fd00::7"] {
            assert!(reserved(&[("ip", none)], 1).is_err(), "{none}");
        }
    }

    #[test]
    fn mistakes() {
        let (config, _) = Config::parse("segment.a=");
        assert_eq!(
            client(&config, &[("segment", "x")]).unwrap_err(),
            "segment=x: expected the name of a configured segment"
        );
        for key in &Client::KEYS[1..] {
            assert!(client(&config, &[(*key, "nonsense")]).is_err(), "{key}");
        }
        let (none, _) = Config::parse("");
        assert!(client(&none, &[]).is_err());
    }
}
