//! Questions about names, and who gets answers.

use std::net::Ipv6Addr;
use std::time::Duration;

use devices::net::{Mac, Offload};
use network::router::Address;
use network::time::Time;
use smoltcp::socket::udp;

use super::bed::{Host, Segment, Socket, bytes, frame};
use super::made::{Made, answer_arp, raw, udp as datagram};
use super::services::udp_socket;
use super::{GUEST, World, config, ip};

/// A question for the address of a.example, and its answer with so many address records.
pub fn question(id: u16) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    message.extend(b"\x01a\x07example\0\0\x01\0\x01");
    message
}

fn answer(question: &[u8], records: u16) -> Vec<u8> {
    let mut message = question.to_vec();
    (message[2], message[3]) = (0x81, 0x80);
    message[6..8].copy_from_slice(&records.to_be_bytes());
    for n in 0..records {
        message.extend([
            0xc0,
            12,
            0,
            1,
            0,
            1,
            0,
            0,
            0,
            60,
            0,
            4,
            192,
            0,
            (n >> 8) as u8,
            n as u8,
        ]);
    }
    message
}

/// Asks the gateway as some client, and answers as the server does, if it does; gives what the client gets.
fn resolve(world: &mut World, serve: impl FnMut(&[u8]) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    resolve_this(world, &question(0x1234), serve)
}

fn resolve_this(
    world: &mut World,
    question: &[u8],
    mut serve: impl FnMut(&[u8]) -> Option<Vec<u8>>,
) -> Option<Vec<u8>> {
    let server = world.server.sockets.add(udp_socket());
    world.server.get::<udp::Socket<'_>>(server).bind(53).unwrap();
    let client = world.guest.sockets.add(udp_socket());
    let socket: &mut udp::Socket<'_> = world.guest.get(client);
    socket.bind(4000).unwrap();
    socket.send_slice(question, (ip("10.0.0.1"), 53)).unwrap();
    let mut got = None;
    for _ in 0..300 {
        world.bed.step(
            &mut [&mut world.guest, &mut world.server],
            Duration::from_millis(50),
        );
        let socket: &mut udp::Socket<'_> = world.server.get(server);
        if let Ok((message, from)) = socket.recv()
            && let Some(answer) = serve(message)
        {
            socket.send_slice(&answer, from.endpoint).unwrap();
        }
        if let Ok((message, _)) = world.guest.get::<udp::Socket<'_>>(client).recv() {
            got = Some(message.to_vec());
            break;
        }
    }
    world.server.sockets.remove(server);
    world.guest.sockets.remove(client);
    got
}

#[test]
fn names_are_resolved() {
    let mut world = World::new(|_| {});
    assert_eq!(
        resolve(&mut world, |asked| Some(answer(asked, 2))),
        Some(answer(&question(0x1234), 2))
    );
    // The first answer gets lost.
    let mut count = 0;
    let second = |asked: &[u8]| {
        count += 1;
        (count > 1).then(|| answer(asked, 1))
    };
    assert_eq!(resolve(&mut world, second), Some(answer(&question(0x1234), 1)));
    assert_eq!(world.bed.counter("dns-answers"), 2);
}

#[test]
fn a_server_that_is_not_there() {
    // Nobody answers ARP for the first one, so that what is for it never gets out.
    let mut world = World::new(|config| {
        let outside = config.outside.as_mut().unwrap();
        let Some(Address::Static { dns, .. }) = &mut outside.address else {
            unreachable!()
        };
        dns.insert(0, ip("192.0.2.9"));
    });
    let mut resolve = || {
        let start = world.bed.clock.now();
        let got = resolve(&mut world, |asked| Some(answer(asked, 1)));
        assert_eq!(got, Some(answer(&question(0x1234), 1)));
        world.bed.clock.now() - start
    };
    assert!(resolve() < Duration::from_secs(4));
    // The one that answers is the first to be asked from then on.
    for _ in 0..3 {
        assert!(resolve() < Duration::from_secs(1));
    }
}

#[test]
fn wrong_answers_do_not_count() {
    let mut world = World::new(|_| {});
    type Wrong = fn(&[u8]) -> Vec<u8>;
    let wrong: [Wrong; 3] = [
        |asked| answer(&question(u16::from_be_bytes([asked[0], asked[1]]) ^ 1), 1),
        |asked| answer(&[&asked[..13], b"b", &asked[14..]].concat(), 1),
        |asked| asked.to_vec(),
    ];
    for wrong in wrong {
        let got = resolve(&mut world, |asked| Some(wrong(asked))).unwrap();
        assert_eq!((got[0], got[1], got[3] & 15), (0x12, 0x34, 2), "server failure");
    }
    assert!(world.bed.counter("dns-wrong") >= 3);
    assert_eq!(world.bed.counter("dns-timeouts"), 3);
}

#[test]
fn an_answer_that_is_too_large() {
    let mut world = World::new(|_| {});
    world.inside.set_link(|link| link.mtu = 600);
    let got = resolve(&mut world, |asked| Some(answer(asked, 60))).unwrap();
    assert_eq!((got.len(), got[2] & 2), (question(0).len(), 2), "truncated");
}

#[test]
fn servers_are_asked_for_answers_of_one_packet() {
    let mut world = World::new(|_| {});
    for (size, expected) in [(65535u16, 1232u16), (4096, 1232), (1232, 1232), (512, 512)] {
        // An OPT record behind the question, as most resolvers send it, with a cookie in it.
        let with_room = |size: u16| {
            let mut message = question(0x1234);
            message[11] = 1;
            message.extend([0, 0, 41]);
            message.extend(size.to_be_bytes());
            message.extend([0, 0, 0x80, 0, 0, 12, 0, 10, 0, 8]);
            message.extend(*b"\xff\xff\xff\xff\xff\xff\xff\xff");
            message
        };
        let mut seen = Vec::new();
        let got = resolve_this(&mut world, &with_room(size), |asked| {
            seen = asked.to_vec();
            Some(answer(&question(u16::from_be_bytes([asked[0], asked[1]])), 70))
        });
        assert_eq!(got, Some(answer(&question(0x1234), 70)));
        assert_eq!(seen[2..], with_room(expected)[2..]);
    }
}

#[test]
fn nobody_to_ask() {
    let mut world = World::new(|config| config.outside = None);
    let got = resolve(&mut world, |_| None).unwrap();
    assert_eq!(got[3] & 15, 5, "refused");
}

#[test]
fn a_client_has_so_many_questions() {
    let mut world = World::new(|_| {});
    let client = world.guest.sockets.add(udp_socket());
    world.guest.get::<udp::Socket<'_>>(client).bind(4000).unwrap();
    for id in 0..100 {
        let socket: &mut udp::Socket<'_> = world.guest.get(client);
        let _ = socket.send_slice(&question(id), (ip("10.0.0.1"), 53));
        world.bed.step(&mut [&mut world.guest], Duration::from_millis(1));
    }
    assert!(world.bed.counter("dns-refused") >= 70);
}

#[test]
fn a_question_is_repeated_while_as_many_as_there_may_be_are_under_way() {
    let (mut world, inside, _) = raw(|_| {});
    // A failure as the answer to the last one would make the client give the fourth up.
    for id in (0..16).chain([3]) {
        say(&inside, (GUEST, "10.0.0.5", 4000), &question(id));
    }
    world.bed.step(&mut [], Duration::from_millis(1));
    assert!(answers(&inside).is_empty());
    say(&inside, (GUEST, "10.0.0.5", 4000), &question(16));
    world.bed.step(&mut [], Duration::from_millis(1));
    assert_eq!(answers(&inside), [(GUEST, 16)]);
    assert_eq!(world.bed.counter("dns-refused"), 1);
}

/// A question that the router answers by itself: its operation is not known.
fn answered_at_once(id: u16) -> Vec<u8> {
    let mut message = question(id);
    message[2] = 2 << 3;
    message
}

fn ask(socket: &Socket, from: (Mac, &str, u16), id: u16) {
    say(socket, from, &answered_at_once(id));
}

/// Says something to the gateway's forwarder.
fn say(socket: &Socket, from: (Mac, &str, u16), message: &[u8]) {
    let said = Made {
        macs: (from.0, super::INSIDE),
        addresses: (from.1, "10.0.0.1"),
        payload: &datagram(from.2, 53, message),
        ..Made::OUT
    };
    socket.inject(frame(&said.bytes(), Offload::default()));
}

/// To which stations answers have come, with the identifiers of the questions.
fn answers(socket: &Socket) -> Vec<(Mac, u16)> {
    let frames = std::iter::from_fn(|| socket.take()).map(|it| bytes(&it));
    let answers = frames.filter(|it| it[12..14] == [8, 0] && it[23] == 17 && it[34..36] == [0, 53]);
    let answers = answers.map(|it| (it[..6].try_into().unwrap(), u16::from_be_bytes([it[42], it[43]])));
    answers.collect()
}

#[test]
fn clients_that_nobody_knows_yet_are_answered_at_once() {
    let (mut world, inside, _) = raw(|_| {});
    let macs: Vec<Mac> = (0..20).map(|n| [2, 0, 0, 0, 9, n]).collect();
    for (mac, n) in macs.iter().zip(0..) {
        ask(&inside, (*mac, &format!("10.0.0.{}", 10 + n), 4000), n);
    }
    world.bed.step(&mut [], Duration::from_millis(1));
    let expected: Vec<_> = macs.into_iter().zip(0..).collect();
    assert_eq!(answers(&inside), expected);
}

#[test]
fn one_that_cannot_be_reached_keeps_nobody_waiting() {
    let (mut world, inside, _) = raw(|_| {});
    const STRANGER: Mac = [2, 0, 0, 0, 0, 66];
    // Without a way there, and without anybody who answers ARP.
    for (from, expected) in [
        ("8.8.8.8", 0),
        ("10.0.0.255", 0),
        ("0.0.0.0", 0),
        ("10.0.0.66", 1),
    ] {
        ask(&inside, (STRANGER, from, 4000), 1);
        world.bed.step(&mut [], Duration::from_millis(1));
        let got = answers(&inside);
        assert_eq!(got.len(), expected, "{from}");
        assert!(got.iter().all(|it| it.0 == STRANGER));
        ask(&inside, (GUEST, "10.0.0.5", 5000), 2);
        world.bed.step(&mut [], Duration::from_millis(1));
        assert_eq!(answers(&inside), [(GUEST, 2)]);
    }
    // Nowhere to answer to.
    ask(&inside, (GUEST, "10.0.0.5", 0), 3);
    ask(&inside, ([3, 0, 0, 0, 0, 1], "10.0.0.5", 4000), 3);
    world.bed.step(&mut [], Duration::from_millis(1));
    assert!(answers(&inside).is_empty());
    assert_eq!(world.bed.counter("drop-invalid"), 5);
}

#[test]
fn answers_of_servers_go_where_the_questions_came_from() {
    let (mut world, inside, outside) = raw(|_| {});
    let asked = Made {
        addresses: ("10.0.0.5", "10.0.0.1"),
        payload: &datagram(4000, 53, &question(7)),
        ..Made::OUT
    };
    inside.inject(frame(&asked.bytes(), Offload::default()));
    let mut got = vec![];
    for _ in 0..300 {
        world.bed.step(&mut [], Duration::from_millis(10));
        while let Some(seen) = outside.take() {
            let seen = bytes(&seen);
            answer_arp(&outside, &seen, super::SERVER, |asked| asked == ip("192.0.2.2"));
            if seen[12..14] == [8, 0] && seen[36..38] == [0, 53] {
                let port = u16::from_be_bytes([seen[34], seen[35]]);
                let reply = Made {
                    macs: (super::SERVER, super::OUTSIDE),
                    addresses: ("192.0.2.2", "192.0.2.1"),
                    payload: &datagram(53, port, &answer(&seen[42..], 1)),
                    ..Made::OUT
                };
                outside.inject(frame(&reply.bytes(), Offload::default()));
            }
        }
        // Nobody answers ARP here.
        got.extend(answers(&inside));
    }
    assert_eq!(got, [(GUEST, 7)]);
}

#[test]
fn names_over_ipv6() {
    let segment = Segment::new();
    let mut config = config(&segment, None);
    config.insides[0].station.address6 = Some("fd00:1::1/64".parse().unwrap());
    let mut bed = super::bed::Bed::new(config);
    let link_local = "fe80::ff:fe00:fe";
    for (own, to, answered) in [
        ("fd00:1::5/64", "fd00:1::1", true),
        ("fe80::5/64", link_local, true),
        ("fd00:2::5/0", "fd00:1::1", false),
    ] {
        let mut guest = Host::new(&segment, GUEST, &[own], None);
        let client = guest.sockets.add(udp_socket());
        let socket: &mut udp::Socket<'_> = guest.get(client);
        socket.bind(4000).unwrap();
        let to: Ipv6Addr = to.parse().unwrap();
        socket.send_slice(&question(9), (to, 53)).unwrap();
        let mut got = None;
        for _ in 0..100 {
            bed.step(&mut [&mut guest], Duration::from_millis(20));
            let socket: &mut udp::Socket<'_> = guest.get(client);
            if let Ok((message, from)) = socket.recv() {
                assert_eq!((from.endpoint.addr, from.endpoint.port), (to.into(), 53));
                // There is nobody to ask: refused.
                got = Some((message[..2].to_vec(), message[3] & 15));
            }
        }
        assert_eq!(got, answered.then_some((vec![0, 9], 5)), "{own}");
    }
}
