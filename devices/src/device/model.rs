//! What a kind of device has to implement.

use core::task::{Context, Poll};

use crate::bus::Bus;
use crate::memory::DriverMemory;
use crate::virtqueue::QueueError;
use crate::virtqueue::split::Split;

/// The windows of a bus's memory.
pub type WindowOf<B> = <<B as Bus>::Memory as DriverMemory>::Window;

/// What kind of device it is.
pub trait Model<B: Bus> {
    /// One started queue.
    type Worker: Worker + 'static;

    /// The virtio device type (virtio 1.3, "Device Types").
    fn device_type(&self) -> u32;

    /// How many queues there are; at least one.
    fn queues(&self) -> u16;

    /// The largest size of a queue, a power of two, at most [`crate::virtqueue::MAX_SIZE`].
    fn max_queue_size(&self, queue: u16) -> u16;

    /// The features of this device type that it has at this moment. They are offered until the next reset.
    fn features(&self) -> u64;

    /// The configuration space, of a length that never changes.
    fn config(&mut self) -> &[u8];

    /// The driver writes to configuration space, inside its bounds. The result tells whether it may; if not,
    /// nothing has changed.
    fn write_config(&mut self, features: u64, offset: usize, data: &[u8]) -> bool;

    /// `Ready` when configuration space was changed by the device itself since the last call; `Pending`
    /// registers the task for that.
    fn poll_config(&mut self, context: &mut Context<'_>) -> Poll<()>;

    /// The driver has accepted these features.
    fn negotiated(&mut self, features: u64);

    /// The device was reset. No queue is left.
    fn reset(&mut self);

    /// Starts serving a queue.
    fn start(
        &mut self,
        queue: u16,
        ring: Split<WindowOf<B>>,
        memory: B::Memory,
        doorbell: B::Doorbell,
        features: u64,
    ) -> Self::Worker;
}

/// Serves one queue. Dropping it abandons whatever is in flight.
pub trait Worker {
    /// Does what there is to do, and registers the task for more. `Ready` when the driver broke the queue:
    /// the worker is then only polled with [`poll_quiesce`](Self::poll_quiesce).
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<QueueError>;

    /// Takes no more buffers, completes none, and resolves when nothing is under way outside this crate.
    fn poll_quiesce(&mut self, context: &mut Context<'_>) -> Poll<()>;
}
