//! A network device of this domain's own.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::poll_fn;
use core::task::{Poll, Waker};

use devices::net::{Link, Mac, Port};
use protocols::netif::Broken;
use protocols::netif::nodes::{DEFAULT_MTU, Line, MAX_GROUPS};

use super::counters::Counters;
use super::driver;
use crate::executor;
use crate::frontend::State;
use crate::packets::{Packet, PacketPool};
use crate::sync::Signal;

/// What an uplink is given.
#[derive(Clone)]
pub struct Options {
    /// The most queues. Each holds up to 256 pages of the pool for what it receives; their use is that the
    /// back end's domain may work on several at a time.
    pub queues: u16,
    /// The only groups that frames are received for, up to [`MAX_GROUPS`], if the back end can tell;
    /// broadcasts always are. `None` lets everything in, as it has to be where stations are bridged whose
    /// groups are not known: see [`Uplink::receive_all_groups`].
    pub groups: Option<Vec<Mac>>,
    /// Memory for what is received, and for what is finished in software before it is sent.
    pub pool: PacketPool,
}

/// What the uplink's handles and its tasks share.
pub(super) struct Shared {
    pub device: u32,
    pub queues: u16,
    pub groups: RefCell<Option<Vec<Mac>>>,
    pub pool: PacketPool,
    pub counters: RefCell<Counters>,
    /// Why the data path has stopped.
    pub broken: Cell<Option<Broken>>,
    /// Set when `broken` is, and when `groups` changes.
    pub attention: Signal,
    state: Cell<State>,
    line: Cell<Line>,
    link: Cell<Link>,
    on_link: Box<dyn Fn(Link)>,
    waiting: RefCell<Vec<Waker>>,
}

impl Shared {
    /// Says what it is doing now.
    pub fn set_state(&self, state: State) {
        if self.state.replace(state) != state {
            self.waiting.take().into_iter().for_each(Waker::wake);
            self.update_link();
        }
    }

    /// Says what the line is like now.
    pub fn set_line(&self, line: Line) {
        self.line.set(line);
        self.update_link();
    }

    fn update_link(&self) {
        let line = self.line.get();
        let connections = self.counters.borrow().connections;
        let link = Link {
            up: self.state.get() == State::Connected && line.carrier,
            mtu: line.mtu,
            speed: u32::MAX,
            // The first one surprises nobody.
            announcements: connections.saturating_sub(1) as u32,
        };
        if self.link.replace(link) != link {
            (self.on_link)(link);
        }
    }
}

/// A handle to a network device of this domain's own. The device's tasks go on without one.
#[derive(Clone)]
pub struct Uplink(Rc<Shared>);

impl Uplink {
    /// Looks after `device/vif/<device>` from now on, and moves frames between it and the port. `on_link` is
    /// called with each change of the line, which is down at first; it must not call back into the uplink.
    pub fn start<P>(device: u32, options: Options, port: P, on_link: impl Fn(Link) + 'static) -> Self
    where
        P: Port<Buffer = Packet>,
    {
        let line = Line {
            carrier: true,
            mtu: DEFAULT_MTU,
        };
        let shared = Rc::new(Shared {
            device,
            queues: options.queues.max(1),
            groups: RefCell::new(options.groups.filter(|groups| groups.len() <= MAX_GROUPS)),
            pool: options.pool,
            counters: RefCell::default(),
            broken: Cell::new(None),
            attention: Signal::new(),
            state: Cell::new(State::Connecting),
            line: Cell::new(line),
            link: Cell::new(Link {
                up: false,
                mtu: line.mtu,
                speed: u32::MAX,
                announcements: 0,
            }),
            on_link: Box::new(on_link),
            waiting: RefCell::default(),
        });
        (shared.on_link)(shared.link.get());
        executor::spawn(driver::run(shared.clone(), port)).detach();
        Self(shared)
    }

    /// Receives frames for all groups from now on.
    pub fn receive_all_groups(&self) {
        if self.0.groups.take().is_some() {
            self.0.attention.set();
        }
    }

    /// What it is doing.
    pub fn state(&self) -> State {
        self.0.state.get()
    }

    /// Waits until it is doing something else than `seen`.
    pub async fn changed(&self, seen: State) -> State {
        poll_fn(|context| {
            let state = self.state();
            if state != seen {
                return Poll::Ready(state);
            }
            let mut waiting = self.0.waiting.borrow_mut();
            if !waiting.iter().any(|it| it.will_wake(context.waker())) {
                waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    /// What it did so far.
    pub fn counters(&self) -> Counters {
        *self.0.counters.borrow()
    }
}
