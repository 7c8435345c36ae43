//! Whatever comes from inside or outside, the router goes on.

use std::time::Duration;

use devices::net::{Checksum, Offload, Segmentation, SegmentationKind};
use network::router::{Address, Endpoint, Forward, Protocol};
use proptest::prelude::*;
use proptest::sample::Index;
use smoltcp::wire::{IpProtocol, TcpPacket};

use super::bed::{Host, Segment, bytes, fix_checksum, frame};
use super::made::{Made, raw, udp};
use super::services::ping;
use super::{GUEST, INSIDE, OUTSIDE, SERVER, World, ip, pool};

/// Frames that a guest and a server say to a router: each kind that it looks into, once.
fn conversation() -> Vec<(bool, Vec<u8>)> {
    use smoltcp::socket::{dhcpv4, tcp, udp};
    let mut world = World::new(|config| {
        config.insides[0].station.dhcp = Some(pool());
        config.insides[0].station.address6 = Some("fd00:1::1/64".parse().unwrap());
    });
    let taps = [world.inside.plug(), world.outside.plug()];
    let mut guest = Host::new(
        &world.inside,
        GUEST,
        &["10.0.0.5/24", "fd00:1::5/64"],
        Some("10.0.0.1"),
    );
    ping(
        &mut world.bed,
        &mut [&mut guest, &mut world.server],
        "192.0.2.2",
        30,
    );
    ping(
        &mut world.bed,
        &mut [&mut guest, &mut world.server],
        "fd00:1::1",
        30,
    );
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 4], vec![0; 2048]);
    let mut socket = udp::Socket::new(buffer(), buffer());
    socket.bind(4000).unwrap();
    let question = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01a\x07example\0\0\x01\0\x01";
    socket.send_slice(question, (ip("10.0.0.1"), 53)).unwrap();
    // Nobody listens there: the server says so, in an ICMP error.
    socket.send_slice(question, (ip("192.0.2.2"), 53)).unwrap();
    guest.sockets.add(socket);
    let mut socket: tcp::Socket<'_> = super::services::tcp_socket();
    socket
        .connect(guest.interface.context(), (ip("192.0.2.2"), 80), 5000)
        .unwrap();
    guest.sockets.add(socket);
    guest.sockets.add(dhcpv4::Socket::new());
    world.bed.pass(&mut [&mut guest, &mut world.server], 4);
    let mut frames = vec![];
    for (outside, tap) in [false, true].into_iter().zip(taps) {
        let own = if outside { OUTSIDE } else { INSIDE };
        let others = std::iter::from_fn(|| tap.take()).map(|it| bytes(&it));
        frames.extend(others.filter(|it| it[6..12] != own).map(|it| (outside, it)));
    }
    // A router solicitation.
    let mut solicitation = vec![
        0x33, 0x33, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 58, 255,
    ];
    solicitation.extend(
        ["fe80::ff:fe00:1", "ff02::2"]
            .map(|it| it.parse::<std::net::Ipv6Addr>().unwrap().octets())
            .concat(),
    );
    solicitation.extend([133, 0, 0x7b, 0x36, 0, 0, 0, 0]);
    frames.push((false, solicitation));
    frames
}

fn offloads(len: usize) -> impl Strategy<Value = Offload> {
    let checksum = prop_oneof![
        4 => Just(Checksum::Unknown),
        1 => Just(Checksum::Valid),
        2 => (any::<Index>(), prop_oneof![Just(16), Just(6), Just(2), 0..1000u16]).prop_map(move |(start, offset)| {
            // As whoever makes a frame has checked.
            let start = start.index(len.max(2) - 1) as u16;
            let offset = offset.min((len as u16).saturating_sub(start + 2));
            Checksum::Partial { start, offset }
        }),
    ];
    (checksum, prop::option::weighted(0.1, 1..=u16::MAX)).prop_map(|(checksum, size)| Offload {
        checksum,
        segmentation: size.map(|size| Segmentation {
            kind: SegmentationKind::Tcp4,
            size,
        }),
    })
}

/// Frames of a conversation with some bytes changed, or cut off, or with sound headers but any content.
fn mutated() -> impl Strategy<Value = Vec<(bool, Vec<u8>, Offload)>> {
    let frames = conversation();
    let one = (
        any::<Index>(),
        prop::collection::vec((any::<Index>(), any::<u8>()), 0..4),
        prop::option::weighted(0.2, any::<Index>()),
        any::<bool>(),
    );
    let one = one.prop_map(move |(which, changes, cut, fix)| {
        let (outside, mut bytes) = which.get(&frames).clone();
        for (at, value) in changes {
            *at.get_mut(&mut bytes) = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(14 + cut.index(bytes.len() - 14));
        }
        if fix {
            fix_checksum(&mut bytes);
        }
        (outside, bytes)
    });
    let one = one.prop_flat_map(|(outside, bytes)| {
        let len = bytes.len();
        (Just(outside), Just(bytes), offloads(len))
    });
    prop::collection::vec(one, 1..60)
}

fn world() -> World {
    World::new(|config| {
        config.insides[0].station.dhcp = Some(pool());
        config.insides[0].station.address6 = Some("fd00:1::1/64".parse().unwrap());
        config.insides[0].forwards.push(Forward {
            protocol: Protocol::Udp,
            port: 53,
            to: Endpoint::new(ip("10.0.0.5"), 53),
        });
        config.limits.connections = 10;
        config.limits.per_client = 5;
    })
}

#[test]
fn what_nobody_wants_is_refused_so_often_only() {
    let (mut world, inside, outside) = raw(|_| {});
    // Each asks for the router, so that it need not ask for them.
    for (socket, mac, addresses) in [
        (&inside, GUEST, [[10, 0, 0, 5], [10, 0, 0, 1]]),
        (&outside, SERVER, [[192, 0, 2, 2], [192, 0, 2, 1]]),
    ] {
        let mut ask = [&[0xff; 6], &mac[..], &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
        ask.extend([&mac[..], &addresses[0], &[0; 6], &addresses[1]].concat());
        socket.inject(frame(&ask, Offload::default()));
    }
    world.bed.pass(&mut [], 1);
    let mut segment = [0; 20];
    let mut tcp = TcpPacket::new_unchecked(&mut segment[..]);
    tcp.set_src_port(4000);
    tcp.set_dst_port(81);
    tcp.set_syn(true);
    tcp.set_header_len(20);
    tcp.set_window_len(1000);
    tcp.fill_checksum(&ip("10.0.0.5").into(), &ip("10.0.0.1").into());
    let (datagram, mut refused) = (udp(4000, 64600, &[]), [0; 2]);
    for _ in 0..500 {
        let to_us = Made {
            macs: (SERVER, OUTSIDE),
            addresses: ("192.0.2.2", "192.0.2.1"),
            payload: &datagram,
            ..Made::OUT
        };
        outside.inject(frame(&to_us.bytes(), Offload::default()));
        let to_us = Made {
            addresses: ("10.0.0.5", "10.0.0.1"),
            protocol: IpProtocol::Tcp,
            payload: &segment,
            ..Made::OUT
        };
        inside.inject(frame(&to_us.bytes(), Offload::default()));
        world.bed.step(&mut [], Duration::from_millis(1));
        for (socket, protocol, count) in [(&inside, 6, 0), (&outside, 1, 1)] {
            let said = std::iter::from_fn(|| socket.take()).map(|it| bytes(&it));
            refused[count] += said
                .filter(|it| it[12..14] == [8, 0] && it[23] == protocol)
                .count();
        }
    }
    assert!(
        refused.iter().all(|count| (20..=40).contains(count)),
        "{refused:?}"
    );
    assert_eq!(
        world.bed.counter("icmp-errors"),
        refused.iter().sum::<usize>() as u64
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_frames(frames in mutated()) {
        let mut world = world();
        let sockets = [world.inside.plug(), world.outside.plug()];
        for (outside, bytes, offload) in frames {
            sockets[usize::from(outside)].inject(frame(&bytes, offload));
            world.bed.step(&mut [], Duration::from_millis(300));
            for socket in &sockets {
                while socket.take().is_some() {}
            }
        }
        let mut anybody = Host::new(&world.inside, [2, 0, 0, 0, 0, 8], &["10.0.0.8/24"], None);
        prop_assert!(ping(&mut world.bed, &mut [&mut anybody], "10.0.0.1", 56));
        prop_assert!(world.bed.counter("connections-now") <= 10);
    }

    #[test]
    fn arbitrary_frames(frames in prop::collection::vec((any::<bool>(), 0..4u8, prop::collection::vec(any::<u8>(), 2..200)), 1..40)) {
        let mut world = world();
        let sockets = [world.inside.plug(), world.outside.plug()];
        for (outside, kind, payload) in frames {
            let to = if outside { OUTSIDE } else { INSIDE };
            let ethertype = [[8, 0], [8, 6], [0x86, 0xdd], [payload[0], payload[1]]][usize::from(kind)];
            let mut bytes = [&to[..], &[2, 0, 0, 0, 0, 1], &ethertype, &payload].concat();
            fix_checksum(&mut bytes);
            sockets[usize::from(outside)].inject(frame(&bytes, Offload::default()));
            world.bed.step(&mut [], Duration::from_millis(100));
        }
        let mut anybody = Host::new(&world.inside, [2, 0, 0, 0, 0, 8], &["10.0.0.8/24"], None);
        prop_assert!(ping(&mut world.bed, &mut [&mut anybody], "10.0.0.1", 56));
    }

    /// What a DHCP server outside may say.
    #[test]
    fn a_dhcp_client_outside(changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..6)) {
        let (inside, outside) = (Segment::new(), Segment::new());
        let mut config = super::config(&inside, Some(&outside));
        config.outside.as_mut().unwrap().address = Some(Address::Dhcp { dns: Vec::new() });
        let mut bed = super::bed::Bed::new(config);
        let mut other = super::config(&outside, None);
        other.insides[0].station.dhcp = Some(pool());
        let mut other = super::bed::Bed::new(other);
        let tap = outside.plug();
        for _ in 0..200 {
            bed.step(&mut [], Duration::from_millis(100));
            other.step(&mut [], Duration::from_millis(100));
            while let Some(seen) = tap.take() {
                let mut bytes = bytes(&seen);
                if bytes[6..12] == INSIDE && bytes.len() > 282 {
                    for (at, value) in &changes {
                        *at.get_mut(&mut bytes[42..]) = *value;
                    }
                    bytes[40..42].fill(0);
                    tap.inject(frame(&bytes, Offload::default()));
                }
            }
        }
    }
}
