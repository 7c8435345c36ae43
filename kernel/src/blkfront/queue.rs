//! The data path of an uplink: channels, the table of requests, and the ring of the present connection.

use alloc::collections::{TryReserveError, VecDeque};
use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::fmt;
use core::task::{Context, Poll, Waker};

use devices::disk::{self, Completion, DiskError, Operation};
use protocols::blkif::frontend::{self, Command, Failure, Frontend, Party, RingConnection, UnknownRequest};
use protocols::blkif::nodes::Properties;
use protocols::blkif::wire;
use protocols::ring::{BadIndex, FrontRing};
use zerocopy::{FromZeros, IntoBytes};

use super::pool::{Buffer, Pool};
use crate::event::EventChannel;
use crate::frontend::RingPages;
use crate::grant::Granted;
use crate::sync::Signal;

/// A back end that cannot be talked to any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    Index(BadIndex),
    Request(UnknownRequest),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => {
                write!(
                    f,
                    "it claims {} responses when it gave {}",
                    index.produced, index.consumed
                )
            }
            Self::Request(request) => {
                write!(f, "it answered request {:#x}, which it does not have", request.0)
            }
        }
    }
}

/// Whose request it is, and which of his.
struct Token {
    inbox: Rc<Inbox>,
    id: usize,
}

/// What a channel waits for and has not fetched.
#[derive(Default)]
struct Inbox {
    /// For how many requests there is room.
    room: Cell<usize>,
    completions: RefCell<VecDeque<Completion<Buffer>>>,
    waker: RefCell<Option<Waker>>,
}

/// A ring that the back end knows of.
struct SharedRing {
    front: FrontRing<RingPages>,
    event: Rc<EventChannel>,
}

struct Inner {
    frontend: Frontend<Token, Buffer>,
    ring: Option<SharedRing>,
    /// How many channels there are.
    channels: usize,
    /// For how many requests of theirs there is room.
    room: usize,
    /// Requests fail instead of waiting for a back end.
    failing: bool,
    notifications: u64,
}

impl Inner {
    /// Takes responses until there is none and the back end will notify of the next.
    fn take_responses(&mut self) -> Result<(), Broken> {
        let mut response = wire::Response::new_zeroed();
        while let Some(ring) = &mut self.ring {
            while ring.front.take(response.as_mut_bytes()).map_err(Broken::Index)? {
                self.frontend.response(&response).map_err(Broken::Request)?;
            }
            if !ring.front.final_check().map_err(Broken::Index)? {
                break;
            }
        }
        Ok(())
    }
}

/// One ring and the channels that share it.
pub(super) struct Queue {
    pool: Rc<Pool>,
    inner: RefCell<Inner>,
    /// Set when the last channel goes, when the last request ends after that, and when the back end cannot be
    /// talked to any more.
    pub attention: Signal,
}

impl Queue {
    /// Without a connection: requests wait. A ring request for write-zeroes writes `zeros` bytes.
    pub fn new(pool: Rc<Pool>, indirect_pages: usize, zeros: usize) -> Self {
        let mut frontend = Frontend::new();
        for _ in 0..indirect_pages {
            if let Some(page) = pool.allocate(crate::mm::PAGE_SIZE) {
                frontend.add_indirect_page(page);
            }
        }
        if let Some(zeros) = pool.allocate(zeros) {
            zeros.zero();
            frontend.set_zeros(zeros);
        }
        let inner = Inner {
            frontend,
            ring: None,
            channels: 0,
            room: 0,
            failing: false,
            notifications: 0,
        };
        Self {
            pool,
            inner: RefCell::new(inner),
            attention: Signal::new(),
        }
    }

    /// A new client.
    pub fn join(self: &Rc<Self>) -> Rc<Client> {
        let party = self.inner.borrow_mut().frontend.join();
        Rc::new(Client {
            queue: self.clone(),
            party,
        })
    }

    /// Whether nobody has a channel and no request is left.
    pub fn is_idle(&self) -> bool {
        let inner = self.inner.borrow();
        inner.channels == 0 && inner.frontend.pending() == 0
    }

    /// Makes room for a ring of this capacity.
    pub fn reserve_ring(&self, capacity: u32) -> Result<(), TryReserveError> {
        self.inner.borrow_mut().frontend.reserve_ring(capacity)
    }

    /// Takes a ring for the next connection, for which there [is room](Self::reserve_ring).
    pub fn offer(&self, ring: FrontRing<RingPages>, event: Rc<EventChannel>) {
        self.inner.borrow_mut().ring = Some(SharedRing { front: ring, event });
    }

    /// After [`offer`](Self::offer), when the back end has accepted: starts the connection; what waited is
    /// sent.
    pub fn connect(&self, connection: RingConnection) {
        let inner = &mut *self.inner.borrow_mut();
        if let Some(ring) = &inner.ring {
            inner.frontend.connect(connection, ring.front.capacity());
            inner.failing = false;
            self.send(inner);
        }
    }

    /// Hears and says nothing more on the ring, and gives it back. The back end may still be at work with it
    /// and with the requests.
    pub fn hang_up(&self) -> Option<Granted> {
        let inner = &mut *self.inner.borrow_mut();
        let ring = inner.ring.take();
        self.send(inner);
        Some(ring?.front.into_memory().0)
    }

    /// After [`hang_up`](Self::hang_up), when the back end cannot reach any page any more: lets requests wait
    /// for the next connection.
    pub fn disconnect(&self) {
        self.inner.borrow_mut().frontend.disconnect();
    }

    /// Fails all requests, and those to come before the next connection, but none while there is a
    /// connection.
    pub fn fail(&self) {
        let inner = &mut *self.inner.borrow_mut();
        inner.failing = true;
        self.send(inner);
    }

    /// While disconnected: see [`Frontend::cache_lost`].
    pub fn cache_lost(&self) -> bool {
        self.inner.borrow_mut().frontend.cache_lost()
    }

    /// What the disk is like, while connected; an operation that the back end withdrew is missing.
    pub fn properties(&self) -> Option<Properties> {
        self.inner
            .borrow()
            .frontend
            .connection()
            .map(|connection| connection.properties)
    }

    /// The disk has become different.
    pub fn set_properties(&self, properties: Properties) {
        self.inner.borrow_mut().frontend.set_properties(properties);
    }

    /// Counts of the data path, and notifications sent.
    pub fn counters(&self) -> (frontend::Counters, u64) {
        let inner = self.inner.borrow();
        (inner.frontend.counters(), inner.notifications)
    }

    /// Takes the back end's responses, hands completions out and sends what waited for room.
    pub fn receive(&self) -> Result<(), Broken> {
        let inner = &mut *self.inner.borrow_mut();
        let received = inner.take_responses();
        match received {
            Ok(()) => self.send(inner),
            // What was in order before that is done nevertheless.
            Err(_) => self.deliver(inner),
        }
        received
    }

    /// Puts on the ring what fits, with one notification at most; what ends with that is delivered.
    fn send(&self, inner: &mut Inner) {
        match &mut inner.ring {
            Some(ring) if inner.frontend.connection().is_some() => {
                inner.frontend.pump(&mut ring.front);
                if ring.front.push() {
                    inner.notifications += 1;
                    ring.event.notify();
                }
            }
            _ if inner.failing => inner.frontend.fail_all(),
            _ => {}
        }
        self.deliver(inner);
    }

    /// Hands completions out.
    fn deliver(&self, inner: &mut Inner) {
        while let Some(finished) = inner.frontend.finished() {
            let Token { inbox, id } = finished.token;
            let result = finished.result.map_err(|failure| match failure {
                Failure::Io => DiskError::Io,
                Failure::Unsupported => DiskError::Unsupported,
            });
            inbox.completions.borrow_mut().push_back(Completion {
                id,
                result,
                buffer: finished.payload,
            });
            if let Some(waker) = inbox.waker.take() {
                waker.wake();
            }
        }
        if inner.channels == 0 && inner.frontend.pending() == 0 {
            self.attention.set();
        }
    }
}

/// One who uses the uplink, for as long as he has a handle or a channel.
pub(super) struct Client {
    queue: Rc<Queue>,
    party: Party,
}

impl Client {
    /// A new channel.
    pub fn open(self: &Rc<Self>) -> Channel {
        self.queue.inner.borrow_mut().channels += 1;
        Channel {
            client: self.clone(),
            inbox: Rc::default(),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Its channels, which abandon their requests, are gone.
        self.queue.inner.borrow_mut().frontend.leave(self.party);
    }
}

/// A stream of requests to an uplink. Requests that it abandons when it is dropped are dropped too if the
/// back end does not have them yet.
pub struct Channel {
    client: Rc<Client>,
    inbox: Rc<Inbox>,
}

impl Channel {
    /// What the pool knows it by.
    fn number(&self) -> usize {
        Rc::as_ptr(&self.inbox).addr()
    }
}

impl disk::Channel for Channel {
    type Buffer = Buffer;

    fn reserve(&mut self, requests: usize) -> Result<(), TryReserveError> {
        let queue = &self.client.queue;
        let inner = &mut *queue.inner.borrow_mut();
        let others = inner.room - self.inbox.room.get();
        inner.frontend.reserve(others + requests)?;
        queue.pool.reserve(inner.channels)?;
        let mut completions = self.inbox.completions.borrow_mut();
        let more = requests.saturating_sub(completions.len());
        completions.try_reserve(more)?;
        self.inbox.room.set(requests);
        inner.room = others + requests;
        Ok(())
    }

    fn allocate(&mut self, len: usize) -> Option<Buffer> {
        self.client.queue.pool.allocate_in_turn(self.number(), len)
    }

    fn give_up(&mut self) {
        self.client.queue.pool.leave(self.number());
    }

    fn submit(&mut self, id: usize, operation: Operation<Buffer>) {
        let command = match operation {
            Operation::Read { sector, buffer } => Command::Read {
                sector,
                payload: buffer,
            },
            Operation::Write { sector, buffer } => Command::Write {
                sector,
                payload: buffer,
            },
            Operation::Flush => Command::Flush,
            Operation::Discard { sector, sectors } => Command::Discard { sector, sectors },
            // The zeros are written in any case: nothing says that a discarded range reads as zeros.
            Operation::WriteZeroes { sector, sectors, .. } => Command::WriteZeroes { sector, sectors },
        };
        let inbox = self.inbox.clone();
        let token = Token { inbox, id };
        let Client { queue, party } = &*self.client;
        queue.inner.borrow_mut().frontend.submit(*party, token, command);
    }

    fn commit(&mut self) {
        let queue = &self.client.queue;
        queue.send(&mut queue.inner.borrow_mut());
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Completion<Buffer>> {
        if let Some(completion) = self.inbox.completions.borrow_mut().pop_front() {
            return Poll::Ready(completion);
        }
        match &mut *self.inbox.waker.borrow_mut() {
            Some(waker) => waker.clone_from(context.waker()),
            waker => *waker = Some(context.waker().clone()),
        }
        self.client.queue.pool.wait(self.number(), context.waker());
        Poll::Pending
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.client.queue.pool.leave(self.number());
        let inner = &mut *self.client.queue.inner.borrow_mut();
        inner
            .frontend
            .abandon(|token| Rc::ptr_eq(&token.inbox, &self.inbox));
        inner.channels -= 1;
        inner.room -= self.inbox.room.get();
        if inner.channels == 0 {
            self.client.queue.attention.set();
        }
    }
}
