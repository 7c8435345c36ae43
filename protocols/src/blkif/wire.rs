//! Requests and responses on the ring, in the x86_64 ABI (xen/include/public/io/blkif.h).

use zerocopy::little_endian::{I16, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a ring entry: the largest request.
pub const ENTRY_BYTES: usize = 112;
/// Bytes of a response, at the start of an entry.
pub const RESPONSE_BYTES: usize = 16;
/// Segments in a request without indirection.
pub const DIRECT_SEGMENTS: usize = 11;
/// Segments that one page of indirect segments holds.
pub const SEGMENTS_PER_PAGE: usize = 4096 / size_of::<Segment>();
/// The node `protocol` of a front end that uses this layout.
pub const PROTOCOL: &str = "x86_64-abi";

/// Operation codes.
pub mod operation {
    /// Fill the segments from the disk.
    pub const READ: u8 = 0;
    /// Store the segments on the disk.
    pub const WRITE: u8 = 1;
    /// Like a write, and earlier writes are durable before, later ones happen after it.
    pub const WRITE_BARRIER: u8 = 2;
    /// Empty the volatile write cache.
    pub const FLUSH_DISKCACHE: u8 = 3;
    /// The contents of a range are no longer needed.
    pub const DISCARD: u8 = 5;
    /// A read or write whose segments are in a page of their own.
    pub const INDIRECT: u8 = 6;
}

/// Status codes of responses.
pub mod status {
    /// Done.
    pub const OKAY: i16 = 0;
    /// Failed.
    pub const ERROR: i16 = -1;
    /// The back end cannot do this.
    pub const NOT_SUPPORTED: i16 = -2;
}

/// Part of one granted page. Sectors are of 512 bytes, counted from the start of the page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Segment {
    /// The page's grant reference.
    pub grant: U32,
    /// First sector, 0 to 7.
    pub first: u8,
    /// Last sector, inclusive, 0 to 7.
    pub last: u8,
    padding: [u8; 2],
}

impl Segment {
    /// The first `sectors` (1 to 8) of a granted page.
    pub fn new(grant: u32, sectors: u8) -> Self {
        Self {
            grant: grant.into(),
            first: 0,
            last: sectors - 1,
            padding: [0; 2],
        }
    }
}

/// `struct blkif_request`: a read, write, barrier or flush.
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Direct {
    /// Which of [`operation`].
    pub operation: u8,
    /// How many of the segments count.
    pub segment_count: u8,
    /// The device number.
    pub handle: U16,
    padding: [u8; 4],
    /// Comes back in the response.
    pub id: U64,
    /// The first sector on the disk, of 512 bytes.
    pub sector: U64,
    /// Where the data is.
    pub segments: [Segment; DIRECT_SEGMENTS],
}

impl Direct {
    /// A request without segments.
    pub fn new(operation: u8, handle: u16, id: u64, sector: u64) -> Self {
        Self {
            operation,
            segment_count: 0,
            handle: handle.into(),
            padding: [0; 4],
            id: id.into(),
            sector: sector.into(),
            segments: [Segment::default(); DIRECT_SEGMENTS],
        }
    }
}

/// `struct blkif_request_indirect`: a read or write of many segments.
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Indirect {
    /// Always [`operation::INDIRECT`].
    pub operation: u8,
    /// [`operation::READ`] or [`operation::WRITE`].
    pub indirect_operation: u8,
    /// How many segments there are in all pages.
    pub segment_count: U16,
    padding: [u8; 4],
    /// Comes back in the response.
    pub id: U64,
    /// The first sector on the disk, of 512 bytes.
    pub sector: U64,
    /// The device number.
    pub handle: U16,
    padding2: [u8; 2],
    /// The pages of segments; this front end uses one.
    pub pages: [U32; 8],
}

impl Indirect {
    /// A request whose segments are in one page.
    pub fn new(operation: u8, handle: u16, id: u64, sector: u64, segments: u16, page: u32) -> Self {
        let mut pages = [U32::ZERO; 8];
        pages[0] = page.into();
        Self {
            operation: operation::INDIRECT,
            indirect_operation: operation,
            segment_count: segments.into(),
            padding: [0; 4],
            id: id.into(),
            sector: sector.into(),
            handle: handle.into(),
            padding2: [0; 2],
            pages,
        }
    }
}

/// `struct blkif_request_discard`.
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Discard {
    /// Always [`operation::DISCARD`].
    pub operation: u8,
    /// Bit 0: secure discard, which this front end does not ask for.
    pub flags: u8,
    /// The device number.
    pub handle: U16,
    padding: [u8; 4],
    /// Comes back in the response.
    pub id: U64,
    /// The first sector, of 512 bytes.
    pub sector: U64,
    /// How many sectors.
    pub sectors: U64,
}

impl Discard {
    /// A discard that is not secure.
    pub fn new(handle: u16, id: u64, sector: u64, sectors: u64) -> Self {
        Self {
            operation: operation::DISCARD,
            flags: 0,
            handle: handle.into(),
            padding: [0; 4],
            id: id.into(),
            sector: sector.into(),
            sectors: sectors.into(),
        }
    }
}

/// `struct blkif_response`.
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Response {
    /// The request's.
    pub id: U64,
    /// The request's; back ends differ in what they say for an indirect one.
    pub operation: u8,
    padding: u8,
    /// Which of [`status`].
    pub status: I16,
    padding2: [u8; 4],
}

impl Response {
    /// The end of a request.
    pub fn new(id: u64, operation: u8, status: i16) -> Self {
        Self {
            id: id.into(),
            operation,
            padding: 0,
            status: status.into(),
            padding2: [0; 4],
        }
    }
}

const _: () = {
    assert!(size_of::<Direct>() == ENTRY_BYTES);
    assert!(size_of::<Indirect>() <= ENTRY_BYTES);
    assert!(size_of::<Discard>() <= ENTRY_BYTES);
    assert!(size_of::<Response>() == RESPONSE_BYTES);
};

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples were laid out by hand from the header's field order and the x86_64 alignment rules.
    #[test]
    fn direct_layout() {
        let mut request = Direct::new(
            operation::WRITE,
            0xca10,
            0x1122_3344_5566_7788,
            0x0102_0304_0506_0708,
        );
        request.segment_count = 2;
        request.segments[0] = Segment::new(0xdead_beef, 8);
        request.segments[1] = Segment::new(7, 1);
        let mut expected = [0u8; ENTRY_BYTES];
        expected[..4].copy_from_slice(&[1, 2, 0x10, 0xca]);
        expected[8..16].copy_from_slice(&[0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]);
        expected[16..24].copy_from_slice(&[8, 7, 6, 5, 4, 3, 2, 1]);
        expected[24..32].copy_from_slice(&[0xef, 0xbe, 0xad, 0xde, 0, 7, 0, 0]);
        expected[32..40].copy_from_slice(&[7, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(request.as_bytes(), expected);
    }

    #[test]
    fn indirect_layout() {
        let request = Indirect::new(operation::READ, 0xca10, 5, 9, 128, 0x0a0b_0c0d);
        let bytes = request.as_bytes();
        assert_eq!(bytes.len(), 60);
        assert_eq!(bytes[..4], [6, 0, 128, 0]);
        assert_eq!((bytes[8], bytes[16]), (5, 9));
        assert_eq!(bytes[24..28], [0x10, 0xca, 0, 0]);
        assert_eq!(bytes[28..36], [0x0d, 0x0c, 0x0b, 0x0a, 0, 0, 0, 0]);
    }

    #[test]
    fn discard_layout() {
        let request = Discard::new(3, 5, 9, 0x1_0000_0000);
        let bytes = request.as_bytes();
        assert_eq!(bytes[..4], [5, 0, 3, 0]);
        assert_eq!((bytes[8], bytes[16]), (5, 9));
        assert_eq!(bytes[24..32], [0, 0, 0, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn response_layout() {
        let bytes = [1, 0, 0, 0, 0, 0, 0, 0x80, 3, 0xff, 0xfe, 0xff, 9, 9, 9, 9];
        let response = Response::read_from_bytes(&bytes).unwrap();
        assert_eq!(response.id.get(), 0x8000_0000_0000_0001);
        assert_eq!(response.operation, operation::FLUSH_DISKCACHE);
        assert_eq!(response.status.get(), status::NOT_SUPPORTED);
    }
}
