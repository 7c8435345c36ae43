//! The receive ring: pages posted, and responses back into frames.
//!
//! A response stands where its request stood, so they come in the order of the requests; that is how an extra
//! info, which has no identifier, names the page that it used up. A frame's first response may be followed by
//! extra infos, and then by responses for its further fragments, each in a page of its own.

use alloc::collections::TryReserveError;
use alloc::vec::Vec;

use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::wire::{self, EXTRA_MORE, Extra, RxRequest, RxResponse, extra_type, rx_flag};
use super::{Broken, Info};
use crate::ring::{FrontRing, RingMemory};

/// The most extra infos of a frame: there are so many types.
const MAX_EXTRAS: u32 = 4;

const KNOWN_FLAGS: u16 =
    rx_flag::DATA_VALIDATED | rx_flag::CHECKSUM_BLANK | rx_flag::MORE_DATA | rx_flag::EXTRA_INFO;

/// One response: a page that came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<T> {
    /// What was posted with the page.
    pub token: T,
    /// The request that was answered.
    pub id: u16,
    /// Offset and length of the frame's next bytes in the page. `None` if the page has none.
    pub data: Option<(u16, u16)>,
    /// Set with the last response of a frame.
    pub end: Option<End>,
}

/// The end of a frame, which consists of the data since the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It is whole.
    Whole(Info),
    /// The back end could not fill some of the pages: what there is of it is of no use.
    Failed,
}

/// Where in a frame the next response is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    Extra,
    Data,
}

/// The requests that the back end has, with a `T` for each, which stands for the page and its grant; and the
/// frame that is coming in.
pub struct Receiver<T> {
    /// By place on the ring, which is also the identifier.
    slots: Vec<Option<T>>,
    posted: u32,
    answered: u32,
    place: Place,
    info: Info,
    /// Fragments follow the extra infos.
    more_data: bool,
    fragments: usize,
    extras: u32,
    failed: bool,
}

impl<T> Receiver<T> {
    /// For a ring with so many entries, a power of two, which has not been used yet.
    ///
    /// # Errors
    /// If there is no memory for them.
    pub fn new(capacity: u32) -> Result<Self, TryReserveError> {
        let mut slots = Vec::new();
        slots.try_reserve_exact(capacity as usize)?;
        slots.resize_with(capacity as usize, || None);
        Ok(Self {
            slots,
            posted: 0,
            answered: 0,
            place: Place::Start,
            info: Info::default(),
            more_data: false,
            fragments: 0,
            extras: 0,
            failed: false,
        })
    }

    fn slot(&self, index: u32) -> usize {
        index as usize & (self.slots.len() - 1)
    }

    /// Posts a page, without showing it to the back end yet.
    ///
    /// # Panics
    /// If the ring is full.
    pub fn post<M: RingMemory>(&mut self, ring: &mut FrontRing<M>, token: T, grant: u32) {
        let slot = self.slot(self.posted);
        ring.put(RxRequest::new(slot as u16, grant).as_bytes());
        self.slots[slot] = Some(token);
        self.posted = self.posted.wrapping_add(1);
    }

    /// How many pages the back end has.
    pub fn outstanding(&self) -> usize {
        self.posted.wrapping_sub(self.answered) as usize
    }

    /// Takes the next response, if there is one.
    pub fn take<M: RingMemory>(&mut self, ring: &mut FrontRing<M>) -> Result<Option<Entry<T>>, Broken> {
        let mut response = RxResponse::new_zeroed();
        if !ring.take(response.as_mut_bytes())? {
            return Ok(None);
        }
        let slot = self.slot(self.answered);
        let id = slot as u16;
        // Nothing is missing here: the ring gives no more responses than there were requests.
        let token = self.slots[slot].take().ok_or(Broken::UnknownRequest(id))?;
        self.answered = self.answered.wrapping_add(1);
        let read = match self.place {
            Place::Extra => Extra::read_from_bytes(response.as_bytes())
                .map_err(|_| Broken::Extra(0))
                .and_then(|extra| self.extra(extra).map(|()| None)),
            Place::Start | Place::Data => self.data(id, &response),
        };
        match read {
            Ok(data) => {
                let end = (self.place == Place::Start).then(|| self.end());
                Ok(Some(Entry { token, id, data, end }))
            }
            Err(broken) => {
                // The page is still the back end's until the connection is over.
                self.slots[slot] = Some(token);
                Err(broken)
            }
        }
    }

    fn data(&mut self, id: u16, response: &RxResponse) -> Result<Option<(u16, u16)>, Broken> {
        if response.id.get() != id {
            return Err(Broken::OutOfOrder(response.id.get()));
        }
        let flags = response.flags.get();
        if flags & !KNOWN_FLAGS != 0 {
            return Err(Broken::Flags(flags));
        }
        let data = match u16::try_from(response.status.get()) {
            Ok(len) => {
                let offset = response.offset.get();
                if usize::from(offset) + usize::from(len) > wire::PAGE_BYTES {
                    return Err(Broken::Range { offset, len });
                }
                (len > 0).then_some((offset, len))
            }
            Err(_) => {
                self.failed = true;
                None
            }
        };
        self.fragments += 1;
        if self.fragments > wire::MAX_FRAGMENTS {
            return Err(Broken::Endless);
        }
        self.more_data = flags & rx_flag::MORE_DATA != 0;
        if self.place == Place::Start {
            self.info.checksum_blank = flags & rx_flag::CHECKSUM_BLANK != 0;
            self.info.validated = flags & rx_flag::DATA_VALIDATED != 0;
            if flags & rx_flag::EXTRA_INFO != 0 {
                self.place = Place::Extra;
                return Ok(data);
            }
        }
        self.place = self.behind_extras();
        Ok(data)
    }

    fn extra(&mut self, extra: Extra) -> Result<(), Broken> {
        self.extras += 1;
        if self.extras > MAX_EXTRAS {
            return Err(Broken::Endless);
        }
        match extra.kind {
            extra_type::GSO => self.info.gso = Some(extra.as_gso().ok_or(Broken::Extra(extra.kind))?),
            // What it says is of no use here.
            extra_type::HASH => {}
            kind => return Err(Broken::Extra(kind)),
        }
        if extra.flags & EXTRA_MORE == 0 {
            self.place = self.behind_extras();
        }
        Ok(())
    }

    fn behind_extras(&self) -> Place {
        if self.more_data { Place::Data } else { Place::Start }
    }

    fn end(&mut self) -> End {
        self.fragments = 0;
        self.extras = 0;
        let info = core::mem::take(&mut self.info);
        if core::mem::take(&mut self.failed) {
            End::Failed
        } else {
            End::Whole(info)
        }
    }

    /// When the connection is over: hands what stands for the pages that the back end has not answered for to
    /// `end`, and keeps what that returns. Returns whether nothing is left.
    pub fn take_back(&mut self, mut end: impl FnMut(T) -> Option<T>) -> bool {
        let mut all = true;
        for slot in &mut self.slots {
            *slot = slot.take().and_then(&mut end);
            all &= slot.is_none();
        }
        all
    }
}
