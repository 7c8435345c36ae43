//! From the ring to the disk.

use alloc::vec::Vec;
use core::mem;

use super::{Share, Slot, Worker};
use crate::blk::request::{HEADER_SIZE, MAX_FRONT, Request, Rules, Status};
use crate::bus::Doorbell;
use crate::disk::{Channel, Operation};
use crate::memory::{Buffer, DriverMemory, Local, MemoryError, Transfer};
use crate::tables;
use crate::virtqueue::chain::pieces;
use crate::virtqueue::{BATCH, Chain, QueueError, Virtqueue};

impl<Q, C, M, D> Worker<Q, C, M, D>
where
    Q: Virtqueue,
    C: Channel,
    M: DriverMemory<Buffer = C::Buffer>,
    D: Doorbell,
{
    /// Takes a batch of what is available and gets it under way; tells whether there may be more to take.
    pub(super) fn accept(&mut self) -> Result<bool, QueueError> {
        self.assign_buffers()?;
        let taken = if self.room() { self.queue.take()? } else { 0 };
        if taken > 0 {
            self.fill_slots()?;
            self.fetch_fronts()?;
            self.assign_buffers()?;
            let waiting = self.waiting.len() as u64;
            self.queue.count(|counters| counters.waited += waiting);
        }
        if self.waiting.is_empty() {
            // What was asked for early may have been for a request that is none.
            self.channel.give_up();
        }
        self.commit();
        Ok(taken == BATCH)
    }

    /// Puts the chains that were taken into slots.
    fn fill_slots(&mut self) -> Result<(), QueueError> {
        while let Some(chain) = self.queue.next() {
            let index = match self.free.pop() {
                Some(index) => {
                    self.slots[index].chain = chain;
                    index
                }
                None => self.add_slot(chain)?,
            };
            self.incoming.push(index);
        }
        Ok(())
    }

    /// Makes a slot; there are no more than the queue has entries.
    fn add_slot(&mut self, chain: Chain) -> Result<usize, QueueError> {
        let reserved = self.slots.try_reserve(1);
        let reserved = reserved.and_then(|()| self.channel.reserve(self.slots.len() + 1));
        reserved.map_err(|_| QueueError::NoMemory)?;
        self.slots.push(Slot::new(chain));
        Ok(self.slots.len() - 1)
    }

    /// Fetches the headers of the incoming requests, with the payload of what looks like a write, and starts
    /// them.
    fn fetch_fronts(&mut self) -> Result<(), QueueError> {
        let geometry = self.shared.geometry.get();
        let read_only = self.shared.read_only.get() || geometry.read_only;
        let rules = Rules {
            geometry: &geometry,
            features: self.features,
            read_only,
        };

        let mut total = 0;
        let mut speculate = !read_only;
        for index in &self.incoming {
            let slot = &mut self.slots[*index];
            if slot.chain.writable_bytes() == 0 {
                return Err(QueueError::NoStatus);
            }
            total += front(&slot.chain);
            // Of well-formed requests only writes have whole blocks to read, and nothing but a status to
            // write.
            let data = slot.chain.readable_bytes().saturating_sub(HEADER_SIZE as u64);
            if speculate && slot.chain.writable_bytes() == 1 && data > 0 && rules.payload(data) {
                slot.buffer = self.channel.allocate(data as usize);
                speculate = slot.buffer.is_some();
            }
        }

        tables::resize(&mut self.bytes, total)?;
        self.shares.clear();
        let reserved = self.shares.try_reserve(self.incoming.len());
        reserved.map_err(|_| QueueError::NoMemory)?;
        // Header, ranges and payload may share segments.
        let slots = self.incoming.iter().map(|index| &self.slots[*index]);
        let room = slots.map(|slot| slot.chain.readable().len() + 2).sum();
        let mut batch = self.queue.batch(room)?;
        let mut rest = &mut self.bytes[..];
        for index in &self.incoming {
            let slot = &self.slots[*index];
            let (bytes, tail) = rest.split_at_mut(front(&slot.chain));
            rest = tail;
            // Without its header a request is nothing; without ranges or payload it fails.
            let (header, ranges) = bytes.split_at_mut(bytes.len().min(HEADER_SIZE));
            let vital = fetch_bytes(&mut batch, &slot.chain, 0, header);
            let ranges = fetch_bytes(&mut batch, &slot.chain, HEADER_SIZE as u64, ranges);
            let payload = ranges + fetch_payload(&mut batch, slot);
            self.shares.push(Share {
                slot: *index,
                vital,
                payload,
                failed: false,
            });
        }
        self.queue.transfer(&mut batch);
        let failed = settle(&mut self.shares, &batch);
        self.queue.done(batch);
        if let Some(error) = failed {
            return Err(QueueError::Header(error));
        }

        self.incoming.clear();
        let bytes = mem::take(&mut self.bytes);
        let mut shares = mem::take(&mut self.shares);
        let mut rest = &bytes[..];
        for share in shares.drain(..) {
            let chain = &self.slots[share.slot].chain;
            let (front, tail) = rest.split_at(front(chain));
            rest = tail;
            match rules.check(front, chain.readable_bytes(), chain.writable_bytes()) {
                Ok(request) => self.start(share.slot, request, share.failed),
                Err(status) => {
                    self.slots[share.slot].buffer = None;
                    self.finish(share.slot, if share.failed { Status::IoError } else { status });
                }
            }
        }
        (self.bytes, self.shares) = (bytes, shares);
        tables::release(&mut self.bytes);
        Ok(())
    }

    /// Starts a request that was checked. `failed` tells that its payload or ranges are not to be had.
    fn start(&mut self, index: usize, request: Request, failed: bool) {
        let slot = &mut self.slots[index];
        slot.request = request;
        let buffer = slot.buffer.take();
        self.queue.count(|counters| {
            *match slot.request {
                Request::Read { .. } => &mut counters.reads,
                Request::Write { .. } => &mut counters.writes,
                Request::Flush => &mut counters.flushes,
                Request::GetId => &mut counters.get_ids,
                Request::Discard(_) => &mut counters.discards,
                Request::WriteZeroes(_) => &mut counters.write_zeroes,
            } += 1;
        });
        match slot.request {
            Request::Read { .. } | Request::Write { .. } if slot.payload() == 0 => {
                self.finish(index, Status::Ok)
            }
            Request::Read { .. } => self.waiting.push_back(index),
            Request::Write { .. } if failed => self.finish(index, Status::IoError),
            Request::Write { sector } => match buffer {
                Some(buffer) => self.submit(index, Operation::Write { sector, buffer }),
                None => self.waiting.push_back(index),
            },
            // Without a volatile cache there is nothing to flush, but the disk may have lost one.
            Request::Flush => self.submit(index, Operation::Flush),
            Request::GetId => self.finish(index, Status::Ok),
            Request::Discard(_) | Request::WriteZeroes(_) => {
                if failed {
                    self.finish(index, Status::IoError);
                } else if !self.next_range(index) {
                    self.finish(index, Status::Ok);
                }
            }
        }
    }

    /// Gives buffers to those that wait, as far as there are any, and submits them.
    fn assign_buffers(&mut self) -> Result<(), QueueError> {
        self.shares.clear();
        while let Some(&index) = self.waiting.front() {
            let slot = &mut self.slots[index];
            let Some(buffer) = self.channel.allocate(slot.payload()) else {
                break;
            };
            self.waiting.pop_front();
            match slot.request {
                Request::Read { sector } => self.submit(index, Operation::Read { sector, buffer }),
                _ => {
                    slot.buffer = Some(buffer);
                    self.shares.try_reserve(1).map_err(|_| QueueError::NoMemory)?;
                    self.shares.push(Share {
                        slot: index,
                        vital: 0,
                        payload: 0,
                        failed: false,
                    });
                }
            }
        }
        if self.shares.is_empty() {
            return Ok(());
        }
        // The payload of writes that had no buffer when their header was fetched.
        let slots = self.shares.iter().map(|share| &self.slots[share.slot]);
        let room = slots.map(|slot| slot.chain.readable().len()).sum();
        let mut batch = self.queue.batch(room)?;
        for share in &mut self.shares {
            share.payload = fetch_payload(&mut batch, &self.slots[share.slot]);
        }
        self.queue.transfer(&mut batch);
        settle(&mut self.shares, &batch);
        self.queue.done(batch);
        let mut shares = mem::take(&mut self.shares);
        for share in shares.drain(..) {
            let slot = &mut self.slots[share.slot];
            match (&slot.request, slot.buffer.take()) {
                (Request::Write { sector }, Some(buffer)) if !share.failed => {
                    let sector = *sector;
                    self.submit(share.slot, Operation::Write { sector, buffer });
                }
                _ => self.finish(share.slot, Status::IoError),
            }
        }
        self.shares = shares;
        Ok(())
    }
}

/// How many bytes of a request are fetched to find out what it is: its header, and ranges if it can have any.
fn front(chain: &Chain) -> usize {
    match usize::try_from(chain.readable_bytes()) {
        Ok(bytes) if bytes <= MAX_FRONT => bytes,
        _ => HEADER_SIZE,
    }
}

/// Adds the copies that fill `to` with what is `skip` bytes into a chain, and tells how many they are.
fn fetch_bytes<'a, B>(batch: &mut Vec<Transfer<'a, B>>, chain: &Chain, skip: u64, to: &'a mut [u8]) -> usize {
    let before = batch.len();
    let mut rest = to;
    for piece in pieces(chain.readable(), skip, rest.len() as u64) {
        let (bytes, tail) = rest.split_at_mut(piece.len as usize);
        rest = tail;
        batch.push(Transfer {
            address: piece.address,
            local: Local::Read(bytes),
            result: Ok(()),
        });
    }
    batch.len() - before
}

/// Adds the copies that fill a slot's buffer with what follows the header, and tells how many they are.
fn fetch_payload<'a, B: Buffer>(batch: &mut Vec<Transfer<'a, B>>, slot: &'a Slot<B>) -> usize {
    let Some(buffer) = &slot.buffer else { return 0 };
    let before = batch.len();
    let mut at = 0;
    for piece in pieces(slot.chain.readable(), HEADER_SIZE as u64, buffer.len() as u64) {
        let len = piece.len as usize;
        batch.push(Transfer {
            address: piece.address,
            local: Local::ReadBuffer(buffer, at, len),
            result: Ok(()),
        });
        at += len;
    }
    batch.len() - before
}

/// Marks the shares whose payload failed, and gives the first error among the vital transfers.
pub(super) fn settle<B>(shares: &mut [Share], batch: &[Transfer<'_, B>]) -> Option<MemoryError> {
    let mut rest = batch;
    let mut error = None;
    for share in shares {
        let (vital, tail) = rest.split_at(share.vital);
        let (payload, tail) = tail.split_at(share.payload);
        rest = tail;
        error = error.or_else(|| vital.iter().find_map(|transfer| transfer.result.err()));
        share.failed = payload.iter().any(|transfer| transfer.result.is_err());
    }
    error
}
