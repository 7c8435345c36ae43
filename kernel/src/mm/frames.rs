//! The allocator of page frames.
//!
//! Frames are taken from the top of memory down; the heap grows from the bottom up. So the two share what
//! there is without a fixed division.

use super::{PAGE_SIZE, pfn_to_address};
use crate::cell::CpuCell;
use crate::range_allocator::RangeAllocator;

struct Frames {
    /// Number *i* stands for page `page_count - 1 - i`, so that the lowest number is the highest page.
    numbers: RangeAllocator<'static>,
    page_count: usize,
}

impl Frames {
    fn number(&self, pfn: usize, count: usize) -> usize {
        self.page_count - pfn - count
    }
}

static FRAMES: CpuCell<Option<Frames>> = CpuCell::new(None);

/// Takes over the pages `first_free..page_count`; the bitmap takes the first of them.
pub(super) fn init(first_free: usize, page_count: usize) {
    let words = RangeAllocator::words_for(page_count);
    let bitmap_pages = (words * 8).div_ceil(PAGE_SIZE);
    // SAFETY: the pages are mapped, writable and used by nobody else.
    let bitmap = unsafe { core::slice::from_raw_parts_mut(pfn_to_address(first_free) as *mut u64, words) };
    let mut numbers = RangeAllocator::new(bitmap);
    let first_free = first_free + bitmap_pages;
    numbers.release(0, page_count - first_free);
    *FRAMES.borrow() = Some(Frames { numbers, page_count });
    super::heap::init(first_free);
}

/// Takes `count` consecutive pages and returns the first.
pub(super) fn allocate(count: usize) -> Option<usize> {
    let mut guard = FRAMES.borrow();
    let frames = guard.as_mut()?;
    let number = frames.numbers.allocate(count)?;
    Some(frames.page_count - number - count)
}

/// Takes exactly these pages, if they are free.
pub(super) fn allocate_at(pfn: usize, count: usize) -> bool {
    let mut guard = FRAMES.borrow();
    let Some(frames) = guard.as_mut().filter(|frames| pfn + count <= frames.page_count) else {
        return false;
    };
    let number = frames.number(pfn, count);
    frames.numbers.allocate_at(number, count)
}

/// Gives pages back.
pub(super) fn release(pfn: usize, count: usize) {
    if let Some(frames) = FRAMES.borrow().as_mut() {
        let number = frames.number(pfn, count);
        frames.numbers.release(number, count);
    }
}

pub(super) fn free_count() -> usize {
    FRAMES
        .borrow()
        .as_ref()
        .map_or(0, |frames| frames.numbers.free_count())
}
