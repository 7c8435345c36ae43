//! Captured traffic crosses the switch unchanged.
//!
//! Every `*.pcap` in `tests/data` is replayed, and one that is made up here.

mod support;

use std::path::Path;

use devices::net::{ETHERNET_HEADER, Filter, MAX_FRAME, Mac, Port};
use network::switch::PortOptions;
use support::*;

/// The frames of a capture file in the classic format of libpcap (draft-ietf-opsawg-pcap), if it is one of
/// Ethernet frames.
fn parse(file: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
    const MICROSECONDS: u32 = 0xa1b2_c3d4;
    const NANOSECONDS: u32 = 0xa1b2_3c4d;
    const ETHERNET: u32 = 1;
    let magic: [u8; 4] = *file.first_chunk().ok_or("no magic number")?;
    let number = match u32::from_le_bytes(magic) {
        MICROSECONDS | NANOSECONDS => u32::from_le_bytes,
        _ => u32::from_be_bytes,
    };
    if !matches!(number(magic), MICROSECONDS | NANOSECONDS) {
        return Err("not the magic number");
    }
    let at = |offset: usize| {
        let bytes = file.get(offset..)?.first_chunk()?;
        Some(number(*bytes))
    };
    // The upper bits say how long the frame check sequences are that follow the frames.
    let link = at(20).ok_or("no header")?;
    if link & 0xffff != ETHERNET || link >> 28 != 0 {
        return Err("not of Ethernet frames");
    }
    let mut frames = vec![];
    let mut offset = 24;
    while offset < file.len() {
        let captured = at(offset + 8).ok_or("no record header")? as usize;
        let len = at(offset + 12).ok_or("no record header")? as usize;
        offset += 16;
        let frame = file.get(offset..).and_then(|rest| rest.get(..captured));
        let frame = frame.ok_or("a record is cut off")?;
        // What the capture has only a part of is left out.
        if captured == len {
            frames.push(frame.to_vec());
        }
        offset += captured;
    }
    Ok(frames)
}

/// A capture file of these frames.
fn write(frames: &[Vec<u8>], number: fn(u32) -> [u8; 4]) -> Vec<u8> {
    let mut file = vec![];
    // The version is not looked at.
    for word in [0xa1b2_c3d4, 0, 0, 0, 0x40000, 1] {
        file.extend(number(word));
    }
    for frame in frames {
        let len = frame.len() as u32;
        for word in [0, 0, len, len] {
            file.extend(number(word));
        }
        file.extend(frame);
    }
    file
}

fn source(frame: &[u8]) -> Mac {
    frame[6..12].try_into().unwrap()
}

fn destination(frame: &[u8]) -> Mac {
    frame[..6].try_into().unwrap()
}

/// What a switch sends on, whoever listens.
fn is_forwarded(frame: &[u8]) -> bool {
    let well_formed = (ETHERNET_HEADER..=MAX_FRAME).contains(&frame.len())
        && source(frame)[0] & 1 == 0
        && source(frame) != [0; 6];
    well_formed && !(frame[..5] == [1, 0x80, 0xc2, 0, 0] && frame[5] < 0x10)
}

/// Plugs in a station that may send and receive everything.
fn open_station(net: &Net, label: &str, mac: Mac) -> TestPlug {
    let plug = net.plug(PortOptions {
        guard_mac: false,
        flood_rate: None,
        ..PortOptions::client(label, mac)
    });
    plug.set_filter(Filter {
        promiscuous: true,
        ..Filter::new(mac)
    });
    plug
}

/// Replays frames from one port to another, both ways.
fn replay_through(frames: &[Vec<u8>]) {
    let net = Net::new();
    // Nothing is learned, so that everything crosses.
    let uplink = net.plug(PortOptions {
        stations: 0,
        ..PortOptions::uplink("uplink")
    });
    uplink.set_link(LINK);
    let client = net.plug(PortOptions {
        guard_mac: false,
        flood_rate: None,
        stations: 0,
        ..PortOptions::client("client", [2, 0xff, 0xff, 0, 0, 1])
    });
    client.set_filter(Filter {
        promiscuous: true,
        ..Filter::new(mac(1))
    });
    for (from, to) in [(&client, &uplink), (&uplink, &client)] {
        for frame in frames {
            send(from, frame);
            assert_eq!(
                receive_all(to),
                Vec::from_iter(is_forwarded(frame).then(|| frame.clone()))
            );
        }
    }
    assert_eq!(net.pool.free(), 1 << 20);
}

/// Replays frames between the stations that they are from, the first ones as clients of their own, others
/// behind an uplink.
fn replay_between_stations(frames: &[Vec<u8>]) {
    let net = Net::new();
    let uplink = net.uplink(1);
    let mut stations: Vec<(Mac, TestPlug)> = vec![];
    for frame in frames.iter().filter(|frame| is_forwarded(frame)) {
        let from = source(frame);
        if stations.len() < 8 && stations.iter().all(|(mac, _)| *mac != from) {
            stations.push((from, open_station(&net, "station", from)));
        }
    }
    for frame in frames.iter().filter(|frame| is_forwarded(frame)) {
        let (from, to) = (source(frame), destination(frame));
        let sender = stations.iter().find(|(mac, _)| *mac == from);
        send(sender.map_or(&uplink, |(_, plug)| plug), frame);
        let known = stations.iter().any(|(mac, _)| *mac == to);
        for (mac, plug) in &stations {
            let received = receive_all(plug);
            assert!(received.iter().all(|received| received == frame));
            if *mac == from {
                assert!(received.is_empty());
            } else if known {
                assert_eq!(received.len(), usize::from(*mac == to));
            }
        }
        let received = receive_all(&uplink);
        assert_eq!(received.len(), usize::from(sender.is_some() && !known));
        assert!(received.iter().all(|received| received == frame));
    }
}

/// Frames of many lengths and kinds.
fn made_up() -> Vec<Vec<u8>> {
    let mut frames = vec![];
    let lens = [6, 46, 50, 1500, 1504, 4096, 9000, 16_384, MAX_FRAME - 12];
    for (n, len) in lens.into_iter().enumerate() {
        for (kind, to) in [[8, 0], [8, 6], [0x86, 0xdd], [0x81, 0], [0x88, 0xcc]]
            .iter()
            .zip([mac(2), BROADCAST, GROUP, mac(90), [1, 0x80, 0xc2, 0, 0, 0xe]])
        {
            let mut rest: Vec<u8> = (0..len).map(|at| (at * 7 + n) as u8).collect();
            rest[..2].copy_from_slice(kind);
            frames.push(ethernet(to, mac(n as u8 * 2), &rest));
        }
    }
    frames
}

#[test]
fn made_up_traffic_crosses_unchanged() {
    for number in [u32::to_le_bytes, u32::to_be_bytes] {
        let frames = parse(&write(&made_up(), number)).unwrap();
        assert_eq!(frames, made_up());
    }
    replay_through(&made_up());
    replay_between_stations(&made_up());
}

#[test]
fn captured_traffic_crosses_unchanged() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let mut captures = 0;
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "pcap") {
            continue;
        }
        let frames = parse(&std::fs::read(&path).unwrap());
        let frames = frames.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(frames.len() > 100, "{}", path.display());
        replay_through(&frames);
        replay_between_stations(&frames);
        captures += 1;
    }
    assert!(captures > 0, "tests/capture.sh makes one");
}

#[test]
fn what_is_no_capture_is_refused() {
    let file = write(&made_up(), u32::to_le_bytes);
    for len in [0, 3, 10, 23, 30, file.len() - 1] {
        assert!(parse(&file[..len]).is_err(), "{len}");
    }
    assert!(parse(&[7; 100]).is_err());
}
