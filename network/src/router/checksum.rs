//! Changing what an Internet checksum covers without looking at the rest (RFC 1624).

use devices::net::offload::Sum;

/// By how much a sum changes: the words that come less those that go.
#[derive(Clone, Copy, Default)]
pub struct Delta(u16);

impl Delta {
    /// Of replacing some bytes, which start at an even place in what is summed, with as many others.
    pub fn new(old: &[u8], new: &[u8]) -> Self {
        debug_assert_eq!(old.len(), new.len());
        let gone = Sum::default().bytes(old).fold();
        Self(Sum::default().bytes(new).word(!gone).fold())
    }

    /// Of both changes.
    pub fn and(self, other: Self) -> Self {
        Self(other.apply_to_sum(self.0))
    }

    /// What becomes of a sum.
    pub fn apply_to_sum(self, sum: u16) -> u16 {
        Sum::default().word(sum).word(self.0).fold()
    }

    /// What becomes of a checksum, which is the complement of a sum.
    pub fn apply(self, checksum: u16) -> u16 {
        !self.apply_to_sum(!checksum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sum(bytes: &[u8]) -> u16 {
        Sum::default().bytes(bytes).fold()
    }

    proptest! {
        #[test]
        fn an_update_is_a_full_computation(
            mut bytes in prop::collection::vec(any::<u8>(), 20..200),
            new in prop::collection::vec(any::<u8>(), 1..10),
            at in 0..4usize,
        ) {
            bytes[19] |= 1;
            let range = at * 2..at * 2 + new.len();
            let before = !sum(&bytes);
            let delta = Delta::new(&bytes[range.clone()], &new[..]);
            bytes[range.clone()].copy_from_slice(&new);
            prop_assert_eq!(delta.apply(before), !sum(&bytes));
            prop_assert_eq!(delta.and(Delta::default()).apply(before), !sum(&bytes));
        }
    }
}
