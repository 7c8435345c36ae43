//! The front end's side of xenbus: finding devices, connecting and leaving (sections 1 and 7 of the
//! specification).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use kernel::time;
use kernel::xenbus::{self, State};
use kernel::xenstore;

use crate::connection::Connection;
use crate::device::Device;
use crate::ensure;
use crate::hal;
use crate::report::Outcome;

/// How long the back end may take for a step.
const LIMIT: Duration = Duration::from_secs(15);

/// The revision of the bus that this client speaks.
const REVISION: &str = "1";

/// What kind of device one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Disk,
    Network,
}

/// Where the toolstack announces devices of each kind.
const DIRECTORIES: [(&str, Kind); 2] = [
    ("device/virtio_disk", Kind::Disk),
    ("device/virtio", Kind::Network),
];

/// A device that the toolstack gave this domain.
#[derive(Clone)]
pub struct Frontend {
    /// What it is said to be.
    pub kind: Kind,
    /// The front end's directory.
    pub path: String,
    /// The back end's directory.
    pub backend: String,
    /// The back end's domain.
    pub backend_id: u16,
}

fn text(error: xenstore::Error) -> String {
    format!("xenstore: {error}")
}

/// The virtio devices of this domain.
pub async fn find() -> Outcome<Vec<Frontend>> {
    let mut found = Vec::new();
    for (directory, kind) in DIRECTORIES {
        let ids = match xenstore::list(directory).await {
            Err(xenstore::Error::NoEntry) => Vec::new(),
            ids => ids.map_err(text)?,
        };
        for id in ids {
            let path = format!("{directory}/{id}");
            let backend = xenstore::read(&format!("{path}/backend")).await.map_err(text)?;
            let backend_id = xenstore::read_parsed(&format!("{path}/backend-id"))
                .await
                .map_err(text)?;
            found.push(Frontend {
                kind,
                path,
                backend,
                backend_id,
            });
        }
    }
    Ok(found)
}

impl Frontend {
    /// Writes a node of the front end's.
    pub async fn write(&self, node: &str, value: impl AsRef<[u8]>) -> Outcome {
        xenstore::write(&format!("{}/{node}", self.path), value)
            .await
            .map_err(text)
    }

    /// Removes a node of the front end's, if it is there.
    pub async fn remove(&self, node: &str) -> Outcome {
        match xenstore::remove(&format!("{}/{node}", self.path)).await {
            Ok(()) | Err(xenstore::Error::NoEntry) => Ok(()),
            Err(error) => Err(text(error)),
        }
    }

    /// Reads a node of the back end's.
    pub async fn read_backend(&self, node: &str) -> Outcome<Option<String>> {
        match xenstore::read(&format!("{}/{node}", self.backend)).await {
            Ok(value) => Ok(Some(value)),
            Err(xenstore::Error::NoEntry) => Ok(None),
            Err(error) => Err(text(error)),
        }
    }

    /// Enters a state.
    pub async fn enter(&self, state: State) -> Outcome {
        self.write("state", state.to_string()).await
    }

    /// Waits until the back end is in a state that is fine; the result is that state.
    pub async fn await_backend(&self, what: &str, accept: impl Fn(State) -> bool) -> Outcome<State> {
        let path = format!("{}/state", self.backend);
        let mut seen = State::Unknown;
        let wait = async {
            let mut watch = xenstore::watch(&path).await.map_err(text)?;
            loop {
                watch.next().await;
                seen = xenbus::read_state(&self.backend).await.map_err(text)?;
                if accept(seen) {
                    return Ok(seen);
                }
            }
        };
        let result = time::timeout(LIMIT, wait).await;
        match result {
            Ok(result) => result,
            Err(_) => {
                let error = self.read_backend("error").await?;
                Err(format!(
                    "the back end is in state {seen:?}, expected {what} ({error:?})"
                ))
            }
        }
    }

    /// Waits for the back end to invite.
    pub async fn await_invitation(&self) -> Outcome {
        self.await_backend("InitWait", |state| state == State::InitWait)
            .await
            .map(drop)
    }

    /// Writes the nodes of a connection; they count once the state is Initialised.
    pub async fn publish(&self, connection: &Connection) -> Outcome {
        self.write("virtio-msg-revision", REVISION).await?;
        self.write("ring-ref", connection.reference().to_string()).await?;
        self.write("event-channel", connection.port().to_string()).await
    }

    /// Connects: from the back end's InitWait to both sides' Connected.
    pub async fn connect(&self) -> Outcome<Device> {
        self.await_invitation().await?;
        let revision = self.read_backend("virtio-msg-revision").await?;
        ensure!(
            revision.as_deref() == Some(REVISION),
            "the back end's virtio-msg-revision is {revision:?}"
        );
        let pool = self.read_backend("max-pool-pages").await?;
        let max_pool_pages = pool
            .as_deref()
            .and_then(|pages| pages.parse().ok())
            .ok_or_else(|| format!("the back end's max-pool-pages is {pool:?}"))?;
        hal::set_peer(self.backend_id);
        let connection = Connection::new(self.backend_id)?;
        self.publish(&connection).await?;
        self.enter(State::Initialised).await?;
        self.await_backend("Connected", |state| state == State::Connected)
            .await?;
        self.enter(State::Connected).await?;
        Ok(Device::new(connection, max_pool_pages))
    }

    /// Leaves in good order, and makes the front end ready to connect again. Fails if the back end keeps
    /// anything.
    pub async fn disconnect(&self, device: Device) -> Outcome {
        device.leave()?;
        hal::drop_pool();
        self.close(device.into_connection()).await
    }

    /// Gets to the start again from wherever a test has left things.
    pub async fn start_over(&self) -> Outcome {
        self.enter(State::Closed).await?;
        self.await_backend("Closed", |state| state == State::Closed)
            .await?;
        hal::reclaim();
        hal::drop_pool();
        hal::take_in_use();
        self.enter(State::Initialising).await
    }

    /// The end of a connection, whatever was before it: Closing, Closed, and Initialising for the next.
    pub async fn close(&self, connection: Connection) -> Outcome {
        self.enter(State::Closing).await?;
        let closing = |state| matches!(state, State::Closing | State::Closed);
        self.await_backend("Closing", closing).await?;
        self.close_after_closing(connection).await
    }

    /// The rest of [`close`](Self::close), when the back end is in Closing already.
    pub async fn close_after_closing(&self, connection: Connection) -> Outcome {
        self.enter(State::Closed).await?;
        self.await_backend("Closed", |state| state == State::Closed)
            .await?;
        hal::reclaim();
        hal::drop_pool();
        connection.close()?;
        let in_use = hal::take_in_use();
        ensure!(
            in_use == 0,
            "the back end has closed, but still uses {in_use} grants"
        );
        self.enter(State::Initialising).await
    }
}
