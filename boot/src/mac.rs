//! Ethernet addresses that are the same after each start.

use devices::net::Mac;

/// What the addresses of a segment are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(u64);

/// FNV-1a, 64 bits: spreads well, and needs to do nothing else.
fn hash(seed: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(seed, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

const START: u64 = 0xcbf2_9ce4_8422_2325;

impl Seed {
    /// For a segment with an uplink of this address.
    pub fn uplink(address: Mac) -> Self {
        Self(hash(START, &address))
    }

    /// For a segment of this name that leads nowhere else.
    pub fn name(name: &str) -> Self {
        Self(hash(START, name.as_bytes()))
    }

    /// The address of what this text names: a locally administered one.
    pub fn address(self, text: &str) -> Mac {
        // The upper bits depend on all of the text; of the lower ones the lowest depend on few.
        let [_, a, b, c, d, e, ..] = hash(self.0, text.as_bytes()).to_be_bytes();
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
