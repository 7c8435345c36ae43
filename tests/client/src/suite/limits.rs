//! What a disk allows.

use crate::device::Device;
use crate::disk::SECTOR;
use crate::ensure;
use crate::report::Outcome;

/// What the device says about its requests.
pub struct Limits {
    /// The block size, in sectors: what positions and lengths are multiples of.
    pub unit: u64,
    /// The most sectors of one request; a multiple of `unit`.
    pub max_sectors: u64,
    /// Capacity in sectors.
    pub capacity: u64,
    /// The features that the device offers.
    pub offered: u64,
}

/// Larger requests than this, in sectors, want more memory than a small domain has.
const LARGEST: u64 = 256;

impl Limits {
    /// Reads them from the device's configuration space.
    pub fn read(device: &Device) -> Outcome<Self> {
        let (_, config) = device.config(0, 24)?;
        let word = |at: usize| -> Outcome<u64> {
            let bytes = config.get(at..at + 4).ok_or("configuration space is too short")?;
            Ok(bytes
                .iter()
                .rev()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
        };
        let (size_max, seg_max, block_size) = (word(8)?, word(12)?, word(20)?);
        ensure!(
            block_size == 512 || block_size == 4096,
            "blk_size is {block_size}"
        );
        ensure!(
            seg_max > 0 && size_max >= 4096,
            "seg_max is {seg_max}, size_max is {size_max}"
        );
        let unit = block_size / SECTOR as u64;
        Ok(Self {
            unit,
            max_sectors: (seg_max * size_max / SECTOR as u64).min(LARGEST) / unit * unit,
            capacity: word(0)? | word(4)? << 32,
            offered: device.features()?,
        })
    }
}
