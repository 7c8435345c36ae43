//! Who uses addresses that are not there, or not his.

use std::time::Duration;

use devices::net::{Mac, Offload};
use network::router::{Address, Config, Endpoint, Forward, Protocol};
use smoltcp::wire::{Icmpv4Message, Icmpv4Packet, IpProtocol};

use super::bed::{Bed, Segment, Socket, bytes, frame};
use super::dns::question;
use super::made::{Made, next, raw, udp};
use super::{GUEST, INSIDE, OUTSIDE, SERVER, config, ip, pool};

const THERE: (Mac, &str) = (SERVER, "192.0.2.2");
const HERE: (Mac, &str) = (GUEST, "10.0.0.5");
const OTHER: Mac = [2, 0, 0, 0, 0, 66];

fn send(socket: &Socket, made: &Made<'_>) {
    socket.inject(frame(&made.bytes(), Offload::default()));
}

/// What the server answers to a port of the outside address.
fn answer<'a>(payload: &'a [u8]) -> Made<'a> {
    Made {
        macs: (SERVER, OUTSIDE),
        addresses: ("192.0.2.2", "192.0.2.1"),
        payload,
        ..Made::OUT
    }
}

/// A station says to the router that an address is its own.
fn claim(socket: &Socket, mac: Mac, address: [u8; 4]) {
    let mut reply = [&INSIDE[..], &mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2]].concat();
    reply.extend([&mac[..], &address, &INSIDE, &[10, 0, 0, 1]].concat());
    socket.inject(frame(&reply, Offload::default()));
}

/// UDP port 500 of the outside address leads to the guest.
fn forwarding(config: &mut Config<Socket>) {
    config.insides[0].forwards.push(Forward {
        protocol: Protocol::Udp,
        port: 500,
        to: Endpoint::new(ip("10.0.0.5"), 53),
    });
}

fn echo_request() -> [u8; 8] {
    let mut bytes = [0; 8];
    let mut echo = Icmpv4Packet::new_unchecked(&mut bytes[..]);
    echo.set_msg_type(Icmpv4Message::EchoRequest);
    echo.set_echo_ident(7);
    echo.fill_checksum();
    bytes
}

#[test]
fn what_waits_for_stations_that_are_not_there_leaves_room_for_others() {
    let (mut world, inside, outside) = raw(|_| {});
    let silent = 120;
    let from = |n: u16| (format!("10.0.0.{}", 100 + n), udp(2000 + n, 7, &[]));
    for (address, datagram) in (0..silent).map(from) {
        let made = Made {
            macs: (OTHER, INSIDE),
            addresses: (&address, "192.0.2.2"),
            payload: &datagram,
            ..Made::OUT
        };
        send(&inside, &made);
        next(&mut world, &outside, THERE).unwrap();
    }
    let own = udp(7001, 7, &[]);
    send(
        &inside,
        &Made {
            payload: &own,
            ..Made::OUT
        },
    );
    next(&mut world, &outside, THERE).unwrap();
    // Large answers, of which the router needs copies of its own: more than it may have.
    for _ in 0..8 {
        for n in 0..silent {
            let large = udp(7, 2000 + n, &[9; 1400]);
            outside.inject_shared(&frame(&answer(&large).bytes(), Offload::default()));
        }
        world.bed.step(&mut [], Duration::from_millis(1));
        world.bed.step(&mut [], Duration::from_millis(1));
    }
    let wanted = udp(7, 7001, &[1]);
    outside.inject_shared(&frame(&answer(&wanted).bytes(), Offload::default()));
    while inside.take().is_some() {}
    // The router asks for at most so many stations a second.
    world.bed.pass(&mut [], 1);
    outside.inject_shared(&frame(&answer(&wanted).bytes(), Offload::default()));
    assert!(next(&mut world, &inside, HERE).is_some());
    assert_eq!(world.bed.counter("drop-memory"), 0);
    world.bed.pass(&mut [], 5);
    assert_eq!(world.bed.counter("drop-neighbour"), 8 * u64::from(silent));
}

#[test]
fn nobody_gets_what_is_for_an_address_that_another_has_by_dhcp() {
    let (mut world, inside, outside) = raw(|config| {
        let pool = pool();
        pool.reservations.borrow_mut().push((GUEST, ip("10.0.0.5")));
        config.insides[0].station.dhcp = Some(pool);
    });
    claim(&inside, OTHER, [10, 0, 0, 5]);
    send(
        &inside,
        &Made {
            payload: &udp(7001, 7, &[]),
            ..Made::OUT
        },
    );
    next(&mut world, &outside, THERE).unwrap();
    for claimed in [false, true] {
        if claimed {
            claim(&inside, OTHER, [10, 0, 0, 5]);
        }
        send(&outside, &answer(&udp(7, 7001, &[1])));
        let got = next(&mut world, &inside, HERE).unwrap();
        assert_eq!(bytes(&got)[..6], GUEST);
    }
    // Nor does the router say something to the one in the other's name.
    for (mac, answers) in [(OTHER, false), (GUEST, true)] {
        let made = Made {
            macs: (mac, INSIDE),
            addresses: ("10.0.0.5", "10.0.0.1"),
            protocol: IpProtocol::Icmp,
            payload: &echo_request(),
            ..Made::OUT
        };
        send(&inside, &made);
        assert_eq!(next(&mut world, &inside, HERE).is_some(), answers);
    }
    assert_eq!(world.bed.counter("drop-invalid"), 3);
}

#[test]
fn nobody_outside_has_an_address_of_inside() {
    let (mut world, inside, outside) = raw(forwarding);
    for (from, gets_in) in [
        ("10.0.0.7", false),
        ("10.0.0.255", false),
        ("127.0.0.1", false),
        ("0.1.2.3", false),
        ("224.0.0.1", false),
        ("169.254.0.1", false),
        ("192.0.2.1", false),
        ("198.51.100.1", true),
    ] {
        let made = Made {
            addresses: (from, "192.0.2.1"),
            ..answer(&udp(4000, 500, &[1]))
        }
        .bytes();
        outside.inject(frame(&made, Offload::default()));
        assert_eq!(next(&mut world, &inside, HERE).is_some(), gets_in, "{from}");
    }
    assert_eq!(world.bed.counter("drop-invalid"), 7);
}

#[test]
fn senders_outside_use_up_no_errors_of_inside() {
    let (mut world, inside, outside) = raw(forwarding);
    world.bed.pass(&mut [], 1);
    let datagram = udp(4000, 500, &[]);
    for n in 0..100 {
        let made = Made {
            macs: ([2, 0, 0, 0, 7, n], OUTSIDE),
            ttl: 1,
            ..answer(&datagram)
        };
        send(&outside, &made);
    }
    world.bed.step(&mut [], Duration::from_millis(1));
    world.bed.step(&mut [], Duration::from_millis(1));
    let before = world.bed.counter("icmp-errors");
    assert!((1..100).contains(&before));
    let made = Made {
        ttl: 1,
        payload: &udp(7001, 7, &[]),
        ..Made::OUT
    };
    send(&inside, &made);
    assert!(next(&mut world, &inside, HERE).is_some());
}

#[test]
fn echoes_leave_room_for_questions() {
    let (mut world, inside, outside) = raw(|_| {});
    let ask = |id| {
        let asked = Made {
            addresses: ("10.0.0.5", "10.0.0.1"),
            payload: &udp(4000 + id, 53, &question(id)),
            ..Made::OUT
        };
        send(&inside, &asked);
    };
    // The server's Ethernet address is known from then on.
    ask(1);
    assert!(next(&mut world, &outside, THERE).is_some());
    let request = echo_request();
    for _ in 0..64 {
        let made = Made {
            protocol: IpProtocol::Icmp,
            ..answer(&request)
        };
        send(&outside, &made);
    }
    ask(2);
    world.bed.step(&mut [], Duration::from_millis(1));
    let said = std::iter::from_fn(|| outside.take()).map(|it| bytes(&it)[23]);
    let said: Vec<_> = said.collect();
    assert_eq!(said.iter().filter(|protocol| **protocol == 1).count(), 64);
    assert_eq!(said.iter().filter(|protocol| **protocol == 17).count(), 1);
}

#[test]
fn configured_name_servers_come_before_those_of_dhcp() {
    let (inside, outside) = (Segment::new(), Segment::new());
    let mut own = config(&inside, Some(&outside));
    own.outside.as_mut().unwrap().address = Some(Address::Dhcp {
        dns: vec![ip("10.0.0.53")],
    });
    let mut bed = Bed::new(own);
    let mut other = config(&outside, None);
    other.insides[0].station.mac = SERVER;
    other.insides[0].station.dhcp = Some(pool());
    if let Some(Address::Static { dns, .. }) = &mut other.insides[0].station.address {
        dns.push(ip("10.0.0.54"));
    }
    let mut other = Bed::new(other);
    for _ in 0..1000 {
        bed.step(&mut [], Duration::from_millis(20));
        other.step(&mut [], Duration::from_millis(20));
    }
    assert!(bed.status.is_up());
    let (guest, tap) = (inside.plug(), outside.plug());
    let asked = Made {
        addresses: ("10.0.0.5", "10.0.0.1"),
        payload: &udp(4000, 53, &question(1)),
        ..Made::OUT
    };
    send(&guest, &asked);
    bed.pass(&mut [], 1);
    let looked_for = std::iter::from_fn(|| tap.take()).map(|it| bytes(&it));
    let looked_for: Vec<_> = looked_for
        .filter(|it| it[12..14] == [8, 6])
        .map(|it| it[41])
        .collect();
    assert_eq!(looked_for, [53]);
}
