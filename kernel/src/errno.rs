//! Errors that the hypervisor returns.

use core::fmt;

/// An error number of a hypercall (`xen/include/public/errno.h`), positive.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// Out of memory.
    pub const NOMEM: Self = Self(12);
    /// Invalid argument.
    pub const INVAL: Self = Self(22);
    /// The hypercall or command is not implemented.
    pub const NOSYS: Self = Self(38);

    /// What a hypercall returned: negative values are errors.
    pub(crate) fn check(result: i64) -> Result<u64, Self> {
        u64::try_from(result).map_err(|_| Self(result.unsigned_abs().try_into().unwrap_or(i32::MAX)))
    }

    fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            1 => "EPERM",
            2 => "ENOENT",
            3 => "ESRCH",
            12 => "ENOMEM",
            13 => "EACCES",
            14 => "EFAULT",
            16 => "EBUSY",
            17 => "EEXIST",
            22 => "EINVAL",
            28 => "ENOSPC",
            38 => "ENOSYS",
            62 => "ETIME",
            _ => return None,
        })
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "error {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl core::error::Error for Errno {}
