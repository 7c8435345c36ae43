//! What a neighbour's flood costs: no more than its share.
//!
//! Time goes by in rounds. In each, everybody sends as much as they may, those who flood first, and the
//! receiver takes what it is fast enough for: a certain number of pages, or of frames.

mod support;

use std::time::Duration;

use devices::net::{MAX_FRAME, Mac, Port};
use network::switch::{PAGE, SwitchOptions};
use support::*;

const ROUNDS: usize = 150;

/// How fast a receiver is, in pages per round.
const SPEED: usize = 40;

const NEIGHBOUR: u8 = 1;
const FLOODER: u8 = 2;

/// Sends until the port has to wait, or `most` frames.
fn pour(plug: &TestPlug, mut frame: impl FnMut() -> Vec<u8>, most: usize) {
    for _ in 0..most {
        match try_frame(plug, &frame()) {
            Some(frame) => plug.send(frame),
            None => return,
        }
    }
}

/// Somebody who receives at a certain speed, and counts the bytes from one station.
struct Receiver {
    from: Mac,
    /// Pages that may be taken; negative after the last frame was too large.
    left: isize,
    bytes: usize,
}

impl Receiver {
    fn new(from: u8) -> Self {
        Receiver {
            from: mac(from),
            left: 0,
            bytes: 0,
        }
    }

    /// Takes what there is time for in a round.
    fn take(&mut self, plug: &TestPlug) {
        self.left += SPEED as isize;
        while self.left > 0 {
            let Some(frame) = receive(plug) else {
                self.left = 0;
                break;
            };
            self.left -= frame.len().div_ceil(PAGE) as isize;
            if frame[6..12] == self.from {
                self.bytes += frame.len();
            }
        }
    }
}

fn frame(to: Mac, from: Mac, len: usize) -> Vec<u8> {
    ethernet(to, from, &vec![0x88; len - 12])
}

/// What of the neighbour's gets out by an uplink while somebody floods.
fn upload(flooded: bool, flood: impl Fn(u32) -> Vec<u8>, bulk: usize) -> usize {
    let mut net = Net::with(SwitchOptions::default(), 4000);
    let uplink = net.uplink(1);
    let (neighbour, flooder) = (net.client(NEIGHBOUR), net.client(FLOODER));
    send(&uplink, &numbered(BROADCAST, mac(77), 0));
    let bulk = frame(mac(77), mac(NEIGHBOUR), bulk);
    let mut receiver = Receiver::new(NEIGHBOUR);
    let mut count = 0;
    for _ in 0..ROUNDS {
        if flooded {
            let next = || {
                count += 1;
                flood(count)
            };
            pour(&flooder, next, 1000);
        }
        pour(&neighbour, || bulk.clone(), 1000);
        receiver.take(&uplink);
        receive_all(&neighbour);
        net.pass(Duration::from_millis(1));
    }
    receiver.bytes
}

/// What gets to the neighbour from an uplink while somebody floods the neighbour.
fn download(flooded: bool, flood: &[u8], bulk: usize) -> usize {
    let mut net = Net::with(SwitchOptions::default(), 4000);
    let uplink = net.uplink(1);
    let (neighbour, flooder) = (net.client(NEIGHBOUR), net.client(FLOODER));
    let bulk = frame(mac(NEIGHBOUR), mac(77), bulk);
    let mut receiver = Receiver::new(77);
    for _ in 0..ROUNDS {
        if flooded {
            pour(&flooder, || flood.to_vec(), 1000);
        }
        pour(&uplink, || bulk.clone(), 100);
        receiver.take(&neighbour);
        receive_all(&uplink);
        net.pass(Duration::from_millis(1));
    }
    receiver.bytes
}

fn share(what: &str, alone: usize, flooded: usize) -> f64 {
    let share = flooded as f64 / alone as f64;
    println!(
        "{what}: {alone} bytes alone, {flooded} in the flood: {:.1} %",
        share * 100.0
    );
    share
}

#[test]
fn an_upload_keeps_its_half_of_the_uplink() {
    let small = |_| numbered(mac(77), mac(FLOODER), 0);
    let unknown = |n: u32| numbered(mac(78 + (n % 100) as u8), mac(FLOODER), n);
    let connections = |n: u32| {
        let [_, a, b, c] = n.to_be_bytes();
        let mut packet = vec![
            8, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 2, 10, a, b, c,
        ];
        packet.extend([c, b, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0]);
        ethernet(mac(77), mac(FLOODER), &packet)
    };
    let large = |_| frame(mac(77), mac(FLOODER), MAX_FRAME);
    type Flood<'a> = &'a dyn Fn(u32) -> Vec<u8>;
    let floods: [(&str, Flood); 4] = [
        ("small frames", &small),
        ("unknown stations", &unknown),
        ("new connections", &connections),
        ("large frames", &large),
    ];
    for (name, flood) in floods {
        for bulk in [1514, MAX_FRAME] {
            let alone = upload(false, flood, bulk);
            let flooded = upload(true, flood, bulk);
            let share = share(&format!("upload in frames of {bulk}, {name}"), alone, flooded);
            assert!(share > 0.49);
        }
    }
}

#[test]
fn groups_and_broadcasts_cost_less_than_a_share() {
    for (name, to) in [("broadcasts", BROADCAST), ("groups", GROUP)] {
        let flood = |_| numbered(to, mac(FLOODER), 0);
        let share = share(
            &format!("upload in large frames, {name}"),
            upload(false, flood, MAX_FRAME),
            upload(true, flood, MAX_FRAME),
        );
        assert!(share > 0.75);
    }
}

#[test]
fn a_download_keeps_its_half_of_the_receiver() {
    for (name, flood) in [
        ("small frames", numbered(mac(NEIGHBOUR), mac(FLOODER), 0)),
        ("broadcasts", numbered(BROADCAST, mac(FLOODER), 0)),
        ("large frames", frame(mac(NEIGHBOUR), mac(FLOODER), MAX_FRAME)),
    ] {
        for bulk in [1514, MAX_FRAME] {
            let alone = download(false, &flood, bulk);
            let flooded = download(true, &flood, bulk);
            let share = share(&format!("download in frames of {bulk}, {name}"), alone, flooded);
            assert!(share > 0.49);
        }
    }
}

#[test]
fn many_senders_share_alike() {
    let net = Net::with(SwitchOptions::default(), 40_000);
    let uplink = net.uplink(1);
    let lens = [60, 1514, 4096, 9014, 30_000, MAX_FRAME];
    send(&uplink, &numbered(BROADCAST, mac(77), 0));
    let clients: Vec<_> = (1..=12).map(|n| net.client(n)).collect();
    let mut taken = [0; 13];
    for _ in 0..ROUNDS {
        for (n, client) in clients.iter().enumerate() {
            let frame = frame(mac(77), mac(n as u8 + 1), lens[n % lens.len()]);
            pour(client, || frame.clone(), 20);
        }
        for _ in 0..20 {
            let frame = receive(&uplink).unwrap();
            taken[usize::from(frame[11])] += frame.len().div_ceil(PAGE);
        }
    }
    let [least, most] = [taken[1..].iter().min(), taken[1..].iter().max()].map(|it| *it.unwrap());
    println!("pages taken of each: {taken:?}");
    assert!(most - least <= 2 * 17, "{taken:?}");
}

#[test]
fn a_single_frame_does_not_wait_for_what_others_have_queued() {
    let net = Net::new();
    let uplink = net.uplink(1);
    let (neighbour, flooder) = (net.client(NEIGHBOUR), net.client(FLOODER));
    pour(&flooder, || numbered(mac(77), mac(FLOODER), 0), 10_000);
    let ping = numbered(mac(77), mac(NEIGHBOUR), 0);
    send(&neighbour, &ping);
    let ahead = receive_all(&uplink).iter().position(|frame| *frame == ping);
    assert!(ahead.is_some_and(|ahead| ahead <= 4), "{ahead:?}");
}

#[test]
fn a_sender_of_many_flows_is_one_sender() {
    // The receiver has several queues, over which the flooder's flows spread; they share its memory.
    let net = Net::new();
    let (neighbour, flooder) = (net.client(NEIGHBOUR), net.client(FLOODER));
    let uplink = net.uplink(1);
    neighbour.set_queues(4);
    for port in 0..=255 {
        let mut packet = vec![
            8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1,
        ];
        packet.extend([port, 0, 0, 0, 0, 8, 0, 0]);
        pour(&flooder, || ethernet(mac(NEIGHBOUR), mac(FLOODER), &packet), 10);
        pour(&uplink, || frame(mac(NEIGHBOUR), mac(77), 1514), 2);
    }
    let from_uplink = (0..4)
        .map(|queue| {
            let frames = std::iter::from_fn(|| receive_frame(&neighbour, queue));
            frames.filter(|frame| bytes(frame)[6..12] == mac(77)).count()
        })
        .sum::<usize>();
    // A megabyte has room for 256 frames.
    assert!((120..=136).contains(&from_uplink), "{from_uplink}");
}
