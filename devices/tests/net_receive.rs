//! virtio-net, from the network to the driver: frames arrive as they are, or as what the driver can take.

mod support;

use std::cell::Cell;
use std::rc::Rc;

use devices::features::{ACCESS_PLATFORM, EVENT_IDX, INDIRECT_DESC, VERSION_1};
use devices::net::{Checksum, Offload, SegmentationKind, features as net};
use proptest::prelude::*;
use support::driver::{Driver, Layout, NEXT, Piece, WRITE, descriptor};
use support::guest::BASE;
use support::machine::{ARENA, Machine};
use support::packet::{self, HEADER, Shape};
use support::port::{NIC, TestPort};

const MINIMUM: u64 = VERSION_1 | ACCESS_PLATFORM;

/// A driver of receiveq1 that gives its buffers anew as it gets them back.
struct Receiver {
    machine: Machine<TestPort>,
    driver: Driver,
    mergeable: bool,
    /// Buffers: which head is for which place and how long.
    places: std::collections::HashMap<u16, (usize, usize)>,
    free: Vec<(usize, usize)>,
}

/// How far apart buffers are.
const STRIDE: usize = 0x12000;

impl Receiver {
    fn new(port: &TestPort, features: u64, size: u16, lens: &[usize], seed: u64) -> Self {
        let mut machine = port.machine(NIC, seed);
        let driver = machine.start(features, size).remove(0);
        let free = lens
            .iter()
            .enumerate()
            .map(|(n, len)| (ARENA + n * STRIDE, *len))
            .collect();
        Receiver {
            machine,
            driver,
            mergeable: features & net::MRG_RXBUF != 0,
            places: Default::default(),
            free,
        }
    }

    /// Gives the device all the buffers that there are, each as a whole or in whatever way.
    fn refill(&mut self, whole: bool) {
        while let Some((at, len)) = self.free.pop() {
            let random = &mut self.machine.random;
            let cut = 1 + random.below(len.max(2) - 1);
            let pieces: [Piece; 2] = [(at, cut, true), (at + cut, len - cut, true)];
            let pieces = if !whole && len > cut && random.below(2) == 0 {
                &pieces[..]
            } else {
                &[(at, len, true)]
            };
            let layout = match whole || random.below(2) == 0 {
                true => Layout::Direct,
                false => Layout::Indirect(0, at + STRIDE - 0x1000),
            };
            match self.driver.add(pieces, layout, random) {
                Some(head) => drop(self.places.insert(head, (at, len))),
                None => {
                    self.free.push((at, len));
                    break;
                }
            }
        }
        self.driver.publish();
    }

    /// The packets in the used buffers: virtio's header, and the bytes.
    fn take(&mut self) -> Vec<([u8; HEADER], Vec<u8>)> {
        let mut packets = Vec::new();
        let mut used = self.driver.take_used().into_iter();
        while let Some((head, len)) = used.next() {
            let (at, room) = self.places.remove(&head).unwrap();
            self.free.push((at, room));
            let bytes = self.machine.guest.read(at, len as usize);
            let (header, bytes) = bytes.split_first_chunk::<HEADER>().expect("a header");
            let mut packet = bytes.to_vec();
            let buffers = u16::from_le_bytes([header[10], header[11]]);
            assert!(buffers == 1 || self.mergeable && buffers > 0);
            let mut full = len as usize == room;
            for _ in 1..buffers {
                assert!(full, "all buffers but the last are full");
                let (head, len) = used.next().expect("all of a packet's buffers");
                let (at, room) = self.places.remove(&head).unwrap();
                self.free.push((at, room));
                packet.extend(self.machine.guest.read(at, len as usize));
                full = len as usize == room;
            }
            packets.push((*header, packet));
        }
        self.driver.listen();
        packets
    }

    /// Lets everything happen, until nothing more comes.
    fn receive(&mut self, whole: bool) -> Vec<([u8; HEADER], Vec<u8>)> {
        let mut packets = Vec::new();
        self.driver.listen();
        loop {
            self.refill(whole);
            self.machine.run();
            let more = self.take();
            if more.is_empty() {
                return packets;
            }
            packets.extend(more);
        }
    }
}

#[derive(Clone, Debug)]
enum Kind {
    Plain(usize, bool),
    Tcp(Shape, usize, Option<u16>),
}

fn kind() -> impl Strategy<Value = Kind> {
    let shape = packet::shape(0..4);
    let size = prop_oneof![Just(None), (100u16..1500).prop_map(Some)];
    prop_oneof![
        (14usize..1519, any::<bool>()).prop_map(|(len, valid)| Kind::Plain(len, valid)),
        (shape, 0usize..64_000, size).prop_map(|(shape, len, size)| {
            let len = if size.is_some() { len } else { len % 1300 };
            Kind::Tcp(shape, len, size)
        }),
    ]
}

proptest! {
    #![proptest_config(support::cases(150))]

    #[test]
    fn frames_arrive_as_the_driver_takes_them(
        kinds in prop::collection::vec(kind(), 1..12),
        optional in prop::collection::vec(any::<bool>(), 6),
        lens in prop::collection::vec(12usize..5000, 4..40),
        seed in any::<u64>(),
    ) {
        let choices = [net::GUEST_CSUM, net::GUEST_TSO4, net::GUEST_TSO6, net::MRG_RXBUF, INDIRECT_DESC, EVENT_IDX];
        let chosen = choices.iter().zip(&optional).filter(|(_, on)| **on);
        let features = chosen.fold(MINIMUM | net::MTU, |all, (feature, _)| all | feature);
        let on = |feature| features & feature != 0;
        let lens = if on(net::MRG_RXBUF) {
            // One packet has to fit in all of them.
            [&lens[..], &[16 << 10; 4]].concat()
        } else {
            vec![66_000; 5]
        };
        let port = TestPort::new(0);
        let mut receiver = Receiver::new(&port, features, 128, &lens, seed);
        for kind in &kinds {
            match kind {
                Kind::Plain(len, valid) => {
                    let bytes: Vec<u8> = (0..*len).map(|n| (n * 7) as u8).collect();
                    let checksum = if *valid { Checksum::Valid } else { Checksum::Unknown };
                    port.put(0, &bytes, Offload { checksum, segmentation: None });
                }
                Kind::Tcp(shape, len, size) => {
                    let payload: Vec<u8> = (0..*len).map(|n| (n * 13 / 7) as u8).collect();
                    port.put(0, &shape.tcp(&payload), shape.offload(*size));
                }
            }
            for _ in 0..receiver.machine.random.below(4) {
                receiver.machine.step();
            }
        }
        let mut packets = receiver.receive(false).into_iter();
        prop_assert!(!receiver.machine.needs_reset(), "{:?}", receiver.machine.faults);
        prop_assert_eq!(port.waiting(), 0);
        for kind in &kinds {
            match kind {
                Kind::Plain(len, valid) => {
                    let (header, bytes) = packets.next().unwrap();
                    prop_assert_eq!(bytes, (0..*len).map(|n| (n * 7) as u8).collect::<Vec<u8>>());
                    prop_assert_eq!(header[0], if *valid && on(net::GUEST_CSUM) { 2 } else { 0 });
                    prop_assert_eq!(&header[1..10], &[0; 9]);
                }
                Kind::Tcp(shape, len, size) => {
                    let payload: Vec<u8> = (0..*len).map(|n| (n * 13 / 7) as u8).collect();
                    let tso = if shape.ipv6 { net::GUEST_TSO6 } else { net::GUEST_TSO4 };
                    let partial = on(net::GUEST_CSUM);
                    let mut got = Vec::new();
                    let whole = partial && on(tso) && shape.flags & 0x80 == 0;
                    let cut = size.filter(|_| !whole);
                    let count = cut.map_or(1, |size| len.div_ceil(size.into()).max(1));
                    for _ in 0..count {
                        let (header, bytes) = packets.next().unwrap();
                        let mut offload = shape.offload(size.filter(|_| cut.is_none()));
                        if !partial {
                            offload = Offload::default();
                        }
                        let buffers = u16::from_le_bytes([header[10], header[11]]);
                        prop_assert_eq!(header, packet::header(&offload, shape.headers() as u16, buffers));
                        got.push(bytes);
                    }
                    if cut.is_none() && partial {
                        prop_assert_eq!(&got[0], &shape.tcp(&payload));
                    } else {
                        let size = cut.map_or(usize::MAX, usize::from);
                        prop_assert_eq!(shape.reassemble(&got, size, partial), payload);
                    }
                }
            }
        }
        prop_assert!(packets.next().is_none());
        let counters = receiver.machine.device.model().counters().receive;
        prop_assert_eq!(counters.queues.batches as usize, receiver.machine.guest.batches.get());
        prop_assert_eq!(counters.queues.notifications as usize, receiver.driver.bell.rings.get());
    }
}

fn shape() -> Shape {
    Shape {
        vlan: false,
        ipv6: false,
        ip_options: 0,
        tcp_options: 0,
        flags: 0x18,
        sequence: 0xffff_f000,
        id: 0xffff,
    }
}

#[test]
fn many_frames_cost_one_copy_call_and_one_notification() {
    let port = TestPort::new(0);
    let mut receiver = Receiver::new(&port, MINIMUM | net::MRG_RXBUF, 64, &[1536; 32], 1);
    receiver.refill(true);
    receiver.machine.run();
    for n in 0..32u8 {
        port.put(0, &[n; 1514], Offload::default());
    }
    receiver.machine.run();
    assert_eq!(
        (
            receiver.machine.guest.batches.get(),
            receiver.driver.bell.rings.get()
        ),
        (1, 1)
    );
    let packets = receiver.take();
    assert!(
        packets
            .iter()
            .enumerate()
            .all(|(n, (_, bytes))| *bytes == [n as u8; 1514])
    );
}

#[test]
fn what_never_fits_is_dropped() {
    // One small buffer must be enough, if buffers are not merged.
    let port = TestPort::new(0);
    let mut receiver = Receiver::new(&port, MINIMUM, 4, &[1000, 1000, 1000], 1);
    port.put(0, &[1; 989], Offload::default());
    port.put(0, &[2; 988], Offload::default());
    let packets = receiver.receive(true);
    assert_eq!(packets.len(), 1);
    assert_eq!(packets[0].1, [2; 988]);
    assert_eq!(receiver.machine.device.model().counters().receive.no_room, 1);
    // All the buffers that the queue can hold must be, if they are.
    let features = MINIMUM | net::MRG_RXBUF | net::GUEST_CSUM | net::GUEST_TSO4;
    let mut receiver = Receiver::new(&port, features, 4, &[1000; 4], 1);
    port.put(0, &shape().tcp(&[1; 4000]), shape().offload(Some(1400)));
    port.put(0, &shape().tcp(&[2; 3000]), shape().offload(Some(1400)));
    let packets = receiver.receive(true);
    assert_eq!(packets.len(), 1);
    assert_eq!(packets[0].1, shape().tcp(&[2; 3000]));
    assert_eq!(packets[0].0[10], 4);
    assert_eq!(receiver.machine.device.model().counters().receive.no_room, 1);
}

#[test]
fn frames_wait_for_buffers() {
    let port = TestPort::new(0);
    let mut receiver = Receiver::new(&port, MINIMUM | net::MRG_RXBUF, 16, &[700; 8], 1);
    receiver.machine.run();
    for _ in 0..5 {
        port.put(0, &[1; 1514], Offload::default());
    }
    receiver.machine.run();
    assert_eq!(port.waiting(), 4, "but for one, they wait in the port");
    assert_eq!(receiver.machine.device.model().counters().receive.no_buffer, 1);
    assert_eq!(receiver.receive(true).len(), 5);
}

#[test]
fn bad_buffers_are_given_back() {
    let port = TestPort::new(0);
    let mut receiver = Receiver::new(&port, MINIMUM | net::MRG_RXBUF, 16, &[11, 1, 2000], 1);
    receiver.refill(true);
    // And one that is not writable at all.
    let pieces = [(ARENA + 0x300000, 100, false)];
    receiver
        .driver
        .add(&pieces, Layout::Direct, &mut receiver.machine.random)
        .unwrap();
    receiver.driver.publish();
    port.put(0, &[1; 1514], Offload::default());
    receiver.machine.run();
    let used = receiver.driver.take_used();
    let mut lens: Vec<u32> = used.iter().map(|(_, len)| *len).collect();
    lens.sort_unstable();
    assert_eq!(lens, [0, 0, 0, 1526]);
    let counters = receiver.machine.device.model().counters().receive;
    assert_eq!((counters.bad_buffers, counters.packets), (3, 1));
    assert!(!receiver.machine.needs_reset());
}

#[test]
fn an_unwritable_buffer_loses_its_packet_only() {
    let port = TestPort::new(0);
    let mut receiver = Receiver::new(&port, MINIMUM, 16, &[2000; 3], 1);
    receiver.refill(true);
    receiver
        .machine
        .guest
        .holes
        .borrow_mut()
        .insert((ARENA + STRIDE) / 4096);
    for n in 0..3 {
        port.put(0, &[n; 1000], Offload::default());
    }
    receiver.machine.run();
    let used = receiver.driver.take_used();
    assert_eq!(
        used.iter().map(|(_, len)| *len).collect::<Vec<_>>(),
        [1012, 0, 1012]
    );
    let counters = receiver.machine.device.model().counters().receive;
    assert_eq!((counters.unwritable, counters.packets), (1, 2));
}

#[test]
fn what_the_network_says_wrong_is_dropped() {
    let port = TestPort::new(0);
    let mut receiver = Receiver::new(&port, MINIMUM | net::MTU, 16, &[66000; 3], 1);
    // Longer than the MTU, though it need not be cut up.
    port.put(0, &[0; 1519], Offload::default());
    // TCP that is none.
    port.put(0, &[0; 1500], shape().offload(Some(100)));
    let mut offload = shape().offload(Some(100));
    offload.segmentation = offload.segmentation.map(|it| devices::net::Segmentation {
        kind: SegmentationKind::Tcp6,
        ..it
    });
    port.put(0, &shape().tcp(&[0; 1000]), offload);
    // A checksum further from the start than headers are long.
    let far = Checksum::Partial {
        start: 1000,
        offset: 16,
    };
    port.put(
        0,
        &[0; 1500],
        Offload {
            checksum: far,
            segmentation: None,
        },
    );
    assert!(receiver.receive(true).is_empty());
    let counters = receiver.machine.device.model().counters().receive;
    assert_eq!((counters.over_mtu, counters.malformed), (1, 3));
}

#[test]
fn useless_buffers_without_end_keep_nobody_waiting() {
    let port = TestPort::new(0);
    let mut receiver = Receiver::new(&port, MINIMUM, 16, &[], 1);
    // A driver on another processor, which makes one byte available again whenever it was given back.
    let (guest, [descriptors, available, used]) = (receiver.machine.guest.clone(), receiver.driver.areas);
    guest.write(descriptors, &descriptor(BASE + ARENA as u64, 1, WRITE, 0));
    let mut looks = 0;
    let neighbour = guest.clone();
    *guest.meanwhile.borrow_mut() = Some(Box::new(move || {
        looks += 1;
        assert!(looks < 100_000, "the device looks at nothing else");
        let next = neighbour.read_u16(used + 2).wrapping_add(16);
        neighbour.write(available + 2, &next.to_le_bytes());
    }));
    port.put(0, &[0; 100], Offload::default());
    for _ in 0..10 {
        receiver.machine.executor.step(&mut receiver.machine.random);
    }
    *guest.meanwhile.borrow_mut() = None;
    let counters = receiver.machine.device.model().counters().receive;
    assert!(counters.bad_buffers > 16 && counters.packets == 0);
    assert!(!receiver.machine.needs_reset());
}

#[test]
fn useless_buffers_cost_a_poll_and_not_each_packet() {
    let port = TestPort::new(0);
    let mut receiver = Receiver::new(&port, MINIMUM, 256, &[], 1);
    let (guest, [descriptors, available, used]) = (receiver.machine.guest.clone(), receiver.driver.areas);
    // One chain of nothing but empty descriptors, and one buffer, which is made available now and then.
    for n in 0..255 {
        let link = if n < 254 { NEXT } else { 0 };
        let empty = descriptor(BASE + ARENA as u64, 0, WRITE | link, n + 1);
        guest.write(descriptors + 16 * usize::from(n), &empty);
    }
    let good = descriptor(BASE + ARENA as u64, 2000, WRITE, 0);
    guest.write(descriptors + 16 * 255, &good);
    for slot in 0..256usize {
        let head: u16 = if slot.is_multiple_of(100) { 255 } else { 0 };
        guest.write(available + 4 + 2 * slot, &head.to_le_bytes());
    }
    let looks = Rc::new(Cell::new(0));
    let (neighbour, counted) = (guest.clone(), looks.clone());
    *guest.meanwhile.borrow_mut() = Some(Box::new(move || {
        counted.set(counted.get() + 1);
        let next = neighbour.read_u16(used + 2).wrapping_add(256);
        neighbour.write(available + 2, &next.to_le_bytes());
    }));
    for _ in 0..64 {
        port.put(0, &[0; 100], Offload::default());
    }
    let mut most = 0;
    for _ in 0..200 {
        looks.set(0);
        receiver.machine.executor.step(&mut receiver.machine.random);
        most = most.max(looks.get());
    }
    *guest.meanwhile.borrow_mut() = None;
    let counters = receiver.machine.device.model().counters().receive;
    assert_eq!(counters.packets, 64);
    assert!(most < 50_000, "{most} accesses in a poll");
}
