//! The pages of a ring.

use protocols::ring::RingMemory;

use crate::grant::Granted;

/// A ring's pages, which the back end may access.
pub(crate) struct RingPages(pub Granted);

impl RingMemory for RingPages {
    fn load(&self, offset: usize) -> u32 {
        self.0.memory().read_u32(offset)
    }
    fn store(&self, offset: usize, value: u32) {
        self.0.memory().write_u32(offset, value);
    }
    fn read(&self, offset: usize, to: &mut [u8]) {
        self.0.memory().copy_out(offset, to);
    }
    fn write(&self, offset: usize, from: &[u8]) {
        self.0.memory().copy_in(offset, from);
    }
}
