//! What the driver of a network device commands, and how the device begins, changes and ends.

mod support;

use devices::device::Fault;
use devices::features::{ACCESS_PLATFORM, EVENT_IDX, INDIRECT_DESC, RING_RESET, VERSION_1};
use devices::net::{Filter, Link, Offload, Options, features as net};
use devices::virtqueue::QueueError;
use proptest::prelude::*;
use support::driver::{Driver, Layout, Piece};
use support::machine::{ARENA, Machine};
use support::port::{LINK, MAC, NIC, TestPort};
use zerocopy::little_endian::{U16, U32};

const MINIMUM: u64 = VERSION_1 | ACCESS_PLATFORM;
const ALL: u64 = MINIMUM
    | net::CSUM
    | net::GUEST_CSUM
    | net::CTRL_GUEST_OFFLOADS
    | net::MTU
    | net::MAC
    | net::GUEST_TSO4
    | net::GUEST_TSO6
    | net::HOST_TSO4
    | net::HOST_TSO6
    | net::MRG_RXBUF
    | net::STATUS
    | net::CTRL_VQ
    | net::CTRL_RX
    | net::CTRL_VLAN
    | net::CTRL_RX_EXTRA
    | net::GUEST_ANNOUNCE
    | net::CTRL_MAC_ADDR
    | net::SPEED_DUPLEX;

const OK: u8 = 0;
const ERR: u8 = 1;

struct Setup {
    port: TestPort,
    machine: Machine<TestPort>,
    drivers: Vec<Driver>,
    /// Which of them is the control queue's.
    control: usize,
}

impl Setup {
    fn new(options: Options, features: u64) -> Self {
        let port = TestPort::new(1 << 20);
        let mut machine = port.machine(options, 1);
        let drivers = machine.start(features, 16);
        machine.run();
        let control = if features & net::MQ != 0 {
            2 * usize::from(options.pairs)
        } else {
            2
        };
        Setup {
            port,
            machine,
            drivers,
            control,
        }
    }

    /// Gives a command, and the answer.
    fn command(&mut self, bytes: &[u8]) -> u8 {
        let ack = ARENA + 0x20000;
        self.machine.guest.write(ARENA, bytes);
        self.machine.guest.write(ack, &[0x77]);
        let cut = bytes.len() / 2;
        let pieces: [Piece; 4] = [
            (ARENA, cut, false),
            (ARENA + cut, bytes.len() - cut, false),
            (ack, 1, true),
            (ack + 1, 10, true),
        ];
        let driver = &mut self.drivers[self.control];
        let head = driver
            .add(&pieces, Layout::Direct, &mut self.machine.random)
            .unwrap();
        driver.publish();
        self.machine.run();
        assert_eq!(driver.take_used(), [(head, 1)]);
        driver.listen();
        self.machine.guest.read(ack, 1)[0]
    }

    fn filter(&self) -> Filter {
        self.port.filter()
    }
}

fn table(unicast: &[[u8; 6]], multicast: &[[u8; 6]]) -> Vec<u8> {
    let mut command = vec![1, 0];
    for list in [unicast, multicast] {
        command.extend((list.len() as u32).to_le_bytes());
        command.extend(list.concat());
    }
    command
}

#[test]
fn features_and_configuration() {
    let port = TestPort::new(0);
    let mut machine = port.machine(NIC, 1);
    let device = INDIRECT_DESC | EVENT_IDX | RING_RESET;
    assert_eq!(machine.offered(), ALL | device);
    assert_eq!(machine.config::<[u8; 6]>(0), MAC);
    assert_eq!(machine.config::<U16>(6).get(), 1, "the link is up");
    assert_eq!(machine.config::<U16>(10).get(), 1500);
    assert_eq!(machine.config::<U32>(12).get(), 10_000);
    assert_eq!(machine.config::<u8>(16), 1, "full duplex");
    let mut machine = port.machine(Options { pairs: 2, ..NIC }, 1);
    assert_eq!(machine.offered(), ALL | device | net::MQ);
    assert_eq!(machine.config::<U16>(8).get(), 2);
}

#[test]
fn the_link_comes_and_goes() {
    let mut setup = Setup::new(NIC, ALL);
    setup.machine.events.clear();
    setup.port.set_link(Link { up: false, ..LINK });
    setup.machine.run();
    assert_eq!(setup.machine.events.len(), 1);
    assert_eq!(setup.machine.config::<U16>(6).get(), 0);
    // The MTU stays what the driver was told; the driver is not told what it cannot see.
    setup.port.set_link(Link {
        up: false,
        mtu: 9000,
        ..LINK
    });
    setup.machine.run();
    assert_eq!(setup.machine.events.len(), 1);
    assert_eq!(setup.machine.config::<U16>(10).get(), 1500);
    setup.port.set_link(Link {
        mtu: 9000,
        speed: u32::MAX - 1,
        ..LINK
    });
    setup.machine.run();
    assert_eq!(setup.machine.events.len(), 2);
    assert_eq!(setup.machine.config::<U32>(12).get(), u32::MAX);
    setup.machine.set_status(0);
    assert_eq!(setup.machine.config::<U16>(10).get(), 9000);
}

#[test]
fn the_driver_is_asked_to_announce_itself() {
    let moved = Link {
        announcements: 1,
        ..LINK
    };
    let mut setup = Setup::new(NIC, ALL);
    setup.machine.events.clear();
    setup.port.set_link(moved);
    setup.machine.run();
    assert_eq!(setup.machine.events.len(), 1);
    assert_eq!(setup.machine.config::<U16>(6).get(), 3);
    assert_eq!(setup.command(&[3, 0]), OK);
    assert_eq!(setup.machine.config::<U16>(6).get(), 1);
    setup.machine.run();
    assert_eq!(setup.machine.events.len(), 1, "that is no news");
    // Not one that cannot.
    let mut setup = Setup::new(NIC, ALL & !net::GUEST_ANNOUNCE);
    setup.machine.events.clear();
    setup.port.set_link(moved);
    setup.machine.run();
    assert!(setup.machine.events.is_empty());
    assert_eq!(setup.machine.config::<U16>(6).get(), 1);
    assert_eq!(setup.command(&[3, 0]), ERR);
}

#[test]
fn nothing_is_collected_for_a_driver_that_is_not_there() {
    let port = TestPort::new(0);
    let mut machine = port.machine(NIC, 1);
    let wants = |to, vlan| port.filter().accepts(to, vlan);
    for to in [MAC, [0xff; 6], [1, 0, 0, 0, 0, 1]] {
        assert!(!wants(to, None));
    }
    machine.start(MINIMUM, 16);
    for to in [MAC, [0xff; 6], [1, 0, 0, 0, 0, 1]] {
        assert!(wants(to, None) && wants(to, Some(7)));
    }
    assert!(!wants([2; 6], None));
    port.put(0, &[0; 60], Offload::default());
    machine.set_status(0);
    assert_eq!((port.waiting(), port.0.used_queues.get()), (0, 1));
    assert!(!wants(MAC, None));
}

#[test]
fn receive_modes() {
    let mut setup = Setup::new(NIC, ALL);
    let mode = |setup: &mut Setup, command, on| {
        assert_eq!(setup.command(&[0, command, on]), OK);
        setup.filter()
    };
    assert!(mode(&mut setup, 0, 1).promiscuous);
    assert!(!mode(&mut setup, 0, 0).promiscuous);
    assert!(mode(&mut setup, 1, 1).all_multicast);
    assert!(!mode(&mut setup, 1, 0).all_multicast);
    assert!(mode(&mut setup, 2, 1).all_unicast);
    assert!(mode(&mut setup, 3, 1).no_multicast);
    assert!(mode(&mut setup, 4, 1).no_unicast);
    assert!(mode(&mut setup, 5, 1).no_broadcast);
    assert!(!mode(&mut setup, 5, 0).no_broadcast);
    for bad in [
        &[0, 6, 1][..],
        &[0, 0, 2],
        &[0, 0],
        &[0, 0, 1, 1],
        &[0],
        &[0, 0xff, 0],
    ] {
        assert_eq!(setup.command(bad), ERR, "{bad:?}");
    }
    let mut setup = Setup::new(NIC, ALL & !net::CTRL_RX_EXTRA);
    assert_eq!((setup.command(&[0, 0, 1]), setup.command(&[0, 2, 1])), (OK, ERR));
    let mut setup = Setup::new(NIC, ALL & !net::CTRL_RX);
    assert_eq!((setup.command(&[0, 0, 1]), setup.command(&[0, 2, 1])), (ERR, ERR));
    assert_eq!(setup.command(&table(&[], &[])), ERR);
}

#[test]
fn address_tables() {
    let mut setup = Setup::new(NIC, ALL);
    let (b, a, group) = ([4, 0, 0, 0, 0, 2], [4, 0, 0, 0, 0, 1], [1, 0, 0, 0, 0, 1]);
    assert_eq!(setup.command(&table(&[b, a, b], &[group])), OK);
    let filter = setup.filter();
    assert_eq!((filter.unicast, filter.multicast), (vec![a, b], vec![group]));
    assert!(!filter.all_multicast && !filter.all_unicast);
    // Each table for itself may be too long to look at.
    assert_eq!(setup.command(&table(&[a], &[group; 65])), OK);
    let filter = setup.filter();
    assert_eq!(
        (filter.unicast, filter.all_unicast, filter.all_multicast),
        (vec![a], false, true)
    );
    assert_eq!(setup.command(&[0, 1, 0]), OK);
    assert!(setup.filter().all_multicast);
    assert_eq!(setup.command(&table(&[a; 1000], &[group])), OK);
    let filter = setup.filter();
    assert_eq!(
        (filter.multicast, filter.all_unicast, filter.all_multicast),
        (vec![group], true, false)
    );
    // More than there is, less than there is, larger than any.
    let good = table(&[a], &[group]);
    for bad in [
        &good[..good.len() - 1],
        &[&good[..], &[0]].concat(),
        &[1, 0, 0xff, 0xff, 0xff, 0xff],
        &[1, 0],
    ] {
        assert_eq!(setup.command(bad), ERR);
    }
    assert_eq!(setup.command(&table(&[a; 3000], &[])), ERR);
    assert_eq!(setup.filter().multicast, [group], "nothing has changed");
}

#[test]
fn vlans() {
    let mut setup = Setup::new(NIC, ALL);
    let wants = |setup: &Setup, vlan| setup.filter().accepts(MAC, vlan);
    assert!(wants(&setup, None) && !wants(&setup, Some(5)));
    assert_eq!(setup.command(&[2, 0, 5, 0]), OK);
    assert_eq!(setup.command(&[2, 0, 0xff, 0xf]), OK);
    assert!(wants(&setup, Some(5)) && wants(&setup, Some(4095)) && !wants(&setup, Some(6)));
    assert_eq!(setup.command(&[2, 1, 5, 0]), OK);
    assert!(!wants(&setup, Some(5)) && wants(&setup, Some(4095)));
    for bad in [&[2, 0, 0, 0x10][..], &[2, 2, 5, 0], &[2, 0, 5], &[2, 0, 5, 0, 0]] {
        assert_eq!(setup.command(bad), ERR);
    }
    let mut setup = Setup::new(NIC, ALL & !net::CTRL_VLAN);
    assert!(wants(&setup, Some(5)));
    assert_eq!(setup.command(&[2, 0, 5, 0]), ERR);
}

#[test]
fn the_address_changes() {
    let other = [6, 1, 2, 3, 4, 5];
    let mut setup = Setup::new(NIC, ALL);
    setup.machine.events.clear();
    assert_eq!(setup.command(&[&[1, 1], &other[..]].concat()), OK);
    assert_eq!(setup.machine.config::<[u8; 6]>(0), other);
    assert_eq!(setup.filter().mac, other);
    assert!(setup.machine.events.is_empty());
    for bad in [[0; 6], [0xff; 6], [1, 0, 0, 0, 0, 1]] {
        assert_eq!(setup.command(&[&[1, 1], &bad[..]].concat()), ERR);
    }
    setup.machine.set_status(0);
    assert_eq!(setup.machine.config::<[u8; 6]>(0), MAC);
    let fixed = Options {
        mac_fixed: true,
        ..NIC
    };
    let mut setup = Setup::new(fixed, ALL);
    assert_eq!(setup.command(&[&[1, 1], &other[..]].concat()), ERR);
    assert_eq!(setup.command(&[&[1, 1], &MAC[..]].concat()), OK);
    assert_eq!(setup.filter().mac, MAC);
}

#[test]
fn offloads_are_switched() {
    let mut setup = Setup::new(NIC, ALL & !net::GUEST_TSO6);
    let set = |setup: &mut Setup, offloads: u64| {
        let command = [&[5, 0], &offloads.to_le_bytes()[..]].concat();
        setup.command(&command)
    };
    let buffer = (ARENA + 0x40000, 2000, true);
    let header = |setup: &mut Setup| {
        let receive = &mut setup.drivers[0];
        receive
            .add(&[buffer], Layout::Direct, &mut setup.machine.random)
            .unwrap();
        receive.publish();
        let checksum = devices::net::Checksum::Valid;
        let offload = Offload {
            checksum,
            segmentation: None,
        };
        setup.port.put(0, &[0; 60], offload);
        setup.machine.run();
        assert_eq!(setup.drivers[0].take_used().len(), 1);
        setup.machine.guest.read(buffer.0, 1)[0]
    };
    assert_eq!(header(&mut setup), 2);
    assert_eq!(set(&mut setup, 0), OK);
    assert_eq!(header(&mut setup), 0);
    assert_eq!(set(&mut setup, net::GUEST_CSUM | net::GUEST_TSO4), OK);
    assert_eq!(header(&mut setup), 2);
    assert_eq!(set(&mut setup, net::GUEST_TSO6), ERR, "it was not negotiated");
    assert_eq!(set(&mut setup, 1 << 9), ERR);
    assert_eq!(setup.command(&[5, 0, 0]), ERR);
}

#[test]
fn queues_are_switched() {
    let options = Options { pairs: 2, ..NIC };
    // Without MQ the control queue is the third.
    let mut setup = Setup::new(options, ALL);
    assert_eq!(setup.command(&[4, 0, 2, 0]), ERR);
    assert_eq!(setup.command(&[0, 0, 1]), OK);
    // The queues behind it are none: what is put there stays there.
    setup.drivers[3]
        .add(&[(ARENA, 72, false)], Layout::Direct, &mut setup.machine.random)
        .unwrap();
    setup.drivers[3].publish();
    setup.machine.run();
    assert!(setup.port.take().is_empty() && setup.drivers[3].take_used().is_empty());

    let mut setup = Setup::new(options, ALL | net::MQ);
    assert_eq!(setup.command(&[4, 0, 2, 0]), OK);
    assert_eq!(setup.port.0.used_queues.get(), 2);
    for bad in [&[4, 0, 0, 0][..], &[4, 0, 3, 0], &[4, 0, 2], &[4, 1, 2, 0]] {
        assert_eq!(setup.command(bad), ERR);
    }
    // Both pairs work.
    for queue in [0, 2] {
        let random = &mut setup.machine.random;
        setup.drivers[queue]
            .add(&[(ARENA + 0x1000 * queue, 2000, true)], Layout::Direct, random)
            .unwrap();
        setup.drivers[queue].publish();
        setup.drivers[queue + 1]
            .add(&[(ARENA, 72, false)], Layout::Direct, random)
            .unwrap();
        setup.drivers[queue + 1].publish();
        setup.port.put(queue / 2, &[queue as u8; 60], Offload::default());
        setup.machine.run();
        assert_eq!(setup.drivers[queue].take_used()[0].1, 72);
        assert_eq!(setup.port.take().len(), 1);
    }
    // What comes for a queue that is switched off is lost, and does not reach the driver.
    assert_eq!(setup.command(&[4, 0, 1, 0]), OK);
    let random = &mut setup.machine.random;
    setup.drivers[2]
        .add(&[(ARENA, 2000, true)], Layout::Direct, random)
        .unwrap();
    setup.drivers[2].publish();
    setup.port.put(1, &[1; 60], Offload::default());
    setup.machine.run();
    assert!(setup.drivers[2].take_used().is_empty());
    assert_eq!(setup.machine.device.model().counters().receive.unused_queue, 1);
}

#[test]
fn commands_that_break_the_queue() {
    let broken = |pieces: &[Piece], hole: usize| {
        let mut setup = Setup::new(NIC, ALL);
        setup.machine.guest.holes.borrow_mut().insert(hole / 4096);
        setup.drivers[2]
            .add(pieces, Layout::Direct, &mut setup.machine.random)
            .unwrap();
        setup.drivers[2].publish();
        setup.machine.run();
        assert!(setup.machine.needs_reset());
        match setup.machine.faults.pop() {
            Some(Fault::Broken(2, error)) => error,
            other => panic!("{other:?}"),
        }
    };
    let (command, ack) = ((ARENA, 3, false), (ARENA + 0x1000, 1, true));
    assert_eq!(broken(&[command], 0x300000), QueueError::NoStatus);
    assert!(matches!(broken(&[command, ack], ARENA), QueueError::Header(_)));
    assert!(matches!(
        broken(&[command, ack], ARENA + 0x1000),
        QueueError::Status(_)
    ));
}

proptest! {
    #![proptest_config(support::cases(300))]

    #[test]
    fn any_command_is_answered(
        class in 0u8..7,
        command in 0u8..7,
        data in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..12),
            prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(2), any::<u8>()], 0..60),
        ],
    ) {
        let mut setup = Setup::new(Options { pairs: 2, ..NIC }, ALL | net::MQ);
        let before = setup.filter();
        let answer = setup.command(&[&[class, command], &data[..]].concat());
        prop_assert!(answer == OK || answer == ERR);
        prop_assert!(answer == OK || setup.filter() == before);
        let counters = setup.machine.device.model().counters().control;
        prop_assert_eq!((counters.obeyed, counters.refused), ((1 - answer).into(), answer.into()));
    }
}

#[test]
fn resets_in_the_middle_of_traffic() {
    for whole in [true, false] {
        let features = ALL | RING_RESET;
        let mut setup = Setup::new(NIC, features);
        for round in 0..20 {
            let machine = &mut setup.machine;
            for n in 0..8 {
                let at = ARENA + 0x1000 * n;
                setup.drivers[0].add(&[(at, 700, true)], Layout::Direct, &mut machine.random);
                setup.drivers[1].add(&[(at, 1000, false)], Layout::Direct, &mut machine.random);
                setup.port.put(0, &[3; 1500], Offload::default());
            }
            setup.drivers[0].publish();
            setup.drivers[1].publish();
            for _ in 0..machine.random.below(3 + round) {
                machine.step();
            }
            let rings: Vec<_> = setup
                .drivers
                .iter()
                .map(|driver| driver.bell.rings.get())
                .collect();
            if whole {
                machine.set_status(0);
                assert_eq!((machine.guest.windows.get(), setup.port.waiting()), (0, 0));
                machine.run();
                let after: Vec<_> = setup
                    .drivers
                    .iter()
                    .map(|driver| driver.bell.rings.get())
                    .collect();
                assert!(
                    after
                        .iter()
                        .zip(&rings)
                        .all(|(after, before)| after - before <= 2)
                );
                assert_eq!(machine.executor.tasks(), 0);
                setup.drivers = machine.start(features, 16);
            } else {
                machine.reset_queue(0);
                machine.reset_queue(1);
                assert_eq!(machine.guest.windows.get(), 3, "the control queue's");
                setup.drivers[0] = machine.set_queue(0, 16, features).unwrap();
                setup.drivers[1] = machine.set_queue(1, 16, features).unwrap();
            }
            setup.machine.run();
            assert!(!setup.machine.needs_reset());
            assert_eq!(setup.port.0.account.used(), 0);
        }
    }
}
