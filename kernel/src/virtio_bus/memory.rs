//! A client's memory, reached by the grants that its DMA addresses name (`docs/virtio-msg-xen.md` sections 3
//! and 6).

use alloc::vec::Vec;
use core::cell::RefCell;
use core::marker::PhantomData;

use devices::memory::{Buffer, DriverMemory, Local, MemoryError, Transfer, Window};
use protocols::grant_address::{GrantAddress, PAGE_SIZE};

use crate::blkfront;
use crate::grant::{Access, CopyBatch, GrantError, LocalMemory, Mapping, Pieces};
use crate::mm;
use crate::shared::SharedMemory;

/// The most pages that one window has: the areas of a virtqueue are smaller.
const MAX_WINDOW_PAGES: usize = 8;

/// The most pieces of a batch that the memory for them is kept for.
const KEPT_PIECES: usize = 1024;

/// A payload buffer in pages of this domain's own.
pub trait PagedBuffer: Buffer {
    /// Calls `each` for the runs of memory that hold `len` bytes from `offset` on, in order: the memory, an
    /// offset in it, and a length.
    ///
    /// # Panics
    /// If the range does not lie inside the buffer.
    fn for_each_piece<'a>(
        &'a self,
        offset: usize,
        len: usize,
        each: impl FnMut(SharedMemory<'a>, usize, usize),
    );
}

impl PagedBuffer for blkfront::Buffer {
    fn for_each_piece<'a>(
        &'a self,
        offset: usize,
        len: usize,
        mut each: impl FnMut(SharedMemory<'a>, usize, usize),
    ) {
        for piece in self.pieces(offset, len) {
            each(piece.page, piece.offset, piece.len);
        }
    }
}

/// Memory of one client domain, which payload reaches in buffers of type `B`.
///
/// Windows and the pool are mapped; everything else is copied by the hypervisor, so that a grant that the
/// client takes back is an error and not a fault.
pub struct ClientMemory<B> {
    domid: u16,
    max_pool_pages: u32,
    pool: RefCell<Option<Pool>>,
    /// Which pieces of a batch belong to which transfer; kept to be filled again without asking the heap.
    pieces: RefCell<Vec<Part>>,
    buffers: PhantomData<B>,
}

/// A part of a transfer that the hypervisor copies, and how it went.
struct Part {
    transfer: usize,
    pieces: Pieces,
    result: Result<(), GrantError>,
}

/// Pages that stay granted, and mapped here, while the client is connected.
struct Pool {
    first: u32,
    mapping: Mapping,
}

/// Why there is no pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolError {
    /// Too large, not page-aligned, or there is one already.
    Refused,
    /// A page cannot be mapped.
    CannotMap(GrantError),
}

impl<B> ClientMemory<B> {
    /// For the domain `domid`, with a pool of at most so many pages.
    pub fn new(domid: u16, max_pool_pages: u32) -> Self {
        Self {
            domid,
            max_pool_pages,
            pool: RefCell::new(None),
            pieces: RefCell::new(Vec::new()),
            buffers: PhantomData,
        }
    }

    /// Maps the pool, or with 0 pages unmaps it. No queue may be running.
    pub fn set_pool(&self, address: u64, pages: u32) -> Result<(), PoolError> {
        let mut pool = self.pool.borrow_mut();
        if pages == 0 {
            *pool = None;
            return Ok(());
        }
        let address = GrantAddress::decode(address).filter(|address| address.offset == 0);
        let Some(GrantAddress { reference: first, .. }) = address else {
            return Err(PoolError::Refused);
        };
        if pool.is_some() || pages > self.max_pool_pages || first.checked_add(pages).is_none() {
            return Err(PoolError::Refused);
        }
        let references: Vec<u32> = (first..first + pages).collect();
        let mapping =
            Mapping::new(self.domid, &references, Access::ReadWrite).map_err(PoolError::CannotMap)?;
        *pool = Some(Pool { first, mapping });
        Ok(())
    }
}

impl Pool {
    /// Where `len` bytes from `address` on are in the mapping, if all of them are.
    fn offset(&self, address: GrantAddress, len: usize) -> Option<usize> {
        let page = address.reference.checked_sub(self.first)? as usize;
        let offset = page
            .checked_mul(PAGE_SIZE)?
            .checked_add(usize::from(address.offset))?;
        (offset.checked_add(len)? <= self.mapping.memory().len()).then_some(offset)
    }

    fn transfer<B: PagedBuffer>(&self, offset: usize, local: &mut Local<'_, B>) {
        let pool = self.mapping.memory();
        match local {
            Local::Read(to) => pool.copy_out(offset, to),
            Local::Write(from) => pool.copy_in(offset, from),
            Local::ReadBuffer(buffer, start, len) => {
                let mut at = offset;
                buffer.for_each_piece(*start, *len, |memory, offset, len| {
                    pool.copy_to(at, &memory, offset, len);
                    at += len;
                });
            }
            Local::WriteBuffer(buffer, start, len) => {
                let mut at = offset;
                buffer.for_each_piece(*start, *len, |memory, offset, len| {
                    memory.copy_to(offset, &pool, at, len);
                    at += len;
                });
            }
        }
    }
}

impl<B: PagedBuffer> DriverMemory for ClientMemory<B> {
    type Window = MappedWindow;
    type Buffer = B;

    fn map(&self, address: u64, len: usize, writable: bool) -> Result<MappedWindow, MemoryError> {
        let address = GrantAddress::decode(address).ok_or(MemoryError::BadAddress)?;
        let pages = address.pages(len);
        if pages == 0 || pages > MAX_WINDOW_PAGES {
            return Err(MemoryError::BadAddress);
        }
        let last = address
            .reference
            .checked_add(pages as u32 - 1)
            .ok_or(MemoryError::BadAddress)?;
        let references: Vec<u32> = (address.reference..=last).collect();
        let access = if writable {
            Access::ReadWrite
        } else {
            Access::ReadOnly
        };
        let mapping = Mapping::new(self.domid, &references, access).map_err(memory_error)?;
        Ok(MappedWindow {
            mapping,
            offset: usize::from(address.offset),
            len,
        })
    }

    fn is_scarce(&self) -> bool {
        mm::is_scarce()
    }

    fn transfer(&self, batch: &mut [Transfer<'_, B>]) {
        let pool = self.pool.borrow();
        let mut pieces = self.pieces.borrow_mut();
        pieces.clear();
        let mut copies = CopyBatch::new();
        for (i, transfer) in batch.iter_mut().enumerate() {
            transfer.result = Ok(());
            let len = match &transfer.local {
                Local::Read(to) => to.len(),
                Local::Write(from) => from.len(),
                Local::ReadBuffer(_, _, len) | Local::WriteBuffer(_, _, len) => *len,
            };
            let Some(address) = GrantAddress::decode(transfer.address) else {
                transfer.result = Err(MemoryError::BadAddress);
                continue;
            };
            if let Some((pool, offset)) = pool
                .as_ref()
                .and_then(|pool| Some((pool, pool.offset(address, len)?)))
            {
                pool.transfer(offset, &mut transfer.local);
                continue;
            }
            let result = &mut transfer.result;
            let mut added = |added: Result<Pieces, GrantError>| match added {
                // The driver decides how many there are.
                Ok(_) if pieces.try_reserve(1).is_err() => *result = Err(MemoryError::NoRoom),
                Ok(added) => pieces.push(Part {
                    transfer: i,
                    pieces: added,
                    result: Ok(()),
                }),
                Err(error) => *result = Err(memory_error(error)),
            };
            let (domid, reference, offset) = (self.domid, address.reference, address.offset);
            match &mut transfer.local {
                Local::Read(to) => added(copies.read(domid, reference, offset, &mut **to)),
                Local::Write(from) => added(copies.write(domid, reference, offset, *from)),
                Local::ReadBuffer(buffer, start, len) => {
                    let mut run = Run { reference, offset };
                    buffer.for_each_piece(*start, *len, |memory, at, len| {
                        let local = LocalMemory::shared(memory, at, len);
                        added(copies.read(domid, run.reference, run.offset, local));
                        run.advance(len);
                    });
                }
                Local::WriteBuffer(buffer, start, len) => {
                    let mut run = Run { reference, offset };
                    buffer.for_each_piece(*start, *len, |memory, at, len| {
                        let local = LocalMemory::shared(memory, at, len);
                        added(copies.write(domid, run.reference, run.offset, local));
                        run.advance(len);
                    });
                }
            }
        }
        copies.run();
        for part in pieces.iter_mut() {
            part.result = copies.result(&part.pieces);
        }
        drop(copies);
        for part in pieces.drain(..) {
            if let Err(error) = part.result {
                batch[part.transfer].result = Err(memory_error(error));
            }
        }
        // Shrinking would ask for memory.
        if pieces.capacity() > KEPT_PIECES {
            *pieces = Vec::new();
        }
    }
}

/// A place that moves through a client's consecutive grants.
struct Run {
    reference: u32,
    offset: u16,
}

impl Run {
    /// Moves on by `len` bytes. A reference beyond the last one stays there, and no client has granted it.
    fn advance(&mut self, len: usize) {
        let position = usize::from(self.offset) + len;
        self.reference = self.reference.saturating_add((position / PAGE_SIZE) as u32);
        self.offset = (position % PAGE_SIZE) as u16;
    }
}

fn memory_error(error: GrantError) -> MemoryError {
    match error {
        GrantError::OutOfMemory => MemoryError::NoRoom,
        GrantError::BadRange => MemoryError::BadAddress,
        _ => MemoryError::NoAccess,
    }
}

/// An area of a virtqueue, mapped.
pub struct MappedWindow {
    mapping: Mapping,
    offset: usize,
    len: usize,
}

impl MappedWindow {
    /// The offset in the mapping of `size` bytes at `offset` in the window.
    fn at(&self, offset: usize, size: usize) -> usize {
        assert!(
            offset.checked_add(size).is_some_and(|end| end <= self.len),
            "offset {offset:#x} of a window"
        );
        self.offset + offset
    }
}

impl Window for MappedWindow {
    fn len(&self) -> usize {
        self.len
    }

    fn read_u16(&self, offset: usize) -> u16 {
        self.mapping.memory().read_u16(self.at(offset, 2))
    }

    fn write_u16(&self, offset: usize, value: u16) {
        self.mapping.memory().write_u16(self.at(offset, 2), value);
    }

    fn read_u32(&self, offset: usize) -> u32 {
        self.mapping.memory().read_u32(self.at(offset, 4))
    }

    fn write_u32(&self, offset: usize, value: u32) {
        self.mapping.memory().write_u32(self.at(offset, 4), value);
    }

    fn read_bytes(&self, offset: usize, to: &mut [u8]) {
        self.mapping.memory().copy_out(self.at(offset, to.len()), to);
    }
}
