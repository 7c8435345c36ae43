//! The life of a front end.
//!
//! It connects, follows what changes, and connects again when that ends, until the device is gone: see
//! [`protocols::front_end`] for the order of the steps.

use alloc::format;
use alloc::string::String;
use core::convert::Infallible;
use core::future::poll_fn;
use core::mem;
use core::task::{Context, Poll};
use core::time::Duration;

use protocols::front_end::{Phase, Reason, Step};
use protocols::xenbus::State as Xenbus;

use super::device::{BackEnd, BackEndWatch, Device};
use super::end::End;
use crate::sync::{Either, select};
use crate::time::{self, Instant};
use crate::xenbus;
use crate::xenstore::{self, Watch};

/// The first wait after a connection that failed; it doubles up to the last.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// A connection that lasted so long, or ten times the wait that would be next, was a good one.
const GOOD: Duration = Duration::from_secs(60);

/// What an uplink is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// There is no back end, or none that is ready. Requests wait.
    Connecting,
    /// Requests or frames move.
    Connected,
    /// The toolstack has taken the device away. Requests fail.
    Removed,
}

/// Rings that a back end knows of.
pub(crate) struct Connection<R> {
    pub back_end: BackEnd,
    phase: Phase,
    /// When it came that far.
    since: Instant,
    /// What they are depends on the class of the device.
    pub rings: R,
}

/// What the front ends of each class do their own way.
pub(crate) trait FrontEnd {
    type Rings;

    fn device(&self) -> &Device;

    /// Says what it is doing now.
    fn set_state(&self, state: State);

    /// Whether the device has clients, which are to let go of it before it goes.
    fn in_use(&self) -> bool;

    /// Waits for what is to be looked at beside xenstore. An error ends the connection.
    async fn attention(&self) -> Result<(), End>;

    /// Makes rings and event channels, and publishes them.
    async fn offer(&self, back_end: &BackEnd) -> Result<Self::Rings, End>;

    /// The back end has accepted: starts the data path.
    async fn start(&self, connection: &mut Connection<Self::Rings>) -> Result<(), End>;

    /// Reads what a back end may change while it is connected.
    async fn follow(&self, connection: &Connection<Self::Rings>) -> Result<(), End>;

    /// Stops the data path, if there is one. The back end may still be at work with its pages: the result
    /// takes back what it has let go of, and says whether that was all.
    async fn hang_up(&self, rings: Option<Self::Rings>) -> impl FnMut() -> bool;
}

/// Keeps a device connected until it is removed.
pub(crate) async fn live<F: FrontEnd>(front_end: F) {
    let device = front_end.device();
    let (mut retry, mut told, mut closed) = (FIRST_RETRY, String::new(), false);
    loop {
        let mut connection = None;
        let attempt = async {
            if closed {
                device.is_the_same().await?;
            }
            connect_and_follow(&front_end, &mut connection, &mut told).await
        };
        let Err(end) = attempt.await;
        let end = device.removed_or(end).await;
        front_end.set_state(State::Connecting);
        let (phase, rings) = match connection {
            Some(Connection {
                phase, since, rings, ..
            }) => {
                if phase == Phase::Running && since.elapsed() >= (retry * 10).min(GOOD) {
                    retry = FIRST_RETRY;
                }
                (phase, Some(rings))
            }
            None => (Phase::Idle, None),
        };
        device.report(&end, &mut told).await;
        let take_back = front_end.hang_up(rings).await;
        // A directory that was removed may be there again, for a new device of the same number that is not
        // this one's to close.
        closed = !matches!(end, End::Reason(Reason::Removed)) && device.close(phase).await;
        device.take_back(closed, take_back).await;
        if end.is_final() {
            break;
        }
        time::sleep(retry).await;
        retry = (retry * 2).min(LAST_RETRY);
    }
    front_end.set_state(State::Removed);
}

/// Connects and follows what changes. Rings that a back end may know of are in `connection` at the end;
/// `told` is emptied by success.
async fn connect_and_follow<F: FrontEnd>(
    front_end: &F,
    connection: &mut Option<Connection<F::Rings>>,
    told: &mut String,
) -> Result<Infallible, End> {
    let device = front_end.device();
    let mut own = xenstore::watch(&device.path).await?;
    let mut back = None;
    let mut leaving = false;
    loop {
        let seen = connection.as_ref().map(|it| (&it.back_end, it.phase));
        let (situation, back_end) = device.look(seen, front_end.in_use(), &mut back).await?;
        match (situation.step(), &mut *connection, back_end) {
            (Step::Begin, ..) => xenbus::switch_state(&device.path, Xenbus::Initialising).await?,
            (Step::Offer, connection, Some(back_end)) => {
                // What was written before the rings were is of the back end that they are for.
                poll_fn(|context| Poll::Ready(take_events(&mut back, context))).await;
                let rings = front_end.offer(&back_end).await?;
                *connection = Some(Connection {
                    back_end,
                    phase: Phase::Offered,
                    since: time::now(),
                    rings,
                });
                xenbus::switch_state(&device.path, situation.class.offered()).await?;
            }
            (Step::Run, Some(connection), _) => {
                (connection.phase, connection.since) = (Phase::Running, time::now());
                front_end.start(connection).await?;
                front_end.set_state(State::Connected);
                told.clear();
                xenbus::clear_failure(&device.path).await;
                // Older errors are forgotten there.
                let _ = xenstore::remove(&format!("{}/error", device.path)).await;
            }
            (Step::End(reason), ..) => return Err(End::Reason(reason)),
            (step, connection, _) => {
                if let (Step::Follow, Some(connection)) = (step, connection) {
                    front_end.follow(connection).await?;
                }
                if step == Step::WaitForClients && !mem::replace(&mut leaving, true) {
                    device.log.warn(format_args!(
                        "to be detached, but in use; waiting for its clients"
                    ));
                }
                match select(front_end.attention(), changed(&mut own, &mut back)).await {
                    Either::First(attention) => attention?,
                    Either::Second(Changed::Exchanged) if situation.phase != Phase::Idle => {
                        return Err(End::Reason(Reason::Closed));
                    }
                    Either::Second(_) => {}
                }
            }
        }
    }
}

/// A node that a back end's driver writes when it finds the device, and never again.
const FOUND: &str = "/multi-queue-max-queues";

/// What the events of a watch say.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Changed {
    Nothing,
    Something,
    /// The driver in the back end's domain is another one. It may have become Connected with the rings that
    /// it found before anybody could see that it was not.
    Exchanged,
}

/// Waits until something changes at either end. What it was matters little, because everything is read anew:
/// all that has happened until then counts as one.
async fn changed(own: &mut Watch, back: &mut BackEndWatch) -> Changed {
    poll_fn(|context| {
        let mut changed = take_events(back, context);
        while own.poll_next(context).is_ready() {
            changed = changed.max(Changed::Something);
        }
        match changed {
            Changed::Nothing => Poll::Pending,
            changed => Poll::Ready(changed),
        }
    })
    .await
}

/// Takes the events of a back end's directory, and registers the task for the next.
fn take_events(back: &mut BackEndWatch, context: &mut Context<'_>) -> Changed {
    let mut changed = Changed::Nothing;
    if let Some((_, watch)) = back {
        while let Poll::Ready(path) = watch.poll_next(context) {
            changed = changed.max(match path.ends_with(FOUND) {
                true => Changed::Exchanged,
                false => Changed::Something,
            });
        }
    }
    changed
}
