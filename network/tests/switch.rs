//! The switch, case by case: where frames go, what it costs, what the line is like.

mod support;

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use devices::memory::Buffer;
use devices::net::{Filter, Link, MAX_FRAME, Port};
use network::switch::{PAGE, PortOptions, RateLimit, Reason, SwitchOptions};
use support::*;

#[test]
fn a_known_station_alone_gets_its_frames() {
    let net = Net::new();
    let (a, b, c) = (net.client(1), net.client(2), net.client(3));
    let uplink = net.uplink(1);
    let frame = numbered(mac(2), mac(1), 7);
    send(&a, &frame);
    assert_eq!(receive_all(&b), [frame]);
    for other in [&a, &c, &uplink] {
        assert!(receive(other).is_none());
    }
    assert_eq!((a.counters().frames_in, a.counters().bytes_in), (1, 64));
    assert_eq!((b.counters().frames_out, b.counters().bytes_out), (1, 64));
}

#[test]
fn groups_and_all_reach_whoever_wants_them() {
    let net = Net::new();
    let (a, b, c) = (net.client(1), net.client(2), net.client(3));
    let uplink = net.uplink(1);
    let router = net.plug(PortOptions::router("router", mac(9)));
    c.set_filter(Filter {
        all_multicast: false,
        ..Filter::new(mac(3))
    });
    for to in [BROADCAST, GROUP] {
        let frame = numbered(to, mac(1), 0);
        send(&a, &frame);
        for plug in [&b, &uplink, &router] {
            assert_eq!(receive_all(plug), [&*frame]);
        }
        assert_eq!(receive_all(&c).len(), usize::from(to == BROADCAST));
        assert!(receive(&a).is_none());
    }
    // One copy in memory, whoever has it.
    let before = net.pool.free();
    send(&a, &numbered(BROADCAST, mac(1), 0));
    assert_eq!(before - net.pool.free(), 1);
}

#[test]
fn the_clock_is_not_read_for_frames() {
    let net = Net::new();
    let (a, b) = (net.client(1), net.client(2));
    let uplink = net.uplink(1);
    let before = net.clock.reads();
    for n in 0..300 {
        send(&a, &numbered(mac(2), mac(1), n));
        send(&uplink, &numbered(mac(2), mac(77), n));
        send(&b, &numbered(BROADCAST, mac(2), n));
        for plug in [&a, &b, &uplink] {
            receive_all(plug);
        }
    }
    // For the first station that was learned.
    assert_eq!(net.clock.reads() - before, 1);
}

#[test]
fn nothing_goes_from_uplink_to_uplink_or_comes_back() {
    let net = Net::new();
    let (one, two) = (net.uplink(1), net.uplink(2));
    let client = net.client(1);
    send(&one, &numbered(BROADCAST, mac(77), 0));
    assert_eq!(receive_all(&client).len(), 1);
    assert!(receive(&two).is_none());
    send(&two, &numbered(mac(77), mac(78), 0));
    assert!(receive(&one).is_none());
    assert_eq!(two.counters().drops(Reason::Undeliverable), 1);
    // The client's own broadcast, by the second uplink.
    send(&client, &numbered(BROADCAST, mac(1), 0));
    let frame = receive(&one).unwrap();
    send(&two, &frame);
    assert!(receive(&client).is_none());
    assert_eq!(two.counters().drops(Reason::SpoofedMac), 1);
}

#[test]
fn what_is_meant_for_the_other_end_of_the_line_goes_no_further() {
    let net = Net::new();
    let (a, b) = (net.client(1), net.client(2));
    for last in 0..=0x10 {
        send(&a, &numbered([1, 0x80, 0xc2, 0, 0, last], mac(1), 0));
    }
    assert_eq!(receive_all(&b).len(), 1);
    assert_eq!(a.counters().drops(Reason::Undeliverable), 16);
}

#[test]
fn what_is_no_frame_is_dropped() {
    let net = Net::new();
    let (a, b) = (net.client(1), net.client(2));
    send(&a, &numbered(BROADCAST, mac(1), 0)[..13]);
    send(&a, &numbered(BROADCAST, GROUP, 0));
    send(&a, &numbered(BROADCAST, [0; 6], 0));
    send(&a, &[0x11; MAX_FRAME + 1]);
    assert_eq!(a.counters().drops(Reason::Malformed), 4);
    send(&a, &numbered(BROADCAST, mac(1), 0)[..14]);
    assert_eq!(receive_all(&b).len(), 1);
}

#[test]
fn tags_pass_and_are_filtered() {
    let net = Net::new();
    let (a, b) = (net.client(1), net.client(2));
    let tagged = |vlan: u16| {
        let [high, low] = vlan.to_be_bytes();
        ethernet(mac(2), mac(1), &[0x81, 0, high | 0xe0, low, 0x88, 0xb5, 1, 2, 3])
    };
    send(&a, &tagged(5));
    assert_eq!(receive_all(&b), [tagged(5)]);
    let mut vlans = vec![0; 64];
    vlans[1] = 1 << 2;
    b.set_filter(Filter {
        vlans: Some(vlans),
        ..Filter::new(mac(2))
    });
    send(&a, &tagged(5));
    send(&a, &tagged(66));
    assert_eq!(receive_all(&b), [tagged(66)]);
    assert_eq!(b.counters().drops(Reason::Filtered), 1);
}

#[test]
fn isolated_clients_reach_uplinks_and_routers_only() {
    for whole_segment in [false, true] {
        let options = SwitchOptions {
            isolate: whole_segment,
            ..SwitchOptions::default()
        };
        let net = Net::with(options, 1000);
        let a = net.plug(PortOptions {
            isolate: true,
            ..PortOptions::client("a", mac(1))
        });
        let b = net.client(2);
        let uplink = net.uplink(1);
        let router = net.plug(PortOptions::router("router", mac(9)));
        for (from, to) in [(&a, 2), (&b, 1)] {
            send(from, &numbered(mac(to), mac(3 - to), 0));
            send(from, &numbered(mac(9), mac(3 - to), 0));
            send(from, &numbered(BROADCAST, mac(3 - to), 0));
            assert_eq!(from.counters().drops(Reason::Isolated), 1);
        }
        assert!(receive(&a).is_none() && receive(&b).is_none());
        assert_eq!(receive_all(&uplink).len(), 2);
        assert_eq!(receive_all(&router).len(), 4);
        send(&router, &numbered(mac(1), mac(9), 0));
        send(&uplink, &numbered(BROADCAST, mac(77), 0));
        assert_eq!((receive_all(&a).len(), receive_all(&b).len()), (2, 1));
    }
}

#[test]
fn flows_stay_in_their_queue_and_spread() {
    let net = Net::new();
    let (a, b) = (net.client(1), net.client(2));
    b.set_queues(4);
    let udp = |port: u16| {
        let mut packet = [0; 30];
        packet[..2].copy_from_slice(&[8, 0]);
        packet[2] = 0x45;
        packet[4..6].copy_from_slice(&28u16.to_be_bytes());
        packet[11] = 17;
        packet[14..22].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        packet[22..24].copy_from_slice(&port.to_be_bytes());
        ethernet(mac(2), mac(1), &packet)
    };
    let mut used = [0; 4];
    for port in 0..64 {
        send(&a, &udp(port));
        let first = (0..4).find(|queue| receive_frame(&b, *queue).is_some()).unwrap();
        send(&a, &udp(port));
        assert!(receive_frame(&b, first).is_some());
        used[usize::from(first)] += 1;
    }
    assert!(used.iter().all(|count| *count > 4), "{used:?}");
    // What waits when there are fewer queues is still received.
    for port in 0..64 {
        send(&a, &udp(port));
    }
    b.set_queues(1);
    assert_eq!(receive_all(&b).len(), 64);
    assert!(receive_frame(&b, 7).is_none() && receive_frame(&b, u16::MAX).is_none());
}

#[test]
fn a_receiver_is_woken_once_per_wait() {
    let net = Net::new();
    let (a, b) = (net.client(1), net.client(2));
    let flag = Flag::new();
    let waker = flag.waker();
    let mut context = Context::from_waker(&waker);
    assert!(b.poll_receive(0, &mut context).is_pending());
    send(&a, &numbered(mac(2), mac(1), 0));
    assert!(flag.take());
    send(&a, &numbered(mac(2), mac(1), 0));
    assert!(!flag.take());
    assert_eq!(receive_all(&b).len(), 2);
}

#[test]
fn the_link_is_that_of_the_uplinks() {
    let net = Net::new();
    let client = net.client(1);
    let changed = |seen: &mut Link| match client.poll_link(seen, &mut Context::from_waker(Waker::noop())) {
        Poll::Ready(link) => {
            *seen = link;
            true
        }
        Poll::Pending => false,
    };
    let mut seen = client.link();
    assert!(seen.up && !changed(&mut seen));
    // A router of a segment without uplinks speaks for it.
    let router = net.plug(PortOptions::router("router", mac(9)));
    assert!(!changed(&mut seen));
    router.set_link(Link { up: false, ..LINK });
    assert!(changed(&mut seen) && !seen.up);
    // With an uplink, only that counts.
    let one = net.plug(PortOptions::uplink("one"));
    one.set_link(Link {
        mtu: 9000,
        announcements: 2,
        ..LINK
    });
    assert!(changed(&mut seen));
    assert_eq!(
        (seen.up, seen.mtu, seen.speed, seen.announcements),
        (true, 9000, 1000, 2)
    );
    let two = net.plug(PortOptions::uplink("two"));
    two.set_link(Link {
        up: false,
        speed: 10,
        announcements: 3,
        ..LINK
    });
    assert!(changed(&mut seen));
    assert_eq!(
        (seen.up, seen.mtu, seen.speed, seen.announcements),
        (true, 1500, 1000, 5)
    );
    one.set_link(Link {
        up: false,
        mtu: 9000,
        announcements: 3,
        ..LINK
    });
    assert!(changed(&mut seen) && !seen.up && seen.announcements == 6);
    drop(two);
    assert!(changed(&mut seen) && seen.mtu == 9000 && seen.announcements == 6);
    drop(one);
    assert!(changed(&mut seen) && !seen.up && seen.mtu == 1500 && seen.announcements == 6);
}

#[test]
fn a_port_with_a_rate_has_a_line_of_that_speed() {
    let net = Net::new();
    let limited = net.plug(PortOptions {
        send_rate: Some(RateLimit {
            per_second: 100 * 125_000,
            burst: 0,
        }),
        ..PortOptions::client("limited", mac(1))
    });
    let (other, _uplink) = (net.client(2), net.uplink(1));
    let seen = limited.link();
    assert_eq!((seen.speed, other.link().speed), (100, LINK.speed));
    let mut context = Context::from_waker(Waker::noop());
    assert!(limited.poll_link(&seen, &mut context).is_pending());
}

#[test]
fn who_waits_for_the_link_is_woken() {
    let net = Net::new();
    let client = net.client(1);
    let uplink = net.uplink(1);
    let flag = Flag::new();
    let waker = flag.waker();
    let seen = client.link();
    assert!(
        client
            .poll_link(&seen, &mut Context::from_waker(&waker))
            .is_pending()
    );
    uplink.set_link(LINK);
    assert!(!flag.take());
    uplink.set_link(Link { up: false, ..LINK });
    assert!(flag.take());
}

#[test]
fn nothing_waits_for_an_uplink_that_is_down() {
    let net = Net::new();
    let client = net.client(1);
    let uplink = net.uplink(1);
    for n in 0..10 {
        send(&client, &numbered(mac(77), mac(1), n));
    }
    uplink.set_link(Link { up: false, ..LINK });
    send(&client, &numbered(mac(77), mac(1), 0));
    assert_eq!(uplink.counters().drops(Reason::LinkDown), 11);
    assert!(net.switch.ports().all(|port| port.sending == 0));
    uplink.set_link(LINK);
    send(&client, &numbered(mac(77), mac(1), 0));
    assert_eq!(receive_all(&uplink).len(), 1);
}

#[test]
fn a_router_hands_a_frame_on_with_its_senders_charge() {
    let (inside, outside) = (Net::new(), Net::new());
    let client = inside.client(1);
    let router = inside.plug(PortOptions::router("inside", mac(9)));
    let gateway = outside.plug(PortOptions::router("outside", mac(9)));
    let uplink = outside.uplink(1);
    send(&client, &numbered(mac(9), mac(1), 0));
    let frame = receive_frame(&router, 0).unwrap();
    assert!(frame.is_unique());
    frame.buffer().write(0, &numbered(mac(77), mac(9), 0));
    gateway.send(frame);
    let used = |net: &Net, label: &str| {
        net.switch
            .ports()
            .find(|port| port.label == label)
            .unwrap()
            .sending
    };
    assert_eq!((used(&inside, "client 1"), used(&outside, "outside")), (PAGE, 0));
    // What comes from outside waits for nobody but the router.
    for n in 0..10_000 {
        send(&uplink, &numbered(mac(9), mac(77), n));
    }
    let status = outside
        .switch
        .ports()
        .find(|port| port.label == "outside")
        .unwrap();
    assert_eq!(status.receiving, 4 << 20);
    receive(&uplink);
    assert_eq!(used(&inside, "client 1"), 0);
}

#[test]
fn whatever_is_unplugged_leaves_nothing_behind() {
    let mut net = Net::with(SwitchOptions::default(), 1000);
    let (a, b) = (net.client(1), net.client(2));
    let uplink = net.uplink(1);
    let flag = Flag::new();
    let waker = flag.waker();
    let mut context = Context::from_waker(&waker);
    assert!(b.poll_receive(0, &mut context).is_pending());
    assert!(b.poll_link(&b.link(), &mut context).is_pending());
    assert_eq!(Arc::strong_count(&flag), 4);
    send(&a, &numbered(mac(2), mac(1), 0));
    send(&a, &numbered(mac(77), mac(1), 0));
    send(&uplink, &numbered(BROADCAST, mac(77), 0));
    let handle = b.clone();
    drop(b);
    assert_eq!(receive_all(&handle).len(), 2);
    send(&a, &numbered(mac(2), mac(1), 0));
    drop(handle);
    assert_eq!(Arc::strong_count(&flag), 2);
    // The sender goes first, then what is left of it.
    drop(a);
    assert_eq!(receive_all(&uplink).len(), 1);
    assert_eq!(net.pool.free(), 1000);
    send(&uplink, &numbered(mac(2), mac(77), 0));
    assert_eq!(uplink.counters().drops(Reason::Undeliverable), 1);
    net.pass(Duration::ZERO);
    let (pool, ended) = net.end();
    assert!(!ended);
    drop(uplink);
    assert_eq!(pool.free(), 1000);
}

#[test]
fn the_switchs_task_ends_with_the_last_handle() {
    let net = Net::new();
    let client = net.client(1);
    drop(client);
    assert!(net.end().1);
}
