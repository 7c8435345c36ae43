//! A client of xenstore: many requests at a time, watches, transactions.
//!
//! Its user owns the ring: he gives received bytes to [`Client::input`], fetches bytes to send with
//! [`Client::output`], and is told by the callback when there are new ones. Everything else is futures. It is
//! a handle; clones are the same client.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;
use core::future::poll_fn;
use core::task::{Context, Poll, Waker};

use super::message::{Decoder, INVALID, Kind, Message, PAYLOAD_MAX, encode};
use super::transaction::transaction_id;
use super::watch::{Events, Watch, is_within};
use super::{Error, is_path, strings};

/// Once this many bytes wait to be sent, further requests wait for room.
const OUTPUT_LIMIT: usize = 8192;

/// A handle of the client.
#[derive(Clone)]
pub struct Client(pub(super) Rc<Shared>);

pub(super) struct Shared {
    pub(super) state: RefCell<State>,
    /// Told that there are bytes to send.
    output_ready: fn(),
}

#[derive(Default)]
pub(super) struct State {
    decoder: Decoder,
    output: VecDeque<u8>,
    /// Tasks that wait for room in the output.
    waiting: Vec<Waker>,
    requests: BTreeMap<u32, Pending>,
    watches: BTreeMap<u32, Events>,
    /// What the daemon watches. A watch of a path within another one's has no registration of its own: the
    /// daemon allows a domain a hundred or so.
    registrations: Vec<Registration>,
    last_request: u32,
    last_watch: u32,
    /// Transactions that are open, and tasks that wait for their turn to open one.
    pub(super) transactions: usize,
    pub(super) waiting_for_turn: Vec<Waker>,
    broken: bool,
}

/// A path that the daemon watches.
struct Registration {
    token: u32,
    path: String,
    /// The daemon has said that it does.
    confirmed: bool,
    /// How many watches have their events from it.
    watches: usize,
}

/// A request that was sent.
struct Pending {
    kind: Kind,
    state: Progress,
}

enum Progress {
    Waiting(Option<Waker>),
    Done(Result<Vec<u8>, Error>),
    /// Nobody waits for the reply any more.
    Abandoned,
}

impl Client {
    /// A client of a fresh connection. Memory for what is under way, which is large, is taken now: later there
    /// may be none.
    pub fn new(output_ready: fn()) -> Self {
        Self(Rc::new(Shared {
            state: RefCell::new(State {
                output: VecDeque::with_capacity(OUTPUT_LIMIT + 2 * PAYLOAD_MAX),
                ..State::default()
            }),
            output_ready,
        }))
    }

    /// Takes bytes that the daemon sent.
    pub fn input(&self, mut bytes: &[u8]) {
        loop {
            let decoded = self.0.state.borrow_mut().decoder.decode(&mut bytes);
            match decoded {
                Ok(Some(message)) if message.header.kind == Kind::WatchEvent as u32 => {
                    self.event(&message.payload)
                }
                Ok(Some(message)) => self.reply(message),
                Ok(None) => return,
                Err(_) => return self.break_off(),
            }
        }
    }

    /// Fills `room` with bytes to send and returns how many there were.
    pub fn output(&self, room: &mut [u8]) -> usize {
        let mut state = self.0.state.borrow_mut();
        let count = state.output.len().min(room.len());
        for (place, byte) in room.iter_mut().zip(state.output.drain(..count)) {
            *place = byte;
        }
        let waiting = if state.output.len() < OUTPUT_LIMIT {
            core::mem::take(&mut state.waiting)
        } else {
            Vec::new()
        };
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
        count
    }

    /// Gives the connection up: all requests fail, now and later, and no watch fires any more.
    pub fn break_off(&self) {
        let mut state = self.0.state.borrow_mut();
        if !state.broken {
            log::error!("the xenstore connection is broken");
        }
        state.broken = true;
        state.output.clear();
        let mut wakers = core::mem::take(&mut state.waiting);
        state
            .requests
            .retain(|_, request| !matches!(request.state, Progress::Abandoned));
        for request in state.requests.values_mut() {
            if let Progress::Waiting(waker) = &mut request.state {
                wakers.extend(waker.take());
                request.state = Progress::Done(Err(Error::Broken));
            }
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn reply(&self, message: Message) {
        let header = message.header;
        let mut state = self.0.state.borrow_mut();
        let Some(request) = state.requests.get_mut(&header.request) else {
            log::debug!("xenstore reply to no request ({header:?})");
            return;
        };
        let result = if header.kind == request.kind as u32 {
            Ok(message.payload)
        } else if header.kind == Kind::Error as u32 {
            let name = message
                .payload
                .split(|&byte| byte == 0)
                .next()
                .unwrap_or_default();
            Err(Error::from_name(name))
        } else if header.kind == INVALID {
            Err(Error::Unsupported)
        } else {
            Err(Error::Malformed)
        };
        let kind = request.kind;
        match &mut request.state {
            Progress::Waiting(waker) => {
                let waker = waker.take();
                request.state = Progress::Done(result);
                drop(state);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            Progress::Abandoned => {
                state.requests.remove(&header.request);
                drop(state);
                self.clean_up(kind, result);
            }
            Progress::Done(_) => log::debug!("second xenstore reply to one request ({header:?})"),
        }
    }

    /// Undoes what an abandoned request has led to: a transaction that nobody knows of would stay open.
    fn clean_up(&self, kind: Kind, result: Result<Vec<u8>, Error>) {
        if kind == Kind::TransactionStart
            && let Ok(id) = result.and_then(|payload| transaction_id(&payload))
        {
            self.send(Kind::TransactionEnd, id, &[b"F\0"]);
        }
    }

    fn event(&self, payload: &[u8]) {
        let Ok([path, token]) = strings(payload).map(|mut parts| {
            parts.truncate(2);
            <[String; 2]>::try_from(parts).unwrap_or_default()
        }) else {
            return;
        };
        // Events of a watch that has just been dropped are on their way for a while.
        let Ok(token) = token.parse() else { return };
        let wakers: Vec<_> = self
            .0
            .state
            .borrow_mut()
            .watches
            .values_mut()
            .filter(|events| events.registration() == token)
            .filter_map(|events| events.see(&path))
            .collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Puts a request that nobody waits for into the output.
    pub(super) fn send(&self, kind: Kind, transaction: u32, parts: &[&[u8]]) {
        let mut state = self.0.state.borrow_mut();
        if state
            .enqueue(kind, transaction, parts, Progress::Abandoned)
            .is_ok()
        {
            drop(state);
            (self.0.output_ready)();
        }
    }

    /// Sends a request and waits for the payload of its reply.
    pub(super) async fn request(
        &self,
        kind: Kind,
        transaction: u32,
        parts: &[&[u8]],
    ) -> Result<Vec<u8>, Error> {
        let id = poll_fn(|context| {
            let mut state = self.0.state.borrow_mut();
            if state.output.len() >= OUTPUT_LIMIT && !state.broken {
                if !state.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                    state.waiting.push(context.waker().clone());
                }
                return Poll::Pending;
            }
            Poll::Ready(state.enqueue(kind, transaction, parts, Progress::Waiting(None)))
        })
        .await?;
        let reply = Reply { client: self, id };
        (self.0.output_ready)();
        poll_fn(|context| reply.poll(context)).await
    }

    /// Watches a path and everything below it. The path need not exist.
    ///
    /// # Errors
    /// What the daemon says, such as [`Error::Quota`]; [`Error::Invalid`] if the path is not one,
    /// [`Error::Broken`] if the connection is.
    pub async fn watch(&self, path: &str) -> Result<Watch, Error> {
        if !is_path(path) {
            return Err(Error::Invalid);
        }
        let id = self.0.state.borrow_mut().add_watch(path);
        // From here on, dropping it undoes the request, whether it was sent yet or not.
        let watch = Watch::new(self.clone(), id);
        if self.0.state.borrow().is_registered_as(id) {
            let token = id.to_string();
            self.request(Kind::Watch, 0, &[path.as_bytes(), b"\0", token.as_bytes(), b"\0"])
                .await?;
            self.0.state.borrow_mut().confirm(id);
        }
        Ok(watch)
    }

    pub(super) fn poll_watch(&self, id: u32, context: &mut Context<'_>) -> Poll<String> {
        match self.0.state.borrow_mut().watches.get_mut(&id) {
            Some(events) => events.poll(context),
            None => Poll::Pending,
        }
    }

    pub(super) fn unwatch(&self, id: u32) {
        let unused = self.0.state.borrow_mut().remove_watch(id);
        if let Some(Registration { token, path, .. }) = unused {
            let token = token.to_string();
            self.send(
                Kind::Unwatch,
                0,
                &[path.as_bytes(), b"\0", token.as_bytes(), b"\0"],
            );
        }
    }
}

impl State {
    /// Adds a watch, with a registration of its own unless there is one that serves it. The result is its
    /// number, which is the token of its own registration.
    fn add_watch(&mut self, path: &str) -> u32 {
        let id = loop {
            self.last_watch = self.last_watch.wrapping_add(1);
            // Those of long ago may still be there.
            let id = self.last_watch;
            if !self.watches.contains_key(&id) && !self.is_registered_as(id) {
                break id;
            }
        };
        let mut wider = self.registrations.iter_mut();
        let wider = wider.find(|it| it.confirmed && is_within(path, &it.path));
        let mut events = Events::new(path.into(), wider.as_ref().map_or(id, |it| it.token));
        match wider {
            Some(wider) => {
                wider.watches += 1;
                // As the daemon does for a new one.
                events.see(path);
            }
            None => self.registrations.push(Registration {
                token: id,
                path: path.into(),
                confirmed: false,
                watches: 1,
            }),
        }
        self.watches.insert(id, events);
        id
    }

    fn is_registered_as(&self, token: u32) -> bool {
        self.registrations.iter().any(|it| it.token == token)
    }

    /// The daemon watches what it was asked to.
    fn confirm(&mut self, token: u32) {
        for registration in &mut self.registrations {
            registration.confirmed |= registration.token == token;
        }
    }

    /// Removes a watch, and its registration if no other one needs it: that is the result.
    fn remove_watch(&mut self, id: u32) -> Option<Registration> {
        let token = self.watches.remove(&id)?.registration();
        let index = self.registrations.iter().position(|it| it.token == token)?;
        self.registrations[index].watches -= 1;
        (self.registrations[index].watches == 0).then(|| self.registrations.swap_remove(index))
    }

    /// Puts a request into the output and takes note of it; its number.
    fn enqueue(
        &mut self,
        kind: Kind,
        transaction: u32,
        parts: &[&[u8]],
        state: Progress,
    ) -> Result<u32, Error> {
        if self.broken {
            return Err(Error::Broken);
        }
        loop {
            self.last_request = self.last_request.wrapping_add(1);
            if self.last_request != 0 && !self.requests.contains_key(&self.last_request) {
                break;
            }
        }
        self.output
            .extend(encode(kind, self.last_request, transaction, parts)?);
        self.requests.insert(self.last_request, Pending { kind, state });
        Ok(self.last_request)
    }
}

/// The reply to a request: dropping it abandons the request.
struct Reply<'a> {
    client: &'a Client,
    id: u32,
}

impl Reply<'_> {
    fn poll(&self, context: &mut Context<'_>) -> Poll<Result<Vec<u8>, Error>> {
        let mut state = self.client.0.state.borrow_mut();
        match state.requests.remove(&self.id) {
            Some(Pending {
                state: Progress::Done(result),
                ..
            }) => Poll::Ready(result),
            Some(Pending { kind, .. }) => {
                let waiting = Progress::Waiting(Some(context.waker().clone()));
                state.requests.insert(self.id, Pending { kind, state: waiting });
                Poll::Pending
            }
            None => Poll::Ready(Err(Error::Broken)),
        }
    }
}

impl Drop for Reply<'_> {
    fn drop(&mut self) {
        let mut state = self.client.0.state.borrow_mut();
        let Some(request) = state.requests.get_mut(&self.id) else {
            return;
        };
        match core::mem::replace(&mut request.state, Progress::Abandoned) {
            Progress::Done(result) => {
                let kind = request.kind;
                state.requests.remove(&self.id);
                drop(state);
                self.client.clean_up(kind, result);
            }
            Progress::Waiting(_) | Progress::Abandoned => {}
        }
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
