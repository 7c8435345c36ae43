//! A device on a test bus, with a driver that speaks virtio-msg to it.

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use devices::blk::{Block, Options};
use devices::bus::Bus;
use devices::device::{Device, Fault, Model, Status};
use devices::features::ACCESS_PLATFORM;
use devices::msg::wire::{self, Header, id};
use devices::msg::{self, MAX_SIZE, Malformed};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Random;
use super::disk::RamDisk;
use super::driver::{Bell, BellHandle, Driver};
use super::executor::{Executor, Flag};
use super::guest::{BASE, Guest, Shared};

/// Where the areas of a queue are.
pub const fn areas(queue: usize) -> usize {
    0x4000 * queue
}

/// Where payload may be.
pub const ARENA: usize = 0x20000;
pub const MEMORY: usize = 4 << 20;

pub struct TestBus {
    guest: Rc<Guest>,
    executor: Rc<Executor>,
    bells: Vec<Rc<Bell>>,
}

impl Bus for TestBus {
    type Memory = Shared;
    type Doorbell = BellHandle;

    const VENDOR: u32 = 0x7465_7374;
    const FEATURES: u64 = ACCESS_PLATFORM;

    fn memory(&self) -> Shared {
        Shared(self.guest.clone())
    }

    fn doorbell(&mut self, queue: u16) -> Option<BellHandle> {
        let bell = &self.bells[usize::from(queue)];
        let refuse = bell.refuse.replace(bell.refuse.get() || bell.once.get());
        (!refuse).then(|| BellHandle::new(bell.clone()))
    }

    fn spawn(&mut self, task: impl Future<Output = ()> + 'static) {
        self.executor.spawn(task);
    }

    fn extension(&mut self, id: u8, payload: &[u8], in_use: &[bool], response: &mut [u8]) -> Option<usize> {
        // Answers with what it was told.
        let wanted = payload.first()?;
        response[0] = *wanted;
        response[1] = in_use.iter().filter(|in_use| **in_use).count() as u8;
        (id == 0x80).then_some(2)
    }
}

/// What a device stands on.
pub trait Uplink: Clone {
    type Model: Model<TestBus>;

    /// Does one thing that there is to do; tells whether there was anything.
    fn step(&self, random: &mut Random) -> bool;
}

impl Uplink for RamDisk {
    type Model = Block<RamDisk>;

    fn step(&self, random: &mut Random) -> bool {
        RamDisk::step(self, random)
    }
}

pub struct Machine<U: Uplink = RamDisk> {
    pub guest: Rc<Guest>,
    pub uplink: U,
    pub executor: Rc<Executor>,
    pub bells: Vec<Rc<Bell>>,
    pub device: Device<U::Model, TestBus>,
    pub random: Random,
    /// EVENT_CONFIGs that the device sent: status and generation.
    pub events: Vec<(u32, u32)>,
    pub faults: Vec<Fault>,
    event_flag: std::sync::Arc<Flag>,
}

pub const OPTIONS: Options = Options {
    queues: 1,
    read_only: false,
    discard: true,
    id: *b"a disk of 20 letters",
};

impl Machine {
    pub fn new(disk: RamDisk, options: Options, seed: u64) -> Self {
        Machine::with(Block::new(disk.clone(), options), disk, options.queues, seed)
    }
}

impl<U: Uplink> Machine<U> {
    /// A device with so many queues.
    pub fn with(model: U::Model, uplink: U, queues: u16, seed: u64) -> Self {
        let guest = Guest::new(MEMORY);
        let executor = Executor::new();
        let bells: Vec<Rc<Bell>> = (0..queues).map(|_| Rc::default()).collect();
        let bus = TestBus {
            guest: guest.clone(),
            executor: executor.clone(),
            bells: bells.clone(),
        };
        let device = Device::new(model, bus);
        Machine {
            guest,
            uplink,
            executor,
            bells,
            device,
            random: Random::new(seed),
            events: Vec::new(),
            faults: Vec::new(),
            event_flag: Flag::new(),
        }
    }

    /// Does one thing that there is to do; tells whether there was anything.
    pub fn step(&mut self) -> bool {
        match self.random.below(3) {
            0 if self.step_event() => return true,
            1 if self.uplink.step(&mut self.random) => return true,
            2 if self.executor.step(&mut self.random) => return true,
            _ => {}
        }
        self.executor.step(&mut self.random) || self.uplink.step(&mut self.random) || self.step_event()
    }

    /// Sends an event if the device has announced one.
    fn step_event(&mut self) -> bool {
        if !self.event_flag.take() {
            return false;
        }
        let waker = Waker::from(self.event_flag.clone());
        while self
            .device
            .poll_event(&mut Context::from_waker(&waker))
            .is_ready()
        {
            let mut message = [0; MAX_SIZE];
            let size = msg::event_config(&mut self.device, &mut message);
            let header = Header::read_from_bytes(&message[..8]).unwrap();
            assert_eq!(
                (header.kind, header.id, header.device.get()),
                (0, id::EVENT_CONFIG, 0)
            );
            assert_eq!(usize::from(header.size.get()), size);
            let event = wire::EventConfig::read_from_bytes(&message[8..size]).unwrap();
            self.events.push((event.status.get(), event.generation.get()));
        }
        self.faults.extend(self.device.take_fault());
        true
    }

    /// Does everything that there is to do; tells how much it was.
    pub fn run(&mut self) -> usize {
        for steps in 0..1_000_000 {
            if !self.step() {
                return steps;
            }
        }
        panic!("it never comes to rest");
    }

    /// Sends a message, and gives the response if there is one, doing everything else meanwhile.
    pub fn send(&mut self, message: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
        let flag = Flag::new();
        let waker = Waker::from(flag.clone());
        let mut response = [0xaa; MAX_SIZE];
        let size = {
            let mut handle = pin!(msg::handle(&mut self.device, message, &mut response));
            loop {
                if flag.take()
                    && let Poll::Ready(size) = handle.as_mut().poll(&mut Context::from_waker(&waker))
                {
                    break size;
                }
                let busy = self.executor.step(&mut self.random);
                let busy = self.uplink.step(&mut self.random) || busy;
                assert!(busy || flag.is_set(), "nobody answers");
            }
        }?;
        self.faults.extend(self.device.take_fault());
        Ok(size.map(|size| response[..size].to_vec()))
    }

    /// Sends a request to the device, and gives the response's payload.
    pub fn request(&mut self, kind: u8, id: u8, payload: &[u8]) -> Vec<u8> {
        let size = (8 + payload.len()) as u16;
        let header = Header {
            kind,
            id,
            device: 0.into(),
            token: (self.random.next() as u16).into(),
            size: size.into(),
        };
        let mut message = header.as_bytes().to_vec();
        message.extend(payload);
        message.resize(MAX_SIZE, 0x55);
        let response = self.send(&message).unwrap().unwrap();
        let (answer, rest) = Header::read_from_prefix(&response).unwrap();
        assert_eq!(
            answer,
            Header {
                kind: kind | 1,
                size: (response.len() as u16).into(),
                ..header
            },
            "the response belongs to the request"
        );
        rest.to_vec()
    }

    pub fn ask<T: FromBytes + KnownLayout + Immutable>(
        &mut self,
        id: u8,
        fields: &(impl IntoBytes + Immutable),
    ) -> T {
        let response = self.request(0, id, fields.as_bytes());
        T::read_from_bytes(&response).expect("a response of the right size")
    }

    pub fn set_status(&mut self, status: u32) -> u32 {
        let request = wire::DeviceStatus {
            status: status.into(),
        };
        self.ask::<wire::DeviceStatus>(id::SET_DEVICE_STATUS, &request)
            .status
            .get()
    }

    pub fn offered(&mut self) -> u64 {
        let request = wire::Features {
            first_block: 0.into(),
            blocks: 2.into(),
        };
        let response = self.request(0, id::GET_DEVICE_FEATURES, request.as_bytes());
        u64::from_le_bytes(response[8..].try_into().unwrap())
    }

    pub fn accept(&mut self, features: u64) {
        let mut request = wire::Features {
            first_block: 0.into(),
            blocks: 2.into(),
        }
        .as_bytes()
        .to_vec();
        request.extend(features.to_le_bytes());
        assert!(self.request(0, id::SET_DRIVER_FEATURES, &request).is_empty());
    }

    /// Accepts features; tells whether the device accepts that.
    pub fn negotiate(&mut self, features: u64) -> bool {
        self.set_status(0);
        self.set_status(1);
        self.set_status(3);
        self.accept(features);
        self.set_status(11) == 11
    }

    /// Sets a queue up; gives its driver if that worked.
    pub fn set_queue(&mut self, queue: usize, size: u16, features: u64) -> Option<Driver> {
        let base = areas(queue);
        let driver = Driver::new(
            self.guest.clone(),
            self.bells[queue].clone(),
            size,
            base,
            features,
        );
        let request = wire::SetQueue {
            index: (queue as u32).into(),
            size: u32::from(size).into(),
            descriptors: (BASE + driver.areas[0] as u64).into(),
            driver: (BASE + driver.areas[1] as u64).into(),
            device: (BASE + driver.areas[2] as u64).into(),
            ..Default::default()
        };
        assert!(self.request(0, id::SET_VQUEUE, request.as_bytes()).is_empty());
        (self.queue_size(queue) == u32::from(size)).then_some(driver)
    }

    pub fn queue_size(&mut self, queue: usize) -> u32 {
        let request = wire::Index {
            index: (queue as u32).into(),
        };
        self.ask::<wire::Queue>(id::GET_VQUEUE, &request).size.get()
    }

    pub fn reset_queue(&mut self, queue: usize) {
        let request = wire::Index {
            index: (queue as u32).into(),
        };
        assert!(self.request(0, id::RESET_VQUEUE, request.as_bytes()).is_empty());
    }

    /// A device that is up, with one driver per queue.
    pub fn start(&mut self, features: u64, size: u16) -> Vec<Driver> {
        assert!(self.negotiate(features));
        let drivers = (0..self.bells.len())
            .map(|queue| self.set_queue(queue, size, features).unwrap())
            .collect();
        assert_eq!(self.set_status(15), 15);
        drivers
    }

    pub fn needs_reset(&self) -> bool {
        self.device.status().contains(Status::DEVICE_NEEDS_RESET)
    }

    pub fn config<T: FromBytes>(&mut self, offset: u32) -> T {
        let length = size_of::<T>();
        let request = wire::GetConfig {
            offset: offset.into(),
            length: (length as u32).into(),
        };
        let response = self.request(0, id::GET_CONFIG, request.as_bytes());
        T::read_from_bytes(&response[12..]).unwrap()
    }
}
