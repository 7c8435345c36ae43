//! How a connection ends.

use alloc::collections::TryReserveError;
use alloc::string::String;
use core::fmt;

use protocols::front_end::Reason;
use protocols::nodes::BadNode;

use crate::Errno;
use crate::grant::GrantError;
use crate::xenstore;

/// Why a connection ended or did not come about.
pub(crate) enum End {
    /// What xenstore says.
    Reason(Reason),
    /// The back end broke the rules of a ring.
    Broken(String),
    /// The back end publishes nonsense, or lacks what it must have.
    Node(BadNode),
    /// Pages could not be granted.
    Grant(GrantError),
    /// There is no event channel.
    Event(Errno),
    /// There is no memory for what belongs to a ring.
    Memory,
    /// xenstore failed.
    Store(xenstore::Error),
}

impl End {
    /// Whether the device is done with.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Reason(Reason::Removed | Reason::Detached))
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reason(reason) => reason.fmt(f),
            Self::Broken(broken) => write!(f, "the back end misbehaves: {broken}"),
            Self::Node(BadNode(key)) => {
                write!(f, "the back end's node \"{key}\" is missing or makes no sense")
            }
            Self::Grant(error) => write!(f, "pages cannot be granted: {error}"),
            Self::Event(error) => write!(f, "no event channel: {error}"),
            Self::Memory => f.write_str("no memory for a ring"),
            Self::Store(error) => write!(f, "xenstore: {error}"),
        }
    }
}

impl From<TryReserveError> for End {
    fn from(_: TryReserveError) -> Self {
        Self::Memory
    }
}

impl From<xenstore::Error> for End {
    fn from(error: xenstore::Error) -> Self {
        Self::Store(error)
    }
}
