//! The front end's half of Xen's shared rings (xen/include/public/io/ring.h).
//!
//! A shared ring is a header of four indices and an array of entries, in pages that the front end grants.
//! Requests and responses share the array: a response overwrites a request that the back end has taken.
//! Indices count without end and wrap at 2³²; an entry's place is its index modulo the number of entries,
//! which is a power of two. `req_event` and `rsp_event` hold off notifications: each side asks to be notified
//! once the other's index moves past them.
//!
//! The memory is reached through [`RingMemory`], so that all of this runs on a host. What the back end can
//! write is read once, and a producer index that cannot be true is an error, not a loop bound.

use core::sync::atomic::{Ordering, fence};

/// Bytes of the header; entries begin here.
pub const HEADER_BYTES: usize = 64;

const REQ_PROD: usize = 0;
const REQ_EVENT: usize = 4;
const RSP_PROD: usize = 8;
const RSP_EVENT: usize = 12;

/// Memory that both ends of a ring see. Offsets are in bytes from the start of the ring; accesses are
/// volatile and imply no order. The callers here stay within the size that the ring was made with, and 32-bit
/// accesses are aligned.
pub trait RingMemory {
    /// Reads 32 bits.
    fn load(&self, offset: usize) -> u32;
    /// Writes 32 bits.
    fn store(&self, offset: usize, value: u32);
    /// Copies bytes out.
    fn read(&self, offset: usize, to: &mut [u8]);
    /// Copies bytes in.
    fn write(&self, offset: usize, from: &[u8]);
}

/// The back end's producer index claims responses to requests that it was never sent. The connection is of no
/// more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadIndex {
    /// What the back end wrote.
    pub produced: u32,
    /// How many responses were taken before.
    pub consumed: u32,
}

/// How many entries of `entry_bytes` a ring of `bytes` holds: a power of two.
///
/// # Panics
/// If there is no room for the header and one entry.
pub const fn entries(bytes: usize, entry_bytes: usize) -> u32 {
    let fit = ((bytes - HEADER_BYTES) / entry_bytes) as u32;
    1 << fit.ilog2()
}

/// The front end's private indices, and the memory.
pub struct FrontRing<M> {
    memory: M,
    entries: u32,
    entry_bytes: usize,
    /// Requests written, pushed or not.
    written: u32,
    /// Requests that the back end has been shown.
    pushed: u32,
    /// Responses taken.
    consumed: u32,
    /// Responses known to be there: the last producer index that was read and found possible.
    produced: u32,
}

impl<M: RingMemory> FrontRing<M> {
    /// Initialises a ring in `bytes` of memory, with entries the size of the larger of request and response.
    /// The memory must be zero and not yet known to the back end.
    ///
    /// # Panics
    /// As [`entries`].
    pub fn new(memory: M, bytes: usize, entry_bytes: usize) -> Self {
        memory.store(REQ_PROD, 0);
        memory.store(RSP_PROD, 0);
        memory.store(REQ_EVENT, 1);
        memory.store(RSP_EVENT, 1);
        let entries = entries(bytes, entry_bytes);
        Self {
            memory,
            entries,
            entry_bytes,
            written: 0,
            pushed: 0,
            consumed: 0,
            produced: 0,
        }
    }

    /// How many entries there are.
    pub fn capacity(&self) -> u32 {
        self.entries
    }

    /// How many more requests fit now. A request's entry is free again when as many responses have been
    /// taken.
    pub fn free(&self) -> u32 {
        self.entries - self.written.wrapping_sub(self.consumed)
    }

    /// Gives the memory back.
    pub fn into_memory(self) -> M {
        self.memory
    }

    /// Writes a request, without showing it to the back end yet.
    ///
    /// # Panics
    /// If the ring is full or the request is longer than an entry.
    pub fn put(&mut self, request: &[u8]) {
        assert!(self.free() > 0 && request.len() <= self.entry_bytes);
        self.memory.write(self.offset(self.written), request);
        self.written = self.written.wrapping_add(1);
    }

    /// Shows what was [`put`](Self::put) to the back end. Returns whether it asked to be notified of it.
    #[must_use]
    pub fn push(&mut self) -> bool {
        let old = self.pushed;
        if old == self.written {
            return false;
        }
        // The back end sees requests before the index that covers them.
        fence(Ordering::Release);
        self.memory.store(REQ_PROD, self.written);
        self.pushed = self.written;
        // It sees the index before its own hold-off is read: either it finds the requests in its final check,
        // or its request for a notification is found here.
        fence(Ordering::SeqCst);
        let event = self.memory.load(REQ_EVENT);
        self.written.wrapping_sub(event) < self.written.wrapping_sub(old)
    }

    /// Takes the next response, if there is one, into `response`.
    pub fn take(&mut self, response: &mut [u8]) -> Result<bool, BadIndex> {
        if self.consumed == self.produced && !self.look()? {
            return Ok(false);
        }
        self.memory.read(self.offset(self.consumed), response);
        self.consumed = self.consumed.wrapping_add(1);
        Ok(true)
    }

    /// To be called when [`take`](Self::take) found nothing and the caller is about to wait for a
    /// notification: asks for one at the next response, and returns whether a response came meanwhile, which
    /// nobody will be notified of.
    pub fn final_check(&mut self) -> Result<bool, BadIndex> {
        self.final_check_in(1)
    }

    /// Like [`final_check`](Self::final_check), but asks for a notification when so many more responses are
    /// there, at least 1: for a caller who is in no hurry. Fewer are also told of by the return value if they
    /// are there already.
    pub fn final_check_in(&mut self, responses: u32) -> Result<bool, BadIndex> {
        self.memory
            .store(RSP_EVENT, self.consumed.wrapping_add(responses.max(1)));
        fence(Ordering::SeqCst);
        self.look()
    }

    /// Reads the back end's producer index. Returns whether there are responses to take.
    fn look(&mut self) -> Result<bool, BadIndex> {
        let produced = self.memory.load(RSP_PROD);
        // Responses are read after the index that covers them.
        fence(Ordering::Acquire);
        let consumed = self.consumed;
        // The index may stand anywhere between what was already seen of it and the requests shown.
        if self.pushed.wrapping_sub(produced) > self.pushed.wrapping_sub(self.produced) {
            return Err(BadIndex { produced, consumed });
        }
        self.produced = produced;
        Ok(produced != consumed)
    }

    fn offset(&self, index: u32) -> usize {
        HEADER_BYTES + (index & (self.entries - 1)) as usize * self.entry_bytes
    }
}

#[cfg(test)]
pub(crate) mod back;

#[cfg(test)]
mod tests;
