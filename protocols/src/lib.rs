//! Formats and state machines of the interfaces between Xen domains, free of any hypercall, so that a host
//! can test them.
//!
//! Everything here works on copies: a value that a peer can write is read once by the caller, decoded or
//! checked here, and used from the copy.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

extern crate alloc;

pub mod back_end;
pub mod blkif;
pub mod front_end;
pub mod grant_address;
pub mod message_page;
pub mod netif;
pub mod nodes;
pub mod ring;
pub mod text;
pub mod xenbus;
pub mod xenstore;
