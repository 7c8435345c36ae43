//! The Internet checksum (RFC 1071), and changing what it covers without looking at the rest (RFC 1624).

/// Adds the carries back in.
fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The words of some bytes, the last one filled up with a zero.
fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes
        .chunks(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)])))
}

/// The one's complement sum of up to 64 KiB.
pub fn sum(bytes: &[u8]) -> u16 {
    fold(words(bytes).sum())
}

/// By how much a sum changes: the words that come less those that go.
#[derive(Clone, Copy, Default)]
pub struct Delta(u16);

impl Delta {
    /// Of replacing some bytes, which start at an even place in what is summed, with as many others.
    pub fn new(old: &[u8], new: &[u8]) -> Self {
        debug_assert_eq!(old.len(), new.len());
        Self(fold(
            words(old).map(|word| word ^ 0xffff).sum::<u32>() + words(new).sum::<u32>(),
        ))
    }

    /// Of both changes.
    pub fn and(self, other: Self) -> Self {
        Self(fold(u32::from(self.0) + u32::from(other.0)))
    }

    /// What becomes of a sum.
    pub fn apply_to_sum(self, sum: u16) -> u16 {
        fold(u32::from(sum) + u32::from(self.0))
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
