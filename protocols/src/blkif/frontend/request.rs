//! What callers hand in and get back.

use crate::blkif::nodes::Properties;

/// Payload in granted pages: every page is full except perhaps the last.
pub trait Payload {
    /// Size in bytes, a multiple of 512.
    fn bytes(&self) -> usize;
    /// The present grant reference of the page with this index.
    fn grant(&self, page: usize) -> u32;
    /// Copies bytes in, at an offset in bytes.
    fn fill(&self, offset: usize, from: &[u8]);
}

/// What is asked. Positions and lengths are in sectors of 512 bytes.
pub enum Command<P> {
    /// Fill the payload from this sector on.
    Read {
        /// The first sector.
        sector: u64,
        /// Where to.
        payload: P,
    },
    /// Store the payload from this sector on.
    Write {
        /// The first sector.
        sector: u64,
        /// Where from.
        payload: P,
    },
    /// Make all acknowledged writes durable.
    Flush,
    /// The contents of the range are no longer needed.
    Discard {
        /// The first sector.
        sector: u64,
        /// How many.
        sectors: u64,
    },
    /// Store zeros.
    WriteZeroes {
        /// The first sector.
        sector: u64,
        /// How many.
        sectors: u64,
    },
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The back end said so, the range is not on the disk, or the caller gave up.
    Io,
    /// The back end cannot do it.
    Unsupported,
}

/// The end of a request.
pub struct Finished<T, P> {
    /// As submitted.
    pub token: T,
    /// How it went.
    pub result: Result<(), Failure>,
    /// The payload of a read or write.
    pub payload: Option<P>,
}

/// One connection to a back end.
pub struct RingConnection {
    /// The device number.
    pub handle: u16,
    /// The most segments of an indirect request; without such requests, 0.
    pub indirect_segments: u16,
    /// The disk.
    pub properties: Properties,
}

/// What was done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests finished.
    pub requests: u64,
    /// Requests put on a ring.
    pub ring_requests: u64,
    /// Segments in them.
    pub segments: u64,
    /// Bytes read, as finished.
    pub bytes_read: u64,
    /// Bytes written, as finished, zeros included.
    pub bytes_written: u64,
    /// Requests that were sent again to a new back end.
    pub replayed: u64,
}

impl Counters {
    /// Nothing yet.
    pub const NONE: Self = Self {
        requests: 0,
        ring_requests: 0,
        segments: 0,
        bytes_read: 0,
        bytes_written: 0,
        replayed: 0,
    };
}
