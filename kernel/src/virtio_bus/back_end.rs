//! The xenbus side of one device: its nodes and states, from the toolstack's creating it to its end
//! (`docs/virtio-msg-xen.md` sections 1 and 7).

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt::Display;
use core::time::Duration;

use devices::device::Model;
use protocols::back_end::{Situation, Step};
use protocols::message_page::Violation;
use protocols::text::{decimal, printable};
use protocols::xenbus::State;

use super::bus::XenBus;
use super::connection::Connection;
use super::memory::PagedBuffer;
use crate::executor::{self, Task};
use crate::ratelimit::LogLimit;
use crate::sync::{Either, select};
use crate::time::sleep;
use crate::xenbus;
use crate::xenstore::{self, Error};

/// The revision of the bus that this end speaks.
const REVISION: u32 = 1;

/// Pages of granted pool that are mapped for each device: room for the small buffers of a queue of 256.
const MAX_POOL_PAGES: u32 = 32;

/// How long Closed stands before the directory is removed. libxl takes the removal for a failure unless it
/// has read Closed first, and nothing tells that it has; it waits ten seconds for the removal then.
const CLOSED_STANDS: Duration = Duration::from_millis(500);
/// How long a device that cannot even be refused is left alone.
const REFUSED: Duration = Duration::from_secs(10);

/// A device's directory under `backend/`, made by the toolstack for one client.
pub struct BackEnd {
    path: String,
    front_end: String,
    client: u16,
    limit: LogLimit,
}

/// Why a client's nodes could not be used.
type Reason = String;

impl BackEnd {
    /// Looks at the directory `path` of a device for the domain `client`. `limit` is for everything that the
    /// client can cause to be logged, and outlives this: a client can have its device served anew.
    ///
    /// # Errors
    /// A text that says which node is wrong; the caller refuses the device with it.
    pub async fn new(path: &str, client: u16, limit: LogLimit) -> Result<Self, (Self, Reason)> {
        let mut back_end = Self {
            path: path.to_string(),
            front_end: String::new(),
            client,
            limit,
        };
        match back_end.find_front_end().await {
            Ok(front_end) => {
                back_end.front_end = front_end;
                Ok(back_end)
            }
            Err(reason) => Err((back_end, reason)),
        }
    }

    async fn find_front_end(&self) -> Result<String, Reason> {
        let id = self.read("frontend-id").await?;
        if id != self.client.to_string() {
            return Err(format!(
                "frontend-id={}: expected {}, as in the directory's name",
                printable(&id),
                self.client
            ));
        }
        let front_end = self.read("frontend").await?;
        let home = format!("/local/domain/{}/", self.client);
        if !front_end.starts_with(&home) {
            return Err(format!(
                "frontend={}: expected a path below {home}",
                printable(&front_end)
            ));
        }
        Ok(front_end)
    }

    /// Reads a node of the directory that has to be there.
    pub async fn read(&self, node: &str) -> Result<String, Reason> {
        self.read_optional(node)
            .await?
            .ok_or_else(|| format!("{node}: missing"))
    }

    /// Reads a node of the directory, if it is there.
    pub async fn read_optional(&self, node: &str) -> Result<Option<String>, Reason> {
        xenstore::read_optional(&format!("{}/{node}", self.path))
            .await
            .map_err(|error| format!("{node}: {error}"))
    }

    /// Refuses the device for good: tells the reason, in the log and in xenstore, enters Closed, makes libxl
    /// give up at once, and waits until the directory is gone.
    pub async fn refuse(&self, reason: impl Display) {
        log::error!("{}: {reason}", self.path);
        if let Err(error) = self.close_refused(&reason.to_string()).await {
            log::debug!("{}: {error}", self.path);
            // The directory still looks like a device to be served, which is not to be tried without end.
            sleep(REFUSED).await;
        }
    }

    async fn close_refused(&self, reason: &str) -> Result<(), Error> {
        xenbus::fail(&self.path, reason).await;
        xenbus::switch_state(&self.path, State::Closed).await?;
        // libxl waits for InitWait until a timeout, except if the node vanishes.
        xenstore::remove(&format!("{}/state", self.path)).await?;
        let mut own = xenstore::watch(&self.path).await?;
        while xenstore::exists(&self.path).await? {
            own.next().await;
        }
        Ok(())
    }

    /// Serves the device until the toolstack removes it. `make` gives a fresh model for each connection, when
    /// a front end has come, or says why there is none. It is dropped as soon as the device has gone, before
    /// the toolstack is told: what it holds is free for the next device when `xl destroy` returns. Should
    /// this one be wanted again, it is to be served anew.
    pub async fn serve<M, B>(&self, make: impl AsyncFnMut() -> Result<M, Reason>)
    where
        M: Model<XenBus<B>> + 'static,
        B: PagedBuffer + 'static,
    {
        let (mut make, mut connection) = (Some(make), None);
        let result = self.run(&mut make, &mut connection).await;
        end(connection).await;
        drop(make);
        if let Err(error) = result {
            // Only a xenstore that is full or broken gets here.
            self.refuse(error).await;
        }
    }

    async fn run<M, B>(
        &self,
        make: &mut Option<impl AsyncFnMut() -> Result<M, Reason>>,
        connection: &mut Option<Task<Violation>>,
    ) -> Result<(), Error>
    where
        M: Model<XenBus<B>> + 'static,
        B: PagedBuffer + 'static,
    {
        let mut own = xenstore::watch(&self.path).await?;
        let mut front = xenstore::watch(&format!("{}/state", self.front_end)).await?;
        loop {
            let situation = self.look(connection.is_some()).await?;
            let from = situation.own.unwrap_or_default();
            let gone = !situation.online || situation.front.is_none();
            if gone && connection.is_none() {
                *make = None;
            }
            match situation.step() {
                Step::Wait => {
                    let changed = select(own.next(), front.next());
                    match connection {
                        None => drop(changed.await),
                        Some(task) => {
                            if let Either::Second(violation) = select(changed, task).await {
                                // What the client had here is gone already.
                                *connection = None;
                                self.report(&format!("the client broke the rules: {violation}"))
                                    .await;
                            }
                        }
                    }
                }
                Step::Offer => self.offer(from).await?,
                Step::Connect => {
                    let Some(make) = make else { return Ok(()) };
                    match self.connect(make).await {
                        Ok(connected) => {
                            *connection = Some(connected);
                            xenbus::clear_failure(&self.path).await;
                            self.enter(from, State::Connected, &[]).await?;
                        }
                        Err(reason) => {
                            self.report(&reason).await;
                            self.enter(from, State::Closing, &[]).await?;
                        }
                    }
                }
                Step::Close => self.enter(from, State::Closing, &[]).await?,
                Step::End => {
                    end(connection.take()).await;
                    if gone {
                        *make = None;
                    }
                    self.enter(from, State::Closed, &[]).await?;
                }
                Step::Finish => {
                    end(connection.take()).await;
                    *make = None;
                    return match situation.own {
                        Some(_) => self.remove().await,
                        None => Ok(()),
                    };
                }
            }
        }
    }

    /// Removes a directory that is done with, which a toolstack leaves to the driver domain; unless it is
    /// another one by now.
    async fn remove(&self) -> Result<(), Error> {
        sleep(CLOSED_STANDS).await;
        let (state, online) = (format!("{}/state", self.path), format!("{}/online", self.path));
        let orphaned = self.goes_with_guest().await?;
        let removed = xenstore::transaction(async |transaction| {
            let closed = transaction.read(&state).await?.parse() == Ok(State::Closed);
            if closed && (orphaned || transaction.read(&online).await? == "0") {
                transaction.remove(&self.path).await?;
            }
            Ok(())
        });
        match removed.await {
            Err(Error::NoEntry) => Ok(()),
            result => result,
        }
    }

    async fn look(&self, connected: bool) -> Result<Situation, Error> {
        let own = xenbus::find_state(&self.path).await?;
        let front = match xenbus::find_state(&self.front_end).await {
            // What was removed from a directory that one may not see is denied.
            Err(Error::Denied) => None,
            front => front?,
        };
        let online: Option<String> = xenstore::read_optional(&format!("{}/online", self.path)).await?;
        let online = online.as_deref() != Some("0") && !(front.is_none() && self.goes_with_guest().await?);
        Ok(Situation {
            own,
            online,
            front,
            connected,
        })
    }

    /// Whether no toolstack will take the device away when the guest is gone.
    async fn goes_with_guest(&self) -> Result<bool, Error> {
        let node = format!("{}/removed-with-guest", self.path);
        let value: Option<String> = xenstore::read_optional(&node).await?;
        Ok(value.as_deref() == Some("1"))
    }

    async fn offer(&self, from: State) -> Result<(), Error> {
        let (revision, pages) = (REVISION.to_string(), MAX_POOL_PAGES.to_string());
        let nodes = [
            ("virtio-msg-revision", revision.as_str()),
            ("max-pool-pages", &pages),
        ];
        self.enter(from, State::InitWait, &nodes).await
    }

    async fn connect<M, B>(
        &self,
        make: &mut impl AsyncFnMut() -> Result<M, Reason>,
    ) -> Result<Task<Violation>, Reason>
    where
        M: Model<XenBus<B>> + 'static,
        B: PagedBuffer + 'static,
    {
        let revision = self.front_number("virtio-msg-revision").await?;
        if revision != REVISION {
            return Err(format!("virtio-msg-revision={revision}: expected {REVISION}"));
        }
        let ring_ref = self.front_number("ring-ref").await?;
        let port = self.front_number("event-channel").await?;
        let bus = XenBus::new(self.client, MAX_POOL_PAGES, self.limit.clone());
        let mut connection = Connection::open(self.client, ring_ref, port, bus, make().await?)
            .map_err(|error| error.to_string())?;
        let limit = self.limit.clone();
        Ok(executor::spawn(async move { connection.run(&limit).await }))
    }

    async fn front_number(&self, node: &str) -> Result<u32, Reason> {
        let value = xenstore::read(&format!("{}/{node}", self.front_end)).await;
        let value = value.map_err(|error| format!("front end's {node}: {error}"))?;
        decimal(&value).ok_or_else(|| format!("front end's {node}={}: expected a number", printable(&value)))
    }

    /// Tells what the client did wrong.
    async fn report(&self, reason: &str) {
        self.limit.warn(format_args!("{reason}"));
        xenbus::fail(&self.path, reason).await;
    }

    /// Goes from the state that was seen to another, with these nodes; see [`xenbus::advance`].
    async fn enter(&self, from: State, to: State, nodes: &[(&str, &str)]) -> Result<(), Error> {
        log::debug!("{}: {to:?}", self.path);
        xenbus::advance(&self.path, from, to, nodes).await
    }
}

/// Ends a connection, and waits until nothing of it is left.
async fn end(connection: Option<Task<Violation>>) {
    if let Some(task) = connection {
        task.cancel().await;
    }
}
