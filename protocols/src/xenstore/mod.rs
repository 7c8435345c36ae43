//! xenstore: the wire format and a client that has no transport of its own.
//!
//! The format is that of `xen/include/public/io/xs_wire.h` and Xen's `docs/misc/xenstore.txt`. [`message`]
//! encodes and decodes it; [`client::Client`] matches replies to requests and events to watches. Who owns the
//! ring moves bytes between it and the client.

pub mod client;
pub mod message;
mod requests;
mod transaction;
mod watch;

use alloc::{string::String, vec::Vec};
use core::fmt;

pub use client::Client;
pub use transaction::Transaction;
pub use watch::Watch;

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// There is no such node (`ENOENT`).
    NoEntry,
    /// No permission (`EACCES` or `EPERM`).
    Denied,
    /// It exists already (`EEXIST`).
    Exists,
    /// Another change came between: the transaction is to be repeated (`EAGAIN`).
    Again,
    /// The request does not make sense (`EINVAL`), or its path is not one.
    Invalid,
    /// Path, value or list are too long (`E2BIG`).
    TooBig,
    /// A quota of this domain is used up (`EQUOTA`), or a node is too large (`ENOSPC`).
    Quota,
    /// The daemon does not know the request (`ENOSYS`).
    Unsupported,
    /// Another error of the daemon.
    Other,
    /// The value or reply is not what it should be: not UTF-8, not a number, not terminated.
    Malformed,
    /// The connection is broken: the daemon broke the protocol.
    Broken,
}

impl Error {
    /// The error that the daemon names; without its terminating nul.
    pub fn from_name(name: &[u8]) -> Self {
        match name {
            b"ENOENT" => Self::NoEntry,
            b"EACCES" | b"EPERM" => Self::Denied,
            b"EEXIST" => Self::Exists,
            b"EAGAIN" => Self::Again,
            b"EINVAL" => Self::Invalid,
            b"E2BIG" => Self::TooBig,
            b"ENOSPC" | b"EQUOTA" => Self::Quota,
            b"ENOSYS" => Self::Unsupported,
            _ => Self::Other,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoEntry => "no such xenstore node",
            Self::Denied => "no permission in xenstore",
            Self::Exists => "the xenstore node exists",
            Self::Again => "the xenstore transaction conflicts with others",
            Self::Invalid => "invalid xenstore request",
            Self::TooBig => "too long for xenstore",
            Self::Quota => "over a xenstore quota",
            Self::Unsupported => "xenstore does not know the request",
            Self::Other => "xenstore error",
            Self::Malformed => "malformed xenstore value",
            Self::Broken => "the xenstore connection is broken",
        })
    }
}

impl core::error::Error for Error {}

/// What a domain may do with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Nothing.
    None,
    /// Read its value, children and permissions.
    Read,
    /// Write its value, make and remove children.
    Write,
    /// Both.
    Both,
}

/// One entry of a node's permissions. The first names the node's owner, who may do everything, and by its
/// right what all domains may do that no later entry names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permission {
    /// The domain.
    pub domid: u16,
    /// What it may do.
    pub right: Right,
}

impl Permission {
    /// Reads the form of the wire: a letter and a number.
    pub fn parse(text: &str) -> Option<Self> {
        let right = match text.as_bytes().first()? {
            b'n' => Right::None,
            b'r' => Right::Read,
            b'w' => Right::Write,
            b'b' => Right::Both,
            _ => return None,
        };
        Some(Self {
            domid: text.get(1..)?.parse().ok()?,
            right,
        })
    }
}

/// The form of the wire.
impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = match self.right {
            Right::None => 'n',
            Right::Read => 'r',
            Right::Write => 'w',
            Right::Both => 'b',
        };
        write!(f, "{letter}{}", self.domid)
    }
}

/// Whether this is a path as the daemon accepts it: of its characters, not too long, without empty parts, and
/// not special (`@…`). A path that does not start with `/` is relative to the domain's own directory.
pub fn is_path(path: &str) -> bool {
    let limit = if path.starts_with('/') {
        message::ABSOLUTE_PATH_MAX
    } else {
        message::RELATIVE_PATH_MAX
    };
    !path.is_empty()
        && path.len() <= limit
        && path
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-/_@".contains(&byte))
        && !path.starts_with('@')
        && !path.contains("//")
        && (path == "/" || !path.ends_with('/'))
}

/// Strings that each end with a nul.
pub(crate) fn strings(payload: &[u8]) -> Result<Vec<String>, Error> {
    let Some((last, rest)) = payload.split_last() else {
        return Ok(Vec::new());
    };
    if *last != 0 {
        return Err(Error::Malformed);
    }
    rest.split(|&byte| byte == 0).map(text).collect()
}

pub(crate) fn text(bytes: &[u8]) -> Result<String, Error> {
    core::str::from_utf8(bytes)
        .map(Into::into)
        .map_err(|_| Error::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths() {
        for good in [
            "/",
            "/local/domain/0",
            "device/vbd/51712",
            "a-b_C@1",
            "control/shutdown",
        ] {
            assert!(is_path(good), "{good}");
        }
        for bad in [
            "",
            "//",
            "/a//b",
            "a/",
            "a b",
            "a\0b",
            "@releaseDomain",
            "ü",
            &"a".repeat(2049),
        ] {
            assert!(!is_path(bad), "{bad}");
        }
        assert!(is_path(&("/".to_owned() + &"a".repeat(3000))));
    }

    #[test]
    fn lists_of_strings() {
        assert_eq!(strings(b"").unwrap(), Vec::<String>::new());
        assert_eq!(strings(b"a\0bc\0").unwrap(), ["a", "bc"]);
        assert_eq!(strings(b"\0").unwrap(), [""]);
        assert_eq!(strings(b"a\0bc"), Err(Error::Malformed));
        assert_eq!(strings(b"\xff\0"), Err(Error::Malformed));
    }

    proptest! {
        #[test]
        fn permissions_round_trip(domid: u16, letter in 0..4_usize) {
            let right = [Right::None, Right::Read, Right::Write, Right::Both][letter];
            let permission = Permission { domid, right };
            prop_assert_eq!(Permission::parse(&permission.to_string()), Some(permission));
        }

        #[test]
        fn any_text_is_a_permission_or_none(text: String) {
            if let Some(permission) = Permission::parse(&text) {
                prop_assert_eq!(permission.to_string().as_bytes()[0], text.as_bytes()[0]);
            }
        }
    }
}
