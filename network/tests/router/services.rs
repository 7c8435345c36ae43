//! What the router itself answers.

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::rc::Rc;

use devices::net::{Checksum, Offload};
use network::router::{Address, DhcpOptions};
use smoltcp::socket::{dhcpv4, icmp, tcp, udp};
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpAddress, Ipv4Cidr};

use super::bed::{Bed, Host, Segment, TestFrame, bytes, frame};
use super::{GUEST, SERVER, World, config, ip, pool};

pub fn udp_socket() -> udp::Socket<'static> {
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 16], vec![0; 8192]);
    udp::Socket::new(buffer(), buffer())
}

pub fn tcp_socket() -> tcp::Socket<'static> {
    let buffer = || tcp::SocketBuffer::new(vec![0; 16384]);
    tcp::Socket::new(buffer(), buffer())
}

fn icmp_socket() -> icmp::Socket<'static> {
    let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; 16384]);
    icmp::Socket::new(buffer(), buffer())
}

/// Pings an address with some bytes.
pub fn ping(bed: &mut Bed, hosts: &mut [&mut Host], to: &str, len: usize) -> bool {
    const IDENT: u16 = 0x77;
    let (to, payload): (IpAddress, _) = (to.parse().unwrap(), vec![0x5a; len]);
    let handle = hosts[0].sockets.add(icmp_socket());
    let socket: &mut icmp::Socket<'_> = hosts[0].get(handle);
    socket.bind(icmp::Endpoint::Ident(IDENT)).unwrap();
    let (ident, seq_no, data) = (IDENT, 1, &payload[..]);
    match to {
        IpAddress::Ipv4(_) => {
            let request = Icmpv4Repr::EchoRequest { ident, seq_no, data };
            let bytes = socket.send(request.buffer_len(), to).unwrap();
            request.emit(&mut Icmpv4Packet::new_unchecked(bytes), &Default::default());
        }
        IpAddress::Ipv6(_) => {
            let request = Icmpv6Repr::EchoRequest { ident, seq_no, data };
            let bytes = socket.send(request.buffer_len(), to).unwrap();
            let from = hosts_address6();
            let IpAddress::Ipv6(to) = to else { unreachable!() };
            request.emit(
                &from,
                &to,
                &mut Icmpv6Packet::new_unchecked(bytes),
                &Default::default(),
            );
        }
    }
    let mut answered = false;
    for _ in 0..600 {
        bed.step(hosts, std::time::Duration::from_millis(5));
        if let Ok((bytes, from)) = hosts[0].get::<icmp::Socket<'_>>(handle).recv() {
            // smoltcp has checked its checksum; a reply differs from the request in its type.
            answered = from == to && bytes.len() == len + 8 && (bytes[0] == 0 || bytes[0] == 129);
            break;
        }
    }
    hosts[0].sockets.remove(handle);
    answered
}

fn hosts_address6() -> std::net::Ipv6Addr {
    "fd00:1::5".parse().unwrap()
}

#[test]
fn ping_of_the_gateway() {
    let mut world = World::new(|_| {});
    for len in [0, 1, 56, 1400, 1472] {
        assert!(
            ping(&mut world.bed, &mut [&mut world.guest], "10.0.0.1", len),
            "{len}"
        );
    }
    assert!(ping(&mut world.bed, &mut [&mut world.server], "192.0.2.1", 56));
    assert!(
        !ping(&mut world.bed, &mut [&mut world.guest], "10.0.0.9", 56),
        "nobody"
    );
}

#[test]
fn a_line_that_comes_to_carry_more() {
    let mut world = World::new(|config| config.insides[0].station.dhcp = Some(pool()));
    assert!(ping(&mut world.bed, &mut [&mut world.guest], "10.0.0.1", 56));
    for segment in [&world.inside, &world.outside] {
        segment.set_link(|link| link.mtu = 9000);
    }
    let mut guest = Host::new(&world.inside, GUEST, &["10.0.0.5/24"], Some("10.0.0.1"));
    let mut server = Host::new(&world.outside, SERVER, &["192.0.2.2/24"], None);
    for to in ["10.0.0.1", "192.0.2.2"] {
        assert!(
            ping(&mut world.bed, &mut [&mut guest, &mut server], to, 8972),
            "{to}"
        );
    }
}

#[test]
fn ping_of_the_gateway_over_ipv6() {
    let segment = Segment::new();
    let mut config = config(&segment, None);
    config.insides[0].station.address6 = Some("fd00:1::1/64".parse().unwrap());
    let mut bed = Bed::new(config);
    let mut guest = Host::new(&segment, GUEST, &["fd00:1::5/64"], None);
    let tap = segment.plug();
    assert!(ping(&mut bed, &mut [&mut guest], "fd00:1::1", 56));
    let said = std::iter::from_fn(|| tap.take()).map(|it| bytes(&it));
    assert!(
        said.into_iter()
            .any(|it| it[12..14] == [0x86, 0xdd] && it[54] == 134),
        "an advertisement"
    );
}

/// Asks for an address as the stock client does; gives what it got.
fn lease(
    bed: &mut Bed,
    host: &mut Host,
    seconds: u64,
) -> Option<(Ipv4Cidr, Option<Ipv4Addr>, Vec<Ipv4Addr>)> {
    let handle = host.sockets.add(dhcpv4::Socket::new());
    let mut got = None;
    for _ in 0..seconds * 20 {
        bed.step(&mut [host], std::time::Duration::from_millis(50));
        if let Some(dhcpv4::Event::Configured(config)) = host.get::<dhcpv4::Socket<'_>>(handle).poll() {
            got = Some((config.address, config.router, config.dns_servers.to_vec()));
            break;
        }
    }
    host.sockets.remove(handle);
    got
}

#[test]
fn a_stock_client_gets_its_lease() {
    let mut world = World::new(|config| config.insides[0].station.dhcp = Some(pool()));
    world.guest.configure(std::iter::empty(), None);
    let (address, router, dns) = lease(&mut world.bed, &mut world.guest, 10).unwrap();
    assert!((100..200).contains(&address.address().octets()[3]) && address.prefix_len() == 24);
    assert_eq!((router, &dns[..]), (Some(ip("10.0.0.1")), &[ip("10.0.0.1")][..]));
    world.bed.pass(&mut [], 2);
    assert_eq!(world.bed.counter("dhcp-leases-now"), 1);
    // The same once more, and from a router that knows nothing of it.
    assert_eq!(lease(&mut world.bed, &mut world.guest, 10).unwrap().0, address);
    let mut anew = World::new(|config| config.insides[0].station.dhcp = Some(pool()));
    anew.guest.configure(std::iter::empty(), None);
    assert_eq!(lease(&mut anew.bed, &mut anew.guest, 10).unwrap().0, address);
    // With it, the guest gets out.
    world.guest.configure([address.into()].into_iter(), router);
    assert!(ping(
        &mut world.bed,
        &mut [&mut world.guest, &mut world.server],
        "192.0.2.2",
        56
    ));
}

#[test]
fn checksums_that_are_still_to_be_computed() {
    let mut world = World::new(|config| config.insides[0].station.dhcp = Some(pool()));
    world.guest.configure(std::iter::empty(), None);
    world.guest.send_by(partial);
    assert!(lease(&mut world.bed, &mut world.guest, 10).is_some());
}

/// Leaves UDP's and TCP's checksums to whoever comes next.
pub fn partial(mut bytes: Vec<u8>) -> TestFrame {
    let offset = match (&bytes[12..14], bytes[23]) {
        ([8, 0], 6) => 16,
        ([8, 0], 17) => 6,
        _ => return frame(&bytes, Offload::default()),
    };
    let start = 14 + 4 * usize::from(bytes[14] & 15);
    let total = usize::from(u16::from_be_bytes([bytes[16], bytes[17]]));
    let len = (14 + total - start) as u32;
    let mut sum = u32::from(bytes[23]) + len;
    for word in bytes[26..34].chunks(2) {
        sum += u32::from(u16::from_be_bytes([word[0], word[1]]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let at = start + usize::from(offset);
    bytes[at..at + 2].copy_from_slice(&(sum as u16).to_be_bytes());
    let checksum = Checksum::Partial {
        start: start as u16,
        offset,
    };
    frame(
        &bytes,
        Offload {
            checksum,
            segmentation: None,
        },
    )
}

#[test]
fn reservations_and_a_pool_that_is_used_up() {
    let options = DhcpOptions {
        last: ip("10.0.0.101"),
        ..pool()
    };
    let reservations = options.reservations.clone();
    reservations
        .borrow_mut()
        .push(([2, 0, 0, 0, 0, 7], ip("10.0.0.7")));
    let segment = Segment::new();
    let mut config = config(&segment, None);
    config.insides[0].station.dhcp = Some(options);
    if let Some(Address::Static { dns, .. }) = &mut config.insides[0].station.address {
        dns.push(ip("9.9.9.9"));
    }
    let mut bed = Bed::new(config);
    let mut guests: Vec<_> = [7, 1, 2, 3]
        .map(|n| Host::new(&segment, [2, 0, 0, 0, 0, n], &[], None))
        .into();
    let mut leases = guests.iter_mut().map(|guest| lease(&mut bed, guest, 10));
    let (reserved, router, dns) = leases.next().unwrap().unwrap();
    assert_eq!(reserved.address(), ip("10.0.0.7"));
    // There is no way out, so that none is told of.
    assert_eq!((router, dns), (None, vec![ip("9.9.9.9")]));
    let (first, second) = (
        leases.next().unwrap().unwrap().0,
        leases.next().unwrap().unwrap().0,
    );
    assert_ne!(first, second);
    assert_eq!(leases.next().unwrap(), None);
}

#[test]
fn the_outside_address_by_dhcp() {
    // The server outside is another router's.
    let (inside, outside) = (Segment::new(), Segment::new());
    let mut config = config(&inside, Some(&outside));
    config.outside.as_mut().unwrap().address = Some(Address::Dhcp { dns: Vec::new() });
    let mut bed = Bed::new(config);
    let mut other = super::config(&outside, None);
    other.insides[0].station.mac = SERVER;
    other.insides[0].station.dhcp = Some(pool());
    let other = RefCell::new(Bed::new(other));
    assert!(!bed.status.is_up());
    for _ in 0..1000 {
        bed.step(&mut [], std::time::Duration::from_millis(20));
        other
            .borrow_mut()
            .step(&mut [], std::time::Duration::from_millis(20));
    }
    assert!(bed.status.is_up());
    assert!((100..200).contains(&bed.status.outside_address().unwrap().octets()[3]));
    outside.set_link(|link| link.up = false);
    bed.step(&mut [], std::time::Duration::from_millis(20));
    assert!(!bed.status.is_up());
}

/// What a server says to an HTTP request.
fn http(bed: &mut Bed, client: &mut Host, to: (Ipv4Addr, u16), request: &[u8]) -> String {
    let handle = client.sockets.add(tcp_socket());
    let socket = client.sockets.get_mut::<tcp::Socket<'_>>(handle);
    socket.connect(client.interface.context(), to, 5000).unwrap();
    socket.set_timeout(Some(smoltcp::time::Duration::from_secs(90)));
    let (mut sent, mut got) = (0, Vec::new());
    bed.until(&mut [client], |hosts| {
        let socket = hosts[0].get::<tcp::Socket<'_>>(handle);
        if socket.can_send() {
            sent += socket.send_slice(&request[sent..]).unwrap();
        }
        while socket.can_recv() {
            socket
                .recv(|bytes| {
                    got.extend_from_slice(bytes);
                    (bytes.len(), ())
                })
                .unwrap();
        }
        if socket.state() == tcp::State::CloseWait {
            socket.close();
        }
        !socket.is_open() || socket.state() == tcp::State::TimeWait
    });
    client.sockets.remove(handle);
    String::from_utf8(got).unwrap()
}

#[test]
fn counters_over_http() {
    let text = "a 1\n".repeat(20_000);
    let expected = text.clone();
    let write: network::router::Text = Rc::new(move |to| to.write_str(&text));
    let mut world = World::new(|config| config.insides[0].station.metrics = Some((9100, write)));
    let to = (ip("10.0.0.1"), 9100);
    for _ in 0..10 {
        let got = http(
            &mut world.bed,
            &mut world.guest,
            to,
            b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        );
        assert!(got.starts_with("HTTP/1.1 200 ") && got.ends_with(&expected));
    }
    let got = http(
        &mut world.bed,
        &mut world.guest,
        to,
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    );
    assert!(got.starts_with("HTTP/1.1 404 "), "{got}");
    // One that says nothing is left in time.
    assert_eq!(http(&mut world.bed, &mut world.guest, to, b""), "");
}
