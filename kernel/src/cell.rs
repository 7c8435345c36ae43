//! State of the single virtual CPU.

use core::cell::{RefCell, RefMut};

/// A global of an image with one virtual CPU and no interrupt handlers.
///
/// Borrowing twice at once is a bug and panics, so no borrow may be held across an `await` or a call back
/// into code that borrows the same cell.
pub(crate) struct CpuCell<T>(RefCell<T>);

// SAFETY: an image has one virtual CPU, and event upcalls never run Rust code (see `crate::boot`), so no two
// threads of execution ever reach a cell at the same time. Host tests do not touch the globals.
unsafe impl<T> Sync for CpuCell<T> {}

impl<T> CpuCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(RefCell::new(value))
    }

    /// Borrows the value; panics if it is borrowed already.
    pub(crate) fn borrow(&self) -> RefMut<'_, T> {
        self.0.borrow_mut()
    }

    /// Borrows the value unless it is borrowed already: for code that may run while anything else was
    /// interrupted by a panic or a trap.
    pub(crate) fn try_borrow(&self) -> Option<RefMut<'_, T>> {
        self.0.try_borrow_mut().ok()
    }
}
