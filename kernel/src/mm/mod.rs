//! Memory: page frames, the heap, page tables, and the window that foreign pages are mapped in.
//!
//! The address space of an image:
//!
//! | from | what |
//! |---|---|
//! | `0xffffffff80000000` | the *linear map*: pseudo-physical page *n* at `LINEAR_BASE + n * 4096`, starting with the image |
//! | `0xffffffffc0000000` | the *window*: pages of Xen and of other domains |
//!
//! Text is mapped without write permission, read-only data too, and everything but text without execute
//! permission.

mod frames;
mod heap;
mod pages;
pub(crate) mod paging;
mod small_blocks;
pub(crate) mod window;

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

pub use pages::{OutOfMemory, Pages};

/// Bytes in a page.
pub const PAGE_SIZE: usize = 4096;
/// Where pseudo-physical page 0 is mapped; `VIRT_BASE` of `linker.ld`.
pub(crate) const LINEAR_BASE: usize = 0xffff_ffff_8000_0000;
/// The most pages that the linear map has room for (1 GiB); a domain's further pages stay unused.
const LINEAR_PAGES: usize = (window::BASE - LINEAR_BASE) / PAGE_SIZE;

/// The array of machine frame numbers, indexed by pseudo-physical page, that the domain builder made.
static P2M: AtomicUsize = AtomicUsize::new(0);
static PAGE_COUNT: AtomicUsize = AtomicUsize::new(0);

/// What boot knows of memory.
pub(crate) struct BootMemory {
    /// Address of the array of machine frame numbers.
    pub p2m: usize,
    /// Pages of the domain.
    pub page_count: usize,
    /// Address of the top-level page table.
    pub top_table: usize,
    /// The first page behind everything that the domain builder placed.
    pub first_free: usize,
}

/// Makes all memory usable: linear map, protection, frames, heap.
pub(crate) fn init(boot: &BootMemory) {
    let page_count = boot.page_count.min(LINEAR_PAGES);
    P2M.store(boot.p2m, Relaxed);
    PAGE_COUNT.store(page_count, Relaxed);
    let mut next_free = boot.first_free;
    paging::init(boot.top_table);
    paging::extend_linear_map(&mut next_free, page_count);
    paging::protect(next_free);
    frames::init(next_free, page_count);
}

/// The machine frame of a pseudo-physical page.
pub(crate) fn pfn_to_mfn(pfn: usize) -> u64 {
    assert!(pfn < PAGE_COUNT.load(Relaxed), "page {pfn:#x} does not exist");
    // SAFETY: the array has an entry for each page of the domain, and nothing changes it.
    unsafe { (P2M.load(Relaxed) as *const u64).add(pfn).read() }
}

/// The pseudo-physical page of a machine frame of this domain, by Xen's table for the purpose.
pub(crate) fn mfn_to_pfn(mfn: u64) -> usize {
    const MACHINE_TO_PHYSICAL: usize = 0xffff_8000_0000_0000;
    // SAFETY: Xen maps the table read-only into every PV domain; the frame is one that Xen told us of.
    unsafe {
        (MACHINE_TO_PHYSICAL as *const u64)
            .add(mfn as usize)
            .read_volatile() as usize
    }
}

/// The address of a page in the linear map.
pub(crate) const fn pfn_to_address(pfn: usize) -> usize {
    LINEAR_BASE + pfn * PAGE_SIZE
}

/// The page of an address in the linear map.
pub(crate) fn address_to_pfn(address: usize) -> usize {
    assert!(
        (LINEAR_BASE..window::BASE).contains(&address),
        "{address:#x} is not in the linear map"
    );
    (address - LINEAR_BASE) / PAGE_SIZE
}

/// The machine frame of an address in the linear map.
pub(crate) fn address_to_mfn(address: usize) -> u64 {
    pfn_to_mfn(address_to_pfn(address))
}

/// How memory is used, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// All of the domain's memory that is mapped.
    pub total: usize,
    /// Page frames that nobody has.
    pub free: usize,
    /// Size of the heap; it grows on demand and does not shrink.
    pub heap: usize,
    /// What is allocated in the heap.
    pub heap_used: usize,
    /// Pages of the window that are mapped or reserved.
    pub window_used: usize,
}

/// Whether less memory is free than twice the heap's reserve: what clients make the domain hold is to grow no
/// further then.
pub(crate) fn is_scarce() -> bool {
    frames::free_count() * PAGE_SIZE + heap::free() < 2 * heap::RESERVE * PAGE_SIZE
}

/// How memory is used now.
pub fn usage() -> Usage {
    let (heap, heap_used) = heap::usage();
    Usage {
        total: PAGE_COUNT.load(Relaxed) * PAGE_SIZE,
        free: frames::free_count() * PAGE_SIZE,
        heap,
        heap_used,
        window_used: window::used_pages() * PAGE_SIZE,
    }
}
