//! Counters of what the image does: hypercalls by kind, notifications, bytes copied.
//!
//! They cost a load and a store each and are never reset; measure by the difference of two [`snapshot`]s.

use core::fmt;
use core::ops::Sub;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    /// Hypercalls that map foreign grants.
    GrantMap,
    /// Hypercalls that unmap foreign grants.
    GrantUnmap,
    /// Hypercalls that copy from or to foreign grants.
    GrantCopy,
    /// Hypercalls that send an event: notifications to other domains.
    EventSend,
    /// Hypercalls that wait for events.
    Block,
    /// Hypercalls that set the timer.
    Timer,
    /// Hypercalls that change page tables.
    PageTable,
    /// All other hypercalls.
    OtherHypercall,
    /// Pages of foreign grants mapped.
    PagesMapped,
    /// Single copies within the hypercalls that copy.
    CopyOperations,
    /// Bytes that the hypervisor copied from or to foreign grants.
    BytesGrantCopied,
    /// Bytes that this domain copied from or to shared memory.
    BytesCopied,
    /// Events that were received.
    EventsReceived,
    /// Tasks polled.
    TaskPolls,
    /// Allocations from the heap.
    Allocations,
}

const COUNTERS: usize = Counter::Allocations as usize + 1;
const NAMES: [&str; COUNTERS] = [
    "grant-map",
    "grant-unmap",
    "grant-copy",
    "event-send",
    "block",
    "timer",
    "page-table",
    "other-hypercall",
    "pages-mapped",
    "copy-operations",
    "bytes-grant-copied",
    "bytes-copied",
    "events-received",
    "task-polls",
    "allocations",
];
/// The counters before this one are hypercalls.
const HYPERCALLS: usize = Counter::OtherHypercall as usize + 1;

static VALUES: [AtomicU64; COUNTERS] = [const { AtomicU64::new(0) }; COUNTERS];

/// Adds to a counter.
#[inline]
pub fn count(counter: Counter, amount: u64) {
    // One virtual CPU: a load and a store are enough, and cheaper than an atomic addition.
    let value = &VALUES[counter as usize];
    value.store(value.load(Relaxed).wrapping_add(amount), Relaxed);
}

/// The counters at one moment, or the difference of two such.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot([u64; COUNTERS]);

/// Reads all counters.
pub fn snapshot() -> Snapshot {
    Snapshot(core::array::from_fn(|i| VALUES[i].load(Relaxed)))
}

impl Snapshot {
    /// One counter.
    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }

    /// Tells each counter, by its name; first all hypercalls together.
    pub fn each(&self, tell: &mut dyn FnMut(&'static str, u64)) {
        tell("hypercalls", self.hypercalls());
        for (name, value) in NAMES.iter().zip(self.0) {
            tell(name, value);
        }
    }

    /// All hypercalls together.
    pub fn hypercalls(&self) -> u64 {
        self.0[..HYPERCALLS].iter().sum()
    }
}

impl Sub for Snapshot {
    type Output = Self;
    fn sub(self, earlier: Self) -> Self {
        Self(core::array::from_fn(|i| self.0[i].wrapping_sub(earlier.0[i])))
    }
}

/// `hypercalls=… grant-map=… …`, leaving out what is zero.
impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hypercalls={}", self.hypercalls())?;
        for (name, value) in NAMES.iter().zip(self.0).filter(|(_, value)| *value != 0) {
            write!(f, " {name}={value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_and_sums() {
        // Counters that no other test in this process adds to meanwhile: none makes hypercalls or polls
        // tasks.
        let before = snapshot();
        count(Counter::GrantCopy, 2);
        count(Counter::TaskPolls, 5);
        let spent = snapshot() - before;
        assert_eq!(spent.get(Counter::GrantCopy), 2);
        assert_eq!(spent.get(Counter::TaskPolls), 5);
        assert_eq!(spent.hypercalls(), 2);
    }

    #[test]
    fn shows_what_is_not_zero() {
        let mut values = [0; COUNTERS];
        values[Counter::GrantCopy as usize] = 2;
        values[Counter::TaskPolls as usize] = 5;
        assert_eq!(
            Snapshot(values).to_string(),
            "hypercalls=2 grant-copy=2 task-polls=5"
        );
    }
}
