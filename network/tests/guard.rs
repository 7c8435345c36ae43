//! In whose name a client may send.

/// A driver and its memory, to send frames as a guest does.
#[allow(clippy::manual_is_multiple_of, reason = "for an older Rust")]
#[path = "../../devices/tests/support/mod.rs"]
mod device;
mod support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::task::{Context, Poll, Waker};

use device::driver::Layout;
use device::guest::Payload;
use device::machine::{ARENA, Machine, Uplink};
use devices::features::{ACCESS_PLATFORM, VERSION_1};
use devices::net::offload::{Abilities, Parts};
use devices::net::{Checksum, Frame, Mac, Nic, Offload, Options, Port, features};
use network::switch::{Memory, Plug, PortOptions, Prefix, Reason, Switch, SwitchOptions};
use proptest::prelude::*;
use support::*;

const OWN: Mac = [2, 0, 0, 0, 0, 1];
const OTHER: Mac = [2, 0, 0, 0, 0, 2];
const IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const NOBODY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

const OK: Option<Reason> = None;
const MAC: Option<Reason> = Some(Reason::SpoofedMac);
const ADDRESS: Option<Reason> = Some(Reason::SpoofedIp);

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// A client that is guarded, with its addresses: none, or a few.
fn client(net: &Net, with_addresses: bool) -> TestPlug {
    net.plug(options(with_addresses))
}

fn options(with_addresses: bool) -> PortOptions {
    let network = Prefix {
        address: IpAddr::V6(v6("2001:db8:0:7::")),
        len: 64,
    };
    let addresses = match with_addresses {
        true => vec![IpAddr::V4(IP).into(), network],
        false => vec![],
    };
    PortOptions {
        addresses,
        ..PortOptions::client("client", OWN)
    }
}

/// What becomes of a frame from the client, with and without addresses.
fn verdicts(frame: &[u8]) -> [Option<Reason>; 2] {
    [false, true].map(|with_addresses| {
        let net = Net::new();
        let (client, uplink) = (client(&net, with_addresses), net.uplink(1));
        send(&client, frame);
        let arrived = receive_all(&uplink).len();
        let dropped = client.counters().dropped();
        assert_eq!(arrived as u64 + dropped, 1);
        [Reason::SpoofedMac, Reason::SpoofedIp]
            .into_iter()
            .find(|reason| client.counters().drops(*reason) == 1)
            .or_else(|| {
                assert_eq!(arrived, 1);
                None
            })
    })
}

fn arp(source: Mac, mac: Mac, ip: Ipv4Addr) -> Vec<u8> {
    let body = [
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1][..],
        &mac,
        &ip.octets(),
        &[0; 6],
        &[10, 0, 0, 9],
    ];
    ethernet(BROADCAST, source, &body.concat())
}

fn ipv4(from: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let len = (20 + payload.len()) as u16;
    let mut packet = vec![8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
    packet[4..6].copy_from_slice(&len.to_be_bytes());
    packet.extend(from.octets());
    packet.extend([255; 4]);
    packet.extend(payload);
    ethernet(BROADCAST, OWN, &packet)
}

fn udp(from: u16, to: u16) -> Vec<u8> {
    [from.to_be_bytes(), to.to_be_bytes(), [0, 8], [0, 0]].concat()
}

fn ipv6(from: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x86, 0xdd, 0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 255]);
    packet.extend(from.octets());
    packet.extend(v6("ff02::1").octets());
    packet.extend(payload);
    ethernet([0x33, 0x33, 0, 0, 0, 1], OWN, &packet)
}

/// A message of neighbour discovery with a target and one link-layer option.
fn discovery(kind: u8, target: Ipv6Addr, option: Option<(u8, Mac)>) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    match kind {
        133 => {}
        134 => message.extend([0; 8]),
        137 => message.extend([target.octets(), target.octets()].concat()),
        _ => message.extend(target.octets()),
    }
    if let Some((number, mac)) = option {
        message.extend([number, 1]);
        message.extend(mac);
    }
    message
}

#[test]
fn only_the_own_station_address_is_used() {
    assert_eq!(verdicts(&numbered(BROADCAST, OTHER, 0)), [MAC; 2]);
    // Without addresses, any protocol may be spoken.
    assert_eq!(verdicts(&numbered(BROADCAST, OWN, 0)), [OK, ADDRESS]);
}

#[test]
fn arp_names_the_sender() {
    assert_eq!(verdicts(&arp(OWN, OWN, IP)), [OK, OK]);
    assert_eq!(verdicts(&arp(OWN, OWN, NOBODY)), [OK, OK]);
    assert_eq!(verdicts(&arp(OWN, OWN, STRANGER)), [OK, ADDRESS]);
    assert_eq!(verdicts(&arp(OWN, OTHER, IP)), [MAC; 2]);
    assert_eq!(verdicts(&arp(OTHER, OWN, IP)), [MAC; 2]);
}

#[test]
fn arp_in_disguise_is_not_let_through() {
    // Linux takes the hardware type of IEEE 802 networks as well.
    for (at, byte) in [(15, 6), (16, 9), (18, 8), (19, 16)] {
        let mut frame = arp(OWN, OWN, STRANGER);
        frame[at] = byte;
        assert_eq!(verdicts(&frame), [MAC; 2], "byte {at}");
    }
    assert_eq!(verdicts(&arp(OWN, OWN, STRANGER)[..30]), [MAC; 2]);
}

#[test]
fn a_fragment_gives_no_addresses_either() {
    let mut frame = ipv4(IP, 17, &udp(67, 68));
    frame[20] = 0x20;
    assert_eq!(verdicts(&frame), [OK, ADDRESS]);
    let mut frame = ipv4(IP, 17, &udp(53, 68));
    frame[20] = 0x20;
    assert_eq!(verdicts(&frame), [OK, OK]);
}

#[test]
fn ipv4_comes_from_an_own_address() {
    assert_eq!(verdicts(&ipv4(IP, 6, &[0; 20])), [OK, OK]);
    assert_eq!(verdicts(&ipv4(STRANGER, 6, &[0; 20])), [OK, ADDRESS]);
    // Also behind tags.
    for (ip, verdict) in [(IP, OK), (STRANGER, ADDRESS)] {
        let mut frame = ipv4(ip, 6, &[0; 20]);
        frame.splice(12..12, [0x88, 0xa8, 0, 1, 0x81, 0, 0, 2]);
        assert_eq!(verdicts(&frame), [OK, verdict]);
    }
    // Three tags are more than anybody uses.
    let mut frame = ipv4(IP, 6, &[0; 20]);
    frame.splice(12..12, [0x81, 0, 0, 1, 0x81, 0, 0, 1, 0x81, 0, 0, 2]);
    assert_eq!(verdicts(&frame), [OK, ADDRESS]);
    assert_eq!(verdicts(&ipv4(IP, 6, &[])[..30]), [OK, ADDRESS]);
}

#[test]
fn an_address_may_be_asked_for_but_not_given() {
    assert_eq!(verdicts(&ipv4(NOBODY, 17, &udp(68, 67))), [OK, OK]);
    assert_eq!(verdicts(&ipv4(NOBODY, 17, &udp(68, 53))), [OK, ADDRESS]);
    assert_eq!(verdicts(&ipv4(NOBODY, 6, &udp(68, 67))), [OK, ADDRESS]);
    assert_eq!(verdicts(&ipv4(IP, 17, &udp(67, 68))), [OK, ADDRESS]);
    let own = v6("2001:db8:0:7::1");
    assert_eq!(verdicts(&ipv6(own, 17, &udp(546, 547))), [OK, OK]);
    assert_eq!(verdicts(&ipv6(own, 17, &udp(547, 546))), [OK, ADDRESS]);
}

#[test]
fn ipv6_comes_from_an_own_address() {
    for own in ["2001:db8:0:7::1", "2001:db8:0:7:ffff::", "fe80::ff:fe00:1"] {
        assert_eq!(verdicts(&ipv6(v6(own), 6, &[0; 20])), [OK, OK], "{own}");
    }
    for other in [
        "2001:db8:0:8::1",
        "fe80::ff:fe00:2",
        "fe80::1",
        "::",
        "::ffff:10.0.0.1",
    ] {
        assert_eq!(verdicts(&ipv6(v6(other), 6, &[0; 20])), [OK, ADDRESS], "{other}");
    }
}

#[test]
fn neighbour_discovery_names_the_sender() {
    let (own, stranger, none) = (v6("2001:db8:0:7::1"), v6("2001:db8:0:8::1"), v6("::"));
    let check = |from, kind, target, option, verdict| {
        let frame = ipv6(from, 58, &discovery(kind, target, option));
        assert_eq!(verdicts(&frame), verdict, "{from} {kind} {target} {option:?}");
    };
    // Solicitations.
    check(own, 135, stranger, None, [OK, OK]);
    check(own, 135, stranger, Some((1, OWN)), [OK, OK]);
    check(own, 135, stranger, Some((1, OTHER)), [MAC; 2]);
    check(none, 135, own, None, [OK, OK]);
    check(none, 135, stranger, None, [OK, ADDRESS]);
    // Advertisements.
    check(own, 136, own, Some((2, OWN)), [OK, OK]);
    check(own, 136, stranger, Some((2, OWN)), [OK, ADDRESS]);
    check(own, 136, own, Some((2, OTHER)), [MAC; 2]);
    // Routers.
    let own_link_local = v6("fe80::ff:fe00:1");
    check(own_link_local, 133, none, None, [OK, OK]);
    check(own_link_local, 134, none, None, [OK, ADDRESS]);
    check(own_link_local, 137, own, Some((2, OWN)), [OK, ADDRESS]);
}

/// Extension headers of IPv6, each of so many bytes, one behind the other, and what comes behind them: to be
/// carried as `DESTINATION_OPTIONS`.
fn behind(lens: &[usize], next: u8, payload: &[u8]) -> Vec<u8> {
    let mut chain = vec![];
    for (n, len) in lens.iter().enumerate() {
        let following = if n + 1 < lens.len() {
            DESTINATION_OPTIONS
        } else {
            next
        };
        // One option, which nobody knows and everybody skips.
        chain.extend([following, (len / 8 - 1) as u8, 0x1e, (len - 4) as u8]);
        chain.extend(vec![0; len - 4]);
    }
    chain.extend(payload);
    chain
}

/// A fragment header (RFC 8200), and what follows it. The offset is in bytes.
fn fragment6(next: u8, offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    let [high, low] = (offset | u16::from(more)).to_be_bytes();
    [&[next, 0, high, low, 0, 0, 0, 7], payload].concat()
}

/// An IPv4 packet as a fragment. The offset is in bytes.
fn fragment4(protocol: u8, offset: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = ipv4(IP, protocol, payload);
    frame[20..22].copy_from_slice(&(0x2000 | (offset / 8)).to_be_bytes());
    frame
}

const DESTINATION_OPTIONS: u8 = 60;
const FRAGMENT: u8 = 44;
const NOTHING: u8 = 59;

#[test]
fn extension_headers_hide_nothing() {
    let own = v6("fe80::ff:fe00:1");
    let check = |lens: &[usize], next, payload: &[u8], verdict| {
        let frame = ipv6(own, DESTINATION_OPTIONS, &behind(lens, next, payload));
        assert_eq!(verdicts(&frame), verdict, "{lens:?} {next}");
    };
    let advertisement = discovery(134, v6("::"), None);
    let listener_report = [143, 0, 0, 0, 0, 0, 0, 0];
    check(&[8], 58, &listener_report, [OK, OK]);
    check(&[8], 58, &advertisement, [OK, ADDRESS]);
    check(&[8; 3], 58, &advertisement, [OK, ADDRESS]);
    check(&[8; 3], 17, &udp(547, 546), [OK, ADDRESS]);
    // Behind more of them than are looked behind, or too far away to be seen.
    let lie = discovery(136, own, Some((2, OTHER)));
    for lens in [&[8; 7][..], &[8; 20], &[208], &[104, 104], &[184]] {
        check(lens, 58, &lie, [MAC; 2]);
        check(lens, 58, &discovery(136, own, Some((2, OWN))), [MAC; 2]);
    }
    for lens in [&[8; 7][..], &[208], &[200]] {
        check(lens, 17, &udp(547, 546), [MAC; 2]);
        check(lens, 6, &[0; 20], [MAC; 2]);
    }
    // Just near enough: an Ethernet and an IPv6 header are before it, 54 bytes.
    check(&[192], 17, &udp(546, 547), [OK, OK]);
    check(&[192], 17, &udp(547, 546), [OK, ADDRESS]);
    // The target is in sight, the option is not.
    check(&[176], 58, &lie, [MAC; 2]);
}

#[test]
fn nothing_is_said_beyond_a_packets_end() {
    let own = v6("2001:db8:0:7::1");
    // Linux does not mind a length of 0 before a hop-by-hop header, as if it were a jumbogram (RFC 2675).
    let lie = behind(&[8], 58, &discovery(136, own, Some((2, OTHER))));
    let mut frame = ipv6(own, 0, &lie);
    frame[18..20].fill(0);
    assert_eq!(verdicts(&frame), [MAC; 2]);
    // A header too short for what it is.
    for (next, len) in [(6, 19), (17, 7), (58, 3)] {
        assert_eq!(verdicts(&ipv6(own, next, &vec![0; len])), [MAC; 2], "{next}");
        assert_eq!(verdicts(&ipv6(own, next, &vec![0; len + 1])), [OK, OK], "{next}");
    }
    assert_eq!(verdicts(&ipv6(own, NOTHING, &[])), [OK, OK]);
}

#[test]
fn first_fragments_hold_all_headers() {
    let own = v6("2001:db8:0:7::1");
    let check = |next, payload: &[u8], verdict| {
        assert_eq!(verdicts(&ipv6(own, next, payload)), verdict, "{next} {payload:?}");
    };
    let question = [&udp(546, 547)[..], &[0; 8]].concat();
    let answer = [&udp(547, 546)[..], &[0; 8]].concat();
    for more in [false, true] {
        check(FRAGMENT, &fragment6(17, 0, more, &question), [OK, OK]);
        check(FRAGMENT, &fragment6(17, 0, more, &answer), [OK, ADDRESS]);
        check(FRAGMENT, &fragment6(17, 0, more, &answer[..7]), [MAC; 2]);
        // The rest of the chain is in the next fragment, or too far away.
        let chain = |lens| behind(lens, 17, &answer);
        check(
            FRAGMENT,
            &fragment6(DESTINATION_OPTIONS, 0, more, &chain(&[24])[..8]),
            [MAC; 2],
        );
        check(
            FRAGMENT,
            &fragment6(DESTINATION_OPTIONS, 0, more, &chain(&[8; 7])),
            [MAC; 2],
        );
        check(
            FRAGMENT,
            &fragment6(DESTINATION_OPTIONS, 0, more, &chain(&[208])),
            [MAC; 2],
        );
        // Neighbour discovery comes in one piece (RFC 6980).
        for kind in [133, 135, 136] {
            let message = discovery(kind, own, None);
            check(FRAGMENT, &fragment6(58, 0, more, &message), [MAC; 2]);
        }
        check(
            FRAGMENT,
            &fragment6(58, 0, more, &[128, 0, 0, 0, 0, 0, 0, 0]),
            [OK, OK],
        );
    }
    // What the frame is padded with looks like a harmless rest.
    let first = behind(&[8, 8], NOTHING, &[]);
    let mut frame = ipv6(own, FRAGMENT, &fragment6(DESTINATION_OPTIONS, 0, true, &first));
    frame[18..20].copy_from_slice(&16u16.to_be_bytes());
    assert_eq!(verdicts(&frame), [MAC; 2]);
    // Later ones have none.
    check(FRAGMENT, &fragment6(17, 8, false, &answer), [OK, OK]);
    check(
        FRAGMENT,
        &fragment6(DESTINATION_OPTIONS, 1280, true, &[0; 8]),
        [OK, OK],
    );
    let stranger = ipv6(v6("2001:db8:0:8::1"), FRAGMENT, &fragment6(17, 8, false, &answer));
    assert_eq!(verdicts(&stranger), [OK, ADDRESS]);
}

#[test]
fn fragments_of_ipv4_hide_and_change_nothing() {
    assert_eq!(verdicts(&fragment4(17, 0, &udp(67, 68)[..4])), [OK, ADDRESS]);
    assert_eq!(verdicts(&fragment4(17, 0, &[])), [OK, ADDRESS]);
    // Padding is no header.
    let padded = [fragment4(17, 0, &[]), udp(53, 53)].concat();
    assert_eq!(verdicts(&padded), [OK, ADDRESS]);
    // Nothing is put over a TCP header that has been looked at (RFC 1858, RFC 3128).
    assert_eq!(verdicts(&fragment4(6, 0, &[0; 16])), [OK, ADDRESS]);
    assert_eq!(verdicts(&fragment4(6, 0, &[0; 24])), [OK, OK]);
    for (offset, verdict) in [(8, ADDRESS), (16, ADDRESS), (24, OK)] {
        assert_eq!(
            verdicts(&fragment4(6, offset, &[0; 24])),
            [OK, verdict],
            "{offset}"
        );
        assert_eq!(verdicts(&fragment4(17, offset, &[0; 24])), [OK, OK], "{offset}");
    }
    // Options are looked behind, as many as there can be.
    for (ports, verdict) in [((67, 68), ADDRESS), ((53, 68), OK)] {
        let mut frame = ipv4(IP, 17, &udp(ports.0, ports.1));
        frame.splice(34..34, [1; 40]);
        frame[14] = 0x4f;
        frame[17] += 40;
        assert_eq!(verdicts(&frame), [OK, verdict]);
    }
}

/// Memory for frames, as much as is wanted, that a driver's memory can be copied to.
struct Plenty;

impl Memory for Plenty {
    type Buffer = Payload;

    fn allocate(&self, len: usize) -> Option<Payload> {
        Some(Payload::new(len, |_| {}))
    }

    fn poll_free(&self, _: usize, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

/// A guest's device in a switch.
#[derive(Clone)]
struct Plugged;

impl Uplink for Plugged {
    type Model = Nic<Plug<Plenty, Clock>>;

    fn step(&self, _: &mut device::Random) -> bool {
        false
    }
}

/// What arrives on the wire of what a guest with addresses sends by its device, all that is left to others
/// done.
fn on_the_wire(bytes: &[u8], checksum: Checksum) -> Option<Vec<u8>> {
    let (switch, _keeper) = Switch::new(Plenty, Clock::default(), SwitchOptions::default());
    let uplink = switch.plug(PortOptions::uplink("uplink")).unwrap();
    uplink.set_link(LINK);
    let nic = Options {
        mac: OWN,
        mac_fixed: true,
        pairs: 1,
    };
    let nic = Nic::new(switch.plug(options(true)).unwrap(), nic);
    let mut machine = Machine::with(nic, Plugged, 3, 1);
    let mut driver = machine
        .start(VERSION_1 | ACCESS_PLATFORM | features::CSUM, 8)
        .remove(1);
    let offload = Offload {
        checksum,
        segmentation: None,
    };
    let whole = [&device::packet::header(&offload, 0, 0), bytes].concat();
    machine.guest.write(ARENA, &whole);
    let piece = (ARENA, whole.len(), false);
    driver.add(&[piece], Layout::Direct, &mut machine.random).unwrap();
    driver.publish();
    machine.run();
    let mut context = Context::from_waker(Waker::noop());
    let Poll::Ready(frame) = uplink.poll_receive(0, &mut context) else {
        return None;
    };
    // As for a back end that can do nothing by itself.
    let mut parts = Parts::new(&frame, Abilities::default())?;
    let mut sent = Frame::new(Payload::new(parts.next_len()?, |_| {}), Offload::default(), None);
    assert!(parts.fill(frame.buffer(), &mut sent, &mut vec![]));
    Some(device::port::bytes(&sent))
}

/// Frames that a guarded client may send.
fn honest() -> Vec<Vec<u8>> {
    let datagram = [udp(53, 68), vec![7; 40]].concat();
    let own = v6("2001:db8:0:7::1");
    let mut tagged = ipv4(IP, 17, &datagram);
    tagged.splice(12..12, [0x81, 0, 0, 5]);
    vec![
        arp(OWN, OWN, IP),
        ipv4(IP, 17, &datagram),
        ipv4(IP, 6, &[0x50; 60]),
        tagged,
        ipv6(own, 17, &datagram),
        ipv6(own, DESTINATION_OPTIONS, &behind(&[8], 17, &datagram)),
        ipv6(own, 58, &discovery(136, own, Some((2, OWN)))),
    ]
}

#[test]
fn a_checksum_takes_the_place_of_nothing_else() {
    // What the sums come to is up to the sender: his padding makes the field anything he likes.
    let forge = |mut frame: Vec<u8>, start: u16, offset: u16, wanted: u16| {
        frame.extend([0, 0]);
        let pad = frame.len() - 2;
        assert_eq!((pad - usize::from(start)) % 2, 0);
        let rest = device::packet::sum(&frame[usize::from(start)..]);
        let fill = device::packet::sum(&[(!wanted).to_be_bytes(), (!rest).to_be_bytes()].concat());
        frame[pad..].copy_from_slice(&fill.to_be_bytes());
        on_the_wire(&frame, Checksum::Partial { start, offset })
    };
    let datagram = ipv4(IP, 17, &[udp(53, 68), vec![7; 40]].concat());
    // Where it belongs.
    let sent = forge(datagram.clone(), 34, 6, 0x1234).unwrap();
    assert_eq!(sent[40..42], [0x12, 0x34]);
    // The address that ARP claims, the own station's, the IP source, the port that only servers send from, a
    // neighbour's address.
    assert_eq!(forge(arp(OWN, OWN, IP), 28, 2, 0x0002), None);
    assert_eq!(forge(datagram.clone(), 0, 10, 0x0002), None);
    assert_eq!(forge(datagram.clone(), 14, 14, 0x0002), None);
    assert_eq!(forge(datagram, 34, 0, 67), None);
    let own = v6("2001:db8:0:7::1");
    let claim = ipv6(own, 58, &discovery(136, own, Some((2, OWN))));
    assert_eq!(forge(claim, 54, 22, 0x0002), None);
}

proptest! {
    #![proptest_config(cases(512))]

    /// What arrives after everything was done that was left to others is what the guard lets through.
    #[test]
    fn offloading_gets_nothing_by(
        frame in prop::sample::select(honest()),
        start in 0..80u16,
        offset in 0..20u16,
        padding in any::<[u8; 2]>(),
    ) {
        let frame = [&frame[..], &padding].concat();
        if let Some(sent) = on_the_wire(&frame, Checksum::Partial { start, offset }) {
            prop_assert_eq!(verdicts(&sent), [OK, OK]);
        }
    }

    /// Whatever a client sends, what arrives is from its own address.
    #[test]
    fn nothing_gets_by(
        kind in prop::sample::select(vec![[8u8, 0], [8, 6], [0x86, 0xdd], [0x81, 0]]),
        mut bytes in prop::collection::vec(any::<u8>(), 0..300),
        version in any::<bool>(),
    ) {
        if let (true, Some(first)) = (version, bytes.first_mut()) {
            *first = if kind == [8, 0] { 0x45 } else { 0x60 };
        }
        let frame = ethernet(BROADCAST, OWN, &[&kind[..], &bytes].concat());
        let net = Net::new();
        let (client, uplink) = (client(&net, true), net.uplink(1));
        send(&client, &frame);
        if receive(&uplink).is_some() && kind == [8, 0] {
            let from: [u8; 4] = bytes[12..16].try_into().unwrap();
            prop_assert!([IP, NOBODY].contains(&from.into()));
        }
    }
}
