//! The transmit ring of a queue.

use alloc::collections::TryReserveError;

use devices::net::{Frame, Mac};
use protocols::netif::tx::{Fragment, Refused, Transmitter};
use protocols::netif::wire::MAX_FRAGMENTS;
use protocols::netif::{Broken, Info};
use protocols::ring::FrontRing;

use crate::frontend::RingPages;
use crate::grant::{Access, GrantError, GrantRef, Granted, Loan};
use crate::packets::Packet;

/// Entries that the largest frame takes: one for each fragment, and one for segmentation.
const MAX_ENTRIES: u32 = MAX_FRAGMENTS as u32 + 1;

/// A frame that the back end has. A fragment's page is lent together with a handle of it.
#[derive(Clone)]
pub(super) struct Sent {
    frame: Frame<Packet>,
    /// The frame that it was made of, which keeps that on its sender's account.
    _origin: Option<Frame<Packet>>,
}

impl Sent {
    /// A frame as it came, or one that was made of another.
    pub fn new(frame: Frame<Packet>, origin: Option<Frame<Packet>>) -> Self {
        Self {
            frame,
            _origin: origin,
        }
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.frame.len()
    }
}

/// A transmit ring.
pub(super) struct Transmit {
    domid: u16,
    ring: FrontRing<RingPages>,
    requests: Transmitter<Loan<Sent>>,
    /// The page that the back end has answered for and still has mapped, which ends the connection.
    stuck: Option<Loan<Sent>>,
}

impl Transmit {
    /// # Errors
    /// If there is no memory for a table of the ring's entries.
    pub fn new(domid: u16, ring: FrontRing<RingPages>) -> Result<Self, TryReserveError> {
        Ok(Self {
            domid,
            requests: Transmitter::new(ring.capacity())?,
            ring,
            stuck: None,
        })
    }

    /// Whether any frame fits.
    pub fn has_room(&self) -> bool {
        self.ring.free() >= MAX_ENTRIES
    }

    /// Puts a frame on the ring, without showing it to the back end yet.
    pub fn send(&mut self, sent: &Sent, info: &Info) -> Result<(), Refused<GrantError>> {
        let packet = sent.frame.buffer();
        let fragments = (0..packet.fragments()).map(|index| {
            let (_, offset, len) = packet.fragment(index);
            Fragment { offset, len }
        });
        let domid = self.domid;
        self.requests.send(&mut self.ring, info, fragments, |index| {
            let (page, offset, len) = packet.fragment(index);
            page.expose(domid, offset.into(), len.into());
            lend(domid, sent.clone(), index)
        })
    }

    /// Has the back end let frames to a group through, as far as there is room on the ring.
    pub fn join(&mut self, group: Mac) {
        self.requests.change_filter(&mut self.ring, group, true);
    }

    /// Shows what was sent to the back end. Returns whether it asked to be notified of it.
    #[must_use]
    pub fn push(&mut self) -> bool {
        self.ring.push()
    }

    /// Takes all answers that there are, and returns for how many fragments the back end did not take the
    /// frame.
    pub fn reap(&mut self) -> Result<u64, Broken> {
        let mut failed = 0;
        while let Some(answer) = self.requests.take(&mut self.ring)? {
            failed += u64::from(!answer.taken);
            if let Some(Err(loan)) = answer.token.map(Loan::try_end) {
                self.stuck = Some(loan);
                return Err(Broken::StillMapped(answer.id));
            }
        }
        Ok(failed)
    }

    /// Asks for a notification when half of what the back end has is answered; whether there are answers
    /// already. Answers do nothing but give memory back, so there is no hurry.
    pub fn final_check(&mut self) -> Result<bool, Broken> {
        let outstanding = self.ring.capacity() - self.ring.free();
        Ok(self.ring.final_check_in(outstanding / 2)?)
    }

    /// What the back end may still have, when the connection is over.
    pub fn into_parts(self) -> (Granted, Transmitter<Loan<Sent>>, Option<Loan<Sent>>) {
        (self.ring.into_memory().0, self.requests, self.stuck)
    }
}

/// Lends a fragment's page for reading, and returns its reference too.
fn lend(domid: u16, sent: Sent, fragment: usize) -> Result<(Loan<Sent>, GrantRef), GrantError> {
    // SAFETY: the page stays in its packet for as long as there is a handle of the frame, and the loan has
    // one.
    let loan = unsafe {
        Loan::new(domid, sent, Access::ReadOnly, |sent| {
            sent.frame.buffer().fragment(fragment).0.pages()
        })
    };
    let loan = loan.map_err(|(error, _)| error)?;
    let reference = loan.reference();
    Ok((loan, reference))
}
