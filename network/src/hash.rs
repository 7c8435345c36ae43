//! A hash that is the same everywhere and always.

use core::hash::Hasher;

/// The hash FNV-1a of 64 bits. Its upper bits depend on all that was hashed; of the lower ones, the lowest
/// depend on little. It keeps nobody from finding two things with the same hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Fnv {
    /// What becomes of it when these bytes are hashed, too.
    pub fn with(mut self, bytes: &[u8]) -> Self {
        self.write(bytes);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_published() {
        for (bytes, hash) in [
            (&b""[..], 0xcbf2_9ce4_8422_2325),
            (b"a", 0xaf63_dc4c_8601_ec8c),
            (b"foobar", 0x8594_4171_f739_67e8),
        ] {
            assert_eq!(Fnv::default().with(bytes).finish(), hash);
        }
    }
}
