//! Any bytes in the rings, in indirect tables and in requests: they break the queue at worst.
#![no_main]

#[path = "../../../devices/tests/support/mod.rs"]
mod support;

use devices::disk::Geometry;
use devices::features::{ACCESS_PLATFORM, EVENT_IDX, INDIRECT_DESC, VERSION_1};
use libfuzzer_sys::fuzz_target;
use support::disk::{GEOMETRY, RamDisk};
use support::driver::descriptor;
use support::guest::BASE;
use support::machine::{ARENA, Machine, OPTIONS};

const SIZE: u16 = 16;

fuzz_target!(|bytes: &[u8]| {
    let disk = RamDisk::new(Geometry {
        sectors: 64,
        ..GEOMETRY
    });
    let mut machine = Machine::new(disk, OPTIONS, 1);
    let features = VERSION_1 | ACCESS_PLATFORM | INDIRECT_DESC | EVENT_IDX;
    let driver = machine.start(features, SIZE).remove(0);
    let mut chunks = bytes.chunks_exact(8);
    // Descriptors of the table, then of an indirect one: flags, next, where, how long.
    for n in 0..2 * usize::from(SIZE) {
        let Some([flags, next, at, page, len, scale, wild, _]) = chunks
            .next()
            .map(|chunk| <[u8; 8]>::try_from(chunk).expect("a chunk of eight"))
        else {
            break;
        };
        // Mostly inside the arena; a few anywhere.
        let inside = BASE + (ARENA + 0x1000 * usize::from(page & 15) + usize::from(at)) as u64;
        let address = if wild == 0xff {
            u64::from_le_bytes([at, page, len, 0, 0, 0, 0, at])
        } else {
            inside
        };
        let len = u32::from(len) << (scale & 31);
        let place = if n < usize::from(SIZE) {
            driver.areas[0] + 16 * n
        } else {
            ARENA + 16 * (n & 15)
        };
        machine.guest.write(
            place,
            &descriptor(address, len, u16::from(flags), u16::from(next)),
        );
    }
    // Headers at the pages' starts, but for the first, which is the indirect table.
    for page in 1..16 {
        let Some(chunk) = chunks.next() else { break };
        let at = ARENA + 0x1000 * page;
        machine.guest.write(at, &[chunk[0], 0, 0, 0, 0, 0, 0, 0]);
        machine
            .guest
            .write(at + 8, &[chunk[1], 0, 0, 0, 0, 0, 0, chunk[2]]);
        machine.guest.write(at + 16, &chunk[3..]);
    }
    // Heads, and the available index, again and again.
    for chunk in chunks {
        let slot = usize::from(chunk[0]) % usize::from(SIZE);
        machine
            .guest
            .write(driver.areas[1] + 4 + 2 * slot, &u16::from(chunk[1]).to_le_bytes());
        machine.guest.write(driver.areas[1] + 2, &[chunk[2], 0]);
        driver.bell.kick();
        machine.run();
    }
    assert_eq!(machine.uplink.under_way(), 0);
    assert_eq!(machine.set_status(0), 0);
    assert_eq!((machine.uplink.channels(), machine.guest.windows.get()), (0, 0));
});
