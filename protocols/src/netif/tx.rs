//! The transmit ring: frames into requests, and the pages that the back end still has.
//!
//! The first request names the whole frame's size, extra infos follow it, and each further fragment of the
//! frame has a request of its own. The back end answers each request with a fragment by its identifier, in
//! any order; extra infos it answers without one.

use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::mem;

use zerocopy::{FromZeros, IntoBytes};

use super::wire::{self, Extra, TxRequest, TxResponse, status, tx_flag};
use super::{Broken, Info};
use crate::ring::{FrontRing, RingMemory};

/// A part of a frame in one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Where in the page it starts.
    pub offset: u16,
    /// Its length in bytes, not 0.
    pub len: u16,
}

/// Why a frame was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused<E> {
    /// It can never be sent: too long, too many fragments, or none.
    Unfit,
    /// The ring has no room for it now.
    Full,
    /// A page could not be granted.
    Grant(E),
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// What was given for the fragment's page; `None` if there was none, as with changes of the multicast
    /// filter.
    pub token: Option<T>,
    /// The request that was answered.
    pub id: u16,
    /// Whether the back end took the frame; it says so with each fragment, or with some only.
    pub taken: bool,
}

/// Whether the back end has a request with an identifier.
enum Slot<T> {
    Free,
    Fragment(T),
    /// One without a page.
    Control,
}

/// The requests that the back end has, with a `T` for each fragment, which stands for the page and its grant.
pub struct Transmitter<T> {
    /// By identifier.
    slots: Vec<Slot<T>>,
    free: Vec<u16>,
    /// Responses without an identifier that are still to come.
    nulls: u32,
    /// The requests of a frame, before they are written.
    staged: Vec<TxRequest>,
}

impl<T> Transmitter<T> {
    /// For a ring with so many entries.
    ///
    /// # Errors
    /// If there is no memory for them.
    pub fn new(capacity: u32) -> Result<Self, TryReserveError> {
        let capacity = capacity as u16;
        let (mut slots, mut free) = (Vec::new(), Vec::new());
        slots.try_reserve_exact(capacity.into())?;
        slots.resize_with(capacity.into(), || Slot::Free);
        free.try_reserve_exact(capacity.into())?;
        free.extend((0..capacity).rev());
        Ok(Self {
            slots,
            free,
            nulls: 0,
            staged: Vec::with_capacity(wire::MAX_FRAGMENTS),
        })
    }

    /// How many entries a frame takes.
    pub fn entries(fragments: usize, info: &Info) -> usize {
        fragments + usize::from(info.gso.is_some())
    }

    /// Writes a frame's requests to the ring, without showing them to the back end yet. `grant` is called for
    /// each fragment, in order, and returns what stands for the page and its grant reference. If anything
    /// fails, nothing is written, and what stood for pages is dropped.
    pub fn send<M: RingMemory, E>(
        &mut self,
        ring: &mut FrontRing<M>,
        info: &Info,
        fragments: impl ExactSizeIterator<Item = Fragment>,
        mut grant: impl FnMut(usize) -> Result<(T, u32), E>,
    ) -> Result<(), Refused<E>> {
        let count = fragments.len();
        if count == 0 || count > wire::MAX_FRAGMENTS {
            return Err(Refused::Unfit);
        }
        if Self::entries(count, info) > ring.free() as usize || count > self.free.len() {
            return Err(Refused::Full);
        }
        let mut total = 0;
        let mut staged = Ok(());
        for (index, fragment) in fragments.enumerate() {
            total += usize::from(fragment.len);
            if total > wire::MAX_TX_BYTES {
                staged = Err(Refused::Unfit);
                break;
            }
            if let Err(error) = self.stage(fragment, || grant(index)) {
                staged = Err(Refused::Grant(error));
                break;
            }
        }
        if let Err(refused) = staged {
            self.unstage();
            return Err(refused);
        }
        self.write(ring, info, total as u16);
        Ok(())
    }

    fn stage<E>(&mut self, fragment: Fragment, grant: impl FnOnce() -> Result<(T, u32), E>) -> Result<(), E> {
        let (token, grant) = grant()?;
        // The caller has made sure that there is one.
        let Some(id) = self.free.pop() else {
            return Ok(());
        };
        self.slots[usize::from(id)] = Slot::Fragment(token);
        self.staged.push(TxRequest {
            grant: grant.into(),
            offset: fragment.offset.into(),
            flags: tx_flag::MORE_DATA.into(),
            id: id.into(),
            size: fragment.len.into(),
        });
        Ok(())
    }

    fn unstage(&mut self) {
        while let Some(request) = self.staged.pop() {
            self.slots[usize::from(request.id.get())] = Slot::Free;
            self.free.push(request.id.get());
        }
    }

    fn write<M: RingMemory>(&mut self, ring: &mut FrontRing<M>, info: &Info, total: u16) {
        if let Some(first) = self.staged.first_mut() {
            first.size = total.into();
            if info.checksum_blank {
                first.flags |= tx_flag::CHECKSUM_BLANK;
            }
            if info.validated {
                first.flags |= tx_flag::DATA_VALIDATED;
            }
            if info.gso.is_some() {
                first.flags |= tx_flag::EXTRA_INFO;
            }
        }
        if let Some(last) = self.staged.last_mut() {
            last.flags = (last.flags.get() & !tx_flag::MORE_DATA).into();
        }
        let mut staged = mem::take(&mut self.staged);
        for (index, request) in staged.drain(..).enumerate() {
            ring.put(request.as_bytes());
            if let (0, Some(gso)) = (index, info.gso) {
                self.write_extra(ring, &Extra::gso(gso));
            }
        }
        self.staged = staged;
    }

    fn write_extra<M: RingMemory>(&mut self, ring: &mut FrontRing<M>, extra: &Extra) {
        // The rest of an entry is zero: another domain reads it.
        let mut entry = [0; wire::TX_ENTRY_BYTES];
        entry[..size_of::<Extra>()].copy_from_slice(extra.as_bytes());
        ring.put(&entry);
        self.nulls += 1;
    }

    /// Writes a change of the back end's multicast filter to the ring: a request without bytes, and an extra
    /// info. Whether there was room.
    pub fn change_filter<M: RingMemory>(
        &mut self,
        ring: &mut FrontRing<M>,
        group: [u8; 6],
        add: bool,
    ) -> bool {
        if ring.free() < 2 {
            return false;
        }
        let Some(id) = self.free.pop() else {
            return false;
        };
        self.slots[usize::from(id)] = Slot::Control;
        let request = TxRequest {
            flags: tx_flag::EXTRA_INFO.into(),
            id: id.into(),
            ..TxRequest::new_zeroed()
        };
        ring.put(request.as_bytes());
        self.write_extra(ring, &Extra::multicast(group, add));
        true
    }

    /// Takes the next answer, if there is one.
    pub fn take<M: RingMemory>(&mut self, ring: &mut FrontRing<M>) -> Result<Option<Answer<T>>, Broken> {
        let mut response = TxResponse::new_zeroed();
        // Bounded by the entries of the ring: the index is checked.
        while ring.take(response.as_mut_bytes())? {
            let (id, status) = (response.id.get(), response.status.get());
            let taken = match status {
                status::NULL => {
                    self.nulls = self.nulls.checked_sub(1).ok_or(Broken::UnexpectedNull)?;
                    continue;
                }
                status::OKAY => true,
                status::ERROR | status::DROPPED => false,
                _ => return Err(Broken::Status(status)),
            };
            let slot = self.slots.get_mut(usize::from(id));
            let token = match slot.map(|slot| mem::replace(slot, Slot::Free)) {
                Some(Slot::Fragment(token)) => Some(token),
                Some(Slot::Control) => None,
                Some(Slot::Free) | None => return Err(Broken::UnknownRequest(id)),
            };
            self.free.push(id);
            return Ok(Some(Answer { token, id, taken }));
        }
        Ok(None)
    }

    /// How many requests the back end has.
    pub fn outstanding(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// When the connection is over: hands what stands for the pages that the back end has not answered for to
    /// `end`, and keeps what that returns. Returns whether nothing is left.
    pub fn take_back(&mut self, mut end: impl FnMut(T) -> Option<T>) -> bool {
        let mut all = true;
        for slot in &mut self.slots {
            if let Slot::Fragment(token) = mem::replace(slot, Slot::Free)
                && let Some(token) = end(token)
            {
                *slot = Slot::Fragment(token);
                all = false;
            }
        }
        all
    }
}
