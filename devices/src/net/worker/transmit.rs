//! A transmit queue: from the driver into the network.
//!
//! Of each batch of chains, headers and payload are fetched in one go, the payload straight into the frames
//! that are sent.

use alloc::vec::Vec;
use core::mem;
use core::task::{Context, Poll};

use zerocopy::FromBytes;

use crate::bus::Doorbell;
use crate::memory::{Buffer, DriverMemory, Local, Transfer};
use crate::net::counters::Counters;
use crate::net::offload::{headers_len, needed};
use crate::net::wire::{HEADER_SIZE, Header};
use crate::net::{ETHERNET_HEADER, Frame, MAX_FRAME, Offload, Port};
use crate::virtqueue::chain::pieces;
use crate::virtqueue::{Chain, Queue, QueueError, Virtqueue};

/// The most frames of a batch.
const BATCH: usize = 64;
/// The most bytes of a batch, but for those of the last frame.
const BATCH_BYTES: usize = 256 << 10;

/// Serves a transmit queue.
pub struct Transmit<Q, P: Port, M: DriverMemory, D>
where
    M::Buffer: 'static,
{
    queue: Queue<Q, M, D, Counters>,
    port: P,
    features: u64,
    /// The most bytes of a frame, or of each that it is to be cut up into.
    max: usize,
    // Empty between uses, and kept for their allocations.
    jobs: Vec<Job<P::Buffer>>,
    /// How many copies each job takes.
    transfers: Vec<usize>,
    headers: Vec<[u8; HEADER_SIZE]>,
}

/// A chain, and the frame that is made of it.
struct Job<B> {
    chain: Chain,
    frame: Option<Frame<B>>,
}

/// Why a batch is over.
enum End {
    /// The ring is empty.
    Empty,
    /// The batch is large enough.
    Full,
    /// There is no memory for a frame of this length.
    Starved(usize),
}

impl<Q, P, M, D> Transmit<Q, P, M, D>
where
    Q: Virtqueue,
    P: Port,
    M: DriverMemory<Buffer = P::Buffer>,
    D: Doorbell,
{
    /// Frames for an MTU of `mtu` go to `port`.
    pub(in crate::net) fn new(queue: Queue<Q, M, D, Counters>, port: P, mtu: u16, features: u64) -> Self {
        Transmit {
            queue,
            port,
            features,
            // With one VLAN tag.
            max: usize::from(mtu) + ETHERNET_HEADER + 4,
            jobs: Vec::new(),
            transfers: Vec::new(),
            headers: Vec::new(),
        }
    }

    pub(super) fn work(&mut self, context: &mut Context<'_>) -> Result<(), QueueError> {
        // A notification that came before the ring is looked at has nothing to add.
        self.queue.kicked(context);
        let end = self.collect()?;
        self.fetch()?;
        self.send();
        let more = match end {
            End::Full => true,
            End::Empty => self.queue.listen(context)?,
            End::Starved(len) => {
                self.queue.count(|counters| counters.transmit.waited += 1);
                self.port.poll_ready(len, context).is_ready()
            }
        };
        if more {
            // Others first, then on.
            context.waker().wake_by_ref();
        }
        Ok(())
    }

    /// Takes chains, with a frame for each that looks like one.
    fn collect(&mut self) -> Result<End, QueueError> {
        let mut bytes = 0;
        self.jobs.try_reserve(BATCH).map_err(|_| QueueError::NoMemory)?;
        while self.jobs.len() < BATCH && bytes < BATCH_BYTES {
            let Some(chain) = self.queue.ready().front() else {
                if !self.jobs.is_empty() || self.queue.take()? == 0 {
                    return Ok(End::Empty);
                }
                continue;
            };
            let frame = match check_len(chain) {
                Ok(len) => match self.port.allocate(len) {
                    None => return Ok(End::Starved(len)),
                    Some(frame) => {
                        bytes += len;
                        Some(frame)
                    }
                },
                Err(reason) => {
                    self.queue.count(|counters| *reason(counters) += 1);
                    None
                }
            };
            if let Some(chain) = self.queue.next() {
                self.jobs.push(Job { chain, frame });
            }
        }
        Ok(End::Full)
    }

    /// Fetches headers and payload. Jobs whose bytes cannot be read lose their frame.
    fn fetch(&mut self) -> Result<(), QueueError> {
        self.headers.clear();
        self.headers.resize(self.jobs.len(), [0; HEADER_SIZE]);
        // One segment of each may hold bytes of both.
        let room = self.jobs.iter().map(|job| job.chain.readable().len() + 1).sum();
        let mut batch = self.queue.batch(room)?;
        for (job, header) in self.jobs.iter().zip(&mut self.headers) {
            let before = batch.len();
            if let Some(frame) = &job.frame {
                fetch_one(&mut batch, &job.chain, header, frame.buffer());
            }
            self.transfers.push(batch.len() - before);
        }
        self.queue.transfer(&mut batch);
        let mut failed = Vec::new();
        let mut rest = &batch[..];
        for (index, transfers) in self.transfers.drain(..).enumerate() {
            let (own, tail) = rest.split_at(transfers);
            rest = tail;
            if own.iter().any(|transfer| transfer.result.is_err()) {
                failed.push(index);
            }
        }
        self.queue.done(batch);
        for index in failed {
            self.jobs[index].frame = None;
            self.queue.count(|counters| counters.transmit.unreadable += 1);
        }
        Ok(())
    }

    /// Sends the frames and gives their chains back.
    fn send(&mut self) {
        if self.jobs.is_empty() {
            return;
        }
        let mut jobs = mem::take(&mut self.jobs);
        for (job, header) in jobs.drain(..).zip(&self.headers) {
            if let Some(mut frame) = job.frame {
                match self.check(header, &frame) {
                    Ok(offload) => {
                        frame.offload = offload;
                        self.queue.count(|counters| {
                            counters.transmit.packets += 1;
                            counters.transmit.bytes += frame.len() as u64;
                        });
                        self.port.send(frame);
                    }
                    Err(reason) => self.queue.count(|counters| *reason(counters) += 1),
                }
            }
            self.queue.put(job.chain, 0);
        }
        self.jobs = jobs;
        self.queue.publish();
    }

    /// What is to be done about a frame, or why it is dropped.
    fn check(&self, header: &[u8; HEADER_SIZE], frame: &Frame<P::Buffer>) -> Result<Offload, Reason> {
        let header = Header::read_from_bytes(header).unwrap_or_default();
        let asked = header.offload(frame.len(), self.features).ok_or(MALFORMED)?;
        let offload = needed(frame.buffer(), asked).ok_or(MALFORMED)?;
        let longest = match offload.segmentation {
            None => frame.len(),
            Some(segmentation) => {
                usize::from(headers_len(frame.buffer(), &offload)) + usize::from(segmentation.size)
            }
        };
        if longest > self.max {
            Err(TOO_LONG)
        } else {
            Ok(offload)
        }
    }

    pub(super) fn quiesce(&mut self) -> Poll<()> {
        self.jobs = Vec::new();
        Poll::Ready(())
    }
}

/// The counter of frames that are dropped for some reason.
type Reason = fn(&mut Counters) -> &mut u64;

const MALFORMED: Reason = |counters| &mut counters.transmit.malformed;
const TOO_LONG: Reason = |counters| &mut counters.transmit.too_long;
const TOO_SHORT: Reason = |counters| &mut counters.transmit.too_short;

/// The length of the frame in a chain.
fn check_len(chain: &Chain) -> Result<usize, Reason> {
    match usize::try_from(chain.readable_bytes()) {
        Ok(len) if len < HEADER_SIZE + ETHERNET_HEADER => Err(TOO_SHORT),
        Ok(len) if len <= HEADER_SIZE + MAX_FRAME => Ok(len - HEADER_SIZE),
        _ => Err(TOO_LONG),
    }
}

/// Adds the copies of a chain's header and payload, however the driver has split them.
fn fetch_one<'a, B: Buffer>(
    batch: &mut Vec<Transfer<'a, B>>,
    chain: &Chain,
    header: &'a mut [u8],
    buffer: &'a B,
) {
    let mut rest = header;
    for piece in pieces(chain.readable(), 0, HEADER_SIZE as u64) {
        let (bytes, tail) = rest.split_at_mut(piece.len as usize);
        rest = tail;
        batch.push(Transfer {
            address: piece.address,
            local: Local::Read(bytes),
            result: Ok(()),
        });
    }
    let mut at = 0;
    for piece in pieces(chain.readable(), HEADER_SIZE as u64, buffer.len() as u64) {
        let len = piece.len as usize;
        batch.push(Transfer {
            address: piece.address,
            local: Local::ReadBuffer(buffer, at, len),
            result: Ok(()),
        });
        at += len;
    }
}
