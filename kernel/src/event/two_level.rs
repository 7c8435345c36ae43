//! The 2-level ABI: 4096 channels, as bits in the page shared with Xen, with a selector of the words that
//! have some.

use core::sync::atomic::{AtomicU64, Ordering};

use xen_sys as xen;

use super::Port;
use crate::boot;
use crate::errno::Errno;
use crate::hypercall;

const BITS: u32 = u64::BITS;
/// There are as many words as a word has bits.
const PORTS: u32 = BITS * BITS;

pub(super) struct TwoLevel {
    scan: Scan,
}

/// Where the search for events is. It goes on from the last one, round all channels, so that none that comes
/// again and again keeps those behind it waiting.
struct Scan {
    /// Words that may have events.
    selector: u64,
    /// The channel from which on to look.
    from: Port,
}

impl Scan {
    /// The next port that has an event. `bits` tells which of a word have; the event is still to be consumed.
    fn next(&mut self, bits: impl Fn(usize) -> u64) -> Option<Port> {
        loop {
            let at = self.from / BITS;
            let ahead = self.selector.rotate_right(at).trailing_zeros();
            if ahead >= BITS {
                return None;
            }
            let index = (at + ahead) % BITS;
            // From the word's begin on, if it is another one.
            let start = if ahead == 0 { self.from % BITS } else { 0 };
            let found = bits(index as usize);
            let rest = found & (u64::MAX << start);
            let bit = rest.trailing_zeros();
            if found & !(rest & rest.wrapping_neg()) == 0 {
                // No other is left: the word is done, unless Xen selects it again.
                self.selector &= !(1 << index);
            }
            // Behind the one that was found; or the next word, if what is left of this one comes before.
            self.from = (index * BITS + bit + u32::from(bit < BITS)) % PORTS;
            if bit < BITS {
                return Some(index * BITS + bit);
            }
        }
    }
}

/// Lets a port deliver.
pub(super) fn prepare(port: Port) -> Result<(), Errno> {
    let mut argument = xen::evtchn_unmask { port };
    // SAFETY: the structure is the command's.
    unsafe { hypercall::event_channel_op(xen::EVTCHNOP_unmask, &mut argument) }
}

impl TwoLevel {
    pub(super) fn new() -> Self {
        Self {
            scan: Scan { selector: 0, from: 0 },
        }
    }

    /// The next port that has an event and is not masked; its event is consumed.
    pub(super) fn next(&mut self) -> Option<Port> {
        // SAFETY: the word is in the mapped shared page, and Xen changes it atomically too.
        let selector = unsafe { AtomicU64::from_ptr(&raw mut (*boot::vcpu_info()).evtchn_pending_sel) };
        if selector.load(Ordering::Relaxed) != 0 {
            self.scan.selector |= selector.swap(0, Ordering::AcqRel);
        }
        // SAFETY: as above, for the words of both arrays, of which there are as many as a word has bits.
        let words = |index: usize| unsafe {
            let shared = boot::shared_info();
            (
                AtomicU64::from_ptr(&raw mut (*shared).evtchn_pending[index]),
                AtomicU64::from_ptr(&raw mut (*shared).evtchn_mask[index]),
            )
        };
        let port = self.scan.next(|index| {
            let (pending, masked) = words(index);
            pending.load(Ordering::Acquire) & !masked.load(Ordering::Relaxed)
        })?;
        let (pending, _) = words((port / BITS) as usize);
        pending.fetch_and(!(1 << (port % BITS)), Ordering::AcqRel);
        Some(port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// Takes `count` events, of which those of the ports `again` come again at once.
    fn take(words: &mut [u64; 64], scan: &mut Scan, again: &[Port], count: usize) -> Vec<Port> {
        (0..count)
            .map_while(|_| {
                let port = scan.next(|index| words[index])?;
                words[(port / BITS) as usize] &= !(1 << (port % BITS));
                for port in again {
                    words[(port / BITS) as usize] |= 1 << (port % BITS);
                    scan.selector |= 1 << (port / BITS);
                }
                Some(port)
            })
            .collect()
    }

    #[test]
    fn all_events_are_found_once_wherever_the_search_begins() {
        let ports = [0, 1, 5, 63, 64, 127, 128, 2000, 4032, 4095];
        for from in (0..PORTS).step_by(7).chain([63, 64, 127, 4095]) {
            let (mut words, selector) = ([0; 64], u64::MAX);
            for port in ports {
                words[(port / BITS) as usize] |= 1 << (port % BITS);
            }
            let mut scan = Scan { selector, from };
            let found = take(&mut words, &mut scan, &[], 100);
            let (before, behind): (Vec<_>, Vec<_>) = ports.iter().partition(|port| **port < from);
            assert_eq!(found, [behind, before].concat(), "from {from}");
            assert_eq!((words, scan.selector), ([0; 64], 0));
        }
    }

    #[test]
    fn a_channel_that_comes_again_and_again_lets_others_through() {
        let mut words = [0; 64];
        let mut scan = Scan {
            selector: u64::MAX,
            from: 0,
        };
        words[0] = 0b1101;
        words[70 / 64] |= 1 << (70 % 64);
        let found = take(&mut words, &mut scan, &[0, 2], 8);
        assert_eq!(found, [0, 2, 3, 70, 0, 2, 0, 2]);
    }
}
