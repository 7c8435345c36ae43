//! A receive queue: from the network to the driver.
//!
//! Frames wait in the port until the driver has buffers. What many frames become is written to the driver's
//! memory in one go, the payload straight from the frames.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::ops::Range;
use core::task::{Context, Poll};

use zerocopy::IntoBytes;

use crate::bus::Doorbell;
use crate::memory::{Buffer, DriverMemory, Local, Transfer};
use crate::net::counters::Counters;
use crate::net::headers::PREFIX;
use crate::net::offload::{self, Parts};
use crate::net::state::Shared;
use crate::net::wire::{HEADER_SIZE, Header};
use crate::net::{ETHERNET_HEADER, Frame, Port};
use crate::virtqueue::{Chain, Queue, QueueError, Virtqueue};

/// The most packets of a batch, and the most frames that are looked at for one.
const BATCH: usize = 64;
/// The most bytes of a batch, but for those of the last packet.
const BATCH_BYTES: usize = 256 << 10;
/// After how many useless buffers other tasks run. A driver on another processor can go on making them
/// available as fast as they are given back.
const USELESS: usize = 64;

/// Serves a receive queue.
pub struct Receive<Q, P: Port, M: DriverMemory, D>
where
    M::Buffer: 'static,
{
    queue: Queue<Q, M, D, Counters>,
    port: P,
    /// The port's queue.
    index: u16,
    shared: Rc<Shared>,
    mergeable: bool,
    /// The most bytes of a frame that is not to be cut up.
    max: usize,

    /// Buffers that were found useless for this batch.
    useless: usize,
    /// Frames of the batch. Of the last one, packets may be left for the next batch.
    frames: Vec<(Frame<P::Buffer>, Parts)>,
    // Empty between uses, and kept for their allocations.
    packets: Vec<Packet>,
    own: Vec<u8>,
    chains: Vec<Chain>,
}

/// A packet for the driver.
struct Packet {
    /// Which of the frames it is made of.
    frame: usize,
    /// Where its own bytes are: virtio's header, and maybe those of the packet.
    own: Range<usize>,
    /// Which of the frame's bytes follow.
    payload: Range<usize>,
    /// How many chains it takes.
    chains: usize,
    /// How many copies.
    transfers: usize,
}

impl Packet {
    /// Bytes written to the driver's memory.
    fn len(&self) -> usize {
        self.own.len() + self.payload.len()
    }
}

/// Why a batch is over.
enum End {
    /// The network has nothing more.
    NoFrame,
    /// The driver has no buffers.
    NoBuffer,
    /// The batch is large enough.
    Full,
}

/// Whether there is room for a packet.
enum Room {
    /// There is in so many chains.
    Chains(usize),
    /// There will be, or may be.
    Later(End),
    /// There will never be.
    Never,
}

impl<Q, P, M, D> Receive<Q, P, M, D>
where
    Q: Virtqueue,
    P: Port,
    M: DriverMemory<Buffer = P::Buffer>,
    D: Doorbell,
{
    /// Frames from the queue `index` of `port`; of those for which nothing else is said, none is larger than
    /// for an MTU of `mtu`.
    pub(in crate::net) fn new(
        queue: Queue<Q, M, D, Counters>,
        port: P,
        index: u16,
        shared: Rc<Shared>,
        mtu: Option<u16>,
        mergeable: bool,
    ) -> Self {
        Receive {
            queue,
            port,
            index,
            shared,
            mergeable,
            // With one VLAN tag.
            max: mtu.map_or(usize::MAX, |mtu| usize::from(mtu) + ETHERNET_HEADER + 4),
            useless: 0,
            frames: Vec::new(),
            packets: Vec::new(),
            own: Vec::new(),
            chains: Vec::new(),
        }
    }

    pub(super) fn work(&mut self, context: &mut Context<'_>) -> Result<(), QueueError> {
        let end = self.collect(context)?;
        self.deliver()?;
        match end {
            End::NoFrame => return Ok(()),
            End::NoBuffer if !self.queue.listen(context)? => {
                self.queue.count(|counters| counters.receive.no_buffer += 1);
                return Ok(());
            }
            End::NoBuffer | End::Full => {}
        }
        // Others first, then on.
        context.waker().wake_by_ref();
        Ok(())
    }

    /// Takes frames, and chains for what they become.
    fn collect(&mut self, context: &mut Context<'_>) -> Result<End, QueueError> {
        // "The device MUST NOT queue packets on receive queues greater than virtqueue_pairs".
        let used = self.index < self.shared.0.borrow().pairs;
        if !used {
            self.frames.clear();
        }
        self.useless = 0;
        let (mut taken, mut bytes) = (0, 0);
        while taken < BATCH && self.packets.len() < BATCH && bytes < BATCH_BYTES {
            let Some(len) = self.frames.last().and_then(|(_, parts)| parts.next_len()) else {
                let Poll::Ready(frame) = self.port.poll_receive(self.index, context) else {
                    return Ok(End::NoFrame);
                };
                taken += 1;
                match used {
                    true => self.begin(frame),
                    false => self.queue.count(|counters| counters.receive.unused_queue += 1),
                }
                continue;
            };
            match self.room(HEADER_SIZE + len)? {
                Room::Chains(chains) => {
                    bytes += len;
                    self.add(chains)?;
                }
                Room::Later(end) => return Ok(end),
                Room::Never => {
                    // Nothing of this frame is in the batch: see `room`.
                    self.frames.pop();
                    self.queue.count(|counters| counters.receive.no_room += 1);
                }
            }
        }
        Ok(End::Full)
    }

    /// Has a look at what is to become of a frame.
    fn begin(&mut self, frame: Frame<P::Buffer>) {
        if frame.offload.segmentation.is_none() && frame.len() > self.max {
            return self.queue.count(|counters| counters.receive.over_mtu += 1);
        }
        match Parts::new(&frame, self.shared.abilities()) {
            Some(parts) => {
                let segmented = u64::from(parts.segments());
                self.queue
                    .count(|counters| counters.receive.segmented += segmented);
                if self.frames.try_reserve(1).is_err() {
                    return self.queue.count(|counters| counters.receive.no_room += 1);
                }
                self.frames.push((frame, parts));
            }
            None => self.queue.count(|counters| counters.receive.malformed += 1),
        }
    }

    /// Looks for room for `len` bytes.
    fn room(&mut self, len: usize) -> Result<Room, QueueError> {
        loop {
            let ready = self.queue.ready();
            let mut room = 0;
            for (index, chain) in ready.iter().enumerate() {
                room += chain.writable_bytes();
                if room >= len as u64 {
                    return Ok(Room::Chains(index + 1));
                }
                if !self.mergeable {
                    return Ok(self.never());
                }
            }
            if self.queue.is_full() {
                return Ok(self.never());
            }
            if self.queue.take()? == 0 {
                return Ok(Room::Later(End::NoBuffer));
            }
            let unusable = self
                .queue
                .reject(|chain| chain.writable_bytes() < HEADER_SIZE as u64);
            self.queue
                .count(|counters| counters.receive.bad_buffers += unusable as u64);
            self.useless += unusable;
            if self.useless >= USELESS {
                return Ok(Room::Later(End::Full));
            }
        }
    }

    /// There is no room as things are; but what is in the batch may be in the way.
    fn never(&self) -> Room {
        match self.packets.is_empty() {
            true => Room::Never,
            false => Room::Later(End::Full),
        }
    }

    /// Adds the next packet of the last frame to the batch; it takes this many chains.
    fn add(&mut self, chains: usize) -> Result<(), QueueError> {
        let reserved = self
            .own
            .try_reserve(HEADER_SIZE + PREFIX)
            .and_then(|()| self.chains.try_reserve(chains))
            .and_then(|()| self.packets.try_reserve(1));
        reserved.map_err(|_| QueueError::NoMemory)?;
        let index = self.frames.len() - 1;
        let (frame, parts) = &mut self.frames[index];
        let start = self.own.len();
        self.own.resize(start + HEADER_SIZE, 0);
        let checksummed = u64::from(parts.checksums());
        let Some(part) = parts.next(frame.buffer(), &mut self.own) else {
            return Ok(());
        };
        let headers = offload::headers_len(frame.buffer(), &part.offload);
        // No more chains than the queue has entries.
        let header = Header::new(&part.offload, headers, chains as u16);
        self.own[start..start + HEADER_SIZE].copy_from_slice(header.as_bytes());
        self.chains.extend((0..chains).filter_map(|_| self.queue.next()));
        self.packets.push(Packet {
            frame: index,
            own: start..self.own.len(),
            payload: part.payload,
            chains,
            transfers: 0,
        });
        self.queue
            .count(|counters| counters.receive.checksummed += checksummed);
        Ok(())
    }

    /// Writes the packets of the batch to the driver's memory, and gives it their chains.
    fn deliver(&mut self) -> Result<(), QueueError> {
        if !self.packets.is_empty() {
            // One segment of each packet may hold bytes of both its own and the frame's.
            let segments: usize = self.chains.iter().map(|chain| chain.writable().len()).sum();
            let mut batch = self.queue.batch(segments + self.packets.len())?;
            let mut chains = &self.chains[..];
            for packet in &mut self.packets {
                let (own, rest) = chains.split_at(packet.chains);
                chains = rest;
                let before = batch.len();
                let bytes = &self.own[packet.own.clone()];
                let buffer = self.frames[packet.frame].0.buffer();
                store(&mut batch, own, bytes, buffer, packet.payload.clone());
                packet.transfers = batch.len() - before;
            }
            self.queue.transfer(&mut batch);
            let mut chains = self.chains.drain(..);
            let mut rest = &batch[..];
            for packet in &self.packets {
                let (own, tail) = rest.split_at(packet.transfers);
                rest = tail;
                let failed = own.iter().any(|transfer| transfer.result.is_err());
                let mut left = if failed { 0 } else { packet.len() as u64 };
                for chain in chains.by_ref().take(packet.chains) {
                    let written = chain.writable_bytes().min(left);
                    left -= written;
                    // No more than a packet.
                    self.queue.put(chain, written as u32);
                }
                self.queue.count(|Counters { receive, .. }| match failed {
                    true => receive.unwritable += 1,
                    false => {
                        receive.packets += 1;
                        receive.bytes += (packet.len() - HEADER_SIZE) as u64;
                    }
                });
            }
            drop(chains);
            self.queue.done(batch);
            self.queue.publish();
            self.packets.clear();
            self.own.clear();
        }
        let unfinished = self.frames.pop().filter(|(_, parts)| parts.next_len().is_some());
        self.frames.clear();
        self.frames.extend(unfinished);
        Ok(())
    }

    pub(super) fn quiesce(&mut self) -> Poll<()> {
        // A broken queue may stay for as long as its driver likes; others need the memory.
        self.frames = Vec::new();
        Poll::Ready(())
    }
}

/// Adds the copies that store a packet, `own` and then a part of `buffer`, in chains that have room for it.
fn store<'a, B: Buffer>(
    batch: &mut Vec<Transfer<'a, B>>,
    chains: &[Chain],
    mut own: &'a [u8],
    buffer: &'a B,
    payload: Range<usize>,
) {
    let mut at = payload.start;
    let mut push = |address, local| {
        batch.push(Transfer {
            address,
            local,
            result: Ok(()),
        });
    };
    for segment in chains.iter().flat_map(Chain::writable) {
        let (bytes, rest) = own.split_at(own.len().min(segment.len as usize));
        own = rest;
        if !bytes.is_empty() {
            push(segment.address, Local::Write(bytes));
        }
        let len = (segment.len as usize - bytes.len()).min(payload.end - at);
        if len > 0 {
            let address = segment.address.wrapping_add(bytes.len() as u64);
            push(address, Local::WriteBuffer(buffer, at, len));
            at += len;
        }
    }
}
