//! Broken rings of messages, and messages that are none.

use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use devices::msg::wire::{Header, bus_id, id, kind};
use kernel::time;
use kernel::xenbus::State;
use protocols::message_page::SLOTS;

use super::leave;
use crate::connection::message;
use crate::device::{Device, xen};
use crate::ensure;
use crate::frontend::Frontend;
use crate::raw::RawQueue;
use crate::report::Outcome;

/// The scenarios of this group.
pub const NAMES: &[&str] = &[
    "ring-jump",
    "ring-back",
    "response-index",
    "size-0",
    "size-7",
    "size-129",
    "size-65535",
    "ring-jump-under-load",
    "unknown-requests",
    "short-requests",
    "other-device",
    "not-requests",
    "full-ring",
    "message-flood",
];

/// Offsets in the message page.
const DRIVER_PROD: usize = 0x000;
const DRIVER_CONS: usize = 0x004;
const DEVICE_PROD: usize = 0x040;
const DEVICE_CONS: usize = 0x044;

/// Connects, runs a scenario, and leaves.
pub async fn run(frontend: &Frontend, name: &str) -> Outcome {
    let device = Rc::new(frontend.connect().await?);
    match name {
        "unknown-requests" => unknown_requests(&device)?,
        "short-requests" => short_requests(&device)?,
        "other-device" => other_device(&device)?,
        "not-requests" => not_requests(&device)?,
        "full-ring" => full_ring(&device).await?,
        "message-flood" => message_flood(&device)?,
        _ => return broken_page(frontend, device, name).await,
    }
    device.ping(1)?;
    leave(frontend, device).await
}

/// Breaks the page's rules: the back end writes `error` and enters Closing.
async fn broken_page(frontend: &Frontend, device: Rc<Device>, name: &str) -> Outcome {
    let mut load = None;
    if name == "ring-jump-under-load" {
        let mut queue = RawQueue::new(&device, 8, 0)?;
        queue.expect_service().await?;
        load = Some(queue.abandon());
    }
    device.ping(1)?;
    let connection = device.connection();
    let page = connection.page();
    let sent = page.read_u32(DRIVER_PROD);
    let sized = |size: u16| {
        let mut bytes = message(Header::default(), &[0; 8]);
        bytes[6..8].copy_from_slice(&size.to_le_bytes());
        bytes
    };
    match name {
        "ring-jump" | "ring-jump-under-load" => page.write_u32(DRIVER_PROD, sent.wrapping_add(SLOTS + 1)),
        "ring-back" => page.write_u32(DRIVER_PROD, sent.wrapping_sub(1)),
        "response-index" => page.write_u32(DRIVER_CONS, page.read_u32(DEVICE_PROD).wrapping_add(1)),
        "size-0" => connection.send_bytes(&sized(0))?,
        "size-7" => connection.send_bytes(&sized(7))?,
        "size-129" => connection.send_bytes(&sized(129))?,
        "size-65535" => connection.send_bytes(&sized(u16::MAX))?,
        _ => return Err("not a scenario".into()),
    }
    connection.notify();
    frontend
        .await_backend("Closing", |state| state == State::Closing)
        .await?;
    let error = frontend.read_backend("error").await?;
    ensure!(error.is_some(), "the back end has not written its error");
    let device = Rc::into_inner(device).ok_or("the device is still in use")?;
    frontend.close_after_closing(device.into_connection()).await?;
    load.map_or(Ok(()), |pages| pages.released())
}

/// Fails unless a request is answered with nothing but a header.
fn expect_header_only(device: &Device, kind: u8, id: u8, payload: &[u8]) -> Outcome {
    let answer = device.connection().exchange(kind, id, payload)?;
    ensure!(
        answer.is_empty(),
        "message {kind}:{id:#04x} with {} bytes is answered with {answer:02x?}",
        payload.len()
    );
    Ok(())
}

fn unknown_requests(device: &Device) -> Outcome {
    for id in (0..id::EVENT).chain(id::IMPLEMENTATION..id::IMPLEMENTATION | id::EVENT) {
        let known = (id::GET_DEVICE_INFO..=id::GET_SHM).contains(&id);
        if !known && id != xen::SET_VQUEUE_EVENT && id != xen::SET_POOL {
            expect_header_only(device, 0, id, &[0xff; 120])?;
        }
        if id != bus_id::GET_DEVICES && id != bus_id::PING {
            expect_header_only(device, kind::BUS, id, &[0xff; 120])?;
        }
    }
    Ok(())
}

fn short_requests(device: &Device) -> Outcome {
    for (id, needed) in [
        (id::GET_DEVICE_FEATURES, 8),
        (id::SET_DRIVER_FEATURES, 8),
        (id::GET_CONFIG, 8),
        (id::SET_CONFIG, 12),
        (id::SET_DEVICE_STATUS, 4),
        (id::GET_VQUEUE, 4),
        (id::SET_VQUEUE, 40),
        (id::RESET_VQUEUE, 4),
        (xen::SET_VQUEUE_EVENT, 8),
        (xen::SET_POOL, 16),
    ] {
        for len in 0..needed {
            expect_header_only(device, 0, id, &vec![1; len])?;
        }
    }
    // A payload that says that it is longer than it is.
    expect_header_only(
        device,
        0,
        id::SET_DRIVER_FEATURES,
        &[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4],
    )?;
    expect_header_only(
        device,
        0,
        id::SET_CONFIG,
        &[0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
    )?;
    // More features than fit a message.
    expect_header_only(
        device,
        0,
        id::GET_DEVICE_FEATURES,
        &[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
    )?;
    expect_header_only(device, kind::BUS, bus_id::PING, &[1; 3])?;
    expect_header_only(device, kind::BUS, bus_id::GET_DEVICES, &[0; 3])
}

fn other_device(device: &Device) -> Outcome {
    let connection = device.connection();
    for number in [1_u16, 7, u16::MAX] {
        for id in [id::GET_DEVICE_INFO, id::SET_DEVICE_STATUS, xen::SET_POOL] {
            let request = Header {
                device: number.into(),
                id,
                token: 9.into(),
                ..Header::default()
            };
            connection.send_bytes(&message(request, &[0; 16]))?;
            let answer = connection.response(Header {
                kind: kind::RESPONSE,
                ..request
            })?;
            ensure!(answer.is_empty(), "device {number} answers {answer:02x?}");
        }
    }
    Ok(())
}

/// Responses and events are not for the back end: it answers the next request as if they had not been.
fn not_requests(device: &Device) -> Outcome {
    let connection = device.connection();
    for (kind, id) in [
        (kind::RESPONSE, id::GET_DEVICE_INFO),
        (kind::RESPONSE | kind::BUS, bus_id::PING),
        (0, id::EVENT_CONFIG),
        (0, 0x41),
        (kind::BUS, id::EVENT),
        (0, 0xff),
    ] {
        connection.send(kind, id, &[0; 8])?;
        device.ping(u32::from(id))?;
    }
    Ok(())
}

/// Sends requests and takes no response: the back end takes no more requests than it can answer.
async fn full_ring(device: &Device) -> Outcome {
    let connection = device.connection();
    let page = connection.page();
    let ping = |_| connection.send(kind::BUS, bus_id::PING, &[0; 4]);
    let before = page.read_u32(DEVICE_CONS);
    let consumed = || page.read_u32(DEVICE_CONS).wrapping_sub(before);
    let mut expected: Vec<Header> = (0..SLOTS).map(ping).collect::<Outcome<_>>()?;
    for _ in 0..100 {
        time::sleep(Duration::from_millis(10)).await;
        if consumed() == SLOTS {
            break;
        }
    }
    ensure!(
        consumed() == SLOTS,
        "of {SLOTS} requests, {} were taken",
        consumed()
    );
    let more: Vec<Header> = (0..SLOTS).map(ping).collect::<Outcome<_>>()?;
    expected.extend(more);
    time::sleep(Duration::from_millis(100)).await;
    ensure!(
        consumed() == SLOTS,
        "with a full device ring, {} requests were taken",
        consumed()
    );
    for header in expected {
        connection.response(header)?;
    }
    Ok(())
}

/// Thousands of requests, as fast as the ring takes them.
fn message_flood(device: &Device) -> Outcome {
    for _ in 0..500 {
        let expected = (0..SLOTS).map(|_| device.connection().send(0, id::GET_DEVICE_INFO, &[]));
        let expected: Vec<Header> = expected.collect::<Outcome<_>>()?;
        for header in expected {
            device.connection().response(header)?;
        }
    }
    Ok(())
}
