use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::vec::Vec;

use proptest::prelude::*;

use super::*;

const TO: Mac = [2, 0, 0, 0, 0, 1];
const FROM: Mac = [2, 0, 0, 0, 0, 2];

fn ethernet(ethertype: &[u16], rest: &[&[u8]]) -> Vec<u8> {
    let mut frame = [TO, FROM].concat();
    for (n, ethertype) in ethertype.iter().enumerate() {
        if n > 0 {
            // The tag of VLAN 0x102, 0x103, … with priority 5.
            frame.extend((0xa101 + n as u16).to_be_bytes());
        }
        frame.extend(ethertype.to_be_bytes());
    }
    frame.extend(rest.concat());
    frame
}

fn ipv4(protocol: u8, fragment: u16, options: usize, len: usize) -> Vec<u8> {
    let mut header = vec![0u8; 20 + options];
    header[0] = 0x45 + (options / 4) as u8;
    header[2..4].copy_from_slice(&((20 + options + len) as u16).to_be_bytes());
    header[6..8].copy_from_slice(&fragment.to_be_bytes());
    header[9] = protocol;
    header[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    header
}

fn ipv6(next: u8, len: usize) -> Vec<u8> {
    let mut header = vec![0u8; 40];
    header[0] = 0x60;
    header[4..6].copy_from_slice(&(len as u16).to_be_bytes());
    header[6] = next;
    header[8] = 0xfd;
    header[23] = 1;
    header[24] = 0xfd;
    header[39] = 2;
    header
}

#[test]
fn tcp_over_ipv4_in_vlans() {
    let tcp = [
        0x12, 0x34, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0, 0, 0, 0, 0, 0, 0,
    ];
    let frame = ethernet(&[0x88a8, 0x8100, 0x800], &[&ipv4(6, 0x4000, 4, 20), &tcp]);
    let headers = Headers::parse(&frame).unwrap();
    assert_eq!((headers.destination, headers.source), (TO, FROM));
    assert_eq!(
        (headers.vlan, headers.ethertype, headers.network),
        (Some(0x102), 0x800, 22)
    );
    let ip = headers.ip.unwrap();
    assert_eq!(ip.source, Ipv4Addr::new(10, 0, 0, 1));
    assert_eq!(ip.destination, Ipv4Addr::new(10, 0, 0, 2));
    assert_eq!(
        (ip.protocol, ip.fragment, ip.transport, ip.end),
        (6, false, Some(46), 66)
    );
    let ports = Ports {
        source: 0x1234,
        destination: 80,
    };
    assert_eq!(ip.ports, Some(ports));
    assert_eq!(
        headers.partial(),
        Some(Checksum::Partial {
            start: 46,
            offset: 16
        })
    );
}

#[test]
fn fragments_have_no_ports() {
    for (bits, transport, offset) in [(0x2000, Some(34), 0), (0x2003, None, 24), (0x1fff, None, 65528)] {
        let frame = ethernet(&[0x800], &[&ipv4(17, bits, 0, 8), &[0; 8]]);
        let headers = Headers::parse(&frame).unwrap();
        let ip = headers.ip.unwrap();
        assert!(ip.fragment);
        assert_eq!(
            (ip.transport, ip.ports, headers.partial()),
            (transport, None, None)
        );
        assert_eq!(ip.offset, offset);
    }
    for (offset, transport) in [(1u16, Some(62)), (8, None)] {
        let mut extension = [17u8, 0, 0, 0, 0, 0, 0, 0];
        extension[2..4].copy_from_slice(&offset.to_be_bytes());
        let frame = ethernet(&[0x86dd], &[&ipv6(44, 16), &extension, &[0; 8]]);
        let ip = Headers::parse(&frame).unwrap().ip.unwrap();
        assert_eq!((ip.protocol, ip.fragment, ip.transport), (17, true, transport));
        assert_eq!(ip.offset, usize::from(offset & !7));
        assert_eq!(ip.ports, None);
    }
}

#[test]
fn udp_behind_extension_headers() {
    let hop = [60u8, 0, 0, 0, 0, 0, 0, 0];
    let options = [17u8, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let udp = [0, 53, 0, 54, 0, 8, 0, 0];
    let frame = ethernet(&[0x86dd], &[&ipv6(0, 32), &hop, &options, &udp]);
    let headers = Headers::parse(&frame).unwrap();
    let ip = headers.ip.unwrap();
    assert_eq!(ip.source, Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1));
    assert_eq!((ip.protocol, ip.transport, ip.end), (17, Some(78), 86));
    assert_eq!(
        headers.partial(),
        Some(Checksum::Partial { start: 78, offset: 6 })
    );
    // Headers that never end.
    let endless = [[0u8; 8]; 20].concat();
    let frame = ethernet(&[0x86dd], &[&ipv6(0, 160), &endless]);
    assert_eq!(Headers::parse(&frame).unwrap().ip.unwrap().transport, None);
}

#[test]
fn arp_claims() {
    let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 1];
    arp.extend(FROM);
    arp.extend([10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2]);
    let claim = Headers::parse(&ethernet(&[0x806], &[&arp])).unwrap().claim;
    let expected = Claim {
        ip: Ipv4Addr::new(10, 0, 0, 1).into(),
        mac: Some(FROM),
    };
    assert_eq!(claim, Some(expected));
    arp[14..18].fill(0);
    let probe = Headers::parse(&ethernet(&[0x806], &[&arp])).unwrap();
    assert_eq!(probe.claim, None);
    let told = |arp: &[u8]| {
        Headers::parse(&ethernet(&[0x806], &[arp]))
            .unwrap()
            .claim
            .unwrap()
            .mac
    };
    arp[1] = 6;
    assert_eq!(told(&arp), None, "another hardware type");
    assert_eq!(told(&[0, 1, 8, 0, 6, 4, 0, 1]), None, "too short");
}

#[test]
fn neighbours_claim() {
    let claim = |kind: u8, options: &[u8]| {
        let mut message = vec![0u8; 24];
        message[0] = kind;
        message[8] = 0xfd;
        message[23] = 9;
        message.extend(options);
        let frame = ethernet(&[0x86dd], &[&ipv6(58, message.len()), &message]);
        Headers::parse(&frame).unwrap().claim
    };
    let address = |last| IpAddr::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last));
    let some = |last, mac| {
        Some(Claim {
            ip: address(last),
            mac,
        })
    };
    let option = [2, 1, 2, 3, 4, 5, 6, 7];
    assert_eq!(claim(136, &option), some(9, Some([2, 3, 4, 5, 6, 7])));
    assert_eq!(claim(136, &[]), some(9, Some(FROM)));
    assert_eq!(claim(135, &option), some(1, Some(FROM)));
    let two = [2, 1, 2, 3, 4, 5, 6, 7, 2, 1, 9, 9, 9, 9, 9, 9];
    assert_eq!(claim(136, &two), some(9, None));
    assert_eq!(claim(136, &[1, 0, 0, 0, 0, 0, 0, 0]), some(9, None));
    assert_eq!(claim(136, &[1, 2, 0, 0]), some(9, Some(FROM)));
    assert_eq!(claim(1, &option), None);
}

proptest! {
    #[test]
    fn nothing_panics_and_offsets_are_in_order(
        ethertypes in prop::collection::vec(prop_oneof![Just(0x8100u16), Just(0x88a8), Just(0x86dd), Just(0x800), Just(0x806)], 1..4),
        version in prop_oneof![Just(0x45u8), Just(0x60), any::<u8>()],
        next in prop_oneof![Just(0u8), Just(6), Just(17), Just(43), Just(44), Just(51), Just(58), Just(60), any::<u8>()],
        mut rest in prop::collection::vec(prop_oneof![3 => Just(0u8), 1 => Just(58), 1 => Just(136), 2 => any::<u8>()], 0..200),
    ) {
        if let Some(byte) = rest.first_mut() {
            *byte = version;
        }
        for at in [6, 9] {
            if let Some(byte) = rest.get_mut(at) {
                *byte = next;
            }
        }
        let frame = ethernet(&ethertypes, &[&rest]);
        for len in [frame.len(), frame.len() / 2, 13] {
            let Some(headers) = Headers::parse(&frame[..len.min(frame.len())]) else { continue };
            prop_assert!(headers.network <= len);
            if let Some(ip) = headers.ip {
                prop_assert!(ip.end > headers.network);
                prop_assert!(ip.transport.is_none_or(|at| at > headers.network));
                prop_assert_eq!(ip.source.is_ipv4(), ip.destination.is_ipv4());
            }
            let _ = headers.partial();
        }
    }
}
