//! What passes through, and what does not.

use std::time::Duration;

use devices::net::Offload;
use network::router::{Address, Config, Endpoint, Forward, Protocol, Rule};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;
use smoltcp::wire::{Icmpv4Packet, IpAddress, IpProtocol};

use super::bed::{Host, Socket, bytes, frame};
use super::made::{Made, next, raw, udp};
use super::services::{partial, ping, tcp_socket};
use super::{GUEST, INSIDE, OUTSIDE, SERVER, World, ip};

fn connect(client: &mut Host, to: (&str, u16), port: u16) -> SocketHandle {
    let handle = client.sockets.add(tcp_socket());
    let socket = client.sockets.get_mut::<tcp::Socket<'_>>(handle);
    socket
        .connect(client.interface.context(), (ip(to.0), to.1), port)
        .unwrap();
    handle
}

fn listen(server: &mut Host, port: u16) -> SocketHandle {
    let handle = server.sockets.add(tcp_socket());
    server.get::<tcp::Socket<'_>>(handle).listen(port).unwrap();
    handle
}

/// Sends bytes each way until both sides have them and are done. `hosts` are client and server, with their
/// sockets.
fn exchange(
    world: &mut World,
    hosts: (&mut Host, SocketHandle),
    other: (&mut Host, SocketHandle),
    len: usize,
) {
    let pattern: Vec<u8> = (0..len).map(|n| (n * 7 / 3) as u8).collect();
    let handles = [hosts.1, other.1];
    let (mut sent, mut got) = ([0; 2], [vec![], vec![]]);
    world.bed.until(&mut [hosts.0, other.0], |hosts| {
        for side in 0..2 {
            let socket = hosts[side].get::<tcp::Socket<'_>>(handles[side]);
            if socket.can_send() && sent[side] < len {
                sent[side] += socket.send_slice(&pattern[sent[side]..]).unwrap();
            }
            while socket.can_recv() {
                let more = |bytes: &mut [u8]| {
                    got[side].extend_from_slice(bytes);
                    (bytes.len(), ())
                };
                socket.recv(more).unwrap();
            }
            if sent[side] == len && got[side].len() == len {
                socket.close();
            }
        }
        (0..2).all(|side| {
            let socket = hosts[side].get::<tcp::Socket<'_>>(handles[side]);
            matches!(socket.state(), tcp::State::Closed | tcp::State::TimeWait)
        })
    });
    assert_eq!(got, [pattern.clone(), pattern]);
}

/// Takes the hosts out of a world, to have them beside it.
pub fn hosts(world: &mut World) -> (Host, Host) {
    let nobody = || Host::new(&super::bed::Segment::new(), [2; 6], &[], None);
    (
        std::mem::replace(&mut world.guest, nobody()),
        std::mem::replace(&mut world.server, nobody()),
    )
}

#[test]
fn tcp_out() {
    let mut world = World::new(|_| {});
    let (mut guest, mut server) = hosts(&mut world);
    // With checksums computed, and left to others.
    for round in 0..2 {
        let there = listen(&mut server, 80);
        let here = connect(&mut guest, ("192.0.2.2", 80), 5000 + round);
        exchange(&mut world, (&mut guest, here), (&mut server, there), 300_000);
        let peer = server.get::<tcp::Socket<'_>>(there).remote_endpoint();
        assert!(peer.is_none_or(|peer| peer.addr == IpAddress::Ipv4(ip("192.0.2.1")) && peer.port == 5000 + round));
        guest.send_by(partial);
        if round == 0 {
            continue;
        }
        world.bed.pass(&mut [], 2);
        assert_eq!(world.bed.counter("connections-now"), 2);
        // Both sides are done: they are forgotten after four minutes.
        world.bed.pass(&mut [], 250);
        assert_eq!(world.bed.counter("connections-now"), 0);
    }
}

#[test]
fn tcp_in_by_a_forward() {
    let mut world = World::new(|config| {
        config.insides[0].forwards.push(Forward {
            protocol: Protocol::Tcp,
            port: 8080,
            to: Endpoint::new(ip("10.0.0.5"), 80),
        });
    });
    let (mut guest, mut server) = hosts(&mut world);
    let there = listen(&mut guest, 80);
    let here = connect(&mut server, ("192.0.2.1", 8080), 6000);
    exchange(&mut world, (&mut server, here), (&mut guest, there), 100_000);
    world.bed.pass(&mut [], 2);
    assert_eq!(world.bed.counter("connections"), 1);
    // No other port leads in.
    let here = connect(&mut server, ("192.0.2.1", 8081), 6001);
    for _ in 0..100 {
        world
            .bed
            .step(&mut [&mut server, &mut guest], Duration::from_millis(20));
    }
    assert_eq!(server.get::<tcp::Socket<'_>>(here).state(), tcp::State::SynSent);
    assert!(world.bed.counter("drop-unknown") >= 1);
}

#[test]
fn a_forward_by_the_outside_address_from_inside() {
    let mut world = World::new(|config| {
        config.insides[0].forwards.push(Forward {
            protocol: Protocol::Tcp,
            port: 8080,
            to: Endpoint::new(ip("10.0.0.6"), 80),
        });
    });
    let (mut guest, _) = hosts(&mut world);
    let mut other = Host::new(
        &world.inside,
        [2, 0, 0, 0, 0, 6],
        &["10.0.0.6/24"],
        Some("10.0.0.1"),
    );
    let there = listen(&mut other, 80);
    let here = connect(&mut guest, ("192.0.2.1", 8080), 6000);
    exchange(&mut world, (&mut guest, here), (&mut other, there), 50_000);
}

/// Two stations inside send each other datagrams by the outside address, from the ports that the other sends
/// to, so that either's looks like the answer to the other's. How many arrive.
fn crossing(segments: usize, change: impl Fn(&mut Config<Socket>)) -> usize {
    let second = super::bed::Segment::new();
    let (mut world, first, _) = raw(|config| {
        let mut other = super::config(&second, None).insides.remove(0);
        if let Some(Address::Static { cidr, .. }) = &mut other.station.address {
            *cidr = "10.0.1.1/24".parse().unwrap();
        }
        config.insides.push(other);
        change(config);
    });
    let (second, addresses) = match segments {
        1 => (first.clone(), ["10.0.0.5", "10.0.0.6"]),
        _ => (second.plug(), ["10.0.0.5", "10.0.1.6"]),
    };
    let macs = [GUEST, [2, 0, 0, 0, 0, 6]];
    let mut arrived = 0;
    for _ in 0..3 {
        for (socket, index, ports) in [(&first, 0, (1000, 2000)), (&second, 1, (2000, 1000))] {
            let sent = Made {
                macs: (macs[index], INSIDE),
                addresses: (addresses[index], "192.0.2.1"),
                payload: &udp(ports.0, ports.1, b"hello"),
                ..Made::OUT
            };
            socket.inject(frame(&sent.bytes(), Offload::default()));
        }
        for (socket, index) in [(&first, 0), (&second, 1)] {
            let got = next(&mut world, socket, (macs[index], addresses[index]));
            arrived += usize::from(got.is_some_and(|got| bytes(&got)[6..12] == INSIDE));
        }
    }
    arrived
}

#[test]
fn no_way_from_inside_to_inside_but_a_forward() {
    let forward = |inside: usize, to: &'static str| {
        move |config: &mut Config<Socket>| {
            config.insides[inside].forwards.push(Forward {
                protocol: Protocol::Udp,
                port: 2000,
                to: Endpoint::new(ip(to), 2000),
            });
        }
    };
    for segments in [1, 2] {
        assert_eq!(crossing(segments, |_| {}), 0);
    }
    assert!(crossing(1, forward(0, "10.0.0.6")) > 0);
    // Neither into another segment, nor where stations do not reach each other.
    assert_eq!(crossing(2, forward(1, "10.0.1.6")), 0);
    let isolated = |config: &mut Config<Socket>| {
        forward(0, "10.0.0.6")(config);
        config.insides[0].isolate = true;
    };
    assert_eq!(crossing(1, isolated), 0);
}

#[test]
fn nobody_outside_has_our_address() {
    let (mut world, inside, outside) = raw(|config| {
        config.insides[0].forwards.push(Forward {
            protocol: Protocol::Udp,
            port: 2000,
            to: Endpoint::new(ip("10.0.0.5"), 2000),
        });
    });
    for (from, through) in [("192.0.2.1", false), ("192.0.2.2", true)] {
        let sent = Made {
            macs: (SERVER, OUTSIDE),
            addresses: (from, "192.0.2.1"),
            payload: &udp(1000, 2000, b"hello"),
            ..Made::OUT
        };
        outside.inject(frame(&sent.bytes(), Offload::default()));
        let got = next(&mut world, &inside, (GUEST, "10.0.0.5"));
        assert_eq!(got.is_some(), through, "{from}");
    }
}

#[test]
fn names_over_tcp() {
    let mut world = World::new(|_| {});
    let (mut guest, mut server) = hosts(&mut world);
    let there = listen(&mut server, 53);
    let here = connect(&mut guest, ("10.0.0.1", 53), 6000);
    exchange(&mut world, (&mut guest, here), (&mut server, there), 5000);
}

#[test]
fn ping_out() {
    let mut world = World::new(|_| {});
    for len in [0, 1, 56, 1472] {
        assert!(ping(
            &mut world.bed,
            &mut [&mut world.guest, &mut world.server],
            "192.0.2.2",
            len
        ));
    }
    assert!(!ping(
        &mut world.bed,
        &mut [&mut world.server, &mut world.guest],
        "10.0.0.5",
        56
    ));
}

#[test]
fn rules() {
    let deny = Rule {
        allow: false,
        protocol: None,
        from: None,
        to: None,
        ports: None,
    };
    let mut world = World::new(|config| {
        config.insides[0].rules = vec![
            Rule {
                allow: true,
                protocol: Some(Protocol::Tcp),
                ports: Some(80..=80),
                ..deny.clone()
            },
            Rule {
                to: Some("192.0.2.0/24".parse().unwrap()),
                ..deny
            },
        ];
    });
    assert!(!ping(
        &mut world.bed,
        &mut [&mut world.guest, &mut world.server],
        "192.0.2.2",
        56
    ));
    assert_eq!(world.bed.counter("drop-denied"), 1);
    assert_eq!(world.bed.counter("icmp-errors"), 1);
    let (mut guest, mut server) = hosts(&mut world);
    let there = listen(&mut server, 80);
    let here = connect(&mut guest, ("192.0.2.2", 80), 6000);
    exchange(&mut world, (&mut guest, here), (&mut server, there), 500);
}

#[test]
fn an_isolated_segment() {
    let mut world = World::new(|config| config.outside = None);
    assert!(ping(
        &mut world.bed,
        &mut [&mut world.guest, &mut world.server],
        "10.0.0.1",
        56
    ));
    assert!(!ping(
        &mut world.bed,
        &mut [&mut world.guest, &mut world.server],
        "192.0.2.2",
        56
    ));
    assert_eq!(world.bed.counter("drop-no-route"), 1);
}

#[test]
fn two_segments_with_the_same_addresses() {
    let second = super::bed::Segment::new();
    let mut world = World::new(|config| {
        let other = super::config(&second, None);
        config.insides.extend(other.insides);
    });
    let mut other = Host::new(&second, GUEST, &["10.0.0.5/24"], Some("10.0.0.1"));
    let (mut guest, mut server) = hosts(&mut world);
    for client in [&mut guest, &mut other] {
        let there = listen(&mut server, 80);
        let here = connect(client, ("192.0.2.2", 80), 6000);
        exchange(&mut world, (client, here), (&mut server, there), 500);
    }
    world.bed.pass(&mut [], 2);
    assert_eq!(world.bed.counter("connections-now"), 2);
    assert!(!ping(
        &mut world.bed,
        &mut [&mut other, &mut guest],
        "10.0.0.6",
        56
    ));
}

#[test]
fn an_error_from_inside_goes_where_its_cause_came_from() {
    let (mut world, inside, outside) = raw(|config| {
        config.insides[0].rules = vec![Rule {
            allow: false,
            protocol: None,
            from: None,
            to: Some("192.0.2.99/32".parse().unwrap()),
            ports: None,
        }];
    });
    let hello = Made {
        payload: &udp(4000, 7, b"hello"),
        ..Made::OUT
    };
    inside.inject(frame(&hello.bytes(), Offload::default()));
    assert!(next(&mut world, &outside, (SERVER, "192.0.2.2")).is_some());
    let mut error = vec![3, 3, 0, 0, 0, 0, 0, 0];
    let quoted = Made {
        addresses: ("192.0.2.2", "10.0.0.5"),
        payload: &udp(7, 4000, b"secret"),
        ..Made::OUT
    };
    error.extend(&quoted.bytes()[14..]);
    Icmpv4Packet::new_unchecked(&mut error[..]).fill_checksum();
    let mut report = |from: &str, to: &str| {
        let report = Made {
            addresses: (from, to),
            protocol: IpProtocol::Icmp,
            payload: &error,
            ..Made::OUT
        };
        inside.inject(frame(&report.bytes(), Offload::default()));
        let (mac, own) = (SERVER, if to == "192.0.2.99" { to } else { "192.0.2.2" });
        next(&mut world, &outside, (mac, own)).map(|frame| bytes(&frame))
    };
    // Past a rule; to anybody else; and about somebody else's connection.
    assert_eq!(report("10.0.0.5", "192.0.2.99"), None);
    assert_eq!(report("10.0.0.5", "198.51.100.1"), None);
    assert_eq!(report("10.0.0.6", "192.0.2.2"), None);
    let got = report("10.0.0.5", "192.0.2.2").unwrap();
    assert_eq!(got[26..34], [192, 0, 2, 1, 192, 0, 2, 2]);
    assert_eq!(got[42 + 12..42 + 20], [192, 0, 2, 2, 192, 0, 2, 1]);
    assert_eq!(world.bed.counter("drop-unknown"), 3);
}
