//! What the driver domain decides: its configuration, and which client may use which uplink. It needs no
//! hypervisor, so a host tests it; the image's `main` adds the rest.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

extern crate alloc;

pub mod claims;
pub mod config;
pub mod mac;
pub mod statistics;
