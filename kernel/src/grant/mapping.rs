//! Pages of other domains, mapped.

use alloc::vec::Vec;

use super::{Access, GrantError, GrantRef};
use crate::hypercall;
use crate::mm::PAGE_SIZE;
use crate::mm::window::WindowRange;
use crate::shared::SharedMemory;
use crate::stats::{Counter, count};

const MAP_GRANT_REF: u32 = 0;
const UNMAP_GRANT_REF: u32 = 1;
const HOST_MAP: u32 = 1 << 1;
const MAP_READONLY: u32 = 1 << 2;

/// Operations in one hypercall.
const BATCH: usize = 32;

/// `struct gnttab_map_grant_ref`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct MapGrantRef {
    host_addr: u64,
    flags: u32,
    reference: GrantRef,
    dom: u16,
    status: i16,
    handle: u32,
    dev_bus_addr: u64,
}

/// `struct gnttab_unmap_grant_ref`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct UnmapGrantRef {
    host_addr: u64,
    dev_bus_addr: u64,
    handle: u32,
    status: i16,
}

/// Pages of another domain at consecutive addresses, mapped until dropped.
///
/// The other domain cannot take a mapped page away, and its death does not end the mapping; but it may write
/// to the pages at any time.
pub struct Mapping {
    range: WindowRange,
    /// Xen's handles of the pages that are mapped.
    handles: Vec<u32>,
}

impl Mapping {
    /// Maps the pages that domain `domid` grants under these references, in this order; all of them or none.
    /// One hypercall for every 32 pages.
    ///
    /// # Errors
    /// Without references, without memory or addresses, and where Xen refuses: mostly because the domain does
    /// not grant such a page.
    pub fn new(domid: u16, references: &[GrantRef], access: Access) -> Result<Self, GrantError> {
        if references.is_empty() {
            return Err(GrantError::BadRange);
        }
        let range = WindowRange::new(references.len())?;
        let mut handles = Vec::new();
        handles
            .try_reserve_exact(references.len())
            .map_err(|_| GrantError::OutOfMemory)?;
        let mut mapping = Self { range, handles };
        for part in references.chunks(BATCH) {
            mapping.map_batch(domid, part, access)?;
        }
        Ok(mapping)
    }

    /// Maps pages behind those that are mapped. If one fails, those before it stay mapped, those behind it do
    /// not.
    fn map_batch(&mut self, domid: u16, references: &[GrantRef], access: Access) -> Result<(), GrantError> {
        let flags = HOST_MAP
            | if access == Access::ReadOnly {
                MAP_READONLY
            } else {
                0
            };
        let mut operations = [MapGrantRef::default(); BATCH];
        let batch = &mut operations[..references.len()];
        for (i, (operation, &reference)) in batch.iter_mut().zip(references).enumerate() {
            let host_addr = self.range.page(self.handles.len() + i) as u64;
            // Xen sets the status of each operation that it gets to.
            *operation = MapGrantRef {
                host_addr,
                flags,
                reference,
                dom: domid,
                status: -1,
                ..Default::default()
            };
        }
        // SAFETY: the structure is the command's, and the addresses are this mapping's own.
        let called = unsafe { hypercall::grant_table_op(MAP_GRANT_REF, Counter::GrantMap, batch) };
        let failed = batch.iter().position(|operation| operation.status != 0);
        let good = failed.unwrap_or(batch.len());
        self.handles
            .extend(batch[..good].iter().map(|operation| operation.handle));
        count(Counter::PagesMapped, good as u64);
        let Some(failed) = failed else {
            return called.map_err(GrantError::from);
        };
        let mut unmap = Unmapping::new();
        for operation in batch[failed..].iter().filter(|operation| operation.status == 0) {
            unmap.push(operation.host_addr, operation.handle);
        }
        unmap.flush();
        called?;
        GrantError::check(batch[failed].status)
    }

    /// The pages' bytes. Writing to a read-only mapping is a page fault.
    pub fn memory(&self) -> SharedMemory<'_> {
        // SAFETY: the pages stay mapped while `self` lives, and no reference to their bytes is ever made.
        unsafe { SharedMemory::new(self.range.page(0) as *mut u8, self.handles.len() * PAGE_SIZE) }
    }

    /// How many pages are mapped.
    pub fn count(&self) -> usize {
        self.handles.len()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let mut unmapping = Unmapping::new();
        for (i, handle) in self.handles.drain(..).enumerate() {
            unmapping.push(self.range.page(i) as u64, handle);
        }
        unmapping.flush();
    }
}

/// A batch of unmappings.
struct Unmapping {
    operations: [UnmapGrantRef; BATCH],
    filled: usize,
}

impl Unmapping {
    fn new() -> Self {
        Self {
            operations: [UnmapGrantRef::default(); BATCH],
            filled: 0,
        }
    }

    fn push(&mut self, host_addr: u64, handle: u32) {
        if self.filled == BATCH {
            self.flush();
        }
        self.operations[self.filled] = UnmapGrantRef {
            host_addr,
            dev_bus_addr: 0,
            handle,
            status: -1,
        };
        self.filled += 1;
    }

    fn flush(&mut self) {
        if self.filled == 0 {
            return;
        }
        let batch = &mut self.operations[..self.filled];
        self.filled = 0;
        // SAFETY: the structure is the command's, and whoever pushed an address has given it up.
        let called = unsafe { hypercall::grant_table_op(UNMAP_GRANT_REF, Counter::GrantUnmap, batch) };
        // Handles and addresses are our own, so this is a bug; and the address would be used again while
        // something is mapped there.
        assert!(
            called.is_ok() && batch.iter().all(|operation| operation.status == 0),
            "cannot unmap a grant"
        );
    }
}
