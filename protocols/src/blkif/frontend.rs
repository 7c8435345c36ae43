//! The table of requests of one block front end.
//!
//! [`Frontend`] takes requests, cuts them into what the back end accepts, matches responses, and keeps
//! everything that is needed to send an unanswered request again to the next back end. It owns no ring: the
//! caller passes the one of the present connection, if there is one.
//!
//! # Order and loss
//! The requests of one party start in the order of submission and finish in any order, as virtio-blk allows;
//! parties take turns. Write-zeroes requests have a queue of their own, with one ring request at a time, so
//! that a long one does not hold up others.
//!
//! After [`disconnect`](Frontend::disconnect), every request without a complete answer is back in its queue,
//! whole, in the order of submission, and [`connect`](Frontend::connect) sends it again. That is safe under
//! one condition, which the caller must establish in between: the old back end has no access to any page any
//! more, so it neither fills a buffer that has since found another use, nor stores data later than its
//! successor.
//!
//! What the old back end acknowledged but had in a volatile cache survives if that cache does. If it may be
//! gone, the caller says so ([`cache_lost`](Frontend::cache_lost)), and the next flush of each party that has
//! such writes fails, like an fsync after a write-back error.
//!
//! # Abandoned requests
//! A client that goes away abandons its requests. Those that the back end does not have yet are dropped.
//! While it has others that change the disk, no new request starts, so that a write of the old client cannot
//! overtake one of the next; and they are not sent again after a disconnect.

use alloc::collections::{BinaryHeap, TryReserveError, VecDeque};
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::mem;

use slab::Slab;
use zerocopy::IntoBytes;

use self::record::{Kind, PAGE_SECTORS, Record, whole_granules};
pub use self::request::{Command, Counters, Failure, Finished, Payload, RingConnection};
use self::turns::Turns;
use super::nodes::{FlushSupport, Properties};
use super::wire::{self, DIRECT_SEGMENTS, operation, status};
use crate::ring::{FrontRing, RingMemory};

mod record;
mod request;
mod turns;

/// The back end answered a request that it does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownRequest(pub u64);

/// A ring request that the back end has.
struct Part<P> {
    record: usize,
    /// The page of its segments, if it is indirect.
    indirect: Option<P>,
}

/// A number for ring requests. It stays the same while the generation counts its uses.
struct Slot<P> {
    generation: u32,
    part: Option<Part<P>>,
}

/// One who makes requests: a client, however many streams of requests it has. It has turns of its own, and is
/// told of its own lost writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Party(usize);

/// What is known of a party's writes.
#[derive(Default)]
struct Writes {
    /// Which of all acknowledged writes the last one of the party's is.
    last: u64,
    /// Acknowledged ones may be gone, and the party has not been told yet.
    lost: bool,
}

/// The requests of one front end. `T` is the caller's token, `P` its payload.
pub struct Frontend<T, P> {
    connection: Option<RingConnection>,
    parties: Slab<Writes>,
    records: Slab<Record<T, P>>,
    /// Requests not fully sent, except write-zeroes. Only the first can be partly sent.
    queue: Turns,
    /// Write-zeroes requests not fully sent.
    zero_queue: Turns,
    /// What write-zeroes requests write. A back end that keeps mappings wants a grant reference to be in one
    /// place at a time, hence the one ring request.
    zeros: Option<P>,
    /// The zeros are in use.
    zeroing: bool,
    slots: Vec<Slot<P>>,
    free_slots: Vec<u32>,
    /// Free pages for indirect segments.
    indirect: Vec<P>,
    finished: VecDeque<Finished<T, P>>,
    /// Empty between uses, and kept for its allocation: the order in which requests came.
    order: BinaryHeap<Reverse<(u64, usize)>>,
    /// Abandoned requests that the back end has.
    abandoned: usize,
    /// Those of them that change the disk: no request starts before they end.
    held_by: usize,
    sequence: u64,
    /// Writes acknowledged, and how many of them are known to be durable.
    acknowledged: u64,
    durable: u64,
    counters: Counters,
}

impl<T, P: Payload> Default for Frontend<T, P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, P: Payload> Frontend<T, P> {
    /// A table without requests, not connected.
    pub const fn new() -> Self {
        Self {
            connection: None,
            parties: Slab::new(),
            records: Slab::new(),
            queue: Turns::new(),
            zero_queue: Turns::new(),
            zeros: None,
            zeroing: false,
            slots: Vec::new(),
            free_slots: Vec::new(),
            indirect: Vec::new(),
            finished: VecDeque::new(),
            order: BinaryHeap::new(),
            abandoned: 0,
            held_by: 0,
            sequence: 0,
            acknowledged: 0,
            durable: 0,
            counters: Counters::NONE,
        }
    }

    /// Adds a page for indirect segments. Each lets one more indirect request be in flight; without a free
    /// one, requests go out in pieces of 11 segments.
    pub fn add_indirect_page(&mut self, page: P) {
        self.indirect.push(page);
    }

    /// Sets what write-zeroes requests write: whole pages of zeros.
    pub fn set_zeros(&mut self, zeros: P) {
        self.zeros = Some(zeros);
    }

    /// What was done so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// How many requests are not finished.
    pub fn pending(&self) -> usize {
        self.records.len()
    }

    /// The present connection.
    pub fn connection(&self) -> Option<&RingConnection> {
        self.connection.as_ref()
    }

    /// Makes room for this many requests in all, so that nothing that is done with them asks for much memory
    /// at a time.
    pub fn reserve(&mut self, requests: usize) -> Result<(), TryReserveError> {
        // Those of clients that are gone come on top.
        let requests = requests + self.abandoned;
        let more = |len: usize| requests.saturating_sub(len);
        self.finished.try_reserve(more(self.finished.len()))?;
        self.order.try_reserve(requests)?;
        self.queue.reserve(requests)?;
        self.zero_queue.reserve(requests)?;
        if requests > self.records.capacity() {
            let wanted = requests.max(2 * self.records.capacity());
            // A slab cannot be asked whether there is memory. Where this was, there is.
            Vec::<(Record<T, P>, usize)>::new().try_reserve_exact(wanted)?;
            self.records.reserve_exact(wanted - self.records.len());
        }
        Ok(())
    }

    /// A new party.
    pub fn join(&mut self) -> Party {
        Party(self.parties.insert(Writes::default()))
    }

    /// A party is gone, with nobody left to be told of its writes. It must have no requests but
    /// [abandoned](Self::abandon) ones.
    pub fn leave(&mut self, party: Party) {
        self.parties.remove(party.0);
    }

    /// Takes a request of a party's. It starts with the next [`pump`](Self::pump) that has room for it.
    pub fn submit(&mut self, party: Party, token: T, command: Command<P>) {
        let (kind, sector, sectors, payload) = match command {
            Command::Read { sector, payload } => {
                (Kind::Read, sector, payload.bytes() as u64 / 512, Some(payload))
            }
            Command::Write { sector, payload } => {
                (Kind::Write, sector, payload.bytes() as u64 / 512, Some(payload))
            }
            Command::Flush => (Kind::Flush, 0, 0, None),
            Command::Discard { sector, sectors } => (Kind::Discard, sector, sectors, None),
            Command::WriteZeroes { sector, sectors } => (Kind::WriteZeroes, sector, sectors, None),
        };
        self.sequence += 1;
        let length = if kind.has_data() { sectors } else { 1 };
        let key = self.records.insert(Record {
            party: party.0,
            token: Some(token),
            kind,
            sector,
            sectors,
            payload,
            sequence: self.sequence,
            covers: self.acknowledged,
            length,
            sent: 0,
            outstanding: 0,
            failure: None,
        });
        self.queue_of(kind).push(party.0, key);
    }

    /// Puts on the ring what fits. To be called after submissions and after responses; then the caller
    /// [pushes](FrontRing::push).
    pub fn pump<M: RingMemory>(&mut self, ring: &mut FrontRing<M>) {
        while self.connection.is_some() && self.held_by == 0 && ring.free() > 0 && !self.free_slots.is_empty()
        {
            let ready = !self.zeroing && self.zeros.is_some();
            let zeroes = if ready { self.zero_queue.front() } else { None };
            let Some(key) = zeroes.or(self.queue.front()) else {
                break;
            };
            let kind = self.records[key].kind;
            let sent = self.send(key, ring);
            let record = &mut self.records[key];
            match sent {
                Ok(amount) => {
                    record.sent += amount;
                    record.outstanding += 1;
                    if record.sent == record.length {
                        self.queue_of(kind).pop();
                    }
                }
                // Nothing is left to send, for good or bad.
                Err(result) => {
                    record.failure = record.failure.or(result.err());
                    record.length = record.sent;
                    self.queue_of(kind).pop();
                    self.settle(key);
                }
            }
        }
    }

    /// Takes the back end's answer to one ring request.
    pub fn response(&mut self, response: &wire::Response) -> Result<(), UnknownRequest> {
        let id = response.id.get();
        let (index, generation) = (id as u32, (id >> 32) as u32);
        let slot = self
            .slots
            .get_mut(index as usize)
            .filter(|slot| slot.generation == generation);
        let part = slot.and_then(|slot| slot.part.take()).ok_or(UnknownRequest(id))?;
        self.free_slots.push(index);
        self.indirect.extend(part.indirect);
        let record = &mut self.records[part.record];
        record.outstanding -= 1;
        let failure = match response.status.get() {
            status::OKAY => None,
            status::NOT_SUPPORTED => Some(Failure::Unsupported),
            _ => Some(Failure::Io),
        };
        let kind = record.kind;
        if kind == Kind::WriteZeroes {
            self.zeroing = false;
        }
        if failure.is_some() {
            record.failure = record.failure.or(failure);
            if record.sent < record.length {
                // The rest need not be sent.
                record.length = record.sent;
                self.queue_of(kind).pop();
            }
        }
        if failure == Some(Failure::Unsupported) {
            self.withdraw(kind);
        }
        self.settle(part.record);
        Ok(())
    }

    /// The next finished request.
    pub fn finished(&mut self) -> Option<Finished<T, P>> {
        self.finished.pop_front()
    }

    /// Makes room for a ring of this capacity, so that [`connect`](Self::connect) asks for no memory.
    pub fn reserve_ring(&mut self, capacity: u32) -> Result<(), TryReserveError> {
        let more = |len: usize| (capacity as usize).saturating_sub(len);
        self.slots.try_reserve_exact(more(self.slots.len()))?;
        self.free_slots.try_reserve_exact(more(self.free_slots.len()))
    }

    /// Starts a connection: requests go to the back end from the next [`pump`](Self::pump) on, with a fresh
    /// ring of this capacity, for which there [is room](Self::reserve_ring). The old back end must have lost
    /// its access to every page.
    pub fn connect(&mut self, connection: RingConnection, capacity: u32) {
        debug_assert!(self.connection.is_none());
        // Generations go on, so that answers of the past stay unknown.
        let slots = self.slots.len().max(capacity as usize);
        self.slots.resize_with(slots, || Slot {
            generation: 0,
            part: None,
        });
        self.free_slots.clear();
        self.free_slots.extend((0..capacity).rev());
        self.connection = Some(connection);
    }

    /// The back end says something else about the disk than when it connected.
    pub fn set_properties(&mut self, properties: Properties) {
        if let Some(connection) = &mut self.connection {
            connection.properties = properties;
        }
    }

    /// Ends a connection. Every request without a complete answer is to be sent again.
    pub fn disconnect(&mut self) {
        self.connection = None;
        self.zeroing = false;
        (self.abandoned, self.held_by) = (0, 0);
        for slot in &mut self.slots {
            if let Some(part) = slot.part.take() {
                self.indirect.extend(part.indirect);
            }
        }
        self.records.retain(|_, record| !record.is_abandoned());
        for (_, record) in &mut self.records {
            self.counters.replayed += u64::from(record.sent > 0);
            record.length = if record.kind.has_data() { record.sectors } else { 1 };
            record.sent = 0;
            record.outstanding = 0;
            record.failure = None;
        }
        let mut order = mem::take(&mut self.order);
        order.extend(
            self.records
                .iter()
                .map(|(key, record)| Reverse((record.sequence, key))),
        );
        self.queue.clear();
        self.zero_queue.clear();
        while let Some(Reverse((_, key))) = order.pop() {
            let Record { party, kind, .. } = self.records[key];
            self.queue_of(kind).push(party, key);
        }
        self.order = order;
    }

    /// While disconnected: the next back end does not have what the last one had in its volatile cache. Each
    /// party that may have acknowledged writes among it is told by its next flush, which fails. Returns
    /// whether there is one that has not been told.
    pub fn cache_lost(&mut self) -> bool {
        let mut lost = false;
        for (_, writes) in &mut self.parties {
            writes.lost |= writes.last > self.durable;
            lost |= writes.lost;
        }
        self.durable = self.acknowledged;
        lost
    }

    /// Gives the requests that `belongs` selects up: nobody waits for them any more.
    pub fn abandon(&mut self, belongs: impl Fn(&T) -> bool) {
        self.give_up(&belongs, |_, _| {});
        self.finished.retain(|finished| !belongs(&finished.token));
    }

    /// While nothing is sent: fails every request. What the back end has, it may still be at work on, so that
    /// keeps its payload until [`disconnect`](Self::disconnect), but is not sent again.
    pub fn fail_all(&mut self) {
        let mut finished = mem::take(&mut self.finished);
        self.give_up(
            |_| true,
            |token, payload| {
                finished.push_back(Finished {
                    token,
                    result: Err(Failure::Io),
                    payload,
                });
            },
        );
        self.finished = finished;
    }

    /// Lets go of the requests that `belongs` selects, except for what the back end has of them. Each one's
    /// token goes to `tell`, with its payload if the back end does not have that.
    fn give_up(&mut self, belongs: impl Fn(&T) -> bool, mut tell: impl FnMut(T, Option<P>)) {
        let (mut abandoned, mut held_by) = (0, 0);
        self.records.retain(|_, record| {
            let Some(token) = record.token.take_if(|token| belongs(token)) else {
                return true;
            };
            let pending = record.outstanding > 0;
            record.length = record.sent;
            abandoned += usize::from(pending);
            held_by += usize::from(pending && record.kind.changes_disk());
            tell(token, if pending { None } else { record.payload.take() });
            pending
        });
        self.abandoned += abandoned;
        self.held_by += held_by;
        let unsent = |key: usize| self.records.get(key).is_some_and(|record| !record.is_abandoned());
        self.queue.retain(unsent);
        self.zero_queue.retain(unsent);
    }

    fn queue_of(&mut self, kind: Kind) -> &mut Turns {
        if kind == Kind::WriteZeroes {
            &mut self.zero_queue
        } else {
            &mut self.queue
        }
    }

    /// Puts the next part of a request on the ring. Returns how much of the request's length that was; or, if
    /// there is nothing to send, how the request ends.
    fn send<M: RingMemory>(
        &mut self,
        key: usize,
        ring: &mut FrontRing<M>,
    ) -> Result<u64, Result<(), Failure>> {
        let Some(connection) = &self.connection else {
            return Err(Err(Failure::Io));
        };
        let record = &self.records[key];
        let disk = &connection.properties;
        if record.kind != Kind::Flush {
            let end = record
                .sector
                .checked_add(record.sectors)
                .filter(|&end| end <= disk.sectors);
            if end.is_none() || (disk.read_only && record.kind != Kind::Read) {
                return Err(Err(Failure::Io));
            }
            if record.sectors == 0 {
                return Err(Ok(()));
            }
        }
        let index = *self.free_slots.last().expect("checked by the caller");
        let generation = self.slots[index as usize].generation.wrapping_add(1);
        let id = u64::from(generation) << 32 | u64::from(index);
        let mut part = Part {
            record: key,
            indirect: None,
        };
        let amount = match record.kind {
            Kind::Flush => {
                let operation = match disk.flush {
                    FlushSupport::None => return Err(Ok(())),
                    FlushSupport::Barrier => operation::WRITE_BARRIER,
                    FlushSupport::Flush => operation::FLUSH_DISKCACHE,
                };
                ring.put(wire::Direct::new(operation, connection.handle, id, 0).as_bytes());
                1
            }
            Kind::Discard => {
                let support = disk.discard.ok_or(Err(Failure::Unsupported))?;
                let (sector, sectors) =
                    whole_granules(support, record.sector, record.sectors).ok_or(Ok(()))?;
                ring.put(wire::Discard::new(connection.handle, id, sector, sectors).as_bytes());
                1
            }
            Kind::Read | Kind::Write | Kind::WriteZeroes => {
                let zeros = self.zeros.as_ref();
                let pages = record.pages_left(zeros);
                if pages > DIRECT_SEGMENTS && connection.indirect_segments as usize > DIRECT_SEGMENTS {
                    part.indirect = self.indirect.pop();
                }
                let sectors = record.put(connection, id, zeros, part.indirect.as_ref(), ring);
                self.counters.segments += sectors.div_ceil(PAGE_SECTORS);
                self.zeroing |= record.kind == Kind::WriteZeroes;
                sectors
            }
        };
        self.free_slots.pop();
        self.slots[index as usize] = Slot {
            generation,
            part: Some(part),
        };
        self.counters.ring_requests += 1;
        Ok(amount)
    }

    /// Ends a request if nothing of it is left to send or to be answered.
    fn settle(&mut self, key: usize) {
        let record = &self.records[key];
        if record.outstanding > 0 || record.sent < record.length {
            return;
        }
        let Record {
            party,
            token,
            kind,
            sectors,
            payload,
            covers,
            failure,
            ..
        } = self.records.remove(key);
        let mut result = failure.map_or(Ok(()), Err);
        self.counters.requests += 1;
        if result.is_ok() {
            match kind {
                Kind::Read => self.counters.bytes_read += sectors * 512,
                Kind::Write | Kind::WriteZeroes => {
                    self.counters.bytes_written += sectors * 512;
                    self.acknowledged += 1;
                    if token.is_some() {
                        self.parties[party].last = self.acknowledged;
                    }
                    if self
                        .connection
                        .as_ref()
                        .is_some_and(|connection| connection.properties.flush == FlushSupport::None)
                    {
                        self.durable = self.acknowledged;
                    }
                }
                Kind::Flush => {
                    self.durable = self.durable.max(covers);
                    if token.is_some() && mem::take(&mut self.parties[party].lost) {
                        result = Err(Failure::Io);
                    }
                }
                Kind::Discard => {}
            }
        }
        match token {
            Some(token) => self.finished.push_back(Finished {
                token,
                result,
                payload,
            }),
            None => {
                self.abandoned -= 1;
                self.held_by -= usize::from(kind.changes_disk());
            }
        }
    }

    /// The back end withdrew an optional operation.
    fn withdraw(&mut self, kind: Kind) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        match kind {
            Kind::Flush => connection.properties.flush = FlushSupport::None,
            Kind::Discard => connection.properties.discard = None,
            Kind::Read | Kind::Write | Kind::WriteZeroes => {}
        }
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
