//! The device side of virtqueues.
//!
//! [`Virtqueue`] is what a device sees of a queue, whatever the format of its ring; [`split::Split`] is the
//! one format that is implemented. A device pops [`Chain`]s, works on them in any order, and puts them back
//! as used.

pub mod chain;
mod queue;
pub mod split;

use core::fmt;

pub use chain::{Chain, Segment};
pub use queue::Counters;
pub(crate) use queue::{BATCH, Queue};

use crate::memory::MemoryError;

/// The largest queue that is offered, and so the most descriptors of a chain, whatever the size of the queue:
/// drivers size indirect tables by the device's limits, not by the queue's.
pub const MAX_SIZE: u16 = 256;

/// How a driver broke a queue. The queue stops, and the device needs a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueError {
    /// The available index is further ahead than the queue has buffers.
    AvailableIndex,
    /// The head of a chain, or a `next` field, lies outside its table.
    DescriptorIndex,
    /// A chain is longer than its table or than the device's limit: a loop.
    TooManyDescriptors,
    /// A chain is longer than 2^32 bytes.
    TooManyBytes,
    /// A device-readable descriptor follows a device-writable one.
    Order,
    /// An indirect descriptor where none may be, or with a table of a bad size.
    Indirect,
    /// An indirect table cannot be read.
    Table(MemoryError),
    /// The part of a request that says what it is cannot be read.
    Header(MemoryError),
    /// A request has no room for its status.
    NoStatus,
    /// The status of a request cannot be written.
    Status(MemoryError),
    /// The driver did nothing wrong, but what it makes available is more than there is memory to look at now.
    NoMemory,
}

impl fmt::Display for QueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QueueError::AvailableIndex => f.write_str("the available index is more than a queue ahead"),
            QueueError::DescriptorIndex => f.write_str("a descriptor index lies outside its table"),
            QueueError::TooManyDescriptors => f.write_str("a descriptor chain loops or is too long"),
            QueueError::TooManyBytes => f.write_str("a descriptor chain is longer than 2^32 bytes"),
            QueueError::Order => f.write_str("a device-readable descriptor follows a device-writable one"),
            QueueError::Indirect => f.write_str("an indirect descriptor is misplaced or of a bad size"),
            QueueError::Table(error) => write!(f, "an indirect table cannot be read: {error:?}"),
            QueueError::Header(error) => write!(f, "a request header cannot be read: {error:?}"),
            QueueError::NoStatus => f.write_str("a request has no room for its status"),
            QueueError::Status(error) => write!(f, "a request's status cannot be written: {error:?}"),
            QueueError::NoMemory => f.write_str("there is no memory for what was made available"),
        }
    }
}

impl core::error::Error for QueueError {}

/// The device side of one queue.
///
/// After an error the queue is not touched again.
pub trait Virtqueue {
    /// How many buffers the driver can have made available at once.
    fn size(&self) -> u16;

    /// Takes the next available buffer, if there is one, and describes it in `chain`. If [`Chain::table`] is
    /// set after that, the rest of the description is in an indirect table, to be read and given to
    /// [`Chain::extend`].
    fn pop(&mut self, chain: &mut Chain) -> Result<bool, QueueError>;

    /// Gives a buffer back: `id` as [`Chain::id`] told, `written` the number of bytes written from its first
    /// device-writable byte on. The driver sees it after [`publish`](Self::publish).
    fn put(&mut self, id: u16, written: u32);

    /// Shows the driver what was put, and tells whether it wants to be notified of that.
    #[must_use = "the driver may wait for this notification"]
    fn publish(&mut self) -> bool;

    /// Asks the driver not to notify, as far as the ring has a way to say so.
    fn suppress(&mut self);

    /// Asks the driver to notify, and tells whether buffers became available meanwhile: those may not be
    /// notified of.
    fn listen(&mut self) -> Result<bool, QueueError>;
}
