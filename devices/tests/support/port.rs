//! A network that is a port: it keeps what is sent, and gives what a test puts in.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use devices::memory::Buffer;
use devices::net::{
    Account, ETHERNET_HEADER, Filter, Frame, Link, MAX_FRAME, Mac, Nic, Offload, Options, Port,
};

use super::Random;
use super::guest::Payload;
use super::machine::{Machine, Uplink};

pub const MAC: Mac = [2, 0, 0, 0, 0, 0x10];

pub const LINK: Link = Link {
    up: true,
    mtu: 1500,
    speed: 10_000,
    announcements: 0,
};

/// What most tests use.
pub const NIC: Options = Options {
    mac: MAC,
    mac_fixed: false,
    pairs: 1,
};

#[derive(Default)]
struct Queue {
    frames: RefCell<VecDeque<Frame<Payload>>>,
    waker: Cell<Option<Waker>>,
}

pub struct Inner {
    /// What was sent, and not yet taken by anybody: it is on the sender's account.
    pub sent: RefCell<VecDeque<Frame<Payload>>>,
    /// What was taken.
    pub taken: RefCell<Vec<(Vec<u8>, Offload)>>,
    pub account: Rc<Account>,
    queues: Vec<Queue>,
    pub used_queues: Cell<u16>,
    pub filter: RefCell<Option<Filter>>,
    link: Cell<Link>,
    link_waker: Cell<Option<Waker>>,
}

#[derive(Clone)]
pub struct TestPort(pub Rc<Inner>);

impl TestPort {
    /// With room for so many bytes under way.
    pub fn new(room: usize) -> Self {
        TestPort(Rc::new(Inner {
            sent: RefCell::default(),
            taken: RefCell::default(),
            account: Account::new(room),
            queues: (0..64).map(|_| Queue::default()).collect(),
            used_queues: Cell::new(0),
            filter: RefCell::default(),
            link: Cell::new(LINK),
            link_waker: Cell::default(),
        }))
    }

    pub fn machine(&self, options: Options, seed: u64) -> Machine<TestPort> {
        Machine::with(
            Nic::new(self.clone(), options),
            self.clone(),
            2 * options.pairs + 1,
            seed,
        )
    }

    pub fn set_link(&self, link: Link) {
        self.0.link.set(link);
        if let Some(waker) = self.0.link_waker.take() {
            waker.wake();
        }
    }

    /// Gives a frame to a queue.
    pub fn put(&self, queue: usize, bytes: &[u8], offload: Offload) {
        self.put_frame(queue, frame(bytes, offload));
    }

    pub fn put_frame(&self, queue: usize, frame: Frame<Payload>) {
        let queue = &self.0.queues[queue];
        queue.frames.borrow_mut().push_back(frame);
        if let Some(waker) = queue.waker.take() {
            waker.wake();
        }
    }

    /// How many frames wait.
    pub fn waiting(&self) -> usize {
        self.0
            .queues
            .iter()
            .map(|queue| queue.frames.borrow().len())
            .sum()
    }

    pub fn filter(&self) -> Filter {
        self.0.filter.borrow().clone().unwrap()
    }

    /// What was taken since the last call.
    pub fn take(&self) -> Vec<(Vec<u8>, Offload)> {
        self.0.taken.take()
    }
}

/// A frame of these bytes.
pub fn frame(bytes: &[u8], offload: Offload) -> Frame<Payload> {
    let buffer = Payload::new(bytes.len(), |_| {});
    buffer.write(0, bytes);
    Frame::new(buffer, offload, None)
}

/// The bytes of a frame.
pub fn bytes(frame: &Frame<Payload>) -> Vec<u8> {
    let mut bytes = vec![0; frame.len()];
    frame.buffer().read(0, &mut bytes);
    bytes
}

impl Uplink for TestPort {
    type Model = Nic<TestPort>;

    fn step(&self, _random: &mut Random) -> bool {
        let Some(frame) = self.0.sent.borrow_mut().pop_front() else {
            return false;
        };
        self.0.taken.borrow_mut().push((bytes(&frame), frame.offload));
        true
    }
}

impl Port for TestPort {
    type Buffer = Payload;

    fn allocate(&self, len: usize) -> Option<Frame<Payload>> {
        assert!((ETHERNET_HEADER..=MAX_FRAME).contains(&len));
        let charge = self.0.account.charge(len)?;
        let buffer = Payload::new(len, |_| {});
        Some(Frame::new(buffer, Offload::default(), Some(charge)))
    }

    fn poll_ready(&self, len: usize, context: &mut Context<'_>) -> Poll<()> {
        self.0.account.poll_room(len, context.waker())
    }

    fn send(&self, frame: Frame<Payload>) {
        self.0.sent.borrow_mut().push_back(frame);
    }

    fn poll_receive(&self, queue: u16, context: &mut Context<'_>) -> Poll<Frame<Payload>> {
        let queue = &self.0.queues[usize::from(queue)];
        if let Some(frame) = queue.frames.borrow_mut().pop_front() {
            return Poll::Ready(frame);
        }
        queue.waker.set(Some(context.waker().clone()));
        Poll::Pending
    }

    fn forget(&self) {
        for queue in &self.0.queues {
            queue.frames.borrow_mut().clear();
        }
    }

    fn set_queues(&self, queues: u16) {
        self.0.used_queues.set(queues);
    }

    fn set_filter(&self, filter: Filter) {
        *self.0.filter.borrow_mut() = Some(filter);
    }

    fn link(&self) -> Link {
        self.0.link.get()
    }

    fn poll_link(&self, seen: &Link, context: &mut Context<'_>) -> Poll<Link> {
        let link = self.0.link.get();
        if link != *seen {
            return Poll::Ready(link);
        }
        self.0.link_waker.set(Some(context.waker().clone()));
        Poll::Pending
    }
}
