//! Messages that ask for what cannot be: features, configuration, queues and pools.

use alloc::format;
use alloc::vec;

use devices::msg::wire::id;
use kernel::event::EventChannel;
use kernel::grant::{Access, Granted};
use zerocopy::IntoBytes;

use super::ungranted;
use crate::device::{Areas, Device, features, status, xen};
use crate::ensure;
use crate::hal::address;
use crate::raw::{areas, granted, negotiate};
use crate::report::Outcome;

/// The scenarios of this group.
pub const NAMES: &[&str] = &[
    "features",
    "config-ranges",
    "status-bits",
    "queue-sizes",
    "queue-addresses",
    "queue-events",
    "pool-pages",
];

/// Runs a scenario on a fresh device.
pub fn run(device: &Device, name: &str) -> Outcome {
    match name {
        "features" => feature_bits(device),
        "config-ranges" => config_ranges(device),
        "status-bits" => status_bits(device),
        "queue-sizes" => queue_sizes(device),
        "queue-addresses" => queue_addresses(device),
        "queue-events" => queue_events(device),
        "pool-pages" => pool_pages(device),
        _ => Err("not a scenario".into()),
    }
}

/// Feature sets that no device can work with do not get FEATURES_OK.
fn feature_bits(device: &Device) -> Outcome {
    const START: u32 = status::ACKNOWLEDGE | status::DRIVER;
    let needed = features::VERSION_1 | features::ACCESS_PLATFORM;
    for accepted in [
        0,
        features::VERSION_1,
        features::ACCESS_PLATFORM,
        needed | 1 << 63,
        u64::MAX,
    ] {
        device.set_status(0)?;
        device.set_status(START)?;
        device.accept_features(accepted)?;
        let seen = device.set_status(START | status::FEATURES_OK)?;
        ensure!(
            seen == START,
            "with features {accepted:#x} the status is {seen:#x}"
        );
    }
    // One beyond those that there are.
    device.set_status(0)?;
    device.set_status(START)?;
    device.accept_features(needed)?;
    let beyond = [5_u32, 1, 1].map(u32::to_le_bytes);
    device
        .connection()
        .exchange(0, id::SET_DRIVER_FEATURES, beyond.as_bytes())?;
    let seen = device.set_status(START | status::FEATURES_OK)?;
    ensure!(seen == START, "with feature 160 the status is {seen:#x}");
    negotiate(device, 0)?;
    // Too late: what was agreed on stays.
    device.accept_features(0)?;
    let seen = device.status()?;
    ensure!(seen & status::FEATURES_OK != 0, "the status is {seen:#x}");
    Ok(())
}

fn config_ranges(device: &Device) -> Outcome {
    for (offset, length) in [
        (0, 109),
        (0, u32::MAX),
        (u32::MAX, 1),
        (u32::MAX, u32::MAX),
        (59, 2),
        (1 << 31, 4),
    ] {
        let (_, bytes) = device.config(offset, length)?;
        ensure!(
            bytes.is_empty(),
            "{length} bytes at {offset} give {}",
            bytes.len()
        );
    }
    let (generation, _) = device.config(0, 0)?;
    negotiate(device, 0)?;
    for (offset, len) in [(0, 8), (32, 1), (u32::MAX, 4), (60, 1), (0, 100)] {
        let taken = device.set_config(generation, offset, &vec![0xff; len])?;
        ensure!(!taken, "{len} bytes at {offset} could be written");
    }
    Ok(())
}

fn status_bits(device: &Device) -> Outcome {
    for wanted in [
        u32::MAX,
        status::DRIVER_OK,
        status::NEEDS_RESET,
        128,
        1 << 31,
        status::FEATURES_OK,
    ] {
        let seen = device.set_status(wanted)?;
        ensure!(
            seen & (status::NEEDS_RESET | status::DRIVER_OK | status::FEATURES_OK) == 0,
            "writing status {wanted:#x} gives {seen:#x}"
        );
        let seen = device.set_status(0)?;
        ensure!(seen == 0, "after a reset the status is {seen:#x}");
    }
    Ok(())
}

/// A queue that is asked for with these numbers must not come to be.
fn expect_no_queue(device: &Device, index: u32, size: u32, areas: Areas) -> Outcome {
    let seen = device.set_queue(index, size, areas)?;
    ensure!(
        seen == 0,
        "queue {index} of size {size} with {areas:x?} has size {seen}"
    );
    Ok(())
}

fn queue_sizes(device: &Device) -> Outcome {
    let rings = granted(device, 3)?;
    let good = areas(&rings);
    // Not before the features are agreed on, and not without an event channel.
    expect_no_queue(device, 0, 8, good)?;
    negotiate(device, 0)?;
    expect_no_queue(device, 0, 8, good)?;
    let channel = event_channel(device)?;
    let status = device.set_queue_event(0, channel.port())?;
    ensure!(status == xen::DONE, "XEN_SET_VQUEUE_EVENT: status {status}");
    for size in [0, 3, 7, 512, 1000, 1 << 16, 1 << 31, u32::MAX] {
        expect_no_queue(device, 0, size, good)?;
    }
    for index in [1, 2, 0x1_0000, u32::MAX] {
        if device.queue(index)?.max_size.get() == 0 {
            expect_no_queue(device, index, 8, good)?;
        }
    }
    // None of that has used up the event channel.
    let size = device.set_queue(0, 8, good)?;
    ensure!(size == 8, "a good queue has size {size} after bad ones");
    device.set_queue(0, 16, good)?;
    let size = device.queue(0)?.size.get();
    ensure!(size == 8, "a queue that is in use changed its size to {size}");
    device.set_status(0)?;
    ended(rings)
}

fn queue_addresses(device: &Device) -> Outcome {
    let read_only = Granted::zeroed(device.connection().peer(), 1, Access::ReadOnly)
        .map_err(|error| format!("{error}"))?;
    // References are taken from the lowest on: nothing is granted behind the last of these.
    let rings = granted(device, 3)?;
    let good = areas(&rings);
    let channel = event_channel(device)?;
    negotiate(device, 0)?;
    let bad = [
        0,
        0x1000,
        ungranted(),
        good.device | 1 << 44,
        good.device & !(1 << 63),
        good.device | 1,
        u64::MAX,
    ];
    for address in bad {
        for areas in [
            Areas {
                descriptors: address,
                ..good
            },
            Areas {
                driver: address,
                ..good
            },
            Areas {
                device: address,
                ..good
            },
        ] {
            let status = device.set_queue_event(0, channel.port())?;
            ensure!(
                status == xen::DONE || status == xen::CANNOT_BIND,
                "XEN_SET_VQUEUE_EVENT: status {status}"
            );
            expect_no_queue(device, 0, 8, areas)?;
        }
    }
    let unwritable = Areas {
        device: address(&read_only, 0),
        ..good
    };
    expect_no_queue(device, 0, 8, unwritable)?;
    // A table of 256 descriptors from the middle of the last page on.
    let beyond = Areas {
        descriptors: good.device | 0x800,
        ..good
    };
    expect_no_queue(device, 0, 256, beyond)?;
    device.set_status(0)?;
    ended(rings)?;
    ended(read_only)
}

fn queue_events(device: &Device) -> Outcome {
    let rings = granted(device, 3)?;
    negotiate(device, 0)?;
    let channel = event_channel(device)?;
    let expect = |index: u32, port: u32, expected: u32| -> Outcome {
        let status = device.set_queue_event(index, port)?;
        ensure!(
            status == expected,
            "queue {index}, port {port}: status {status}, expected {expected}"
        );
        Ok(())
    };
    expect(999, channel.port(), xen::NO_SUCH_QUEUE)?;
    expect(u32::MAX, channel.port(), xen::NO_SUCH_QUEUE)?;
    for port in [0, 9999, u32::MAX] {
        expect(0, port, xen::CANNOT_BIND)?;
    }
    // Again and again: the earlier port is given up.
    for _ in 0..50 {
        let other = event_channel(device)?;
        expect(0, other.port(), xen::DONE)?;
    }
    device.start_queue(0, 8, areas(&rings))?;
    expect(0, channel.port(), xen::QUEUE_IN_USE)?;
    device.set_status(0)?;
    ended(rings)
}

fn pool_pages(device: &Device) -> Outcome {
    let max = device.max_pool_pages();
    let pages = granted(device, 2)?;
    let first = address(&pages, 0);
    let expect = |address: u64, pages: u32, allowed: &[u32]| -> Outcome {
        let status = device.set_pool(address, pages)?;
        ensure!(
            allowed.contains(&status),
            "a pool of {pages} pages at {address:#x}: status {status}"
        );
        Ok(())
    };
    for pages in [max + 1, u32::MAX, 1 << 31] {
        expect(first, pages, &[xen::REFUSED])?;
    }
    if max >= 2 {
        let either = [xen::REFUSED, xen::CANNOT_MAP];
        for bad in [0, 0x1000, first | 1, first | 1 << 44, !0xfff] {
            expect(bad, 2, &either)?;
        }
        expect(ungranted(), 2, &[xen::CANNOT_MAP])?;
        expect(first, 2, &[xen::DONE])?;
        expect(first, 2, &[xen::REFUSED])?;
        expect(0, 0, &[xen::DONE])?;
        expect(first, 1, &[xen::DONE])?;
        negotiate(device, 0)?;
        let rings = granted(device, 3)?;
        device.start_queue(0, 8, areas(&rings))?;
        expect(0, 0, &[xen::REFUSED])?;
        device.set_status(0)?;
        expect(0, 0, &[xen::DONE])?;
        ended(rings)?;
    }
    expect(0, 0, &[xen::DONE])?;
    ended(pages)
}

fn event_channel(device: &Device) -> Outcome<EventChannel> {
    EventChannel::alloc_unbound(device.connection().peer()).map_err(|error| format!("event channel: {error}"))
}

/// Fails if the back end still uses pages.
fn ended(pages: Granted) -> Outcome {
    pages
        .end()
        .map(drop)
        .map_err(|_| "the back end still uses pages that it should not".into())
}
