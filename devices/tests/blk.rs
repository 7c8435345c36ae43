//! virtio-blk against a model: whatever a driver asks for, in whatever pieces, comes out as the specification
//! says.

mod support;

use std::collections::HashMap;

use devices::blk::{Options, features as blk};
use devices::disk::{Geometry, SECTOR};
use devices::features::{ACCESS_PLATFORM, EVENT_IDX, INDIRECT_DESC, RING_RESET, VERSION_1};
use proptest::prelude::*;
use support::disk::{GEOMETRY, RamDisk};
use support::machine::{ARENA, MEMORY, Machine, OPTIONS};
use support::request::{self, Arena, IN, OK, OUT, Placed, Spec, WRITE_ZEROES};

#[derive(Clone, Debug)]
struct Setup {
    geometry: Geometry,
    options: Options,
    features: u64,
    size: u16,
    pool: usize,
    failing: usize,
    seed: u64,
    polling: bool,
}

fn setup() -> impl Strategy<Value = Setup> {
    let optional = [
        INDIRECT_DESC,
        EVENT_IDX,
        RING_RESET,
        blk::FLUSH,
        blk::CONFIG_WCE,
        blk::DISCARD,
        blk::WRITE_ZEROES,
        blk::BLK_SIZE,
    ];
    let features = prop::collection::vec(prop::bool::weighted(0.8), optional.len()).prop_map(move |wanted| {
        let wanted = optional.iter().zip(wanted).filter(|(_, wanted)| *wanted);
        wanted.fold(VERSION_1 | ACCESS_PLATFORM, |features, (feature, _)| {
            features | feature
        })
    });
    let shape = (
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.2),
        any::<bool>(),
    );
    let bounds = (
        2u32..9,
        prop_oneof![Just(32usize << 10), Just(64 << 10), Just(1 << 20)],
    );
    (
        features,
        shape,
        bounds,
        prop_oneof![3 => Just(0usize), 1 => Just(4)],
        any::<u64>(),
        any::<bool>(),
    )
        .prop_map(
            |(features, (large, read_only, flush), (size, pool), failing, seed, polling)| {
                let block_size = if large { 4096 } else { 512 };
                let geometry = Geometry {
                    block_size,
                    flush,
                    ..GEOMETRY
                };
                let features = if read_only {
                    features & !(blk::DISCARD | blk::WRITE_ZEROES)
                } else {
                    features
                };
                Setup {
                    geometry,
                    options: Options { read_only, ..OPTIONS },
                    features,
                    size: 1 << size,
                    pool,
                    failing,
                    seed,
                    polling,
                }
            },
        )
}

/// Puts the requests of a round in the ring, lets it all happen, and checks everything.
fn round(machine: &mut Machine, driver: &mut support::driver::Driver, setup: &Setup, specs: &[Spec]) {
    let geometry = Geometry {
        read_only: setup.options.read_only,
        ..setup.geometry
    };
    let mut arena = Arena {
        next: ARENA,
        end: MEMORY,
    };
    let mut random = machine.random.clone();
    machine.random.next();
    let before = machine.uplink.0.data.borrow().clone();
    let placed: Vec<Placed> = specs
        .iter()
        .enumerate()
        .filter_map(|(region, spec)| {
            let raw = spec.raw(region as u64, &geometry, &mut random);
            let placed = request::place(spec, raw, &mut arena, &machine.guest, driver, &mut random);
            if random.below(3) == 0 {
                driver.publish();
                for _ in 0..random.below(20) {
                    machine.step();
                }
            }
            placed
        })
        .collect();
    // Some have been served already: what they wrote is theirs.
    let mut image = machine.guest.read(ARENA, MEMORY - ARENA);
    driver.publish();
    machine.run();
    assert!(!machine.needs_reset(), "{:?}", machine.faults);

    let used: HashMap<u16, u32> = driver.take_used().into_iter().collect();
    assert_eq!(
        (used.len(), driver.in_flight()),
        (placed.len(), 0),
        "every buffer is returned once"
    );
    assert_eq!(machine.uplink.0.pool.get(), setup.pool, "no buffer is kept");

    let mut disk = before.clone();
    for request in &placed {
        let raw = &request.raw;
        let written = used[&request.head];
        let status = machine.guest.read(request.status, 1)[0];
        let data = request.data(&machine.guest);
        let expected = request::expected(raw, &geometry, setup.features);
        if status != expected {
            let failed = setup.failing > 0 && expected == OK;
            // Both apply to a request that is not supported and has data that cannot be accessed.
            let either = raw.hole && expected == request::UNSUPP;
            assert!(
                status == request::IOERR && (failed || either),
                "status {status}, not {expected}, of {raw:x?}"
            );
        }
        assert!(written as usize <= raw.room + 1);
        assert!(raw.room > 0 || written == 1);
        let at = (raw.sector.wrapping_mul(SECTOR)) as usize;
        match raw.kind {
            IN if status == OK => {
                assert_eq!(written as usize, raw.room + 1);
                assert!(
                    data == before[at..at + raw.room],
                    "the data that was there, of {raw:x?}"
                );
            }
            request::GET_ID if status == OK => {
                assert_eq!((written, &data[..]), (21, &OPTIONS.id[..]));
            }
            _ => {}
        }
        if !(raw.hole || status == OK && matches!(raw.kind, IN | request::GET_ID)) {
            assert!(
                data.iter().all(|byte| *byte == 0x99),
                "nothing but data that was asked for"
            );
        }
        let writethrough = setup.geometry.flush && setup.features & blk::FLUSH == 0;
        if writethrough && raw.kind == OUT && status == OK {
            assert!(
                machine.uplink.read_durable(raw.sector, raw.out.len()) == raw.out,
                "it is stable"
            );
        }
        // Only the disk itself makes a request fail that is good; all others change nothing.
        if status == OK || expected == OK {
            apply(raw, status, &machine.uplink.0.data.borrow(), &mut disk);
        }
        request.forgive(&machine.guest, &mut image);
    }
    assert!(
        image == machine.guest.read(ARENA, MEMORY - ARENA),
        "nothing else was written"
    );
    machine.guest.holes.borrow_mut().clear();

    assert!(
        disk == *machine.uplink.0.data.borrow(),
        "the disk is what the requests made of it"
    );
}

/// Does to an image of the disk what a request did; of one that failed, anything goes where it was to write.
fn apply(raw: &request::Raw, status: u8, after: &[u8], image: &mut [u8]) {
    let mut fill = |sector: u64, len: usize, bytes: &dyn Fn(usize) -> u8| {
        let at = sector.saturating_mul(SECTOR) as usize;
        if at.checked_add(len).is_some_and(|end| end <= image.len()) {
            (at..at + len).for_each(|at_byte| image[at_byte] = bytes(at_byte - at));
        }
    };
    let ranges = || {
        request::ranges(raw)
            .into_iter()
            .map(|(sector, sectors, _)| (sector, (sectors * SECTOR) as usize))
    };
    match (raw.kind, status) {
        (OUT, OK) => fill(raw.sector, raw.out.len(), &|n| raw.out[n]),
        (WRITE_ZEROES, OK) => ranges().for_each(|(sector, len)| fill(sector, len, &|_| 0)),
        (request::DISCARD, OK) => ranges().for_each(|(sector, len)| fill(sector, len, &|_| 0xdd)),
        (OUT, _) => {
            let at = raw.sector.saturating_mul(SECTOR) as usize;
            fill(raw.sector, raw.out.len(), &|n| after[at + n]);
        }
        (WRITE_ZEROES | request::DISCARD, _) => ranges().for_each(|(sector, len)| {
            let at = sector.saturating_mul(SECTOR) as usize;
            fill(sector, len, &|n| after[at + n]);
        }),
        _ => {}
    }
}

proptest! {
    #![proptest_config(support::cases(200))]

    #[test]
    fn requests_do_what_the_specification_says(
        setup in setup(),
        rounds in prop::collection::vec(prop::collection::vec(request::spec(), 1..16), 1..5),
    ) {
        let disk = RamDisk::new(setup.geometry);
        disk.0.pool.set(setup.pool);
        disk.0.failing.set(setup.failing);
        let mut machine = Machine::new(disk, setup.options, setup.seed);
        let mut driver = machine.start(setup.features, setup.size).remove(0);
        driver.polling = setup.polling;
        driver.listen();
        for specs in &rounds {
            round(&mut machine, &mut driver, &setup, specs);
            driver.listen();
        }
        let counters = machine.device.model().counters();
        prop_assert_eq!(counters.queues.batches as usize, machine.guest.batches.get());
        prop_assert_eq!(counters.queues.notifications as usize, machine.bells[0].rings.get());
    }
}
