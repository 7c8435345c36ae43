//! What a device needs of the bus that carries it.

use core::future::Future;
use core::task::{Context, Poll};

use crate::memory::DriverMemory;

/// Notifications of one virtqueue, both ways. It belongs to the queue from its start to its end; dropping it
/// gives up the means of notification (an event channel, an interrupt).
pub trait Doorbell: 'static {
    /// `Ready` if the driver has notified since the last `Ready`: notifications are latched, so none is lost
    /// between two calls. `Pending` registers the task for the next one.
    fn poll_kick(&mut self, context: &mut Context<'_>) -> Poll<()>;

    /// Notifies the driver that buffers have been used.
    fn notify(&mut self);
}

/// The bus under one device.
pub trait Bus: 'static {
    /// The driver's memory.
    type Memory: DriverMemory + Clone + 'static;
    /// Notifications of a queue.
    type Doorbell: Doorbell;

    /// Who made the device, as the driver is told; a number of the bus's choosing.
    const VENDOR: u32;
    /// Features, beside VERSION_1, that the bus offers and that the driver has to accept.
    const FEATURES: u64;

    /// The driver's memory, for a queue that starts.
    fn memory(&self) -> Self::Memory;

    /// Takes the doorbell of a queue, or `None` if the driver has not given the bus what it needs since the
    /// last time: without one, a queue is not set up. It is also taken, to end with the queue, when a queue
    /// is reset.
    fn doorbell(&mut self, queue: u16) -> Option<Self::Doorbell>;

    /// Runs a task until it ends. Tasks end by themselves when their queue is reset or the device is dropped.
    fn spawn(&mut self, task: impl Future<Output = ()> + 'static);

    /// Answers a request with an implementation-defined message id, 0x80 to 0xbf.
    ///
    /// `payload` is the message without its header, as sent. `in_use[i]` tells whether queue i is set up. The
    /// payload of the response goes to `response`, which is zeroed before; the result is its length. `None`
    /// says that the request is unknown or malformed.
    fn extension(&mut self, id: u8, payload: &[u8], in_use: &[bool], response: &mut [u8]) -> Option<usize>;
}
