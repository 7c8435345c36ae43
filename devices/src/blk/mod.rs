//! virtio-blk (virtio 1.3, "Block Device"): a disk of an uplink, as a device.
//!
//! [`Block`] is the model of the device: features and configuration space. Each queue is served by a worker
//! of its own, which turns descriptor chains into requests to the disk.
//!
//! # Bounds
//! A read or write carries at most [`Geometry::max_bytes`]; `seg_max` and `size_max` are such that no request
//! of a driver that minds them is larger. A larger one gets an error. A queue has at most as many requests in
//! flight as it has entries; requests that find no buffer wait, and the queue takes no more until they have
//! one.

mod config;
mod counters;
mod request;
mod worker;

use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::task::{Context, Poll};

pub use counters::Counters;

use crate::bus::Bus;
use crate::device::{Model, WindowOf};
use crate::disk::{Channel, Disk, Geometry};
use crate::memory::DriverMemory;
use crate::virtqueue::split::Split;
use crate::virtqueue::{MAX_SIZE, Queue};
use config::Config;
use worker::Worker;

/// Feature bits of virtio-blk ("Feature bits"), as masks.
pub mod features {
    /// VIRTIO_BLK_F_SIZE_MAX.
    pub const SIZE_MAX: u64 = 1 << 1;
    /// VIRTIO_BLK_F_SEG_MAX.
    pub const SEG_MAX: u64 = 1 << 2;
    /// VIRTIO_BLK_F_RO.
    pub const RO: u64 = 1 << 5;
    /// VIRTIO_BLK_F_BLK_SIZE.
    pub const BLK_SIZE: u64 = 1 << 6;
    /// VIRTIO_BLK_F_FLUSH.
    pub const FLUSH: u64 = 1 << 9;
    /// VIRTIO_BLK_F_TOPOLOGY.
    pub const TOPOLOGY: u64 = 1 << 10;
    /// VIRTIO_BLK_F_CONFIG_WCE.
    pub const CONFIG_WCE: u64 = 1 << 11;
    /// VIRTIO_BLK_F_MQ.
    pub const MQ: u64 = 1 << 12;
    /// VIRTIO_BLK_F_DISCARD.
    pub const DISCARD: u64 = 1 << 13;
    /// VIRTIO_BLK_F_WRITE_ZEROES.
    pub const WRITE_ZEROES: u64 = 1 << 14;
}

/// Size in bytes of the device ID string (VIRTIO_BLK_ID_BYTES).
pub const ID_SIZE: usize = 20;

/// The virtio device type of block devices.
const DEVICE_TYPE: u32 = 2;

/// What a user may choose about a device.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The number of queues; at least 1.
    pub queues: u16,
    /// The driver may not write, even if the disk can.
    pub read_only: bool,
    /// The driver may discard, if the disk can.
    pub discard: bool,
    /// What GET_ID answers: ASCII, padded with NULs.
    pub id: [u8; ID_SIZE],
}

/// A block device.
pub struct Block<D> {
    disk: D,
    options: Options,
    /// The disk's geometry as it was last heard of.
    seen: Geometry,
    config: Config,
    shared: Rc<Shared>,
    counters: Rc<RefCell<Counters>>,
}

/// What a device and its workers share.
struct Shared {
    /// What the disk is like for this device.
    geometry: Cell<Geometry>,
    /// `writeback` of the configuration space: the driver asks for a volatile cache.
    writeback: Cell<bool>,
    /// VIRTIO_BLK_F_RO is offered.
    read_only: Cell<bool>,
    id: [u8; ID_SIZE],
}

impl<D: Disk> Block<D> {
    /// A device that serves `disk`.
    pub fn new(disk: D, options: Options) -> Self {
        Self::with_counters(disk, options, Rc::default())
    }

    /// A device that serves `disk` and counts on from what `counters` holds.
    pub fn with_counters(disk: D, options: Options, counters: Rc<RefCell<Counters>>) -> Self {
        let options = Options {
            queues: options.queues.max(1),
            ..options
        };
        let seen = disk.geometry();
        let geometry = restrict(seen, options);
        let mut block = Block {
            config: Config::default(),
            shared: Rc::new(Shared {
                geometry: Cell::new(geometry),
                writeback: Cell::new(geometry.flush),
                read_only: Cell::new(geometry.read_only),
                id: options.id,
            }),
            counters,
            disk,
            options,
            seen,
        };
        block.configure();
        block
    }

    /// The disk.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// What its queues have done.
    pub fn counters(&self) -> Counters {
        *self.counters.borrow()
    }

    /// Brings configuration space up to date, and tells whether it changed.
    fn configure(&mut self) -> bool {
        let config = Config::new(
            &self.shared.geometry.get(),
            self.options.queues,
            self.shared.writeback.get(),
        );
        core::mem::replace(&mut self.config, config) != config
    }
}

/// The disk as this device is allowed to use it.
fn restrict(geometry: Geometry, options: Options) -> Geometry {
    Geometry {
        read_only: geometry.read_only || options.read_only,
        discard: geometry.discard.filter(|_| options.discard),
        ..geometry
    }
}

impl<D, B> Model<B> for Block<D>
where
    D: Disk,
    D::Channel: 'static,
    <D::Channel as Channel>::Buffer: 'static,
    B: Bus,
    B::Memory: DriverMemory<Buffer = <D::Channel as Channel>::Buffer>,
    WindowOf<B>: 'static,
{
    type Worker = Worker<Split<WindowOf<B>>, D::Channel, B::Memory, B::Doorbell>;

    fn device_type(&self) -> u32 {
        DEVICE_TYPE
    }

    fn queues(&self) -> u16 {
        self.options.queues
    }

    fn max_queue_size(&self, _queue: u16) -> u16 {
        MAX_SIZE
    }

    fn features(&self) -> u64 {
        let geometry = self.shared.geometry.get();
        // FLUSH and CONFIG_WCE are offered even if nothing needs flushing now: "Devices SHOULD always offer
        // VIRTIO_BLK_F_FLUSH", and the uplink may get a cache later. `writeback` tells what is the case.
        let mut offered = features::SIZE_MAX
            | features::SEG_MAX
            | features::BLK_SIZE
            | features::FLUSH
            | features::TOPOLOGY
            | features::CONFIG_WCE;
        if self.options.queues > 1 {
            offered |= features::MQ;
        }
        if geometry.read_only {
            return offered | features::RO;
        }
        if geometry.discard.is_some() {
            offered |= features::DISCARD;
        }
        offered | features::WRITE_ZEROES
    }

    fn config(&mut self) -> &[u8] {
        self.config.bytes()
    }

    fn write_config(&mut self, features: u64, offset: usize, data: &[u8]) -> bool {
        // `writeback` is all that a driver may write, and only if it has accepted CONFIG_WCE ("Device
        // Operation").
        match data {
            [value @ (0 | 1)] if offset == config::WRITEBACK && features & features::CONFIG_WCE != 0 => {
                self.shared.writeback.set(*value == 1);
                self.configure();
                true
            }
            _ => false,
        }
    }

    fn poll_config(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.disk.poll_geometry(&self.seen, context) {
                Poll::Ready(geometry) => {
                    self.seen = geometry;
                    self.shared.geometry.set(restrict(geometry, self.options));
                    if self.configure() {
                        return Poll::Ready(());
                    }
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn negotiated(&mut self, features: u64) {
        // "If VIRTIO_BLK_F_CONFIG_WCE is negotiated but VIRTIO_BLK_F_FLUSH is not, the device MUST initialize
        // writeback to 0", and a driver that accepts neither expects a writethrough cache. One that accepts
        // only FLUSH "SHOULD assume presence of a writeback cache".
        let writeback = match (
            features & features::CONFIG_WCE != 0,
            features & features::FLUSH != 0,
        ) {
            (_, false) => false,
            (true, true) => self.shared.geometry.get().flush,
            (false, true) => true,
        };
        self.shared.writeback.set(writeback);
        self.configure();
    }

    fn reset(&mut self) {
        let geometry = self.shared.geometry.get();
        self.shared.writeback.set(geometry.flush);
        self.shared.read_only.set(geometry.read_only);
        self.configure();
    }

    fn start(
        &mut self,
        _queue: u16,
        ring: Split<WindowOf<B>>,
        memory: B::Memory,
        doorbell: B::Doorbell,
        features: u64,
    ) -> Self::Worker {
        let queue = Queue::new(ring, memory, doorbell, self.counters.clone(), |it| &mut it.queues);
        Worker::new(queue, self.disk.open(), self.shared.clone(), features)
    }
}
