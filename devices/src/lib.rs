//! Virtqueues, the virtio device model and its devices, free of any hypervisor.
//!
//! Who comes to read this should start at [`device::Device`]: one virtio device as its transport sees it. It
//! is made of a [`device::Model`] (what kind of device it is: [`blk::Block`], [`net`]) and a [`bus::Bus`]
//! (what carries it: memory, notifications, a place to run tasks). [`msg`] puts the virtio-msg transport in
//! front of it. [`virtqueue`] is the device side of the rings, [`memory`] the only way to the driver's
//! memory, [`disk`] the way to the uplinks.
//!
//! Everything runs on one thread, as tasks that never block and that do a bounded amount of work each time
//! they are polled. Whatever a driver can write is read once, checked, and used from the copy.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

extern crate alloc;

mod batch;
pub mod blk;
pub mod bus;
pub mod device;
pub mod disk;
pub mod features;
pub mod memory;
pub mod msg;
pub mod net;
mod tables;
pub mod virtqueue;
