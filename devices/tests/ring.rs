//! The rings: notifications in every order of events, wrap-around, and bytes that no driver would write.

mod support;

use std::cell::RefCell;
use std::rc::Rc;

use devices::disk::Geometry;
use devices::features::{ACCESS_PLATFORM, EVENT_IDX, INDIRECT_DESC, VERSION_1};
use devices::memory::DriverMemory;
use devices::virtqueue::split::{Split, areas};
use devices::virtqueue::{Chain, QueueError, Virtqueue};
use proptest::prelude::*;
use support::Random;
use support::disk::{GEOMETRY, RamDisk};
use support::driver::{Bell, Driver, INDIRECT, Layout, NEXT, WRITE, descriptor};
use support::guest::{BASE, Guest, Shared};
use support::machine::{ARENA, Machine, OPTIONS};

const MINIMUM: u64 = VERSION_1 | ACCESS_PLATFORM;

const FLUSH_HEADER: usize = ARENA;
const GET_ID_HEADER: usize = ARENA + 16;
const STATUS: usize = ARENA + 32;

/// A driver that does one access to the rings at a time, between those of the device.
struct Actor {
    driver: Driver,
    random: Random,
    to_submit: usize,
    returned: usize,
    submitting: Submitting,
    taking: Taking,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Submitting {
    Idle,
    /// The index is written; whether to notify is to be found out.
    Exposed(u16, u16),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Taking {
    /// Until the device notifies.
    Asleep,
    Awake,
    /// Notifications are asked for; the ring is to be looked at again.
    Listening,
}

impl Actor {
    /// Does one thing; tells whether there was anything to do.
    fn step(&mut self) -> bool {
        let submit = self.submitting != Submitting::Idle || self.to_submit > 0;
        let take = self.taking != Taking::Asleep || self.driver.bell.rung.get();
        match (submit, take) {
            (false, false) => false,
            (true, false) => self.submit(),
            (false, true) => self.take(),
            (true, true) if self.random.below(2) == 0 => self.submit() || self.take(),
            (true, true) => self.take(),
        }
    }

    fn submit(&mut self) -> bool {
        match self.submitting {
            Submitting::Exposed(old, new) => {
                self.driver.kick_if_wanted((old, new));
                self.submitting = Submitting::Idle;
            }
            Submitting::Idle => {
                let mut added = 0;
                while added < self.to_submit && (added == 0 || self.random.below(2) == 0) {
                    // Headers and data are shared, nobody looks at them.
                    let flush = [(FLUSH_HEADER, 16, false), (STATUS, 1, true)];
                    let get_id = [(GET_ID_HEADER, 16, false), (STATUS, 21, true)];
                    // What has to wait for the disk makes the device look again later; the other does not.
                    let pieces = if self.random.below(4) == 0 { flush } else { get_id };
                    if self
                        .driver
                        .add(&pieces, Layout::Direct, &mut self.random)
                        .is_none()
                    {
                        break;
                    }
                    added += 1;
                }
                if added == 0 {
                    return false;
                }
                self.to_submit -= added;
                let (old, new) = self.driver.expose();
                self.submitting = Submitting::Exposed(old, new);
            }
        }
        true
    }

    fn take(&mut self) -> bool {
        match self.taking {
            Taking::Asleep => {
                self.driver.bell.rung.set(false);
                self.taking = Taking::Awake;
            }
            Taking::Awake => {
                self.returned += self.driver.take_used().len();
                self.driver.listen();
                self.taking = Taking::Listening;
            }
            Taking::Listening => {
                self.taking = if self.driver.used() {
                    Taking::Awake
                } else {
                    Taking::Asleep
                };
            }
        }
        true
    }
}

/// Sends requests until all have come back, and fails if one does not: then a notification was lost.
fn converse(features: u64, size: u16, requests: usize, seed: u64, pace: usize) -> Machine {
    // A small disk: it copies itself at every flush.
    let mut machine = Machine::new(
        RamDisk::new(Geometry {
            sectors: 8,
            ..GEOMETRY
        }),
        OPTIONS,
        seed,
    );
    let driver = machine.start(features, size).remove(0);
    machine
        .guest
        .write(FLUSH_HEADER, &support::request::FLUSH.to_le_bytes());
    machine
        .guest
        .write(GET_ID_HEADER, &support::request::GET_ID.to_le_bytes());
    let actor = Rc::new(RefCell::new(Actor {
        driver,
        random: Random::new(seed ^ 0xabcd),
        to_submit: requests,
        returned: 0,
        submitting: Submitting::Idle,
        taking: Taking::Asleep,
    }));
    let between = actor.clone();
    let mut random = Random::new(seed ^ 0x1234);
    *machine.guest.meanwhile.borrow_mut() = Some(Box::new(move || {
        while random.below(pace) == 0 && between.borrow_mut().step() {}
    }));
    loop {
        machine.run();
        let mut actor = actor.borrow_mut();
        if actor.submitting == Submitting::Idle
            && actor.taking == Taking::Asleep
            && !actor.driver.bell.rung.get()
        {
            // Both sides wait for the other. The next request would hide that.
            assert_eq!(actor.driver.in_flight(), 0, "a notification was lost");
        }
        if !actor.step() {
            break;
        }
    }
    *machine.guest.meanwhile.borrow_mut() = None;
    let actor = actor.borrow();
    assert_eq!(
        (actor.to_submit, actor.returned, actor.driver.in_flight()),
        (0, requests, 0)
    );
    machine
}

proptest! {
    #![proptest_config(support::cases(300))]

    #[test]
    fn no_notification_is_lost(
        event_idx in any::<bool>(),
        size in 1u32..6,
        requests in 1usize..200,
        seed in any::<u64>(),
        pace in 2usize..8,
    ) {
        let features = MINIMUM | if event_idx { EVENT_IDX } else { 0 };
        converse(features, 1 << size, requests, seed, pace);
    }
}

#[test]
fn indices_wrap() {
    for features in [MINIMUM, MINIMUM | EVENT_IDX] {
        let machine = converse(features, 64, 66_000, 5, 4);
        let counters = machine.device.model().counters();
        assert_eq!(counters.flushes + counters.get_ids, 66_000);
    }
}

/// A ring of its own, without a device.
fn split(guest: &Rc<Guest>, size: u16, features: u64) -> Split<support::guest::View> {
    let parts = areas(size);
    let memory = Shared(guest.clone());
    let map = |part: usize| {
        memory
            .map(BASE + 0x1000 * part as u64, parts[part].len, part == 2)
            .unwrap()
    };
    Split::new(map(0), map(1), map(2), size, features)
}

fn pair(size: u16, features: u64) -> (Split<support::guest::View>, Driver, Random) {
    let guest = Guest::new(0x40000);
    let driver = Driver::new(guest.clone(), Rc::new(Bell::default()), size, 0, features);
    (split(&guest, size, features), driver, Random::new(3))
}

#[test]
fn the_event_index_decides_about_notifications() {
    let (mut ring, mut driver, mut random) = pair(8, MINIMUM | EVENT_IDX);
    let mut chain = Chain::default();
    for _ in 0..4 {
        driver
            .add(&[(0x8000, 1, true)], Layout::Direct, &mut random)
            .unwrap();
    }
    driver.expose();
    let mut put = |ring: &mut Split<_>, count: usize| {
        for _ in 0..count {
            assert!(ring.pop(&mut chain).unwrap());
            ring.put(chain.id(), 1);
        }
        ring.publish()
    };
    driver.guest.write(driver.areas[1] + 4 + 16, &2u16.to_le_bytes());
    assert!(!put(&mut ring, 2), "entries 0 and 1");
    assert!(put(&mut ring, 1), "entry 2");
    assert!(!put(&mut ring, 1), "entry 3");
    assert!(!put(&mut ring, 0), "nothing is published");
    assert!(!ring.pop(&mut Chain::default()).unwrap());
    // Asking for notifications says which entry comes next.
    assert!(!ring.listen().unwrap());
    assert_eq!(driver.guest.read_u16(driver.areas[2] + 4 + 64), 4);
    assert_eq!(driver.guest.read_u16(driver.areas[2]), 0, "flags stay 0");
    driver.take_used();
    driver
        .add(&[(0x8000, 1, true)], Layout::Direct, &mut random)
        .unwrap();
    driver.publish();
    assert_eq!(driver.bell.kicks.get(), 1);
    assert!(ring.listen().unwrap(), "there is something already");
}

#[test]
fn flags_decide_without_the_event_index() {
    let (mut ring, mut driver, mut random) = pair(8, MINIMUM);
    let mut chain = Chain::default();
    let mut one = |driver: &mut Driver, ring: &mut Split<_>| {
        driver
            .add(&[(0x8000, 1, true)], Layout::Direct, &mut random)
            .unwrap();
        driver.publish();
        assert!(ring.pop(&mut chain).unwrap());
        ring.put(chain.id(), 1);
        let wanted = ring.publish();
        driver.take_used();
        wanted
    };
    assert!(one(&mut driver, &mut ring));
    ring.suppress();
    driver.polling = true;
    driver.listen();
    assert!(!one(&mut driver, &mut ring));
    assert_eq!(driver.bell.kicks.get(), 1, "the second was not notified of");
    assert!(!ring.listen().unwrap());
    one(&mut driver, &mut ring);
    assert_eq!(driver.bell.kicks.get(), 2);
}

#[test]
fn an_index_too_far_ahead_breaks_the_queue() {
    let (mut ring, mut driver, mut random) = pair(4, MINIMUM);
    let mut chain = Chain::default();
    for _ in 0..4 {
        driver
            .add(&[(0x8000, 1, true)], Layout::Direct, &mut random)
            .unwrap();
    }
    driver.expose();
    for _ in 0..4 {
        assert!(ring.pop(&mut chain).unwrap());
    }
    // All four are in flight: there cannot be a fifth.
    driver.guest.write(driver.areas[1] + 2, &5u16.to_le_bytes());
    assert_eq!(ring.pop(&mut chain), Err(QueueError::AvailableIndex));
    let (mut ring, driver, _) = pair(4, MINIMUM);
    driver.guest.write(driver.areas[1] + 2, &u16::MAX.to_le_bytes());
    assert_eq!(ring.listen(), Err(QueueError::AvailableIndex));
}

/// A descriptor that may or may not make sense.
fn wild() -> impl Strategy<Value = [u8; 16]> {
    let address = prop_oneof![
        6 => (0u64..0x40000).prop_map(|at| BASE + at),
        1 => any::<u64>(),
        1 => Just(u64::MAX),
    ];
    let len = prop_oneof![4 => 0u32..64, 2 => (0u32..70).prop_map(|n| n * 512), 1 => any::<u32>()];
    let flags =
        prop_oneof![4 => 0u16..8, 2 => Just(NEXT), 2 => Just(WRITE), 1 => Just(INDIRECT), 1 => any::<u16>()];
    let next = prop_oneof![6 => 0u16..16, 1 => any::<u16>()];
    (address, len, flags, next).prop_map(|(address, len, flags, next)| descriptor(address, len, flags, next))
}

proptest! {
    #![proptest_config(support::cases(300))]

    /// Nothing that is in the rings makes the device panic, run without end, or do anything but break the
    /// queue.
    #[test]
    fn wild_rings(
        table in prop::collection::vec(wild(), 16),
        indirect in prop::collection::vec(wild(), 16),
        ring in prop::collection::vec(prop_oneof![8 => 0u16..16, 1 => any::<u16>()], 16),
        header in prop::collection::vec(any::<u8>(), 24),
        indices in prop::collection::vec(prop_oneof![4 => 0u16..20, 1 => any::<u16>()], 1..6),
        seed in any::<u64>(),
        meddle in any::<bool>(),
    ) {
        let mut machine = Machine::new(RamDisk::new(GEOMETRY), OPTIONS, seed);
        let driver = machine.start(MINIMUM | INDIRECT_DESC | EVENT_IDX, 16).remove(0);
        let mut random = Random::new(seed);
        // Headers everywhere, of kinds that exist; tables at some places.
        for at in (ARENA..0x40000).step_by(64) {
            let mut bytes = header.clone();
            bytes[..4].copy_from_slice(&[0u32, 1, 4, 11][random.below(4)].to_le_bytes());
            bytes[9..16].fill(0);
            machine.guest.write(at, &bytes);
        }
        for at in (0x30000..0x40000).step_by(0x1000) {
            machine.guest.write(at, indirect.as_flattened());
        }
        machine.guest.write(driver.areas[0], table.as_flattened());
        for (slot, head) in ring.iter().enumerate() {
            machine.guest.write(driver.areas[1] + 4 + 2 * slot, &head.to_le_bytes());
        }
        if meddle {
            let guest = std::rc::Rc::downgrade(&machine.guest);
            *machine.guest.meanwhile.borrow_mut() = Some(Box::new(move || {
                if let Some(guest) = guest.upgrade() && random.below(4) == 0 {
                    let at = [0, 0x1000, 0x2000][random.below(3)] + random.below(256);
                    guest.write(at, &[random.next() as u8]);
                }
            }));
        }
        for index in indices {
            machine.guest.write(driver.areas[1] + 2, &index.to_le_bytes());
            driver.bell.kick();
            machine.run();
        }
        let resting = machine.uplink.under_way();
        prop_assert_eq!(resting, 0);
        machine.set_status(0);
        prop_assert_eq!((machine.uplink.channels(), machine.guest.windows.get()), (0, 0));
        machine.run();
        prop_assert_eq!(machine.executor.tasks(), 0);
    }
}
