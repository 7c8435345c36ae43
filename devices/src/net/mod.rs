//! virtio-net (virtio 1.3, "Network Device"), and the seam between network devices, the network and its
//! uplinks.
//!
//! A [`Frame`] is an Ethernet frame in pages of this side's own, up to 64 KiB long if it is a TCP segment
//! that is still to be cut up. It moves through a [`Port`], which is where something is plugged into the
//! network: a client's device as well as an uplink. Its memory is charged to an [`Account`], so that nobody
//! holds more than a share.
//!
//! [`Nic`] is the device: a [`Model`](crate::device::Model) plugged into a port. [`headers`] finds the
//! headers of frames, [`offload`] does in software what a receiver cannot do.
//!
//! # Bounds
//! A queue works on 64 packets or 256 KiB, whichever is less, before other tasks run, and holds no more than
//! 2048 segments of the driver's buffers. A transmit queue whose port has no memory is not read. A receive
//! queue without buffers holds one frame; the others wait in the port. Commands are up to 16 KiB long; tables
//! of more than 64 addresses let everything through.
//!
//! # Errors
//! A packet that is malformed, asks for what was not negotiated, or lies in memory that is not accessible is
//! dropped and counted. A command like that is refused. A queue breaks, and the device needs a reset, if its
//! ring or an indirect table makes no sense, or if a command cannot be read or answered.

mod account;
mod command;
mod config;
mod counters;
pub mod features;
mod frame;
pub mod headers;
mod nic;
pub mod offload;
mod port;
mod state;
mod wire;
mod worker;

pub use account::{Account, Charge};
pub use counters::{Control, Counters, Receive, Transmit};
pub use frame::{Checksum, ETHERNET_HEADER, Frame, MAX_FRAME, Offload, Segmentation, SegmentationKind};
pub use nic::{MAX_PAIRS, Nic, Options};
pub use port::{Filter, Link, Mac, Port};
