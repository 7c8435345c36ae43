//! Bad rings, descriptors and grants.

use alloc::format;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::time::Duration;

use kernel::grant::{Access, Granted};
use kernel::time;
use protocols::grant_address::GrantAddress;

use super::ungranted;
use crate::device::{Device, features, status};
use crate::ensure;
use crate::hal::address;
use crate::raw::{DESCRIPTOR_SIZE, Descriptor, HEADER_SIZE, RawQueue, ended, flag, granted, kind, place};
use crate::report::Outcome;

/// The scenarios of this group.
pub const NAMES: &[&str] = &[
    "avail-jump",
    "avail-back",
    "avail-far",
    "head-out-of-range",
    "next-out-of-range",
    "loop",
    "long-loop",
    "order",
    "no-status",
    "empty",
    "short-header",
    "huge-read",
    "huge-write",
    "huge-total",
    "reference-wrap",
    "indirect-not-negotiated",
    "indirect-nested",
    "indirect-loop",
    "indirect-next-out-of-range",
    "indirect-and-next",
    "indirect-empty",
    "indirect-odd-size",
    "indirect-huge",
    "indirect-too-long",
    "indirect-ungranted",
    "indirect-no-grant",
    "data-ungranted",
    "data-ungranted-write",
    "data-no-grant",
    "data-high-bits",
    "data-granted-to-another",
    "data-read-only",
    "data-half-granted",
    "header-ungranted",
    "status-ungranted",
    "status-read-only",
    "same-head-twice",
    "revoked",
    "kick-flood",
    "reset-storm",
];

/// What the back end is to do.
enum Reaction {
    /// The queue stops: DEVICE_NEEDS_RESET and EVENT_CONFIG.
    NeedsReset,
    /// The request fails with this status, and the queue goes on.
    Status(u8),
}

const SIZE: u16 = 16;
const PAGE: u32 = 4096;

/// Runs a scenario on a fresh device.
pub async fn run(device: &Rc<Device>, name: &str) -> Outcome {
    match name {
        "same-head-twice" => return same_head_twice(device).await,
        "revoked" => return revoked(device).await,
        "kick-flood" => return kick_flood(device).await,
        "reset-storm" => return reset_storm(device).await,
        _ => {}
    }
    let extra = if name == "indirect-not-negotiated" {
        0
    } else {
        features::INDIRECT_DESC
    };
    let mut queue = RawQueue::new(device, SIZE, extra)?;
    queue.expect_service().await?;
    // What some scenarios grant has to last until they are over.
    let page = Granted::zeroed(device.connection().peer(), 1, Access::ReadOnly)
        .map_err(|error| format!("{error}"))?;
    queue.header(kind::IN, 0);
    let reaction = arrange(name, &mut queue, address(&page, 0)).ok_or("not a scenario")?;
    queue.kick();
    match reaction {
        Reaction::NeedsReset => queue.expect_needs_reset().await?,
        Reaction::Status(expected) => {
            queue.used().await?;
            let seen = queue.data().read_u8(place::STATUS);
            ensure!(seen == expected, "status {seen}, expected {expected}");
            let status = device.status()?;
            ensure!(status & status::NEEDS_RESET == 0, "the device needs a reset");
            queue.expect_service().await?;
        }
    }
    queue.finish()?;
    page.end()
        .map(drop)
        .map_err(|_| "a page is still in use after the reset".into())
}

/// A descriptor that names its address itself.
fn part(address: u64, len: u32, flags: u16) -> Descriptor {
    Descriptor {
        address,
        len,
        flags,
        next: 0,
    }
}

/// A descriptor of an indirect table with these descriptors as they are.
fn table(queue: &RawQueue, descriptors: &[Descriptor]) -> Descriptor {
    for (index, descriptor) in descriptors.iter().enumerate() {
        descriptor.store(queue.data(), place::TABLE + index * DESCRIPTOR_SIZE);
    }
    let len = (descriptors.len() * DESCRIPTOR_SIZE) as u32;
    Descriptor {
        flags: flag::INDIRECT,
        ..queue.readable(place::TABLE, len)
    }
}

/// A descriptor with another behind it.
fn next(descriptor: Descriptor, next: u16) -> Descriptor {
    Descriptor {
        flags: descriptor.flags | flag::NEXT,
        next,
        ..descriptor
    }
}

/// Writes what is bad into the ring, and says what is to come of it. `read_only` is the address of a page
/// that the back end may only read.
fn arrange(name: &str, queue: &mut RawQueue, read_only: u64) -> Option<Reaction> {
    let header = queue.header_part();
    match name {
        "avail-jump" => queue.show(queue.available().wrapping_add(SIZE + 1)),
        "avail-back" => queue.show(queue.available().wrapping_sub(1)),
        "avail-far" => queue.show(queue.available().wrapping_add(0x8000)),
        "head-out-of-range" => queue.offer(SIZE),
        "next-out-of-range" => {
            queue.describe(0, next(header, 999));
            queue.offer(0);
        }
        "loop" => {
            queue.describe(0, next(header, 0));
            queue.offer(0);
        }
        "long-loop" => {
            (0..SIZE).for_each(|index| queue.describe(index, next(header, (index + 1) % SIZE)));
            queue.offer(SIZE - 1);
        }
        _ => {
            let (parts, reaction) = chain(name, queue, read_only)?;
            queue.chain(0, &parts);
            queue.offer(0);
            return Some(reaction);
        }
    }
    Some(Reaction::NeedsReset)
}

/// The parts of a bad chain, and what is to come of it.
fn chain(name: &str, queue: &RawQueue, read_only: u64) -> Option<(Vec<Descriptor>, Reaction)> {
    let (header, status) = (queue.header_part(), queue.status_part());
    let data = queue.writable(place::DATA, PAGE);
    let failing = |data: Descriptor| ([header, data, status].to_vec(), Reaction::Status(ended::IO_ERROR));
    let breaking = |parts: &[Descriptor]| (parts.to_vec(), Reaction::NeedsReset);
    let write = flag::WRITE;
    let last_reference = GrantAddress {
        reference: u32::MAX,
        offset: 0,
    };
    Some(match name {
        "order" => breaking(&[data, header, status]),
        "no-status" => breaking(&[header]),
        "empty" => breaking(&[part(header.address, 0, 0)]),
        "short-header" => (
            [part(header.address, HEADER_SIZE / 2, 0), status].to_vec(),
            Reaction::Status(ended::IO_ERROR),
        ),
        "huge-read" => failing(part(data.address, 0xffff_f000, write)),
        "huge-write" => {
            queue.header(kind::OUT, 0);
            failing(part(data.address, 0x7fff_f000, 0))
        }
        "huge-total" => breaking(&[
            header,
            part(data.address, u32::MAX, write),
            part(data.address, u32::MAX, write),
            status,
        ]),
        "reference-wrap" => failing(part(last_reference.encode(), 2 * PAGE, write)),
        "indirect-not-negotiated" => breaking(&[table(queue, &[next(header, 1), next(data, 2), status])]),
        "indirect-nested" => breaking(&[table(queue, &[next(header, 1), table(queue, &[status])])]),
        "indirect-loop" => breaking(&[table(queue, &[next(header, 1), next(header, 0)])]),
        "indirect-next-out-of-range" => breaking(&[table(queue, &[next(header, 3), status])]),
        "indirect-and-next" => breaking(&[table(queue, &[next(header, 1), data]), status]),
        "indirect-empty" => breaking(&[part(queue.address(place::TABLE), 0, flag::INDIRECT)]),
        "indirect-odd-size" => breaking(&[part(queue.address(place::TABLE), 24, flag::INDIRECT)]),
        "indirect-huge" => breaking(&[part(queue.address(place::TABLE), 0xffff_fff0, flag::INDIRECT)]),
        "indirect-too-long" => breaking(&[part(queue.address(place::TABLE), 257 * 16, flag::INDIRECT)]),
        "indirect-ungranted" => breaking(&[part(ungranted(), 48, flag::INDIRECT)]),
        "indirect-no-grant" => breaking(&[part(0x1000, 48, flag::INDIRECT)]),
        "data-ungranted" => failing(part(ungranted(), PAGE, write)),
        "data-ungranted-write" => {
            queue.header(kind::OUT, 0);
            failing(part(ungranted(), PAGE, 0))
        }
        "data-no-grant" => failing(part(0x1000, PAGE, write)),
        "data-high-bits" => failing(part(data.address | 1 << 44, PAGE, write)),
        // The toolstack's own grants are to other domains: reference 1 is xenstore's page.
        "data-granted-to-another" => failing(part(1 << 63 | 1 << 12, PAGE, write)),
        "data-read-only" => failing(part(read_only, PAGE, write)),
        // The last page of data is granted writable, what follows it is not.
        "data-half-granted" => failing(part(queue.address(place::LAST_PAGE), 4 * PAGE, write)),
        "header-ungranted" => breaking(&[part(ungranted(), HEADER_SIZE, 0), data, status]),
        "status-ungranted" => breaking(&[header, data, part(ungranted(), 1, write)]),
        "status-read-only" => breaking(&[header, data, part(read_only, 1, write)]),
        _ => return None,
    })
}

/// Two buffers that share all their descriptors: odd, but each can be done.
async fn same_head_twice(device: &Rc<Device>) -> Outcome {
    let mut queue = RawQueue::new(device, SIZE, 0)?;
    queue.header(kind::IN, 0);
    queue.chain(
        0,
        &[
            queue.header_part(),
            queue.writable(place::DATA, PAGE),
            queue.status_part(),
        ],
    );
    queue.offer(0);
    queue.offer(0);
    queue.kick();
    for _ in 0..2 {
        let used = queue.used().await?;
        ensure!(used.id == 0, "buffer {} was used", used.id);
    }
    queue.expect_service().await?;
    queue.finish()
}

/// Takes data grants away while requests are under way: each request succeeds or fails, and the queue goes
/// on.
async fn revoked(device: &Rc<Device>) -> Outcome {
    const REQUESTS: u16 = SIZE / 4;
    const PAGES: usize = 16;
    for round in 0..8 {
        let mut queue = RawQueue::new(device, SIZE, 0)?;
        let mut data = Vec::new();
        for number in 0..REQUESTS {
            let at = usize::from(number) * 32;
            let pages = granted(device, PAGES)?;
            let (kind, flags) = if (number + round) % 2 == 0 {
                (kind::IN, flag::WRITE)
            } else {
                (kind::OUT, 0)
            };
            let memory = queue.data();
            memory.write_u32(at, kind);
            memory.write_u64(at + 8, u64::from(number) * 128);
            memory.write_u8(at + 16, ended::NOT_YET);
            queue.chain(
                number * 4,
                &[
                    queue.readable(at, HEADER_SIZE),
                    part(address(&pages, 0), PAGES as u32 * PAGE, flags),
                    queue.writable(at + 16, 1),
                ],
            );
            queue.offer(number * 4);
            data.push(pages);
        }
        queue.kick();
        // Later rounds let the back end get further before the grants go.
        time::sleep(Duration::from_micros(u64::from(round) * 300)).await;
        drop(data);
        for _ in 0..REQUESTS {
            let used = queue.used().await?;
            let status = queue.data().read_u8(used.id as usize / 4 * 32 + 16);
            ensure!(
                status == ended::OK || status == ended::IO_ERROR,
                "round {round}: status {status} in a request whose grants were taken away"
            );
        }
        queue.expect_service().await?;
        queue.finish()?;
    }
    Ok(())
}

/// Notifies without reason, much faster than anybody works.
async fn kick_flood(device: &Rc<Device>) -> Outcome {
    let mut queue = RawQueue::new(device, SIZE, 0)?;
    for _ in 0..20_000 {
        queue.kick();
        device.connection().notify();
    }
    queue.expect_service().await?;
    queue.finish()
}

/// Sets the device up and resets it, many times in a row, with a request under way each time.
async fn reset_storm(device: &Rc<Device>) -> Outcome {
    for _ in 0..50 {
        let mut queue = RawQueue::new(device, SIZE, 0)?;
        queue.header(kind::IN, 0);
        queue.chain(
            0,
            &[
                queue.header_part(),
                queue.writable(place::DATA, PAGE),
                queue.status_part(),
            ],
        );
        queue.offer(0);
        queue.kick();
        queue.finish()?;
    }
    Ok(())
}
