//! Data through `virtio-drivers`: written, read back and compared.

use alloc::format;
use alloc::rc::Rc;
use alloc::vec::Vec;

use virtio_drivers::Error;

use super::limits::Limits;
use crate::device::{Device, xen};
use crate::disk::{DEPTH, Disk, Request, SECTOR};
use crate::ensure;
use crate::hal;
use crate::random::{first_difference, pattern};
use crate::raw::granted;
use crate::report::Outcome;

/// Nothing of what was used was still granted.
pub fn no_grant_in_use() -> Outcome {
    let in_use = hal::take_in_use();
    ensure!(in_use == 0, "{in_use} grants were still in use after their use");
    Ok(())
}

/// Lengths and positions worth trying, as sectors: none overlaps another.
fn extents(limits: &Limits) -> Vec<(u64, u64)> {
    let unit = limits.unit;
    let mut extents = Vec::new();
    let mut sector = 0;
    for blocks in [1, 2, 3, 7, 8, 9, 16, 31, limits.max_sectors / unit] {
        let sectors = (blocks * unit).min(limits.max_sectors);
        extents.push((sector, sectors));
        // A gap, so that a write that is too long would be seen.
        sector += sectors + unit;
    }
    let end = limits.capacity / unit * unit;
    extents.push((end / 2 / unit * unit, 8 * unit));
    extents.push((end - unit, unit));
    extents.retain(|(sector, sectors)| sector + sectors <= end);
    extents
}

pub async fn read(device: &Rc<Device>, limits: &Limits) -> Outcome {
    let mut disk = Disk::new(device, false)?;
    ensure!(disk.sectors() == limits.capacity, "the capacity changes");
    for (sector, sectors) in extents(limits) {
        disk.good(Request::read(sector, sectors as usize * SECTOR, 0))
            .await?;
    }
    no_grant_in_use()
}

pub async fn write(device: &Rc<Device>, limits: &Limits) -> Outcome {
    let mut disk = Disk::new(device, false)?;
    for (seed, skip) in [(1, 0), (2, 1), (3, 100), (4, 4095)] {
        for (sector, sectors) in extents(limits) {
            let mut request = Request::write(sector, sectors as usize * SECTOR, skip);
            pattern(request.data(), sector, seed);
            disk.good(request).await?;
        }
        for (sector, sectors) in extents(limits) {
            verify(&mut disk, sector, sectors, seed, skip).await?;
        }
    }
    no_grant_in_use()
}

/// Reads sectors and compares them with their pattern.
async fn verify(disk: &mut Disk, sector: u64, sectors: u64, seed: u64, skip: usize) -> Outcome {
    let mut request = disk
        .good(Request::read(sector, sectors as usize * SECTOR, skip))
        .await?;
    match first_difference(request.data(), sector, seed) {
        None => Ok(()),
        Some(differs) => Err(format!(
            "{sectors} sectors from {sector} on: sector {differs} is not what was written"
        )),
    }
}

/// Requests under way at the same time, as many as the queue takes, each with data of its own.
pub async fn concurrent(device: &Rc<Device>, limits: &Limits) -> Outcome {
    const SEED: u64 = 5;
    let mut disk = Disk::new(device, false)?;
    let sectors = (8 * limits.unit).min(limits.max_sectors);
    let count = (64).min(limits.capacity / sectors);
    let positions: Vec<u64> = (0..count).map(|index| index * sectors).collect();
    let bytes = sectors as usize * SECTOR;
    let mut writes: Vec<Request> = positions
        .iter()
        .map(|sector| {
            let mut request = Request::write(*sector, bytes, (*sector % 4096) as usize);
            pattern(request.data(), *sector, SEED);
            request
        })
        .collect();
    disk.run(&mut writes, DEPTH).await?;
    writes.iter().try_for_each(Request::check)?;
    drop(writes);
    let mut reads: Vec<Request> = positions
        .iter()
        .map(|sector| Request::read(*sector, bytes, 0))
        .collect();
    disk.run(&mut reads, DEPTH).await?;
    for request in &mut reads {
        request.check()?;
        let sector = request.sector;
        let differs = first_difference(request.data(), sector, SEED);
        ensure!(
            differs.is_none(),
            "the request at {sector} read something else at {differs:?}"
        );
    }
    no_grant_in_use()
}

pub async fn flush(device: &Rc<Device>) -> Outcome {
    Disk::new(device, false)?.flush()
}

pub async fn out_of_range(device: &Rc<Device>, limits: &Limits) -> Outcome {
    let mut disk = Disk::new(device, false)?;
    let bytes = 2 * limits.unit as usize * SECTOR;
    let end = limits.capacity;
    let positions = [
        end - limits.unit,
        end,
        end + limits.unit,
        u64::MAX / 512 / 8 * 8,
        u64::MAX - 7,
    ];
    for sector in positions {
        for make in [Request::read, Request::write] {
            let request = disk.one(make(sector, bytes, 0)).await?;
            ensure!(
                request.result == Some(Err(Error::IoError)),
                "at sector {sector} of {end}: {:?}",
                request.result
            );
        }
    }
    disk.good(Request::read(0, bytes, 0)).await?;
    no_grant_in_use()
}

pub async fn read_only(device: &Rc<Device>, limits: &Limits) -> Outcome {
    let mut disk = Disk::new(device, false)?;
    ensure!(disk.read_only(), "the driver sees a writable disk");
    let request = disk
        .one(Request::write(0, limits.unit as usize * SECTOR, 0))
        .await?;
    ensure!(
        request.result == Some(Err(Error::IoError)),
        "a write ends with {:?}",
        request.result
    );
    Ok(())
}

/// What was written is there after a reset and a new start, many times over.
pub async fn reinitialise(device: &Rc<Device>, limits: &Limits) -> Outcome {
    let sectors = limits.unit;
    for seed in 10..20 {
        let mut disk = Disk::new(device, seed % 2 == 0)?;
        if seed > 10 {
            verify(&mut disk, 0, sectors, seed - 1, 0).await?;
        }
        let mut request = Request::write(0, sectors as usize * SECTOR, 0);
        pattern(request.data(), 0, seed);
        disk.good(request).await?;
        drop(disk);
        no_grant_in_use()?;
    }
    Ok(())
}

/// A reset, of the device or of the queue alone, while all of the queue is in flight. Each write is then done
/// or not, and nothing is still in use.
pub async fn reset_in_flight(device: &Rc<Device>, limits: &Limits, ring_reset: bool) -> Outcome {
    let sectors = limits.max_sectors.min(64);
    for round in 0..4_u64 {
        let mut disk = Disk::new(device, ring_reset)?;
        let mut requests: Vec<Request> = (0..DEPTH as u64)
            .map(|index| {
                let (sector, bytes) = (index * sectors, sectors as usize * SECTOR);
                let mut request = if index % 2 == 0 {
                    Request::write(sector, bytes, 0)
                } else {
                    Request::read(sector, bytes, 0)
                };
                pattern(request.data(), sector, 30 + round);
                request
            })
            .collect();
        disk.start(&mut requests)?;
        drop(disk);
        no_grant_in_use()?;
        let left = hal::reclaim();
        ensure!(left > 0, "nothing was in flight");
        no_grant_in_use().map_err(|error| format!("after the reset: {error}"))?;
    }
    let mut disk = Disk::new(device, ring_reset)?;
    let mut request = Request::write(0, sectors as usize * SECTOR, 0);
    pattern(request.data(), 0, 29);
    disk.good(request).await?;
    verify(&mut disk, 0, sectors, 29, 0).await
}

/// Does everything with a pool for the small buffers.
pub async fn pool(device: &Rc<Device>, limits: &Limits) -> Outcome {
    let max = device.max_pool_pages();
    if max == 0 {
        log::info!("the back end maps no pool");
        return Ok(());
    }
    let seen = device.set_status(0)?;
    ensure!(seen == 0, "the status after a reset is {seen:#x}");
    let pages = granted(device, max.min(4) as usize)?;
    let status = device.set_pool(hal::address(&pages, 0), pages.count() as u32)?;
    ensure!(status == xen::DONE, "XEN_SET_POOL: status {status}");
    hal::set_pool(pages);
    let mut outcome = write(device, limits).await;
    if outcome.is_ok() {
        outcome = concurrent(device, limits).await;
    }
    let status = device.set_pool(0, 0)?;
    hal::drop_pool();
    outcome?;
    ensure!(status == xen::DONE, "dropping the pool: status {status}");
    no_grant_in_use()
}
