//! Serving the queues of a network device.

mod control;
mod receive;
mod transmit;

use alloc::boxed::Box;
use core::task::{Context, Poll};

pub use control::Control;
pub use receive::Receive;
pub use transmit::Transmit;

use crate::bus::Doorbell;
use crate::device;
use crate::memory::DriverMemory;
use crate::net::Port;
use crate::virtqueue::{QueueError, Virtqueue};

/// Serves one queue.
pub enum Worker<Q, P: Port, M: DriverMemory, D>
where
    M::Buffer: 'static,
{
    /// From the network to the driver.
    Receive(Box<Receive<Q, P, M, D>>),
    /// From the driver to the network.
    Transmit(Box<Transmit<Q, P, M, D>>),
    /// The driver's commands.
    Control(Box<Control<Q, P, M, D>>),
    /// A queue that has no meaning with the features that were negotiated.
    Unused,
}

impl<Q, P, M, D> device::Worker for Worker<Q, P, M, D>
where
    Q: Virtqueue,
    P: Port,
    M: DriverMemory<Buffer = P::Buffer>,
    D: Doorbell,
{
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<QueueError> {
        let result = match self {
            Worker::Receive(worker) => worker.work(context),
            Worker::Transmit(worker) => worker.work(context),
            Worker::Control(worker) => worker.work(context),
            Worker::Unused => Ok(()),
        };
        result.map_or_else(Poll::Ready, |()| Poll::Pending)
    }

    fn poll_quiesce(&mut self, _context: &mut Context<'_>) -> Poll<()> {
        // Nothing is under way outside: copies are done when they are asked for, and frames belong to the
        // network once they are sent.
        match self {
            Worker::Receive(worker) => worker.quiesce(),
            Worker::Transmit(worker) => worker.quiesce(),
            Worker::Control(worker) => worker.quiesce(),
            Worker::Unused => Poll::Ready(()),
        }
    }
}
