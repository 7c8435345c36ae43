//! A vector of transfers whose allocation outlives the borrows in it.

use alloc::vec::Vec;
use core::mem;

use crate::memory::Transfer;
use crate::virtqueue::QueueError;

/// Larger allocations are not kept: a driver that makes its device need one could have it hold the memory.
const KEPT: usize = 1024;

/// Lends out the same allocation for one batch after the other.
pub(crate) struct Batch<B: 'static> {
    spare: Vec<Transfer<'static, B>>,
}

impl<B: 'static> Batch<B> {
    pub(crate) const fn new() -> Self {
        Batch { spare: Vec::new() }
    }

    /// An empty vector with room for so many transfers. Give it back with [`put`](Self::put).
    pub(crate) fn take<'a>(&mut self, room: usize) -> Result<Vec<Transfer<'a, B>>, QueueError> {
        let mut batch = mem::take(&mut self.spare);
        batch.try_reserve(room).map_err(|_| QueueError::NoMemory)?;
        Ok(batch)
    }

    /// Takes the vector back. What is in it is dropped.
    pub(crate) fn put(&mut self, mut batch: Vec<Transfer<'_, B>>) {
        if batch.capacity() > KEPT {
            return;
        }
        batch.clear();
        // Collecting from a vector's own iterator into items of the same size reuses its allocation; mapping
        // nothing at all is what changes the lifetime without unsafe code.
        self.spare = batch
            .into_iter()
            .map(|_| unreachable!("the vector is empty"))
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Local;

    #[test]
    fn the_allocation_is_reused() {
        let mut batches = Batch::<()>::new();
        let byte = [0u8];
        let mut batch = batches.take(0).unwrap();
        for _ in 0..100 {
            batch.push(Transfer {
                address: 0,
                local: Local::Write(&byte),
                result: Ok(()),
            });
        }
        let at = batch.as_ptr() as usize;
        batches.put(batch);
        let batch = batches.take(100).unwrap();
        assert!(batch.is_empty() && batch.capacity() >= 100);
        assert_eq!(batch.as_ptr() as usize, at);
    }

    #[test]
    fn a_large_allocation_is_given_back() {
        let mut batches = Batch::<()>::new();
        let batch = batches.take(KEPT + 1).unwrap();
        batches.put(batch);
        assert_eq!(batches.take(0).unwrap().capacity(), 0);
    }
}
