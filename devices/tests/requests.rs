//! virtio-blk, case by case: what it costs, what it keeps apart, what it holds, and what breaks it.

mod support;

use devices::blk::{Options, features as blk};
use devices::device::Fault;
use devices::disk::{Geometry, SECTOR};
use devices::features::{ACCESS_PLATFORM, EVENT_IDX, INDIRECT_DESC, VERSION_1};
use devices::virtqueue::QueueError;
use support::disk::{GEOMETRY, RamDisk};
use support::driver::{Driver, Layout, Piece};
use support::machine::{ARENA, Machine, OPTIONS};
use support::request::{FLUSH, IN, IOERR, OK, OUT};
use zerocopy::little_endian::U64;

const MINIMUM: u64 = VERSION_1 | ACCESS_PLATFORM;
const ALL: u64 = MINIMUM | INDIRECT_DESC | EVENT_IDX;

/// Where the n-th request of a test has its things.
struct Place {
    header: usize,
    data: usize,
    status: usize,
    table: usize,
}

fn place(n: usize) -> Place {
    let header = ARENA + n * 0x10000;
    Place {
        header,
        data: header + 0x1000,
        status: header + 0x20,
        table: header + 0x8000,
    }
}

fn write_header(machine: &Machine, n: usize, kind: u32, sector: u64) {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&kind.to_le_bytes());
    bytes[8..].copy_from_slice(&sector.to_le_bytes());
    machine.guest.write(place(n).header, &bytes);
    machine.guest.write(place(n).status, &[0xff]);
}

/// The segments of a request: header, data, status.
fn pieces(n: usize, kind: u32, len: usize) -> Vec<Piece> {
    let place = place(n);
    let data = (len > 0).then_some((place.data, len, kind == IN));
    [(place.header, 16, false)]
        .into_iter()
        .chain(data)
        .chain([(place.status, 1, true)])
        .collect()
}

/// Puts a request in the ring; it is not exposed yet.
fn add(machine: &mut Machine, driver: &mut Driver, n: usize, kind: u32, sector: u64, len: usize) -> u16 {
    write_header(machine, n, kind, sector);
    let layout = Layout::Indirect(0, place(n).table);
    driver
        .add(&pieces(n, kind, len), layout, &mut machine.random)
        .expect("room in the ring")
}

fn status(machine: &Machine, n: usize) -> u8 {
    machine.guest.read(place(n).status, 1)[0]
}

/// Does one request and gives its status.
fn one(machine: &mut Machine, driver: &mut Driver, kind: u32, sector: u64, len: usize) -> u8 {
    add(machine, driver, 0, kind, sector, len);
    driver.publish();
    machine.run();
    assert_eq!(driver.take_used().len(), 1);
    driver.listen();
    status(machine, 0)
}

#[test]
fn copies_come_in_few_batches() {
    // Per direct request: header (and payload), then payload and status. A table costs one more batch.
    for (features, kind, count, batches) in [
        (MINIMUM | EVENT_IDX | blk::FLUSH, IN, 1, 2),
        (MINIMUM | EVENT_IDX | blk::FLUSH, OUT, 1, 2),
        (ALL | blk::FLUSH, IN, 1, 3),
        (ALL | blk::FLUSH, OUT, 1, 3),
        (MINIMUM | EVENT_IDX | blk::FLUSH, IN, 16, 2),
        (ALL | blk::FLUSH, OUT, 32, 3),
    ] {
        let mut machine = Machine::new(RamDisk::new(GEOMETRY), OPTIONS, 1);
        let mut driver = machine.start(features, 64).remove(0);
        machine.run();
        for n in 0..count {
            add(&mut machine, &mut driver, n, kind, 8 * n as u64, 4096);
        }
        driver.publish();
        while machine.executor.step(&mut machine.random) {}
        assert_eq!(machine.uplink.under_way(), count);
        while machine.uplink.step(&mut machine.random) {}
        machine.run();
        assert_eq!(driver.take_used().len(), count);
        assert_eq!(machine.guest.batches.get(), batches);
        let counters = machine.device.model().counters();
        assert_eq!((counters.queues.notifications, counters.queues.kicks), (1, 1));
        assert_eq!(counters.read_bytes + counters.written_bytes, 4096 * count as u64);
        assert_eq!(
            (counters.reads + counters.writes, counters.errors),
            (count as u64, 0)
        );
    }
}

#[test]
fn queues_share_the_buffers() {
    for seed in 0..50 {
        let disk = RamDisk::new(GEOMETRY);
        disk.0.pool.set(4096);
        let options = Options { queues: 3, ..OPTIONS };
        let mut machine = Machine::new(disk, options, seed);
        assert!(machine.offered() & blk::MQ != 0);
        let mut drivers = machine.start(ALL | blk::MQ, 8);
        assert_eq!(machine.config::<zerocopy::little_endian::U16>(34).get(), 3);
        for n in 0..12 {
            let kind = if n % 2 == 0 { IN } else { OUT };
            add(&mut machine, &mut drivers[n % 3], n, kind, 8 * n as u64, 4096);
        }
        drivers.iter_mut().for_each(Driver::publish);
        machine.run();
        for (queue, driver) in drivers.iter_mut().enumerate() {
            assert_eq!(driver.take_used().len(), 4, "of queue {queue}, with seed {seed}");
        }
        assert!((0..12).all(|n| status(&machine, n) == OK));
        assert!(machine.device.model().counters().waited > 0);
    }
}

#[test]
fn a_resize_takes_effect() {
    let mut machine = Machine::new(RamDisk::new(GEOMETRY), OPTIONS, 1);
    let mut driver = machine.start(ALL, 8).remove(0);
    assert_eq!(one(&mut machine, &mut driver, OUT, 1024, 512), IOERR);
    machine.uplink.set_geometry(Geometry {
        sectors: 1032,
        ..GEOMETRY
    });
    machine.run();
    assert_eq!(machine.events, [(15, 1)]);
    assert_eq!(machine.config::<U64>(0).get(), 1032);
    assert_eq!(one(&mut machine, &mut driver, OUT, 1024, 4096), OK);
    assert_eq!(one(&mut machine, &mut driver, OUT, 1025, 4096), IOERR);
    machine.uplink.set_geometry(Geometry {
        read_only: true,
        ..GEOMETRY
    });
    machine.run();
    assert_eq!(one(&mut machine, &mut driver, OUT, 0, 512), IOERR);
    assert_eq!(one(&mut machine, &mut driver, IN, 0, 512), OK);
    // RO is offered from the next reset on.
    assert_eq!(machine.offered() & (blk::RO | blk::DISCARD), blk::DISCARD);
    machine.set_status(0);
    assert_eq!(
        machine.offered() & (blk::RO | blk::DISCARD | blk::WRITE_ZEROES),
        blk::RO
    );
}

#[test]
fn writes_are_stable_when_the_driver_wants_it() {
    let stable =
        |machine: &Machine| machine.uplink.read_durable(0, 4096) == machine.guest.read(place(0).data, 4096);
    let mut machine = Machine::new(RamDisk::new(GEOMETRY), OPTIONS, 1);
    let mut driver = machine.start(ALL | blk::FLUSH | blk::CONFIG_WCE, 8).remove(0);
    let mut write = |machine: &mut Machine, byte: u8| {
        machine.guest.write(place(0).data, &[byte; 4096]);
        assert_eq!(one(machine, &mut driver, OUT, 0, 4096), OK);
    };
    write(&mut machine, 1);
    assert!(!stable(&machine), "writeback");
    machine.request(0, 6, &[0, 0, 0, 0, 32, 0, 0, 0, 1, 0, 0, 0, 0]);
    write(&mut machine, 2);
    assert!(stable(&machine), "writethrough");
    machine.request(0, 6, &[0, 0, 0, 0, 32, 0, 0, 0, 1, 0, 0, 0, 1]);
    write(&mut machine, 3);
    assert!(!stable(&machine), "writeback again");
    assert_eq!(one(&mut machine, &mut driver, FLUSH, 0, 0), OK);
    machine.guest.write(place(0).data, &[3; 4096]);
    assert!(stable(&machine), "flushed");
    // Without FLUSH, the driver expects a writethrough cache.
    let mut driver = machine.start(ALL, 8).remove(0);
    machine.guest.write(place(0).data, &[4; 4096]);
    assert_eq!(one(&mut machine, &mut driver, OUT, 0, 4096), OK);
    assert!(stable(&machine));
    // A write that is there, but that cannot be made stable, has failed.
    machine.uplink.0.failing.set(1);
    assert_eq!(one(&mut machine, &mut driver, OUT, 0, 4096), IOERR);
}

#[test]
fn a_flush_asks_the_disk_even_without_a_cache() {
    let mut machine = Machine::new(RamDisk::new(GEOMETRY), OPTIONS, 1);
    let mut driver = machine.start(ALL | blk::FLUSH, 8).remove(0);
    assert_eq!(one(&mut machine, &mut driver, OUT, 0, 4096), OK);
    // The next back end has none, and does not have what the last one had in its own.
    machine.uplink.set_geometry(Geometry {
        flush: false,
        ..GEOMETRY
    });
    machine.run();
    machine.uplink.0.failing.set(1);
    assert_eq!(one(&mut machine, &mut driver, FLUSH, 0, 0), IOERR);
    machine.uplink.0.failing.set(0);
    assert_eq!(one(&mut machine, &mut driver, FLUSH, 0, 0), OK);
}

#[test]
fn what_a_driver_can_make_a_queue_hold_is_bounded() {
    let mut machine = Machine::new(RamDisk::new(GEOMETRY), OPTIONS, 1);
    let mut driver = machine.start(ALL, 256).remove(0);
    // Requests with as many descriptors as can be, over and over the same bytes.
    write_header(&machine, 0, IN, 0);
    let place = place(0);
    let mut pieces = vec![(place.header, 16, false)];
    pieces.extend((0..254).map(|n| (place.data + 16 * n, 16, true)));
    pieces.push((place.data, 33, true));
    for _ in 0..256 {
        driver
            .add(&pieces, Layout::Indirect(0, place.table), &mut machine.random)
            .unwrap();
    }
    driver.publish();
    while machine.executor.step(&mut machine.random) {}
    let under_way = machine.uplink.under_way();
    assert!((8..24).contains(&under_way), "{under_way} of 256 segments each");
    machine.run();
    assert_eq!(driver.take_used().len(), 256);
}

/// Breaks a queue by what `spoil` makes of a read of one sector, and gives the reason.
fn broken(spoil: impl FnOnce(&mut Machine, &mut Driver)) -> QueueError {
    let mut machine = Machine::new(RamDisk::new(GEOMETRY), OPTIONS, 1);
    let mut driver = machine.start(ALL, 8).remove(0);
    write_header(&machine, 0, IN, 0);
    // The tables of the good requests are elsewhere.
    add(&mut machine, &mut driver, 1, IN, 0, 512);
    add(&mut machine, &mut driver, 2, OUT, 0, 512);
    spoil(&mut machine, &mut driver);
    driver.publish();
    let pool = machine.uplink.0.pool.get();
    machine.run();
    assert!(machine.needs_reset());
    assert_eq!(machine.uplink.0.pool.get(), pool, "others can have the buffers");
    assert_eq!(machine.events.last(), Some(&(15 | 64, 0)));
    assert_eq!(machine.set_status(0), 0);
    match machine.faults.pop() {
        Some(Fault::Broken(0, error)) => error,
        fault => panic!("{fault:?}"),
    }
}

#[test]
fn queues_break() {
    use devices::memory::MemoryError::NoAccess;
    let hole = |machine: &Machine, at: usize| {
        machine.guest.holes.borrow_mut().insert(at / 4096);
    };
    let far = 0x200000;
    let add = |machine: &mut Machine, driver: &mut Driver, pieces: &[Piece], table: Option<usize>| {
        let layout = table.map_or(Layout::Direct, |table| Layout::Indirect(0, table));
        driver.add(pieces, layout, &mut machine.random).unwrap();
    };
    let place = place(0);
    let header = (place.header, 16, false);
    let error = broken(|machine, driver| add(machine, driver, &[header], None));
    assert_eq!(error, QueueError::NoStatus);
    let error = broken(|machine, driver| {
        hole(machine, far);
        add(
            machine,
            driver,
            &[(far, 16, false), (place.status, 1, true)],
            None,
        );
    });
    assert_eq!(error, QueueError::Header(NoAccess));
    let error = broken(|machine, driver| {
        add(machine, driver, &[header, (place.status, 1, true)], Some(far));
        hole(machine, far);
    });
    assert_eq!(error, QueueError::Table(NoAccess));
    let error = broken(|machine, driver| {
        hole(machine, far);
        add(
            machine,
            driver,
            &[header, (place.data, 512, true), (far, 1, true)],
            None,
        );
    });
    assert_eq!(error, QueueError::Status(NoAccess));
    let error = broken(|machine, driver| {
        add(machine, driver, &[(place.status, 1, true), header], None);
    });
    assert_eq!(error, QueueError::Order);
}

#[test]
fn a_page_that_cannot_be_accessed_fails_its_request_only() {
    let mut machine = Machine::new(RamDisk::new(GEOMETRY), OPTIONS, 1);
    let mut driver = machine.start(ALL, 8).remove(0);
    machine
        .guest
        .holes
        .borrow_mut()
        .insert((place(1).data + 4096) / 4096);
    for (kind, expected) in [(IN, [OK, IOERR, OK]), (OUT, [OK, IOERR, OK])] {
        for n in 0..3 {
            add(&mut machine, &mut driver, n, kind, 16 * n as u64, 8192);
        }
        let before = machine.uplink.read(0, 48 * SECTOR as usize);
        driver.publish();
        machine.run();
        let mut used = driver.take_used();
        used.sort_unstable();
        assert_eq!([0, 1, 2].map(|n| status(&machine, n)), expected);
        let written = if kind == IN { [0, 8193, 8193] } else { [1, 1, 1] };
        let mut lengths: Vec<u32> = used.iter().map(|(_, len)| *len).collect();
        lengths.sort_unstable();
        assert_eq!(lengths, written);
        let after = machine.uplink.read(0, 48 * SECTOR as usize);
        assert!(before[8192..16384] == after[8192..16384]);
        assert!(!machine.needs_reset());
        driver.listen();
    }
}
