//! The seam between disk devices and the uplinks that store their data.
//!
//! A device opens one [`Channel`] per virtqueue, allocates buffers from it, submits requests and polls for
//! completions, which come in any order. Dropping a channel abandons its requests: the uplink finishes them
//! and keeps their buffers until then.

use alloc::collections::TryReserveError;
use core::task::{Context, Poll};

use crate::memory::Buffer;

/// Bytes in a sector, the unit of every position and length in sectors here, whatever the logical block size.
pub const SECTOR: u64 = 512;

/// What a disk is like. All of it may change while the disk is open (see [`Disk::poll_geometry`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Capacity, in sectors.
    pub sectors: u64,
    /// Logical block size, in bytes: 512 to 4096, a power of two. Positions and lengths of requests are
    /// multiples of it.
    pub block_size: u32,
    /// Physical block size, in bytes: a power of two, at least `block_size`.
    pub physical_block_size: u32,
    /// No writes, discards or zeroes are accepted.
    pub read_only: bool,
    /// There is a volatile write cache, and [`Operation::Flush`] empties it.
    pub flush: bool,
    /// What may be discarded, if anything.
    pub discard: Option<DiscardLimits>,
    /// The most bytes that one read or write may carry; a multiple of 4096. It does not shrink while the disk
    /// is open: drivers learn of it once, so an uplink whose new back end takes less splits requests itself.
    pub max_bytes: u32,
}

/// Limits of [`Operation::Discard`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiscardLimits {
    /// The most sectors of one discard.
    pub max_sectors: u32,
    /// The granularity, in sectors.
    pub granularity: u32,
    /// The alignment of the first granule, in sectors.
    pub alignment: u32,
}

/// What a disk is asked to do. Ranges were checked against the geometry by the device; the disk checks them
/// again.
pub enum Operation<B> {
    /// Fill the buffer from this sector on.
    Read {
        /// The first sector.
        sector: u64,
        /// Where the data goes; its length is the request's.
        buffer: B,
    },
    /// Store the buffer from this sector on.
    Write {
        /// The first sector.
        sector: u64,
        /// The data; its length is the request's.
        buffer: B,
    },
    /// Make every write that completed before this request durable. Without a volatile cache, that fails only
    /// if acknowledged writes are known to be lost.
    Flush,
    /// The contents of this range, at most [`DiscardLimits::max_sectors`] long, are no longer needed.
    Discard {
        /// The first sector.
        sector: u64,
        /// How many sectors.
        sectors: u64,
    },
    /// This range, at most [`Geometry::max_bytes`] long, reads as zeros from now on.
    WriteZeroes {
        /// The first sector.
        sector: u64,
        /// How many sectors.
        sectors: u64,
        /// Whether the range may be deallocated.
        unmap: bool,
    },
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// The medium or the uplink's back end failed.
    Io,
    /// The disk cannot do this operation.
    Unsupported,
}

/// The end of one request.
pub struct Completion<B> {
    /// The caller's own number for the request, as submitted.
    pub id: usize,
    /// How it ended.
    pub result: Result<(), DiskError>,
    /// The buffer of a read or write, given back.
    pub buffer: Option<B>,
}

/// One stream of requests to a disk.
///
/// A device has at most 256 requests in it, each with an id below 256 that is not used twice at the same
/// time.
pub trait Channel {
    /// The disk's payload buffers.
    type Buffer: Buffer;

    /// A buffer of exactly `len` bytes (1 to [`Geometry::max_bytes`]), or `None` while the pool is exhausted;
    /// [`poll`](Self::poll) then wakes when trying again makes sense.
    fn allocate(&mut self, len: usize) -> Option<Self::Buffer>;

    /// What a failed [`allocate`](Self::allocate) asked for is not wanted any more: others need not wait for
    /// its turn.
    fn give_up(&mut self);

    /// Makes room for this many requests under way at once. More than that are not submitted.
    fn reserve(&mut self, requests: usize) -> Result<(), TryReserveError>;

    /// Accepts a request. It always takes it: what the uplink has no room for waits inside, bounded by the
    /// buffers and by the virtqueue's size.
    fn submit(&mut self, id: usize, operation: Operation<Self::Buffer>);

    /// Sends what was submitted on its way: one notification at most, after a batch of
    /// [`submit`](Self::submit).
    fn commit(&mut self);

    /// The next completion, if there is one. `Pending` registers the task for the next completion, and for
    /// free buffers after a failed [`allocate`](Self::allocate).
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Completion<Self::Buffer>>;
}

/// A disk that devices are made of.
pub trait Disk {
    /// Its streams of requests.
    type Channel: Channel;

    /// What it is like now.
    fn geometry(&self) -> Geometry;

    /// A new stream of requests.
    fn open(&self) -> Self::Channel;

    /// Resolves when the geometry differs from `seen`, with the new one.
    fn poll_geometry(&self, seen: &Geometry, context: &mut Context<'_>) -> Poll<Geometry>;
}
