//! [`Transport`] for `virtio-drivers`: what a driver asks for, as messages.
//!
//! The trait has no errors. What goes wrong is kept, to be asked for by [`failure`](XenTransport::failure) of
//! a clone, and logged.

use alloc::rc::Rc;
use alloc::string::String;
use core::cell::RefCell;

use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{Error, PhysAddr};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::device::{Areas, Device, features};
use crate::report::Outcome;

/// A device as `virtio-drivers` wants it. Clones are the same device.
#[derive(Clone)]
pub struct XenTransport {
    device: Rc<Device>,
    device_type: DeviceType,
    /// The transport's own features that are accepted on behalf of a driver that does not know of them.
    accept: u64,
    failure: Rc<RefCell<Option<String>>>,
}

impl XenTransport {
    /// For a connected device. `ring_reset` accepts VIRTIO_F_RING_RESET, so that a driver's end resets its
    /// queue alone.
    pub fn new(device: Rc<Device>, ring_reset: bool) -> Outcome<Self> {
        let device_type = device.info()?.device_type.get();
        let device_type = u8::try_from(device_type)
            .ok()
            .and_then(|number| DeviceType::try_from(number).ok())
            .ok_or("not a known type of device")?;
        Ok(Self {
            device,
            device_type,
            accept: features::ACCESS_PLATFORM | if ring_reset { features::RING_RESET } else { 0 },
            failure: Rc::default(),
        })
    }

    /// What went wrong first, if anything did.
    pub fn failure(&self) -> Outcome {
        self.failure.borrow_mut().take().map_or(Ok(()), Err)
    }

    /// Takes note of an error, and goes on with a default.
    fn noted<T: Default>(&self, outcome: Outcome<T>) -> T {
        outcome.unwrap_or_else(|error| {
            log::warn!("transport: {error}");
            self.failure.borrow_mut().get_or_insert(error);
            T::default()
        })
    }
}

impl Transport for XenTransport {
    fn device_type(&self) -> DeviceType {
        self.device_type
    }

    fn read_device_features(&mut self) -> u64 {
        self.noted(self.device.features())
    }

    fn write_driver_features(&mut self, driver_features: u64) {
        self.noted(self.device.accept_features(driver_features | self.accept));
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.noted(self.device.queue(queue.into()).map(|queue| queue.max_size.get()))
    }

    fn notify(&mut self, queue: u16) {
        if let Some(channel) = self.device.channel(queue) {
            channel.notify();
        }
    }

    fn get_status(&self) -> DeviceStatus {
        DeviceStatus::from_bits_retain(self.noted(self.device.status()))
    }

    fn set_status(&mut self, status: DeviceStatus) {
        let wanted = status.bits();
        let outcome = self.device.set_status(wanted).and_then(|seen| {
            if seen == wanted {
                Ok(())
            } else {
                Err(alloc::format!("the status is {seen:#x}, not {wanted:#x}"))
            }
        });
        self.noted(outcome);
    }

    fn set_guest_page_size(&mut self, _guest_page_size: u32) {}

    fn requires_legacy_layout(&self) -> bool {
        false
    }

    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        descriptors: PhysAddr,
        driver_area: PhysAddr,
        device_area: PhysAddr,
    ) {
        let areas = Areas {
            descriptors,
            driver: driver_area,
            device: device_area,
        };
        self.noted(self.device.start_queue(queue, size, areas).map(drop));
    }

    fn queue_unset(&mut self, queue: u16) {
        let outcome = if self.accept & features::RING_RESET != 0 {
            self.device.reset_queue(queue)
        } else {
            self.device.set_status(0).map(drop)
        };
        self.noted(outcome);
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        self.noted(self.device.queue(queue.into()).map(|queue| queue.size.get() != 0))
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        // Event channels have no status to acknowledge; a queue's says that buffers were used, the messages'
        // that the configuration changed.
        let event = self.noted(self.device.connection().take_event());
        InterruptStatus::QUEUE_INTERRUPT
            | if event.is_some() {
                InterruptStatus::DEVICE_CONFIGURATION_INTERRUPT
            } else {
                InterruptStatus::empty()
            }
    }

    fn read_config_generation(&self) -> u32 {
        self.noted(self.device.config(0, 0).map(|(generation, _)| generation))
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T, Error> {
        let config = self.device.config(offset as u32, size_of::<T>() as u32);
        let bytes = self.noted(config.map(|(_, bytes)| bytes));
        T::read_from_bytes(&bytes).map_err(|_| Error::ConfigSpaceTooSmall)
    }

    fn write_config_space<T: IntoBytes + Immutable>(&mut self, offset: usize, value: T) -> Result<(), Error> {
        let generation = self.read_config_generation();
        let taken = self
            .device
            .set_config(generation, offset as u32, value.as_bytes());
        if self.noted(taken) {
            Ok(())
        } else {
            Err(Error::InvalidParam)
        }
    }
}
