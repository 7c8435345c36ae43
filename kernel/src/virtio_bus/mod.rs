//! The virtio-msg bus over Xen, device side: `docs/virtio-msg-xen.md`.
//!
//! [`BackEnd`] follows one device's directory in xenstore and, when a front end has come, opens a connection:
//! the message page with a [`devices::device::Device`] behind it, whose [`XenBus`] reaches the client's
//! memory and event channels.

mod back_end;
mod bus;
mod connection;
mod memory;

pub use back_end::BackEnd;
pub use bus::{QueueEvent, XenBus};
pub use memory::{ClientMemory, PagedBuffer, PoolError};
