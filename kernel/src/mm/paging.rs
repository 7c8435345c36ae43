//! Page tables of a PV domain.
//!
//! A PV domain's tables hold machine frames, are mapped read-only, and are changed by hypercalls that Xen
//! validates. A page that becomes a table must have no writable mapping, so [`install_table`] takes that away
//! first.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use xen_sys::mmu_update;

use super::{
    LINEAR_BASE, OutOfMemory, PAGE_SIZE, Pages, address_to_mfn, mfn_to_pfn, pfn_to_address, pfn_to_mfn,
};
use crate::cpuid;
use crate::errno::Errno;
use crate::hypercall;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const NO_EXECUTE: u64 = 1 << 63;
const FRAME_MASK: u64 = 0x000f_ffff_ffff_f000;
const TABLE: u64 = PRESENT | WRITABLE | USER | ACCESSED | DIRTY;
const ENTRIES: usize = 512;

static TOP_TABLE_MFN: AtomicU64 = AtomicU64::new(0);
/// `NO_EXECUTE` if the processor has it, else 0.
static NX: AtomicU64 = AtomicU64::new(0);

/// Takes note of the top-level table that the domain builder made.
pub(super) fn init(top_table: usize) {
    const NX_FEATURE: u32 = 1 << 20;
    TOP_TABLE_MFN.store(address_to_mfn(top_table), Relaxed);
    if cpuid::leaf(0x8000_0000, 0).eax > 0x8000_0000 && cpuid::leaf(0x8000_0001, 0).edx & NX_FEATURE != 0 {
        NX.store(NO_EXECUTE, Relaxed);
    }
}

/// The machine frame of the top-level table.
pub(crate) fn top_table_mfn() -> u64 {
    TOP_TABLE_MFN.load(Relaxed)
}

/// The entry for writable data in this machine frame.
pub(crate) fn data_entry(mfn: u64) -> u64 {
    mfn << 12 | PRESENT | WRITABLE | USER | ACCESSED | DIRTY | NX.load(Relaxed)
}

/// One entry of one table.
#[derive(Clone, Copy)]
struct Slot {
    table_mfn: u64,
    index: usize,
}

impl Slot {
    /// The slot for an address at a level (4 is the top, 1 holds the pages), or `None` if a table on the way
    /// is missing.
    fn find(address: usize, level: u32) -> Option<Self> {
        let mut slot = Self {
            table_mfn: top_table_mfn(),
            index: index(address, 4),
        };
        for next_level in (level..4).rev() {
            let entry = slot.read();
            if entry & PRESENT == 0 {
                return None;
            }
            slot = Self {
                table_mfn: (entry & FRAME_MASK) >> 12,
                index: index(address, next_level),
            };
        }
        Some(slot)
    }

    fn read(self) -> u64 {
        let table = pfn_to_address(mfn_to_pfn(self.table_mfn)) as *const u64;
        // SAFETY: tables are pages of this domain and mapped read-only in the linear map.
        unsafe { table.add(self.index).read_volatile() }
    }

    fn update(self, entry: u64) -> mmu_update {
        mmu_update {
            ptr: (self.table_mfn << 12) + self.index as u64 * 8,
            val: entry,
        }
    }
}

fn index(address: usize, level: u32) -> usize {
    address >> (12 + 9 * (level - 1)) & (ENTRIES - 1)
}

/// Makes a filled page of the linear map a table, below this slot.
fn install_table(parent: Slot, address: usize) -> Result<(), Errno> {
    let mfn = address_to_mfn(address);
    // SAFETY: the page is used by nobody: it is about to become a table.
    unsafe {
        hypercall::update_va_mapping(address, data_entry(mfn) & !WRITABLE)?;
        hypercall::mmu_update(&[parent.update(mfn << 12 | TABLE)])
    }
}

/// Maps the pages that the domain builder did not map, taking new tables from `next_free` on.
pub(super) fn extend_linear_map(next_free: &mut usize, page_count: usize) {
    let mut pfn = 0;
    while pfn < page_count {
        let address = pfn_to_address(pfn);
        let parent = Slot::find(address, 2).expect("the image is mapped below one level-2 table");
        let count = ENTRIES.min(page_count - pfn);
        if parent.read() & PRESENT == 0 {
            let table = pfn_to_address(*next_free);
            *next_free += 1;
            // SAFETY: the page is free, and lies below the ones to be mapped: so it is mapped already.
            let entries = unsafe { core::slice::from_raw_parts_mut(table as *mut u64, ENTRIES) };
            entries.fill(0);
            for (i, entry) in entries.iter_mut().enumerate().take(count) {
                *entry = data_entry(pfn_to_mfn(pfn + i));
            }
            install_table(parent, table).expect("a page table");
        } else {
            for pfn in pfn..pfn + count {
                let slot = Slot::find(pfn_to_address(pfn), 1).expect("the table is present");
                if slot.read() & PRESENT == 0 {
                    // SAFETY: nothing refers to an address that was not mapped.
                    unsafe { hypercall::mmu_update(&[slot.update(data_entry(pfn_to_mfn(pfn)))]) }
                        .expect("a page");
                }
            }
        }
        pfn += ENTRIES;
    }
}

unsafe extern "C" {
    static __text_end: u8;
    static __rodata_end: u8;
    static boot_stack_guard: u8;
}

/// Takes away the permissions that nothing needs from the pages below `end`, which the domain builder mapped
/// with all of them, and the page below the stack altogether.
///
/// So a stack that overflows ends the domain, but without a report: Xen enters a PV domain's trap handlers on
/// the stack that was in use (it takes another only when the domain was in user mode, which cannot run this
/// code), finds no room for the frame, and crashes the domain. `xl dmesg` shows that;
/// [`boot::stack_used`](crate::boot::stack_used) tells how far it is away.
pub(super) fn protect(end: usize) {
    let (text_end, rodata_end) = (&raw const __text_end as usize, &raw const __rodata_end as usize);
    let no_execute = NX.load(Relaxed);
    let mut batch = [mmu_update { ptr: 0, val: 0 }; 128];
    let mut filled = 0;
    for address in (LINEAR_BASE..pfn_to_address(end)).step_by(PAGE_SIZE) {
        let slot = Slot::find(address, 1).expect("the linear map is complete");
        let old = slot.read();
        let new = if address < text_end {
            old & !WRITABLE
        } else if address < rodata_end {
            old & !WRITABLE | no_execute
        } else if address == &raw const boot_stack_guard as usize {
            0
        } else {
            old | no_execute
        };
        if new != old {
            batch[filled] = slot.update(new);
            filled += 1;
        }
        if filled == batch.len() {
            // SAFETY: only permissions that nothing uses are taken away.
            unsafe { hypercall::mmu_update(&batch) }.expect("protection of the image");
            filled = 0;
        }
    }
    if filled > 0 {
        // SAFETY: as above. An empty batch is left out.
        unsafe { hypercall::mmu_update(&batch[..filled]) }.expect("protection of the image");
    }
}

/// Makes sure that there are tables for this address, which no page need be mapped at.
pub(super) fn ensure_tables(address: usize) -> Result<(), OutOfMemory> {
    for level in (2..=4).rev() {
        let parent = Slot::find(address, level).ok_or(OutOfMemory)?;
        if parent.read() & PRESENT == 0 {
            install_table(parent, Pages::new(1)?.leak()).map_err(|_| OutOfMemory)?;
        }
    }
    Ok(())
}
