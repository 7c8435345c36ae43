//! The pages.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::sync::atomic::{AtomicIsize, Ordering::Relaxed};
use core::task::{Poll, Waker};

use super::Packet;
use super::exposure::Exposure;
use crate::mm::{self, PAGE_SIZE, Pages};
use crate::shared::SharedMemory;

/// Pages for frames, up to a limit. They are taken from the domain's memory when they are needed first, and
/// kept. Clones are of one pool.
#[derive(Clone)]
pub struct PacketPool(Rc<Inner>);

struct Inner {
    limit: usize,
    reserve: usize,
    state: RefCell<State>,
}

struct State {
    /// Pages that nobody has. The last one given back is taken first: it is warm.
    free: Vec<(Pages, Exposure)>,
    /// All pages.
    pages: usize,
    /// Who was refused.
    waiting: Vec<Waker>,
}

/// How a pool is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Pages taken from the domain's memory.
    pub pages: usize,
    /// Of these, those that nobody has.
    pub free: usize,
    /// How many pages there may be.
    pub limit: usize,
}

/// Pages that nobody has, of all pools.
static KEPT: AtomicIsize = AtomicIsize::new(0);

fn kept(change: isize) {
    // One virtual CPU: a load and a store are enough.
    KEPT.store(KEPT.load(Relaxed) + change, Relaxed);
}

/// How many pages are in pools, with nobody having them.
pub fn kept_pages() -> usize {
    KEPT.load(Relaxed).unsigned_abs()
}

impl PacketPool {
    /// At most `limit` pages. Growing stops when less than `reserve` bytes of the domain's memory are free.
    pub fn new(limit: usize, reserve: usize) -> Self {
        Self(Rc::new(Inner {
            limit,
            reserve,
            state: RefCell::new(State {
                free: Vec::new(),
                pages: 0,
                waiting: Vec::new(),
            }),
        }))
    }

    /// A packet of `len` bytes, which are undefined, if there are pages for it. Only the last of its pages is
    /// not full.
    pub fn allocate(&self, len: usize) -> Option<Packet> {
        let count = len.div_ceil(PAGE_SIZE);
        let mut state = self.0.state.borrow_mut();
        while state.free.len() < count {
            self.0.grow(&mut state)?;
        }
        let left = state.free.len() - count;
        kept(-(count as isize));
        let mut packet = Packet::empty();
        for (index, (pages, exposure)) in state.free.drain(left..).rev().enumerate() {
            let page = Page {
                pages: Some(pages),
                exposure: Cell::new(exposure),
                pool: self.0.clone(),
            };
            packet.push(page, 0, (len - index * PAGE_SIZE).min(PAGE_SIZE));
        }
        Some(packet)
    }

    /// A page, if there is one.
    pub(crate) fn take_page(&self) -> Option<Page> {
        let mut state = self.0.state.borrow_mut();
        if state.free.is_empty() {
            self.0.grow(&mut state)?;
        }
        let (pages, exposure) = state.free.pop()?;
        kept(-1);
        Some(Page {
            pages: Some(pages),
            exposure: Cell::new(exposure),
            pool: self.0.clone(),
        })
    }

    /// `Ready` if there are pages for `len` bytes; `Pending` wakes the task when some are given back.
    pub fn poll_free(&self, len: usize, waker: &Waker) -> Poll<()> {
        let mut state = self.0.state.borrow_mut();
        let count = len.div_ceil(PAGE_SIZE);
        while state.free.len() < count {
            if self.0.grow(&mut state).is_none() {
                if !state.waiting.iter().any(|it| it.will_wake(waker)) {
                    match state.waiting.try_reserve(1) {
                        Ok(()) => state.waiting.push(waker.clone()),
                        // It is not remembered, but asks again in its next turn.
                        Err(_) => waker.wake_by_ref(),
                    }
                }
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }

    /// How it is used.
    pub fn usage(&self) -> Usage {
        let state = self.0.state.borrow();
        Usage {
            pages: state.pages,
            free: state.free.len(),
            limit: self.0.limit,
        }
    }
}

impl Inner {
    fn grow(&self, state: &mut State) -> Option<()> {
        if state.pages >= self.limit || mm::usage().free < self.reserve {
            return None;
        }
        // What the page held is known to nobody: it is zeroed before it is shown.
        let pages = Pages::new_dirty(1).ok()?;
        // For all pages at once, so that giving one back never asks the heap.
        let all = state.pages + 1 - state.free.len();
        state.free.try_reserve(all).ok()?;
        state.free.push((pages, Exposure::default()));
        state.pages += 1;
        kept(1);
        Some(())
    }
}

/// A page of a pool, which gets it back when it is dropped.
pub(crate) struct Page {
    /// Empty only while it is dropped.
    pages: Option<Pages>,
    exposure: Cell<Exposure>,
    pool: Rc<Inner>,
}

impl Page {
    /// The page itself.
    pub(crate) fn pages(&self) -> &Pages {
        self.pages.as_ref().expect("the page is there until dropped")
    }

    /// Its bytes.
    pub(crate) fn memory(&self) -> SharedMemory<'_> {
        // SAFETY: the page stays mapped while `self` lives, and nobody can make a reference to its bytes:
        // that takes `&mut Pages`, and a page gives no such thing away.
        unsafe { SharedMemory::new(self.pages().address() as *mut u8, PAGE_SIZE) }
    }

    /// Notes that the frame in it is changed.
    pub(super) fn written(&self) {
        let mut exposure = self.exposure.get();
        exposure.written();
        self.exposure.set(exposure);
    }

    /// To be called before the page is granted to a domain: zeroes what that must not see. The frame's part,
    /// which it may, is `len` bytes at `offset`.
    pub(crate) fn expose(&self, domid: u16, offset: usize, len: usize) {
        let mut exposure = self.exposure.get();
        if exposure.show(domid) {
            let memory = self.memory();
            memory.zero(0, offset);
            memory.zero(offset + len, PAGE_SIZE - offset - len);
        }
        self.exposure.set(exposure);
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let mut exposure = self.exposure.get();
        exposure.retire();
        let mut state = self.pool.state.borrow_mut();
        // Growing has made room for all pages.
        if let Some(pages) = self.pages.take() {
            state.free.push((pages, exposure));
            kept(1);
        }
        if !state.waiting.is_empty() {
            let waiting = core::mem::take(&mut state.waiting);
            drop(state);
            waiting.into_iter().for_each(Waker::wake);
        }
    }
}
