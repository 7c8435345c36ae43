//! A disk in memory that completes what it is asked for in any order, with a volatile cache.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use devices::disk::{Channel, Completion, DiscardLimits, Disk, DiskError, Geometry, Operation, SECTOR};
use devices::memory::Buffer;

use super::Random;
use super::guest::Payload;

/// What most tests use.
pub const GEOMETRY: Geometry = Geometry {
    sectors: 1024,
    block_size: 512,
    physical_block_size: 4096,
    read_only: false,
    flush: true,
    discard: Some(DiscardLimits {
        max_sectors: 64,
        granularity: 8,
        alignment: 0,
    }),
    max_bytes: 32 << 10,
};

struct Pending {
    id: usize,
    operation: Operation<Payload>,
    committed: bool,
    /// For a flush: what was written when it was submitted, and how many were submitted before.
    snapshot: Vec<u8>,
    number: usize,
}

#[derive(Default)]
struct Stream {
    pending: RefCell<Vec<Pending>>,
    done: RefCell<VecDeque<Completion<Payload>>>,
    /// The task to wake for completions.
    waker: Cell<Option<Waker>>,
    /// An allocation failed.
    starved: Cell<bool>,
    /// The task to wake for buffers: one that polled after an allocation failed.
    hungry: Cell<Option<Waker>>,
}

impl Stream {
    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

pub struct Inner {
    pub geometry: Cell<Geometry>,
    geometry_waker: Cell<Option<Waker>>,
    /// What reads see.
    pub data: RefCell<Vec<u8>>,
    /// What survives a power cut.
    pub durable: RefCell<Vec<u8>>,
    streams: RefCell<Vec<Weak<Stream>>>,
    /// Requests of channels that are gone.
    orphans: RefCell<Vec<Pending>>,
    /// Bytes that buffers may still take.
    pub pool: Cell<usize>,
    /// One in so many operations fails; 0 for none.
    pub failing: Cell<usize>,
    /// Reads from this sector on are not completed.
    pub held_back: Cell<u64>,
    flushes: Cell<usize>,
    /// The number of the last flush that made something durable.
    flushed: Cell<usize>,
    pub completed: Cell<usize>,
}

#[derive(Clone)]
pub struct RamDisk(pub Rc<Inner>);

impl RamDisk {
    pub fn new(geometry: Geometry) -> Self {
        // Every sector is different.
        let mut data = vec![0; (geometry.sectors * SECTOR) as usize];
        for (sector, bytes) in data.chunks_mut(SECTOR as usize).enumerate() {
            bytes.fill(sector as u8 | 1);
            bytes[..8].copy_from_slice(&(sector as u64).to_le_bytes());
            bytes[504..].copy_from_slice(&(!sector as u64).to_le_bytes());
        }
        RamDisk(Rc::new(Inner {
            geometry: Cell::new(geometry),
            geometry_waker: Cell::default(),
            durable: RefCell::new(data.clone()),
            data: RefCell::new(data),
            streams: RefCell::default(),
            orphans: RefCell::default(),
            pool: Cell::new(1 << 20),
            failing: Cell::new(0),
            held_back: Cell::new(u64::MAX),
            flushes: Cell::new(0),
            flushed: Cell::new(0),
            completed: Cell::new(0),
        }))
    }

    pub fn set_geometry(&self, geometry: Geometry) {
        self.0.geometry.set(geometry);
        self.0
            .data
            .borrow_mut()
            .resize((geometry.sectors * SECTOR) as usize, 0);
        self.0
            .durable
            .borrow_mut()
            .resize((geometry.sectors * SECTOR) as usize, 0);
        if let Some(waker) = self.0.geometry_waker.take() {
            waker.wake();
        }
    }

    pub fn read(&self, sector: u64, len: usize) -> Vec<u8> {
        let at = (sector * SECTOR) as usize;
        self.0.data.borrow()[at..at + len].to_vec()
    }

    pub fn read_durable(&self, sector: u64, len: usize) -> Vec<u8> {
        let at = (sector * SECTOR) as usize;
        self.0.durable.borrow()[at..at + len].to_vec()
    }

    /// How many requests are under way.
    pub fn under_way(&self) -> usize {
        let streams = self.0.streams.borrow();
        let streams = streams.iter().filter_map(Weak::upgrade);
        streams.map(|stream| stream.pending.borrow().len()).sum::<usize>() + self.0.orphans.borrow().len()
    }

    /// How many channels are open.
    pub fn channels(&self) -> usize {
        self.0
            .streams
            .borrow()
            .iter()
            .filter(|stream| stream.strong_count() > 0)
            .count()
    }

    /// Completes one request; tells whether there was one.
    pub fn step(&self, random: &mut Random) -> bool {
        let streams: Vec<_> = self.0.streams.borrow().iter().filter_map(Weak::upgrade).collect();
        let candidates: Vec<_> = streams
            .iter()
            .flat_map(|stream| {
                let pending = stream.pending.borrow();
                let held_back = |pending: &Pending| matches!(pending.operation, Operation::Read { sector, .. } if sector >= self.0.held_back.get());
                let committed = (0..pending.len())
                    .filter(|index| pending[*index].committed && !held_back(&pending[*index]));
                committed.map(|index| (stream.clone(), index)).collect::<Vec<_>>()
            })
            .collect();
        if candidates.is_empty() {
            let orphan = self.0.orphans.borrow_mut().pop();
            return orphan.map(|orphan| self.perform(orphan, random)).is_some();
        }
        let (stream, index) = &candidates[random.below(candidates.len())];
        let pending = stream.pending.borrow_mut().swap_remove(*index);
        let completion = self.perform(pending, random);
        stream.done.borrow_mut().push_back(completion);
        stream.wake();
        true
    }

    fn perform(&self, pending: Pending, random: &mut Random) -> Completion<Payload> {
        let Pending {
            id,
            operation,
            snapshot,
            number,
            ..
        } = pending;
        self.0.completed.set(self.0.completed.get() + 1);
        let failing = self.0.failing.get();
        let result = if failing > 0 && random.below(failing) == 0 {
            Err(DiskError::Io)
        } else {
            Ok(())
        };
        let geometry = self.0.geometry.get();
        let range = |sector: u64, sectors: u64| {
            let block = u64::from(geometry.block_size) / SECTOR;
            assert!(sector.is_multiple_of(block) && sectors.is_multiple_of(block) && sectors > 0);
            assert!(
                sector + sectors <= geometry.sectors,
                "the device has checked that"
            );
            (sector * SECTOR) as usize..((sector + sectors) * SECTOR) as usize
        };
        let writable = || assert!(!geometry.read_only, "the device has checked that");
        let mut data = self.0.data.borrow_mut();
        let buffer = match operation {
            Operation::Read { sector, buffer } => {
                let range = range(sector, buffer.len() as u64 / SECTOR);
                if result.is_ok() {
                    buffer.write(0, &data[range]);
                }
                Some(buffer)
            }
            Operation::Write { sector, buffer } => {
                writable();
                let range = range(sector, buffer.len() as u64 / SECTOR);
                // Of a write that fails, some may have happened.
                let len = if result.is_ok() {
                    range.len()
                } else {
                    random.below(range.len())
                };
                buffer.read(0, &mut data[range.start..range.start + len]);
                Some(buffer)
            }
            Operation::Flush => {
                // One that was submitted later covers all that this one does.
                if result.is_ok() && number > self.0.flushed.get() {
                    self.0.flushed.set(number);
                    let mut durable = self.0.durable.borrow_mut();
                    let len = snapshot.len();
                    durable[..len].copy_from_slice(&snapshot);
                }
                None
            }
            Operation::Discard { sector, sectors } => {
                writable();
                assert!(sectors <= u64::from(geometry.discard.unwrap().max_sectors));
                let range = range(sector, sectors);
                data[range].fill(0xdd);
                None
            }
            Operation::WriteZeroes { sector, sectors, .. } => {
                writable();
                assert!(sectors * SECTOR <= u64::from(geometry.max_bytes));
                let range = range(sector, sectors);
                data[range].fill(0);
                None
            }
        };
        Completion { id, result, buffer }
    }
}

impl Disk for RamDisk {
    type Channel = RamChannel;

    fn geometry(&self) -> Geometry {
        self.0.geometry.get()
    }

    fn open(&self) -> RamChannel {
        let stream = Rc::new(Stream::default());
        self.0.streams.borrow_mut().push(Rc::downgrade(&stream));
        RamChannel {
            disk: self.clone(),
            stream,
        }
    }

    fn poll_geometry(&self, seen: &Geometry, context: &mut Context<'_>) -> Poll<Geometry> {
        let geometry = self.0.geometry.get();
        if geometry != *seen {
            return Poll::Ready(geometry);
        }
        self.0.geometry_waker.set(Some(context.waker().clone()));
        Poll::Pending
    }
}

pub struct RamChannel {
    disk: RamDisk,
    stream: Rc<Stream>,
}

impl Channel for RamChannel {
    type Buffer = Payload;

    fn reserve(&mut self, _: usize) -> Result<(), std::collections::TryReserveError> {
        Ok(())
    }

    fn allocate(&mut self, len: usize) -> Option<Payload> {
        let inner = &self.disk.0;
        assert!(len > 0 && len <= inner.geometry.get().max_bytes as usize);
        if inner.pool.get() < len {
            self.stream.starved.set(true);
            return None;
        }
        inner.pool.set(inner.pool.get() - len);
        self.stream.starved.set(false);
        let weak = Rc::downgrade(inner);
        Some(Payload::new(len, move |len| {
            if let Some(inner) = weak.upgrade() {
                inner.pool.set(inner.pool.get() + len);
                for stream in inner.streams.borrow().iter().filter_map(Weak::upgrade) {
                    if let Some(waker) = stream.hungry.take() {
                        waker.wake();
                    }
                }
            }
        }))
    }

    fn submit(&mut self, id: usize, operation: Operation<Payload>) {
        let mut pending = self.stream.pending.borrow_mut();
        assert!(
            id < 256 && pending.iter().all(|other| other.id != id),
            "ids are unique"
        );
        let number = self.disk.0.flushes.get() + 1;
        self.disk.0.flushes.set(number);
        let snapshot = match operation {
            Operation::Flush => self.disk.0.data.borrow().clone(),
            _ => Vec::new(),
        };
        pending.push(Pending {
            id,
            operation,
            committed: false,
            snapshot,
            number,
        });
    }

    fn give_up(&mut self) {
        self.stream.starved.set(false);
    }

    fn commit(&mut self) {
        for pending in self.stream.pending.borrow_mut().iter_mut() {
            pending.committed = true;
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Completion<Payload>> {
        if let Some(completion) = self.stream.done.borrow_mut().pop_front() {
            return Poll::Ready(completion);
        }
        self.stream.waker.set(Some(context.waker().clone()));
        if self.stream.starved.get() {
            self.stream.hungry.set(Some(context.waker().clone()));
        }
        Poll::Pending
    }
}

impl Drop for RamChannel {
    fn drop(&mut self) {
        let pending = self.stream.pending.take();
        self.disk.0.orphans.borrow_mut().extend(pending);
    }
}
