//! The disks of this domain: front ends to block back ends (xen/include/public/io/blkif.h), as uplinks for
//! devices.
//!
//! An [`Uplink`] looks after one `device/vbd/…` for as long as that exists: it connects, follows changes of
//! size, and when the back end goes away, connects to the next one and sends it what the last one had not
//! answered. What that guarantees is said at [`protocols::blkif::frontend`]: a write that was acknowledged
//! and flushed is durable; a write that was only acknowledged survives the loss of the back end as long as
//! its domain lives, and when that dies, the next flush of that client fails.
//!
//! Requests are replayed only after the old back end has let go of every page, so that nothing of it can land
//! later. Until then, requests wait.

mod driver;
mod pool;
mod queue;
mod uplink;

pub(crate) use pool::payload_pages;
pub use pool::{Buffer, Piece};
pub use queue::Channel;
pub use uplink::{Counters, Options, Removed, Uplink};
