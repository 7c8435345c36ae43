//! The model of a network device: features, configuration space, queues.

use alloc::rc::Rc;
use core::cell::RefCell;
use core::task::{Context, Poll};

use super::config::Config;
use super::counters::Counters;
use super::state::{Shared, State};
use super::worker::{Control, Receive, Transmit, Worker};
use super::{Mac, Port, features};
use crate::bus::Bus;
use crate::device::{Model, WindowOf};
use crate::memory::DriverMemory;
use crate::virtqueue::split::Split;
use crate::virtqueue::{MAX_SIZE, Queue};

/// The virtio device type of network devices.
const DEVICE_TYPE: u32 = 1;

/// The most pairs of queues.
pub const MAX_PAIRS: u16 = 64;

/// What a user may choose about a device.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Its address.
    pub mac: Mac,
    /// The driver may not take another address.
    pub mac_fixed: bool,
    /// How many pairs of queues it has, 1 to [`MAX_PAIRS`].
    pub pairs: u16,
}

/// A network device, plugged into a port.
pub struct Nic<P> {
    port: P,
    pairs: u16,
    /// Configuration space as it was last looked at.
    config: Config,
    /// The features in effect, once they were negotiated.
    features: u64,
    shared: Rc<Shared>,
    counters: Rc<RefCell<Counters>>,
}

impl<P: Port> Nic<P> {
    /// A device that sends to and receives from `port`.
    pub fn new(port: P, options: Options) -> Self {
        Self::with_counters(port, options, Rc::default())
    }

    /// Like [`new`](Self::new), and counts on from what `counters` holds.
    pub fn with_counters(port: P, options: Options, counters: Rc<RefCell<Counters>>) -> Self {
        let pairs = options.pairs.clamp(1, MAX_PAIRS);
        let state = State::new(options.mac, options.mac_fixed, pairs, port.link());
        let config = state.config();
        let nic = Nic {
            port,
            pairs,
            config,
            features: 0,
            shared: Rc::new(Shared(RefCell::new(state))),
            counters,
        };
        nic.unplug();
        nic
    }

    /// The port.
    pub fn port(&self) -> &P {
        &self.port
    }

    /// What the device has done.
    pub fn counters(&self) -> Counters {
        *self.counters.borrow()
    }

    /// Which queue is the control queue, if there is one.
    fn control_queue(&self) -> Option<u16> {
        let pairs = if self.features & features::MQ != 0 {
            self.pairs
        } else {
            1
        };
        (self.features & features::CTRL_VQ != 0).then_some(2 * pairs)
    }

    /// Nobody is there to receive: the port is to collect nothing, and forgets what it has.
    fn unplug(&self) {
        self.port.set_filter(self.shared.0.borrow().filter());
        self.port.set_queues(1);
        self.port.forget();
    }
}

impl<P, B> Model<B> for Nic<P>
where
    P: Port,
    B: Bus,
    B::Memory: DriverMemory<Buffer = P::Buffer>,
    WindowOf<B>: 'static,
{
    type Worker = Worker<Split<WindowOf<B>>, P, B::Memory, B::Doorbell>;

    fn device_type(&self) -> u32 {
        DEVICE_TYPE
    }

    fn queues(&self) -> u16 {
        2 * self.pairs + 1
    }

    fn max_queue_size(&self, _queue: u16) -> u16 {
        MAX_SIZE
    }

    fn features(&self) -> u64 {
        features::OFFERED | if self.pairs > 1 { features::MQ } else { 0 }
    }

    fn config(&mut self) -> &[u8] {
        // Workers change it, too, and the driver has to see that when its command has ended.
        self.config = self.shared.0.borrow().config();
        self.config.bytes()
    }

    fn write_config(&mut self, _features: u64, _offset: usize, _data: &[u8]) -> bool {
        // "All of the device configuration fields are read-only for the driver."
        false
    }

    fn poll_config(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let state = &mut *self.shared.0.borrow_mut();
        // What the driver has changed itself is no news to it.
        let told = state.config();
        while let Poll::Ready(link) = self.port.poll_link(&state.link, context) {
            let announced = link.announcements != state.link.announcements;
            state.announce |= announced && self.features & features::GUEST_ANNOUNCE != 0;
            state.link = link;
            if state.config() != told {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }

    fn negotiated(&mut self, features: u64) {
        self.features = features::effective(features);
        self.shared.0.borrow_mut().negotiated(self.features);
    }

    fn reset(&mut self) {
        self.features = 0;
        self.shared.0.borrow_mut().reset();
        self.unplug();
    }

    fn start(
        &mut self,
        queue: u16,
        ring: Split<WindowOf<B>>,
        memory: B::Memory,
        doorbell: B::Doorbell,
        features: u64,
    ) -> Self::Worker {
        let features = features::effective(features);
        let (port, shared) = (self.port.clone(), self.shared.clone());
        let counters = self.counters.clone();
        if self.control_queue() == Some(queue) {
            let queue = Queue::new(ring, memory, doorbell, counters, |it| &mut it.control.queues);
            return Worker::Control(Control::new(queue, port, shared, features).into());
        }
        if queue >= 2 && features & features::MQ == 0 || queue >= 2 * self.pairs {
            return Worker::Unused;
        }
        let mtu = shared.0.borrow().mtu;
        let pair = queue / 2;
        if queue % 2 == 1 {
            let queue = Queue::new(ring, memory, doorbell, counters, |it| &mut it.transmit.queues);
            return Worker::Transmit(Transmit::new(queue, port, mtu, features).into());
        }
        if queue == 0 {
            let state = &mut *shared.0.borrow_mut();
            state.wanted.open = true;
            port.set_filter(state.filter());
        }
        let mtu = (features & features::MTU != 0).then_some(mtu);
        let mergeable = features & features::MRG_RXBUF != 0;
        let queue = Queue::new(ring, memory, doorbell, counters, |it| &mut it.receive.queues);
        Worker::Receive(Receive::new(queue, port, pair, shared, mtu, mergeable).into())
    }
}
