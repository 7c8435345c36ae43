//! This domain's xenstore client.
//!
//! All requests fail with what the daemon says, with [`Error::Invalid`] if the path is not one, and with
//! [`Error::Broken`] once the connection is; what else makes one fail stands at it.
//!
//! Paths that do not start with `/` are relative to the domain's own directory, `/local/domain/<domid>`. The
//! ring's layout is `struct xenstore_domain_interface` of `xen/include/public/io/xs_wire.h`; the client
//! itself is [`protocols::xenstore`].

use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::str::FromStr;

pub use protocols::xenstore::{Client, Error, Transaction, Watch};

use crate::cell::CpuCell;
use crate::event::EventChannel;
use crate::shared::{SharedMemory, barrier};
use crate::sync::{Signal, select};
use crate::{executor, mm};

const RING: u32 = 1024;
const REQUESTS: usize = 0;
const REPLIES: usize = 1024;
const REQUEST_CONS: usize = 2048;
const REQUEST_PROD: usize = 2052;
const REPLY_CONS: usize = 2056;
const REPLY_PROD: usize = 2060;

static CLIENT: CpuCell<Option<Client>> = CpuCell::new(None);
static OUTPUT_READY: CpuCell<Option<Rc<Signal>>> = CpuCell::new(None);

/// Starts the client on the ring at this page of the linear map, with its event channel.
pub(crate) fn start(page: usize, port: u32) {
    // SAFETY: the page of the ring stays mapped, and nothing makes references into it.
    let ring = Ring(unsafe { SharedMemory::new(page as *mut u8, mm::PAGE_SIZE) });
    let client = Client::new(|| {
        if let Some(signal) = OUTPUT_READY.borrow().as_ref() {
            signal.set();
        }
    });
    let output_ready = Rc::new(Signal::new());
    *OUTPUT_READY.borrow() = Some(output_ready.clone());
    *CLIENT.borrow() = Some(client.clone());
    let channel = match EventChannel::adopt(port) {
        Ok(channel) => channel,
        Err(error) => {
            log::error!("no event channel for xenstore: {error}");
            return client.break_off();
        }
    };
    executor::spawn(async move {
        while let Ok(moved) = ring.pump(&client) {
            if moved {
                barrier();
                channel.notify();
            } else {
                select(channel.wait(), output_ready.wait()).await;
            }
        }
        client.break_off();
    })
    .detach();
}

struct Ring(SharedMemory<'static>);

/// The daemon's ring indices make no sense.
struct BrokenRing;

impl Ring {
    /// Moves bytes both ways while there is something to move; whether there was.
    fn pump(&self, client: &Client) -> Result<bool, BrokenRing> {
        let mut moved = false;
        while self.receive(client)? | self.send(client)? {
            moved = true;
        }
        Ok(moved)
    }

    fn receive(&self, client: &Client) -> Result<bool, BrokenRing> {
        let (consumed, produced) = (self.0.read_u32(REPLY_CONS), self.0.read_u32_acquire(REPLY_PROD));
        let available = produced.wrapping_sub(consumed);
        if available > RING {
            return Err(BrokenRing);
        }
        let at = consumed % RING;
        let count = available.min(RING - at) as usize;
        let mut bytes = [0; RING as usize];
        self.0.copy_out(REPLIES + at as usize, &mut bytes[..count]);
        self.0
            .write_u32_release(REPLY_CONS, consumed.wrapping_add(count as u32));
        client.input(&bytes[..count]);
        Ok(count > 0)
    }

    fn send(&self, client: &Client) -> Result<bool, BrokenRing> {
        let (produced, consumed) = (
            self.0.read_u32(REQUEST_PROD),
            self.0.read_u32_acquire(REQUEST_CONS),
        );
        let room = RING
            .checked_sub(produced.wrapping_sub(consumed))
            .ok_or(BrokenRing)?;
        let at = produced % RING;
        let mut bytes = [0; RING as usize];
        let count = client.output(&mut bytes[..room.min(RING - at) as usize]);
        self.0.copy_in(REQUESTS + at as usize, &bytes[..count]);
        self.0
            .write_u32_release(REQUEST_PROD, produced.wrapping_add(count as u32));
        Ok(count > 0)
    }
}

/// The domain's client.
///
/// # Panics
/// Before boot has started it, which is before any task runs.
pub fn client() -> Client {
    CLIENT.borrow().clone().expect("xenstore has been started")
}

/// The value of a node, as text.
///
/// # Errors
/// [`Error::NoEntry`] if there is no such node, [`Error::Malformed`] if its value is not UTF-8.
pub async fn read(path: &str) -> Result<String, Error> {
    client().read(path).await
}

/// The value of a node as what its text stands for, such as a number.
///
/// # Errors
/// As for [`read`]; [`Error::Malformed`] also if the text stands for no such thing.
pub async fn read_parsed<T: FromStr>(path: &str) -> Result<T, Error> {
    read(path).await?.parse().map_err(|_| Error::Malformed)
}

/// The value of a node as what its text stands for, or `None` if there is no such node.
///
/// # Errors
/// As for [`read_parsed`], but for [`Error::NoEntry`].
pub async fn read_optional<T: FromStr>(path: &str) -> Result<Option<T>, Error> {
    match read_parsed(path).await {
        Ok(value) => Ok(Some(value)),
        Err(Error::NoEntry) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether there is such a node.
///
/// # Errors
/// [`Error::Denied`] if it is not this domain's to read.
pub async fn exists(path: &str) -> Result<bool, Error> {
    match read(path).await {
        Ok(_) | Err(Error::Malformed) => Ok(true),
        Err(Error::NoEntry) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Sets the value of a node, and makes it and its parents if need be.
///
/// # Errors
/// [`Error::Denied`] if it is not this domain's to write, [`Error::TooBig`] or [`Error::Quota`] if it is too
/// large or one too many.
pub async fn write(path: &str, value: impl AsRef<[u8]>) -> Result<(), Error> {
    client().write(path, value).await
}

/// Removes a node and everything below it. It need not exist.
///
/// # Errors
/// [`Error::NoEntry`] if its parent does not exist, [`Error::Denied`] if it is not this domain's to remove.
pub async fn remove(path: &str) -> Result<(), Error> {
    client().remove(path).await
}

/// The names of a node's children.
///
/// # Errors
/// [`Error::NoEntry`] if there is no such node, [`Error::TooBig`] if the list is longer than what is read.
pub async fn list(path: &str) -> Result<Vec<String>, Error> {
    client().list(path).await
}

/// Watches a path and everything below it; see [`Watch::next`].
///
/// # Errors
/// [`Error::Quota`] if this domain has as many watches as it may.
pub async fn watch(path: &str) -> Result<Watch, Error> {
    client().watch(path).await
}

/// Runs `body` in a transaction, again if others interfere; see [`Client::transaction`].
///
/// # Errors
/// That of the body, whose changes are discarded then; [`Error::Again`] if others interfere every time.
pub async fn transaction<T>(body: impl AsyncFnMut(&Transaction) -> Result<T, Error>) -> Result<T, Error> {
    client().transaction(body).await
}

/// This domain's id.
///
/// # Errors
/// As for [`read_parsed`].
pub async fn own_domid() -> Result<u16, Error> {
    read_parsed("domid").await
}
