//! From the disk to the ring.

use alloc::vec::Vec;
use core::mem;
use core::slice;
use core::task::{Context, Poll};

use super::intake::settle;
use super::{Share, Slot, Worker};
use crate::blk::ID_SIZE;
use crate::blk::request::{Request, Status};
use crate::bus::Doorbell;
use crate::disk::{Channel, Completion, DiskError, Operation};
use crate::memory::{Buffer, DriverMemory, Local, MemoryError, Transfer};
use crate::virtqueue::chain::pieces;
use crate::virtqueue::{QueueError, Virtqueue};

/// The most completions that are taken in one go.
const BATCH: usize = 64;

impl<Q, C, M, D> Worker<Q, C, M, D>
where
    Q: Virtqueue,
    C: Channel,
    M: DriverMemory<Buffer = C::Buffer>,
    D: Doorbell,
{
    /// Takes a batch of what the disk has completed and gives it, with everything else that has ended, to the
    /// driver; tells whether there may be more, here or for [`accept`](Self::accept).
    pub(super) fn complete(&mut self, context: &mut Context<'_>) -> Result<bool, QueueError> {
        let full = !self.room();
        let mut more = true;
        for _ in 0..BATCH {
            let Poll::Ready(completion) = self.channel.poll(context) else {
                more = false;
                break;
            };
            self.end(completion);
        }
        // `accept` has to commit what was submitted meanwhile, and to use what has become free.
        more |= self.uncommitted;
        if !self.finished.is_empty() {
            more |= full;
            self.write_back()?;
        }
        Ok(more)
    }

    /// An operation of a request has ended, and maybe the request with it.
    fn end(&mut self, Completion { id, result, buffer }: Completion<C::Buffer>) {
        self.at_disk -= 1;
        match result {
            Ok(()) if self.next_range(id) => return,
            Ok(()) => {}
            Err(DiskError::Io) => return self.finish(id, Status::IoError),
            Err(DiskError::Unsupported) => return self.finish(id, Status::Unsupported),
        }
        let slot = &mut self.slots[id];
        let written = slot.payload() as u64;
        match slot.request {
            Request::Read { .. } => slot.buffer = buffer,
            Request::Write { .. } | Request::WriteZeroes(_) => {
                if let Request::Write { .. } = slot.request {
                    self.queue.count(|counters| counters.written_bytes += written);
                }
                if self.writethrough() {
                    // The request ends when it is stable. What is left of it is to flush.
                    self.slots[id].request = Request::Flush;
                    return self.submit(id, Operation::Flush);
                }
            }
            _ => {}
        }
        self.finish(id, Status::Ok);
    }

    /// Whether writes are to be stable when they complete ("Device Operation"). The driver may change its
    /// mind at any time; then either is right for the writes of that moment.
    fn writethrough(&self) -> bool {
        !self.shared.writeback.get() && self.shared.geometry.get().flush
    }

    /// Writes data and statuses of the finished requests to the driver's memory and gives their buffers back.
    fn write_back(&mut self) -> Result<(), QueueError> {
        let mut shares = mem::take(&mut self.shares);
        shares.clear();
        let slots = self.finished.iter().map(|index| &self.slots[*index]);
        let room = slots.map(|slot| slot.chain.writable().len() + 1).sum();
        let mut batch = self.queue.batch(room)?;
        let reserved = shares.try_reserve(self.finished.len());
        reserved.map_err(|_| QueueError::NoMemory)?;
        for index in self.finished.drain(..) {
            let slot = &self.slots[index];
            store_status(&mut batch, slot);
            let payload = store_payload(&mut batch, slot, &self.shared.id);
            shares.push(Share {
                slot: index,
                vital: 1,
                payload,
                failed: false,
            });
        }
        self.queue.transfer(&mut batch);
        let error = settle(&mut shares, &batch);
        self.queue.done(batch);
        self.amend(&mut shares, error)?;

        for share in shares.drain(..) {
            let slot = &mut self.slots[share.slot];
            self.queue.count(|counters| {
                if slot.status == Status::IoError as u8 {
                    counters.errors += 1;
                } else if slot.status == Status::Unsupported as u8 {
                    counters.unsupported += 1;
                } else if let Request::Read { .. } = slot.request {
                    counters.read_bytes += slot.payload() as u64;
                }
            });
            // "The Virtqueue Used Ring": no more than was written without a gap from the first writable byte
            // on. The status is the last byte.
            let whole = slot.chain.writable_bytes() == 1
                || slot.is_ok() && matches!(slot.request, Request::Read { .. } | Request::GetId);
            let written = if whole {
                slot.chain.writable_bytes() as u32
            } else {
                0
            };
            slot.buffer = None;
            // Ranges give their memory back.
            slot.request = Request::Flush;
            self.queue.put(mem::take(&mut slot.chain), written);
            self.free.push(share.slot);
        }
        self.shares = shares;
        self.queue.publish();
        Ok(())
    }

    /// Corrects the status of requests whose data did not reach the driver. `error` is that of a status that
    /// did not.
    fn amend(&mut self, shares: &mut [Share], error: Option<MemoryError>) -> Result<(), QueueError> {
        let mut error = error;
        if error.is_none() && shares.iter().any(|share| share.failed) {
            for share in shares.iter().filter(|share| share.failed) {
                self.slots[share.slot].status = Status::IoError as u8;
            }
            let mut batch = self.queue.batch(shares.len())?;
            for share in shares.iter().filter(|share| share.failed) {
                store_status(&mut batch, &self.slots[share.slot]);
            }
            self.queue.transfer(&mut batch);
            error = batch.iter().find_map(|transfer| transfer.result.err());
            self.queue.done(batch);
        }
        error.map_or(Ok(()), |error| Err(QueueError::Status(error)))
    }
}

/// Adds the copy that stores a request's status: the last byte of its chain.
fn store_status<'a, B>(batch: &mut Vec<Transfer<'a, B>>, slot: &'a Slot<B>) {
    let chain = &slot.chain;
    for piece in pieces(chain.writable(), chain.writable_bytes() - 1, 1) {
        let local = Local::Write(slice::from_ref(&slot.status));
        batch.push(Transfer {
            address: piece.address,
            local,
            result: Ok(()),
        });
    }
}

/// Adds the copies that store what a request has asked for, if it was successful, and tells how many they
/// are.
fn store_payload<'a, B: Buffer>(
    batch: &mut Vec<Transfer<'a, B>>,
    slot: &'a Slot<B>,
    id: &'a [u8; ID_SIZE],
) -> usize {
    let before = batch.len();
    let mut at = 0;
    let mut store = |len: u64, local: &dyn Fn(usize, usize) -> Local<'a, B>| {
        for piece in pieces(slot.chain.writable(), 0, len) {
            let len = piece.len as usize;
            batch.push(Transfer {
                address: piece.address,
                local: local(at, len),
                result: Ok(()),
            });
            at += len;
        }
    };
    match (&slot.request, &slot.buffer) {
        (Request::Read { .. }, Some(buffer)) if slot.is_ok() => {
            store(buffer.len() as u64, &|at, len| {
                Local::WriteBuffer(buffer, at, len)
            });
        }
        (Request::GetId, _) if slot.is_ok() => {
            store(ID_SIZE as u64, &|at, len| Local::Write(&id[at..at + len]));
        }
        _ => {}
    }
    batch.len() - before
}
