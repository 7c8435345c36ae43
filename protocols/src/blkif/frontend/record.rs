//! One request, and how it is cut into ring requests.

use core::array;

use zerocopy::IntoBytes;

use super::{Failure, Payload, RingConnection};
use crate::blkif::nodes::DiscardSupport;
use crate::blkif::wire::{self, DIRECT_SEGMENTS, SEGMENTS_PER_PAGE, Segment, operation};
use crate::ring::{FrontRing, RingMemory};

/// Segments that are written to a page of segments at a time.
const CHUNK: usize = 32;

/// Sectors in a page, and so in a full segment.
pub(super) const PAGE_SECTORS: u64 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
    Flush,
    Discard,
    WriteZeroes,
}

impl Kind {
    pub fn has_data(self) -> bool {
        matches!(self, Kind::Read | Kind::Write | Kind::WriteZeroes)
    }

    pub fn changes_disk(self) -> bool {
        matches!(self, Kind::Write | Kind::WriteZeroes | Kind::Discard)
    }
}

/// A request from its submission to its end.
pub(super) struct Record<T, P> {
    /// Whose it is. Of an abandoned one, it may be somebody else's number by now.
    pub party: usize,
    /// `None` if it is abandoned: nobody waits for it.
    pub token: Option<T>,
    pub kind: Kind,
    pub sector: u64,
    pub sectors: u64,
    pub payload: Option<P>,
    /// Orders requests by submission.
    pub sequence: u64,
    /// Writes that were acknowledged before this one was submitted: what a flush covers.
    pub covers: u64,
    /// How much there is to send: sectors of data, or 1.
    pub length: u64,
    /// How much of it is on the ring or answered.
    pub sent: u64,
    /// Ring requests without an answer.
    pub outstanding: u32,
    /// The first failure.
    pub failure: Option<Failure>,
}

impl<T, P: Payload> Record<T, P> {
    pub fn is_abandoned(&self) -> bool {
        self.token.is_none()
    }

    /// How many pages the data has that is still to be sent, as far as one ring request can name them at all:
    /// there are only so many `zeros`.
    pub fn pages_left(&self, zeros: Option<&P>) -> usize {
        let pages = (self.sectors - self.sent).div_ceil(PAGE_SECTORS);
        let limit = match (&self.payload, zeros) {
            (Some(_), _) => pages,
            (None, Some(zeros)) => zeros.bytes() as u64 / 512 / PAGE_SECTORS,
            (None, None) => 0,
        };
        pages.min(limit) as usize
    }

    /// Puts the next part of the data on the ring, with its segments in the page `indirect` if there is one.
    /// Returns how many sectors it has. All parts but the last are whole pages, so each begins at the start
    /// of a page.
    pub fn put<M: RingMemory>(
        &self,
        connection: &RingConnection,
        id: u64,
        zeros: Option<&P>,
        indirect: Option<&P>,
        ring: &mut FrontRing<M>,
    ) -> u64 {
        let limit = match indirect {
            Some(_) => (connection.indirect_segments as usize).min(SEGMENTS_PER_PAGE),
            None => DIRECT_SEGMENTS,
        };
        let count = self.pages_left(zeros).min(limit);
        let sectors = (self.sectors - self.sent).min(count as u64 * PAGE_SECTORS);
        let first_page = (self.sent / PAGE_SECTORS) as usize;
        let segment = |index: usize| {
            let grant = match (&self.payload, zeros) {
                (Some(payload), _) => payload.grant(first_page + index),
                (None, zeros) => zeros.map_or(0, |zeros| zeros.grant(index)),
            };
            Segment::new(
                grant,
                (sectors - index as u64 * PAGE_SECTORS).min(PAGE_SECTORS) as u8,
            )
        };
        let operation = if self.kind == Kind::Read {
            operation::READ
        } else {
            operation::WRITE
        };
        let sector = self.sector + self.sent;
        if let Some(page) = indirect {
            // In a few copies, without much stack.
            for first in (0..count).step_by(CHUNK) {
                let chunk: [_; CHUNK] = array::from_fn(|index| segment((first + index).min(count - 1)));
                let len = CHUNK.min(count - first);
                page.fill(first * size_of::<Segment>(), chunk[..len].as_bytes());
            }
            let request = wire::Indirect::new(
                operation,
                connection.handle,
                id,
                sector,
                count as u16,
                page.grant(0),
            );
            ring.put(request.as_bytes());
        } else {
            let mut request = wire::Direct::new(operation, connection.handle, id, sector);
            request.segment_count = count as u8;
            for (index, place) in request.segments[..count].iter_mut().enumerate() {
                *place = segment(index);
            }
            ring.put(request.as_bytes());
        }
        sectors
    }
}

/// The granules that lie wholly within a range. A discard is a hint, so the rest may keep its contents.
pub(super) fn whole_granules(support: DiscardSupport, sector: u64, sectors: u64) -> Option<(u64, u64)> {
    let (granularity, alignment) = (u64::from(support.granularity), u64::from(support.alignment));
    let first = sector
        .saturating_sub(alignment)
        .checked_next_multiple_of(granularity)?
        + alignment;
    let end = (sector + sectors).checked_sub(alignment)? / granularity * granularity + alignment;
    (first < end).then(|| (first, end - first))
}
