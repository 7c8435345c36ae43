//! The payload pages of one uplink.
//!
//! The pages are this domain's own. Each is granted to the back end's domain once and stays so for as long as
//! the connection does, whether or not the back end keeps its mappings: blkif.h lets a front end do that with
//! any back end. A page is zeroed before its first grant, and afterwards holds data of this disk only.

use alloc::collections::{TryReserveError, VecDeque};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use core::task::Waker;

use devices::memory::Buffer as _;
use protocols::blkif::frontend::Payload;
use smallvec::SmallVec;

use crate::grant::{Access, GrantError, Granted};
use crate::mm::{self, OutOfMemory, PAGE_SIZE, Pages};
use crate::shared::SharedMemory;

/// The number of a page in its pool.
type Index = u16;

/// Whether the back end can reach a page.
enum Page {
    Private(Pages),
    Granted(Granted),
}

/// Pages in the pools of all uplinks.
static PAGES: AtomicUsize = AtomicUsize::new(0);

/// How many pages are in the pools of all uplinks.
pub(crate) fn payload_pages() -> usize {
    PAGES.load(Relaxed)
}

/// A place for a page. It is empty only while the page changes hands within one function.
struct Slot {
    address: usize,
    page: Option<Page>,
}

impl Slot {
    fn new() -> Result<Self, OutOfMemory> {
        let pages = Pages::new(1)?;
        PAGES.fetch_add(1, Relaxed);
        Ok(Self {
            address: pages.address(),
            page: Some(Page::Private(pages)),
        })
    }

    fn grant(&mut self, domid: u16) -> Result<(), GrantError> {
        let (page, result) = match self.page.take() {
            Some(Page::Private(pages)) => match Granted::new(domid, pages, Access::ReadWrite) {
                Ok(granted) => (Some(Page::Granted(granted)), Ok(())),
                Err((error, pages)) => (Some(Page::Private(pages)), Err(error)),
            },
            page => (page, Ok(())),
        };
        self.page = page;
        result
    }

    /// Whether the back end cannot reach the page any more.
    fn revoke(&mut self) -> bool {
        self.page = match self.page.take() {
            Some(Page::Granted(granted)) => Some(granted.try_end().map_or_else(Page::Granted, Page::Private)),
            page => page,
        };
        !matches!(self.page, Some(Page::Granted(_)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        PAGES.fetch_sub(1, Relaxed);
    }
}

/// One who was refused a buffer.
struct Waiting {
    party: usize,
    /// How many pages it takes.
    pages: usize,
    waker: Option<Waker>,
}

struct State {
    slots: Vec<Slot>,
    /// Pages that no buffer has. The last one given back is taken first, so that the back end's mappings stay
    /// few and its caches warm.
    free: Vec<Index>,
    /// The domain that all pages are granted to, while connected.
    domid: Option<u16>,
    /// Who was refused a buffer, in the order in which they get one.
    waiting: VecDeque<Waiting>,
}

impl State {
    /// Makes room for so many pages. Neither growing nor buffers that give pages back ask for memory then.
    fn reserve(&mut self, pages: usize) -> Result<(), TryReserveError> {
        self.slots.try_reserve_exact(pages)?;
        self.free.try_reserve_exact(pages)
    }

    /// Whom to wake: the first of those who wait, if there are pages for it.
    fn next_waker(&mut self) -> Option<Waker> {
        let free = self.free.len();
        self.waiting
            .front_mut()
            .filter(|first| first.pages <= free)
            .and_then(|first| first.waker.take())
    }
}

/// Pages of payload, up to a limit. They are allocated when they are needed first, and kept.
pub(super) struct Pool {
    limit: usize,
    /// Growing stops when less than so many bytes of the domain's memory are free.
    reserve: usize,
    state: RefCell<State>,
}

impl Pool {
    /// At most `limit` pages, of which `guaranteed` are allocated now; the others only as long as `reserve`
    /// bytes of the domain's memory are free.
    pub fn new(guaranteed: usize, limit: usize, reserve: usize) -> Result<Rc<Self>, OutOfMemory> {
        let mut state = State {
            slots: Vec::new(),
            free: Vec::new(),
            domid: None,
            waiting: VecDeque::new(),
        };
        state.reserve(limit).map_err(|_| OutOfMemory)?;
        for _ in 0..guaranteed {
            state.slots.push(Slot::new()?);
        }
        state.free.extend((0..guaranteed as Index).rev());
        Ok(Rc::new(Self {
            limit,
            reserve,
            state: RefCell::new(state),
        }))
    }

    /// Takes pages for `len` bytes, if there are enough.
    pub fn allocate(self: &Rc<Self>, len: usize) -> Option<Buffer> {
        let count = len.div_ceil(PAGE_SIZE);
        let mut state = self.state.borrow_mut();
        while state.free.len() < count {
            self.grow(&mut state)?;
        }
        let left = state.free.len() - count;
        let pages = state.free.drain(left..).rev().collect();
        Some(Buffer {
            pool: self.clone(),
            pages,
            len,
        })
    }

    /// Like [`allocate`](Self::allocate), but whoever was refused earlier gets his first, so that one who
    /// takes much again and again leaves something to others. Who is refused is in the queue until he gets a
    /// buffer or [leaves](Self::leave) it.
    pub fn allocate_in_turn(self: &Rc<Self>, party: usize, len: usize) -> Option<Buffer> {
        let first = self.state.borrow().waiting.front().map(|first| first.party);
        let buffer = match first {
            Some(first) if first != party => None,
            _ => self.allocate(len),
        };
        match &buffer {
            Some(_) if first.is_some() => self.leave(party),
            Some(_) => {}
            None => {
                let waiting = &mut self.state.borrow_mut().waiting;
                let pages = len.div_ceil(PAGE_SIZE);
                match waiting.iter_mut().find(|it| it.party == party) {
                    Some(entry) => entry.pages = pages,
                    None => waiting.push_back(Waiting {
                        party,
                        pages,
                        waker: None,
                    }),
                }
            }
        }
        buffer
    }

    /// Makes room for so many parties in the queue of those who were refused.
    pub fn reserve(&self, parties: usize) -> Result<(), TryReserveError> {
        let waiting = &mut self.state.borrow_mut().waiting;
        waiting.try_reserve(parties.saturating_sub(waiting.len()))
    }

    /// Takes a party out of the queue of those who were refused.
    pub fn leave(&self, party: usize) {
        let waker = {
            let mut state = self.state.borrow_mut();
            state.waiting.retain(|it| it.party != party);
            state.next_waker()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    fn grow(&self, state: &mut State) -> Option<()> {
        if state.slots.len() >= self.limit || mm::usage().free < self.reserve {
            return None;
        }
        let mut slot = Slot::new().ok()?;
        if let Some(domid) = state.domid {
            slot.grant(domid).ok()?;
        }
        state.free.push(state.slots.len() as Index);
        state.slots.push(slot);
        Some(())
    }

    /// Wakes a task when it is the party's turn and there are pages for it; nothing if it was not refused
    /// any.
    pub fn wait(&self, party: usize, waker: &Waker) {
        let waker = {
            let mut state = self.state.borrow_mut();
            let Some(entry) = state.waiting.iter_mut().find(|it| it.party == party) else {
                return;
            };
            entry.waker = Some(waker.clone());
            state.next_waker()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    /// Grants every page to a domain. On failure, some may be granted.
    pub fn grant(&self, domid: u16) -> Result<(), GrantError> {
        let mut state = self.state.borrow_mut();
        state.domid = Some(domid);
        state.slots.iter_mut().try_for_each(|slot| slot.grant(domid))
    }

    /// Ends the grants of pages that the other side does not have mapped any more. Returns whether that was
    /// all.
    pub fn revoke(&self) -> bool {
        let mut state = self.state.borrow_mut();
        state.domid = None;
        let revoked = state
            .slots
            .iter_mut()
            .filter_map(|slot| slot.revoke().then_some(()))
            .count();
        revoked == state.slots.len()
    }

    /// How many pages there are.
    pub fn pages(&self) -> usize {
        self.state.borrow().slots.len()
    }
}

/// Payload in pages of an uplink's pool, which get them back when it is dropped.
pub struct Buffer {
    pool: Rc<Pool>,
    /// Buffers of up to 64 KiB need no allocation of their own.
    pages: SmallVec<[Index; 16]>,
    len: usize,
}

/// A part of a buffer that lies in one page.
pub struct Piece<'a> {
    /// The page, which the back end may change at any time.
    pub page: SharedMemory<'a>,
    /// Where in the page the part begins.
    pub offset: usize,
    /// Its length in bytes.
    pub len: usize,
}

impl Buffer {
    /// The parts that `len` bytes from `offset` on consist of, in order.
    ///
    /// # Panics
    /// If the range does not lie inside the buffer.
    pub fn pieces(&self, offset: usize, len: usize) -> impl Iterator<Item = Piece<'_>> {
        let end = offset + len;
        assert!(offset <= end && end <= self.len);
        let mut at = offset;
        core::iter::from_fn(move || {
            if at == end {
                return None;
            }
            let offset = at % PAGE_SIZE;
            let len = (end - at).min(PAGE_SIZE - offset);
            let page = self.page(at / PAGE_SIZE);
            at += len;
            Some(Piece { page, offset, len })
        })
    }

    fn page(&self, index: usize) -> SharedMemory<'_> {
        let state = self.pool.state.borrow();
        let address = state.slots[usize::from(self.pages[index])].address;
        // SAFETY: the page stays in its pool, and the pool lives as long as the buffer. No reference to its
        // bytes is made, and no other buffer has it.
        unsafe { SharedMemory::new(address as *mut u8, PAGE_SIZE) }
    }

    /// Fills the buffer with zeros.
    pub(super) fn zero(&self) {
        self.pieces(0, self.len)
            .for_each(|piece| piece.page.zero(piece.offset, piece.len));
    }
}

impl devices::memory::Buffer for Buffer {
    fn len(&self) -> usize {
        self.len
    }

    fn read(&self, offset: usize, to: &mut [u8]) {
        let mut rest = to;
        for piece in self.pieces(offset, rest.len()) {
            let (now, later) = rest.split_at_mut(piece.len);
            piece.page.copy_out(piece.offset, now);
            rest = later;
        }
    }

    fn write(&self, offset: usize, from: &[u8]) {
        let mut rest = from;
        for piece in self.pieces(offset, rest.len()) {
            let (now, later) = rest.split_at(piece.len);
            piece.page.copy_in(piece.offset, now);
            rest = later;
        }
    }
}

impl Payload for Buffer {
    fn bytes(&self) -> usize {
        self.len
    }

    /// Ring requests are made only while the whole pool is granted. Otherwise, this is no grant of ours.
    fn grant(&self, page: usize) -> u32 {
        match self.pool.state.borrow().slots[usize::from(self.pages[page])].page {
            Some(Page::Granted(ref granted)) => granted.reference(0),
            _ => u32::MAX,
        }
    }

    fn fill(&self, offset: usize, from: &[u8]) {
        self.write(offset, from);
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let waker = {
            let mut state = self.pool.state.borrow_mut();
            state.free.extend(self.pages.iter().rev());
            state.next_waker()
        };
        waker.into_iter().for_each(Waker::wake);
    }
}
