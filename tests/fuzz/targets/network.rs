//! Any bytes in the rings and buffers of a network device: they break a queue at worst.
#![no_main]

#[path = "../../../devices/tests/support/mod.rs"]
mod support;

use devices::features::{ACCESS_PLATFORM, VERSION_1};
use devices::net::Offload;
use libfuzzer_sys::fuzz_target;
use support::driver::descriptor;
use support::guest::BASE;
use support::machine::ARENA;
use support::port::{NIC, TestPort};

const SIZE: u16 = 8;

fuzz_target!(|bytes: &[u8]| {
    let port = TestPort::new(100_000);
    let mut machine = port.machine(NIC, 1);
    let Some((choice, bytes)) = bytes.split_first() else {
        return;
    };
    let mut features = machine.offered();
    // MRG_RXBUF, GUEST_CSUM.
    if choice & 1 != 0 {
        features &= !(1 << 15);
    }
    if choice & 2 != 0 {
        features &= !2;
    }
    let drivers = machine.start(features | VERSION_1 | ACCESS_PLATFORM, SIZE);
    let mut chunks = bytes.chunks_exact(8);
    // Descriptors of the tables, then of an indirect one: flags, next, where, how long.
    for n in 0..4 * usize::from(SIZE) {
        let Some([flags, next, at, page, len, scale, wild, _]) = chunks
            .next()
            .map(|chunk| <[u8; 8]>::try_from(chunk).expect("a chunk of eight"))
        else {
            break;
        };
        let inside = BASE + (ARENA + 0x1000 * usize::from(page & 15) + usize::from(at)) as u64;
        let address = if wild == 0xff { u64::from(at) << 56 } else { inside };
        let len = u32::from(len) << (scale & 31);
        let place = match drivers.get(n / usize::from(SIZE)) {
            Some(driver) => driver.areas[0] + 16 * (n % usize::from(SIZE)),
            None => ARENA + 16 * (n % usize::from(SIZE)),
        };
        let entry = descriptor(address, len, flags.into(), next.into());
        machine.guest.write(place, &entry);
    }
    // Headers and commands at the pages' starts, but for the first, which is the indirect table.
    for page in 1..16 {
        let Some(chunk) = chunks.next() else { break };
        machine.guest.write(ARENA + 0x1000 * page, chunk);
    }
    // Heads, and the available index, again and again, while frames come.
    for chunk in chunks {
        let driver = &drivers[usize::from(chunk[3]) % drivers.len()];
        let slot = usize::from(chunk[0]) % usize::from(SIZE);
        let head = u16::from(chunk[1]).to_le_bytes();
        machine.guest.write(driver.areas[1] + 4 + 2 * slot, &head);
        machine.guest.write(driver.areas[1] + 2, &[chunk[2], 0]);
        port.put(0, &[chunk[4]; 200], Offload::default());
        driver.bell.kick();
        machine.run();
    }
    port.take();
    assert_eq!(port.0.account.used(), 0);
    assert_eq!(machine.set_status(0), 0);
    assert_eq!((port.waiting(), machine.guest.windows.get()), (0, 0));
});
