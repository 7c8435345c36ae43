//! Segments as hubs, a router plugged into them, and hosts whose stack is smoltcp.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use devices::memory::Buffer;
use devices::net::{Account, Checksum, Filter, Frame, Link, Mac, Offload, Port};
use network::router::{Config, Router, Status};
use network::time::Time;
use smoltcp::iface::{Interface, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::AnySocket;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, Ipv4Address};

/// A frame's memory.
pub struct Bytes(RefCell<Vec<u8>>);

impl Buffer for Bytes {
    fn len(&self) -> usize {
        self.0.borrow().len()
    }

    fn read(&self, offset: usize, to: &mut [u8]) {
        to.copy_from_slice(&self.0.borrow()[offset..offset + to.len()]);
    }

    fn write(&self, offset: usize, from: &[u8]) {
        self.0.borrow_mut()[offset..offset + from.len()].copy_from_slice(from);
    }
}

pub type TestFrame = Frame<Bytes>;

pub fn frame(bytes: &[u8], offload: Offload) -> TestFrame {
    Frame::new(Bytes(RefCell::new(bytes.to_vec())), offload, None)
}

pub fn bytes(frame: &TestFrame) -> Vec<u8> {
    frame.buffer().0.borrow().clone()
}

/// A frame's bytes, with the checksum that was still to be computed.
pub fn completed(frame: &TestFrame) -> Vec<u8> {
    let mut bytes = bytes(frame);
    if let Checksum::Partial { start, offset } = frame.offload.checksum {
        let (start, at) = (usize::from(start), usize::from(start + offset));
        let checksum = checksum(&bytes[start..]);
        bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    }
    bytes
}

/// The checksum of the Internet protocols (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2);
    let words = words.map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !sum as u16
}

/// Makes the IPv4 header's checksum right, so that what is behind it is looked at.
pub fn fix_checksum(bytes: &mut [u8]) {
    let len = 4 * usize::from(bytes.get(14).map_or(0, |byte| byte & 15));
    if bytes[12..14] == [8, 0] && len >= 20 && bytes.len() >= 14 + len {
        bytes[24..26].fill(0);
        let checksum = checksum(&bytes[14..14 + len]);
        bytes[24..26].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// A hub: what one sends, all others receive.
#[derive(Clone)]
pub struct Segment {
    queues: Rc<RefCell<Vec<VecDeque<TestFrame>>>>,
    link: Rc<Cell<Link>>,
}

/// A place at the hub.
#[derive(Clone)]
pub struct Socket {
    segment: Segment,
    index: usize,
    account: Rc<Account>,
}

impl Segment {
    pub fn new() -> Self {
        Self {
            queues: Rc::default(),
            link: Rc::new(Cell::new(Link {
                up: true,
                mtu: 1500,
                speed: u32::MAX,
                announcements: 0,
            })),
        }
    }

    pub fn plug(&self) -> Socket {
        self.queues.borrow_mut().push(VecDeque::new());
        Socket {
            segment: self.clone(),
            index: self.queues.borrow().len() - 1,
            account: Account::new(1 << 20),
        }
    }

    pub fn set_link(&self, change: impl FnOnce(&mut Link)) {
        let mut link = self.link.get();
        change(&mut link);
        self.link.set(link);
    }
}

impl Socket {
    pub fn inject(&self, frame: TestFrame) {
        for (index, queue) in self.segment.queues.borrow_mut().iter_mut().enumerate() {
            if index != self.index {
                // Each is to have a frame that it does not share.
                queue.push_back(self::frame(&bytes(&frame), frame.offload));
            }
        }
    }

    /// Sends a frame whose bytes are shared.
    pub fn inject_shared(&self, frame: &TestFrame) {
        for (index, queue) in self.segment.queues.borrow_mut().iter_mut().enumerate() {
            if index != self.index {
                queue.push_back(frame.clone());
            }
        }
    }

    pub fn take(&self) -> Option<TestFrame> {
        self.segment.queues.borrow_mut()[self.index].pop_front()
    }
}

impl Port for Socket {
    type Buffer = Bytes;

    fn allocate(&self, len: usize) -> Option<TestFrame> {
        let charge = self.account.charge(len)?;
        Some(Frame::new(
            Bytes(RefCell::new(vec![0xa5; len])),
            Offload::default(),
            Some(charge),
        ))
    }

    fn poll_ready(&self, len: usize, context: &mut Context<'_>) -> Poll<()> {
        self.account.poll_room(len, context.waker())
    }

    fn send(&self, frame: TestFrame) {
        self.inject(frame);
    }

    fn poll_receive(&self, _: u16, _: &mut Context<'_>) -> Poll<TestFrame> {
        self.take().map_or(Poll::Pending, Poll::Ready)
    }

    fn forget(&self) {}

    fn set_queues(&self, _: u16) {}

    fn set_filter(&self, _: Filter) {}

    fn link(&self) -> Link {
        self.segment.link.get()
    }

    fn poll_link(&self, seen: &Link, _: &mut Context<'_>) -> Poll<Link> {
        let link = self.segment.link.get();
        if link == *seen {
            Poll::Pending
        } else {
            Poll::Ready(link)
        }
    }
}

/// A clock that moves when the test says so.
#[derive(Clone, Default)]
pub struct Clock(Rc<Cell<Duration>>);

pub struct Sleep(Clock, Duration);

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.0.now() >= self.1 {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl Time for Clock {
    type Sleep = Sleep;

    fn now(&self) -> Duration {
        self.0.get()
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        Sleep(self.clone(), self.now() + duration)
    }
}

/// A host.
pub struct Host {
    pub interface: Interface,
    pub sockets: SocketSet<'static>,
    wire: Wire,
}

/// smoltcp's end of a host's place at the hub. What is sent is given to a function first, which may change
/// it.
struct Wire(Socket, fn(Vec<u8>) -> TestFrame);

pub struct Received(Vec<u8>);

pub struct Sent<'a>(&'a Wire);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Sent<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut bytes = vec![0; len];
        let result = f(&mut bytes);
        self.0.0.inject(self.0.1(bytes));
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sent<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sent<'_>)> {
        Some((Received(completed(&self.0.take()?)), Sent(self)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sent<'_>> {
        Some(Sent(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 14 + usize::from(self.0.link().mtu);
        capabilities
    }
}

impl Host {
    pub fn new(segment: &Segment, mac: Mac, addresses: &[&str], gateway: Option<&str>) -> Self {
        let mut wire = Wire(segment.plug(), |bytes| frame(&bytes, Offload::default()));
        let mac = HardwareAddress::Ethernet(EthernetAddress(mac));
        let mut config = smoltcp::iface::Config::new(mac);
        config.random_seed = 4711;
        let mut host = Self {
            interface: Interface::new(config, &mut wire, Instant::ZERO),
            sockets: SocketSet::new(vec![]),
            wire,
        };
        host.configure(
            addresses.iter().map(|it| it.parse().unwrap()),
            gateway.map(|it| it.parse().unwrap()),
        );
        host
    }

    pub fn configure(&mut self, addresses: impl Iterator<Item = IpCidr>, gateway: Option<Ipv4Address>) {
        self.interface.update_ip_addrs(|own| *own = addresses.collect());
        self.interface.routes_mut().remove_default_ipv4_route();
        if let Some(gateway) = gateway {
            self.interface
                .routes_mut()
                .add_default_ipv4_route(gateway)
                .unwrap();
        }
    }

    /// Frames go out as this function makes them.
    pub fn send_by(&mut self, make: fn(Vec<u8>) -> TestFrame) {
        self.wire.1 = make;
    }

    pub fn poll(&mut self, now: Duration) {
        let now = Instant::from_micros(now.as_micros() as i64);
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
    }

    pub fn get<S: AnySocket<'static>>(&mut self, handle: smoltcp::iface::SocketHandle) -> &mut S {
        self.sockets.get_mut(handle)
    }
}

/// A router and hosts, and the time that passes.
pub struct Bed {
    pub clock: Clock,
    pub status: Rc<Status>,
    router: Pin<Box<dyn Future<Output = ()>>>,
}

impl Bed {
    pub fn new(config: Config<Socket>) -> Self {
        let clock = Clock::default();
        let router = Router::new(clock.clone(), config).unwrap();
        Self {
            clock,
            status: router.status(),
            router: Box::pin(router.run()),
        }
    }

    pub fn counter(&self, name: &str) -> u64 {
        let mut found = None;
        self.status.each(|each, value| {
            if each == name {
                found = Some(value);
            }
        });
        found.unwrap()
    }

    /// Lets everybody work, and some time pass.
    pub fn step(&mut self, hosts: &mut [&mut Host], time: Duration) {
        self.clock.0.set(self.clock.now() + time);
        for host in hosts {
            host.poll(self.clock.now());
        }
        let mut context = Context::from_waker(Waker::noop());
        assert!(self.router.as_mut().poll(&mut context).is_pending());
    }

    /// Goes on until something holds, for at most a minute.
    pub fn until(&mut self, hosts: &mut [&mut Host], mut done: impl FnMut(&mut [&mut Host]) -> bool) {
        for _ in 0..12_000 {
            self.step(hosts, Duration::from_millis(5));
            if done(hosts) {
                return;
            }
        }
        panic!("still not after a minute");
    }

    /// Goes on for some seconds.
    pub fn pass(&mut self, hosts: &mut [&mut Host], seconds: u64) {
        for _ in 0..seconds * 20 {
            self.step(hosts, Duration::from_millis(50));
        }
    }
}
