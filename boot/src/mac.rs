//! Ethernet addresses that are the same after each start.

use core::hash::Hasher;

use devices::net::Mac;
use network::hash::Fnv;

/// What the addresses of a segment are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(Fnv);

impl Seed {
    /// For a segment with an uplink of this address.
    pub fn uplink(address: Mac) -> Self {
        Self(Fnv::default().with(&address))
    }

    /// For a segment of this name that leads nowhere else.
    pub fn name(name: &str) -> Self {
        Self(Fnv::default().with(name.as_bytes()))
    }

    /// The address of what this text names: a locally administered one.
    pub fn address(self, text: &str) -> Mac {
        // The lowest bits are the weak ones.
        let [_, a, b, c, d, e, ..] = self.0.with(text.as_bytes()).finish().to_be_bytes();
        [0x02, a, b, c, d, e]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::format;

    #[test]
    fn addresses_are_stations_and_differ() {
        let seeds = [
            Seed::uplink([0, 0x16, 0x3e, 0, 0, 1]),
            Seed::uplink([0, 0x16, 0x3e, 0, 0, 2]),
            Seed::name("lan"),
            Seed::name("lab"),
        ];
        let addresses: BTreeSet<_> = seeds
            .iter()
            .flat_map(|seed| (0..1000).map(|number| seed.address(&format!("client {number}"))))
            .collect();
        assert_eq!(addresses.len(), 4000);
        assert!(addresses.iter().all(|address| address[0] & 3 == 2));
    }
}
