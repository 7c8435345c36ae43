//! Who uses which uplink. A writer is alone on a disk, readers may be many, unless the configuration says
//! that the disk is shared.

use alloc::{
    collections::BTreeMap,
    rc::Rc,
    string::{String, ToString},
};
use core::{cell::RefCell, fmt};

/// All claims of the driver domain.
#[derive(Clone, Default)]
pub struct Claims(Rc<RefCell<BTreeMap<String, Holders>>>);

#[derive(Default)]
struct Holders {
    readers: usize,
    writers: usize,
    /// How many of them do not share.
    unshared: usize,
}

/// The right to use an uplink, given back when dropped.
pub struct Claim {
    claims: Claims,
    uplink: String,
    write: bool,
    shared: bool,
}

/// Somebody else uses the uplink in a way that does not go together with this claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InUse {
    /// How many others write.
    pub writers: usize,
    /// How many others read.
    pub readers: usize,
}

impl fmt::Display for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "in use by {} writer(s) and {} reader(s), and not configured as shared",
            self.writers, self.readers
        )
    }
}

impl Claims {
    /// Claims an uplink for reading or for writing too. Claims that are all `shared` go together in any case.
    ///
    /// # Errors
    /// [`InUse`] says who is in the way.
    pub fn claim(&self, uplink: &str, write: bool, shared: bool) -> Result<Claim, InUse> {
        let mut claims = self.0.borrow_mut();
        let holders = claims.entry(uplink.to_string()).or_default();
        let conflict = holders.writers > 0 || write && holders.readers > 0;
        if conflict && !(shared && holders.unshared == 0) {
            return Err(InUse {
                writers: holders.writers,
                readers: holders.readers,
            });
        }
        *holders.count(write) += 1;
        holders.unshared += usize::from(!shared);
        Ok(Claim {
            claims: self.clone(),
            uplink: uplink.to_string(),
            write,
            shared,
        })
    }

    /// How many claims there are.
    pub fn len(&self) -> usize {
        self.0
            .borrow()
            .values()
            .map(|holders| holders.readers + holders.writers)
            .sum()
    }

    /// Whether nobody uses anything.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Holders {
    fn count(&mut self, write: bool) -> &mut usize {
        if write {
            &mut self.writers
        } else {
            &mut self.readers
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claims = self.claims.0.borrow_mut();
        if let Some(holders) = claims.get_mut(&self.uplink) {
            *holders.count(self.write) -= 1;
            holders.unshared -= usize::from(!self.shared);
            if holders.readers + holders.writers == 0 {
                claims.remove(&self.uplink);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_writer_or_many_readers() {
        let claims = Claims::default();
        let reader = claims.claim("xvdb", false, false).unwrap();
        let second = claims.claim("xvdb", false, false).unwrap();
        assert_eq!(
            claims.claim("xvdb", true, false).err(),
            Some(InUse {
                writers: 0,
                readers: 2
            })
        );
        assert_eq!(claims.len(), 2);
        drop((reader, second));
        let writer = claims.claim("xvdb", true, false).unwrap();
        assert!(claims.claim("xvdb", true, false).is_err());
        assert!(claims.claim("xvdb", false, false).is_err());
        assert!(claims.claim("xvdc", true, false).is_ok());
        drop(writer);
        assert!(claims.is_empty());
    }

    #[test]
    fn shared_goes_together() {
        let claims = Claims::default();
        let _a = claims.claim("xvdb", true, true).unwrap();
        let _b = claims.claim("xvdb", true, true).unwrap();
        assert!(claims.claim("xvdb", false, true).is_ok());
        assert!(claims.claim("xvdb", false, false).is_err());
    }

    #[test]
    fn sharing_takes_all() {
        let claims = Claims::default();
        let _writer = claims.claim("xvdb", true, false).unwrap();
        assert!(claims.claim("xvdb", true, true).is_err());
        assert!(claims.claim("xvdb", false, true).is_err());
    }
}
