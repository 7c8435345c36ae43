//! Copying between this domain's memory and pages of others, by the hypervisor.

use alloc::vec::Vec;
use core::marker::PhantomData;
use core::ops::Range;

use super::{GrantError, GrantRef};
use crate::cell::CpuCell;
use crate::hypercall::{self, DOMID_SELF};
use crate::mm::{PAGE_SIZE, address_to_mfn};
use crate::shared::SharedMemory;
use crate::stats::{Counter, count};

const COPY: u32 = 5;
const SOURCE_IS_REFERENCE: u16 = 1;
const TARGET_IS_REFERENCE: u16 = 2;

/// `struct gnttab_copy_ptr`: a place in a page, named by grant reference or machine frame.
#[repr(C)]
#[derive(Clone, Copy)]
struct Place {
    reference_or_frame: u64,
    domid: u16,
    offset: u16,
}

/// `struct gnttab_copy`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Operation {
    source: Place,
    target: Place,
    len: u16,
    flags: u16,
    status: i16,
}

const _: () = assert!(size_of::<Operation>() == 40);

/// Memory of this domain that the hypervisor copies from or to: it must lie in pages of the domain's own,
/// like everything on the heap or in [`crate::mm::Pages`], and unlike a mapping. A [`CopyBatch`] panics when
/// it is given anything else.
#[derive(Clone, Copy)]
pub struct LocalMemory<'a> {
    address: usize,
    len: usize,
    writable: bool,
    lifetime: PhantomData<&'a mut [u8]>,
}

impl<'a> From<&'a [u8]> for LocalMemory<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self {
            address: bytes.as_ptr() as usize,
            len: bytes.len(),
            writable: false,
            lifetime: PhantomData,
        }
    }
}

impl<'a> From<&'a mut [u8]> for LocalMemory<'a> {
    fn from(bytes: &'a mut [u8]) -> Self {
        Self {
            address: bytes.as_mut_ptr() as usize,
            len: bytes.len(),
            writable: true,
            lifetime: PhantomData,
        }
    }
}

impl<'a> LocalMemory<'a> {
    /// Part of shared memory.
    ///
    /// # Panics
    /// If the part does not lie inside.
    pub fn shared(memory: SharedMemory<'a>, offset: usize, len: usize) -> Self {
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= memory.len()),
            "range {offset:#x}+{len:#x}"
        );
        Self {
            address: memory.address() + offset,
            len,
            writable: true,
            lifetime: PhantomData,
        }
    }
}

/// The most pieces that a copy of so many bytes is cut into. Each page end on either side makes one more, and
/// those of a few bytes may already run over one on each side.
fn most_pieces(len: usize) -> usize {
    3 + 2 * (len / PAGE_SIZE)
}

/// Cuts a copy at the page ends of both sides: where each piece begins on either, and its length in bytes.
fn pieces(foreign: usize, own: usize, len: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let mut done = 0;
    core::iter::from_fn(move || {
        let (foreign, own) = (foreign + done, own + done);
        let to_end = PAGE_SIZE - (foreign % PAGE_SIZE).max(own % PAGE_SIZE);
        let piece = (len - done).min(to_end);
        done += piece;
        (piece > 0).then_some((foreign, own, piece))
    })
}

/// Which operations of a batch belong to one call of [`CopyBatch::read`] or [`CopyBatch::write`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pieces(Range<usize>);

/// Copies to be done together.
///
/// Each [`read`](Self::read) or [`write`](Self::write) is cut at page ends, theirs and ours;
/// [`run`](Self::run) does all of them in one hypercall; then [`result`](Self::result) tells for each how it
/// went.
pub struct CopyBatch<'a> {
    operations: Vec<Operation>,
    lifetime: PhantomData<LocalMemory<'a>>,
}

/// The operations of the last batch, to be filled again without asking the heap.
static SPARE: CpuCell<Vec<Operation>> = CpuCell::new(Vec::new());

impl<'a> CopyBatch<'a> {
    /// An empty batch.
    pub fn new() -> Self {
        Self {
            operations: core::mem::take(&mut *SPARE.borrow()),
            lifetime: PhantomData,
        }
    }

    /// Adds a copy from the pages that domain `domid` grants under `reference` and its successors, from a
    /// byte offset in the first of them, which fills `to`.
    ///
    /// # Errors
    /// If the offset is not one in a page, there are no such references, or no memory. Whether they are
    /// granted, [`result`](Self::result) tells.
    ///
    /// # Panics
    /// If `to` cannot be written, or is not memory of the domain's own.
    pub fn read(
        &mut self,
        domid: u16,
        reference: GrantRef,
        offset: u16,
        to: impl Into<LocalMemory<'a>>,
    ) -> Result<Pieces, GrantError> {
        let to = to.into();
        assert!(to.writable, "the target of a copy is read-only");
        self.cut(reference, offset, to, |foreign, local| Operation {
            source: Place { domid, ..foreign },
            target: local,
            len: 0,
            flags: SOURCE_IS_REFERENCE,
            status: -1,
        })
    }

    /// Adds a copy of all of `from` to the pages that domain `domid` grants under `reference` and its
    /// successors, to a byte offset in the first of them.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    ///
    /// # Panics
    /// If `from` is not memory of the domain's own.
    pub fn write(
        &mut self,
        domid: u16,
        reference: GrantRef,
        offset: u16,
        from: impl Into<LocalMemory<'a>>,
    ) -> Result<Pieces, GrantError> {
        self.cut(reference, offset, from.into(), |foreign, local| Operation {
            source: local,
            target: Place { domid, ..foreign },
            len: 0,
            flags: TARGET_IS_REFERENCE,
            status: -1,
        })
    }

    /// Adds the operations for one copy; none of them if there is no memory, or no such reference.
    fn cut(
        &mut self,
        reference: GrantRef,
        offset: u16,
        local: LocalMemory<'a>,
        operation: impl Fn(Place, Place) -> Operation,
    ) -> Result<Pieces, GrantError> {
        let start = self.operations.len();
        let offset = usize::from(offset);
        let last_page = (offset + local.len.max(1) - 1) / PAGE_SIZE;
        let last_reference = u32::try_from(last_page)
            .ok()
            .and_then(|pages| reference.checked_add(pages));
        if offset >= PAGE_SIZE || last_reference.is_none() {
            return Err(GrantError::BadRange);
        }
        self.operations
            .try_reserve(most_pieces(local.len))
            .map_err(|_| GrantError::OutOfMemory)?;
        for (foreign, own, len) in pieces(offset, local.address, local.len) {
            let foreign = Place {
                reference_or_frame: u64::from(reference) + (foreign / PAGE_SIZE) as u64,
                domid: 0,
                offset: (foreign % PAGE_SIZE) as u16,
            };
            let own = Place {
                reference_or_frame: address_to_mfn(own),
                domid: DOMID_SELF,
                offset: (own % PAGE_SIZE) as u16,
            };
            self.operations.push(Operation {
                len: len as u16,
                ..operation(foreign, own)
            });
        }
        Ok(Pieces(start..self.operations.len()))
    }

    /// How many single operations the batch has.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Does the copies: one hypercall, or none if there is nothing to do.
    pub fn run(&mut self) {
        if self.operations.is_empty() {
            return;
        }
        count(Counter::CopyOperations, self.operations.len() as u64);
        count(
            Counter::BytesGrantCopied,
            self.operations
                .iter()
                .map(|operation| u64::from(operation.len))
                .sum(),
        );
        // SAFETY: the structure is the command's. What is written is borrowed mutably by, or shared with, the
        // batch.
        let called = unsafe { hypercall::grant_table_op(COPY, Counter::GrantCopy, &mut self.operations) };
        if let Err(error) = called {
            // Operations that Xen did not get to keep their failing status.
            log::error!("grant copy: {error}");
        }
    }

    /// How a copy went; meaningful after [`run`](Self::run).
    ///
    /// # Errors
    /// If Xen refused a piece. An unknown part was copied then.
    pub fn result(&self, pieces: &Pieces) -> Result<(), GrantError> {
        self.operations[pieces.0.clone()]
            .iter()
            .try_for_each(|operation| GrantError::check(operation.status))
    }
}

impl Default for CopyBatch<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for CopyBatch<'_> {
    fn drop(&mut self) {
        let mut operations = core::mem::take(&mut self.operations);
        operations.clear();
        // What is unusually large is not worth keeping.
        if operations.capacity() <= 1024 {
            *SPARE.borrow() = operations;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_copy_has_more_pieces_than_there_is_room_for() {
        let lens = [
            0, 1, 2, 3, 100, 4094, 4095, 4096, 4097, 4098, 8191, 8192, 8194, 70_000,
        ];
        let offsets = [0, 1, 2, 2048, 4093, 4094, 4095];
        for len in lens {
            let mut most = 0;
            for (foreign, own) in offsets
                .iter()
                .flat_map(|foreign| offsets.map(|own| (*foreign, own)))
            {
                let (mut at, mut count) = (0, 0);
                for (there, here, bytes) in pieces(foreign, own, len) {
                    assert_eq!((there, here), (foreign + at, own + at));
                    assert!(there % PAGE_SIZE + bytes <= PAGE_SIZE && here % PAGE_SIZE + bytes <= PAGE_SIZE);
                    at += bytes;
                    count += 1;
                }
                assert_eq!(at, len);
                most = most.max(count);
            }
            assert!(most <= most_pieces(len), "{most} for {len} bytes");
        }
        assert_eq!(pieces(4095, 4094, 3).count(), 3);
    }
}
