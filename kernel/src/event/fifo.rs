//! The FIFO ABI: up to 2^17 channels, in linked lists by priority.
//!
//! Layout: `xen/include/public/event_channel.h`; algorithm: Xen's design document "Event Channel FIFO-based
//! ABI". Xen appends to a list; this domain takes from its head. An entry that is linked says by its lower
//! bits which port follows.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use xen_sys as xen;

use super::Port;
use crate::errno::Errno;
use crate::hypercall;
use crate::mm::{PAGE_SIZE, Pages};

const QUEUES: usize = xen::EVTCHN_FIFO_MAX_QUEUES as usize;
const PENDING: u32 = 1 << xen::EVTCHN_FIFO_PENDING;
const LINKED: u32 = 1 << xen::EVTCHN_FIFO_LINKED;
const LINK: u32 = xen::EVTCHN_FIFO_LINK_MASK;
const PER_PAGE: usize = PAGE_SIZE / size_of::<u32>();

pub(super) struct Fifo {
    /// Xen's control block: which queues have events, and their heads while they are empty.
    control: *mut xen::evtchn_fifo_control_block,
    /// Pages of event words; they stay Xen's for good.
    words: Vec<*mut u32>,
    /// Queues that may have events.
    ready: u32,
    /// The next port of each queue, or 0 if Xen is to say.
    heads: [Port; QUEUES],
}

/// The lower bits of a word whose entry has been taken off its list.
fn unlinked(word: u32) -> u32 {
    word & !(LINKED | LINK)
}

impl Fifo {
    /// Switches the domain to this ABI.
    pub(super) fn new() -> Result<Self, Errno> {
        let page = Pages::new(1).map_err(|_| Errno::NOMEM)?;
        let mut argument = xen::evtchn_init_control {
            control_gfn: page.mfn(0),
            offset: 0,
            vcpu: 0,
            link_bits: 0,
            _pad: [0; 7],
        };
        // SAFETY: the structure is the command's, and the page is given to Xen for good.
        unsafe { hypercall::event_channel_op(xen::EVTCHNOP_init_control, &mut argument)? };
        Ok(Self {
            control: page.leak() as *mut _,
            words: Vec::new(),
            ready: 0,
            heads: [0; QUEUES],
        })
    }

    /// Makes sure that Xen has an event word for a port.
    pub(super) fn prepare(&mut self, port: Port) -> Result<(), Errno> {
        while self.words.len() * PER_PAGE <= port as usize {
            self.words.try_reserve(1).map_err(|_| Errno::NOMEM)?;
            let page = Pages::new(1).map_err(|_| Errno::NOMEM)?;
            let mut argument = xen::evtchn_expand_array {
                array_gfn: page.mfn(0),
            };
            // SAFETY: the structure is the command's, and the page is given to Xen for good.
            unsafe { hypercall::event_channel_op(xen::EVTCHNOP_expand_array, &mut argument)? };
            self.words.push(page.leak() as *mut u32);
        }
        Ok(())
    }

    fn word(&self, port: Port) -> Option<&'static AtomicU32> {
        let page = *self.words.get(port as usize / PER_PAGE)?;
        // SAFETY: the page holds event words for good, which Xen changes atomically too.
        Some(unsafe { AtomicU32::from_ptr(page.add(port as usize % PER_PAGE)) })
    }

    /// Takes pending ports off their lists until one is found that has an event, and consumes that.
    pub(super) fn next(&mut self) -> Option<Port> {
        loop {
            // SAFETY: the control block is shared with Xen, which changes this word atomically too.
            let ready = unsafe { AtomicU32::from_ptr(&raw mut (*self.control).ready) };
            if ready.load(Ordering::Relaxed) != 0 {
                self.ready |= ready.swap(0, Ordering::AcqRel);
            }
            // The lowest number is the highest priority.
            let queue = self.ready.trailing_zeros() as usize;
            if queue >= QUEUES {
                return None;
            }
            if let Some(port) = self.take_from(queue) {
                return Some(port);
            }
        }
    }

    /// Takes one entry off a queue; its port, if it has an event.
    fn take_from(&mut self, queue: usize) -> Option<Port> {
        let mut port = self.heads[queue];
        if port == 0 {
            // SAFETY: as in `next`.
            port =
                unsafe { AtomicU32::from_ptr(&raw mut (*self.control).head[queue]) }.load(Ordering::Acquire);
        }
        let Some(word) = self.word(port) else {
            self.ready &= !(1 << queue);
            return None;
        };
        let old = word
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |word| Some(unlinked(word)))
            .unwrap_or(0);
        self.heads[queue] = old & LINK;
        if self.heads[queue] == 0 {
            self.ready &= !(1 << queue);
        }
        // Nothing is ever masked in this ABI.
        let pending = word.fetch_and(!PENDING, Ordering::AcqRel) & PENDING != 0;
        pending.then_some(port)
    }
}
