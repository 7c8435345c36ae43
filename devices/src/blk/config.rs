//! Configuration space of virtio-blk ("Device configuration layout").

use core::mem::offset_of;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{Immutable, IntoBytes};

use super::request::MAX_RANGES;
use crate::disk::{Geometry, SECTOR};

/// The most segments of data of a request. With header and status, and whatever else a driver splits, there
/// is room for twice as many descriptors in a chain.
const MAX_SEGMENTS: u32 = 128;

/// What drivers can be relied on to accept as the size of a segment: a page.
const PAGE: u32 = 4096;

/// struct virtio_blk_config, up to the fields of features that are never offered. Padding and the
/// fields of features that are not offered are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Config {
    capacity: U64,
    size_max: U32,
    seg_max: U32,
    geometry: [u8; 4],
    blk_size: U32,
    physical_block_exp: u8,
    alignment_offset: u8,
    min_io_size: U16,
    opt_io_size: U32,
    writeback: u8,
    unused0: u8,
    num_queues: U16,
    max_discard_sectors: U32,
    max_discard_seg: U32,
    discard_sector_alignment: U32,
    max_write_zeroes_sectors: U32,
    max_write_zeroes_seg: U32,
    write_zeroes_may_unmap: u8,
    unused1: [u8; 3],
}

/// Where `writeback` is: the field that a driver may write.
pub(super) const WRITEBACK: usize = offset_of!(Config, writeback);

impl Config {
    pub(super) fn new(geometry: &Geometry, queues: u16, writeback: bool) -> Self {
        let (seg_max, size_max) = segments(geometry.max_bytes);
        let blocks = (geometry.physical_block_size / geometry.block_size).max(1);
        let discard = geometry.discard.filter(|_| !geometry.read_only);
        let zeroes = if geometry.read_only {
            0
        } else {
            geometry.max_bytes / SECTOR as u32
        };
        Config {
            capacity: geometry.sectors.into(),
            size_max: size_max.into(),
            seg_max: seg_max.into(),
            blk_size: geometry.block_size.into(),
            physical_block_exp: blocks.ilog2() as u8,
            min_io_size: u16::try_from(blocks).unwrap_or(u16::MAX).into(),
            writeback: writeback.into(),
            num_queues: queues.into(),
            max_discard_sectors: discard.map_or(0, |limits| limits.max_sectors).into(),
            max_discard_seg: discard.map_or(0, |_| MAX_RANGES as u32).into(),
            // Drivers take it for the granularity, too.
            discard_sector_alignment: discard.map_or(0, |limits| limits.granularity).into(),
            max_write_zeroes_sectors: zeroes.into(),
            max_write_zeroes_seg: if zeroes == 0 { 0 } else { MAX_RANGES as u32 }.into(),
            // "SHOULD clear the field if and only if a write zeroes request cannot result in deallocating":
            // what a disk does with `unmap` is its own affair, and nothing says that it ever deallocates.
            write_zeroes_may_unmap: 0,
            ..Config::default()
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// How many segments a request may have, and how large they may be, so that no request is larger than
/// `max_bytes`.
fn segments(max_bytes: u32) -> (u32, u32) {
    let seg_max = (max_bytes / PAGE).clamp(1, MAX_SEGMENTS);
    let size_max = (max_bytes / seg_max / PAGE * PAGE).max(PAGE);
    (seg_max, size_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_specified_one() {
        assert_eq!(size_of::<Config>(), 60);
        assert_eq!(offset_of!(Config, blk_size), 20);
        assert_eq!(WRITEBACK, 32);
        assert_eq!(offset_of!(Config, num_queues), 34);
        assert_eq!(offset_of!(Config, max_discard_sectors), 36);
        assert_eq!(offset_of!(Config, write_zeroes_may_unmap), 56);
    }

    #[test]
    fn no_request_is_over_the_limit() {
        for pages in 1..1024 {
            let max_bytes = pages * PAGE;
            let (seg_max, size_max) = segments(max_bytes);
            assert!((1..=MAX_SEGMENTS).contains(&seg_max) && size_max >= PAGE);
            assert!(seg_max * size_max <= max_bytes);
        }
        assert_eq!(segments(1 << 20), (128, 8192));
        assert_eq!(segments(128 << 10), (32, 4096));
    }
}
