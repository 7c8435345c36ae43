//! Where the later fragments of a packet go, which have no ports: where the first one went. Those that come
//! before it get lost.

use alloc::collections::VecDeque;
use core::net::Ipv4Addr;

use super::packet::Packet;
use super::table::{Seconds, Way};

/// How many fragmented packets are known at a time; a new one takes the place of the oldest.
const MAX: usize = 256;
/// For how long (RFC 791's 15 s).
const LIFETIME: Seconds = 15;

/// What the fragments of one packet have in common.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// The inside segment that it comes from; `None` for outside.
    segment: Option<u8>,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    ident: u16,
}

impl Key {
    /// Of the packet that a fragment from there belongs to.
    pub fn new(segment: Option<u8>, packet: &Packet) -> Self {
        let ip = packet.ip();
        Self {
            segment,
            source: ip.src_addr(),
            destination: ip.dst_addr(),
            protocol: ip.next_header().into(),
            ident: ip.ident(),
        }
    }
}

/// Fragmented packets whose first fragment went through; the newest is last.
#[derive(Default)]
pub struct Fragments(VecDeque<(Key, Way, Seconds)>);

impl Fragments {
    /// Notes where a first fragment went.
    pub fn note(&mut self, now: Seconds, key: Key, way: Way) {
        if self.0.len() == MAX {
            self.0.pop_front();
        }
        self.0.push_back((key, way, now));
    }

    /// Where the first fragment went.
    pub fn find(&self, now: Seconds, key: &Key) -> Option<Way> {
        let newest_first = self.0.iter().rev();
        let (_, way, noted) = newest_first.into_iter().find(|entry| entry.0 == *key)?;
        (now.saturating_sub(*noted) < LIFETIME).then_some(*way)
    }
}
