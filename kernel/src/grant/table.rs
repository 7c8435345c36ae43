//! This domain's grant table.

use alloc::vec;
use core::sync::atomic::{AtomicU16, Ordering};

use super::{Access, GrantError, GrantRef};
use crate::cell::CpuCell;
use crate::errno::Errno;
use crate::hypercall::{self, DOMID_SELF};
use crate::mm::window::{self, WindowRange};
use crate::mm::{PAGE_SIZE, Pages};
use crate::range_allocator::RangeAllocator;
use crate::stats::Counter;

const SETUP_TABLE: u32 = 2;
const QUERY_SIZE: u32 = 6;

const PERMIT_ACCESS: u16 = 1;
const READONLY: u16 = 1 << 2;
/// The peer has it mapped for reading or writing.
const IN_USE: u16 = 1 << 3 | 1 << 4;

/// `struct grant_entry_v1`.
#[repr(C)]
struct Entry {
    flags: u16,
    domid: u16,
    frame: u32,
}

const PER_FRAME: usize = PAGE_SIZE / size_of::<Entry>();
/// References that the toolstack may have used for console and xenstore.
const RESERVED: usize = 8;
/// The most frames that are asked for: 32768 references, which is also what xl allows by default.
const MAX_FRAMES: usize = 64;

/// `struct gnttab_setup_table`.
#[repr(C)]
struct SetupTable {
    dom: u16,
    nr_frames: u32,
    status: i16,
    frame_list: *mut u64,
}

/// `struct gnttab_query_size`.
#[repr(C)]
struct QuerySize {
    dom: u16,
    nr_frames: u32,
    max_nr_frames: u32,
    status: i16,
}

struct Table {
    /// Which references are free.
    references: RangeAllocator<'static>,
    /// Where the table is mapped, at its largest.
    range: WindowRange,
    frames: usize,
    max_frames: usize,
}

static TABLE: CpuCell<Option<Table>> = CpuCell::new(None);

impl Table {
    fn new() -> Result<Self, GrantError> {
        let mut query = [QuerySize {
            dom: DOMID_SELF,
            nr_frames: 0,
            max_nr_frames: 0,
            status: 0,
        }];
        // SAFETY: the structure is the command's.
        unsafe { hypercall::grant_table_op(QUERY_SIZE, Counter::OtherHypercall, &mut query)? };
        GrantError::check(query[0].status)?;
        let max_frames = (query[0].max_nr_frames as usize).clamp(1, MAX_FRAMES);
        let words = vec![0; RangeAllocator::words_for(max_frames * PER_FRAME)].leak();
        let range = WindowRange::new(max_frames)?;
        let mut table = Self {
            references: RangeAllocator::new(words),
            range,
            frames: 0,
            max_frames,
        };
        table.grow(1)?;
        // `grow` has just made them free.
        assert!(
            table.references.allocate_at(0, RESERVED),
            "the reserved references are in use"
        );
        Ok(table)
    }

    /// Extends the table to this many frames.
    fn grow(&mut self, frames: usize) -> Result<(), GrantError> {
        if frames > self.max_frames {
            return Err(GrantError::TableFull);
        }
        let mut list = [0_u64; MAX_FRAMES];
        let mut setup = [SetupTable {
            dom: DOMID_SELF,
            nr_frames: frames as u32,
            status: 0,
            frame_list: list.as_mut_ptr(),
        }];
        // SAFETY: the structure is the command's, and the list has room for the frames.
        unsafe { hypercall::grant_table_op(SETUP_TABLE, Counter::OtherHypercall, &mut setup)? };
        GrantError::check(setup[0].status)?;
        for (index, &frame) in list.iter().enumerate().take(frames).skip(self.frames) {
            window::map_frame(&self.range, index, frame)?;
            self.frames = index + 1;
            self.references.release(index * PER_FRAME, PER_FRAME);
        }
        Ok(())
    }

    fn allocate(&mut self, count: usize) -> Result<usize, GrantError> {
        loop {
            if let Some(first) = self.references.allocate(count) {
                return Ok(first);
            }
            self.grow(self.frames + count.div_ceil(PER_FRAME).max(1))?;
        }
    }

    fn entry(&self, reference: GrantRef) -> *mut Entry {
        let reference = reference as usize;
        let page = self.range.page(reference / PER_FRAME) as *mut Entry;
        page.wrapping_add(reference % PER_FRAME)
    }

    fn flags(&self, reference: GrantRef) -> &AtomicU16 {
        // SAFETY: the entry is mapped; Xen changes the flags atomically too.
        unsafe { AtomicU16::from_ptr(&raw mut (*self.entry(reference)).flags) }
    }
}

fn with_table<T>(action: impl FnOnce(&mut Table) -> Result<T, GrantError>) -> Result<T, GrantError> {
    let mut guard = TABLE.borrow();
    if guard.is_none() {
        *guard = Some(Table::new()?);
    }
    action(guard.as_mut().ok_or(Errno::NOSYS)?)
}

/// Grants pages to a domain, under consecutive references; the first of them.
pub(super) fn grant(domid: u16, pages: &Pages, access: Access) -> Result<GrantRef, GrantError> {
    with_table(|table| {
        if (0..pages.count()).any(|i| u32::try_from(pages.mfn(i)).is_err()) {
            return Err(GrantError::FrameTooHigh);
        }
        let first = table.allocate(pages.count())? as GrantRef;
        let flags = PERMIT_ACCESS | if access == Access::ReadOnly { READONLY } else { 0 };
        for i in 0..pages.count() {
            let reference = first + i as GrantRef;
            let entry = table.entry(reference);
            // SAFETY: the entry is mapped, and Xen does not look at it before it has flags.
            unsafe {
                (&raw mut (*entry).domid).write_volatile(domid);
                (&raw mut (*entry).frame).write_volatile(pages.mfn(i) as u32);
            }
            table.flags(reference).store(flags, Ordering::Release);
        }
        Ok(first)
    })
}

/// Takes back what was granted; false if some of it is still mapped. What was taken back already stays so.
pub(super) fn end_access(first: GrantRef, count: usize) -> bool {
    let ended = with_table(|table| {
        let mut all_ended = true;
        for reference in first..first + count as GrantRef {
            let ended = table
                .flags(reference)
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |flags| {
                    (flags & IN_USE == 0).then_some(0)
                });
            all_ended &= ended.is_ok();
        }
        if all_ended {
            table.references.release(first as usize, count);
        }
        Ok(all_ended)
    });
    ended.unwrap_or(false)
}

/// How the grant table is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// References in use, including those that the toolstack reserved.
    pub used: usize,
    /// References that could be used if the table grows to its largest.
    pub limit: usize,
}

/// How the grant table is used now.
pub fn usage() -> Usage {
    TABLE
        .borrow()
        .as_ref()
        .map_or(Usage { used: 0, limit: 0 }, |table| Usage {
            used: table.frames * PER_FRAME - table.references.free_count(),
            limit: table.max_frames * PER_FRAME,
        })
}
