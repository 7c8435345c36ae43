//! The network devices of this domain: front ends to network back ends (xen/include/public/io/netif.h), as
//! uplinks that are plugged into a [`devices::net::Port`].
//!
//! An [`Uplink`] looks after one `device/vif/…` for as long as that exists: it connects, follows the line,
//! and when the back end goes away, connects to the next one. Frames that the last one had are lost, as on
//! any wire; their pages come back before the next connection begins, so that a back end that lets go of
//! nothing gets no more.
//!
//! Used are scatter-gather, checksum and TCP segmentation offload both ways, several queues, and split event
//! channels, each as far as the back end offers it; what it cannot do is done in software. Multicast control
//! is asked for only where and as long as the groups are known ([`Options::groups`]): those of stations
//! behind a bridge are not. There is no control ring: it configures nothing but hashing for queues and static
//! grants.

mod counters;
mod driver;
mod offer;
mod offload;
mod queue;
mod receive;
mod rings;
mod transmit;
mod uplink;

pub use counters::Counters;
pub use uplink::{Options, Uplink};
