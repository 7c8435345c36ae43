//! One virtio device, as its transport sees it: status, features, configuration space and queues.
//!
//! A transport (such as [`crate::msg`]) translates what the driver does to the methods of [`Device`]; what
//! kind of device it is comes from a [`Model`], what it stands on from a [`Bus`].

mod fault;
mod live;
mod model;
mod queues;

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::Cell;
use core::future::poll_fn;
use core::mem;
use core::task::{Context, Poll, Waker};

use bitflags::bitflags;

use crate::bus::Bus;
use crate::features;
use crate::virtqueue::QueueError;
use live::Live;

pub use fault::{Fault, SetQueueError};
pub use model::{Model, WindowOf, Worker};

bitflags! {
    /// Device status (virtio 1.3, "Device Status Field").
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Status: u32 {
        /// The driver has found the device.
        const ACKNOWLEDGE = 1;
        /// The driver knows how to drive it.
        const DRIVER = 2;
        /// The driver is ready: queues are served.
        const DRIVER_OK = 4;
        /// The features are agreed on.
        const FEATURES_OK = 8;
        /// The device met an error that only a reset ends.
        const DEVICE_NEEDS_RESET = 64;
        /// The driver has given up.
        const FAILED = 128;
    }
}

/// Where a queue is and how large.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueConfig {
    /// Number of entries; 0 if the queue is not set up.
    pub size: u32,
    /// Address of the descriptor area.
    pub descriptors: u64,
    /// Address of the driver area.
    pub driver: u64,
    /// Address of the device area.
    pub device: u64,
}

/// What the device and the tasks of its queues share.
struct Shared {
    status: Cell<Status>,
    /// The driver is to be told that the status or the configuration changed.
    event: Cell<bool>,
    /// The task to wake when `event` is set.
    waker: Cell<Option<Waker>>,
    /// The last thing that the driver did wrong.
    fault: Cell<Option<Fault>>,
}

impl Shared {
    fn announce(&self) {
        self.event.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// A queue was broken by the driver.
    fn broken(&self, queue: u16, error: QueueError) {
        self.fault.set(Some(Fault::Broken(queue, error)));
        self.status.set(self.status.get() | Status::DEVICE_NEEDS_RESET);
        self.announce();
    }
}

struct Queue<M: Model<B>, B: Bus> {
    config: QueueConfig,
    live: Option<Rc<Live<M::Worker>>>,
}

/// A virtio device.
///
/// Its queues run as tasks of their own, spawned on the bus. Dropping the device ends them at once.
pub struct Device<M: Model<B>, B: Bus> {
    model: M,
    bus: B,
    shared: Rc<Shared>,
    queues: Vec<Queue<M, B>>,
    offered: u64,
    accepted: u64,
    /// The driver accepted a feature beyond those that fit in 64 bits.
    accepted_beyond: bool,
    generation: u32,
}

impl<M: Model<B>, B: Bus> Device<M, B> {
    /// A device in the state after a reset.
    pub fn new(model: M, bus: B) -> Self {
        let queues = (0..model.queues())
            .map(|_| Queue {
                config: QueueConfig::default(),
                live: None,
            })
            .collect();
        let mut device = Device {
            model,
            bus,
            shared: Rc::new(Shared {
                status: Cell::new(Status::empty()),
                event: Cell::new(false),
                waker: Cell::new(None),
                fault: Cell::new(None),
            }),
            queues,
            offered: 0,
            accepted: 0,
            accepted_beyond: false,
            generation: 0,
        };
        device.offer();
        device
    }

    /// What kind of device it is.
    pub fn model(&self) -> &M {
        &self.model
    }

    fn offer(&mut self) {
        self.offered = self.model.features()
            | features::INDIRECT_DESC
            | features::EVENT_IDX
            | features::RING_RESET
            | features::VERSION_1
            | B::FEATURES;
    }

    /// The features offered since the last reset.
    pub fn offered_features(&self) -> u64 {
        self.offered
    }

    /// The driver accepts these 32 of its features, block 0 being the lowest bits. After FEATURES_OK it has
    /// no effect.
    pub fn accept_features(&mut self, block: u32, bits: u32) {
        if self.status().contains(Status::FEATURES_OK) {
            return;
        }
        match block {
            0 | 1 => {
                let shift = 32 * block;
                self.accepted = self.accepted & !(u64::from(u32::MAX) << shift) | u64::from(bits) << shift;
            }
            _ => self.accepted_beyond |= bits != 0,
        }
    }

    /// Whether the features that the driver accepts are ones that the device can work with ("Feature Bits").
    fn acceptable(&self) -> bool {
        let required = features::VERSION_1 | B::FEATURES;
        !self.accepted_beyond && self.accepted & !self.offered == 0 && self.accepted & required == required
    }

    /// The device status.
    pub fn status(&self) -> Status {
        self.shared.status.get()
    }

    /// The driver writes the device status. The result is what the status is then: bits that are not to be
    /// had yet, such as FEATURES_OK for features that cannot be, stay clear.
    ///
    /// Writing 0 resets the device: see [`reset`](Self::reset).
    pub async fn set_status(&mut self, value: u32) -> Status {
        if value == 0 {
            self.reset().await;
            return self.status();
        }
        // "The driver MUST NOT clear a device status bit": bits are only ever added. DEVICE_NEEDS_RESET is
        // not the driver's to write.
        let wanted = Status::from_bits_truncate(value) - Status::DEVICE_NEEDS_RESET;
        let mut status = self.status() | (wanted - Status::FEATURES_OK - Status::DRIVER_OK);
        if wanted.contains(Status::FEATURES_OK) && !status.contains(Status::FEATURES_OK) && self.acceptable()
        {
            status |= Status::FEATURES_OK;
            self.model.negotiated(self.accepted);
        }
        let start = wanted.contains(Status::DRIVER_OK)
            && status.contains(Status::FEATURES_OK)
            && !status.contains(Status::DRIVER_OK);
        if start {
            status |= Status::DRIVER_OK;
        }
        self.shared.status.set(status);
        if start {
            for queue in 0..self.model.queues() {
                self.run(queue);
            }
        }
        status
    }

    /// Resets the device ("Device Reset"): ends all queues, forgets what was negotiated. It waits until
    /// nothing that a queue asked of an uplink is under way, so that nothing of before can overtake what
    /// comes after.
    ///
    /// If the future is dropped before it resolves, all queues are gone, but the status is not 0: call it
    /// again, or drop the device.
    pub async fn reset(&mut self) {
        let ended: Vec<_> = self
            .queues
            .iter_mut()
            .filter_map(|queue| queue.live.take())
            .collect();
        for live in &ended {
            live.stop();
        }
        for live in ended {
            poll_fn(|context| live.poll_quiesce(context)).await;
        }
        for (index, queue) in (0..).zip(&mut self.queues) {
            queue.config = QueueConfig::default();
            drop(self.bus.doorbell(index));
        }
        self.shared.status.set(Status::empty());
        self.shared.event.set(false);
        self.accepted = 0;
        self.accepted_beyond = false;
        self.model.reset();
        self.offer();
    }

    /// The configuration space.
    pub fn config(&mut self) -> &[u8] {
        self.model.config()
    }

    /// The configuration generation: it differs whenever the device has changed configuration space by
    /// itself.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// The driver writes to configuration space. The result tells whether it was possible; if not, nothing
    /// has changed.
    pub fn write_config(&mut self, offset: u32, data: &[u8]) -> bool {
        let Ok(offset) = usize::try_from(offset) else {
            return false;
        };
        let inside = offset
            .checked_add(data.len())
            .is_some_and(|end| end <= self.model.config().len());
        // Before FEATURES_OK "the driver MUST NOT write the device-specific configuration fields" ("Device
        // Initialization").
        inside
            && self.status().contains(Status::FEATURES_OK)
            && self.model.write_config(self.accepted, offset, data)
    }

    /// `Ready` while the driver has to be told that the status or the configuration space changed by itself:
    /// until [`take_event`](Self::take_event). `Pending` registers the task.
    pub fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.model.poll_config(context).is_ready() {
            self.generation = self.generation.wrapping_add(1);
            // Without a driver there is nobody to tell.
            if !self.status().is_empty() {
                self.shared.event.set(true);
            }
        }
        if self.shared.event.get() {
            return Poll::Ready(());
        }
        self.shared.waker.set(Some(context.waker().clone()));
        Poll::Pending
    }

    /// The driver is being told: whether there was something to tell.
    pub fn take_event(&mut self) -> bool {
        self.shared.event.replace(false)
    }

    /// The last thing that the driver did wrong, once. There may be one after a message was handled, and
    /// after an event was due.
    pub fn take_fault(&mut self) -> Option<Fault> {
        self.shared.fault.take()
    }

    /// The bus, and which queues are set up, for requests that only the bus knows.
    pub(crate) fn extension(&mut self, id: u8, payload: &[u8], response: &mut [u8]) -> Option<usize> {
        let in_use = self.in_use();
        self.bus.extension(id, payload, &in_use, response)
    }
}

impl<M: Model<B>, B: Bus> Drop for Device<M, B> {
    fn drop(&mut self) {
        // The tasks are woken to find that their queues are gone.
        for queue in mem::take(&mut self.queues) {
            if let Some(live) = queue.live {
                live.stop();
            }
        }
    }
}
