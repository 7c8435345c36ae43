//! The heap: a linked-list allocator on a run of pages that grows on demand, with lists of small blocks in
//! front.

#![cfg_attr(test, allow(dead_code))] // Host tests have the host's heap.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{NonNull, null_mut};

use linked_list_allocator::Heap;

use super::small_blocks::SmallBlocks;
use super::{PAGE_SIZE, frames, pfn_to_address};
use crate::cell::CpuCell;
use crate::stats::{Counter, count};

/// The heap grows by at least this many pages.
const GROWTH: usize = 16;
/// From how many bytes on an allocation leaves the reserve free. What clients can make the domain hold is
/// asked for in such large blocks, whose failure is an error for the client; the small ones that everything
/// is made of, whose failure would be the end, still find room then.
const LARGE: usize = 4096;
/// How many pages that is.
pub(super) const RESERVE: usize = 64;

struct GrowingHeap {
    small: SmallBlocks,
    heap: Heap,
    /// Bytes in allocations, as they were asked for.
    used: usize,
    /// The page behind the heap.
    end: usize,
}

static HEAP: CpuCell<GrowingHeap> = CpuCell::new(GrowingHeap {
    small: SmallBlocks::new(),
    heap: Heap::empty(),
    used: 0,
    end: 0,
});

/// Starts an empty heap at this page.
pub(super) fn init(first_page: usize) {
    HEAP.borrow().end = first_page;
}

/// Bytes that are of use for blocks of any size. What the small blocks' lists keep is not.
pub(super) fn free() -> usize {
    HEAP.borrow().heap.free()
}

/// The heap's size and how much of it is allocated, in bytes.
pub(super) fn usage() -> (usize, usize) {
    let heap = HEAP.borrow();
    (heap.heap.size(), heap.used)
}

impl GrowingHeap {
    fn allocate(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        let block = match SmallBlocks::class(layout) {
            Some((list, rounded)) => match self.small.take(list) {
                None => self.allocate_large(rounded),
                block => block,
            },
            None => self.allocate_large(layout),
        };
        if block.is_some() {
            self.used += layout.size();
        }
        block
    }

    fn allocate_large(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        loop {
            match self.heap.allocate_first_fit(layout) {
                Ok(block) => return Some(block),
                Err(()) if self.grow(layout) => {}
                Err(()) => return None,
            }
        }
    }

    /// # Safety
    /// The block must come from [`allocate`](Self::allocate), with this layout, and not be used any more.
    unsafe fn release(&mut self, block: NonNull<u8>, layout: Layout) {
        self.used -= layout.size();
        // SAFETY: the layout leads to where the block came from.
        unsafe {
            match SmallBlocks::class(layout) {
                Some((list, rounded)) => {
                    if !self.small.put(list, block) {
                        self.heap.deallocate(block, rounded);
                    }
                }
                None => self.heap.deallocate(block, layout),
            }
        }
    }

    /// Makes room for an allocation of this layout.
    fn grow(&mut self, layout: Layout) -> bool {
        // Room for the allocation, its alignment and the allocator's own hole.
        let needed = layout
            .size()
            .saturating_add(layout.align())
            .div_ceil(PAGE_SIZE)
            .saturating_add(1);
        if layout.size() >= LARGE && frames::free_count() < needed.saturating_add(RESERVE) {
            return false;
        }
        let pages = if frames::allocate_at(self.end, needed.max(GROWTH)) {
            needed.max(GROWTH)
        } else if frames::allocate_at(self.end, needed) {
            needed
        } else {
            return false;
        };
        let start = pfn_to_address(self.end) as *mut u8;
        self.end += pages;
        // SAFETY: the pages are mapped, now belong to the heap forever, and lie directly behind what it has.
        unsafe {
            if self.heap.size() == 0 {
                self.heap.init(start, pages * PAGE_SIZE);
            } else {
                self.heap.extend(pages * PAGE_SIZE);
            }
        }
        true
    }
}

struct GlobalHeap;

// SAFETY: the heap hands out disjoint blocks of the layout's size and alignment out of pages that are its
// own.
unsafe impl GlobalAlloc for GlobalHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(Counter::Allocations, 1);
        HEAP.borrow().allocate(layout).map_or(null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(block) = NonNull::new(block) {
            // SAFETY: the caller gives back a block of `alloc` with its layout.
            unsafe { HEAP.borrow().release(block, layout) };
        }
    }
}

#[cfg(not(test))]
#[global_allocator]
static GLOBAL: GlobalHeap = GlobalHeap;
