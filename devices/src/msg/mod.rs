//! The virtio-msg transport, device side ("Virtio Over Messages", RFC v3), for a bus that carries one device
//! with number 0.
//!
//! [`handle`] answers one message at a time; [`event_config`] makes the only event that is sent. Where the
//! messages come from and how they are kept in order is the bus's business.

pub mod wire;

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::bus::Bus;
use crate::device::{Device, Model, QueueConfig};
use wire::{Header, bus_id, id, kind};

/// The largest message, in bytes, header included.
pub const MAX_SIZE: usize = 128;

const HEADER_SIZE: usize = size_of::<Header>();

/// The size that a message gives for itself cannot be: what the peer sends is no sequence of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Answers a message of the driver.
///
/// `request` is a private copy of the message, possibly longer than the message itself. The result is the
/// length of the response, or `None` for a message that is not answered: a response or an event.
///
/// A request that is unknown, too short, or for another device gets a response of only a header. Resets wait
/// for the uplink; if the future is dropped meanwhile, so should the device be.
pub async fn handle<M: Model<B>, B: Bus>(
    device: &mut Device<M, B>,
    request: &[u8],
    response: &mut [u8; MAX_SIZE],
) -> Result<Option<usize>, Malformed> {
    let (header, _) = Header::read_from_prefix(request).map_err(|_| Malformed)?;
    // "Common Message Format": size counts the header. What follows the message in its slot is not part of
    // it.
    let payload = request
        .get(HEADER_SIZE..usize::from(header.size.get()))
        .ok_or(Malformed)?;
    // Reserved bits of the type are ignored.
    if header.kind & kind::RESPONSE != 0 || header.id & id::EVENT != 0 {
        return Ok(None);
    }
    response.fill(0);
    let (head, body) = response.split_at_mut(HEADER_SIZE);
    let length = if header.device.get() != 0 {
        None
    } else if header.kind & kind::BUS != 0 {
        bus_request(header.id, payload, body)
    } else {
        device_request(device, header.id, payload, body).await
    };
    let length = length.unwrap_or_else(|| {
        body.fill(0);
        0
    });
    let size = HEADER_SIZE + length.min(body.len());
    let answer = Header {
        kind: header.kind & kind::BUS | kind::RESPONSE,
        size: (size as u16).into(),
        ..header
    };
    head.copy_from_slice(answer.as_bytes());
    Ok(Some(size))
}

/// Makes the EVENT_CONFIG that [`Device::poll_event`] announced, with the values of this moment, and returns
/// its length.
///
/// It carries no configuration data: "a length of zero indicates that the driver should re-fetch".
pub fn event_config<M: Model<B>, B: Bus>(device: &mut Device<M, B>, message: &mut [u8; MAX_SIZE]) -> usize {
    device.take_event();
    message.fill(0);
    let event = wire::EventConfig {
        status: device.status().bits().into(),
        generation: device.generation().into(),
        ..Default::default()
    };
    let size = HEADER_SIZE + event.as_bytes().len();
    let header = Header {
        id: id::EVENT_CONFIG,
        size: (size as u16).into(),
        ..Default::default()
    };
    message[..HEADER_SIZE].copy_from_slice(header.as_bytes());
    message[HEADER_SIZE..size].copy_from_slice(event.as_bytes());
    size
}

/// The fields at the start of a payload, and what follows them.
fn fields<T: FromBytes + KnownLayout + Immutable>(payload: &[u8]) -> Option<(T, &[u8])> {
    T::read_from_prefix(payload).ok()
}

/// Writes the fields of a response, and gives what follows them for `length` more bytes, if there is room.
fn reply<'a, T: IntoBytes + Immutable>(
    body: &'a mut [u8],
    fields: &T,
    length: usize,
) -> Option<&'a mut [u8]> {
    let (start, rest) = body.split_at_mut_checked(size_of::<T>())?;
    let rest = rest.get_mut(..length)?;
    start.copy_from_slice(fields.as_bytes());
    Some(rest)
}

/// Writes a response that is all fields, and gives its length.
fn reply_fields<T: IntoBytes + Immutable>(body: &mut [u8], fields: &T) -> Option<usize> {
    reply(body, fields, 0).map(|_| size_of::<T>())
}

/// A request to the bus. The result is the length of the response's payload, `None` for a header alone.
fn bus_request(id: u8, payload: &[u8], body: &mut [u8]) -> Option<usize> {
    match id {
        bus_id::GET_DEVICES => {
            let (wire::GetDevices { offset, count }, _) = fields(payload)?;
            let (offset, count) = (offset.get(), count.get());
            if offset % 8 != 0 || count % 8 != 0 || count == 0 {
                return None;
            }
            // A smaller window than asked for is allowed where the message is too small.
            let room = (body.len() - size_of::<wire::Devices>()) as u16;
            let bytes = (count / 8).min(room);
            let answer = wire::Devices {
                offset: offset.into(),
                count: (8 * bytes).into(),
                next_offset: 0.into(), // There is nothing beyond device 0.
            };
            let bitmap = reply(body, &answer, usize::from(bytes))?;
            bitmap[0] = u8::from(offset == 0);
            Some(size_of::<wire::Devices>() + usize::from(bytes))
        }
        bus_id::PING => {
            let (ping, _) = fields::<wire::Ping>(payload)?;
            reply_fields(body, &ping)
        }
        _ => None,
    }
}

/// A request to the device. The result is the length of the response's payload, `None` for a header alone.
async fn device_request<M: Model<B>, B: Bus>(
    device: &mut Device<M, B>,
    id: u8,
    payload: &[u8],
    body: &mut [u8],
) -> Option<usize> {
    match id {
        id::GET_DEVICE_INFO => reply_fields(
            body,
            &wire::DeviceInfo {
                device_type: device.model().device_type().into(),
                vendor: B::VENDOR.into(),
                feature_bits: u64::BITS.into(),
                config_size: (device.config().len() as u32).into(),
                max_queues: u32::from(device.model().queues()).into(),
                admin_queue_start: 0.into(),
                admin_queue_count: 0.into(),
            },
        ),
        id::GET_DEVICE_FEATURES => {
            let (range, _) = fields::<wire::Features>(payload)?;
            let length = usize::try_from(range.blocks.get()).ok()?.checked_mul(4)?;
            let blocks = reply(body, &range, length)?;
            let offered = device.offered_features();
            for (index, bits) in (u64::from(range.first_block.get())..).zip(blocks.chunks_exact_mut(4)) {
                // Blocks beyond those that exist are zero.
                let block = if index < 2 {
                    (offered >> (32 * index)) as u32
                } else {
                    0
                };
                bits.copy_from_slice(&block.to_le_bytes());
            }
            Some(size_of::<wire::Features>() + length)
        }
        id::SET_DRIVER_FEATURES => {
            let (range, rest) = fields::<wire::Features>(payload)?;
            let length = usize::try_from(range.blocks.get()).ok()?.checked_mul(4)?;
            let blocks = <[U32]>::ref_from_bytes(rest.get(..length)?).ok()?;
            for (index, bits) in blocks.iter().enumerate() {
                let block = range.first_block.get().saturating_add(index as u32);
                device.accept_features(block, bits.get());
            }
            Some(0)
        }
        id::GET_CONFIG => {
            let (wire::GetConfig { offset, length }, _) = fields(payload)?;
            let generation = device.generation();
            let data = usize::try_from(offset.get()).ok().and_then(|start| {
                device
                    .config()
                    .get(start..start.checked_add(usize::try_from(length.get()).ok()?)?)
            });
            // A range outside configuration space, or too long for a message, reads as no bytes.
            let room = body.len() - size_of::<wire::Config>();
            let data = data.filter(|data| data.len() <= room).unwrap_or_default();
            config_reply(body, generation, offset.get(), data)
        }
        id::SET_CONFIG => {
            let (range, rest) = fields::<wire::Config>(payload)?;
            let data = rest.get(..usize::try_from(range.length.get()).ok()?)?;
            let written = range.generation.get() == device.generation()
                && device.write_config(range.offset.get(), data);
            // A rejected write has length zero in its response.
            config_reply(
                body,
                device.generation(),
                range.offset.get(),
                if written { data } else { &[] },
            )
        }
        id::GET_DEVICE_STATUS => reply_fields(
            body,
            &wire::DeviceStatus {
                status: device.status().bits().into(),
            },
        ),
        id::SET_DEVICE_STATUS => {
            let (wire::DeviceStatus { status }, _) = fields(payload)?;
            let status = device.set_status(status.get()).await;
            reply_fields(
                body,
                &wire::DeviceStatus {
                    status: status.bits().into(),
                },
            )
        }
        id::GET_VQUEUE => {
            let (wire::Index { index }, _) = fields(payload)?;
            // A queue that does not exist has a maximum size of 0.
            let max_size = device.max_queue_size(index.get()).unwrap_or_default();
            let config = device.queue(index.get()).unwrap_or_default();
            reply_fields(
                body,
                &wire::Queue {
                    index,
                    max_size: u32::from(max_size).into(),
                    size: config.size.into(),
                    reserved: 0.into(),
                    descriptors: config.descriptors.into(),
                    driver: config.driver.into(),
                    device: config.device.into(),
                },
            )
        }
        id::SET_VQUEUE => {
            let (set, _) = fields::<wire::SetQueue>(payload)?;
            let config = QueueConfig {
                size: set.size.get(),
                descriptors: set.descriptors.get(),
                driver: set.driver.get(),
                device: set.device.get(),
            };
            // The response does not tell of a failure: the driver finds the queue's size to be 0.
            let _ = device.set_queue(set.index.get(), config);
            Some(0)
        }
        id::RESET_VQUEUE => {
            let (wire::Index { index }, _) = fields(payload)?;
            device.reset_queue(index.get()).await;
            Some(0)
        }
        id::GET_SHM => {
            let (wire::Index { index }, _) = fields(payload)?;
            // No device here has such a region: its length is zero.
            reply_fields(
                body,
                &wire::Shm {
                    index,
                    ..Default::default()
                },
            )
        }
        _ if id & id::IMPLEMENTATION != 0 => device.extension(id, payload, body),
        _ => None,
    }
}

/// A response with a part of configuration space.
fn config_reply(body: &mut [u8], generation: u32, offset: u32, data: &[u8]) -> Option<usize> {
    let range = wire::Config {
        generation: generation.into(),
        offset: offset.into(),
        length: (data.len() as u32).into(),
    };
    reply(body, &range, data.len())?.copy_from_slice(data);
    Some(size_of::<wire::Config>() + data.len())
}
