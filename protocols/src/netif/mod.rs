//! The network interface's front end, as far as it needs no hypercall (xen/include/public/io/netif.h).
//!
//! * [`wire`] has the ring entries' layouts,
//! * [`nodes`] what the two ends say about themselves in xenstore,
//! * [`tx`] the transmit ring: frames into requests, and which of them the back end still has,
//! * [`rx`] the receive ring: pages posted, and responses back into frames.
//!
//! Not used are the control ring (it configures hashing and static grants of the back end's transmit side,
//! which a bridging front end has no use for), the deprecated GSO prefix, and headroom for XDP.

pub mod nodes;
pub mod rx;
pub mod tx;
pub mod wire;

use core::fmt;

use crate::ring::BadIndex;

/// What kind of segments a frame is to be cut into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
}

/// A frame that is to be cut into segments ("generic segmentation offload").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// Of what.
    pub kind: GsoKind,
    /// The most bytes of payload in one segment; never 0.
    pub size: u16,
}

/// What a frame's ring entries say of it besides its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// The transport checksum is still to be computed; in its place stands the sum over the pseudo-header.
    pub checksum_blank: bool,
    /// The transport checksum need not be looked at.
    pub validated: bool,
    /// It is to be cut into segments.
    pub gso: Option<Gso>,
}

/// A back end that cannot be talked to any more: what it put on a ring has no meaning, or not the agreed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// It claims responses to requests that it was never sent.
    Index(BadIndex),
    /// It answered a request that it does not have.
    UnknownRequest(u16),
    /// It answered receive requests out of order: this one.
    OutOfOrder(u16),
    /// More answers without a request than there were extra infos.
    UnexpectedNull,
    /// An answer to a transmit request with a status that does not exist.
    Status(i16),
    /// Bytes outside their page.
    Range {
        /// Where they start in the page.
        offset: u16,
        /// How many there are.
        len: u16,
    },
    /// A frame of too many fragments.
    Endless,
    /// Flags that were not agreed on.
    Flags(u16),
    /// An extra info of a type that does not belong there.
    Extra(u8),
    /// It answered, but still has the page mapped.
    StillMapped(u16),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => {
                write!(
                    f,
                    "it claims {} responses when it gave {}",
                    index.produced, index.consumed
                )
            }
            Self::UnknownRequest(id) => write!(f, "it answered request {id}, which it does not have"),
            Self::OutOfOrder(id) => write!(f, "it answered request {id} out of order"),
            Self::UnexpectedNull => f.write_str("it gave an empty response to a request"),
            Self::Status(status) => write!(f, "it answered with status {status}"),
            Self::Range { offset, len } => write!(f, "it put {len} bytes at {offset} of a page"),
            Self::Endless => f.write_str("it sent a frame of too many fragments"),
            Self::Flags(flags) => write!(f, "it set flags {flags:#x}, which were not agreed on"),
            Self::Extra(kind) => write!(f, "it sent an extra info of type {kind}"),
            Self::StillMapped(id) => write!(f, "it answered request {id}, but has its page mapped"),
        }
    }
}

impl From<BadIndex> for Broken {
    fn from(index: BadIndex) -> Self {
        Self::Index(index)
    }
}

#[cfg(test)]
mod tests;
