//! How a device begins, changes and ends.

mod support;

use devices::blk::features as blk;
use devices::device::{Fault, SetQueueError};
use devices::features::{ACCESS_PLATFORM, EVENT_IDX, INDIRECT_DESC, RING_RESET, VERSION_1};
use devices::msg::wire::{self, id};
use support::disk::{GEOMETRY, RamDisk};
use support::driver::Layout;
use support::machine::{ARENA, Machine, OPTIONS};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};

const MINIMUM: u64 = VERSION_1 | ACCESS_PLATFORM;

fn machine() -> Machine {
    Machine::new(RamDisk::new(GEOMETRY), OPTIONS, 1)
}

#[test]
fn features_are_negotiated() {
    let mut machine = machine();
    let offered = machine.offered();
    let wanted = MINIMUM
        | INDIRECT_DESC
        | EVENT_IDX
        | RING_RESET
        | blk::SIZE_MAX
        | blk::SEG_MAX
        | blk::BLK_SIZE
        | blk::FLUSH
        | blk::TOPOLOGY
        | blk::CONFIG_WCE
        | blk::DISCARD
        | blk::WRITE_ZEROES;
    assert_eq!(offered, wanted);
    assert!(machine.negotiate(offered));
    assert!(machine.negotiate(MINIMUM));
    assert!(!machine.negotiate(VERSION_1), "ACCESS_PLATFORM is required");
    assert!(!machine.negotiate(ACCESS_PLATFORM), "VERSION_1 is required");
    assert!(!machine.negotiate(MINIMUM | blk::MQ), "MQ is not offered");
    assert!(!machine.negotiate(MINIMUM | 1 << 63));
    // A bit beyond those that exist.
    machine.set_status(0);
    machine.accept(MINIMUM);
    let mut request = wire::Features {
        first_block: 7.into(),
        blocks: 1.into(),
    }
    .as_bytes()
    .to_vec();
    request.extend(2u32.to_le_bytes());
    machine.request(0, id::SET_DRIVER_FEATURES, &request);
    assert_eq!(machine.set_status(11), 3);
    // A reset forgets it; and after FEATURES_OK nothing changes any more.
    assert!(machine.negotiate(MINIMUM));
    machine.accept(0);
    assert!(machine.set_queue(0, 8, MINIMUM).is_some());
}

#[test]
fn the_status_has_its_order() {
    let mut machine = machine();
    assert_eq!(machine.set_status(4), 0, "no DRIVER_OK without FEATURES_OK");
    assert!(
        machine.set_queue(0, 8, MINIMUM).is_none(),
        "no queue without FEATURES_OK"
    );
    assert_eq!(
        machine.faults.pop(),
        Some(Fault::Refused(0, SetQueueError::NoFeatures))
    );
    assert!(machine.negotiate(MINIMUM));
    assert_eq!(machine.set_status(1), 11, "bits are not cleared");
    assert_eq!(
        machine.set_status(11 | 64 | 1 << 20),
        11,
        "some bits are not the driver's"
    );
    assert_eq!(machine.set_status(15 | 128), 15 | 128);
    assert_eq!(machine.set_status(0), 0);
}

#[test]
fn queues_are_checked() {
    let mut machine = machine();
    assert!(machine.negotiate(MINIMUM));
    for size in [0, 3, 257, 512, 0x8000] {
        assert!(machine.set_queue(0, size, MINIMUM).is_none() || size == 0);
        assert_eq!(
            machine.faults.pop(),
            Some(Fault::Refused(0, SetQueueError::BadSize))
        );
        assert_eq!(machine.queue_size(0), 0);
    }
    let base = support::guest::BASE;
    let good = wire::SetQueue {
        size: 256.into(),
        descriptors: base.into(),
        driver: (base + 0x1000).into(),
        device: (base + 0x2000).into(),
        ..Default::default()
    };
    let bad = [
        wire::SetQueue {
            descriptors: (base + 8).into(),
            ..good
        },
        wire::SetQueue {
            driver: (base + 1).into(),
            ..good
        },
        wire::SetQueue {
            device: (base + 2).into(),
            ..good
        },
        wire::SetQueue {
            descriptors: 0.into(),
            ..good
        },
        wire::SetQueue {
            device: (u64::MAX - 0xff).into(),
            ..good
        },
        wire::SetQueue {
            size: (256 + (1 << 16)).into(),
            ..good
        },
        wire::SetQueue {
            index: 1.into(),
            ..good
        },
        wire::SetQueue {
            index: (1 << 16).into(),
            ..good
        },
        wire::SetQueue {
            index: u32::MAX.into(),
            ..good
        },
    ];
    for set in bad {
        machine.request(0, id::SET_VQUEUE, set.as_bytes());
        assert!(machine.faults.pop().is_some());
        assert_eq!(machine.queue_size(0), 0);
    }
    machine.bells[0].refuse.set(true);
    machine.request(0, id::SET_VQUEUE, good.as_bytes());
    assert_eq!(
        machine.faults.pop(),
        Some(Fault::Refused(0, SetQueueError::NoDoorbell))
    );
    assert_eq!(machine.guest.windows.get(), 0);
    machine.bells[0].refuse.set(false);
    machine.request(0, id::SET_VQUEUE, good.as_bytes());
    assert_eq!(machine.queue_size(0), 256);
    machine.request(0, id::SET_VQUEUE, good.as_bytes());
    assert_eq!(
        machine.faults.pop(),
        Some(Fault::Refused(0, SetQueueError::InUse))
    );
    assert_eq!((machine.guest.windows.get(), machine.uplink.channels()), (3, 1));
    machine.set_status(0);
    assert_eq!((machine.guest.windows.get(), machine.uplink.channels()), (0, 0));
    assert_eq!(machine.bells[0].open.get(), 0);
}

#[test]
fn a_doorbell_that_no_queue_took_ends_with_the_reset() {
    for whole in [true, false] {
        let mut machine = machine();
        let features = MINIMUM | RING_RESET;
        assert!(machine.negotiate(features));
        machine.bells[0].once.set(true);
        if whole {
            machine.set_status(0);
            assert!(machine.negotiate(features));
        } else {
            machine.reset_queue(0);
        }
        assert!(machine.set_queue(0, 8, features).is_none());
        assert_eq!(
            machine.faults.pop(),
            Some(Fault::Refused(0, SetQueueError::NoDoorbell))
        );
        assert_eq!(machine.bells[0].open.get(), 0);
    }
}

/// Puts a request to read 4 KiB in the ring.
fn read(machine: &mut Machine, driver: &mut support::driver::Driver) {
    machine.guest.write(ARENA, &[0; 16]);
    let pieces = [
        (ARENA, 16, false),
        (ARENA + 0x1000, 4096, true),
        (ARENA + 16, 1, true),
    ];
    driver.add(&pieces, Layout::Direct, &mut machine.random).unwrap();
    driver.publish();
}

#[test]
fn nothing_happens_before_driver_ok() {
    let mut machine = machine();
    assert!(machine.negotiate(MINIMUM));
    let mut driver = machine.set_queue(0, 8, MINIMUM).unwrap();
    read(&mut machine, &mut driver);
    machine.run();
    assert!(driver.take_used().is_empty() && machine.uplink.0.completed.get() == 0);
    machine.set_status(15);
    machine.run();
    assert_eq!(driver.take_used().len(), 1);
    // A queue that is set up later is served at once.
    machine.set_status(0);
    assert!(machine.negotiate(MINIMUM));
    assert_eq!(machine.set_status(15), 15);
    let mut driver = machine.set_queue(0, 8, MINIMUM).unwrap();
    read(&mut machine, &mut driver);
    machine.run();
    assert_eq!(driver.take_used().len(), 1);
}

#[test]
fn reset_waits_for_the_disk_and_leaves_the_driver_alone() {
    for whole in [true, false] {
        let mut machine = machine();
        let features = MINIMUM | RING_RESET;
        let mut driver = machine.start(features, 8).remove(0);
        machine.run();
        read(&mut machine, &mut driver);
        while machine.executor.step(&mut machine.random) {}
        assert_eq!(machine.uplink.under_way(), 1);
        machine.guest.write(ARENA + 0x1000, &[7; 4096]);
        if whole {
            machine.set_status(0);
        } else {
            machine.reset_queue(0);
        }
        assert_eq!((machine.uplink.under_way(), machine.uplink.channels()), (0, 0));
        assert_eq!((machine.guest.windows.get(), machine.bells[0].open.get()), (0, 0));
        assert_eq!(machine.bells[0].rings.get(), 0);
        assert_eq!(machine.guest.read(ARENA + 0x1000, 4096), [7; 4096]);
        assert!(driver.take_used().is_empty());
        assert_eq!(machine.queue_size(0), 0);
        machine.run();
        assert_eq!(machine.executor.tasks(), 0);
        // And it works again.
        let mut driver = if whole {
            machine.start(features, 16).remove(0)
        } else {
            machine.set_queue(0, 16, features).unwrap()
        };
        read(&mut machine, &mut driver);
        machine.run();
        assert_eq!(driver.take_used(), [(driver_head(&driver), 4097)]);
        assert_eq!(
            machine.guest.read(ARENA + 0x1000, 4096),
            machine.uplink.read(0, 4096)
        );
    }
}

/// The head that is in the first entry of the available ring.
fn driver_head(driver: &support::driver::Driver) -> u16 {
    driver.guest.read_u16(driver.areas[1] + 4)
}

#[test]
fn a_queue_is_not_reset_without_the_feature() {
    let mut machine = machine();
    machine.start(MINIMUM, 8);
    machine.reset_queue(0);
    assert_eq!(machine.queue_size(0), 8);
    machine.reset_queue(77);
}

#[test]
fn dropping_the_device_ends_everything_at_once() {
    let mut machine = machine();
    let mut driver = machine.start(MINIMUM, 8).remove(0);
    read(&mut machine, &mut driver);
    while machine.executor.step(&mut machine.random) {}
    assert_eq!(machine.uplink.under_way(), 1);
    let Machine {
        device,
        guest,
        uplink: disk,
        executor,
        bells,
        mut random,
        ..
    } = machine;
    drop(device);
    assert_eq!(
        (guest.windows.get(), disk.channels(), bells[0].open.get()),
        (0, 0, 0)
    );
    assert_eq!(disk.under_way(), 1, "what is under way ends by itself");
    while executor.step(&mut random) {}
    assert_eq!(executor.tasks(), 0);
    while disk.step(&mut random) {}
    assert_eq!(bells[0].rings.get(), 0);
    assert!(driver.take_used().is_empty());
}

#[test]
fn an_abandoned_reset_lets_go_of_everything() {
    use std::future::Future;
    use std::task::{Context, Waker};
    let mut machine = machine();
    let mut driver = machine.start(MINIMUM, 8).remove(0);
    read(&mut machine, &mut driver);
    while machine.executor.step(&mut machine.random) {}
    {
        let mut reset = std::pin::pin!(machine.device.reset());
        let mut context = Context::from_waker(Waker::noop());
        assert!(reset.as_mut().poll(&mut context).is_pending());
        assert_eq!(machine.guest.windows.get(), 3);
    }
    assert_eq!((machine.guest.windows.get(), machine.uplink.channels()), (0, 0));
    machine.run();
    assert_eq!(machine.executor.tasks(), 0);
    assert_eq!(machine.set_status(0), 0);
}

#[test]
fn a_broken_queue_is_announced() {
    let mut machine = machine();
    let mut driver = machine.start(MINIMUM, 8).remove(0);
    machine.run();
    read(&mut machine, &mut driver);
    while machine.executor.step(&mut machine.random) {}
    machine.guest.write(driver.areas[1] + 2, &100u16.to_le_bytes());
    driver.bell.kick();
    machine.run();
    assert!(machine.needs_reset());
    assert_eq!(machine.events, [(15 | 64, 0)]);
    assert!(matches!(machine.faults[..], [Fault::Broken(0, _)]));
    assert_eq!(machine.uplink.under_way(), 0);
    assert_eq!(machine.executor.tasks(), 0);
    assert_eq!(machine.set_status(15), 15 | 64);
    let mut driver = machine.start(MINIMUM, 8).remove(0);
    read(&mut machine, &mut driver);
    machine.run();
    assert_eq!(driver.take_used().len(), 1);
}

#[test]
fn configuration_space_follows_the_disk() {
    let mut machine = machine();
    machine.run();
    assert_eq!(machine.config::<U64>(0).get(), 1024);
    let info: wire::DeviceInfo = machine.ask(id::GET_DEVICE_INFO, &[0u8; 0]);
    assert_eq!(
        (
            info.device_type.get(),
            info.feature_bits.get(),
            info.config_size.get()
        ),
        (2, 64, 60)
    );
    // Without a driver there is nobody to tell.
    machine
        .uplink
        .set_geometry(support::disk::RamDisk::new(GEOMETRY).0.geometry.get());
    machine.start(MINIMUM, 8);
    machine.run();
    machine.events.clear();
    machine.uplink.set_geometry(devices::disk::Geometry {
        sectors: 2048,
        ..GEOMETRY
    });
    machine.run();
    assert_eq!(machine.events, [(15, 1)]);
    assert_eq!(machine.config::<U64>(0).get(), 2048);
    // A change that cannot be seen is not told.
    let unseen = devices::disk::Geometry {
        sectors: 2048,
        flush: false,
        ..GEOMETRY
    };
    machine.uplink.set_geometry(unseen);
    machine.run();
    assert_eq!(machine.events.len(), 1);
}

fn write_config(machine: &mut Machine, generation: u32, offset: u32, data: &[u8]) -> u32 {
    let fields = wire::Config {
        generation: generation.into(),
        offset: offset.into(),
        length: (data.len() as u32).into(),
    };
    let mut request = fields.as_bytes().to_vec();
    request.extend(data);
    let response = machine.request(0, id::SET_CONFIG, &request);
    let length = u32::from_le_bytes(response[8..12].try_into().unwrap());
    assert_eq!(response.len() as u32, 12 + length);
    length
}

#[test]
fn only_writeback_can_be_written() {
    let mut machine = machine();
    assert_eq!(
        write_config(&mut machine, 0, 32, &[0]),
        0,
        "not before FEATURES_OK"
    );
    assert!(machine.negotiate(MINIMUM | blk::FLUSH));
    assert_eq!(machine.config::<u8>(32), 1);
    assert_eq!(
        write_config(&mut machine, 0, 32, &[0]),
        0,
        "not without CONFIG_WCE"
    );
    assert!(machine.negotiate(MINIMUM | blk::CONFIG_WCE));
    assert_eq!(machine.config::<u8>(32), 0, "writethrough without FLUSH");
    assert!(machine.negotiate(MINIMUM | blk::FLUSH | blk::CONFIG_WCE));
    assert_eq!(machine.config::<u8>(32), 1);
    assert_eq!(write_config(&mut machine, 0, 32, &[0]), 1);
    assert_eq!(machine.config::<u8>(32), 0);
    for (generation, offset, data) in [
        (1, 32, &[1][..]),
        (0, 32, &[2]),
        (0, 32, &[1, 0]),
        (0, 31, &[1]),
        (0, 0, &[0; 60]),
        (0, 60, &[]),
    ] {
        assert_eq!(write_config(&mut machine, generation, offset, data), 0);
    }
    assert_eq!(write_config(&mut machine, 0, u32::MAX, &[1]), 0);
    assert_eq!(machine.config::<u8>(32), 0);
    assert_eq!(machine.config::<U32>(20).get(), 512);
    assert!(machine.negotiate(MINIMUM | blk::FLUSH | blk::CONFIG_WCE));
    assert_eq!(machine.config::<u8>(32), 1, "a reset undoes it");
}
