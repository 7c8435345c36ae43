//! A disk of this domain's own, as devices see it.

use alloc::rc::{Rc, Weak};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::poll_fn;
use core::task::{Context, Poll, Waker};
use core::time::Duration;

use devices::disk::{DiscardLimits, Disk, Geometry};
use protocols::blkif::frontend;
use protocols::blkif::nodes::{FlushSupport, Properties};
use protocols::blkif::vdev::Vdev;

use super::driver;
use super::pool::Pool;
use super::queue::{Broken, Channel, Client, Queue};
use crate::executor;
use crate::frontend::State;
use crate::mm::{self, PAGE_SIZE};

/// The most sectors of one discard (1 GiB): Linux's back end does nothing else on the ring meanwhile.
const MAX_DISCARD: u32 = 1 << 21;

/// Limits of an uplink.
#[derive(Clone, Debug)]
pub struct Options {
    /// The most memory for payload, in bytes. Up to 1056 pages, the back ends of Linux keep all mappings.
    pub pool: usize,
    /// The most bytes of a request, a multiple of 4096. Memory for one such request is always there.
    pub max_request: usize,
    /// Memory of the domain that the pool leaves alone when it grows, in bytes.
    pub reserve: usize,
    /// How long requests wait for a back end before they fail. Without a limit, they wait for as long as it
    /// takes.
    pub patience: Option<Duration>,
}

impl Options {
    /// What suits a domain with this much memory, in bytes, whose main occupation is disks.
    pub fn for_memory(total: usize) -> Self {
        let pool = (total / 16).clamp(512 << 10, 1056 * PAGE_SIZE);
        let max_request = (pool / 4).next_multiple_of(PAGE_SIZE).clamp(128 << 10, 512 << 10);
        Self {
            pool,
            max_request,
            reserve: total / 8,
            patience: None,
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::for_memory(mm::usage().total)
    }
}

/// The toolstack has taken the device away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removed;

/// What an uplink did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests, ring requests, segments, bytes, and replays.
    pub frontend: frontend::Counters,
    /// Notifications to the back end, a hypercall each.
    pub notifications: u64,
    /// Notifications from the back end.
    pub events: u64,
    /// Connections, the first included.
    pub connections: u64,
    /// Pages of the pool.
    pub pool_pages: usize,
}

impl Counters {
    /// Tells each counter, by its name.
    pub fn each(&self, tell: &mut dyn FnMut(&'static str, u64)) {
        tell("requests", self.frontend.requests);
        tell("ring-requests", self.frontend.ring_requests);
        tell("segments", self.frontend.segments);
        tell("bytes-read", self.frontend.bytes_read);
        tell("bytes-written", self.frontend.bytes_written);
        tell("replayed", self.frontend.replayed);
        tell("notifications", self.notifications);
        tell("events", self.events);
        tell("connections", self.connections);
        tell("pool-pages", self.pool_pages as u64);
    }
}

/// What the uplink's handles and its task share.
pub(super) struct Shared {
    pub device: u32,
    pub options: Options,
    pub pool: Rc<Pool>,
    pub queue: Rc<Queue>,
    pub events: Cell<u64>,
    pub connections: Cell<u64>,
    /// Why the data path has stopped; the queue's `attention` is set then.
    pub broken: Cell<Option<Broken>>,
    state: Cell<State>,
    properties: Cell<Option<Properties>>,
    handles: RefCell<Vec<Weak<Watchers>>>,
}

/// Tasks that wait at one handle for a change of state or geometry. They go with the handle, so that clients
/// that come and go leave none behind.
pub(super) type Watchers = RefCell<Vec<Waker>>;

impl Shared {
    pub fn state(&self) -> State {
        self.state.get()
    }

    pub fn set_state(&self, state: State) {
        if self.state.replace(state) != state {
            self.wake();
        }
    }

    /// Makes known what the disk is like.
    pub fn set_properties(&self, properties: Properties) {
        if self.properties.replace(Some(properties)) != Some(properties) {
            self.wake();
        }
    }

    pub fn properties(&self) -> Option<Properties> {
        self.properties.get()
    }

    fn wake(&self) {
        for watchers in self.handles.borrow().iter().filter_map(Weak::upgrade) {
            watchers.take().into_iter().for_each(Waker::wake);
        }
    }

    /// Waits until it is doing something else than `seen`.
    pub async fn changed(&self, watchers: &Watchers, seen: State) -> State {
        poll_fn(|context| {
            let state = self.state();
            if state != seen {
                return Poll::Ready(state);
            }
            watch(watchers, context);
            Poll::Pending
        })
        .await
    }

    /// A place to wait at.
    pub fn watchers(&self) -> Rc<Watchers> {
        let mut handles = self.handles.borrow_mut();
        handles.retain(|it| it.strong_count() > 0);
        let watchers = Rc::new(Watchers::default());
        handles.push(Rc::downgrade(&watchers));
        watchers
    }

    fn handle(self: &Rc<Self>, client: Rc<Client>) -> Uplink {
        Uplink {
            shared: self.clone(),
            client,
            watchers: self.watchers(),
        }
    }
}

fn watch(watchers: &Watchers, context: &Context<'_>) {
    let mut watchers = watchers.borrow_mut();
    if !watchers.iter().any(|it| it.will_wake(context.waker())) {
        watchers.push(context.waker().clone());
    }
}

/// A client's handle to a disk of this domain's own. Clones are the same client's.
pub struct Uplink {
    shared: Rc<Shared>,
    client: Rc<Client>,
    watchers: Rc<Watchers>,
}

impl Clone for Uplink {
    fn clone(&self) -> Self {
        self.shared.handle(self.client.clone())
    }
}

impl Uplink {
    /// Connects `device/vbd/<device>`. Resolves when the first connection is there, however long that takes,
    /// or when the device is gone.
    pub async fn connect(device: u32, options: Options) -> Result<Rc<Self>, Removed> {
        let pages = options.pool / PAGE_SIZE;
        let indirect_pages = (pages / 32).clamp(2, 32);
        // What write-zeroes requests write is taken from the pool once, for good.
        let zeros = options.max_request / 4;
        let guaranteed = (options.max_request + zeros).div_ceil(PAGE_SIZE) + indirect_pages;
        let pool = match Pool::new(guaranteed, pages.max(guaranteed), options.reserve) {
            Ok(pool) => pool,
            Err(error) => {
                log::error!("uplink {}: {error}", Vdev(device));
                return Err(Removed);
            }
        };
        let queue = Rc::new(Queue::new(pool.clone(), indirect_pages, zeros));
        let shared = Rc::new(Shared {
            device,
            options,
            pool,
            queue,
            events: Cell::new(0),
            connections: Cell::new(0),
            broken: Cell::new(None),
            state: Cell::new(State::Connecting),
            properties: Cell::new(None),
            handles: RefCell::default(),
        });
        let uplink = shared.handle(shared.queue.join());
        executor::spawn(driver::run(shared)).detach();
        match uplink.changed(State::Connecting).await {
            State::Removed => Err(Removed),
            State::Connecting | State::Connected => Ok(Rc::new(uplink)),
        }
    }

    /// A handle for another client: one that has turns of its own, and is told if writes of its own are lost.
    pub fn for_client(&self) -> Self {
        self.shared.handle(self.shared.queue.join())
    }

    /// The device's name by the usual encoding of its number, such as `xvdb`.
    pub fn name(&self) -> String {
        Vdev(self.shared.device).to_string()
    }

    /// The device's number.
    pub fn devid(&self) -> u32 {
        self.shared.device
    }

    /// What it is doing.
    pub fn state(&self) -> State {
        self.shared.state()
    }

    /// Waits until it is doing something else than `seen`.
    pub async fn changed(&self, seen: State) -> State {
        self.shared.changed(&self.watchers, seen).await
    }

    /// What it did so far.
    pub fn counters(&self) -> Counters {
        let (frontend, notifications) = self.shared.queue.counters();
        let Shared {
            events,
            connections,
            pool,
            ..
        } = &*self.shared;
        let (events, connections) = (events.get(), connections.get());
        Counters {
            frontend,
            notifications,
            events,
            connections,
            pool_pages: pool.pages(),
        }
    }
}

impl Disk for Uplink {
    type Channel = Channel;

    fn geometry(&self) -> Geometry {
        let max_bytes = self.shared.options.max_request as u32;
        // There are handles only after the first connection.
        let Some(disk) = self.shared.properties() else {
            return Geometry {
                sectors: 0,
                block_size: 512,
                physical_block_size: 512,
                read_only: true,
                flush: false,
                discard: None,
                max_bytes,
            };
        };
        Geometry {
            sectors: disk.sectors,
            block_size: disk.block_size,
            physical_block_size: disk.physical_block_size,
            read_only: disk.read_only,
            flush: disk.flush != FlushSupport::None,
            discard: disk.discard.map(|discard| DiscardLimits {
                max_sectors: MAX_DISCARD.max(discard.granularity),
                granularity: discard.granularity,
                alignment: discard.alignment,
            }),
            max_bytes,
        }
    }

    fn open(&self) -> Channel {
        self.client.open()
    }

    fn poll_geometry(&self, seen: &Geometry, context: &mut Context<'_>) -> Poll<Geometry> {
        let geometry = self.geometry();
        if geometry != *seen {
            return Poll::Ready(geometry);
        }
        watch(&self.watchers, context);
        Poll::Pending
    }
}
