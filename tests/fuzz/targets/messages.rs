//! Any sequence of control messages: each is answered or ignored, and a reset makes up for all of them.
#![no_main]

#[path = "../../../devices/tests/support/mod.rs"]
mod support;

use devices::disk::Geometry;
use devices::features::{ACCESS_PLATFORM, RING_RESET, VERSION_1};
use libfuzzer_sys::fuzz_target;
use support::disk::{GEOMETRY, RamDisk};
use support::machine::{Machine, OPTIONS};

fuzz_target!(|bytes: &[u8]| {
    let disk = RamDisk::new(Geometry {
        sectors: 8,
        ..GEOMETRY
    });
    let mut machine = Machine::new(disk, OPTIONS, 1);
    let Some((first, mut rest)) = bytes.split_first() else {
        return;
    };
    if first & 1 != 0 {
        machine.start(VERSION_1 | ACCESS_PLATFORM | RING_RESET, 8);
    }
    // Each message comes with its length.
    while let Some((len, tail)) = rest.split_first() {
        let (message, tail) = tail.split_at(tail.len().min(usize::from(*len)));
        rest = tail;
        let _ = machine.send(message);
        machine.run();
    }
    assert_eq!(machine.set_status(0), 0);
    assert_eq!((machine.guest.windows.get(), machine.bells[0].open.get()), (0, 0));
});
