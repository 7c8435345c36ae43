//! Bad nodes and states in xenstore.

use alloc::format;
use alloc::rc::Rc;
use alloc::string::ToString;
use core::time::Duration;

use kernel::time;
use kernel::xenbus::State;

use super::{UNGRANTED, leave, serves};
use crate::connection::Connection;
use crate::ensure;
use crate::frontend::Frontend;
use crate::hal;
use crate::random::Random;
use crate::report::Outcome;

/// The scenarios of this group.
pub const NAMES: &[&str] = &[
    "node-ring-ref",
    "node-event-channel",
    "node-revision",
    "state-garbage",
    "state-garbage-connected",
    "state-storm",
    "straight-to-connected",
    "closed-without-closing",
    "new-driver-without-goodbye",
    "state-taken-away",
    "connect-cycles",
];

/// What no number is.
const NO_NUMBERS: [&str; 8] = [
    "",
    "banana",
    "-1",
    "+1",
    "01",
    " 1",
    "1 2",
    "99999999999999999999",
];

/// Runs a scenario.
pub async fn run(frontend: &Frontend, name: &str) -> Outcome {
    match name {
        "node-ring-ref" => {
            let ungranted = UNGRANTED.to_string();
            bad_nodes(
                frontend,
                "ring-ref",
                &["0", "1", &ungranted, "4294967295", "4294967296"],
            )
            .await
        }
        "node-event-channel" => {
            bad_nodes(
                frontend,
                "event-channel",
                &["0", "1", "9999", "4294967295", "4294967296"],
            )
            .await
        }
        "node-revision" => bad_nodes(frontend, "virtio-msg-revision", &["0", "2", "4294967296"]).await,
        "state-garbage" => state_garbage(frontend).await,
        "state-garbage-connected" => state_garbage_connected(frontend).await,
        "state-storm" => state_storm(frontend).await,
        "straight-to-connected" => straight_to_connected(frontend).await,
        "closed-without-closing" => closed_without_closing(frontend).await,
        "new-driver-without-goodbye" => new_driver(frontend).await,
        "state-taken-away" => state_taken_away(frontend).await,
        "connect-cycles" => connect_cycles(frontend).await,
        _ => Err("not a scenario".into()),
    }
}

/// With each of these values of a node, with no number and without the node, the back end writes `error` and
/// enters Closed.
async fn bad_nodes(frontend: &Frontend, node: &str, values: &[&str]) -> Outcome {
    let values = values.iter().chain(&NO_NUMBERS).copied().map(Some);
    for value in values.chain([None]) {
        refused(frontend, node, value)
            .await
            .map_err(|error| format!("{node}={value:?}: {error}"))?;
    }
    Ok(())
}

async fn refused(frontend: &Frontend, node: &str, value: Option<&str>) -> Outcome {
    frontend.await_invitation().await?;
    hal::set_peer(frontend.backend_id);
    let connection = Connection::new(frontend.backend_id)?;
    frontend.publish(&connection).await?;
    match value {
        Some(value) => frontend.write(node, value).await?,
        None => frontend.remove(node).await?,
    }
    frontend.enter(State::Initialised).await?;
    frontend
        .await_backend("Closed", |state| state == State::Closed)
        .await?;
    let error = frontend.read_backend("error").await?.unwrap_or_default();
    ensure!(error.contains(node), "the error is {error:?}");
    frontend.enter(State::Closed).await?;
    connection.close()?;
    frontend.enter(State::Initialising).await
}

/// Values of the state node that are no states, before a connection: they mean nothing.
async fn state_garbage(frontend: &Frontend) -> Outcome {
    frontend.await_invitation().await?;
    for value in NO_NUMBERS.iter().chain(&["0", "9", "255", "3x"]) {
        frontend.write("state", value).await?;
        time::sleep(Duration::from_millis(20)).await;
    }
    frontend.enter(State::Initialising).await?;
    let device = Rc::new(frontend.connect().await?);
    serves(&device).await?;
    leave(frontend, device).await
}

/// The same with a connection: it stays, or it ends in good order.
async fn state_garbage_connected(frontend: &Frontend) -> Outcome {
    let device = Rc::new(frontend.connect().await?);
    for value in NO_NUMBERS.iter().chain(&["0", "9", "2", "3"]) {
        frontend.write("state", value).await?;
        time::sleep(Duration::from_millis(20)).await;
    }
    frontend.enter(State::Connected).await?;
    serves(&device).await?;
    leave(frontend, device).await
}

/// States in any order, faster than anybody follows. Whatever came of it, the front end can start over.
async fn state_storm(frontend: &Frontend) -> Outcome {
    let connection = Connection::new(frontend.backend_id)?;
    frontend.publish(&connection).await?;
    let mut random = Random::new(3);
    for _ in 0..300 {
        let state = State::ALL[random.below(State::ALL.len() as u64) as usize];
        frontend.enter(state).await?;
    }
    frontend.start_over().await?;
    connection.close()
}

/// Connected without Initialised before counts as both.
async fn straight_to_connected(frontend: &Frontend) -> Outcome {
    frontend.await_invitation().await?;
    let connection = Connection::new(frontend.backend_id)?;
    frontend.publish(&connection).await?;
    frontend.enter(State::Connected).await?;
    frontend
        .await_backend("Connected", |state| state == State::Connected)
        .await?;
    frontend.close(connection).await
}

/// Closed without Closing before it.
async fn closed_without_closing(frontend: &Frontend) -> Outcome {
    for _ in 0..3 {
        let device = frontend.connect().await?;
        frontend.close_after_closing(device.into_connection()).await?;
    }
    Ok(())
}

/// A driver that knows nothing of the one before it: the back end ends the old connection before it invites
/// the new driver.
async fn new_driver(frontend: &Frontend) -> Outcome {
    for _ in 0..3 {
        let old = frontend.connect().await?.into_connection();
        frontend.enter(State::Initialising).await?;
        frontend.await_invitation().await?;
        old.close()?;
    }
    Ok(())
}

/// A driver that has its device served anew again and again: it takes its state away, as if it were gone, and
/// comes back. `client-hostile.sh` counts what the log says of it.
async fn state_taken_away(frontend: &Frontend) -> Outcome {
    for _ in 0..30 {
        frontend.await_invitation().await?;
        frontend.remove("state").await?;
        frontend
            .await_backend("Closed", |state| state == State::Closed)
            .await?;
        frontend.enter(State::Initialising).await?;
        frontend.await_invitation().await?;
        // What serves the device has nothing to connect with any more, and begins anew.
        frontend.enter(State::Initialised).await?;
        frontend
            .await_backend("Closed", |state| matches!(state, State::Closing | State::Closed))
            .await?;
        frontend.start_over().await?;
    }
    let device = Rc::new(frontend.connect().await?);
    serves(&device).await?;
    leave(frontend, device).await
}

async fn connect_cycles(frontend: &Frontend) -> Outcome {
    for _ in 0..20 {
        let device = frontend.connect().await?;
        frontend.close(device.into_connection()).await?;
    }
    Ok(())
}
