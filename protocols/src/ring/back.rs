//! A back end's half of a ring and plain memory to hold it, for tests.

use std::cell::RefCell;
use std::rc::Rc;

use super::{HEADER_BYTES, REQ_EVENT, REQ_PROD, RSP_EVENT, RSP_PROD, RingMemory, entries};

/// Memory that both halves hold a handle to.
#[derive(Clone)]
pub struct Shared(Rc<RefCell<Vec<u8>>>);

impl Shared {
    pub fn new(bytes: usize) -> Self {
        Self(Rc::new(RefCell::new(vec![0; bytes])))
    }
}

impl RingMemory for Shared {
    fn load(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.0.borrow()[offset..offset + 4].try_into().unwrap())
    }
    fn store(&self, offset: usize, value: u32) {
        self.write(offset, &value.to_le_bytes());
    }
    fn read(&self, offset: usize, to: &mut [u8]) {
        to.copy_from_slice(&self.0.borrow()[offset..offset + to.len()]);
    }
    fn write(&self, offset: usize, from: &[u8]) {
        self.0.borrow_mut()[offset..offset + from.len()].copy_from_slice(from);
    }
}

/// The back end's private indices.
pub struct BackRing {
    memory: Shared,
    entries: u32,
    entry_bytes: usize,
    pub consumed: u32,
    pub produced: u32,
}

impl BackRing {
    /// Attaches to a ring that the front end has made, at its present response index.
    pub fn attach(memory: Shared, bytes: usize, entry_bytes: usize) -> Self {
        let at = memory.load(RSP_PROD);
        Self {
            memory,
            entries: entries(bytes, entry_bytes),
            entry_bytes,
            consumed: at,
            produced: at,
        }
    }

    pub fn waiting(&self) -> u32 {
        self.memory.load(REQ_PROD).wrapping_sub(self.consumed)
    }

    pub fn take(&mut self) -> Option<Vec<u8>> {
        assert!(self.waiting() <= self.entries, "the front end overran the ring");
        if self.waiting() == 0 {
            return None;
        }
        let mut request = vec![0; self.entry_bytes];
        self.memory.read(self.offset(self.consumed), &mut request);
        self.consumed = self.consumed.wrapping_add(1);
        Some(request)
    }

    /// Asks for a notification of the next request.
    pub fn final_check(&mut self) -> bool {
        self.memory.store(REQ_EVENT, self.consumed.wrapping_add(1));
        self.waiting() > 0
    }

    /// Writes a response and shows it. Returns whether the front end is to be notified.
    pub fn respond(&mut self, response: &[u8]) -> bool {
        self.memory.write(self.offset(self.produced), response);
        self.produced = self.produced.wrapping_add(1);
        self.memory.store(RSP_PROD, self.produced);
        self.memory.load(RSP_EVENT) == self.produced
    }

    /// Claims any number of responses, as a broken back end may.
    pub fn claim(&mut self, produced: u32) {
        self.memory.store(RSP_PROD, produced);
    }

    fn offset(&self, index: u32) -> usize {
        HEADER_BYTES + (index & (self.entries - 1)) as usize * self.entry_bytes
    }
}
