//! Single pages that another domain may access for a while, and that their owner gets back.

use core::mem::ManuallyDrop;

use super::{Access, GrantError, GrantRef, table};
use crate::mm::Pages;

/// A page that another domain may access, with what owns it.
///
/// Granting and taking back cost a few stores each, no hypercall. Dropping it takes the access back; where
/// the other domain still has the page mapped, that is not possible, and the owner is never dropped. Who can
/// wait uses [`try_end`](Self::try_end).
pub(crate) struct Loan<T> {
    owner: ManuallyDrop<T>,
    reference: GrantRef,
}

impl<T> Loan<T> {
    /// Grants the page that `page` finds in the owner to domain `domid`. On failure, the owner comes back.
    ///
    /// # Safety
    /// The page must not be given to anybody else before the owner, and all that shares it, is dropped. If
    /// the access is for writing, nobody may hold references to the page's bytes until it has ended.
    pub(crate) unsafe fn new(
        domid: u16,
        owner: T,
        access: Access,
        page: impl for<'a> FnOnce(&'a T) -> &'a Pages,
    ) -> Result<Self, (GrantError, T)> {
        let pages = page(&owner);
        debug_assert_eq!(pages.count(), 1);
        match table::grant(domid, pages, access) {
            Ok(reference) => Ok(Self {
                owner: ManuallyDrop::new(owner),
                reference,
            }),
            Err(error) => Err((error, owner)),
        }
    }

    /// What the other domain calls the page.
    pub(crate) fn reference(&self) -> GrantRef {
        self.reference
    }

    /// Takes the access back and returns the owner, unless the other domain still has the page mapped.
    pub(crate) fn try_end(self) -> Result<T, Self> {
        if !table::end_access(self.reference, 1) {
            return Err(self);
        }
        let mut ended = ManuallyDrop::new(self);
        // SAFETY: `ended` is never used or dropped again.
        Ok(unsafe { ManuallyDrop::take(&mut ended.owner) })
    }
}

impl<T> Drop for Loan<T> {
    fn drop(&mut self) {
        if table::end_access(self.reference, 1) {
            // SAFETY: `self` is not used any more.
            unsafe { ManuallyDrop::drop(&mut self.owner) };
        } else {
            log::error!("a page is lost to the domain that has it mapped");
        }
    }
}
