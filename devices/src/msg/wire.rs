//! The messages as they are on the wire ("Virtio Over Messages", RFC v3). All fields are little-endian, none
//! is aligned.

#![allow(
    missing_docs,
    reason = "the fields are the specification's, which says what they mean"
)]

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bits of [`Header::kind`].
pub mod kind {
    /// A response; without it, a request or an event.
    pub const RESPONSE: u8 = 1;
    /// A message to or from the bus; without it, to or from a device.
    pub const BUS: u8 = 2;
}

/// Message ids of the transport.
pub mod id {
    pub const GET_DEVICE_INFO: u8 = 0x02;
    pub const GET_DEVICE_FEATURES: u8 = 0x03;
    pub const SET_DRIVER_FEATURES: u8 = 0x04;
    pub const GET_CONFIG: u8 = 0x05;
    pub const SET_CONFIG: u8 = 0x06;
    pub const GET_DEVICE_STATUS: u8 = 0x07;
    pub const SET_DEVICE_STATUS: u8 = 0x08;
    pub const GET_VQUEUE: u8 = 0x09;
    pub const SET_VQUEUE: u8 = 0x0a;
    pub const RESET_VQUEUE: u8 = 0x0b;
    pub const GET_SHM: u8 = 0x0c;
    pub const EVENT_CONFIG: u8 = 0x40;
    /// Set in the ids of events: nothing answers them.
    pub const EVENT: u8 = 0x40;
    /// Set in the ids that the bus implementation defines.
    pub const IMPLEMENTATION: u8 = 0x80;
}

/// Message ids of the bus.
pub mod bus_id {
    pub const GET_DEVICES: u8 = 0x02;
    pub const PING: u8 = 0x03;
}

/// Declares wire structures.
macro_rules! wire {
    ($($(#[$doc:meta])* pub struct $name:ident { $($(#[$note:meta])* pub $field:ident: $type:ty,)* })*) => {
        $($(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
        #[repr(C)]
        pub struct $name { $($(#[$note])* pub $field: $type,)* })*
    };
}

wire! {
    /// The start of every message.
    pub struct Header {
        pub kind: u8,
        pub id: u8,
        pub device: U16,
        pub token: U16,
        /// Size of the message with this header, in bytes.
        pub size: U16,
    }

    /// The response to GET_DEVICE_INFO.
    pub struct DeviceInfo {
        pub device_type: U32,
        pub vendor: U32,
        pub feature_bits: U32,
        pub config_size: U32,
        pub max_queues: U32,
        pub admin_queue_start: U16,
        pub admin_queue_count: U16,
    }

    /// The request GET_DEVICE_FEATURES; also the start of its response and of SET_DRIVER_FEATURES: as many
    /// blocks of 32 bits follow.
    pub struct Features {
        pub first_block: U32,
        pub blocks: U32,
    }

    /// The request GET_CONFIG.
    pub struct GetConfig {
        pub offset: U32,
        pub length: U32,
    }

    /// The start of the response to GET_CONFIG, of SET_CONFIG and of its response: as many bytes follow.
    pub struct Config {
        pub generation: U32,
        pub offset: U32,
        pub length: U32,
    }

    /// The request SET_DEVICE_STATUS, and the response to it and to GET_DEVICE_STATUS.
    pub struct DeviceStatus {
        pub status: U32,
    }

    /// The requests GET_VQUEUE, RESET_VQUEUE and GET_SHM.
    pub struct Index {
        pub index: U32,
    }

    /// The response to GET_VQUEUE.
    pub struct Queue {
        pub index: U32,
        pub max_size: U32,
        pub size: U32,
        pub reserved: U32,
        pub descriptors: U64,
        pub driver: U64,
        pub device: U64,
    }

    /// The request SET_VQUEUE.
    pub struct SetQueue {
        pub index: U32,
        pub reserved0: U32,
        pub size: U32,
        pub reserved1: U32,
        pub descriptors: U64,
        pub driver: U64,
        pub device: U64,
    }

    /// The response to GET_SHM.
    pub struct Shm {
        pub index: U32,
        pub length: U32,
        pub address: U32,
    }

    /// The event EVENT_CONFIG; `length` bytes of configuration space may follow.
    pub struct EventConfig {
        pub status: U32,
        pub generation: U32,
        pub offset: U32,
        pub length: U32,
    }

    /// The request GET_DEVICES of the bus.
    pub struct GetDevices {
        pub offset: U16,
        pub count: U16,
    }

    /// The start of the response to GET_DEVICES: a bitmap of `count` bits follows.
    pub struct Devices {
        pub offset: U16,
        pub count: U16,
        pub next_offset: U16,
    }

    /// PING of the bus, and the response.
    pub struct Ping {
        pub data: U32,
    }
}
