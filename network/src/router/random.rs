//! Numbers that a stranger does not guess: ports and identifiers.

use core::hash::Hasher;

use siphasher::sip::SipHasher24;

/// What all generators of a router start from: a secret that is another one each time.
pub type Seed = [u64; 2];

/// One of the generators that have a seed in common: SipHash-2-4 of its number and a counter, with the seed
/// as the key. Whoever sees some of what one of them gives learns nothing about the rest, or about what
/// another gives.
pub struct Random {
    keyed: SipHasher24,
    count: u64,
}

impl Random {
    /// Generator number `stream` of a seed.
    pub fn new(seed: Seed, stream: u64) -> Self {
        let mut keyed = SipHasher24::new_with_keys(seed[0], seed[1]);
        keyed.write_u64(stream);
        Self { keyed, count: 0 }
    }

    pub fn next(&mut self) -> u64 {
        self.count = self.count.wrapping_add(1);
        let mut hasher = self.keyed;
        hasher.write_u64(self.count);
        hasher.finish()
    }

    /// A number below `bound`, which is not 0. Each is as likely as any other to within 2^-48.
    pub fn below(&mut self, bound: u16) -> u16 {
        (self.next() % u64::from(bound)) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    #[test]
    fn each_stream_is_another() {
        let some = |seed, stream| -> Vec<u64> {
            let mut random = Random::new(seed, stream);
            (0..100).map(|_| random.next()).collect()
        };
        assert_eq!(some([1, 2], 3), some([1, 2], 3));
        let all = [([1, 2], 3), ([1, 2], 4), ([2, 2], 3), ([1, 3], 3)];
        let all: BTreeSet<_> = all
            .into_iter()
            .flat_map(|(seed, stream)| some(seed, stream))
            .collect();
        assert_eq!(all.len(), 400);
    }
}
