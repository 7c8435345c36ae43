//! What a switch does when there is no memory for large blocks: the small ones may not fail, the large ones
//! have to.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr::null_mut;

use devices::net::{Filter, Mac, Port};
use network::switch::{PAGE, PortOptions, Reason};
use support::*;

/// The least that the driver domain's heap refuses while memory is scarce, in bytes.
const LARGE: usize = 4096;

/// The host's heap, without large blocks for a thread whose memory is scarce.
struct Scarce;

thread_local! {
    static SCARCE: Cell<bool> = const { Cell::new(false) };
}

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Scarce {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if SCARCE.get() && layout.size() >= LARGE {
            return null_mut();
        }
        // SAFETY: as promised to this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as promised to this function.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static HEAP: Scarce = Scarce;

#[test]
fn frames_are_dropped_that_a_queue_has_no_memory_for() {
    let net = Net::new();
    let (a, b) = (net.client(1), net.client(2));
    let c = net.plug(PortOptions {
        receive_limit: 4096 * PAGE,
        ..PortOptions::client("client 3", mac(3))
    });
    for n in 0..10 {
        send(&b, &numbered(mac(3), mac(2), n));
    }
    let free = net.pool.free();
    SCARCE.set(true);
    (0..1000).for_each(|n| send(&a, &numbered(mac(3), mac(1), n)));
    SCARCE.set(false);
    let dropped = c.counters().drops(Reason::ReceiveQueueFull);
    assert!((1..1000).contains(&dropped), "{dropped} were dropped");
    assert_eq!(free - net.pool.free(), 1000 - dropped as usize, "pages are held");
    let received = receive_all(&c);
    assert_eq!(received.len() as u64, 1010 - dropped);
    // What was queued is in order, and nobody else's.
    let of = |from| received.iter().filter(move |bytes| bytes[6..12] == mac(from));
    assert!(
        of(1).eq((0..1000 - dropped as u32)
            .map(|n| numbered(mac(3), mac(1), n))
            .collect::<Vec<_>>()
            .iter())
    );
    assert_eq!(of(2).count(), 10);
}

#[test]
fn queues_are_joined_as_far_as_there_is_memory() {
    let net = Net::new();
    let a = net.client(1);
    let c = net.plug(PortOptions {
        receive_limit: 4096 * PAGE,
        ..PortOptions::client("client 3", mac(3))
    });
    c.set_queues(8);
    // Each fragment's number makes it another stream.
    for n in 0..400_u32 {
        send(&a, &udp(n as u16));
    }
    SCARCE.set(true);
    c.set_queues(1);
    SCARCE.set(false);
    let dropped = c.counters().drops(Reason::ReceiveQueueFull);
    assert!((1..400).contains(&dropped), "{dropped} were dropped");
    assert_eq!(receive_all(&c).len() as u64, 400 - dropped);
    assert_eq!(net.pool.free(), 1 << 20);
}

/// A packet over UDP and IPv4 from this port.
fn udp(port: u16) -> Vec<u8> {
    let mut packet = vec![
        0x08, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
    ];
    packet.extend(port.to_be_bytes());
    packet.extend([0, 9, 0, 26, 0, 0]);
    packet.extend([0; 18]);
    ethernet(mac(3), mac(1), &packet)
}

#[test]
fn an_uplink_learns_as_many_stations_as_there_is_memory_for() {
    let net = Net::new();
    let (uplink, client) = (net.uplink(1), net.client(1));
    let station = |n: u32| -> Mac {
        let n = n.to_be_bytes();
        [6, 0, n[0], n[1], n[2], n[3]]
    };
    SCARCE.set(true);
    (0..1000).for_each(|n| send(&uplink, &numbered(mac(1), station(n), n)));
    SCARCE.set(false);
    let known = net.switch.stations();
    assert!((100..1000).contains(&known), "{known} are known");
    // The newest ones.
    for (n, copies) in [(999, 0), (0, 1)] {
        receive_all(&client);
        let other = net.client(2);
        other.set_filter(Filter {
            promiscuous: true,
            ..Filter::new(mac(2))
        });
        send(&client, &numbered(station(n), mac(1), n));
        assert_eq!(receive_all(&other).len(), copies, "station {n}");
    }
}
