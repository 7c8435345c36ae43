//! The queues of a device: set up, run, reset one by one.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::future::poll_fn;

use super::live::{self, Live};
use super::{Device, Fault, Model, Queue, QueueConfig, SetQueueError, Status};
use crate::bus::Bus;
use crate::features;
use crate::memory::DriverMemory;
use crate::virtqueue::split::{self, Split};

impl<M: Model<B>, B: Bus> Device<M, B> {
    /// The largest size of a queue, or `None` if there is no such queue.
    pub fn max_queue_size(&self, queue: u32) -> Option<u16> {
        let queue = u16::try_from(queue).ok()?;
        (queue < self.model.queues()).then(|| self.model.max_queue_size(queue))
    }

    /// How a queue is set up, or `None` if there is no such queue.
    pub fn queue(&self, queue: u32) -> Option<QueueConfig> {
        self.queues.get(queue as usize).map(|queue| queue.config)
    }

    /// For each queue, whether it is set up.
    pub fn in_use(&self) -> Vec<bool> {
        self.queues.iter().map(|queue| queue.live.is_some()).collect()
    }

    /// Sets up a queue: maps its areas, and serves it once the driver is ready.
    pub fn set_queue(&mut self, queue: u32, config: QueueConfig) -> Result<(), SetQueueError> {
        self.try_set_queue(queue, config)
            .inspect_err(|error| self.shared.fault.set(Some(Fault::Refused(queue, *error))))
    }

    fn try_set_queue(&mut self, queue: u32, config: QueueConfig) -> Result<(), SetQueueError> {
        let max = self.max_queue_size(queue).ok_or(SetQueueError::NoSuchQueue)?;
        // In range: max_queue_size has checked it.
        let queue = queue as u16;
        if !self.status().contains(Status::FEATURES_OK) {
            return Err(SetQueueError::NoFeatures);
        }
        if self.queues[usize::from(queue)].live.is_some() {
            return Err(SetQueueError::InUse);
        }
        if !config.size.is_power_of_two() || config.size > u32::from(max) {
            return Err(SetQueueError::BadSize);
        }
        let size = config.size as u16;
        let areas = split::areas(size);
        let addresses = [config.descriptors, config.driver, config.device];
        if areas
            .iter()
            .zip(addresses)
            .any(|(area, address)| address % area.align != 0)
        {
            return Err(SetQueueError::Unaligned);
        }
        let memory = self.bus.memory();
        let map = |part: usize, writable| {
            memory
                .map(addresses[part], areas[part].len, writable)
                .map_err(SetQueueError::Memory)
        };
        let (descriptors, driver, device) = (map(0, false)?, map(1, false)?, map(2, true)?);
        let doorbell = self.bus.doorbell(queue).ok_or(SetQueueError::NoDoorbell)?;
        let ring = Split::new(descriptors, driver, device, size, self.accepted);
        let worker = self.model.start(queue, ring, memory, doorbell, self.accepted);
        self.queues[usize::from(queue)] = Queue {
            config,
            live: Some(Rc::new(Live::new(worker))),
        };
        if self.status().contains(Status::DRIVER_OK) {
            self.run(queue);
        }
        Ok(())
    }

    /// Resets one queue ("Virtqueue Reset"), if the driver has accepted that feature; waits like
    /// [`reset`](Self::reset).
    pub async fn reset_queue(&mut self, queue: u32) {
        if self.accepted & features::RING_RESET == 0 {
            return;
        }
        let Ok(index) = u16::try_from(queue) else {
            return;
        };
        let Some(queue) = self.queues.get_mut(usize::from(index)) else {
            return;
        };
        if let Some(live) = queue.live.take() {
            live.stop();
            poll_fn(|context| live.poll_quiesce(context)).await;
        }
        queue.config = QueueConfig::default();
        drop(self.bus.doorbell(index));
    }

    /// Starts the task of a queue, if it is set up.
    pub(super) fn run(&mut self, queue: u16) {
        if let Some(live) = &self.queues[usize::from(queue)].live {
            let shared = self.shared.clone();
            self.bus.spawn(live::run(Rc::downgrade(live), move |error| {
                shared.broken(queue, error)
            }));
        }
    }
}
