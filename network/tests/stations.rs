//! Which stations a switch knows, and where it takes them to be.

mod support;

use std::time::Duration;

use devices::net::{Filter, Mac, Port};
use network::switch::{MAX_PORTS, PlugError, PortOptions, Reason};
use support::*;

#[test]
fn unknown_stations_are_sought_beyond_uplinks_and_where_everything_is_wanted() {
    let net = Net::new();
    let (a, b, c) = (net.client(1), net.client(2), net.client(3));
    let uplink = net.uplink(1);
    c.set_filter(Filter {
        promiscuous: true,
        ..Filter::new(mac(3))
    });
    send(&a, &numbered(mac(77), mac(1), 0));
    assert_eq!(receive_all(&uplink).len(), 1);
    assert_eq!(receive_all(&c).len(), 1);
    assert!(receive(&b).is_none());
    // Once it has been heard, it is known.
    send(&uplink, &numbered(mac(1), mac(77), 0));
    send(&a, &numbered(mac(77), mac(1), 0));
    assert_eq!(receive_all(&uplink).len(), 1);
    assert!(receive(&c).is_none());
}

#[test]
fn stations_are_forgotten_in_time() {
    let mut net = Net::new();
    let uplink = net.uplink(1);
    let client = net.client(1);
    assert_eq!(net.clock.next(), None);
    send(&uplink, &numbered(mac(1), mac(77), 0));
    assert_eq!(net.switch.stations(), 2);
    for _ in 0..10 {
        net.pass(Duration::from_secs(30));
    }
    assert_eq!(net.switch.stations(), 2);
    send(&uplink, &numbered(mac(1), mac(77), 0));
    for _ in 0..10 {
        net.pass(Duration::from_secs(30));
    }
    assert_eq!(net.switch.stations(), 2);
    net.pass(Duration::from_secs(30));
    assert_eq!(net.switch.stations(), 1);
    net.clock.advance(Duration::from_secs(30));
    net.keep();
    assert_eq!(net.clock.next(), None);
    drop(client);
}

#[test]
fn nobody_takes_a_station_from_a_client() {
    let net = Net::new();
    let forget = |plugs: &[&TestPlug]| {
        plugs.iter().for_each(|plug| drop(receive_all(plug)));
    };
    let (a, b, c) = (spoofer(&net, 1), spoofer(&net, 2), spoofer(&net, 3));
    let uplink = net.uplink(1);
    // What was plugged in with an address keeps it.
    for thief in [&a, &uplink] {
        send(thief, &numbered(BROADCAST, mac(3), 0));
        assert_eq!(thief.counters().drops(Reason::SpoofedMac), 1);
    }
    // What a client was first to use, no other client takes.
    send(&a, &numbered(BROADCAST, mac(50), 0));
    send(&b, &numbered(BROADCAST, mac(50), 0));
    forget(&[&a, &b, &c]);
    send(&c, &numbered(mac(50), mac(3), 0));
    assert_eq!((receive_all(&a).len(), receive_all(&b).len()), (1, 0));
    // But it may move out, and back to where it is seen next.
    send(&uplink, &numbered(BROADCAST, mac(50), 0));
    receive_all(&uplink);
    forget(&[&a, &b, &c]);
    send(&c, &numbered(mac(50), mac(3), 0));
    assert_eq!(receive_all(&uplink).len(), 1);
    send(&b, &numbered(BROADCAST, mac(50), 0));
    forget(&[&a, &b, &c]);
    send(&c, &numbered(mac(50), mac(3), 0));
    assert_eq!(receive_all(&b).len(), 1);
}

#[test]
fn a_port_fills_no_more_than_its_part_of_the_table() {
    let net = Net::new();
    let client = net.plug(PortOptions {
        guard_mac: false,
        ..PortOptions::client("client", mac(1))
    });
    let uplink = net.uplink(1);
    for n in 0..2000u16 {
        let [high, low] = n.to_be_bytes();
        send(&client, &numbered(mac(1), [6, 0, 0, 0, high, low], 0));
        send(&uplink, &numbered(mac(1), [10, 0, 0, 0, high, low], 0));
        receive_all(&client);
        receive_all(&uplink);
    }
    assert_eq!(net.switch.stations(), 1 + 64 + 1024);
    drop(uplink);
    assert_eq!(net.switch.stations(), 1 + 64);
    drop(client);
    assert_eq!(net.switch.stations(), 0);
}

/// A station that is made up.
fn made_up(n: u16) -> Mac {
    let [high, low] = n.to_be_bytes();
    [10, 0, 0, 0, high, low]
}

/// A client that may use any source address, and hears everything.
fn spoofer(net: &Net, n: u8) -> TestPlug {
    let plug = net.plug(PortOptions {
        guard_mac: false,
        ..PortOptions::client(format!("spoofer {n}"), mac(n))
    });
    plug.set_filter(Filter {
        promiscuous: true,
        ..Filter::new(mac(n))
    });
    plug
}

#[test]
fn a_full_uplink_forgets_what_was_silent_for_longest() {
    let net = Net::new();
    let (client, listener, uplink) = (net.client(1), spoofer(&net, 2), net.uplink(1));
    let is_known = |station: Mac| {
        send(&client, &numbered(station, mac(1), 0));
        assert_eq!(receive_all(&uplink).len(), 1);
        receive_all(&listener).is_empty()
    };
    let hear = |station: Mac| {
        send(&uplink, &numbered(mac(1), station, 0));
        receive_all(&client);
    };
    let gateway = mac(77);
    hear(gateway);
    for n in 0..1024 {
        hear(made_up(n));
    }
    assert!(!is_known(gateway));
    hear(gateway);
    assert!(is_known(gateway) && !is_known(made_up(0)) && is_known(made_up(1)));
    // Who goes on speaking is not forgotten, however many are made up.
    for n in 1024..10_000 {
        hear(made_up(n));
        if n % 1000 == 0 {
            hear(gateway);
        }
    }
    assert!(is_known(gateway) && is_known(made_up(9999)) && !is_known(made_up(1500)));
    assert_eq!(net.switch.stations(), 2 + 1024);
}

#[test]
fn a_full_client_makes_nobody_be_forgotten() {
    let net = Net::new();
    let (full, other, uplink) = (spoofer(&net, 1), spoofer(&net, 2), net.uplink(1));
    for n in 0..200 {
        send(&uplink, &numbered(mac(1), made_up(n), 0));
        send(&other, &numbered(mac(1), made_up(1000 + n), 0));
        receive_all(&full);
    }
    // It takes over what it has room for, and then nothing any more.
    for n in (0..200).chain(1000..1200).chain(3000..3200) {
        send(&full, &numbered(mac(2), made_up(n), 0));
        receive_all(&other);
    }
    assert_eq!(net.switch.stations(), 2 + 200 + 64);
    receive_all(&full);
    receive_all(&uplink);
    let mut there = [0; 3];
    for n in 0..200 {
        send(&other, &numbered(made_up(n), mac(2), 0));
        if n < 64 {
            send(&uplink, &numbered(made_up(1000 + n), mac(77), 0));
        }
        there[0] += receive_all(&full).len();
        there[1] += receive_all(&other).len();
        there[2] += receive_all(&uplink).len();
    }
    assert_eq!(there, [64, 64, 136]);
}

#[test]
fn a_station_that_is_not_known_costs_no_more_at_a_single_uplink() {
    let net = Net::new();
    let (client, uplink) = (net.client(1), net.uplink(1));
    let pass = |from: &TestPlug, to: Mac, source: Mac| {
        send(from, &numbered(to, source, 0));
        receive_all(&uplink).len()
    };
    assert_eq!(
        (0..5000).map(|_| pass(&client, mac(77), mac(1))).sum::<usize>(),
        5000
    );
    // Not even once the client has flooded as much as it may.
    assert_eq!(
        (0..5000).map(|_| pass(&client, GROUP, mac(1))).sum::<usize>(),
        1000
    );
    assert_eq!(client.counters().drops(Reason::Storm), 4000);
    assert_eq!(pass(&client, mac(77), mac(1)), 1);
    // Where there are several, all copies but the first count.
    let (client, second) = (net.client(2), net.uplink(2));
    let both = |_| pass(&client, mac(77), mac(2)) + receive_all(&second).len();
    assert_eq!((0..5000).map(both).sum::<usize>(), 2000);
    assert_eq!(client.counters().drops(Reason::Storm), 4000);
}

#[test]
fn addresses_and_ports_are_limited() {
    let net = Net::new();
    let plug = |mac| net.switch.plug(PortOptions::client("client", mac)).err();
    let first = net.client(1);
    assert_eq!(plug(mac(1)), Some(PlugError::AddressInUse));
    assert_eq!(plug(GROUP), Some(PlugError::BadAddress));
    assert_eq!(plug([0; 6]), Some(PlugError::BadAddress));
    let others: Vec<_> = (2..=MAX_PORTS as u8).map(|n| net.client(n)).collect();
    assert_eq!(plug(mac(200)), Some(PlugError::NoPort));
    drop(first);
    assert_eq!(plug(mac(2)), Some(PlugError::AddressInUse));
    assert_eq!(plug(mac(1)), None);
    assert_eq!(others.len(), MAX_PORTS - 1);
}
