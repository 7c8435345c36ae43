//! The network inside the driver domain, free of any hypervisor.
//!
//! A switch joins what is plugged into one segment: clients, uplinks, and the router that gives the segment
//! an address of the driver domain's own.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

extern crate alloc;

pub mod hash;
pub mod router;
pub mod switch;
pub mod time;

use core::net::Ipv6Addr;

use devices::net::Mac;

/// The address that a station has on its link without being told (RFC 4291, appendix A).
fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}
