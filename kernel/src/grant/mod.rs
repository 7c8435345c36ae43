//! Grants: giving other domains access to pages, and using the access that they give.
//!
//! * [`Granted`] owns pages that another domain may access by reference.
//! * [`Mapping`] maps pages of another domain until it is dropped.
//! * [`CopyBatch`] has the hypervisor copy between this domain's memory and pages of others, many pieces in
//!   one hypercall.
//!
//! The table is of version 1, half the size of version 2, which is enough while machine frame numbers fit 32
//! bits (16 TiB); a frame that does not is refused. Structures and constants:
//! `xen/include/public/grant_table.h`.

mod copy;
mod granted;
mod loan;
mod mapping;
mod table;

use core::fmt;

pub use copy::{CopyBatch, LocalMemory, Pieces};
pub use granted::{Granted, InUse};
pub(crate) use loan::Loan;
pub use mapping::Mapping;
pub use table::{Usage, usage};

use crate::errno::Errno;
use crate::mm::OutOfMemory;

/// A number by which a domain names a page that it grants to another.
pub type GrantRef = u32;

/// What a grant or a mapping allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading only.
    ReadOnly,
    /// Reading and writing.
    ReadWrite,
}

/// Why pages could not be granted, mapped or copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantError {
    /// The hypervisor refused one operation: a `GNTST_*` value, negative. Mostly because the other domain
    /// does not grant what was asked.
    Refused(i16),
    /// The hypervisor refused the whole batch.
    Hypercall(Errno),
    /// This domain has no memory, or no room in its window.
    OutOfMemory,
    /// The grant table is full, or the run of consecutive references is too long.
    TableFull,
    /// The frame's number does not fit the table.
    FrameTooHigh,
    /// The operation names no page, or more references than there are.
    BadRange,
}

impl GrantError {
    /// The result of one operation of a batch.
    fn check(status: i16) -> Result<(), Self> {
        if status == 0 {
            Ok(())
        } else {
            Err(Self::Refused(status))
        }
    }
}

impl fmt::Display for GrantError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(status) => {
                let name = match status {
                    -1 => "undefined error",
                    -2 => "unknown domain",
                    -3 => "invalid grant reference",
                    -4 => "invalid handle",
                    -5 => "invalid address",
                    -8 => "permission denied",
                    -9 => "bad page",
                    -10 => "copy crosses a page end",
                    -12 => "page not available now",
                    -13 => "out of handles",
                    _ => return write!(f, "grant operation refused ({status})"),
                };
                write!(f, "grant operation refused: {name}")
            }
            Self::Hypercall(error) => write!(f, "grant hypercall failed: {error}"),
            Self::OutOfMemory => f.write_str("out of memory"),
            Self::TableFull => f.write_str("out of grant references"),
            Self::FrameTooHigh => f.write_str("page frame too high for the grant table"),
            Self::BadRange => f.write_str("bad range of grants"),
        }
    }
}

impl core::error::Error for GrantError {}

impl From<Errno> for GrantError {
    fn from(error: Errno) -> Self {
        Self::Hypercall(error)
    }
}

impl From<OutOfMemory> for GrantError {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}
