//! What the switch knows of one of its ports.

use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::mem;
use core::task::Waker;
use core::time::Duration;

use devices::memory::Buffer;
use devices::net::headers::Headers;
use devices::net::{Account, Charge, Filter, Frame, Link, MAX_FRAME};

use super::bucket::{Bucket, RateLimit};
use super::fair::{Queues, Sender};
use super::flow;
use super::guard::Guard;
use super::memory::weight;
use super::options::{Kind, PortOptions};
use super::table::Learner;
use super::{Counters, Reason};

/// A rate of 1 Mbit/s in bytes per second.
const BYTES_PER_MBIT: u64 = 125_000;

/// What a port may only do so much of.
#[derive(Clone, Copy)]
pub(super) enum Limited {
    Send,
    Receive,
    Flood,
}

pub(super) struct PortState<B> {
    pub(super) label: String,
    pub(super) kind: Kind,
    pub(super) isolate: bool,
    pub(super) guard: Option<Guard>,
    /// The line's speed in Mbit/s as whoever is plugged in sees it, if that is the port's own.
    pub(super) speed: Option<u32>,
    pub(super) learner: Learner,
    pub(super) filter: RefCell<Filter>,
    pub(super) send: Rc<Account>,
    pub(super) receive: Rc<Account>,
    pub(super) queues: RefCell<Queues<B>>,
    /// How many queues are in use.
    pub(super) spread: Cell<u16>,
    /// What the port's owner says of the line behind it.
    pub(super) line: Cell<Option<Link>>,
    /// Who waits for a change of the segment's link.
    pub(super) link_waiting: RefCell<Option<Waker>>,
    /// Those who wait until the port may send again.
    pub(super) send_waiting: RefCell<Vec<Waker>>,
    /// Who waits until the port may receive again.
    receive_waiting: RefCell<Option<Waker>>,
    /// What waits to be received does so because of the limit, and not because nobody takes it.
    held_up: Cell<bool>,
    pub(super) counters: RefCell<Counters>,
    limits: RefCell<[Option<Bucket>; 3]>,
}

impl<B: Buffer> PortState<B> {
    pub(super) fn new(index: usize, options: PortOptions, isolate: bool, now: Duration) -> Self {
        let mac = options.mac.unwrap_or_default();
        let bucket = |limit: Option<RateLimit>| limit.map(|limit| Bucket::new(limit, now));
        let limits = [
            bucket(options.send_rate),
            bucket(options.receive_rate),
            bucket(options.flood_rate),
        ];
        let is_client = options.kind == Kind::Client;
        let guarded = options.guard_mac || !options.addresses.is_empty();
        let is_uplink = options.kind == Kind::Uplink;
        PortState {
            label: options.label,
            kind: options.kind,
            isolate: is_client && (options.isolate || isolate),
            guard: guarded.then(|| Guard::new(mac, options.addresses)),
            speed: options
                .send_rate
                .map(|rate| (rate.per_second / BYTES_PER_MBIT).try_into().unwrap_or(u32::MAX)),
            learner: Learner {
                port: index,
                limit: options.stations,
                client: is_client,
            },
            filter: RefCell::new(Filter {
                promiscuous: is_uplink,
                ..Filter::new(mac)
            }),
            // Less than one frame would never be enough for it.
            send: Account::new(options.send_limit.max(weight(MAX_FRAME))),
            receive: Account::new(options.receive_limit.max(weight(MAX_FRAME))),
            queues: RefCell::new(Queues::new()),
            spread: Cell::new(1),
            line: Cell::default(),
            link_waiting: RefCell::default(),
            send_waiting: RefCell::default(),
            receive_waiting: RefCell::default(),
            held_up: Cell::default(),
            counters: RefCell::default(),
            limits: RefCell::new(limits),
        }
    }

    pub(super) fn index(&self) -> usize {
        self.learner.port
    }

    pub(super) fn is_down(&self) -> bool {
        self.kind == Kind::Uplink && !self.line.get().is_some_and(|line| line.up)
    }

    pub(super) fn drop(&self, reason: Reason) {
        self.counters.borrow_mut().drop(reason);
    }

    /// Whether the limit has been reached. If that becomes known only now, `closed` is called.
    pub(super) fn may(&self, what: Limited, now: impl FnOnce() -> Duration, closed: impl FnOnce()) -> bool {
        let mut limits = self.limits.borrow_mut();
        let Some(bucket) = &mut limits[what as usize] else {
            return true;
        };
        let known = bucket.empty_until();
        let open = bucket.is_open(now);
        if !open && known.is_none() {
            closed();
        }
        open
    }

    pub(super) fn spend(&self, what: Limited, amount: usize) {
        if let Some(bucket) = &mut self.limits.borrow_mut()[what as usize] {
            bucket.spend(amount);
        }
    }

    /// When the next limit that was reached may be lifted.
    pub(super) fn limited_until(&self) -> Option<Duration> {
        let limits = self.limits.borrow();
        limits
            .iter()
            .flatten()
            .filter_map(|bucket| bucket.empty_until())
            .min()
    }

    /// Lifts the limits that have been reached and no longer are.
    pub(super) fn lift_limits(&self, now: Duration) {
        for bucket in self.limits.borrow_mut().iter_mut().flatten() {
            if bucket.empty_until().is_some_and(|until| until <= now) {
                bucket.fill(now);
            }
        }
        if self.is_lifted(Limited::Send) {
            let waiting = mem::take(&mut *self.send_waiting.borrow_mut());
            waiting.into_iter().for_each(Waker::wake);
        }
        if self.is_lifted(Limited::Receive)
            && let Some(waiting) = self.receive_waiting.take()
        {
            waiting.wake();
        }
    }

    /// Whether there is such a limit.
    pub(super) fn is_limited(&self, what: Limited) -> bool {
        self.limits.borrow()[what as usize].is_some()
    }

    /// Whether there is such a limit, and it is not known to have been reached.
    fn is_lifted(&self, what: Limited) -> bool {
        let limits = self.limits.borrow();
        let bucket = limits[what as usize].as_ref();
        bucket.is_some_and(|bucket| bucket.empty_until().is_none())
    }

    /// The port is to receive no more for now: the limit wakes the receiver, and frames that come do not.
    pub(super) fn hold_up(&self, receiver: &Waker) {
        self.held_up.set(true);
        *self.receive_waiting.borrow_mut() = Some(receiver.clone());
    }

    /// The port has received a frame of so many bytes.
    pub(super) fn received(&self, len: usize) {
        self.held_up.set(false);
        self.spend(Limited::Receive, len);
    }

    /// Puts what waits into fewer queues, from now on so many.
    pub(super) fn set_queues(&self, queues: u16) {
        self.spread.set(queues);
        let dropped = self.queues.borrow_mut().shrink(queues);
        for _ in 0..dropped {
            self.drop(self.full());
        }
    }

    /// Drops what waits to be received.
    pub(super) fn forget(&self, reason: Reason) {
        self.held_up.set(false);
        let dropped = self.queues.borrow_mut().clear();
        for _ in 0..dropped {
            self.drop(reason);
        }
    }

    /// Puts a frame into one of the port's queues.
    ///
    /// To clients, everything is on their own account. Uplinks and routers leave it on the account of who
    /// sent it, so that it can wait for them, except if that was an uplink: the world outside does not wait.
    pub(super) fn enqueue(&self, headers: &Headers, from: &Self, mut frame: Frame<B>) -> Result<(), Reason> {
        let (sender, charged) = match frame.account() {
            Some(account) => (Sender(Rc::as_ptr(account).addr()), true),
            None => (Sender(from.index()), false),
        };
        if self.kind == Kind::Client || from.kind == Kind::Uplink || !charged {
            let charge = self.room_for(sender, weight(frame.len()));
            frame.charge_to(Some(charge.ok_or(self.full())?));
        }
        let queue = match self.spread.get() {
            1 => 0,
            spread => flow::queue(headers, spread),
        };
        let pushed = self.queues.borrow_mut().push(queue, sender, frame);
        pushed.map_err(|_| self.full())
    }

    /// Room on the port's account for a sender's frame, if need be by dropping what those have queued who
    /// have more.
    fn room_for(&self, sender: Sender, weight: usize) -> Option<Charge> {
        loop {
            if let Some(charge) = self.receive.charge(weight) {
                return Some(charge);
            }
            let pushed_out = self.queues.borrow_mut().push_out(sender, weight)?;
            drop(pushed_out);
            self.drop(self.full());
        }
    }

    /// Why there is no room, on the account or in the queue.
    fn full(&self) -> Reason {
        match self.held_up.get() {
            true => Reason::ReceiveRate,
            false => Reason::ReceiveQueueFull,
        }
    }
}
