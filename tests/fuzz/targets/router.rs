//! What stations inside say to a router, and servers outside: frames of a capture with bytes changed, at any
//! times. The router goes on.
#![no_main]

#[allow(dead_code)]
#[path = "../../../network/tests/router/bed.rs"]
mod bed;

use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::LazyLock;
use std::time::Duration;

use bed::{Bed, Segment, bytes, fix_checksum, frame};
use devices::net::{Checksum, Mac, Offload};
use libfuzzer_sys::fuzz_target;
use network::router::{
    Address, Config, DhcpOptions, Endpoint, Forward, Inside, Limits, Protocol, StationConfig, Timeouts,
};

/// The frames of a capture, and dom0's end of it, which is the first that offers an address.
static CAPTURE: LazyLock<(Vec<Vec<u8>>, Mac)> = LazyLock::new(|| {
    let file = include_bytes!("../../../network/tests/data/bed.pcap");
    let (mut frames, mut at) = (vec![], 24);
    while let Some(header) = file.get(at..at + 16) {
        let len = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
        at += 16;
        frames.push(file[at..at + len].to_vec());
        at += len;
    }
    let is_offer =
        |frame: &&Vec<u8>| frame.len() > 300 && frame[12..14] == [8, 0] && frame[34..36] == [0, 67];
    let server = frames.iter().find(is_offer).expect("an offer")[6..12].try_into();
    (frames, server.expect("six bytes"))
});

const GUEST: Mac = [2, 0, 0, 0, 0, 1];

fn station(segment: &Segment, mac: Mac, address: Address) -> StationConfig<bed::Socket> {
    StationConfig {
        port: segment.plug(),
        mac,
        address: Some(address),
        address6: Some("fd77::1/64".parse().expect("an address")),
        dhcp: None,
        metrics: Some((80, Rc::new(|to| to.write_str("counters 1\n")))),
    }
}

fn config(inside: &Segment, outside: &Segment) -> Config<bed::Socket> {
    let own = Address::Static {
        cidr: "10.77.0.1/24".parse().expect("a network"),
        gateway: None,
        dns: vec![],
    };
    let mut station_inside = station(inside, CAPTURE.1, own);
    station_inside.dhcp = Some(DhcpOptions {
        first: Ipv4Addr::new(10, 77, 0, 50),
        last: Ipv4Addr::new(10, 77, 0, 99),
        lease: 60,
        reservations: Default::default(),
    });
    Config {
        insides: vec![Inside {
            station: station_inside,
            forwards: vec![Forward {
                protocol: Protocol::Tcp,
                port: 8080,
                to: Endpoint {
                    address: Ipv4Addr::new(10, 77, 0, 50),
                    port: 80,
                },
            }],
            rules: vec![],
            isolate: false,
            advertise: true,
        }],
        outside: Some(station(outside, GUEST, Address::Dhcp { dns: Vec::new() })),
        limits: Limits {
            connections: 64,
            per_client: 16,
        },
        timeouts: Timeouts::default(),
        seed: [1, 2],
    }
}

fuzz_target!(|input: &[u8]| {
    let (inside, outside) = (Segment::new(), Segment::new());
    let mut bed = Bed::new(config(&inside, &outside));
    let (guest, server) = (inside.plug(), outside.plug());
    // Of the router's last question for an address.
    let mut transaction = [0; 4];
    bed.step(&mut [], Duration::ZERO);
    // Which frame, when, how many changes; then each change.
    let mut input = input.iter().copied();
    while let (Some(high), Some(low), Some(how)) = (input.next(), input.next(), input.next()) {
        let which = usize::from(u16::from_be_bytes([high, low])) % CAPTURE.0.len();
        let mut made = CAPTURE.0[which].clone();
        let from_outside = made[6..12] == CAPTURE.1;
        // To outside, the router is the guest of the capture.
        let (destination, source) = if from_outside {
            (GUEST, CAPTURE.1)
        } else {
            (CAPTURE.1, GUEST)
        };
        if made[0] & 1 == 0 {
            made[..6].copy_from_slice(&destination);
        }
        made[6..12].copy_from_slice(&source);
        if from_outside && made.len() > 50 && made[34..36] == [0, 67] {
            made[46..50].copy_from_slice(&transaction);
            made[70..76].copy_from_slice(&GUEST);
        }
        for _ in 0..how & 7 {
            let (Some(at), Some(value)) = (input.next(), input.next()) else {
                break;
            };
            // Headers, mostly; behind them each step is longer.
            let at = if at < 128 {
                usize::from(at)
            } else {
                128 + 4 * usize::from(at - 128)
            };
            if let Some(byte) = made.get_mut(at) {
                *byte = value;
            }
        }
        if how & 8 != 0 {
            made.truncate(14 + input.next().map_or(0, usize::from));
        }
        if how & 16 == 0 {
            fix_checksum(&mut made);
        }
        let offload = Offload {
            // Nobody looks at transport checksums that a neighbour vouches for.
            checksum: if how & 32 == 0 {
                Checksum::Valid
            } else {
                Checksum::Unknown
            },
            segmentation: None,
        };
        let from = if from_outside { &server } else { &guest };
        from.inject(frame(&made, offload));
        let time = [0, 20, 1000, 40_000][usize::from(how >> 6)];
        bed.step(&mut [], Duration::from_millis(time));
        while guest.take().is_some() {}
        while let Some(sent) = server.take() {
            let sent = bytes(&sent);
            if sent.len() > 50 && sent[12..14] == [8, 0] && sent[34..36] == [0, 68] {
                transaction.copy_from_slice(&sent[46..50]);
            }
        }
    }
});
