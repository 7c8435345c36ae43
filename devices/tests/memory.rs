//! What a queue keeps of the memory that its driver's requests took, once they are done with.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use devices::blk::features as blk;
use devices::features::{ACCESS_PLATFORM, EVENT_IDX, INDIRECT_DESC, VERSION_1};
use support::disk::{GEOMETRY, RamDisk};
use support::driver::{Driver, Layout as Place, Piece};
use support::machine::{ARENA, Machine, OPTIONS};
use support::request::{DISCARD, IN, OK};

const FEATURES: u64 = VERSION_1 | ACCESS_PLATFORM | INDIRECT_DESC | EVENT_IDX | blk::DISCARD;

/// The host's heap, with a count of the bytes that each thread has allocated.
struct Counting;

thread_local! {
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.set(ALLOCATED.get().wrapping_add(layout.size()));
        // SAFETY: as promised to this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        ALLOCATED.set(ALLOCATED.get().wrapping_sub(layout.size()));
        // SAFETY: as promised to this function.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static HEAP: Counting = Counting;

const STATUS: usize = ARENA;
const RANGES: usize = ARENA + 0x200;
const HEADERS: usize = ARENA + 0x1000;
const TABLES: usize = ARENA + 0x2000;
const DATA: usize = ARENA + 0x10000;

/// A disk with a queue of 256.
fn start() -> (Machine, Driver) {
    let mut machine = Machine::new(RamDisk::new(GEOMETRY), OPTIONS, 1);
    let driver = machine.start(FEATURES, 256).remove(0);
    (machine, driver)
}

/// The first piece of a request.
fn header(machine: &Machine, kind: u32, sector: u64) -> Piece {
    let at = HEADERS + 16 * sector as usize;
    machine.guest.write(at, &kind.to_le_bytes());
    machine.guest.write(at + 8, &sector.to_le_bytes());
    (at, 16, false)
}

/// Puts a request in the ring.
fn add(machine: &mut Machine, driver: &mut Driver, pieces: &[Piece]) {
    // Tables are read at once, but not before others are written.
    let table = Place::Indirect(0, TABLES + 16 * pieces.len());
    driver.add(pieces, table, &mut machine.random).expect("room");
}

/// Reads a sector in this many pieces.
fn read(machine: &mut Machine, driver: &mut Driver, sector: u64, pieces: usize) {
    let mut request = vec![header(machine, IN, sector)];
    request.extend((1..pieces).map(|n| (DATA + n, 1, true)));
    request.push((DATA + pieces, 513 - pieces, true));
    request.push((STATUS, 1, true));
    add(machine, driver, &request);
}

/// A queue holds 2048 segments at a time; but which of its places for requests had them is for the driver to
/// choose.
#[test]
fn long_chains_leave_nothing_behind() {
    let (mut machine, mut driver) = start();
    let before = ALLOCATED.get();
    // Short ones in all places but a few. What ends last is used first, so each time that some of those end,
    // long ones take their places.
    let (count, at_a_time) = (248, 8);
    machine.uplink.0.held_back.set(1);
    (0..count).for_each(|n| {
        read(&mut machine, &mut driver, 1 + n, 1);
        driver.publish();
        machine.run();
    });
    for done in (0..=count).step_by(at_a_time) {
        (0..at_a_time).for_each(|_| read(&mut machine, &mut driver, 0, 253));
        driver.publish();
        machine.run();
        assert_eq!(driver.take_used().len(), at_a_time, "the long ones");
        machine.uplink.0.held_back.set(1 + done + at_a_time as u64);
        // Nobody wakes the device.
        while machine.uplink.step(&mut machine.random) {}
        machine.run();
        driver.take_used();
        driver.listen();
    }
    assert_eq!((driver.in_flight(), machine.guest.read(STATUS, 1)), (0, vec![OK]));
    let kept = ALLOCATED.get().saturating_sub(before);
    assert!(kept < 256 << 10, "{kept} bytes are kept");
}

#[test]
fn little_is_held_while_memory_is_scarce() {
    let (mut machine, mut driver) = start();
    // Does 64 reads; the result is how many of them are under way at first, and what is allocated in the end.
    let mut read_all = |scarce, pieces| {
        machine.guest.scarce.set(scarce);
        machine.uplink.0.held_back.set(0);
        (0..64).for_each(|_| read(&mut machine, &mut driver, 1, pieces));
        driver.publish();
        machine.run();
        let under_way = machine.uplink.under_way();
        machine.uplink.0.held_back.set(u64::MAX);
        while machine.uplink.step(&mut machine.random) {}
        machine.run();
        assert_eq!(driver.take_used().len(), 64);
        driver.listen();
        (under_way, ALLOCATED.get())
    };
    read_all(true, 38);
    for (pieces, expected) in [(1, 22), (253, 1), (38, 2)] {
        assert_eq!(read_all(true, pieces).0, expected, "reads in {pieces} pieces");
    }
    // Nor is anything kept for the next chains.
    let (_, kept) = read_all(false, 38);
    let (_, scarce) = read_all(true, 38);
    assert!(scarce + 64 * 40 * 12 < kept, "{scarce}, {kept}");
}

#[test]
fn ranges_leave_nothing_behind() {
    let (mut machine, mut driver) = start();
    let header = header(&machine, DISCARD, 0);
    for n in 0..16 {
        machine
            .guest
            .write(RANGES + 16 * n, &[8 * n as u8, 0, 0, 0, 0, 0, 0, 0, 8]);
    }
    let mut before = 0;
    for ranges in [1, 16] {
        before = ALLOCATED.get();
        for _ in 0..256 {
            let discard = [header, (RANGES, 16 * ranges, false), (STATUS, 1, true)];
            add(&mut machine, &mut driver, &discard);
        }
        driver.publish();
        machine.run();
        assert_eq!(driver.take_used().len(), 256);
        driver.listen();
    }
    assert_eq!(machine.guest.read(STATUS, 1), [OK]);
    let kept = ALLOCATED.get().saturating_sub(before);
    assert!(kept < 16 << 10, "{kept} bytes are kept");
}
