//! What a request asks for, and whether it may ("Device Operation").

use alloc::vec::Vec;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::{ID_SIZE, features};
use crate::disk::{Geometry, SECTOR};

/// The most ranges of one discard or write-zeroes request.
pub(super) const MAX_RANGES: usize = 16;

/// The start of struct virtio_blk_req.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    kind: U32,
    reserved: U32,
    sector: U64,
}

/// Size in bytes of a request's header.
pub(super) const HEADER_SIZE: usize = size_of::<Header>();

/// struct virtio_blk_discard_write_zeroes.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct WireRange {
    sector: U64,
    sectors: U32,
    flags: U32,
}

/// The most bytes that a request has in front of its data, ranges included.
pub(super) const MAX_FRONT: usize = HEADER_SIZE + MAX_RANGES * size_of::<WireRange>();

/// VIRTIO_BLK_T_*.
mod kind {
    pub(super) const IN: u32 = 0;
    pub(super) const OUT: u32 = 1;
    pub(super) const FLUSH: u32 = 4;
    pub(super) const GET_ID: u32 = 8;
    pub(super) const DISCARD: u32 = 11;
    pub(super) const WRITE_ZEROES: u32 = 13;
}

/// The only flag of a range.
const UNMAP: u32 = 1;

/// How a request ended: VIRTIO_BLK_S_*.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Status {
    Ok = 0,
    IoError = 1,
    Unsupported = 2,
}

/// A range to discard or to zero; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) sector: u64,
    pub(super) sectors: u64,
    pub(super) unmap: bool,
}

/// A request that was checked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// All the writable bytes but the last, from this sector on.
    Read {
        sector: u64,
    },
    /// All the readable bytes after the header, from this sector on.
    Write {
        sector: u64,
    },
    Flush,
    GetId,
    /// The ranges in reverse order.
    Discard(Vec<Range>),
    /// The ranges in reverse order.
    WriteZeroes(Vec<Range>),
}

/// What requests are checked against.
pub(super) struct Rules<'a> {
    pub(super) geometry: &'a Geometry,
    /// What the driver has accepted.
    pub(super) features: u64,
    /// VIRTIO_BLK_F_RO is offered.
    pub(super) read_only: bool,
}

impl Rules<'_> {
    fn read_only(&self) -> bool {
        self.read_only || self.geometry.read_only
    }

    /// Whether so many bytes can be payload.
    pub(super) fn payload(&self, bytes: u64) -> bool {
        bytes <= u64::from(self.geometry.max_bytes)
            && bytes.is_multiple_of(u64::from(self.geometry.block_size))
    }

    /// Whether a range is aligned to blocks and on the disk.
    fn on_disk(&self, sector: u64, sectors: u64) -> bool {
        let block = u64::from(self.geometry.block_size) / SECTOR;
        sector.is_multiple_of(block)
            && sectors.is_multiple_of(block)
            && sector
                .checked_add(sectors)
                .is_some_and(|end| end <= self.geometry.sectors)
    }

    /// Whether so many bytes can be read or written there.
    fn transfer(&self, sector: u64, bytes: u64) -> bool {
        self.payload(bytes) && self.on_disk(sector, bytes / SECTOR)
    }

    /// Checks a request.
    ///
    /// `front` is its first bytes: all that are readable, but at most [`MAX_FRONT`], or only the header if
    /// the rest cannot be ranges. `readable` and `writable` are how many bytes the driver gave, the status
    /// byte included.
    pub(super) fn check(&self, front: &[u8], readable: u64, writable: u64) -> Result<Request, Status> {
        let (header, rest) = Header::ref_from_prefix(front).map_err(|_| Status::IoError)?;
        let sector = header.sector.get();
        let (data_out, data_in) = (readable - HEADER_SIZE as u64, writable - 1);
        match header.kind.get() {
            kind::IN => {
                ensure(data_out == 0 && self.transfer(sector, data_in))?;
                Ok(Request::Read { sector })
            }
            kind::OUT => {
                // "A device MUST set the status byte to VIRTIO_BLK_S_IOERR for a write request if the
                // VIRTIO_BLK_F_RO feature if offered".
                ensure(!self.read_only() && data_in == 0 && self.transfer(sector, data_out))?;
                Ok(Request::Write { sector })
            }
            // "A driver SHOULD NOT include any data": it does no harm.
            kind::FLUSH => Ok(Request::Flush),
            kind::GET_ID => {
                ensure(data_out == 0 && data_in == ID_SIZE as u64)?;
                Ok(Request::GetId)
            }
            kind::DISCARD if self.features & features::DISCARD != 0 => {
                let limits = self.geometry.discard.ok_or(Status::Unsupported)?;
                let ranges = self.ranges(rest, data_out, limits.max_sectors, 0)?;
                Ok(Request::Discard(ranges))
            }
            kind::WRITE_ZEROES if self.features & features::WRITE_ZEROES != 0 => {
                let max_sectors = self.geometry.max_bytes / SECTOR as u32;
                let ranges = self.ranges(rest, data_out, max_sectors, UNMAP)?;
                Ok(Request::WriteZeroes(ranges))
            }
            _ => Err(Status::Unsupported),
        }
    }

    /// Checks the ranges of a request, of which there are `len` bytes. `flags` are those allowed.
    fn ranges(&self, front: &[u8], len: u64, max_sectors: u32, flags: u32) -> Result<Vec<Range>, Status> {
        // More than MAX_RANGES are not in front.
        ensure(len == front.len() as u64 && len > 0)?;
        let ranges = <[WireRange]>::ref_from_bytes(front).map_err(|_| Status::IoError)?;
        // "The device MUST set the status byte to VIRTIO_BLK_S_UNSUPP for discard, secure erase and write
        // zeroes commands if any unknown flag is set", and "for discard commands if the unmap flag is set".
        if ranges.iter().any(|range| range.flags.get() & !flags != 0) {
            return Err(Status::Unsupported);
        }
        let valid = |range: &WireRange| {
            range.sectors.get() <= max_sectors
                && self.on_disk(range.sector.get(), u64::from(range.sectors.get()))
        };
        ensure(!self.read_only() && ranges.iter().all(valid))?;
        let ranges = ranges.iter().rev().filter(|range| range.sectors.get() > 0);
        Ok(ranges
            .map(|range| Range {
                sector: range.sector.get(),
                sectors: range.sectors.get().into(),
                unmap: range.flags.get() & UNMAP != 0,
            })
            .collect())
    }
}

fn ensure(condition: bool) -> Result<(), Status> {
    if condition { Ok(()) } else { Err(Status::IoError) }
}
