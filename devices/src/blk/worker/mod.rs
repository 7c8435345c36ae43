//! Serving one queue of a block device.
//!
//! Requests go through the worker in batches, so that the driver's memory is reached as rarely as possible:
//! one batch of copies fetches all indirect tables, one all headers together with the payload of what looks
//! like writes ([`intake`]); one writes all data and statuses back, after which used buffers are published
//! and notified of once ([`ending`]).

mod ending;
mod intake;

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::mem;
use core::task::{Context, Poll};

use super::request::{HEADER_SIZE, Range, Request, Status};
use super::{Counters, Shared};
use crate::bus::Doorbell;
use crate::device;
use crate::disk::{Channel, Operation};
use crate::memory::DriverMemory;
use crate::virtqueue::{Chain, Queue, QueueError, Virtqueue};

/// How often the worker goes round before it lets other tasks run.
const ROUNDS: usize = 4;

/// A request in flight, from when its chain is taken to when it is put.
struct Slot<B> {
    chain: Chain,
    /// What is asked for; of ranges, those that are still to be done.
    request: Request,
    /// Its payload, while it is neither at the disk nor done with.
    buffer: Option<B>,
    /// How it ended, once it did: a [`Status`].
    status: u8,
}

impl<B> Slot<B> {
    fn new(chain: Chain) -> Self {
        Slot {
            chain,
            request: Request::Flush,
            buffer: None,
            status: Status::Ok as u8,
        }
    }

    /// Bytes of payload of a read or write; it was checked that they fit.
    fn payload(&self) -> usize {
        match self.request {
            Request::Read { .. } => self.chain.writable_bytes() as usize - 1,
            Request::Write { .. } => self.chain.readable_bytes() as usize - HEADER_SIZE,
            _ => 0,
        }
    }

    fn is_ok(&self) -> bool {
        self.status == Status::Ok as u8
    }
}

/// What part of a batch of transfers belongs to a request.
#[derive(Clone, Copy)]
struct Share {
    slot: usize,
    /// How many transfers that the queue depends on: headers, statuses.
    vital: usize,
    /// How many transfers of payload.
    payload: usize,
    /// Whether one of the payload has failed.
    failed: bool,
}

/// Serves one queue.
pub struct Worker<Q, C, M, D>
where
    C: Channel,
    C::Buffer: 'static,
    M: DriverMemory<Buffer = C::Buffer>,
{
    queue: Queue<Q, M, D, Counters>,
    channel: C,
    shared: Rc<Shared>,
    features: u64,

    /// Requests, by the number under which the disk knows them.
    slots: Vec<Slot<C::Buffer>>,
    /// Slots that hold none.
    free: Vec<usize>,
    /// How many requests are at the disk.
    at_disk: usize,
    /// Something was submitted since the last commit.
    uncommitted: bool,
    /// Requests that were taken and not yet looked at.
    incoming: Vec<usize>,
    /// Reads and writes that have no buffer yet.
    waiting: VecDeque<usize>,
    /// Requests that ended and are to be written back.
    finished: Vec<usize>,

    // Empty between uses, and kept for their allocations.
    bytes: Vec<u8>,
    shares: Vec<Share>,
}

impl<Q, C, M, D> Worker<Q, C, M, D>
where
    Q: Virtqueue,
    C: Channel,
    M: DriverMemory<Buffer = C::Buffer>,
    D: Doorbell,
{
    pub(super) fn new(
        queue: Queue<Q, M, D, Counters>,
        channel: C,
        shared: Rc<Shared>,
        features: u64,
    ) -> Self {
        Worker {
            queue,
            channel,
            shared,
            features,
            slots: Vec::new(),
            free: Vec::new(),
            at_disk: 0,
            uncommitted: false,
            incoming: Vec::new(),
            waiting: VecDeque::new(),
            finished: Vec::new(),
            bytes: Vec::new(),
            shares: Vec::new(),
        }
    }

    fn work(&mut self, context: &mut Context<'_>) -> Result<(), QueueError> {
        // A notification that came before the ring is looked at has nothing to add.
        self.queue.kicked(context);
        for _ in 0..ROUNDS {
            // The disk is polled after `accept`, so that it knows of buffers that were not to be had.
            let more = self.accept()?;
            if self.complete(context)? || more {
                continue;
            }
            // Without room only the disk can change anything.
            if self.room() && self.queue.listen(context)? {
                continue;
            }
            return Ok(());
        }
        // Others first, then on.
        context.waker().wake_by_ref();
        Ok(())
    }

    /// Whether more requests may be taken.
    fn room(&self) -> bool {
        self.waiting.is_empty() && !self.queue.is_full()
    }

    fn submit(&mut self, index: usize, operation: Operation<C::Buffer>) {
        self.channel.submit(index, operation);
        self.at_disk += 1;
        self.uncommitted = true;
    }

    /// Sends what was submitted on its way.
    fn commit(&mut self) {
        if mem::take(&mut self.uncommitted) {
            self.channel.commit();
        }
    }

    /// The request has ended.
    fn finish(&mut self, index: usize, status: Status) {
        self.slots[index].status = status as u8;
        self.finished.push(index);
    }

    /// Submits the next of the request's ranges, if there is one left. A request has one operation at the
    /// disk at a time, which keeps what a driver can ask for at once bounded by the size of the queue.
    fn next_range(&mut self, index: usize) -> bool {
        let (range, discard) = match &mut self.slots[index].request {
            Request::Discard(ranges) => (ranges.pop(), true),
            Request::WriteZeroes(ranges) => (ranges.pop(), false),
            _ => (None, false),
        };
        let Some(Range {
            sector,
            sectors,
            unmap,
        }) = range
        else {
            return false;
        };
        let operation = match discard {
            true => Operation::Discard { sector, sectors },
            false => Operation::WriteZeroes {
                sector,
                sectors,
                unmap,
            },
        };
        self.submit(index, operation);
        true
    }
}

impl<Q, C, M, D> device::Worker for Worker<Q, C, M, D>
where
    Q: Virtqueue,
    C: Channel,
    M: DriverMemory<Buffer = C::Buffer>,
    D: Doorbell,
{
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<QueueError> {
        match self.work(context) {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(error),
        }
    }

    fn poll_quiesce(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // What was submitted just before the queue broke is waited for, too.
        self.commit();
        self.waiting.clear();
        // A broken queue may stay for as long as its driver likes; others need the buffers.
        self.channel.give_up();
        for slot in &mut self.slots {
            slot.buffer = None;
        }
        while self.at_disk > 0 {
            match self.channel.poll(context) {
                Poll::Ready(_) => self.at_disk -= 1,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }
}
