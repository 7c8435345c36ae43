//! The router's own address by DHCP, from servers of all kinds; and other stations', from the router,
//! outside.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use devices::net::{Mac, Offload};
use network::router::{Address, DhcpOptions};
use smoltcp::wire::{
    DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr, EthernetAddress, Ipv4Packet, UdpPacket,
};

use super::bed::{Bed, Segment, bytes, frame};
use super::dns::question;
use super::made::{Made, next, raw, udp};
use super::{GUEST, INSIDE, OUTSIDE, SERVER, config, ip, pool};

/// A server's messages as they are sent: from which address, and with what in them.
type Server = fn(&mut DhcpRepr<'_>, &mut &'static str);

/// A router that asked for an address.
struct Served {
    bed: Bed,
    /// How many messages it sent for that.
    messages: u32,
    /// Whose Ethernet addresses it looked for.
    sought: BTreeSet<Ipv4Addr>,
}

/// What a router got in 20 seconds from a server that gives 192.0.2.77 for four.
fn served_by(server: Server) -> Served {
    let (inside, outside) = (Segment::new(), Segment::new());
    let mut config = config(&inside, Some(&outside));
    config.outside.as_mut().unwrap().address = Some(Address::Dhcp { dns: Vec::new() });
    let mut bed = Bed::new(config);
    let (guest, tap) = (inside.plug(), outside.plug());
    let (mut messages, mut sought) = (0, BTreeSet::new());
    for _ in 0..400 {
        bed.step(&mut [], Duration::from_millis(50));
        // A question, for which the gateway and a name server are needed.
        let asked = Made {
            addresses: ("10.0.0.5", "10.0.0.1"),
            payload: &udp(4000, 53, &question(messages as u16)),
            ..Made::OUT
        };
        guest.inject(frame(&asked.bytes(), Offload::default()));
        while let Some(got) = tap.take() {
            let got = bytes(&got);
            if got[12..14] == [8, 6] && got[21] == 1 {
                sought.insert(<[u8; 4]>::try_from(&got[38..42]).unwrap().into());
            }
            if got[12..14] != [8, 0] || got[23] != 17 || got[36..38] != [0, 67] {
                continue;
            }
            messages += 1;
            let packet = Ipv4Packet::new_checked(&got[14..]).unwrap();
            let datagram = UdpPacket::new_checked(packet.payload()).unwrap();
            let message = DhcpPacket::new_checked(datagram.payload()).unwrap();
            let asked = DhcpRepr::parse(&message).unwrap();
            let mut reply = DhcpRepr {
                message_type: match asked.message_type {
                    DhcpMessageType::Discover => DhcpMessageType::Offer,
                    _ => DhcpMessageType::Ack,
                },
                your_ip: ip("192.0.2.77"),
                client_ip: ip("0.0.0.0"),
                router: Some(ip("192.0.2.2")),
                subnet_mask: Some(ip("255.255.255.0")),
                server_identifier: Some(ip("192.0.2.2")),
                dns_servers: Some([ip("198.51.100.53")].into_iter().collect()),
                lease_duration: Some(4),
                requested_ip: None,
                client_identifier: None,
                parameter_request_list: None,
                max_size: None,
                ..asked
            };
            let mut from = "192.0.2.2";
            server(&mut reply, &mut from);
            let mut data = vec![0; reply.buffer_len()];
            reply.emit(&mut DhcpPacket::new_unchecked(&mut data[..])).unwrap();
            let reply = Made {
                macs: (SERVER, [0xff; 6]),
                addresses: (from, "255.255.255.255"),
                payload: &udp(67, 68, &data),
                ..Made::OUT
            };
            tap.inject(frame(&reply.bytes(), Offload::default()));
        }
    }
    Served {
        bed,
        messages,
        sought,
    }
}

#[test]
fn a_server_that_makes_sense() {
    let served = served_by(|_, _| {});
    assert_eq!(served.bed.status.outside_address(), Some(ip("192.0.2.77")));
}

#[test]
fn a_server_that_names_several_routers() {
    let served = served_by(|it, _| {
        it.router = None;
        it.additional_options = &[DhcpOption {
            kind: 3,
            data: &[192, 0, 2, 3, 192, 0, 2, 4],
        }];
    });
    assert_eq!(served.bed.status.outside_address(), Some(ip("192.0.2.77")));
    // The way to the name server is by the first.
    assert!(served.sought.contains(&ip("192.0.2.3")), "{:?}", served.sought);
    assert!(!served.sought.contains(&ip("192.0.2.4")));
}

#[test]
fn leases_that_make_no_sense() {
    // smoltcp would renew with 0.0.0.0, or send by such a router, and panic. A router outside the network is
    // not believed what it says to ARP.
    let servers: [Server; 15] = [
        |_, from| *from = "0.0.0.0",
        |_, from| *from = "224.0.0.1",
        |_, from| *from = "127.0.0.1",
        |it, _| it.server_identifier = Some(ip("0.0.0.0")),
        |it, _| it.router = Some(ip("0.0.0.0")),
        |it, _| it.router = Some(ip("224.0.0.1")),
        |it, _| it.router = Some(ip("255.255.255.255")),
        |it, _| it.router = Some(ip("192.0.2.255")),
        |it, _| it.router = Some(ip("100.64.0.1")),
        |it, _| it.subnet_mask = Some(ip("255.255.255.255")),
        |it, _| it.your_ip = ip("192.0.2.255"),
        |it, _| it.your_ip = ip("224.0.0.5"),
        |it, _| it.subnet_mask = Some(ip("255.0.255.0")),
        |it, _| it.subnet_mask = Some(ip("0.0.0.0")),
        |it, _| it.lease_duration = Some(0),
    ];
    for (index, server) in servers.into_iter().enumerate() {
        let Served { bed, messages, .. } = served_by(server);
        assert_eq!(bed.status.outside_address(), None, "server {index}");
        assert!(messages < 20, "server {index}: {messages} messages");
    }
}

#[test]
fn times_that_make_no_sense() {
    let servers: [Server; 5] = [
        |it, _| it.lease_duration = Some(u32::MAX),
        |it, _| it.lease_duration = Some(1),
        |it, _| (it.renew_duration, it.rebind_duration) = (Some(0), Some(0)),
        |it, _| (it.renew_duration, it.rebind_duration) = (Some(3), Some(1)),
        |it, _| (it.renew_duration, it.rebind_duration) = (Some(u32::MAX), None),
    ];
    for (index, server) in servers.into_iter().enumerate() {
        let messages = served_by(server).messages;
        assert!(messages < 200, "server {index}: {messages} messages");
    }
}

#[test]
fn name_servers_that_are_nobody() {
    let bed = served_by(|it, _| {
        it.dns_servers = Some(
            [ip("192.0.2.255"), ip("192.0.2.77"), ip("127.0.0.1")]
                .into_iter()
                .collect(),
        );
    })
    .bed;
    assert_eq!(bed.status.outside_address(), Some(ip("192.0.2.77")));
    assert_eq!(bed.counter("dns-timeouts"), 0, "none is asked");
}

#[test]
fn packets_from_nobody_in_particular() {
    let mut world = super::World::new(|_| {});
    for from in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "10.0.0.1"] {
        let packet = Made {
            addresses: (from, "10.0.0.1"),
            payload: &udp(4000, 4001, b"x"),
            ..Made::OUT
        };
        let tap = world.inside.plug();
        tap.inject(frame(&packet.bytes(), Offload::default()));
        world.bed.step(&mut [], Duration::from_millis(5));
        let said = std::iter::from_fn(|| tap.take()).map(|it| bytes(&it));
        assert!(said.into_iter().all(|it| it[6..12] != INSIDE), "{from}");
    }
    assert_eq!(world.bed.counter("drop-invalid"), 5);
}

/// A client's datagram: it looks for a server, unless that is changed.
fn from_client<'a>(mac: Mac, change: impl FnOnce(&mut DhcpRepr<'a>)) -> Vec<u8> {
    let mut message = DhcpRepr {
        message_type: DhcpMessageType::Discover,
        transaction_id: 9,
        secs: 0,
        client_hardware_address: EthernetAddress(mac),
        client_ip: ip("0.0.0.0"),
        your_ip: ip("0.0.0.0"),
        server_ip: ip("0.0.0.0"),
        router: None,
        subnet_mask: None,
        relay_agent_ip: ip("0.0.0.0"),
        broadcast: false,
        requested_ip: None,
        client_identifier: None,
        server_identifier: None,
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    };
    change(&mut message);
    let mut data = vec![0; message.buffer_len()];
    message
        .emit(&mut DhcpPacket::new_unchecked(&mut data[..]))
        .unwrap();
    udp(68, 67, &data)
}

#[test]
fn clients_with_identifiers_of_all_kinds() {
    // Text of six characters is as long as an Ethernet address.
    let identifiers: [&[u8]; 5] = [
        b"\0abcdef",
        b"\x01abcdef",
        b"\xff\0\0\0\x01\0\x01",
        b"\0a",
        &[0xff; 255],
    ];
    let (mut world, inside, _) = raw(|config| config.insides[0].station.dhcp = Some(pool()));
    for (identifier, replies) in identifiers.into_iter().zip(1..) {
        let options = [DhcpOption {
            kind: 61,
            data: identifier,
        }];
        let discover = Made {
            addresses: ("0.0.0.0", "255.255.255.255"),
            payload: &from_client(GUEST, |it| it.additional_options = &options),
            ..Made::OUT
        };
        inside.inject(frame(&discover.bytes(), Offload::default()));
        world.bed.step(&mut [], Duration::from_millis(1));
        assert_eq!(world.bed.counter("dhcp-replies"), replies, "{identifier:?}");
        let said = std::iter::from_fn(|| inside.take()).map(|it| bytes(&it));
        let offer = said.into_iter().find(|it| it[12..14] == [8, 0]).unwrap();
        let offer = DhcpPacket::new_checked(&offer[42..]).unwrap();
        assert!(
            offer.options().any(|it| (it.kind, it.data) == (61, identifier)),
            "{identifier:?}"
        );
    }
}

#[test]
fn a_renewal_at_the_outside_address() {
    let (mut world, inside, outside) = raw(|config| {
        config.outside.as_mut().unwrap().dhcp = Some(DhcpOptions {
            first: ip("192.0.2.100"),
            last: ip("192.0.2.110"),
            ..pool()
        });
    });
    // A guest that speaks from the server's port does not get it outside.
    let guest = Made {
        payload: &udp(67, 67, b"x"),
        ..Made::OUT
    };
    inside.inject(frame(&guest.bytes(), Offload::default()));
    let got = bytes(&next(&mut world, &outside, (SERVER, "192.0.2.2")).unwrap());
    assert_ne!(got[34..36], [0, 67]);
    let mac = [2, 0, 0, 0, 1, 7];
    let mut request = |addresses: (&str, &str), to, requested| {
        let request = Made {
            macs: (mac, to),
            addresses,
            payload: &from_client(mac, |it| {
                it.message_type = DhcpMessageType::Request;
                it.client_ip = ip(addresses.0);
                it.requested_ip = requested;
            }),
            ..Made::OUT
        };
        outside.inject(frame(&request.bytes(), Offload::default()));
        world.bed.step(&mut [], Duration::from_millis(1));
        world.bed.counter("dhcp-replies")
    };
    let all = ("0.0.0.0", "255.255.255.255");
    assert_eq!(request(all, [0xff; 6], Some(ip("192.0.2.105"))), 1);
    assert_eq!(request(("192.0.2.105", "192.0.2.1"), OUTSIDE, None), 2);
    assert_eq!(world.bed.counter("drop-unknown"), 0);
}
