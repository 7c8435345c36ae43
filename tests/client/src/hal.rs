//! Memory for `virtio-drivers`: what the device is to see is granted to the back end's domain.
//!
//! Rings are pages granted as long as they live. Buffers are bounced through pages of their own, at the same
//! offset in a page that they have on the heap, so that the back end sees buffers that cross pages at odd
//! places, but never a byte next to them. With a pool (section 6 of the specification), small buffers live in
//! the pool.
//!
//! The crate's trait has no instance, so all of this is one static: one connection at a time.

use alloc::collections::BTreeMap;
use core::cell::RefCell;
use core::ptr::NonNull;

use kernel::grant::{Access, Granted};
use kernel::mm::{PAGE_SIZE, Pages};
use protocols::grant_address::GrantAddress;
use virtio_drivers::{BufferDirection, Hal, PhysAddr};

/// Bytes in a part of the pool: a request's header or status, or an indirect table of four descriptors.
const POOL_PART: usize = 64;

/// [`Hal`] by grants.
pub struct GrantHal;

struct State {
    /// The domain to grant to.
    peer: u16,
    /// What is granted, by DMA address: rings and bounced buffers.
    granted: BTreeMap<u64, Granted>,
    pool: Option<Pool>,
    /// How often the back end still used what it should have let go of.
    in_use: u32,
}

struct Pool {
    pages: Granted,
    /// Which parts are free.
    free: alloc::vec::Vec<u16>,
}

struct Global(RefCell<State>);

// SAFETY: an image has one virtual CPU, and nothing interrupts a task.
unsafe impl Sync for Global {}

static STATE: Global = Global(RefCell::new(State {
    peer: 0,
    granted: BTreeMap::new(),
    pool: None,
    in_use: 0,
}));

/// The DMA address of a byte of granted pages.
pub fn address(pages: &Granted, offset: usize) -> u64 {
    GrantAddress {
        reference: pages.reference(offset / PAGE_SIZE),
        offset: (offset % PAGE_SIZE) as u16,
    }
    .encode()
}

/// Sets the domain that everything is granted to from now on.
pub fn set_peer(domid: u16) {
    STATE.0.borrow_mut().peer = domid;
}

/// Keeps small buffers in these pages from now on.
pub fn set_pool(pages: Granted) {
    let parts = pages.count() * PAGE_SIZE / POOL_PART;
    STATE.0.borrow_mut().pool = Some(Pool {
        free: (0..parts as u16).rev().collect(),
        pages,
    });
}

/// Stops using the pool, when no queue is in use and the back end has dropped it, and takes the pages back.
pub fn drop_pool() {
    let mut state = STATE.0.borrow_mut();
    if let Some(pool) = state.pool.take() {
        state.in_use += u32::from(pool.pages.end().is_err());
    }
}

/// Takes back the buffers of requests that nobody will complete, after the device was reset. How many there
/// were.
pub fn reclaim() -> usize {
    let mut state = STATE.0.borrow_mut();
    let abandoned = core::mem::take(&mut state.granted);
    let count = abandoned.len();
    for granted in abandoned.into_values() {
        state.in_use += u32::from(granted.end().is_err());
    }
    if let Some(pool) = &mut state.pool {
        let parts = pool.pages.count() * PAGE_SIZE / POOL_PART;
        pool.free = (0..parts as u16).rev().collect();
    }
    count
}

/// How often, since the last call, a grant was still in use when the specification says that the back end has
/// ended its use.
pub fn take_in_use() -> u32 {
    core::mem::take(&mut STATE.0.borrow_mut().in_use)
}

impl Pool {
    /// Takes a part, and gives its byte offset.
    fn allocate(&mut self) -> Option<(&Self, usize)> {
        let part = self.free.pop()?;
        Some((self, usize::from(part) * POOL_PART))
    }

    /// The byte offset that an address names, if it is one of the pool's.
    fn offset(&self, address: u64) -> Option<usize> {
        let start = self::address(&self.pages, 0);
        let size = (self.pages.count() * PAGE_SIZE) as u64;
        // Consecutive references make the addresses of the pool consecutive.
        address
            .checked_sub(start)
            .filter(|offset| *offset < size)
            .map(|offset| offset as usize)
    }
}

impl State {
    /// Grants `pages`, and gives their DMA address; 0, which no device can access, if that fails.
    fn grant(&mut self, pages: Pages, access: Access, offset: usize) -> u64 {
        match Granted::new(self.peer, pages, access) {
            Ok(granted) => {
                let address = address(&granted, offset);
                self.granted.insert(address, granted);
                address
            }
            Err((error, _)) => {
                log::error!("granting to domain {}: {error}", self.peer);
                0
            }
        }
    }

    fn share(&mut self, buffer: NonNull<[u8]>, direction: BufferDirection) -> u64 {
        let len = buffer.len();
        // SAFETY: the caller vouches for the buffer, and that nobody changes it meanwhile.
        let bytes = unsafe { buffer.as_ref() };
        let small = self.pool.as_mut().filter(|_| len <= POOL_PART);
        if let Some((pool, offset)) = small.and_then(Pool::allocate) {
            if direction != BufferDirection::DeviceToDriver {
                pool.pages.memory().copy_in(offset, bytes);
            }
            return address(&pool.pages, offset);
        }
        let offset = bytes.as_ptr() as usize % PAGE_SIZE;
        let Ok(mut pages) = Pages::new((offset + len).div_ceil(PAGE_SIZE)) else {
            log::error!("no memory to share {len} bytes");
            return 0;
        };
        let access = match direction {
            BufferDirection::DriverToDevice => Access::ReadOnly,
            _ => Access::ReadWrite,
        };
        if direction != BufferDirection::DeviceToDriver {
            pages.as_mut_slice()[offset..offset + len].copy_from_slice(bytes);
        }
        self.grant(pages, access, offset)
    }

    fn unshare(&mut self, address: u64, mut buffer: NonNull<[u8]>, direction: BufferDirection) {
        // SAFETY: the caller vouches for the buffer, which only this call uses meanwhile.
        let bytes = unsafe { buffer.as_mut() };
        let wanted = direction != BufferDirection::DriverToDevice;
        if let Some(pool) = &mut self.pool
            && let Some(offset) = pool.offset(address)
        {
            if wanted {
                pool.pages.memory().copy_out(offset, bytes);
            }
            pool.free.push((offset / POOL_PART) as u16);
            return;
        }
        let Some(granted) = self.granted.remove(&address) else {
            return;
        };
        if wanted {
            granted.memory().copy_out(address as usize % PAGE_SIZE, bytes);
        }
        // "A back end MUST have ended its use of a buffer's grants before it puts the buffer into the used
        // ring."
        self.in_use += u32::from(granted.end().is_err());
    }
}

// SAFETY: `dma_alloc` gives fresh zeroed pages that are reached by nothing else, and keeps them until
// `dma_dealloc`.
unsafe impl Hal for GrantHal {
    fn dma_alloc(pages: usize, direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let access = match direction {
            BufferDirection::DriverToDevice => Access::ReadOnly,
            _ => Access::ReadWrite,
        };
        let Ok(pages) = Pages::new(pages) else {
            return (0, NonNull::dangling());
        };
        let pointer = NonNull::new(pages.address() as *mut u8).unwrap_or(NonNull::dangling());
        (STATE.0.borrow_mut().grant(pages, access, 0), pointer)
    }

    unsafe fn dma_dealloc(address: PhysAddr, _pointer: NonNull<u8>, _pages: usize) -> i32 {
        let mut state = STATE.0.borrow_mut();
        if let Some(granted) = state.granted.remove(&address) {
            // When a queue has ended, the back end will "touch neither its rings nor its buffers".
            state.in_use += u32::from(granted.end().is_err());
        }
        0
    }

    unsafe fn mmio_phys_to_virt(_address: PhysAddr, _size: usize) -> NonNull<u8> {
        // Only the PCI transport asks.
        NonNull::dangling()
    }

    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> PhysAddr {
        STATE.0.borrow_mut().share(buffer, direction)
    }

    unsafe fn unshare(address: PhysAddr, buffer: NonNull<[u8]>, direction: BufferDirection) {
        STATE.0.borrow_mut().unshare(address, buffer, direction)
    }
}
