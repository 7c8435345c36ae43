//! Devices on xenbus: the states of their two ends, and how errors are reported.
//!
//! A path here is an end's directory, which holds its `state` node.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;

pub use protocols::xenbus::State;

use crate::cell::CpuCell;
use crate::xenstore::{self, Error};

/// The state of an end; [`State::Unknown`] if its directory or node is gone, or holds something else.
pub async fn read_state(path: &str) -> Result<State, Error> {
    Ok(find_state(path).await?.unwrap_or_default())
}

/// The state of an end, or `None` if its directory or node is gone.
pub async fn find_state(path: &str) -> Result<Option<State>, Error> {
    match xenstore::read(&format!("{path}/state")).await {
        Ok(value) => Ok(Some(value.parse().unwrap_or_default())),
        Err(Error::Malformed) => Ok(Some(State::Unknown)),
        Err(Error::NoEntry) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Enters a state: sets the node, if it exists and differs. A directory that is gone stays gone:
/// [`Error::NoEntry`].
pub async fn switch_state(path: &str, state: State) -> Result<(), Error> {
    let node = format!("{path}/state");
    xenstore::transaction(async |transaction| {
        // Reading first keeps the write from making the directory anew when the toolstack has just removed
        // it.
        let old = transaction.read(&node).await?;
        if old.parse() != Ok(state) {
            transaction.write(&node, format!("{state}")).await?;
        }
        Ok(())
    })
    .await
}

/// Says again that it is in a state, for a peer that looks whenever that is said. Nothing changes if it is
/// not, or if the directory is gone.
pub async fn repeat_state(path: &str, state: State) -> Result<(), Error> {
    let node = format!("{path}/state");
    xenstore::transaction(async |transaction| {
        if transaction.read(&node).await?.parse() == Ok(state) {
            transaction.write(&node, format!("{state}")).await?;
        }
        Ok(())
    })
    .await
}

/// Goes from one state to another, and sets nodes of the same directory with it. Nothing changes if the state
/// is no longer `from`, because somebody else has written it, or if the directory is gone: whoever decided on
/// this looks again then.
pub async fn advance(path: &str, from: State, to: State, nodes: &[(&str, &str)]) -> Result<(), Error> {
    let state = format!("{path}/state");
    let advanced = xenstore::transaction(async |transaction| {
        let old = transaction.read(&state).await?;
        if old.parse::<State>().unwrap_or_default() != from {
            return Ok(());
        }
        for (node, value) in nodes {
            transaction.write(&format!("{path}/{node}"), value).await?;
        }
        transaction.write(&state, format!("{to}")).await
    });
    match advanced.await {
        Err(Error::NoEntry) => Ok(()),
        result => result,
    }
}

/// How many errors are kept below `error/`: those of devices that are gone would fill xenstore's quota.
const KEPT_ERRORS: usize = 16;

/// Where errors were told, the oldest first.
static TOLD: CpuCell<VecDeque<String>> = CpuCell::new(VecDeque::new());

/// Tells why a device does not work: in `error` of its directory, if that exists, and in `error/<path>/error`
/// of this domain's directory, where the toolstack's users look (`path` then without this domain's own
/// prefix). The last 16 are kept there. That it cannot be told is only logged.
pub async fn fail(path: &str, reason: &str) {
    let told = async {
        let node = error_node(path).await?;
        xenstore::write(&format!("{node}/error"), reason).await?;
        if let Some(oldest) = remember(node) {
            remove_error(&oldest).await?;
        }
        let node = format!("{path}/error");
        xenstore::transaction(async |transaction| {
            transaction.list(path).await?;
            transaction.write(&node, reason).await
        })
        .await
    };
    if let Err(error) = told.await {
        log::debug!("{path}: the error cannot be told: {error}");
    }
}

/// Removes what [`fail`] has told about a device, if it has.
pub async fn clear_failure(path: &str) {
    let cleared = async {
        let node = error_node(path).await?;
        if forget(&node) {
            remove_error(&node).await?;
            xenstore::remove(&format!("{path}/error")).await?;
        }
        Ok::<(), Error>(())
    };
    if let Err(error) = cleared.await {
        log::debug!("{path}: the old error stays: {error}");
    }
}

/// The directory of a device's error.
async fn error_node(path: &str) -> Result<String, Error> {
    let domid = xenstore::own_domid().await?;
    let local = path
        .strip_prefix(&format!("/local/domain/{domid}/"))
        .unwrap_or(path.trim_start_matches('/'));
    Ok(format!("error/{local}"))
}

/// Removes the directory of a device's error, and those between it and `error` that are empty then: else each
/// client would leave one behind.
async fn remove_error(node: &str) -> Result<(), Error> {
    let removed = xenstore::transaction(async |transaction| {
        transaction.remove(node).await?;
        let mut path = node;
        // `error` itself is the toolstack's.
        while let Some((parent, _)) = path.rsplit_once('/').filter(|(parent, _)| parent.contains('/')) {
            if !transaction.list(parent).await?.is_empty() {
                break;
            }
            transaction.remove(parent).await?;
            path = parent;
        }
        Ok(())
    });
    match removed.await {
        Err(Error::NoEntry) => Ok(()),
        result => result,
    }
}

/// Notes where an error was told, and gives the one that is to go for it.
fn remember(node: String) -> Option<String> {
    forget(&node);
    let mut told = TOLD.borrow();
    told.push_back(node);
    if told.len() > KEPT_ERRORS {
        told.pop_front()
    } else {
        None
    }
}

/// Forgets that an error was told there; whether there was one.
fn forget(node: &str) -> bool {
    let mut told = TOLD.borrow();
    let before = told.len();
    told.retain(|it| it != node);
    told.len() < before
}
