//! Where frames get their memory from.

use core::task::{Context, Poll};

use devices::memory::Buffer;

/// The unit in which memory for frames is given out and accounted, in bytes.
pub const PAGE: usize = 4096;

/// What a frame of `len` bytes holds of the memory, in bytes.
///
/// It is also the frame's weight wherever senders share something: a small frame is as much work as a page
/// full of bytes.
pub(crate) fn weight(len: usize) -> usize {
    len.next_multiple_of(PAGE)
}

/// The memory that all frames of a switch share.
pub trait Memory: 'static {
    /// What it gives out, in whole pages of [`PAGE`] bytes.
    type Buffer: Buffer + 'static;

    /// A buffer of exactly `len` bytes, which are undefined; `None` if there is not enough left.
    fn allocate(&self, len: usize) -> Option<Self::Buffer>;

    /// `Ready` if a buffer of `len` bytes could be had; `Pending` registers the task for when some were given
    /// back. Tasks of several ports may wait.
    fn poll_free(&self, len: usize, context: &mut Context<'_>) -> Poll<()>;
}
