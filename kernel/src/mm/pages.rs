//! Owned pages.

use core::fmt;
use core::mem::ManuallyDrop;

use super::{PAGE_SIZE, frames, pfn_to_address, pfn_to_mfn};

/// There is no memory for what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("out of memory")
    }
}

impl core::error::Error for OutOfMemory {}

/// One or more page frames of this domain, consecutive in the linear map, owned until dropped.
///
/// Their machine frames are in general not consecutive.
pub struct Pages {
    first: usize,
    count: usize,
}

impl Pages {
    /// Takes `count` pages and zeroes them.
    ///
    /// # Errors
    /// If there are not that many consecutive ones, or if `count` is 0.
    pub fn new(count: usize) -> Result<Self, OutOfMemory> {
        let mut pages = Self::new_dirty(count)?;
        pages.as_mut_slice().fill(0);
        Ok(pages)
    }

    /// Like [`new`](Self::new), but the pages hold whatever this domain had in them before: only for what is
    /// overwritten before it is granted to anybody.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn new_dirty(count: usize) -> Result<Self, OutOfMemory> {
        let first = frames::allocate(count).ok_or(OutOfMemory)?;
        Ok(Self { first, count })
    }

    /// How many pages these are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Their size in bytes.
    pub fn size(&self) -> usize {
        self.count * PAGE_SIZE
    }

    /// Their virtual address.
    pub fn address(&self) -> usize {
        pfn_to_address(self.first)
    }

    /// The machine frame of page `index`.
    ///
    /// # Panics
    /// If there is no such page.
    pub fn mfn(&self, index: usize) -> u64 {
        assert!(index < self.count);
        pfn_to_mfn(self.first + index)
    }

    /// Their bytes.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: the pages are mapped, initialised (every bit pattern is a byte) and owned; `self` is
        // borrowed mutably.
        unsafe { core::slice::from_raw_parts_mut(self.address() as *mut u8, self.size()) }
    }

    /// Gives up ownership for good, as for a page table.
    pub(crate) fn leak(self) -> usize {
        ManuallyDrop::new(self).address()
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        frames::release(self.first, self.count);
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pages({:#x}+{})", self.first, self.count)
    }
}
