//! Frames, and what is still to be done about them.

use alloc::rc::Rc;

use super::{Account, Charge};
use crate::memory::Buffer;

/// What is known of a frame's transport checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// Nothing: the receiver checks it.
    #[default]
    Unknown,
    /// It was checked and is right.
    Valid,
    /// It is still to be computed: the sum over everything from byte `start` to the frame's end goes to byte
    /// `start + offset`, where the sum over the pseudo-header stands now. Whoever makes such a frame has
    /// checked that this is its TCP or UDP checksum ([`needed`](super::offload::needed)).
    Partial {
        /// Where the transport header starts, in bytes from the frame's start.
        start: u16,
        /// Where the checksum stands in the transport header, in bytes.
        offset: u16,
    },
}

/// What kind of segments a large frame is to be cut into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentationKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
}

/// A frame that is to be cut up before it goes over a wire. Its checksum is always [`Checksum::Partial`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segmentation {
    /// Of what.
    pub kind: SegmentationKind,
    /// The most bytes of TCP payload that one segment has; never 0.
    pub size: u16,
}

/// What is still to be done about a frame, as both `struct virtio_net_hdr` and netif's extra infos say it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// The transport checksum.
    pub checksum: Checksum,
    /// Whether it is to be cut up.
    pub segmentation: Option<Segmentation>,
}

/// An Ethernet frame, without preamble and frame check sequence.
///
/// Cloning it shares the bytes, so that a frame that floods a segment is there once.
pub struct Frame<B> {
    buffer: Rc<B>,
    /// What is still to be done about it.
    pub offload: Offload,
    charge: Option<Rc<Charge>>,
}

/// The most bytes of a frame: 64 KiB less one of IP packet, an Ethernet header and one VLAN tag.
pub const MAX_FRAME: usize = 65535 + 14 + 4;

/// Bytes of an Ethernet header, without VLAN tags.
pub const ETHERNET_HEADER: usize = 14;

impl<B: Buffer> Frame<B> {
    /// A frame of exactly the buffer's bytes, on somebody's account or on nobody's.
    pub fn new(buffer: B, offload: Offload, charge: Option<Charge>) -> Self {
        Self {
            buffer: Rc::new(buffer),
            offload,
            charge: charge.map(Rc::new),
        }
    }

    /// Its bytes.
    pub fn buffer(&self) -> &B {
        &self.buffer
    }

    /// Whether nobody else shares the bytes, so that they may be changed.
    pub fn is_unique(&self) -> bool {
        Rc::strong_count(&self.buffer) == 1
    }

    /// Its length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "no frame is empty")]
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whose account this handle of the frame is on, if it is on one.
    pub fn account(&self) -> Option<&Rc<Account>> {
        self.charge.as_deref().map(Charge::account)
    }

    /// Puts this handle of the frame on another account; the one that it was on gets its room back with the
    /// last handle on it.
    pub fn charge_to(&mut self, charge: Option<Charge>) {
        self.charge = charge.map(Rc::new);
    }
}

impl<B> Clone for Frame<B> {
    fn clone(&self) -> Self {
        Self {
            buffer: self.buffer.clone(),
            offload: self.offload,
            charge: self.charge.clone(),
        }
    }
}
