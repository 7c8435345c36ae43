//! The receive ring of a queue: pages out, frames in.

use alloc::collections::TryReserveError;

use protocols::netif::rx::{End, Receiver};
use protocols::netif::{Broken, Info};
use protocols::ring::FrontRing;

use crate::frontend::RingPages;
use crate::grant::{Access, Granted, Loan};
use crate::packets::{Packet, PacketPool, Page};

/// What a response brings.
pub(super) enum Received {
    /// Part of a frame.
    Part,
    /// A whole one.
    Frame(Packet, Info),
    /// The end of one that is of no use.
    Failed,
}

/// Why the back end has fewer pages than it is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Short {
    /// The pool has no page: [`PacketPool::poll_free`] says when it has.
    Memory,
    /// A page cannot be granted. Nothing says when it can.
    Grants,
}

/// A receive ring.
pub(super) struct Receive {
    domid: u16,
    ring: FrontRing<RingPages>,
    pages: Receiver<Loan<Page>>,
    /// How many pages the back end is to have.
    most: usize,
    /// The frame that is coming in.
    packet: Packet,
    /// The page that the back end has answered for and still has mapped, which ends the connection.
    stuck: Option<Loan<Page>>,
}

impl Receive {
    /// # Errors
    /// If there is no memory for a table of the ring's entries.
    pub fn new(domid: u16, ring: FrontRing<RingPages>, most: usize) -> Result<Self, TryReserveError> {
        Ok(Self {
            domid,
            most,
            pages: Receiver::new(ring.capacity())?,
            ring,
            packet: Packet::empty(),
            stuck: None,
        })
    }

    /// Posts pages until the back end has as many as it is to have.
    pub fn refill(&mut self, pool: &PacketPool) -> Result<(), Short> {
        while self.ring.free() > 0 && self.posted() < self.most {
            let page = pool.take_page().ok_or(Short::Memory)?;
            page.expose(self.domid, 0, 0);
            // SAFETY: the page is this loan's alone, and nobody makes references to a pool page's bytes.
            let loan = unsafe { Loan::new(self.domid, page, Access::ReadWrite, Page::pages) };
            let loan = loan.map_err(|_| Short::Grants)?;
            let reference = loan.reference();
            self.pages.post(&mut self.ring, loan, reference);
        }
        Ok(())
    }

    /// How many pages the back end has.
    pub fn posted(&self) -> usize {
        self.pages.outstanding()
    }

    /// Shows what was posted to the back end. Returns whether it asked to be notified of it.
    #[must_use]
    pub fn push(&mut self) -> bool {
        self.ring.push()
    }

    /// Takes the next response, if there is one.
    pub fn take(&mut self) -> Result<Option<Received>, Broken> {
        let Some(entry) = self.pages.take(&mut self.ring)? else {
            return Ok(None);
        };
        let page = match entry.token.try_end() {
            Ok(page) => page,
            Err(loan) => {
                self.stuck = Some(loan);
                return Err(Broken::StillMapped(entry.id));
            }
        };
        if let Some((offset, len)) = entry.data {
            self.packet.push(page, offset.into(), len.into());
        }
        let Some(end) = entry.end else {
            return Ok(Some(Received::Part));
        };
        let packet = core::mem::replace(&mut self.packet, Packet::empty());
        Ok(Some(match end {
            End::Whole(info) => Received::Frame(packet, info),
            End::Failed => Received::Failed,
        }))
    }

    /// Asks for a notification of the next response; whether there is one already.
    pub fn final_check(&mut self) -> Result<bool, Broken> {
        Ok(self.ring.final_check()?)
    }

    /// What the back end may still have, when the connection is over.
    pub fn into_parts(self) -> (Granted, Receiver<Loan<Page>>, Option<Loan<Page>>) {
        (self.ring.into_memory().0, self.pages, self.stuck)
    }
}
