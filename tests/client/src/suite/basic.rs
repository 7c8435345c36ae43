//! Each thing that a driver does, once.

use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;

use devices::blk::features as blk;

use super::limits::Limits;
use super::{data, requests};
use crate::device::{Device, features};
use crate::disk::{Disk, Request, SECTOR};
use crate::ensure;
use crate::frontend::Frontend;
use crate::raw::{RawQueue, kind, place};
use crate::report::{Outcome, Report};

/// Connects, runs all checks, and leaves.
pub async fn run(report: &mut Report, frontend: &Frontend) -> Outcome {
    let Some(device) = report.step("connect", frontend.connect()).await else {
        return Ok(());
    };
    let device = Rc::new(device);
    let limits = Limits::read(&device)?;
    log::info!(
        "capacity {} sectors, blocks of {} bytes, requests of up to {} sectors, features {:#x}",
        limits.capacity,
        limits.unit * SECTOR as u64,
        limits.max_sectors,
        limits.offered
    );
    report.check("bus.messages", bus_messages(&device)).await;
    report.check("bus.pipeline", pipeline(&device)).await;
    report.check("info", info(&device)).await;
    report.check("config", config(&device, &limits)).await;
    report.check("id", id(&device)).await;
    report.check("read", data::read(&device, &limits)).await;
    report
        .check("out-of-range", data::out_of_range(&device, &limits))
        .await;
    if limits.offered & blk::RO != 0 {
        report.check("read-only", data::read_only(&device, &limits)).await;
    } else {
        report.check("write", data::write(&device, &limits)).await;
        report
            .check("concurrent", data::concurrent(&device, &limits))
            .await;
        report.check("flush", data::flush(&device)).await;
        report
            .check("reinitialise", data::reinitialise(&device, &limits))
            .await;
        report
            .check("write-zeroes", requests::write_zeroes(&device, &limits))
            .await;
        report.check("discard", requests::discard(&device, &limits)).await;
        report
            .check("reset-in-flight", data::reset_in_flight(&device, &limits, false))
            .await;
        report
            .check(
                "queue-reset-in-flight",
                data::reset_in_flight(&device, &limits, true),
            )
            .await;
        report.check("pool", data::pool(&device, &limits)).await;
    }
    report.check("queue-reset", requests::queue_reset(&device)).await;
    report.check("unsupported", requests::unsupported(&device)).await;

    let device = Rc::into_inner(device).ok_or("the device is still in use")?;
    let left = frontend.disconnect(device).await;
    if !report.add("disconnect", left) {
        return Ok(());
    }
    report.check("reconnect", reconnect(frontend)).await;
    report
        .check("shut-down-without-reset", without_reset(frontend))
        .await;
    Ok(())
}

async fn bus_messages(device: &Device) -> Outcome {
    for data in [0, 0xdead_beef, u32::MAX] {
        let answer = device.ping(data)?;
        ensure!(answer == data, "PING {data:#x} was answered with {answer:#x}");
    }
    let bitmap = device.devices(0)?;
    ensure!(bitmap == 1, "GET_DEVICES: {bitmap:#x}");
    let bitmap = device.devices(8)?;
    ensure!(bitmap == 0, "GET_DEVICES from 8 on: {bitmap:#x}");
    Ok(())
}

/// Eight requests at once are answered in order, many times around the ring.
async fn pipeline(device: &Device) -> Outcome {
    use devices::msg::wire::{self, bus_id, kind};
    use zerocopy::IntoBytes;
    let connection = device.connection();
    for round in 0..8_u32 {
        let mut expected = Vec::new();
        for number in 0..8 {
            let ping = wire::Ping {
                data: (round << 8 | number).into(),
            };
            expected.push((connection.send(kind::BUS, bus_id::PING, ping.as_bytes())?, ping));
        }
        for (header, ping) in expected {
            let answer = connection.response(header)?;
            ensure!(
                answer == ping.as_bytes(),
                "PING {ping:?} was answered with {answer:02x?}"
            );
        }
    }
    Ok(())
}

async fn info(device: &Device) -> Outcome {
    let info = device.info()?;
    ensure!(info.device_type.get() == 2, "not a block device: {info:?}");
    ensure!(
        info.max_queues.get() >= 1 && info.config_size.get() >= 60,
        "{info:?}"
    );
    let offered = device.features()?;
    let needed = features::VERSION_1
        | features::ACCESS_PLATFORM
        | features::INDIRECT_DESC
        | features::EVENT_IDX
        | features::RING_RESET
        | blk::FLUSH
        | blk::BLK_SIZE
        | blk::SEG_MAX;
    ensure!(
        offered & needed == needed,
        "features {offered:#x} lack {:#x}",
        needed & !offered
    );
    Ok(())
}

async fn config(device: &Device, limits: &Limits) -> Outcome {
    ensure!(limits.capacity > 0, "the capacity is 0");
    let size = device.info()?.config_size.get();
    let (generation, all) = device.config(0, size)?;
    ensure!(
        all.len() == size as usize,
        "GET_CONFIG of {size} bytes gives {}",
        all.len()
    );
    let (again, part) = device.config(20, 4)?;
    ensure!(
        generation == again && part == all[20..24],
        "GET_CONFIG of a part differs from the whole"
    );
    let (_, beyond) = device.config(size, 1)?;
    ensure!(beyond.is_empty(), "GET_CONFIG beyond the end gives bytes");
    let taken = device.set_config(generation, 0, &[0; 8])?;
    ensure!(!taken, "the capacity can be written");
    Ok(())
}

async fn id(device: &Rc<Device>) -> Outcome {
    let mut disk = Disk::new(device, false)?;
    let id = disk.id()?;
    let text: String = id
        .iter()
        .take_while(|byte| **byte != 0)
        .map(|byte| *byte as char)
        .collect();
    ensure!(id.is_ascii() && !text.is_empty(), "the id is {id:02x?}");
    log::info!("id \"{text}\"");
    data::no_grant_in_use()
}

/// Connects and leaves a few times.
async fn reconnect(frontend: &Frontend) -> Outcome {
    for round in 0..5 {
        let device = Rc::new(
            frontend
                .connect()
                .await
                .map_err(|error| format!("round {round}: {error}"))?,
        );
        let mut disk = Disk::new(&device, false)?;
        disk.good(Request::read(0, 4096, 0)).await?;
        drop(disk);
        let device = Rc::into_inner(device).ok_or("the device is still in use")?;
        frontend
            .disconnect(device)
            .await
            .map_err(|error| format!("round {round}: {error}"))?;
    }
    Ok(())
}

/// Leaves as a guest that shuts down does, with a queue running and a request in flight.
async fn without_reset(frontend: &Frontend) -> Outcome {
    let device = Rc::new(frontend.connect().await?);
    let mut queue = RawQueue::new(&device, 8, 0)?;
    queue.expect_service().await?;
    queue.header(kind::IN, 0);
    queue.chain(
        0,
        &[
            queue.header_part(),
            queue.writable(place::DATA, 4096),
            queue.status_part(),
        ],
    );
    queue.offer(0);
    queue.kick();
    let pages = queue.abandon();
    let device = Rc::into_inner(device).ok_or("the device is still in use")?;
    frontend.close(device.into_connection()).await?;
    pages.released()
}
