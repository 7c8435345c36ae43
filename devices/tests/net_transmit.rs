//! virtio-net, from the driver to the network: whatever is sent, in whatever pieces, arrives as it was, and
//! nothing else does.

mod support;

use devices::features::{ACCESS_PLATFORM, EVENT_IDX, INDIRECT_DESC, VERSION_1};
use devices::net::{Offload, features as net};
use proptest::prelude::*;
use support::driver::{Driver, Layout, Piece};
use support::guest::BASE;
use support::machine::{ARENA, MEMORY, Machine};
use support::packet::{self, HEADER, Shape};
use support::port::{NIC, TestPort};

const MINIMUM: u64 = VERSION_1 | ACCESS_PLATFORM;
const TRANSMIT: usize = 1;

#[derive(Clone, Debug)]
enum Kind {
    /// So many bytes, with nothing left to do.
    Plain(usize),
    /// TCP with a checksum to compute, and maybe to cut up.
    Tcp(Shape, usize, Option<u16>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// Only so many bytes in all.
    Short(usize),
    /// A byte of virtio's header is something else, and what is sent is either right or dropped.
    Header(usize, u8),
    /// A page of it cannot be read.
    Hole,
}

#[derive(Clone, Debug)]
struct Spec {
    kind: Kind,
    flaw: Flaw,
    cuts: Vec<u16>,
    table: Option<u8>,
}

fn spec() -> impl Strategy<Value = Spec> {
    let tcp = (
        packet::shape(0..4),
        0usize..64_000,
        // With all headers that there may be, a segment fits the line.
        prop_oneof![Just(None), (500u16..1300).prop_map(Some)],
    )
        .prop_map(|(shape, len, size)| {
            let len = if size.is_some() { len } else { len % 1300 };
            Kind::Tcp(shape, len, size)
        });
    let kind = prop_oneof![(14usize..1519).prop_map(Kind::Plain), tcp];
    let flaw = prop_oneof![
        8 => Just(Flaw::None),
        1 => (1usize..HEADER + 14).prop_map(Flaw::Short),
        1 => (0usize..HEADER, any::<u8>()).prop_map(|(at, value)| Flaw::Header(at, value)),
        1 => Just(Flaw::Hole),
    ];
    (
        kind,
        flaw,
        prop::collection::vec(any::<u16>(), 0..6),
        prop::option::of(0u8..3),
    )
        .prop_map(|(kind, flaw, cuts, table)| Spec {
            kind,
            flaw,
            cuts,
            table,
        })
}

/// A frame in the driver's memory, and what the network is to see of it.
struct Placed {
    bytes: Vec<u8>,
    offload: Offload,
    flaw: Flaw,
}

struct Sender {
    machine: Machine<TestPort>,
    driver: Driver,
    next: usize,
}

impl Sender {
    fn new(port: &TestPort, features: u64, size: u16, seed: u64) -> Self {
        let mut machine = port.machine(NIC, seed);
        let driver = machine.start(features, size).remove(TRANSMIT);
        Sender {
            machine,
            driver,
            next: ARENA,
        }
    }

    /// Puts bytes in the ring, split at `cuts`; tells whether there was room.
    fn put(&mut self, bytes: &[u8], cuts: &[u16], table: Option<u8>) -> bool {
        let len = bytes.len();
        let at = self.next;
        if at + len + 0x2000 > MEMORY {
            return false;
        }
        self.machine.guest.write(at, bytes);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| usize::from(*cut) % len).collect();
        cuts.extend([0, len]);
        cuts.sort_unstable();
        cuts.dedup();
        let pieces: Vec<Piece> = cuts
            .windows(2)
            .map(|ends| (at + ends[0], ends[1] - ends[0], false))
            .collect();
        // What belongs to the next one is on other pages.
        let table_at = (at + len).next_multiple_of(4096);
        self.next = table_at + 4096;
        let layout = match table {
            Some(direct) if usize::from(direct) < pieces.len() => Layout::Indirect(direct.into(), table_at),
            _ => Layout::Direct,
        };
        self.driver
            .add(&pieces, layout, &mut self.machine.random)
            .is_some()
    }

    fn send(&mut self, spec: &Spec) -> Option<Placed> {
        // What is said about it, and what of that is really to be done.
        let (bytes, said, offload) = match &spec.kind {
            Kind::Plain(len) => {
                let bytes = (0..*len).map(|n| (n * 7) as u8).collect();
                (bytes, Offload::default(), Offload::default())
            }
            Kind::Tcp(shape, len, size) => {
                let payload: Vec<u8> = (0..*len).map(|n| (n * 13 / 7) as u8).collect();
                let several = size.filter(|size| *len > usize::from(*size));
                (shape.tcp(&payload), shape.offload(*size), shape.offload(several))
            }
        };
        let mut whole = packet::header(&said, 0, 0).to_vec();
        whole.extend(&bytes);
        match spec.flaw {
            Flaw::Header(at, value) => whole[at] = value,
            Flaw::Short(len) => whole.truncate(len),
            Flaw::None | Flaw::Hole => {}
        }
        let at = self.next;
        if !self.put(&whole, &spec.cuts, spec.table) {
            return None;
        }
        if spec.flaw == Flaw::Hole {
            self.machine
                .guest
                .holes
                .borrow_mut()
                .insert((at + whole.len() - 1) / 4096);
        }
        Some(Placed {
            bytes,
            offload,
            flaw: spec.flaw,
        })
    }
}

proptest! {
    #![proptest_config(support::cases(100))]

    #[test]
    fn frames_arrive_as_they_were_sent(
        specs in prop::collection::vec(spec(), 1..30),
        optional in prop::bits::u8::masked(3),
        size in 2u32..9,
        room in prop_oneof![Just(70_000usize), Just(1 << 20)],
        seed in any::<u64>(),
    ) {
        let mut features = MINIMUM | net::CSUM | net::HOST_TSO4 | net::HOST_TSO6 | net::MTU;
        if optional & 1 != 0 {
            features |= INDIRECT_DESC;
        }
        if optional & 2 != 0 {
            features |= EVENT_IDX;
        }
        let port = TestPort::new(room);
        let mut sender = Sender::new(&port, features, 1 << size, seed);
        sender.driver.listen();
        let mut placed = Vec::new();
        let mut used = 0;
        for spec in &specs {
            placed.extend(sender.send(spec));
            if sender.machine.random.below(3) == 0 {
                sender.driver.publish();
                for _ in 0..sender.machine.random.below(20) {
                    sender.machine.step();
                }
                used += sender.driver.take_used().len();
                sender.driver.listen();
            }
        }
        sender.driver.publish();
        sender.machine.run();
        prop_assert!(!sender.machine.needs_reset(), "{:?}", sender.machine.faults);
        used += sender.driver.take_used().iter().inspect(|(_, written)| assert_eq!(*written, 0)).count();
        prop_assert_eq!((used, sender.driver.in_flight()), (placed.len(), 0));

        let mut taken = port.take().into_iter().peekable();
        let mut dropped = 0;
        for frame in &placed {
            let intact = taken.peek().is_some_and(|(bytes, _)| *bytes == frame.bytes);
            match frame.flaw {
                Flaw::None => {
                    prop_assert!(intact, "{} bytes", frame.bytes.len());
                    prop_assert_eq!(taken.next().unwrap().1, frame.offload);
                }
                Flaw::Header(..) if intact => drop(taken.next()),
                _ => dropped += 1,
            }
        }
        prop_assert!(taken.next().is_none());
        prop_assert_eq!(port.0.account.used(), 0);
        let counters = sender.machine.device.model().counters().transmit;
        prop_assert_eq!(counters.packets, (placed.len() - dropped) as u64);
        let reasons = counters.malformed + counters.too_short + counters.too_long + counters.unreadable;
        prop_assert_eq!(reasons, dropped as u64);
        prop_assert_eq!(counters.queues.batches as usize, sender.machine.guest.batches.get());
    }
}

#[test]
fn a_batch_costs_one_copy_call_and_at_most_one_notification() {
    let port = TestPort::new(1 << 20);
    let mut sender = Sender::new(&port, MINIMUM | net::CSUM, 64, 1);
    sender.machine.run();
    for _ in 0..32 {
        assert!(sender.put(&[0; HEADER + 60], &[12], None));
    }
    sender.driver.expose();
    sender.driver.bell.kick();
    sender.machine.run();
    assert_eq!(port.take().len(), 32);
    assert_eq!(
        (sender.machine.guest.batches.get(), sender.driver.bell.rings.get()),
        (1, 1)
    );
}

#[test]
fn what_was_not_negotiated_is_dropped() {
    let shape = Shape {
        vlan: false,
        ipv6: false,
        ip_options: 0,
        tcp_options: 3,
        flags: 0x18,
        sequence: 1,
        id: 1,
    };
    let cases = [
        (0, None, false),
        (net::CSUM, None, true),
        (net::CSUM, Some(100), false),
        (net::CSUM | net::HOST_TSO6, Some(100), false),
        (net::CSUM | net::HOST_TSO4, Some(100), true),
        // Without what it requires.
        (net::HOST_TSO4, Some(100), false),
    ];
    for (features, size, passes) in cases {
        let port = TestPort::new(1 << 20);
        let mut sender = Sender::new(&port, MINIMUM | features, 8, 1);
        let mut bytes = packet::header(&shape.offload(size), 0, 0).to_vec();
        bytes.extend(shape.tcp(&[7; 1000]));
        assert!(sender.put(&bytes, &[], None));
        sender.driver.publish();
        sender.machine.run();
        assert_eq!(port.take().len(), usize::from(passes), "{features:x}");
        assert_eq!(sender.driver.take_used().len(), 1);
    }
}

#[test]
fn segments_fit_the_line() {
    let shape = Shape {
        vlan: true,
        ipv6: false,
        ip_options: 0,
        tcp_options: 0,
        flags: 0x10,
        sequence: 1,
        id: 0,
    };
    // An MTU of 1500, less 40 for IP and TCP.
    for (size, passes) in [(1460, true), (1461, false)] {
        let port = TestPort::new(1 << 20);
        let mut sender = Sender::new(&port, MINIMUM | net::CSUM | net::HOST_TSO4, 8, 1);
        let mut bytes = packet::header(&shape.offload(Some(size)), 0, 0).to_vec();
        bytes.extend(shape.tcp(&[7; 3000]));
        assert!(sender.put(&bytes, &[], None));
        sender.driver.publish();
        sender.machine.run();
        assert_eq!(port.take().len(), usize::from(passes));
        let too_long = sender.machine.device.model().counters().transmit.too_long;
        assert_eq!(too_long, u64::from(!passes));
    }
}

#[test]
fn segments_are_what_they_are_said_to_be() {
    let shape = Shape {
        vlan: true,
        ipv6: true,
        ip_options: 0,
        tcp_options: 0,
        flags: 0x10,
        sequence: 1,
        id: 0,
    };
    let good = packet::header(&shape.offload(Some(1000)), 0, 0);
    let frame = shape.tcp(&[7; 3000]);
    let bad = |change: &dyn Fn(&mut [u8])| {
        let port = TestPort::new(1 << 20);
        let features = MINIMUM | net::CSUM | net::HOST_TSO4 | net::HOST_TSO6;
        let mut sender = Sender::new(&port, features, 8, 1);
        let mut bytes = [&good[..], &frame].concat();
        change(&mut bytes);
        assert!(sender.put(&bytes, &[], None));
        sender.driver.publish();
        sender.machine.run();
        (
            port.take().len(),
            sender.machine.device.model().counters().transmit.malformed,
        )
    };
    assert_eq!(bad(&|_| {}), (1, 0));
    // Another length, the other IP, another place for TCP or its checksum, UDP, no room for options.
    assert_eq!(bad(&|bytes| bytes[HEADER + 18 + 5] ^= 1), (0, 1));
    assert_eq!(bad(&|bytes| bytes[1] = 1), (0, 1));
    assert_eq!(bad(&|bytes| bytes[6] += 1), (0, 1));
    assert_eq!(bad(&|bytes| bytes[8] -= 10), (0, 1));
    assert_eq!(bad(&|bytes| bytes[HEADER + 18 + 6] = 17), (0, 1));
    assert_eq!(bad(&|bytes| bytes[HEADER + 18 + 40 + 12] = 0x40), (0, 1));
    // Segments longer than the MTU.
    assert_eq!(bad(&|bytes| bytes[5] = 6), (0, 0));
}

#[test]
fn too_long_is_dropped() {
    let port = TestPort::new(1 << 20);
    let mut sender = Sender::new(&port, MINIMUM, 8, 1);
    for len in [1518, 1519, 65535 + 18, 65535 + 19] {
        assert!(sender.put(&vec![0; HEADER + len], &[], None));
    }
    sender.driver.publish();
    sender.machine.run();
    assert_eq!(port.take().len(), 1);
    let counters = sender.machine.device.model().counters().transmit;
    assert_eq!((counters.packets, counters.too_long), (1, 3));
    // A chain that is only for the device to write is an empty frame.
    let pieces = [(ARENA, 2000, true)];
    sender
        .driver
        .add(&pieces, Layout::Direct, &mut sender.machine.random);
    sender.driver.publish();
    sender.machine.run();
    assert_eq!(sender.machine.device.model().counters().transmit.too_short, 1);
    assert!(!sender.machine.needs_reset());
}

#[test]
fn the_driver_waits_for_the_network() {
    // Room for two frames.
    let port = TestPort::new(2100);
    let mut sender = Sender::new(&port, MINIMUM, 8, 1);
    for _ in 0..5 {
        assert!(sender.put(&[0; HEADER + 1000], &[], None));
    }
    sender.driver.publish();
    while sender.machine.executor.step(&mut sender.machine.random) {}
    assert_eq!(
        (port.0.sent.borrow().len(), sender.driver.take_used().len()),
        (2, 2)
    );
    assert!(sender.machine.device.model().counters().transmit.waited > 0);
    sender.machine.run();
    assert_eq!((port.take().len(), sender.driver.take_used().len()), (5, 3));
    // A reset does not wait for that.
    for _ in 0..5 {
        assert!(sender.put(&[0; HEADER + 1000], &[], None));
    }
    sender.driver.publish();
    while sender.machine.executor.step(&mut sender.machine.random) {}
    sender.machine.set_status(0);
    assert_eq!(sender.machine.guest.windows.get(), 0);
    sender.machine.run();
    assert_eq!((port.take().len(), port.0.account.used()), (2, 0));
}

#[test]
fn an_unreadable_table_breaks_the_queue() {
    let port = TestPort::new(1 << 20);
    let mut sender = Sender::new(&port, MINIMUM | INDIRECT_DESC, 8, 1);
    assert!(sender.put(&[0; HEADER + 1000], &[12], Some(0)));
    let table = sender.machine.guest.read(sender.driver.areas[0], 16 * 8);
    let at = table
        .chunks(16)
        .find(|entry| entry[12] & 4 != 0)
        .map(|entry| u64::from_le_bytes(entry[..8].try_into().unwrap()) - BASE)
        .unwrap();
    sender.machine.guest.holes.borrow_mut().insert(at as usize / 4096);
    sender.driver.publish();
    sender.machine.run();
    assert!(sender.machine.needs_reset());
    assert_eq!(port.0.account.used(), 0);
}
