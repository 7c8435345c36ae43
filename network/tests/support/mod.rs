//! Memory, a clock, and frames, to test switches with.

#![allow(dead_code, reason = "each test uses its part of it")]

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use devices::memory::Buffer;
use devices::net::{Frame, Link, Mac, Port};
use network::switch::{Memory, PAGE, Plug, PortOptions, Switch, SwitchOptions};
use network::time::Time;

/// Memory of a limited number of pages.
#[derive(Clone)]
pub struct Pool(Rc<PoolState>);

struct PoolState {
    free: Cell<usize>,
    waiting: RefCell<Vec<Waker>>,
}

pub struct Bytes {
    bytes: RefCell<Vec<u8>>,
    pool: Pool,
}

impl Pool {
    pub fn new(pages: usize) -> Self {
        Pool(Rc::new(PoolState {
            free: Cell::new(pages),
            waiting: RefCell::default(),
        }))
    }

    pub fn free(&self) -> usize {
        self.0.free.get()
    }
}

impl Memory for Pool {
    type Buffer = Bytes;

    fn allocate(&self, len: usize) -> Option<Bytes> {
        let left = self.free().checked_sub(len.div_ceil(PAGE))?;
        self.0.free.set(left);
        Some(Bytes {
            bytes: RefCell::new(vec![0xdd; len]),
            pool: self.clone(),
        })
    }

    fn poll_free(&self, len: usize, context: &mut Context<'_>) -> Poll<()> {
        if self.free() >= len.div_ceil(PAGE) {
            return Poll::Ready(());
        }
        self.0.waiting.borrow_mut().push(context.waker().clone());
        Poll::Pending
    }
}

impl Buffer for Bytes {
    fn len(&self) -> usize {
        self.bytes.borrow().len()
    }

    fn read(&self, offset: usize, to: &mut [u8]) {
        to.copy_from_slice(&self.bytes.borrow()[offset..][..to.len()]);
    }

    fn write(&self, offset: usize, from: &[u8]) {
        self.bytes.borrow_mut()[offset..][..from.len()].copy_from_slice(from);
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        let pool = &self.pool.0;
        pool.free
            .set(pool.free.get() + self.bytes.borrow().len().div_ceil(PAGE));
        pool.waiting.take().into_iter().for_each(Waker::wake);
    }
}

/// A clock that a test moves.
#[derive(Clone, Default)]
pub struct Clock(Rc<ClockState>);

#[derive(Default)]
struct ClockState {
    now: Cell<Duration>,
    reads: Cell<usize>,
    sleeping: RefCell<Vec<(Duration, Waker)>>,
}

impl Clock {
    pub fn advance(&self, by: Duration) {
        self.0.now.set(self.0.now.get() + by);
        let (due, later) = self
            .0
            .sleeping
            .take()
            .into_iter()
            .partition(|(at, _)| *at <= self.0.now.get());
        self.0.sleeping.replace(later);
        due.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// How often the clock was read.
    pub fn reads(&self) -> usize {
        self.0.reads.get()
    }

    /// When the next timer expires.
    pub fn next(&self) -> Option<Duration> {
        self.0.sleeping.borrow().iter().map(|(at, _)| *at).min()
    }
}

impl Time for Clock {
    type Sleep = Sleep;

    fn now(&self) -> Duration {
        self.0.reads.set(self.0.reads.get() + 1);
        self.0.now.get()
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        Sleep(self.0.now.get() + duration, self.clone())
    }
}

pub struct Sleep(Duration, Clock);

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let clock = &self.1.0;
        if clock.now.get() >= self.0 {
            return Poll::Ready(());
        }
        clock
            .sleeping
            .borrow_mut()
            .push((self.0, context.waker().clone()));
        Poll::Pending
    }
}

/// A waker that remembers that it was woken.
pub struct Flag(AtomicBool);

impl Flag {
    pub fn new() -> Arc<Self> {
        Arc::new(Flag(AtomicBool::new(false)))
    }

    pub fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }

    pub fn waker(self: &Arc<Self>) -> Waker {
        self.clone().into()
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub type TestPlug = Plug<Pool, Clock>;

/// A switch with what it needs.
pub struct Net {
    pub switch: Switch<Pool, Clock>,
    pub pool: Pool,
    pub clock: Clock,
    keeper: Pin<Box<dyn Future<Output = ()>>>,
    flag: Arc<Flag>,
}

pub const LINK: Link = Link {
    up: true,
    mtu: 1500,
    speed: 1000,
    announcements: 0,
};

impl Net {
    pub fn new() -> Self {
        Self::with(SwitchOptions::default(), 1 << 20)
    }

    pub fn with(options: SwitchOptions, pages: usize) -> Self {
        let (pool, clock) = (Pool::new(pages), Clock::default());
        let (switch, keeper) = Switch::new(pool.clone(), clock.clone(), options);
        let mut net = Net {
            switch,
            pool,
            clock,
            keeper: Box::pin(keeper),
            flag: Flag::new(),
        };
        net.flag.clone().wake();
        assert!(!net.keep());
        net
    }

    /// Runs the switch's task if it was woken; tells whether it has ended.
    pub fn keep(&mut self) -> bool {
        while self.flag.take() {
            let waker = self.flag.waker();
            if self
                .keeper
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_ready()
            {
                return true;
            }
        }
        false
    }

    /// Lets time pass.
    pub fn pass(&mut self, time: Duration) {
        self.keep();
        self.clock.advance(time);
        self.keep();
    }

    pub fn plug(&self, options: PortOptions) -> TestPlug {
        self.switch.plug(options).unwrap()
    }

    pub fn client(&self, n: u8) -> TestPlug {
        self.plug(PortOptions::client(format!("client {n}"), mac(n)))
    }

    /// An uplink that is up.
    pub fn uplink(&self, n: u8) -> TestPlug {
        let uplink = self.plug(PortOptions::uplink(format!("uplink {n}")));
        uplink.set_link(LINK);
        uplink
    }

    /// Drops the switch's own handles.
    pub fn end(self) -> (Pool, bool) {
        let Net {
            switch,
            pool,
            mut keeper,
            ..
        } = self;
        drop(switch);
        let done = keeper.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        (pool, done.is_ready())
    }
}

pub fn mac(n: u8) -> Mac {
    [2, 0, 0, 0, 0, n]
}

pub const BROADCAST: Mac = [0xff; 6];
pub const GROUP: Mac = [1, 0, 0x5e, 0, 0, 9];

/// An Ethernet frame; what follows the addresses starts with its type.
pub fn ethernet(to: Mac, from: Mac, rest: &[u8]) -> Vec<u8> {
    [&to[..], &from, rest].concat()
}

/// A frame of no known protocol, with a number in it.
pub fn numbered(to: Mac, from: Mac, n: u32) -> Vec<u8> {
    ethernet(
        to,
        from,
        &[&[0x88, 0xb5][..], &n.to_be_bytes(), &[0; 46]].concat(),
    )
}

/// A port's frame with these bytes, if the port may send now.
pub fn try_frame(plug: &TestPlug, bytes: &[u8]) -> Option<Frame<Bytes>> {
    let frame = plug.allocate(bytes.len())?;
    frame.buffer().write(0, bytes);
    Some(frame)
}

pub fn send(plug: &TestPlug, bytes: &[u8]) {
    plug.send(try_frame(plug, bytes).expect("the port may send"));
}

pub fn receive_frame(plug: &TestPlug, queue: u16) -> Option<Frame<Bytes>> {
    match plug.poll_receive(queue, &mut Context::from_waker(Waker::noop())) {
        Poll::Ready(frame) => Some(frame),
        Poll::Pending => None,
    }
}

pub fn receive(plug: &TestPlug) -> Option<Vec<u8>> {
    receive_frame(plug, 0).map(|frame| bytes(&frame))
}

pub fn receive_all(plug: &TestPlug) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| receive(plug)).collect()
}

pub fn bytes(frame: &Frame<Bytes>) -> Vec<u8> {
    let mut bytes = vec![0; frame.len()];
    frame.buffer().read(0, &mut bytes);
    bytes
}

/// How many cases of a property are tried: PROPTEST_CASES, or a number that a test run has time for.
pub fn cases(count: u32) -> proptest::test_runner::Config {
    let cases = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(count);
    proptest::test_runner::Config {
        cases,
        failure_persistence: None,
        ..Default::default()
    }
}
