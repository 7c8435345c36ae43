//! The network inside the driver domain, free of any hypervisor.
//!
//! A switch joins what is plugged into one segment: clients, uplinks, and the router that gives the segment an address of the driver
//! domain's own.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

extern crate alloc;

pub mod router;
pub mod switch;
pub mod time;
