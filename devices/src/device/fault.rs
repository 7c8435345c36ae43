//! What drivers do wrong.

use core::fmt;

use crate::memory::MemoryError;
use crate::virtqueue::QueueError;

/// Why a queue cannot be set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetQueueError {
    /// There is no such queue.
    NoSuchQueue,
    /// FEATURES_OK is not set.
    NoFeatures,
    /// It is set up already.
    InUse,
    /// The size is no power of two, or over the maximum.
    BadSize,
    /// An area is not aligned.
    Unaligned,
    /// An area cannot be mapped.
    Memory(MemoryError),
    /// The bus has no notifications for it.
    NoDoorbell,
}

/// What a driver did wrong, for a log line of the bus's (which knows how many lines this driver may cause).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A queue is broken and the device needs a reset.
    Broken(u16, QueueError),
    /// A queue was not set up.
    Refused(u32, SetQueueError),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Broken(queue, error) => write!(f, "queue {queue} is broken: {error}"),
            Fault::Refused(queue, error) => write!(f, "queue {queue} is not set up: {error:?}"),
        }
    }
}
