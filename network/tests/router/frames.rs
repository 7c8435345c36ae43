//! Frames that pass through, byte by byte.

use std::time::Duration;

use devices::net::{Checksum, Offload, Segmentation, SegmentationKind};
use network::router::Limits;
use proptest::prelude::*;
use smoltcp::wire::{Icmpv4Packet, IpProtocol, Ipv4Packet, TcpPacket, UdpPacket};

use super::bed::{TestFrame, bytes, completed, frame};
use super::dns::question;
use super::made::{Made, next, raw, udp};
use super::services::partial;
use super::{GUEST, INSIDE, OUTSIDE, SERVER, World, ip};

fn checked(frame: &TestFrame) -> Vec<u8> {
    let bytes = bytes(frame);
    assert!(Ipv4Packet::new_checked(&bytes[14..]).unwrap().verify_checksum());
    bytes
}

const THERE: ([u8; 6], &str) = (SERVER, "192.0.2.2");
const HERE: ([u8; 6], &str) = (GUEST, "10.0.0.5");

#[test]
fn a_large_segment_crosses_as_one() {
    let (mut world, inside, outside) = raw(|_| {});
    let mut segment = vec![0x33; 20 + 60_000];
    let mut tcp = TcpPacket::new_unchecked(&mut segment[..]);
    tcp.set_src_port(5000);
    tcp.set_dst_port(80);
    tcp.set_header_len(20);
    tcp.clear_flags();
    tcp.set_header_len(20);
    tcp.set_syn(true);
    let pseudo = |from: &str, to: &str, len: usize| {
        let mut sum = 6 + len as u32;
        for word in [ip(from).octets(), ip(to).octets()].concat().chunks(2) {
            sum += u32::from(u16::from_be_bytes([word[0], word[1]]));
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    };
    tcp.set_checksum(pseudo("10.0.0.5", "192.0.2.2", 60_020));
    let offload = Offload {
        checksum: Checksum::Partial {
            start: 34,
            offset: 16,
        },
        segmentation: Some(Segmentation {
            kind: SegmentationKind::Tcp4,
            size: 1448,
        }),
    };
    let made = Made {
        protocol: IpProtocol::Tcp,
        payload: &segment,
        ..Made::OUT
    };
    inside.inject(frame(&made.bytes(), offload));
    let got = next(&mut world, &outside, THERE).unwrap();
    assert_eq!(got.offload, offload);
    let bytes = checked(&got);
    assert_eq!(bytes.len(), 34 + 60_020);
    let packet = Ipv4Packet::new_checked(&bytes[14..]).unwrap();
    assert_eq!((packet.src_addr(), packet.hop_limit()), (ip("192.0.2.1"), 63));
    let tcp = TcpPacket::new_checked(packet.payload()).unwrap();
    assert_eq!(
        (tcp.src_port(), tcp.checksum()),
        (5000, pseudo("192.0.2.1", "192.0.2.2", 60_020))
    );
    assert_eq!(tcp.payload(), &segment[20..]);
    // Segments that do not fit are refused, as single packets are.
    let offload = Offload {
        segmentation: Some(Segmentation {
            kind: SegmentationKind::Tcp4,
            size: 1461,
        }),
        ..offload
    };
    inside.inject(frame(&made.bytes(), offload));
    let error = next(&mut world, &inside, HERE).map(|got| checked(&got)).unwrap();
    assert_eq!(
        (error[34], error[35], &error[40..42]),
        (3, 4, &1500u16.to_be_bytes()[..])
    );
}

#[test]
fn errors_of_the_router() {
    let (mut world, inside, outside) = raw(|_| {});
    let datagram = udp(7000, 7, &[1; 10]);
    inside.inject(frame(
        &Made {
            ttl: 1,
            payload: &datagram,
            ..Made::OUT
        }
        .bytes(),
        Offload::default(),
    ));
    let error = next(&mut world, &inside, HERE).map(|got| checked(&got)).unwrap();
    assert_eq!((error[34], error[35]), (11, 0));
    assert!(Icmpv4Packet::new_checked(&error[34..]).unwrap().verify_checksum());
    assert_eq!(&error[62..70], &datagram[..8]);
    let large = udp(7000, 7, &[1; 1600]);
    inside.inject(frame(
        &Made {
            payload: &large,
            ..Made::OUT
        }
        .bytes(),
        Offload::default(),
    ));
    let error = next(&mut world, &inside, HERE).map(|got| checked(&got)).unwrap();
    assert_eq!((error[34], error[35]), (3, 4));
    assert!(next(&mut world, &outside, THERE).is_none());
    assert_eq!(
        world.bed.counter("drop-expired") + world.bed.counter("drop-too-big"),
        2
    );
}

#[test]
fn errors_of_others() {
    let (mut world, inside, outside) = raw(|_| {});
    for (protocol, payload) in [
        (IpProtocol::Udp, udp(7000, 7, &[1; 10])),
        (IpProtocol::Icmp, vec![8, 0, 0xf7, 0xfb, 0, 4, 0, 0]),
    ] {
        let sent = Made {
            protocol,
            payload: &payload,
            ..Made::OUT
        };
        inside.inject(frame(&sent.bytes(), Offload::default()));
        let got = checked(&next(&mut world, &outside, THERE).unwrap());
        // What came is quoted in full.
        let mut error = vec![3, 1, 0, 0, 0, 0, 0, 0];
        error.extend(&got[14..]);
        Icmpv4Packet::new_unchecked(&mut error[..]).fill_checksum();
        let made = Made {
            macs: (SERVER, OUTSIDE),
            addresses: ("198.51.100.9", "192.0.2.1"),
            protocol: IpProtocol::Icmp,
            payload: &error,
            ..Made::OUT
        };
        outside.inject(frame(&made.bytes(), Offload::default()));
        let got = checked(&next(&mut world, &inside, HERE).unwrap());
        let packet = Ipv4Packet::new_checked(&got[14..]).unwrap();
        assert_eq!(
            (packet.src_addr(), packet.dst_addr()),
            (ip("198.51.100.9"), ip("10.0.0.5"))
        );
        let icmp = Icmpv4Packet::new_checked(packet.payload()).unwrap();
        assert!(icmp.verify_checksum());
        let mut expected = sent.bytes()[14..].to_vec();
        // The hop that it went over before is in what is quoted.
        expected[8] -= 1;
        Ipv4Packet::new_unchecked(&mut expected[..]).fill_checksum();
        assert_eq!(icmp.data(), &expected[..]);
    }
    assert_eq!(world.bed.counter("drop-unknown"), 0);
}

#[test]
fn fragments() {
    let (mut world, inside, outside) = raw(|_| {});
    let mut datagram = udp(7000, 7, &(0..3000).map(|n| n as u8).collect::<Vec<_>>());
    UdpPacket::new_unchecked(&mut datagram[..])
        .fill_checksum(&ip("10.0.0.5").into(), &ip("192.0.2.2").into());
    let mut whole = vec![0; datagram.len()];
    for (at, end) in [(0, 1480), (1480, 2960), (2960, 3008)] {
        let fragment = Some((77, end < datagram.len(), at as u16));
        let made = Made {
            fragment,
            payload: &datagram[at..end],
            ..Made::OUT
        };
        inside.inject(frame(&made.bytes(), Offload::default()));
        let got = checked(&next(&mut world, &outside, THERE).unwrap());
        let packet = Ipv4Packet::new_checked(&got[14..]).unwrap();
        assert_eq!(
            (packet.src_addr(), usize::from(packet.frag_offset())),
            (ip("192.0.2.1"), at)
        );
        whole[at..end].copy_from_slice(packet.payload());
    }
    let got = UdpPacket::new_checked(&whole[..]).unwrap();
    assert!(got.verify_checksum(&ip("192.0.2.1").into(), &ip("192.0.2.2").into()));
    assert_eq!(got.payload(), &datagram[8..]);
    // One whose first fragment nobody has seen.
    let made = Made {
        fragment: Some((78, false, 1480)),
        payload: &datagram[..80],
        ..Made::OUT
    };
    inside.inject(frame(&made.bytes(), Offload::default()));
    assert!(next(&mut world, &outside, THERE).is_none());
    assert_eq!(world.bed.counter("drop-fragment"), 1);
}

#[test]
fn a_flood_takes_its_own_share_only() {
    let (mut world, inside, outside) = raw(|config| {
        config.limits = Limits {
            connections: 40,
            per_client: 30,
        };
    });
    // Somebody quiet, and somebody who floods.
    let quiet = udp(9000, 7, &[]);
    let quiet = Made {
        macs: ([2, 0, 0, 0, 0, 9], INSIDE),
        addresses: ("10.0.0.9", "192.0.2.2"),
        payload: &quiet,
        ..Made::OUT
    };
    inside.inject(frame(&quiet.bytes(), Offload::default()));
    next(&mut world, &outside, THERE).unwrap();
    for port in 0..1000 {
        inside.inject(frame(
            &Made {
                payload: &udp(1000 + port, 7, &[]),
                ..Made::OUT
            }
            .bytes(),
            Offload::default(),
        ));
        world.bed.step(&mut [], Duration::from_millis(1));
    }
    world.bed.pass(&mut [], 2);
    assert_eq!(world.bed.counter("connections-now"), 31);
    assert_eq!(world.bed.counter("connections-evicted"), 970);
    while outside.take().is_some() {}
    let answer = udp(7, 9000, &[5]);
    let answer = Made {
        macs: (SERVER, OUTSIDE),
        addresses: ("192.0.2.2", "192.0.2.1"),
        payload: &answer,
        ..Made::OUT
    };
    outside.inject(frame(&answer.bytes(), Offload::default()));
    while inside.take().is_some() {}
    let got = next(&mut world, &inside, ([2, 0, 0, 0, 0, 9], "10.0.0.9")).unwrap();
    assert_eq!(&bytes(&got)[..6], &[2, 0, 0, 0, 0, 9]);
}

#[test]
fn addresses_that_are_made_up_ask_no_more() {
    let (mut world, inside, _outside) = raw(|_| {});
    let ask = |world: &mut World, station: u8, address: &str, id| {
        let question = Made {
            macs: ([2, 0, 0, 0, 0, station], INSIDE),
            addresses: (address, "10.0.0.1"),
            payload: &udp(4000, 53, &question(id)),
            ..Made::OUT
        };
        inside.inject(frame(&question.bytes(), Offload::default()));
        world.bed.step(&mut [], Duration::from_millis(1));
    };
    for n in 0..100 {
        ask(&mut world, 66, &format!("10.0.0.{}", 100 + n), n);
    }
    assert_eq!(world.bed.counter("dns-queries"), 100);
    assert_eq!(world.bed.counter("dns-refused"), 84);
    // A neighbour's question is not the one too many.
    ask(&mut world, 77, "10.0.0.7", 1);
    assert_eq!(world.bed.counter("dns-queries"), 101);
    assert_eq!(world.bed.counter("dns-refused"), 84);
}

#[test]
fn only_those_spoken_to_get_in() {
    let (mut world, inside, outside) = raw(|_| {});
    inside.inject(frame(
        &Made {
            payload: &udp(7000, 7, &[]),
            ..Made::OUT
        }
        .bytes(),
        Offload::default(),
    ));
    next(&mut world, &outside, THERE).unwrap();
    for (from, port, through) in [
        ("192.0.2.2", 7, true),
        ("192.0.2.2", 8, false),
        ("192.0.2.3", 7, false),
    ] {
        let answer = udp(port, 7000, &[1]);
        let made = Made {
            macs: (SERVER, OUTSIDE),
            addresses: (from, "192.0.2.1"),
            payload: &answer,
            ..Made::OUT
        };
        outside.inject(frame(&made.bytes(), Offload::default()));
        assert_eq!(
            next(&mut world, &inside, HERE).is_some(),
            through,
            "{from} {port}"
        );
    }
    // Nor does what names another destination, or comes from nobody inside.
    for (macs, addresses) in [
        ((GUEST, INSIDE), ("10.0.0.5", "127.0.0.1")),
        ((GUEST, INSIDE), ("10.0.0.5", "10.0.0.6")),
        ((GUEST, INSIDE), ("10.0.0.5", "224.0.0.1")),
        ((GUEST, INSIDE), ("10.0.0.1", "192.0.2.2")),
        ((GUEST, INSIDE), ("10.0.0.255", "192.0.2.2")),
        ((GUEST, INSIDE), ("10.0.1.5", "192.0.2.2")),
        ((GUEST, [2; 6]), ("10.0.0.5", "192.0.2.2")),
    ] {
        let made = Made {
            macs,
            addresses,
            payload: &udp(7001, 7, &[]),
            ..Made::OUT
        };
        inside.inject(frame(&made.bytes(), Offload::default()));
        assert!(next(&mut world, &outside, THERE).is_none(), "{addresses:?}");
    }
    assert_eq!(world.bed.counter("drop-invalid"), 6);
}

#[test]
fn a_shared_frame_is_copied() {
    let (mut world, inside, outside) = raw(|_| {});
    let made = Made {
        payload: &udp(7000, 7, &[9; 1400]),
        ..Made::OUT
    };
    let shared = frame(&made.bytes(), Offload::default());
    inside.inject_shared(&shared);
    let got = next(&mut world, &outside, THERE).unwrap();
    assert_eq!(bytes(&shared), made.bytes(), "not changed");
    assert_eq!(bytes(&got)[42..], made.bytes()[42..]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Checksums are right afterwards, however they came, and ports and payload are what they were.
    #[test]
    fn checksums_stay_right(
        tcp in any::<bool>(),
        ports in (1..=65535u16, 1..=65535u16),
        data in prop::collection::vec(any::<u8>(), 0..300),
        checksum in 0..3u8,
        host in 2..255u8,
    ) {
        let (mut world, inside, outside) = raw(|_| {});
        let from = format!("10.0.0.{host}");
        let (source, destination) = (ip(&from).into(), ip("192.0.2.2").into());
        let payload = if tcp {
            let mut bytes = vec![0; 20 + data.len()];
            let mut segment = TcpPacket::new_unchecked(&mut bytes[..]);
            segment.set_src_port(ports.0);
            segment.set_dst_port(ports.1);
            segment.set_header_len(20);
            segment.set_ack(true);
            segment.payload_mut().copy_from_slice(&data);
            segment.fill_checksum(&source, &destination);
            bytes
        } else {
            let mut bytes = udp(ports.0, ports.1, &data);
            if checksum != 2 {
                UdpPacket::new_unchecked(&mut bytes[..]).fill_checksum(&source, &destination);
            }
            bytes
        };
        let protocol = if tcp { IpProtocol::Tcp } else { IpProtocol::Udp };
        let made = Made { addresses: (&from, "192.0.2.2"), protocol, payload: &payload, ..Made::OUT };
        let sent = if checksum == 1 { partial(made.bytes()) } else { frame(&made.bytes(), Offload::default()) };
        inside.inject(sent);
        let got = next(&mut world, &outside, THERE).unwrap();
        let is_partial = got.offload.checksum != Checksum::Unknown;
        prop_assert_eq!(is_partial, checksum == 1);
        checked(&got);
        let bytes = completed(&got);
        let source = ip("192.0.2.1").into();
        if tcp {
            let segment = TcpPacket::new_checked(&bytes[34..]).unwrap();
            prop_assert!(segment.verify_checksum(&source, &destination));
            prop_assert_eq!((segment.src_port(), segment.dst_port()), ports);
            prop_assert_eq!(segment.payload(), &data[..]);
        } else {
            let datagram = UdpPacket::new_checked(&bytes[34..]).unwrap();
            prop_assert!(datagram.verify_checksum(&source, &destination));
            prop_assert_eq!(datagram.checksum() == 0, checksum == 2);
            prop_assert_eq!(datagram.dst_port(), ports.1);
            let own = ports.0 == 68 || ports.0 >= 64512;
            prop_assert_eq!(datagram.src_port() == ports.0, !own);
            prop_assert_eq!(datagram.payload(), &data[..]);
        }
    }
}
