//! The 2-level ABI: 4096 channels, as bits in the page shared with Xen, with a selector of the words that
//! have some.

use core::sync::atomic::{AtomicU64, Ordering};

use xen_sys as xen;

use super::Port;
use crate::boot;
use crate::errno::Errno;
use crate::hypercall;

const WORDS: usize = 64;
const BITS: u32 = u64::BITS;

pub(super) struct TwoLevel {
    /// Words that may have events.
    selector: u64,
}

/// Lets a port deliver.
pub(super) fn prepare(port: Port) -> Result<(), Errno> {
    let mut argument = xen::evtchn_unmask { port };
    // SAFETY: the structure is the command's.
    unsafe { hypercall::event_channel_op(xen::EVTCHNOP_unmask, &mut argument) }
}

impl TwoLevel {
    pub(super) fn new() -> Self {
        Self { selector: 0 }
    }

    /// The next port that has an event and is not masked; its event is consumed.
    pub(super) fn next(&mut self) -> Option<Port> {
        loop {
            // SAFETY: the word is in the mapped shared page, and Xen changes it atomically too.
            let selector = unsafe { AtomicU64::from_ptr(&raw mut (*boot::vcpu_info()).evtchn_pending_sel) };
            if selector.load(Ordering::Relaxed) != 0 {
                self.selector |= selector.swap(0, Ordering::AcqRel);
            }
            let index = self.selector.trailing_zeros() as usize;
            if index >= WORDS {
                return None;
            }
            // SAFETY: as above.
            let (pending, masked) = unsafe {
                let shared = boot::shared_info();
                (
                    AtomicU64::from_ptr(&raw mut (*shared).evtchn_pending[index]),
                    AtomicU64::from_ptr(&raw mut (*shared).evtchn_mask[index]),
                )
            };
            let bits = pending.load(Ordering::Acquire) & !masked.load(Ordering::Relaxed);
            if bits & bits.wrapping_sub(1) == 0 {
                // At most one is left: the word is done, unless Xen selects it again.
                self.selector &= !(1 << index);
            }
            if bits != 0 {
                let bit = bits.trailing_zeros();
                pending.fetch_and(!(1 << bit), Ordering::AcqRel);
                return Some(index as u32 * BITS + bit);
            }
        }
    }
}
