//! What `virtio-drivers` has no method for, with a queue of our own.

use alloc::rc::Rc;

use devices::blk::features as blk;

use super::limits::Limits;
use crate::device::{Device, features};
use crate::disk::{Disk, Request, SECTOR};
use crate::ensure;
use crate::random::{first_difference, pattern};
use crate::raw::{RawQueue, ended, kind, place};
use crate::report::Outcome;

/// Resets a queue alone and sets it up again, with DRIVER_OK set all the time.
pub async fn queue_reset(device: &Rc<Device>) -> Outcome {
    let mut queue = RawQueue::new(device, 8, features::RING_RESET)?;
    for _ in 0..10 {
        queue.expect_service().await?;
        device.reset_queue(0)?;
        let size = device.queue(0)?.size.get();
        ensure!(size == 0, "a queue that was reset has size {size}");
        queue.restart()?;
    }
    queue.expect_service().await?;
    queue.finish()
}

/// A request of an unknown type, and data of a wrong length.
pub async fn unsupported(device: &Rc<Device>) -> Outcome {
    let mut queue = RawQueue::new(device, 8, 0)?;
    for (what, kind, len, expected) in [
        ("an unknown type", 77, 512, ended::UNSUPPORTED),
        (
            "a discard that was not negotiated",
            kind::DISCARD,
            16,
            ended::UNSUPPORTED,
        ),
        (
            "zeroes that were not negotiated",
            kind::WRITE_ZEROES,
            16,
            ended::UNSUPPORTED,
        ),
        ("half a sector", kind::IN, 256, ended::IO_ERROR),
        ("a sector and a byte", kind::OUT, 513, ended::IO_ERROR),
        ("a short id", kind::GET_ID, 19, ended::IO_ERROR),
        ("a flush", kind::FLUSH, 0, ended::OK),
    ] {
        let status = queue.request(kind, 0, len).await?;
        ensure!(status == expected, "{what}: status {status}, expected {expected}");
    }
    queue.finish()
}

/// One range of a discard or write-zeroes request, at the start of the data.
fn range(queue: &RawQueue, sector: u64, sectors: u32, flags: u32) {
    let data = queue.data();
    data.write_u64(place::DATA, sector);
    data.write_u32(place::DATA + 8, sectors);
    data.write_u32(place::DATA + 12, flags);
}

pub async fn write_zeroes(device: &Rc<Device>, limits: &Limits) -> Outcome {
    if limits.offered & blk::WRITE_ZEROES == 0 {
        log::info!("WRITE_ZEROES is not offered");
        return Ok(());
    }
    let unit = limits.unit;
    let (bytes, block) = (24 * unit as usize * SECTOR, unit as usize * SECTOR);
    let mut disk = Disk::new(device, false)?;
    let mut request = Request::write(0, bytes, 0);
    pattern(request.data(), 0, 40);
    disk.good(request).await?;
    drop(disk);
    let mut queue = RawQueue::new(device, 8, blk::WRITE_ZEROES)?;
    for (first, blocks, flags) in [(1, 1, 0), (4, 9, 1), (20, 3, 0)] {
        range(&queue, first * unit, (blocks * unit) as u32, flags);
        let status = queue.request(kind::WRITE_ZEROES, 0, 16).await?;
        ensure!(
            status == ended::OK,
            "zeroes over {blocks} blocks: status {status}"
        );
    }
    range(&queue, limits.capacity, unit as u32, 0);
    let status = queue.request(kind::WRITE_ZEROES, 0, 16).await?;
    ensure!(
        status == ended::IO_ERROR,
        "zeroes beyond the end: status {status}"
    );
    range(&queue, 0, unit as u32, 2);
    let status = queue.request(kind::WRITE_ZEROES, 0, 16).await?;
    ensure!(
        status == ended::UNSUPPORTED,
        "zeroes with an unknown flag: status {status}"
    );
    queue.finish()?;
    let mut disk = Disk::new(device, false)?;
    let mut request = disk.good(Request::read(0, bytes, 0)).await?;
    for (index, data) in (0..).zip(request.data().chunks(block)) {
        let zeroed = [1..2, 4..13, 20..23].iter().any(|range| range.contains(&index));
        let right = if zeroed {
            data.iter().all(|byte| *byte == 0)
        } else {
            first_difference(data, index * unit, 40).is_none()
        };
        ensure!(right, "block {index} is wrong, zeroed: {zeroed}");
    }
    Ok(())
}

pub async fn discard(device: &Rc<Device>, limits: &Limits) -> Outcome {
    if limits.offered & blk::DISCARD == 0 {
        log::info!("DISCARD is not offered");
        return Ok(());
    }
    let (_, config) = device.config(36, 12)?;
    let word = |at: usize| {
        config.get(at..at + 4).map_or(0, |bytes| {
            bytes
                .iter()
                .rev()
                .fold(0, |sum, byte| sum << 8 | u32::from(*byte))
        })
    };
    let (max, segments, alignment) = (word(0), word(4), word(8));
    ensure!(
        max > 0 && segments > 0,
        "max_discard_sectors {max}, max_discard_seg {segments}"
    );
    let mut queue = RawQueue::new(device, 8, blk::DISCARD)?;
    let sectors = alignment.max(limits.unit as u32).min(max);
    range(&queue, 0, sectors, 0);
    let status = queue.request(kind::DISCARD, 0, 16).await?;
    ensure!(
        status == ended::OK,
        "a discard of {sectors} sectors: status {status}"
    );
    range(&queue, 0, sectors, 1);
    let status = queue.request(kind::DISCARD, 0, 16).await?;
    ensure!(
        status == ended::UNSUPPORTED,
        "a discard with the unmap flag: status {status}"
    );
    range(&queue, limits.capacity, sectors, 0);
    let status = queue.request(kind::DISCARD, 0, 16).await?;
    ensure!(
        status == ended::IO_ERROR,
        "a discard beyond the end: status {status}"
    );
    queue.expect_service().await?;
    queue.finish()
}
