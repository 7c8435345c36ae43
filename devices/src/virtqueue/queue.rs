//! A queue as the worker that serves it sees it: chains out of the ring, copies, and notifications.

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::task::Context;

use super::chain::{DESCRIPTOR_SIZE, most_held};
use super::{Chain, QueueError, Virtqueue};
use crate::batch::Batch;
use crate::bus::Doorbell;
use crate::memory::{DriverMemory, Transfer};
use crate::tables;

/// What queues of one kind have done, for those who operate them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Notifications received.
    pub kicks: u64,
    /// Notifications sent.
    pub notifications: u64,
    /// Batches of used buffers that the driver did not want to be notified of.
    pub suppressed: u64,
    /// Batches of copies from and to driver memory.
    pub batches: u64,
    /// Copies in those batches.
    pub copies: u64,
}

/// The most chains that are taken in one go.
pub(crate) const BATCH: usize = 64;

/// A queue, and what was taken from it. Its counters are among those of its device, `C`.
pub(crate) struct Queue<Q, M: DriverMemory, D, C>
where
    M::Buffer: 'static,
{
    ring: Q,
    memory: M,
    doorbell: D,
    counters: Rc<RefCell<C>>,
    /// Which counters are those of this queue.
    select: fn(&mut C) -> &mut Counters,
    /// Chains that were taken, in order, complete.
    ready: VecDeque<Chain>,
    /// How many chains were taken and not given back.
    taken: usize,
    /// How many segments they hold.
    held: usize,

    // Empty between uses, and kept for their allocations.
    spare: Vec<Chain>,
    bytes: Vec<u8>,
    batch: Batch<M::Buffer>,
}

impl<Q, M, D, C> Queue<Q, M, D, C>
where
    Q: Virtqueue,
    M: DriverMemory,
    D: Doorbell,
{
    pub(crate) fn new(
        ring: Q,
        memory: M,
        doorbell: D,
        counters: Rc<RefCell<C>>,
        select: fn(&mut C) -> &mut Counters,
    ) -> Self {
        Queue {
            ring,
            memory,
            doorbell,
            counters,
            select,
            ready: VecDeque::new(),
            taken: 0,
            held: 0,
            spare: Vec::new(),
            bytes: Vec::new(),
            batch: Batch::new(),
        }
    }

    /// Changes the device's counters.
    pub(crate) fn count(&self, change: impl FnOnce(&mut C)) {
        change(&mut self.counters.borrow_mut());
    }

    fn count_queue(&self, change: impl FnOnce(&mut Counters)) {
        change((self.select)(&mut self.counters.borrow_mut()));
    }

    /// Whether the driver has notified since the last call; if not, the task is registered.
    pub(crate) fn kicked(&mut self, context: &mut Context<'_>) -> bool {
        let kicked = self.doorbell.poll_kick(context).is_ready();
        self.count_queue(|queue| queue.kicks += u64::from(kicked));
        kicked
    }

    /// Asks to be notified of buffers, and registers for that. Tells whether there are some already, or were
    /// meanwhile.
    pub(crate) fn listen(&mut self, context: &mut Context<'_>) -> Result<bool, QueueError> {
        Ok(self.ring.listen()? || self.kicked(context))
    }

    /// The chains that were taken, in order.
    pub(crate) fn ready(&self) -> &VecDeque<Chain> {
        &self.ready
    }

    /// The first chain that was taken is being worked on.
    pub(crate) fn next(&mut self) -> Option<Chain> {
        self.ready.pop_front()
    }

    /// Whether as much was taken as ever is at once.
    pub(crate) fn is_full(&self) -> bool {
        self.held >= most_held(&self.memory) || self.taken >= usize::from(self.ring.size())
    }

    /// Takes some of the chains that are available, and tells how many: at most [`BATCH`]. If they are fewer,
    /// there are no more, or there is no room for more.
    pub(crate) fn take(&mut self) -> Result<usize, QueueError> {
        let before = self.ready.len();
        let mut descriptors = 0;
        while self.ready.len() - before < BATCH && !self.is_full() {
            // What was taken counts, even if it is not known yet what it takes.
            if descriptors > 0 && self.held + descriptors >= most_held(&self.memory) {
                break;
            }
            let mut chain = self.spare.pop().unwrap_or_default();
            if !self.ring.pop(&mut chain)? {
                self.spare.push(chain);
                break;
            }
            descriptors += chain.descriptors() + chain.table().map_or(0, |table| table.len / DESCRIPTOR_SIZE);
            self.ready.try_reserve(1).map_err(|_| QueueError::NoMemory)?;
            self.ready.push_back(chain);
            self.taken += 1;
        }
        let taken = self.ready.len() - before;
        if taken == 0 {
            return Ok(0);
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
        Ok(taken)
    }

    /// Gives those of the chains that were taken back that are of no use; tells how many they were.
    pub(crate) fn reject(&mut self, useless: impl Fn(&Chain) -> bool) -> usize {
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

    /// An empty batch with room for so many transfers, to be given to [`transfer`](Self::transfer) and then
    /// to [`done`](Self::done).
    pub(crate) fn batch<'a>(&mut self, room: usize) -> Result<Vec<Transfer<'a, M::Buffer>>, QueueError> {
        self.batch.take(room)
    }

    /// Does the copies of a batch.
    pub(crate) fn transfer(&self, batch: &mut [Transfer<'_, M::Buffer>]) {
        if !batch.is_empty() {
            self.memory.transfer(batch);
            self.count_queue(|queue| {
                queue.batches += 1;
                queue.copies += batch.len() as u64;
            });
        }
    }

    /// Takes a batch back.
    pub(crate) fn done(&mut self, batch: Vec<Transfer<'_, M::Buffer>>) {
        self.batch.put(batch);
    }

    /// Gives a chain back to the driver, with `written` bytes in it.
    pub(crate) fn put(&mut self, mut chain: Chain, written: u32) {
        self.ring.put(chain.id(), written);
        self.taken -= 1;
        self.held -= chain.weight();
        let keep = self.spare.len() < BATCH && !self.memory.is_scarce();
        if keep && self.spare.try_reserve(1).is_ok() {
            // Long ones give their memory back: it does not count as held any more.
            chain.clear(0);
            self.spare.push(chain);
        }
    }

    /// Shows the driver what was given back, and notifies it if it wants that.
    pub(crate) fn publish(&mut self) {
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
