//! What the workers of all queues need: chains out of the ring, copies, and notifications.

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::task::Context;

use crate::batch::Batch;
use crate::bus::Doorbell;
use crate::memory::{DriverMemory, Transfer};
use crate::net::counters::{Counters, Queues};
use crate::tables;
use crate::virtqueue::chain::{DESCRIPTOR_SIZE, most_held};
use crate::virtqueue::{Chain, QueueError, Virtqueue};

/// The most chains that are taken in one go.
const BATCH: usize = 64;
/// The most descriptors that are taken in one go, but for those of the last chain.
const BATCH_DESCRIPTORS: usize = 1024;

/// A queue, and what was taken from it.
pub(in crate::net) struct Queue<Q, M: DriverMemory, D>
where
    M::Buffer: 'static,
{
    ring: Q,
    memory: M,
    doorbell: D,
    counters: Rc<RefCell<Counters>>,
    /// Which counters are those of this queue.
    select: fn(&mut Counters) -> &mut Queues,
    /// Chains that were taken, in order, complete.
    ready: VecDeque<Chain>,
    /// How many segments were taken and not given back.
    held: usize,

    // Empty between uses, and kept for their allocations.
    spare: Vec<Chain>,
    bytes: Vec<u8>,
    batch: Batch<M::Buffer>,
}

impl<Q, M, D> Queue<Q, M, D>
where
    Q: Virtqueue,
    M: DriverMemory,
    D: Doorbell,
{
    pub(in crate::net) fn new(
        ring: Q,
        memory: M,
        doorbell: D,
        counters: Rc<RefCell<Counters>>,
        select: fn(&mut Counters) -> &mut Queues,
    ) -> Self {
        Queue {
            ring,
            memory,
            doorbell,
            counters,
            select,
            ready: VecDeque::new(),
            held: 0,
            spare: Vec::new(),
            bytes: Vec::new(),
            batch: Batch::new(),
        }
    }

    /// Changes the device's counters.
    pub(super) fn count(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut self.counters.borrow_mut());
    }

    fn count_queue(&self, change: impl FnOnce(&mut Queues)) {
        change((self.select)(&mut self.counters.borrow_mut()));
    }

    /// Whether the driver has notified since the last call; if not, the task is registered.
    pub(super) fn kicked(&mut self, context: &mut Context<'_>) -> bool {
        let kicked = self.doorbell.poll_kick(context).is_ready();
        self.count_queue(|queue| queue.kicks += u64::from(kicked));
        kicked
    }

    /// Asks to be notified of buffers, and registers for that. Tells whether there are some already, or were meanwhile.
    pub(super) fn listen(&mut self, context: &mut Context<'_>) -> Result<bool, QueueError> {
        Ok(self.ring.listen()? || self.kicked(context))
    }

    /// The chains that were taken, in order.
    pub(super) fn ready(&self) -> &VecDeque<Chain> {
        &self.ready
    }

    /// The first chain that was taken is being worked on.
    pub(super) fn next(&mut self) -> Option<Chain> {
        self.ready.pop_front()
    }

    /// Whether as much was taken as ever is at once.
    pub(super) fn is_full(&self) -> bool {
        self.held >= most_held(&self.memory) || self.ready.len() >= usize::from(self.ring.size())
    }

    /// Takes some of the chains that are available; tells whether there were any.
    pub(super) fn take(&mut self) -> Result<bool, QueueError> {
        let before = self.ready.len();
        let mut descriptors = 0;
        while self.ready.len() - before < BATCH && descriptors < BATCH_DESCRIPTORS && !self.is_full() {
            // What was taken counts, even if it is not known yet what it takes.
            if descriptors > 0 && self.held + descriptors >= most_held(&self.memory) {
                break;
            }
            let mut chain = self.spare.pop().unwrap_or_default();
            if !self.ring.pop(&mut chain)? {
                self.spare.push(chain);
                break;
            }
            descriptors += chain.segments() + chain.table().map_or(0, |table| table.len / DESCRIPTOR_SIZE);
            self.ready.try_reserve(1).map_err(|_| QueueError::NoMemory)?;
            self.ready.push_back(chain);
        }
        if self.ready.len() == before {
            return Ok(false);
        }
        self.ring.suppress();
        let tables = self.ready.range(before..).filter_map(Chain::table);
        let copies = tables::fetch(&self.memory, &mut self.batch, &mut self.bytes, tables)?;
        self.count_queue(|queue| {
            queue.batches += u64::from(copies > 0);
            queue.copies += copies as u64;
        });
        let mut rest = &self.bytes[..];
        for chain in self.ready.range_mut(before..) {
            if let Some(table) = chain.table() {
                let (bytes, tail) = rest.split_at(table.len);
                rest = tail;
                chain.extend(bytes)?;
            }
            self.held += chain.weight();
        }
        tables::release(&mut self.bytes);
        Ok(true)
    }

    /// Gives those of the chains that were taken back that are of no use; tells how many they were.
    pub(super) fn reject(&mut self, useless: impl Fn(&Chain) -> bool) -> usize {
        if !self.ready.iter().any(&useless) {
            return 0;
        }
        let before = self.ready.len();
        for _ in 0..before {
            if let Some(chain) = self.ready.pop_front() {
                match useless(&chain) {
                    true => self.put(chain, 0),
                    false => self.ready.push_back(chain),
                }
            }
        }
        self.publish();
        before - self.ready.len()
    }

    /// An empty batch with room for so many transfers, to be given to [`transfer`](Self::transfer) and then to [`done`](Self::done).
    pub(super) fn batch<'a>(&mut self, room: usize) -> Result<Vec<Transfer<'a, M::Buffer>>, QueueError> {
        self.batch.take(room)
    }

    /// Does the copies of a batch.
    pub(super) fn transfer(&self, batch: &mut [Transfer<'_, M::Buffer>]) {
        if !batch.is_empty() {
            self.memory.transfer(batch);
            self.count_queue(|queue| {
                queue.batches += 1;
                queue.copies += batch.len() as u64;
            });
        }
    }

    /// Takes a batch back.
    pub(super) fn done(&mut self, batch: Vec<Transfer<'_, M::Buffer>>) {
        self.batch.put(batch);
    }

    /// Gives a chain back to the driver, with `written` bytes in it.
    pub(super) fn put(&mut self, mut chain: Chain, written: u32) {
        self.ring.put(chain.id(), written);
        self.held -= chain.weight();
        if self.spare.len() < BATCH && self.spare.try_reserve(1).is_ok() {
            // Long ones give their memory back.
            chain.clear(0);
            self.spare.push(chain);
        }
    }

    /// Shows the driver what was given back, and notifies it if it wants that.
    pub(super) fn publish(&mut self) {
        let notify = self.ring.publish();
        self.count_queue(|queue| match notify {
            true => queue.notifications += 1,
            false => queue.suppressed += 1,
        });
        if notify {
            self.doorbell.notify();
        }
    }
}
