//! The control queue: what the driver commands.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::slice;
use core::task::{Context, Poll};

use crate::bus::Doorbell;
use crate::memory::{DriverMemory, Local, Transfer};
use crate::net::Port;
use crate::net::command::{self, MAX_COMMAND};
use crate::net::counters::Counters;
use crate::net::state::Shared;
use crate::tables;
use crate::virtqueue::chain::pieces;
use crate::virtqueue::{Chain, Queue, QueueError, Segment, Virtqueue};

/// The most commands that are obeyed before other tasks run.
const BATCH: usize = 16;

/// Serves the control queue.
pub struct Control<Q, P, M: DriverMemory, D>
where
    M::Buffer: 'static,
{
    queue: Queue<Q, M, D, Counters>,
    port: P,
    shared: Rc<Shared>,
    features: u64,
}

impl<Q, P, M, D> Control<Q, P, M, D>
where
    Q: Virtqueue,
    P: Port,
    M: DriverMemory<Buffer = P::Buffer>,
    D: Doorbell,
{
    pub(in crate::net) fn new(
        queue: Queue<Q, M, D, Counters>,
        port: P,
        shared: Rc<Shared>,
        features: u64,
    ) -> Self {
        Control {
            queue,
            port,
            shared,
            features,
        }
    }

    pub(super) fn work(&mut self, context: &mut Context<'_>) -> Result<(), QueueError> {
        // A notification that came before the ring is looked at has nothing to add.
        self.queue.kicked(context);
        for _ in 0..BATCH {
            if self.queue.ready().is_empty() && self.queue.take()? == 0 {
                if !self.queue.listen(context)? {
                    return Ok(());
                }
                continue;
            }
            if let Some(chain) = self.queue.next() {
                self.handle(&chain)?;
                self.queue.put(chain, 1);
                self.queue.publish();
            }
        }
        // Others first, then on.
        context.waker().wake_by_ref();
        Ok(())
    }

    /// Obeys a command, and says whether it could be.
    fn handle(&mut self, chain: &Chain) -> Result<(), QueueError> {
        let Some(ack) = pieces(chain.writable(), 0, 1).next() else {
            return Err(QueueError::NoStatus);
        };
        let obeyed = match usize::try_from(chain.readable_bytes()) {
            Ok(len) if len <= MAX_COMMAND => {
                let bytes = self.read(chain, len)?;
                command::obey(&self.shared, &self.port, self.features, &bytes)
            }
            _ => Err(command::Refused),
        };
        self.queue.count(|counters| match obeyed {
            Ok(()) => counters.control.obeyed += 1,
            Err(command::Refused) => counters.control.refused += 1,
        });
        self.write(ack, obeyed.map_or(command::ERR, |()| command::OK))
    }

    fn read(&mut self, chain: &Chain, len: usize) -> Result<Vec<u8>, QueueError> {
        let mut bytes = Vec::new();
        tables::resize(&mut bytes, len)?;
        let mut batch = self.queue.batch(chain.segments())?;
        let mut rest = &mut bytes[..];
        for piece in pieces(chain.readable(), 0, len as u64) {
            let (part, tail) = rest.split_at_mut(piece.len as usize);
            rest = tail;
            batch.push(Transfer {
                address: piece.address,
                local: Local::Read(part),
                result: Ok(()),
            });
        }
        self.queue.transfer(&mut batch);
        let failed = batch.iter().find_map(|transfer| transfer.result.err());
        self.queue.done(batch);
        failed.map_or(Ok(bytes), |error| Err(QueueError::Header(error)))
    }

    fn write(&mut self, to: Segment, ack: u8) -> Result<(), QueueError> {
        let mut transfer = Transfer {
            address: to.address,
            local: Local::Write(slice::from_ref(&ack)),
            result: Ok(()),
        };
        self.queue.transfer(slice::from_mut(&mut transfer));
        transfer.result.map_err(QueueError::Status)
    }

    pub(super) fn quiesce(&mut self) -> Poll<()> {
        Poll::Ready(())
    }
}
