//! The messages, byte by byte, and messages that no driver would send.

mod support;

use devices::device::Status;
use devices::features::{ACCESS_PLATFORM, RING_RESET, VERSION_1};
use devices::msg::wire::{self, Header};
use devices::msg::{self, MAX_SIZE, Malformed};
use proptest::prelude::*;
use support::disk::{GEOMETRY, RamDisk};
use support::machine::{Machine, OPTIONS};
use zerocopy::{FromBytes, IntoBytes};

fn machine() -> Machine {
    Machine::new(RamDisk::new(GEOMETRY), OPTIONS, 1)
}

/// Sends a message given as hexadecimal digits, and gives the response in the same way.
fn exchange(machine: &mut Machine, message: &str) -> String {
    let digits: Vec<u8> = message.bytes().filter(|digit| *digit != b' ').collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    let message: Vec<u8> = digits.chunks(2).map(byte).collect();
    let response = machine.send(&message).unwrap().unwrap();
    response.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[track_caller]
fn check(machine: &mut Machine, message: &str, response: &str) {
    assert_eq!(exchange(machine, message), response.replace(' ', ""));
}

#[test]
fn a_device_is_initialized() {
    let machine = &mut machine();
    // The bus: PING, GET_DEVICES.
    check(
        machine,
        "02 03 0000 0100 0c00 efbeadde",
        "03 03 0000 0100 0c00 efbeadde",
    );
    check(
        machine,
        "02 02 0000 0200 0c00 0000 1000",
        "03 02 0000 0200 1000 0000 1000 0000 0100",
    );
    check(
        machine,
        "02 02 0000 0200 0c00 0800 0800",
        "03 02 0000 0200 0f00 0800 0800 0000 00",
    );
    // GET_DEVICE_INFO.
    check(
        machine,
        "00 02 0000 0300 0800",
        "01 02 0000 0300 2000 02000000 74736574 40000000 3c000000 01000000 0000 0000",
    );
    // SET_DEVICE_STATUS: 0, ACKNOWLEDGE, DRIVER.
    check(
        machine,
        "00 08 0000 0400 0c00 00000000",
        "01 08 0000 0400 0c00 00000000",
    );
    check(
        machine,
        "00 08 0000 0400 0c00 03000000",
        "01 08 0000 0400 0c00 03000000",
    );
    // GET_DEVICE_FEATURES: blocks 0 and 1, and one that does not exist.
    check(
        machine,
        "00 03 0000 0500 1000 00000000 03000000",
        "01 03 0000 0500 1c00 00000000 03000000 466e0030 03010000 00000000",
    );
    // SET_DRIVER_FEATURES: VERSION_1, ACCESS_PLATFORM, RING_RESET.
    check(
        machine,
        "00 04 0000 0600 1400 01000000 01000000 03010000",
        "01 04 0000 0600 0800",
    );
    check(
        machine,
        "00 08 0000 0700 0c00 0b000000",
        "01 08 0000 0700 0c00 0b000000",
    );
    // GET_CONFIG: capacity.
    check(
        machine,
        "00 05 0000 0800 1000 00000000 08000000",
        "01 05 0000 0800 1c00 00000000 00000000 08000000 0004000000000000",
    );
    // SET_CONFIG: writeback, which is refused, since CONFIG_WCE is not accepted.
    check(
        machine,
        "00 06 0000 0900 1500 00000000 20000000 01000000 01",
        "01 06 0000 0900 1400 00000000 20000000 00000000",
    );
    // GET_VQUEUE before and after SET_VQUEUE.
    check(
        machine,
        "00 09 0000 0a00 0c00 00000000",
        "01 09 0000 0a00 3000 00000000 00010000 00000000 00000000 \
         0000000000000000 0000000000000000 0000000000000000",
    );
    check(
        machine,
        "00 0a 0000 0b00 3000 00000000 00000000 80000000 00000000 \
         0000010000000080 0010010000000080 0020010000000080",
        "01 0a 0000 0b00 0800",
    );
    check(
        machine,
        "00 09 0000 0c00 0c00 00000000",
        "01 09 0000 0c00 3000 00000000 00010000 80000000 00000000 \
         0000010000000080 0010010000000080 0020010000000080",
    );
    // The bus's own request, which is told of the queue.
    check(machine, "00 80 0000 0d00 0900 2a", "01 80 0000 0d00 0a00 2a01");
    check(
        machine,
        "00 08 0000 0e00 0c00 0f000000",
        "01 08 0000 0e00 0c00 0f000000",
    );
    // GET_DEVICE_STATUS.
    check(machine, "00 07 0000 0f00 0800", "01 07 0000 0f00 0c00 0f000000");
    // RESET_VQUEUE.
    check(machine, "00 0b 0000 1000 0c00 00000000", "01 0b 0000 1000 0800");
    check(machine, "00 80 0000 0d00 0900 2a", "01 80 0000 0d00 0a00 2a00");
    // GET_SHM: there is none.
    check(
        machine,
        "00 0c 0000 1100 0c00 07000000",
        "01 0c 0000 1100 1400 07000000 00000000 00000000",
    );
    assert!(machine.device.status().contains(Status::DRIVER_OK));
}

#[test]
fn bad_requests_get_a_header() {
    let machine = &mut machine();
    for message in [
        "00 00 0000 0100 0800",
        "00 0d 0000 0100 0800",
        "02 00 0000 0100 0800",
        "02 80 0000 0100 0800",
        // An id of the bus's that the bus does not know.
        "00 81 0000 0100 0900 00",
        // Another device.
        "00 02 0100 0100 0800",
        // Too short.
        "00 03 0000 0100 0f00 00000000 000000",
        "00 04 0000 0100 1300 00000000 01000000 000000",
        "00 05 0000 0100 0800",
        "00 06 0000 0100 1400 00000000 20000000 01000000",
        "00 08 0000 0100 0b00 000000",
        "00 09 0000 0100 0800",
        "00 0a 0000 0100 1000 00000000 00000000",
        "00 0b 0000 0100 0800",
        "02 03 0000 0100 0b00 000000",
        // A response would not fit.
        "00 03 0000 0100 1000 00000000 1d000000",
        "00 03 0000 0100 1000 00000000 ffffffff",
        // Windows of devices that are not aligned, or empty.
        "02 02 0000 0100 0c00 0400 0800",
        "02 02 0000 0100 0c00 0000 0c00",
        "02 02 0000 0100 0c00 0000 0000",
    ] {
        let compact = message.replace(' ', "");
        let header = format!(
            "{:02x}{}0800",
            compact[..2].parse::<u8>().unwrap() | 1,
            &compact[2..12]
        );
        assert_eq!(exchange(machine, message), header, "{message}");
    }
    // Out of configuration space: no bytes.
    for range in [
        "3c000000 01000000",
        "00000000 3d000000",
        "ffffffff ffffffff",
        "01000000 ffffffff",
    ] {
        let offset = &range[..8];
        check(
            machine,
            &format!("00 05 0000 0100 1000 {range}"),
            &format!("01 05 0000 0100 1400 00000000 {offset} 00000000"),
        );
    }
}

#[test]
fn some_messages_are_not_answered() {
    let mut machine = machine();
    let header = |kind: u8, id: u8, size: u16| Header {
        kind,
        id,
        size: size.into(),
        ..Default::default()
    };
    for (kind, id) in [(1, 2), (3, 3), (0, 0x40), (0, 0x41), (0, 0xc0), (2, 0x40)] {
        assert_eq!(machine.send(header(kind, id, 8).as_bytes()), Ok(None));
    }
    for size in [0, 7, 9, 129, u16::MAX] {
        assert_eq!(machine.send(header(0, 2, size).as_bytes()), Err(Malformed));
    }
    assert_eq!(machine.send(&[0; 7]), Err(Malformed));
    assert_eq!(machine.send(&[]), Err(Malformed));
    // Reserved bits of the type are ignored.
    let response = machine.send(header(0xfc, 7, 8).as_bytes()).unwrap().unwrap();
    assert_eq!((response[0], response.len()), (1, 12));
}

#[test]
fn the_largest_messages_fit() {
    let machine = &mut machine();
    let blocks = machine.request(0, wire::id::GET_DEVICE_FEATURES, &[0, 0, 0, 0, 28, 0, 0, 0]);
    assert_eq!(blocks.len(), 8 + 28 * 4);
    let devices = machine.request(2, wire::bus_id::GET_DEVICES, &[0, 0, 0xf8, 0xff]);
    assert_eq!(devices.len(), MAX_SIZE - 8);
    let (window, bitmap) = wire::Devices::read_from_prefix(&devices).unwrap();
    assert_eq!(usize::from(window.count.get()), 8 * bitmap.len());
    assert_eq!(bitmap[0], 1);
    assert!(bitmap[1..].iter().all(|byte| *byte == 0));
}

#[test]
fn an_event_has_the_values_of_the_moment() {
    let mut machine = machine();
    machine.start(VERSION_1 | ACCESS_PLATFORM, 8);
    for sectors in [2000, 3000] {
        machine
            .uplink
            .set_geometry(devices::disk::Geometry { sectors, ..GEOMETRY });
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(machine.device.poll_event(&mut context).is_ready());
    }
    let mut message = [0x55; MAX_SIZE];
    let size = msg::event_config(&mut machine.device, &mut message);
    let bytes: String = message[..size].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        bytes,
        "0040000000001800 0f000000 02000000 00000000 00000000".replace(' ', "")
    );
    machine.run();
    assert!(machine.events.is_empty(), "one event for both");
}

proptest! {
    #![proptest_config(support::cases(200))]

    /// Whatever is sent, the device answers or ignores it, and is well after a reset.
    #[test]
    fn wild_messages(
        messages in prop::collection::vec(
            (
                prop_oneof![4 => Just(0u8), 1 => Just(2), 1 => any::<u8>()],
                prop_oneof![8 => 0u8..0x10, 1 => Just(0x80), 1 => any::<u8>()],
                prop_oneof![8 => Just(0u16), 1 => any::<u16>()],
                prop_oneof![8 => 8u16..=128, 1 => any::<u16>()],
                prop::collection::vec(
                    prop_oneof![4 => Just(0u32), 4 => 0u32..64, 1 => Just(1 << 31), 1 => any::<u32>()],
                    12,
                ),
            ),
            1..30,
        ),
        started in any::<bool>(),
    ) {
        let mut machine = machine();
        if started {
            machine.start(VERSION_1 | ACCESS_PLATFORM | RING_RESET, 8);
        }
        for (kind, id, device, size, payload) in &messages {
            let header = Header {
                kind: *kind,
                id: *id,
                device: (*device).into(),
                token: 7.into(),
                size: (*size).into(),
            };
            let mut message = header.as_bytes().to_vec();
            message.extend(payload.as_bytes());
            message.resize(MAX_SIZE, 0xff);
            match machine.send(&message) {
                Ok(Some(response)) => {
                    let answer = Header::read_from_prefix(&response).unwrap().0;
                    prop_assert_eq!(usize::from(answer.size.get()), response.len());
                    prop_assert!((8..=MAX_SIZE).contains(&response.len()));
                    prop_assert_eq!((answer.id, answer.device.get(), answer.token.get()), (*id, *device, 7));
                    prop_assert_eq!(answer.kind, kind & 2 | 1);
                }
                Ok(None) => prop_assert!(kind & 1 != 0 || id & 0x40 != 0),
                Err(Malformed) => prop_assert!(!(8..=128).contains(size)),
            }
            machine.run();
        }
        prop_assert_eq!(machine.set_status(0), 0);
        prop_assert_eq!((machine.guest.windows.get(), machine.bells[0].open.get()), (0, 0));
        machine.start(VERSION_1 | ACCESS_PLATFORM, 8);
    }

    /// Any bytes are fields, and give the same bytes back.
    #[test]
    fn fields_are_bytes(bytes in prop::collection::vec(any::<u8>(), 40)) {
        macro_rules! round_trip {
            ($($name:ident)*) => {$(
                let (fields, _) = wire::$name::read_from_prefix(&bytes).unwrap();
                prop_assert_eq!(fields.as_bytes(), &bytes[..size_of::<wire::$name>()]);
            )*};
        }
        round_trip!(Header DeviceInfo Features GetConfig Config DeviceStatus Index Queue);
        round_trip!(SetQueue Shm EventConfig GetDevices Devices Ping);
        let sizes = [size_of::<wire::DeviceInfo>(), size_of::<wire::Queue>(), size_of::<wire::SetQueue>()];
        prop_assert_eq!(sizes, [24, 40, 40]);
    }
}
