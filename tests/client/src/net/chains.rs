//! Bad rings and chains of the queues that packets go through.

use alloc::format;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::time::Duration;

use devices::net::features as net;
use kernel::grant::{Access, Granted};
use kernel::time;

use super::packet::Place;
use super::raw::{HEADER, OFFLOADS, RawNic, SIZE, SLOTS};
use crate::device::Device;
use crate::ensure;
use crate::hal::address;
use crate::hostile::ungranted;
use crate::raw::{Descriptor, RawQueue, flag, granted, place};
use crate::report::Outcome;

/// The scenarios of this group.
pub const NAMES: &[&str] = &[
    "transmit-byte-by-byte",
    "transmit-zero-length",
    "transmit-writable",
    "transmit-order",
    "transmit-huge-total",
    "transmit-ungranted",
    "transmit-half-granted",
    "transmit-revoked",
    "transmit-avail-jump",
    "transmit-head-out-of-range",
    "transmit-loop",
    "receive-one-byte",
    "receive-zero-length",
    "receive-less-than-a-frame",
    "receive-header-only",
    "receive-mergeable-13-bytes",
    "receive-readable",
    "receive-order",
    "receive-ungranted",
    "receive-read-only",
    "receive-avail-jump",
    "receive-head-out-of-range",
    "receive-loop",
    "kick-flood",
    "reset-storm",
];

const PAGE: u32 = 4096;

/// Runs a scenario on a fresh device.
pub async fn run(device: &Rc<Device>, place: &Place, name: &str) -> Outcome {
    if name == "reset-storm" {
        return reset_storm(device, place).await;
    }
    let extra = if name == "receive-mergeable-13-bytes" {
        net::MRG_RXBUF
    } else {
        0
    };
    let mut nic = RawNic::new(device, OFFLOADS | extra)?;
    // What some scenarios grant has to last until they are over.
    let page = Granted::zeroed(device.connection().peer(), 1, Access::ReadOnly)
        .map_err(|error| format!("{error}"))?;
    let (direction, what) = name.split_once('-').unwrap_or_default();
    let broken = match direction {
        "transmit" => transmit(&mut nic, place, what).await?,
        "receive" => receive(&mut nic, place, what, address(&page, 0)).await?,
        _ => {
            for _ in 0..20_000 {
                nic.transmit.kick();
                nic.receive.kick();
                device.connection().notify();
            }
            false
        }
    };
    if broken {
        nic.transmit.expect_needs_reset().await?;
    } else {
        nic.expect_service(place).await?;
    }
    nic.finish()?;
    page.end()
        .map(drop)
        .map_err(|_| "a page is still in use after the reset".into())
}

/// Does to a ring what breaks every ring, if the name says so.
fn break_ring(queue: &mut RawQueue, part: Descriptor, what: &str) -> bool {
    match what {
        "avail-jump" => queue.show(queue.available().wrapping_add(SIZE + 1)),
        "head-out-of-range" => queue.offer(SIZE),
        "loop" => {
            let link = |next| Descriptor {
                flags: part.flags | flag::NEXT,
                next,
                ..part
            };
            (0..SIZE).for_each(|index| queue.describe(index, link((index + 1) % SIZE)));
            queue.offer(SIZE - 1);
        }
        _ => return false,
    }
    queue.kick();
    true
}

/// Transmits badly; whether the device must need a reset after it.
async fn transmit(nic: &mut RawNic, place: &Place, what: &str) -> Outcome<bool> {
    let frame = place.arp_request();
    let good = nic.store(0, &[], &frame);
    let at = |offset: usize, len: usize| nic.transmit.readable(place::DATA + offset, len as u32);
    let writable = |part: Descriptor| Descriptor {
        flags: flag::WRITE,
        ..part
    };
    let nowhere = Descriptor {
        address: ungranted(),
        ..good
    };
    let (header, payload) = (at(0, HEADER), at(HEADER, frame.len()));
    match what {
        "byte-by-byte" => {
            let parts: Vec<Descriptor> = (0..HEADER + frame.len()).map(|offset| at(offset, 1)).collect();
            nic.supply(2048);
            nic.offer(0, &parts);
            nic.sent().await?;
            nic.expect_arp(place).await?;
        }
        "zero-length" => {
            let empty = at(0, 0);
            nic.offer(0, &[empty]);
            nic.sent().await?;
            // One without bytes among others says nothing.
            nic.supply(2048);
            nic.offer(0, &[empty, header, empty, payload, empty]);
            nic.sent().await?;
            nic.expect_arp(place).await?;
        }
        "writable" => {
            nic.offer(0, &[writable(good)]);
            nic.offer(1, &[header, writable(payload)]);
            nic.sent().await?;
        }
        "order" => {
            nic.offer(0, &[writable(header), payload]);
            nic.transmit.kick();
            return Ok(true);
        }
        "huge-total" => {
            let huge = Descriptor {
                len: u32::MAX,
                ..good
            };
            nic.offer(0, &[huge, huge]);
            nic.transmit.kick();
            return Ok(true);
        }
        "ungranted" => {
            let no_grant = Descriptor {
                address: 0x1000,
                ..good
            };
            let high_bits = Descriptor {
                address: good.address | 1 << 44,
                ..good
            };
            for (index, part) in [nowhere, no_grant, high_bits].into_iter().enumerate() {
                nic.offer(index as u16, &[part]);
            }
            nic.sent().await?;
        }
        "half-granted" => {
            nic.offer(0, &[header, nowhere]);
            nic.offer(2, &[nowhere, payload]);
            // The last page of data is granted, what follows it is not.
            nic.offer(4, &[nic.transmit.readable(place::LAST_PAGE, 4 * PAGE)]);
            nic.sent().await?;
        }
        "revoked" => {
            for round in 0..16 {
                let pages = granted(&nic.device, 1)?;
                pages.memory().copy_in(HEADER, &frame);
                let part = Descriptor {
                    address: address(&pages, 0),
                    ..good
                };
                (0..SIZE / 2).for_each(|index| nic.offer(index, &[part]));
                nic.transmit.kick();
                time::sleep(Duration::from_micros(round * 100)).await;
                drop(pages);
                nic.sent().await?;
            }
        }
        _ => {
            ensure!(break_ring(&mut nic.transmit, good, what), "not a scenario");
            return Ok(true);
        }
    }
    Ok(false)
}

/// Receives badly; whether the device must need a reset after it. A ring is looked at when there is something
/// to receive.
async fn receive(nic: &mut RawNic, place: &Place, what: &str, read_only: u64) -> Outcome<bool> {
    let good = nic.receive.writable(place::DATA, 2048);
    let sized = |len| Descriptor { len, ..good };
    let readable = Descriptor { flags: 0, ..good };
    let elsewhere = |address| Descriptor { address, ..good };
    // Buffers that are given back, in which nothing is said to be.
    let (parts, count): (&[Descriptor], u16) = match what {
        "one-byte" => (&[sized(1)], SIZE),
        "zero-length" => (&[sized(0)], SIZE),
        "readable" => (&[readable], SIZE),
        "ungranted" => (&[elsewhere(ungranted())], 4),
        "read-only" => (&[elsewhere(read_only)], 4),
        // Frames for these are lost, or the buffers wait for smaller ones.
        "less-than-a-frame" => (&[sized(20)], 1),
        "header-only" => (&[sized(HEADER as u32)], 1),
        "mergeable-13-bytes" => {
            nic.supply(13);
            nic.expect_answer(place).await?;
            return Ok(false);
        }
        "order" => {
            nic.receive.chain(0, &[good, readable]);
            nic.receive.offer(0);
            nic.receive.kick();
            provoke(nic, place).await?;
            return Ok(true);
        }
        _ => {
            ensure!(break_ring(&mut nic.receive, good, what), "not a scenario");
            provoke(nic, place).await?;
            return Ok(true);
        }
    };
    for index in 0..count {
        nic.receive.chain(index, parts);
        nic.receive.offer(index);
    }
    nic.receive.kick();
    for _ in 0..8 {
        provoke(nic, place).await?;
    }
    time::sleep(Duration::from_millis(200)).await;
    while let Some(used) = nic.receive.poll_used() {
        ensure!(
            used.len == 0,
            "{} bytes are said to be in a buffer that takes none",
            used.len
        );
    }
    if count == 1 {
        // What is still in the ring is too small for anything, and frames that would need it are in the way
        // of others.
        return restart(nic);
    }
    Ok(false)
}

/// Sets the device up again, on the same pages.
fn restart(nic: &mut RawNic) -> Outcome<bool> {
    let fresh = RawNic::new(&nic.device.clone(), OFFLOADS)?;
    let old = core::mem::replace(nic, fresh);
    for pages in old.abandon() {
        pages.released()?;
    }
    Ok(false)
}

/// Has the gateway send something.
async fn provoke(nic: &mut RawNic, place: &Place) -> Outcome {
    nic.send(&[], &place.arp_request());
    nic.sent().await
}

/// Sets the device up and resets it, many times in a row, with traffic under way each time.
async fn reset_storm(device: &Rc<Device>, place: &Place) -> Outcome {
    let (request, ping) = (place.arp_request(), place.echo_request(1, &[0; 1400]));
    for round in 0..50 {
        let mut nic = RawNic::new(device, OFFLOADS)?;
        nic.supply(2048);
        for slot in 0..SLOTS {
            let part = nic.store(slot, &[], if slot == 0 { &request } else { &ping });
            nic.offer(slot, &[part]);
        }
        nic.transmit.kick();
        // Later rounds let the back end get further before the reset.
        if round % 2 == 1 {
            time::sleep(Duration::from_micros(round * 40)).await;
        }
        nic.finish()?;
    }
    let mut nic = RawNic::new(device, OFFLOADS)?;
    nic.expect_service(place).await?;
    nic.finish()
}
