//! Queues that are fair between those who send to them.

use alloc::collections::{TryReserveError, VecDeque};
use alloc::vec::Vec;
use core::task::Waker;

use devices::memory::Buffer;
use devices::net::Frame;

use super::memory::{PAGE, weight};

/// What a sender's turn is worth, in bytes of weight.
const QUANTUM: usize = 4 * PAGE;
/// How many segments that a frame is to be cut into are as much work as a page. With any usual size of
/// segments, a frame has more pages.
const SEGMENTS: usize = 4;

/// What a frame costs of a turn, in bytes of weight.
fn cost<B: Buffer>(frame: &Frame<B>) -> usize {
    let segments = frame
        .offload
        .segmentation
        .map_or(0, |it| frame.len() / usize::from(it.size.max(1)));
    weight(frame.len()).max(segments / SEGMENTS * PAGE)
}

/// Empty lists that a queue keeps, so that a sender of single frames does not cost an allocation each time.
const SPARES: usize = 4;

/// The most queues that a receiver has.
pub const MAX_QUEUES: u16 = 64;

/// Whom a frame is from, as far as fairness goes: the account that it came on, or the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sender(pub(super) usize);

/// The queues of one receiver, which share its memory.
pub(super) struct Queues<B> {
    queues: Vec<Queue<B>>,
    /// The weight of each sender's frames in all queues; only those that have some.
    shares: Vec<(Sender, usize)>,
}

/// Frames for one receiver, taken out by deficit round robin between senders: each has the same share of the
/// weight, whatever its frames' size and number.
struct Queue<B> {
    /// Those that have frames; the first one has its turn.
    flows: VecDeque<Flow<B>>,
    spares: Vec<VecDeque<Frame<B>>>,
    /// The receiver, if it waits.
    waiting: Option<Waker>,
}

/// The frames of one sender, in their order.
struct Flow<B> {
    sender: Sender,
    frames: VecDeque<Frame<B>>,
    /// What is left of its turn.
    credit: usize,
}

impl<B: Buffer> Queues<B> {
    pub(super) const fn new() -> Self {
        Queues {
            queues: Vec::new(),
            shares: Vec::new(),
        }
    }

    /// Adds a frame to a queue, and wakes the receiver.
    ///
    /// # Errors
    /// If there is no memory for the queue to grow: the frame is dropped.
    pub(super) fn push(
        &mut self,
        queue: u16,
        sender: Sender,
        frame: Frame<B>,
    ) -> Result<(), TryReserveError> {
        let weight = weight(frame.len());
        self.shares.try_reserve(1)?;
        self.queue(queue).push(sender, frame)?;
        match self.shares.iter_mut().find(|share| share.0 == sender) {
            Some(share) => share.1 += weight,
            None => self.shares.push((sender, weight)),
        }
        Ok(())
    }

    /// Whether there is nothing in a queue.
    pub(super) fn is_empty(&self, queue: u16) -> bool {
        let queue = self.queues.get(usize::from(queue));
        queue.is_none_or(|queue| queue.flows.is_empty())
    }

    /// Takes out the next frame of a queue.
    pub(super) fn pop(&mut self, queue: u16) -> Option<Frame<B>> {
        let (sender, frame) = self.queue(queue).pop()?;
        self.took(sender, weight(frame.len()));
        Some(frame)
    }

    /// Registers who is to be woken by the next frame in a queue.
    pub(super) fn wait(&mut self, queue: u16, waker: &Waker) {
        self.queue(queue).waiting = Some(waker.clone());
    }

    /// Takes out the last frame of that sender which has the most weight, provided that it has no less than
    /// `sender` would have with `added` more.
    pub(super) fn push_out(&mut self, sender: Sender, added: usize) -> Option<Frame<B>> {
        let own = self.shares.iter().find(|share| share.0 == sender);
        let own = own.map_or(0, |share| share.1);
        let (heaviest, most) = *self.shares.iter().max_by_key(|share| share.1)?;
        if heaviest == sender || most < own + added {
            return None;
        }
        let frame = self
            .queues
            .iter_mut()
            .rev()
            .find_map(|queue| queue.pop_last_of(heaviest))?;
        self.took(heaviest, weight(frame.len()));
        Some(frame)
    }

    /// Moves what is in queues from `count` on to the first one. Returns how many frames were dropped for
    /// want of memory.
    pub(super) fn shrink(&mut self, count: u16) -> u64 {
        let mut dropped = 0;
        for index in usize::from(count.max(1))..self.queues.len() {
            while let Some((sender, frame)) = self.queues[index].pop() {
                let weight = weight(frame.len());
                if self.queues[0].push(sender, frame).is_err() {
                    self.took(sender, weight);
                    dropped += 1;
                }
            }
        }
        dropped
    }

    /// Takes everything out, and tells how many frames that was.
    pub(super) fn clear(&mut self) -> u64 {
        self.shares.clear();
        let flows = self.queues.iter_mut().flat_map(|queue| queue.flows.drain(..));
        flows.map(|flow| flow.frames.len() as u64).sum()
    }

    /// A queue, which is there from its first use on; callers have checked that its number is below
    /// [`MAX_QUEUES`].
    fn queue(&mut self, queue: u16) -> &mut Queue<B> {
        let index = usize::from(queue);
        if self.queues.len() <= index {
            self.queues.resize_with(index + 1, Queue::new);
        }
        &mut self.queues[index]
    }

    /// A sender's frame of this weight is in no queue any more.
    fn took(&mut self, sender: Sender, weight: usize) {
        if let Some(index) = self.shares.iter().position(|share| share.0 == sender) {
            self.shares[index].1 -= weight;
            if self.shares[index].1 == 0 {
                self.shares.swap_remove(index);
            }
        }
    }
}

impl<B: Buffer> Queue<B> {
    const fn new() -> Self {
        Queue {
            flows: VecDeque::new(),
            spares: Vec::new(),
            waiting: None,
        }
    }

    fn push(&mut self, sender: Sender, frame: Frame<B>) -> Result<(), TryReserveError> {
        match self.flows.iter_mut().find(|flow| flow.sender == sender) {
            Some(flow) => {
                flow.frames.try_reserve(1)?;
                flow.frames.push_back(frame);
            }
            None => {
                self.flows.try_reserve(1)?;
                let mut frames = self.spares.pop().unwrap_or_default();
                frames.push_back(frame);
                self.flows.push_back(Flow {
                    sender,
                    frames,
                    credit: QUANTUM,
                });
            }
        }
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
        Ok(())
    }

    fn pop(&mut self) -> Option<(Sender, Frame<B>)> {
        // The largest frame is worth a few turns, or a few hundred if its segments are tiny, so this ends
        // soon.
        loop {
            let flow = self.flows.front_mut()?;
            let needed = flow.frames.front().map_or(0, cost);
            if flow.credit >= needed {
                flow.credit -= needed;
                break;
            }
            flow.credit += QUANTUM;
            self.flows.rotate_left(1);
        }
        let flow = self.flows.front_mut()?;
        let frame = flow.frames.pop_front()?;
        let sender = flow.sender;
        self.remove_if_empty(0);
        Some((sender, frame))
    }

    fn pop_last_of(&mut self, sender: Sender) -> Option<Frame<B>> {
        let index = self.flows.iter().position(|flow| flow.sender == sender)?;
        let frame = self.flows[index].frames.pop_back();
        self.remove_if_empty(index);
        frame
    }

    fn remove_if_empty(&mut self, index: usize) {
        if !self.flows[index].frames.is_empty() {
            return;
        }
        let removed = self.flows.remove(index);
        if let Some(flow) = removed.filter(|_| self.spares.len() < SPARES) {
            self.spares.push(flow.frames);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devices::net::{Offload, Segmentation, SegmentationKind};

    struct Bytes(usize);

    impl Buffer for Bytes {
        fn len(&self) -> usize {
            self.0
        }
        fn read(&self, _: usize, _: &mut [u8]) {}
        fn write(&self, _: usize, _: &[u8]) {}
    }

    /// Of 1000 frames taken, how many are small ones, beside somebody who sends 60,000 bytes to be cut into
    /// segments of this size.
    fn small_of_1000(size: u16) -> usize {
        let mut queues = Queues::new();
        let offload = Offload {
            segmentation: Some(Segmentation {
                kind: SegmentationKind::Tcp4,
                size,
            }),
            ..Offload::default()
        };
        for _ in 0..1000 {
            let pushed = [
                queues.push(0, Sender(1), Frame::new(Bytes(60_000), offload, None)),
                queues.push(0, Sender(2), Frame::new(Bytes(60), Offload::default(), None)),
            ];
            assert_eq!(pushed, [Ok(()), Ok(())]);
        }
        let taken = (0..1000).filter_map(|_| queues.pop(0));
        taken.filter(|frame| frame.len() == 60).count()
    }

    #[test]
    fn tiny_segments_cost_turns() {
        // 15 pages, or more segments than that.
        assert!(
            (930..945).contains(&small_of_1000(1448)),
            "{}",
            small_of_1000(1448)
        );
        assert!(small_of_1000(8) >= 999);
    }
}
