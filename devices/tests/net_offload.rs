//! What senders leave to offloading, done in software.

mod support;

use devices::net::offload::{Abilities, Parts, Sum, needed};
use devices::net::{Checksum, Offload, Segmentation, SegmentationKind};
use proptest::prelude::*;
use support::packet::{self, Shape};
use support::port::{bytes, frame};

fn abilities() -> impl Strategy<Value = Abilities> {
    (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(checksum, tcp4, tcp6)| Abilities {
        checksum,
        tcp4,
        tcp6,
    })
}

/// The frames that become of one, for an uplink that takes them in one piece.
fn made(source: &[u8], offload: Offload, can: Abilities) -> Option<Vec<(Vec<u8>, Offload)>> {
    let source = frame(source, offload);
    let mut parts = Parts::new(&source, can)?;
    let (mut made, mut own) = (Vec::new(), Vec::new());
    while let Some(len) = parts.next_len() {
        let mut frame = frame(&vec![0xee; len], Offload::default());
        assert!(parts.fill(source.buffer(), &mut frame, &mut own));
        made.push((bytes(&frame), frame.offload));
    }
    assert!(parts.next(source.buffer(), &mut own).is_none());
    Some(made)
}

proptest! {
    #![proptest_config(support::cases(200))]

    #[test]
    fn segments_are_put_together_again(
        shape in packet::shape(0..6),
        len in 0usize..64_000,
        size in 8u16..9000,
        can in abilities(),
    ) {
        let size = size.max((len / 500) as u16);
        let payload: Vec<u8> = (0..len).map(|n| (n * 31 / 11) as u8).collect();
        let source = shape.tcp(&payload);
        let offload = shape.offload(Some(size));
        let several = shape.offload((len > size.into()).then_some(size));
        prop_assert_eq!(needed(frame(&source, offload).buffer(), offload), Some(several));
        let made = made(&source, offload, can).unwrap();
        let able = can.checksum && if shape.ipv6 { can.tcp6 } else { can.tcp4 };
        if able && shape.flags & 0x80 == 0 {
            prop_assert_eq!(made, [(source, offload)]);
            return Ok(());
        }
        let left = if can.checksum { shape.offload(None) } else { Offload::default() };
        prop_assert!(made.iter().all(|(_, offload)| *offload == left));
        let packets: Vec<_> = made.into_iter().map(|(bytes, _)| bytes).collect();
        prop_assert_eq!(shape.reassemble(&packets, size.into(), can.checksum), payload);
    }

    #[test]
    fn checksums_are_computed_where_they_belong_and_nowhere_else(
        shape in packet::shape(0..6),
        udp in any::<bool>(),
        len in 0usize..3000,
        start in 0usize..230,
        offset in 0usize..20,
        near in any::<bool>(),
    ) {
        let payload: Vec<u8> = (0..len).map(|n| (n * 31 / 11) as u8).collect();
        let (source, field) = if udp { (shape.udp(&payload), 6) } else { (shape.tcp(&payload), 16) };
        let right = Offload {
            checksum: Checksum::Partial { start: shape.transport() as u16, offset: field },
            segmentation: None,
        };
        prop_assert_eq!(needed(frame(&source, right).buffer(), right), Some(right));
        let all = Abilities { checksum: true, ..Abilities::default() };
        prop_assert_eq!(made(&source, right, all).unwrap(), [(source.clone(), right)]);
        let (packet, left) = made(&source, right, Abilities::default()).unwrap().pop().unwrap();
        prop_assert_eq!(left, Offload::default());
        let mut expected = source.clone();
        let sum = !packet::sum(&source[shape.transport()..]);
        let field = shape.transport() + usize::from(field);
        expected[field..field + 2].copy_from_slice(&if sum == 0 { 0xffff } else { sum }.to_be_bytes());
        prop_assert_eq!(packet, expected);
        let start = if near { shape.transport() } else { start };
        let lie = Offload {
            checksum: Checksum::Partial { start: start as u16, offset: offset as u16 },
            segmentation: None,
        };
        prop_assert_eq!(needed(frame(&source, lie).buffer(), lie).is_some(), lie == right);
    }

    #[test]
    fn nothing_panics(
        shape in packet::shape(0..6),
        changes in prop::collection::vec((0usize..200, any::<u8>()), 0..4),
        len in 14usize..400,
        start in any::<u16>(),
        offset in any::<u16>(),
        near in any::<bool>(),
        size in any::<u16>(),
        tcp6 in any::<bool>(),
        can in abilities(),
    ) {
        let mut source = shape.tcp(&[7; 300]);
        for (at, value) in changes {
            if let Some(byte) = source.get_mut(at) {
                *byte = value;
            }
        }
        source.truncate(len);
        // What whoever makes a frame has checked.
        let (start, offset) = if near { (shape.transport() as u16, 16) } else { (start, offset) };
        prop_assume!(usize::from(start) + usize::from(offset) + 2 <= source.len());
        let kind = if tcp6 { SegmentationKind::Tcp6 } else { SegmentationKind::Tcp4 };
        let segmentation = Some(Segmentation { kind, size });
        let checksum = Checksum::Partial { start, offset };
        for segmentation in [None, segmentation] {
            let offload = Offload { checksum, segmentation };
            let good = needed(frame(&source, offload).buffer(), offload).is_some();
            let made = made(&source, offload, can);
            // What was checked when it was sent can be cut up when it is received.
            prop_assert!(segmentation.is_none() || !good || made.is_some());
        }
    }

    #[test]
    fn sums_do_not_depend_on_how_they_are_added(
        bytes in prop::collection::vec(any::<u8>(), 0..3000),
        cut in 0usize..1000,
    ) {
        let whole = packet::sum(&bytes);
        let buffer = frame(&[&[0; 14][..], &bytes].concat(), Offload::default());
        prop_assert_eq!(Sum::default().buffer(buffer.buffer(), 14..14 + bytes.len()).fold(), whole);
        let cut = (2 * cut).min(bytes.len() / 2 * 2);
        let sum = Sum::default().bytes(&bytes[..cut]).bytes(&bytes[cut..]);
        prop_assert_eq!(sum.fold(), whole);
    }
}

#[test]
fn udp_has_no_checksum_of_zero() {
    // All ones: the sum over them is 0xffff, and its complement 0.
    let mut bytes = [0xff; 60];
    bytes[40..42].fill(0);
    let offload = Offload {
        checksum: Checksum::Partial { start: 34, offset: 6 },
        segmentation: None,
    };
    let made = made(&bytes, offload, Abilities::default()).unwrap();
    assert_eq!(made[0].0[40..42], [0xff, 0xff]);
}

#[test]
fn a_segment_is_as_long_as_its_ip_header_says() {
    let shape = Shape {
        vlan: false,
        ipv6: false,
        ip_options: 0,
        tcp_options: 0,
        flags: 0x10,
        sequence: 0,
        id: 0,
    };
    let offload = shape.offload(Some(100));
    let right = shape.tcp(&[1; 1000]);
    let longer = [&right[..], &[1]].concat();
    for wrong in [&right[..right.len() - 1], &longer] {
        assert!(needed(frame(wrong, offload).buffer(), offload).is_none());
        assert!(made(wrong, offload, Abilities::default()).is_none());
    }
    assert_eq!(made(&right, offload, Abilities::default()).unwrap().len(), 10);
    // What is no longer than a segment is not to be cut up.
    for size in [1000, u16::MAX] {
        let offload = shape.offload(Some(size));
        assert_eq!(
            needed(frame(&right, offload).buffer(), offload),
            Some(shape.offload(None))
        );
    }
}

#[test]
fn nobody_cuts_into_crumbs() {
    let shape = Shape {
        vlan: false,
        ipv6: false,
        ip_options: 0,
        tcp_options: 0,
        flags: 0x10,
        sequence: 0,
        id: 0,
    };
    let source = shape.tcp(&[7; 1000]);
    let buffer = frame(&source, Offload::default());
    let can = |size| needed(buffer.buffer(), shape.offload(Some(size))).is_some();
    assert!(can(8) && !can(7) && !can(0));
}

#[test]
fn only_whole_packets_of_tcp_and_udp_have_a_checksum_to_compute() {
    let shape = Shape {
        vlan: true,
        ipv6: false,
        ip_options: 0,
        tcp_options: 0,
        flags: 0x10,
        sequence: 0,
        id: 0,
    };
    let offload = shape.offload(None);
    let taken = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut source = shape.tcp(&[7; 100]);
        change(&mut source);
        needed(frame(&source, offload).buffer(), offload).is_some()
    };
    const IP: usize = 18;
    assert!(taken(&|_| {}));
    // More fragments, a later one; ICMP, GRE; a packet that ends before; ARP, and a protocol that nobody
    // knows.
    assert!(!taken(&|frame| frame[IP + 6] |= 0x20));
    assert!(!taken(&|frame| frame[IP + 7] |= 1));
    assert!(!taken(&|frame| frame[IP + 9] = 1));
    assert!(!taken(&|frame| frame[IP + 9] = 47));
    assert!(!taken(&|frame| frame[IP + 3] = 20 + 17));
    assert!(!taken(&|frame| frame[17] = 6));
    assert!(!taken(&|frame| frame[16..18].fill(0x99)));
    // Three VLAN tags are more than are looked behind.
    let tags = [0x81, 0, 0, 1];
    assert!(!taken(&|frame| drop(frame.splice(12..12, tags))));
}
