//! Pages that another domain may access.

use alloc::vec::Vec;
use core::mem::ManuallyDrop;
use core::time::Duration;

use super::{Access, GrantError, GrantRef, table};
use crate::cell::CpuCell;
use crate::mm::Pages;
use crate::shared::SharedMemory;
use crate::{executor, time};

/// Pages of this domain that another domain may access, under consecutive references.
///
/// Dropping it takes the access back. Where the other domain still has a page mapped, that is not possible:
/// such pages go into quarantine, neither used nor granted again, until the other domain lets go or dies.
pub struct Granted {
    pages: ManuallyDrop<Pages>,
    first: GrantRef,
    domid: u16,
}

/// The other domain still has a page mapped; the pages went into quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InUse;

impl Granted {
    /// Grants pages to domain `domid`.
    ///
    /// # Errors
    /// If there are not as many consecutive references, or a frame's number does not fit the table. The pages
    /// come back.
    pub fn new(domid: u16, pages: Pages, access: Access) -> Result<Self, (GrantError, Pages)> {
        match table::grant(domid, &pages, access) {
            Ok(first) => Ok(Self {
                pages: ManuallyDrop::new(pages),
                first,
                domid,
            }),
            Err(error) => Err((error, pages)),
        }
    }

    /// Takes `count` fresh pages of zeros and grants them.
    ///
    /// # Errors
    /// If there are no such pages, and as for [`new`](Self::new).
    pub fn zeroed(domid: u16, count: usize, access: Access) -> Result<Self, GrantError> {
        Self::new(domid, Pages::new(count)?, access).map_err(|(error, _)| error)
    }

    /// The reference of page `index`; references are consecutive.
    ///
    /// # Panics
    /// If there is no such page.
    pub fn reference(&self, index: usize) -> GrantRef {
        assert!(index < self.pages.count());
        self.first + index as GrantRef
    }

    /// How many pages these are.
    pub fn count(&self) -> usize {
        self.pages.count()
    }

    /// The bytes, which the other domain may change at any time.
    pub fn memory(&self) -> SharedMemory<'_> {
        // SAFETY: the pages stay mapped while `self` lives, and no reference to their bytes is ever made.
        unsafe { SharedMemory::new(self.pages.address() as *mut u8, self.pages.size()) }
    }

    /// Takes the access back, and the pages for oneself.
    ///
    /// # Errors
    /// If the other domain still has a page mapped: all of them go into quarantine.
    pub fn end(self) -> Result<Pages, InUse> {
        let mut granted = ManuallyDrop::new(self);
        // SAFETY: `granted` is never used or dropped again.
        let pages = unsafe { ManuallyDrop::take(&mut granted.pages) };
        take_back(pages, granted.first, granted.domid)
    }

    /// Like [`end`](Self::end), but pages that the other domain still has mapped stay as they are, to be
    /// tried again.
    pub fn try_end(self) -> Result<Pages, Self> {
        if !table::end_access(self.first, self.pages.count()) {
            return Err(self);
        }
        let mut granted = ManuallyDrop::new(self);
        // SAFETY: `granted` is never used or dropped again.
        Ok(unsafe { ManuallyDrop::take(&mut granted.pages) })
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        // SAFETY: `self` is not used any more.
        let pages = unsafe { ManuallyDrop::take(&mut self.pages) };
        let _ = take_back(pages, self.first, self.domid);
    }
}

/// Pages that their peer has not let go of.
struct Quarantined {
    pages: Pages,
    first: GrantRef,
}

static QUARANTINE: CpuCell<Vec<Quarantined>> = CpuCell::new(Vec::new());

/// How often the quarantine is looked through.
const RETRY: Duration = Duration::from_secs(1);

fn take_back(pages: Pages, first: GrantRef, domid: u16) -> Result<Pages, InUse> {
    if table::end_access(first, pages.count()) {
        return Ok(pages);
    }
    let mut quarantine = QUARANTINE.borrow();
    if quarantine.try_reserve(1).is_err() {
        // Without memory to remember the pages, they are lost: that is still safe.
        core::mem::forget(pages);
        return Err(InUse);
    }
    if quarantine.is_empty() {
        log::warn!("domain {domid} still maps pages that it should not; keeping them aside");
        executor::spawn(empty_quarantine()).detach();
    }
    quarantine.push(Quarantined { pages, first });
    Err(InUse)
}

async fn empty_quarantine() {
    loop {
        time::sleep(RETRY).await;
        let mut quarantine = QUARANTINE.borrow();
        quarantine.retain(|item| !table::end_access(item.first, item.pages.count()));
        if quarantine.is_empty() {
            log::info!("all pages kept aside have come back");
            return;
        }
    }
}
