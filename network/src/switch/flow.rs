//! Which of several queues a frame goes through.

use core::hash::{Hash, Hasher};

use devices::net::headers::Headers;

/// The queue, below `count`, for all frames of the same flow: of the same two addresses, and the same two ports if there are.
pub(super) fn queue(headers: &Headers, count: u16) -> u16 {
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    match &headers.ip {
        Some(ip) => (ip.source, ip.destination, ip.ports).hash(&mut hasher),
        None => (headers.source, headers.destination).hash(&mut hasher),
    }
    // The lower bits of this hash are weak.
    let hash = hasher.finish() >> 32;
    (hash % u64::from(count.max(1))) as u16
}

/// The hash FNV-1a. Who finds two flows for one queue gains nothing by it.
struct Fnv(u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
