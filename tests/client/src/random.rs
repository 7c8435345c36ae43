//! Repeatable random numbers.

/// A generator that a seed decides (xorshift64*).
pub struct Random(u64);

impl Random {
    /// With a seed; any will do.
    pub fn new(seed: u64) -> Self {
        // Zero is the one state that the generator never leaves.
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        random.next();
        random
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Fills a buffer with bytes that `seed` and the position of the buffer's first sector decide, each sector by
/// itself, so that a sector read from a wrong place does not look right.
pub fn pattern(buffer: &mut [u8], first_sector: u64, seed: u64) {
    for (sector, bytes) in (first_sector..).zip(buffer.chunks_mut(512)) {
        let mut random = Random::new(sector << 20 ^ seed);
        for word in bytes.chunks_mut(8) {
            word.copy_from_slice(&random.next().to_le_bytes()[..word.len()]);
        }
    }
}

/// Where a buffer first differs from its [`pattern`], as a sector.
pub fn first_difference(buffer: &[u8], first_sector: u64, seed: u64) -> Option<u64> {
    let mut expected = [0; 512];
    (first_sector..)
        .zip(buffer.chunks(512))
        .find_map(|(sector, bytes)| {
            pattern(&mut expected, sector, seed);
            (*bytes != expected[..bytes.len()]).then_some(sector)
        })
}
