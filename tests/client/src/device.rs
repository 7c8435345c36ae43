//! The device at the other end of a connection: the requests of virtio-msg and of the bus, typed.

use alloc::format;
use alloc::rc::Rc;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use devices::msg::wire::{self, bus_id, id, kind};
use kernel::event::EventChannel;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::connection::Connection;
use crate::ensure;
use crate::report::Outcome;

/// Bits of the device status.
pub mod status {
    pub const ACKNOWLEDGE: u32 = 1;
    pub const DRIVER: u32 = 2;
    pub const DRIVER_OK: u32 = 4;
    pub const FEATURES_OK: u32 = 8;
    pub const NEEDS_RESET: u32 = 64;
}

/// Feature bits that do not belong to one kind of device.
pub mod features {
    pub const INDIRECT_DESC: u64 = 1 << 28;
    pub const EVENT_IDX: u64 = 1 << 29;
    pub const VERSION_1: u64 = 1 << 32;
    pub const ACCESS_PLATFORM: u64 = 1 << 33;
    pub const RING_RESET: u64 = 1 << 40;
}

/// Message ids and statuses of the bus (sections 4 and 6 of the specification).
pub mod xen {
    pub const SET_VQUEUE_EVENT: u8 = 0x80;
    pub const SET_POOL: u8 = 0x81;
    pub const DONE: u32 = 0;
    pub const NO_SUCH_QUEUE: u32 = 1;
    pub const CANNOT_BIND: u32 = 2;
    pub const QUEUE_IN_USE: u32 = 3;
    pub const REFUSED: u32 = 1;
    pub const CANNOT_MAP: u32 = 2;
}

/// XEN_SET_VQUEUE_EVENT: the request has a port, the response a status in its place.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct QueueEvent {
    index: U32,
    port_or_status: U32,
}

/// The request XEN_SET_POOL.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct SetPool {
    address: U64,
    pages: U32,
    reserved: U32,
}

/// The response to XEN_SET_POOL.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct PoolStatus {
    status: U32,
    reserved: U32,
}

/// Where a queue is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Areas {
    /// DMA address of the descriptor area.
    pub descriptors: u64,
    /// DMA address of the driver area.
    pub driver: u64,
    /// DMA address of the device area.
    pub device: u64,
}

/// A connected device.
pub struct Device {
    connection: Connection,
    /// By queue, the event channel of those that are set up.
    channels: RefCell<Vec<Option<Rc<EventChannel>>>>,
    /// How many pages of pool the back end says it will map.
    max_pool_pages: u32,
    /// The pool is set: leaving drops it.
    pool: Cell<bool>,
}

impl Device {
    /// The device behind a connection that the back end has taken up.
    pub fn new(connection: Connection, max_pool_pages: u32) -> Self {
        Self {
            connection,
            channels: RefCell::default(),
            max_pool_pages,
            pool: Cell::new(false),
        }
    }

    /// The connection, for what has no method here.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Gives the connection back, to be closed.
    pub fn into_connection(self) -> Connection {
        self.connection
    }

    /// How many pages of pool the back end says it will map.
    pub fn max_pool_pages(&self) -> u32 {
        self.max_pool_pages
    }

    /// A request to the device whose response starts with `T`; the rest of the response comes beside it.
    fn request<T: FromBytes>(&self, id: u8, payload: &[u8]) -> Outcome<(T, Vec<u8>)> {
        let response = self.connection.exchange(0, id, payload)?;
        let (fields, rest) = T::read_from_prefix(&response)
            .map_err(|_| format!("message {id:#04x}: a response of {} bytes", response.len()))?;
        Ok((fields, rest.to_vec()))
    }

    /// PING of the bus.
    pub fn ping(&self, data: u32) -> Outcome<u32> {
        let request = wire::Ping { data: data.into() };
        let response = self
            .connection
            .exchange(kind::BUS, bus_id::PING, request.as_bytes())?;
        wire::Ping::read_from_bytes(&response)
            .map(|ping| ping.data.get())
            .map_err(|_| format!("PING: a response of {} bytes", response.len()))
    }

    /// GET_DEVICES of the bus, for a window of eight numbers: a bitmap.
    pub fn devices(&self, offset: u16) -> Outcome<u8> {
        let request = wire::GetDevices {
            offset: offset.into(),
            count: 8.into(),
        };
        let response = self
            .connection
            .exchange(kind::BUS, bus_id::GET_DEVICES, request.as_bytes())?;
        let (head, bitmap) = wire::Devices::read_from_prefix(&response)
            .map_err(|_| "GET_DEVICES: short response".to_string())?;
        ensure!(
            head.offset.get() == offset && head.count.get() == 8 && bitmap.len() == 1,
            "GET_DEVICES: {head:?} and {} bytes",
            bitmap.len()
        );
        Ok(bitmap[0])
    }

    /// GET_DEVICE_INFO.
    pub fn info(&self) -> Outcome<wire::DeviceInfo> {
        Ok(self.request(id::GET_DEVICE_INFO, &[])?.0)
    }

    /// GET_DEVICE_FEATURES, the first 64.
    pub fn features(&self) -> Outcome<u64> {
        let range = wire::Features {
            first_block: 0.into(),
            blocks: 2.into(),
        };
        let (head, blocks) = self.request::<wire::Features>(id::GET_DEVICE_FEATURES, range.as_bytes())?;
        ensure!(head == range, "GET_DEVICE_FEATURES: {head:?}");
        U64::read_from_bytes(&blocks)
            .map(U64::get)
            .map_err(|_| format!("GET_DEVICE_FEATURES: {} bytes of features", blocks.len()))
    }

    /// SET_DRIVER_FEATURES, the first 64.
    pub fn accept_features(&self, features: u64) -> Outcome {
        let range = wire::Features {
            first_block: 0.into(),
            blocks: 2.into(),
        };
        let mut payload = range.as_bytes().to_vec();
        payload.extend_from_slice(&features.to_le_bytes());
        self.connection
            .exchange(0, id::SET_DRIVER_FEATURES, &payload)
            .map(drop)
    }

    /// GET_CONFIG: the generation, and the bytes.
    pub fn config(&self, offset: u32, length: u32) -> Outcome<(u32, Vec<u8>)> {
        let range = wire::GetConfig {
            offset: offset.into(),
            length: length.into(),
        };
        let (head, bytes) = self.request::<wire::Config>(id::GET_CONFIG, range.as_bytes())?;
        ensure!(
            head.offset.get() == offset && head.length.get() as usize == bytes.len(),
            "GET_CONFIG: {head:?} and {} bytes",
            bytes.len()
        );
        Ok((head.generation.get(), bytes))
    }

    /// SET_CONFIG; whether the device took it.
    pub fn set_config(&self, generation: u32, offset: u32, bytes: &[u8]) -> Outcome<bool> {
        let range = wire::Config {
            generation: generation.into(),
            offset: offset.into(),
            length: (bytes.len() as u32).into(),
        };
        let mut payload = range.as_bytes().to_vec();
        payload.extend_from_slice(bytes);
        let (head, _) = self.request::<wire::Config>(id::SET_CONFIG, &payload)?;
        Ok(head.length.get() as usize == bytes.len())
    }

    /// GET_DEVICE_STATUS.
    pub fn status(&self) -> Outcome<u32> {
        let (answer, _) = self.request::<wire::DeviceStatus>(id::GET_DEVICE_STATUS, &[])?;
        Ok(answer.status.get())
    }

    /// SET_DEVICE_STATUS; the result is the status that the device then has. Status 0 is a reset, which ends
    /// all queues.
    pub fn set_status(&self, status: u32) -> Outcome<u32> {
        let request = wire::DeviceStatus {
            status: status.into(),
        };
        let (answer, _) = self.request::<wire::DeviceStatus>(id::SET_DEVICE_STATUS, request.as_bytes())?;
        if status == 0 {
            self.channels.borrow_mut().clear();
        }
        Ok(answer.status.get())
    }

    /// GET_VQUEUE.
    pub fn queue(&self, index: u32) -> Outcome<wire::Queue> {
        let request = wire::Index { index: index.into() };
        let (queue, _) = self.request::<wire::Queue>(id::GET_VQUEUE, request.as_bytes())?;
        ensure!(queue.index.get() == index, "GET_VQUEUE: {queue:?}");
        Ok(queue)
    }

    /// XEN_SET_VQUEUE_EVENT; the result is its status.
    pub fn set_queue_event(&self, index: u32, port: u32) -> Outcome<u32> {
        let request = QueueEvent {
            index: index.into(),
            port_or_status: port.into(),
        };
        let (answer, _) = self.request::<QueueEvent>(xen::SET_VQUEUE_EVENT, request.as_bytes())?;
        ensure!(answer.index.get() == index, "XEN_SET_VQUEUE_EVENT: {answer:?}");
        Ok(answer.port_or_status.get())
    }

    /// SET_VQUEUE; the result is the size that the queue has afterwards, 0 if it was refused.
    pub fn set_queue(&self, index: u32, size: u32, areas: Areas) -> Outcome<u32> {
        let request = wire::SetQueue {
            index: index.into(),
            size: size.into(),
            descriptors: areas.descriptors.into(),
            driver: areas.driver.into(),
            device: areas.device.into(),
            ..Default::default()
        };
        self.connection.exchange(0, id::SET_VQUEUE, request.as_bytes())?;
        Ok(self.queue(index)?.size.get())
    }

    /// Allocates a queue's event channel, and sets up both.
    pub fn start_queue(&self, index: u16, size: u32, areas: Areas) -> Outcome<Rc<EventChannel>> {
        let channel = EventChannel::alloc_unbound(self.connection.peer())
            .map_err(|error| format!("a queue's event channel: {error}"))?;
        let status = self.set_queue_event(index.into(), channel.port())?;
        ensure!(status == xen::DONE, "XEN_SET_VQUEUE_EVENT: status {status}");
        let set = self.set_queue(index.into(), size, areas)?;
        ensure!(set == size, "SET_VQUEUE: size {set}, asked for {size}");
        let channel = Rc::new(channel);
        let mut channels = self.channels.borrow_mut();
        let index = usize::from(index);
        if channels.len() <= index {
            channels.resize(index + 1, None);
        }
        channels[index] = Some(channel.clone());
        Ok(channel)
    }

    /// The event channel of a queue that is set up.
    pub fn channel(&self, index: u16) -> Option<Rc<EventChannel>> {
        self.channels.borrow().get(usize::from(index))?.clone()
    }

    /// RESET_VQUEUE.
    pub fn reset_queue(&self, index: u16) -> Outcome {
        let request = wire::Index {
            index: u32::from(index).into(),
        };
        self.connection
            .exchange(0, id::RESET_VQUEUE, request.as_bytes())?;
        if let Some(channel) = self.channels.borrow_mut().get_mut(usize::from(index)) {
            *channel = None;
        }
        Ok(())
    }

    /// XEN_SET_POOL; the result is its status. No pages drop the pool.
    pub fn set_pool(&self, address: u64, pages: u32) -> Outcome<u32> {
        let request = SetPool {
            address: address.into(),
            pages: pages.into(),
            ..Default::default()
        };
        let (answer, _) = self.request::<PoolStatus>(xen::SET_POOL, request.as_bytes())?;
        let status = answer.status.get();
        if status == xen::DONE {
            self.pool.set(pages > 0);
        }
        Ok(status)
    }

    /// Leaves the device as section 7 wants it before Closing: reset, and without a pool.
    pub fn leave(&self) -> Outcome {
        let status = self.set_status(0)?;
        ensure!(status == 0, "the status after a reset is {status:#x}");
        if self.pool.get() {
            let status = self.set_pool(0, 0)?;
            ensure!(status == xen::DONE, "dropping the pool: status {status}");
        }
        Ok(())
    }
}
