//! The window: addresses for pages that are not this domain's own.

use core::ptr::NonNull;

use super::{OutOfMemory, PAGE_SIZE, paging};
use crate::cell::CpuCell;
use crate::errno::Errno;
use crate::hypercall;
use crate::range_allocator::RangeAllocator;

/// Where the window starts.
pub(crate) const BASE: usize = 0xffff_ffff_c000_0000;
/// How many pages it has (64 MiB).
pub(crate) const PAGES: usize = 16384;

/// Pages per page table.
const PER_TABLE: usize = 512;

struct Window {
    addresses: RangeAllocator<'static>,
    /// Which page tables of the window exist, by bit.
    tables: u32,
}

const _: () = assert!(PAGES / PER_TABLE <= u32::BITS as usize);

static WINDOW: CpuCell<Option<Window>> = CpuCell::new(None);

impl Window {
    fn new() -> Self {
        let words = alloc::vec![0; RangeAllocator::words_for(PAGES)].leak();
        let mut addresses = RangeAllocator::new(words);
        addresses.release(0, PAGES);
        Self { addresses, tables: 0 }
    }

    fn ensure_tables(&mut self, first: usize, count: usize) -> Result<(), OutOfMemory> {
        for table in first / PER_TABLE..=(first + count - 1) / PER_TABLE {
            if self.tables & 1 << table == 0 {
                paging::ensure_tables(BASE + table * PER_TABLE * PAGE_SIZE)?;
                self.tables |= 1 << table;
            }
        }
        Ok(())
    }
}

/// Consecutive pages of the window, with page tables but nothing mapped. Whoever drops a range has unmapped
/// what he mapped.
pub(crate) struct WindowRange {
    first: usize,
    count: usize,
}

impl WindowRange {
    /// Reserves `count` pages.
    pub(crate) fn new(count: usize) -> Result<Self, OutOfMemory> {
        let mut guard = WINDOW.borrow();
        let window = guard.get_or_insert_with(Window::new);
        let first = window.addresses.allocate(count).ok_or(OutOfMemory)?;
        if let Err(error) = window.ensure_tables(first, count) {
            window.addresses.release(first, count);
            return Err(error);
        }
        Ok(Self { first, count })
    }

    /// The address of page `index`.
    pub(crate) fn page(&self, index: usize) -> usize {
        assert!(index < self.count);
        BASE + (self.first + index) * PAGE_SIZE
    }
}

impl Drop for WindowRange {
    fn drop(&mut self) {
        if let Some(window) = WINDOW.borrow().as_mut() {
            window.addresses.release(self.first, self.count);
        }
    }
}

pub(super) fn used_pages() -> usize {
    WINDOW
        .borrow()
        .as_ref()
        .map_or(0, |window| PAGES - window.addresses.free_count())
}

/// Maps a machine frame that Xen shares with this domain, writable, at a page of a range.
pub(crate) fn map_frame(range: &WindowRange, index: usize, mfn: u64) -> Result<NonNull<u8>, Errno> {
    let address = range.page(index);
    // SAFETY: nothing else uses an address of a range, and the frame is only reached by volatile accesses.
    unsafe { hypercall::update_va_mapping(address, paging::data_entry(mfn))? };
    NonNull::new(address as *mut u8).ok_or(Errno::INVAL)
}

/// Maps one machine frame for good.
pub(crate) fn map_frame_forever(mfn: u64) -> Result<NonNull<u8>, Errno> {
    let range = WindowRange::new(1).map_err(|_| Errno::NOMEM)?;
    let mapped = map_frame(&range, 0, mfn)?;
    core::mem::forget(range);
    Ok(mapped)
}
