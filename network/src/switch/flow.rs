//! Which of several queues a frame goes through.

use core::hash::{Hash, Hasher};

use devices::net::headers::Headers;

use crate::hash::Fnv;

/// The queue, below `count`, for all frames of the same flow: of the same two addresses, and the same two
/// ports if there are.
pub(super) fn queue(headers: &Headers, count: u16) -> u16 {
    let mut hasher = Fnv::default();
    match &headers.ip {
        Some(ip) => (ip.source, ip.destination, ip.ports).hash(&mut hasher),
        None => (headers.source, headers.destination).hash(&mut hasher),
    }
    // Who finds two flows for one queue gains nothing by it.
    let hash = hasher.finish() >> 32;
    (hash % u64::from(count.max(1))) as u16
}
