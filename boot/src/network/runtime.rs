//! What the network runs on: the clock, and memory for frames.

use core::{
    task::{Context, Poll},
    time::Duration,
};

use kernel::{
    mm,
    packets::{Packet, PacketPool},
    time,
};
use network::{switch, time::Time};

/// The domain's monotonic clock.
#[derive(Clone, Copy)]
pub struct Clock;

impl Time for Clock {
    type Sleep = time::Sleep;

    fn now(&self) -> Duration {
        Duration::from_nanos(time::now().as_nanos())
    }

    fn sleep(&self, duration: Duration) -> time::Sleep {
        time::sleep(duration)
    }
}

/// The pool that all segments share.
#[derive(Clone)]
pub struct Memory(pub PacketPool);

impl Memory {
    /// Half of the domain's memory at most; a quarter is left alone in any case: routers' connections may
    /// take half of that, and what is left is for queues, questions and answers.
    pub fn new() -> Self {
        let total = mm::usage().total;
        Self(PacketPool::new(total / 2 / mm::PAGE_SIZE, total / 4))
    }

    /// How much one client may have in frames that it sends, and as much in what it has to receive, in bytes:
    /// a sixteenth of all, but room for a few of the largest frames.
    pub fn share(&self) -> usize {
        (self.0.usage().limit * mm::PAGE_SIZE / 16).clamp(256 << 10, 1 << 20)
    }
}

impl switch::Memory for Memory {
    type Buffer = Packet;

    fn allocate(&self, len: usize) -> Option<Packet> {
        self.0.allocate(len)
    }

    fn poll_free(&self, len: usize, context: &mut Context<'_>) -> Poll<()> {
        self.0.poll_free(len, context.waker())
    }
}
