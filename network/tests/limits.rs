//! What a port may hold, send and receive of a switch, and who waits or loses frames beyond that.

mod support;

use std::task::Context;
use std::time::Duration;

use devices::net::Port;
use network::switch::{PAGE, PortOptions, RateLimit, Reason, SwitchOptions};
use proptest::prelude::*;
use support::*;

#[test]
fn senders_wait_for_an_uplink_with_what_they_have_sent() {
    let net = Net::new();
    let client = net.plug(PortOptions {
        send_limit: 20 * PAGE,
        ..PortOptions::client("client", mac(1))
    });
    let uplink = net.uplink(1);
    let frame = numbered(mac(77), mac(1), 0);
    for _ in 0..20 {
        send(&client, &frame);
    }
    assert!(client.allocate(64).is_none());
    assert_eq!(client.counters().wait_account, 1);
    let flag = Flag::new();
    let waker = flag.waker();
    let mut context = Context::from_waker(&waker);
    assert!(client.poll_ready(64, &mut context).is_pending());
    let taken = receive_frame(&uplink, 0);
    assert!(!flag.take() && client.poll_ready(64, &mut context).is_pending());
    drop(taken);
    assert!(flag.take() && client.poll_ready(64, &mut context).is_ready());
    assert!(client.poll_ready(PAGE + 1, &mut context).is_pending());
    assert_eq!(net.switch.ports().map(|port| port.sending).max(), Some(19 * PAGE));
}

#[test]
fn a_client_that_takes_nothing_holds_only_its_own_memory() {
    let net = Net::new();
    let sender = net.client(1);
    let _idle = net.plug(PortOptions {
        receive_limit: 20 * PAGE,
        ..PortOptions::client("idle", mac(2))
    });
    for n in 0..1000 {
        send(&sender, &numbered(mac(2), mac(1), n));
    }
    let idle = net.switch.ports().find(|port| port.label == "idle").unwrap();
    assert_eq!(idle.receiving, 20 * PAGE);
    assert_eq!(idle.counters.drops(Reason::ReceiveQueueFull), 980);
    let sender = net.switch.ports().find(|port| port.label == "client 1").unwrap();
    assert_eq!(sender.sending, 0);
}

#[test]
fn without_memory_a_sender_waits_for_it() {
    let net = Net::with(SwitchOptions::default(), 2);
    let (a, b) = (net.client(1), net.client(2));
    send(&a, &numbered(mac(2), mac(1), 0));
    assert!(a.allocate(PAGE + 1).is_none());
    assert_eq!(a.counters().no_memory, 1);
    let flag = Flag::new();
    let waker = flag.waker();
    let mut context = Context::from_waker(&waker);
    assert!(a.poll_ready(PAGE + 1, &mut context).is_pending());
    receive(&b);
    assert!(flag.take() && a.poll_ready(PAGE + 1, &mut context).is_ready());
}

const MEGABYTE: RateLimit = RateLimit {
    per_second: 1_000_000,
    burst: 10_000,
};

#[test]
fn a_limited_sender_waits() {
    let mut net = Net::new();
    let limited = net.plug(PortOptions {
        send_rate: Some(MEGABYTE),
        ..PortOptions::client("limited", mac(1))
    });
    let receiver = net.client(2);
    let frame = ethernet(mac(2), mac(1), &[0x88; 988]);
    let flag = Flag::new();
    let waker = flag.waker();
    let mut context = Context::from_waker(&waker);
    let (mut sent, mut reads) = (0, net.clock.reads());
    for _ in 0..1000 {
        while let Some(frame) = try_frame(&limited, &frame) {
            limited.send(frame);
            sent += 1;
        }
        assert!(limited.poll_ready(1000, &mut context).is_pending());
        receive_all(&receiver);
        net.pass(Duration::from_millis(1));
        while flag.take() {}
    }
    assert!((1000..=1011).contains(&sent), "{sent}");
    reads = net.clock.reads() - reads;
    assert!(reads < 1000, "{reads}");
    // The wake-up comes without anybody else doing anything.
    while let Some(frame) = try_frame(&limited, &frame) {
        limited.send(frame);
    }
    assert!(limited.poll_ready(1000, &mut context).is_pending());
    net.pass(Duration::from_millis(10));
    assert!(flag.take() && limited.poll_ready(1000, &mut context).is_ready());
}

/// A client that may receive a megabyte per second.
fn slow_receiver(net: &Net) -> TestPlug {
    net.plug(PortOptions {
        receive_rate: Some(MEGABYTE),
        ..PortOptions::client("limited", mac(2))
    })
}

/// A frame of 1000 bytes for the receiver that is limited.
fn kilobyte(from: u8) -> Vec<u8> {
    ethernet(mac(2), mac(from), &[0x88; 988])
}

/// How many frames a megabyte of memory for them has room for.
const QUEUED: u64 = 256;

#[test]
fn what_comes_for_a_limited_receiver_too_fast_waits_or_is_dropped() {
    let mut net = Net::new();
    let (sender, limited) = (net.client(1), slow_receiver(&net));
    let mut received = 0;
    for _ in 0..1000 {
        for _ in 0..5 {
            send(&sender, &kilobyte(1));
        }
        received += receive_all(&limited).len() as u64;
        net.pass(Duration::from_millis(1));
    }
    assert!((995..=1011).contains(&received), "{received}");
    let dropped = limited.counters().drops(Reason::ReceiveRate);
    assert_eq!(
        (dropped, limited.counters().dropped()),
        (5000 - received - QUEUED, dropped)
    );
    assert!(net.clock.reads() < 1500);
    // Once nobody takes anything, that is the reason.
    while receive(&limited).is_some() {}
    net.pass(Duration::from_millis(100));
    assert!(receive(&limited).is_some());
    for _ in 0..1000 {
        send(&sender, &kilobyte(1));
    }
    assert!(limited.counters().drops(Reason::ReceiveQueueFull) > 900);
}

#[test]
fn a_burst_for_a_limited_receiver_comes_at_its_rate() {
    let mut net = Net::new();
    let (sender, limited) = (net.client(1), slow_receiver(&net));
    let flag = Flag::new();
    let waker = flag.waker();
    let mut context = Context::from_waker(&waker);
    assert!(limited.poll_receive(0, &mut context).is_pending());
    // A window of TCP, larger than what is let through at once.
    for _ in 0..100 {
        send(&sender, &kilobyte(1));
    }
    let (mut received, mut time, mut polls) = (0, 0, 0);
    while received < 100 {
        if flag.take() {
            polls += 1;
            while limited.poll_receive(0, &mut context).is_ready() {
                received += 1;
            }
        }
        // Who waits for the limit is not woken for what he cannot take.
        if received < 90 {
            send(&sender, &numbered(BROADCAST, mac(1), 0));
            assert_eq!(limited.counters().dropped(), 0);
        }
        assert!(!flag.take());
        net.pass(Duration::from_millis(1));
        time += 1;
        assert!(time < 200, "{received}");
    }
    assert!((88..=110).contains(&time), "{time} ms");
    assert!(polls <= 25, "{polls}");
}

#[test]
fn the_limit_of_a_receiver_is_shared_fairly() {
    for queues in [1, 4] {
        let mut net = Net::new();
        let (flooder, neighbour) = (net.client(1), net.client(3));
        let limited = slow_receiver(&net);
        limited.set_queues(queues);
        // The neighbour sends a tenth of the rate, and the flooder nine times the rate, in as many flows as
        // there can be.
        let mut received = [0; 4];
        for n in 0..5000u16 {
            for _ in 0..9 {
                let port = n.to_be_bytes();
                let mut packet = kilobyte(1);
                packet[12..14].copy_from_slice(&[8, 0]);
                packet[14..24].copy_from_slice(&[0x45, 0, 3, 0xda, 0, 0, 0, 0, 64, 17]);
                packet[34..36].copy_from_slice(&port);
                send(&flooder, &packet);
            }
            if n % 10 == 0 {
                send(&neighbour, &kilobyte(3));
            }
            for queue in 0..queues {
                while let Some(frame) = receive_frame(&limited, queue) {
                    received[usize::from(bytes(&frame)[11])] += 1;
                }
            }
            net.pass(Duration::from_millis(1));
        }
        // At most one of the neighbour's waits in the end.
        assert!(received[3] >= 499, "{received:?}");
        assert!((4490..=4520).contains(&received[1]), "{received:?}");
    }
}

/// A sender like TCP: a window that grows by a frame per round trip, and is halved when something of it is
/// lost.
struct Stream {
    plug: TestPlug,
    number: u8,
    window: f64,
    under_way: usize,
    /// When the window may be halved again, in ms.
    recovered: usize,
}

#[test]
fn streams_use_a_limited_receiver_to_the_full() {
    for count in [1, 4] {
        let mut net = Net::new();
        let limited = slow_receiver(&net);
        let stream = |number| Stream {
            plug: net.client(number),
            number,
            window: 2.0,
            under_way: 0,
            recovered: 0,
        };
        let mut streams: Vec<_> = (3..3 + count).map(stream).collect();
        let mut received = vec![0usize; usize::from(count)];
        for now in 0..20_000 {
            for stream in &mut streams {
                while stream.under_way < stream.window as usize {
                    let dropped = limited.counters().dropped();
                    send(&stream.plug, &kilobyte(stream.number));
                    // A frame of its own or of another stream: on the whole each loses its part.
                    if limited.counters().dropped() == dropped {
                        stream.under_way += 1;
                    } else if now >= stream.recovered {
                        stream.window = (stream.window / 2.0).max(2.0);
                        stream.recovered = now + 260;
                    } else {
                        break;
                    }
                }
            }
            for frame in receive_all(&limited) {
                let index = usize::from(frame[11]) - 3;
                received[index] += 1;
                let stream = &mut streams[index];
                stream.under_way = stream.under_way.saturating_sub(1);
                stream.window += 1.0 / stream.window;
            }
            net.pass(Duration::from_millis(1));
        }
        // 20 MB in 20 s.
        assert!(received.iter().sum::<usize>() > 19_500, "{received:?}");
        let fair = 20_000 / usize::from(count);
        assert!(received.iter().all(|it| *it > fair * 8 / 10), "{received:?}");
    }
}

proptest! {
    #![proptest_config(cases(128))]

    /// A receiver that looks for frames only when it is woken gets all that is not dropped.
    #[test]
    fn no_wake_up_is_lost(
        per_second in 20_000u64..10_000_000,
        steps in prop::collection::vec((0..3usize, 60..9000usize, 0..30u64), 1..100),
    ) {
        let mut net = Net::new();
        let sender = net.client(1);
        let limited = net.plug(PortOptions {
            receive_rate: Some(RateLimit { per_second, burst: 1 }),
            receive_limit: 20 * PAGE,
            ..PortOptions::client("limited", mac(2))
        });
        let flag = Flag::new();
        let waker = flag.waker();
        let mut context = Context::from_waker(&waker);
        prop_assert!(limited.poll_receive(0, &mut context).is_pending());
        let mut left = 0;
        for (count, len, time) in steps {
            for _ in 0..count {
                send(&sender, &ethernet(mac(2), mac(1), &vec![0x88; len - 12]));
                left += 1;
            }
            if flag.take() {
                while limited.poll_receive(0, &mut context).is_ready() {
                    left -= 1;
                }
            }
            net.pass(Duration::from_millis(time));
        }
        // All that waits, at the lowest rate.
        for _ in 0..6000 {
            if flag.take() {
                while limited.poll_receive(0, &mut context).is_ready() {
                    left -= 1;
                }
            }
            net.pass(Duration::from_millis(1));
        }
        prop_assert_eq!(left, limited.counters().dropped());
        prop_assert!(net.switch.ports().all(|port| port.receiving == 0));
    }
}

#[test]
fn what_nobody_is_there_for_costs_nothing_of_the_limit() {
    let net = Net::new();
    let (sender, limited) = (net.client(1), slow_receiver(&net));
    for _ in 0..100 {
        send(&sender, &kilobyte(1));
    }
    limited.forget();
    assert_eq!(limited.counters().drops(Reason::Filtered), 100);
    for _ in 0..100 {
        send(&sender, &kilobyte(1));
    }
    assert_eq!(receive_all(&limited).len(), 10);
    limited.forget();
    assert_eq!(limited.counters().drops(Reason::Filtered), 190);
    assert!(net.switch.ports().all(|port| port.receiving == 0));
}

#[test]
fn a_storm_is_cut_down() {
    let mut net = Net::new();
    let storm = net.plug(PortOptions {
        flood_rate: Some(RateLimit {
            per_second: 300,
            burst: 300,
        }),
        ..PortOptions::client("storm", mac(1))
    });
    let others = [net.client(2), net.client(3), net.client(4)];
    let mut received = 0;
    for n in 0..10_000 {
        send(&storm, &numbered([BROADCAST, GROUP][n % 2], mac(1), 0));
        received += others.iter().map(|other| receive_all(other).len()).sum::<usize>();
        net.pass(Duration::from_millis(1));
    }
    assert!((3290..=3310).contains(&received), "{received}");
    // What is known is no storm.
    send(&storm, &numbered(mac(2), mac(1), 0));
    assert_eq!(receive_all(&others[0]).len(), 1);
}
