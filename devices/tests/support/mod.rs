//! A driver, its memory, a disk and a network, to test devices against.

#![allow(dead_code, reason = "each test uses its part of it")]

pub mod disk;
pub mod driver;
pub mod executor;
pub mod guest;
pub mod machine;
pub mod packet;
pub mod port;
pub mod request;

/// A small generator of numbers that look random, so that a run can be repeated.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 16) as usize % bound
    }
}

/// How many cases of a property are tried: PROPTEST_CASES, or a number that a test run has time for.
pub fn cases(count: u32) -> proptest::test_runner::Config {
    let cases = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(count);
    proptest::test_runner::Config {
        cases,
        failure_persistence: None,
        ..Default::default()
    }
}
