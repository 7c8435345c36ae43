//! A device of this domain's, as xenstore shows it: its two ends, and what they say of each other.

use alloc::format;
use alloc::string::String;
use core::time::Duration;

use protocols::front_end::{Class, Phase, Reason, Situation};

use super::end::End;
use crate::ratelimit::LogLimit;
use crate::time;
use crate::xenbus::{self, State};
use crate::xenstore::{self, Error, Watch};

/// How long a back end may take to close.
const CLOSE: Duration = Duration::from_secs(10);

/// The other end, as this end's directory names it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BackEnd {
    pub domid: u16,
    /// Its directory.
    pub path: String,
}

/// A watch on the back end's directory.
pub(super) type BackEndWatch = Option<(String, Watch)>;

/// This end of a device.
pub(crate) struct Device {
    class: Class,
    /// Its directory.
    pub path: String,
    /// How connections end, and what else goes wrong. The back end decides how often.
    pub log: LogLimit,
    /// Connections that begin.
    pub greetings: LogLimit,
}

impl Device {
    /// The device with this number, and a name for the log.
    pub fn new(class: Class, number: u32, name: &str) -> Self {
        Self {
            class,
            path: format!("{}/{number}", class.directory()),
            log: LogLimit::new(name),
            greetings: LogLimit::new(name),
        }
    }

    /// Where the back end is, if the directory names one.
    async fn find(&self) -> Result<Option<BackEnd>, Error> {
        let read = async {
            let path = xenstore::read(&format!("{}/backend", self.path)).await?;
            let domid = xenstore::read_parsed(&format!("{}/backend-id", self.path)).await?;
            Ok(Some(BackEnd { domid, path }))
        };
        match read.await {
            Err(Error::NoEntry) => Ok(None),
            back_end => back_end,
        }
    }

    /// Looks at both ends, and makes sure that the back end named now is watched.
    pub(super) async fn look(
        &self,
        connection: Option<(&BackEnd, Phase)>,
        in_use: bool,
        watch: &mut BackEndWatch,
    ) -> Result<(Situation, Option<BackEnd>), Error> {
        let back_end = self.find().await?;
        let (mut back, mut online) = (None, true);
        if let Some(BackEnd { path, .. }) = &back_end {
            if watch.as_ref().is_none_or(|(watched, _)| watched != path) {
                *watch = Some((path.clone(), xenstore::watch(path).await?));
            }
            back = match xenbus::find_state(path).await {
                // What is gone from a directory that this domain may not see is denied.
                Err(Error::Denied) => None,
                back => back?,
            };
            // The toolstack wants the device, as far as it says.
            let node = xenstore::read(&format!("{path}/online")).await;
            online = !node.is_ok_and(|online| online.trim() == "0");
        }
        let situation = Situation {
            class: self.class,
            own: xenbus::find_state(&self.path).await?,
            back,
            same_back_end: connection.map(|it| it.0) == back_end.as_ref(),
            online,
            in_use,
            phase: connection.map_or(Phase::Idle, |it| it.1),
        };
        Ok((situation, back_end))
    }

    /// Why a connection ended: a node may only be missing because the whole device is.
    pub(super) async fn removed_or(&self, end: End) -> End {
        match end {
            End::Store(Error::NoEntry) if xenstore::exists(&self.path).await == Ok(false) => {
                End::Reason(Reason::Removed)
            }
            end => end,
        }
    }

    /// One line for the log, however often the same happens before the next connection (`told` is what was
    /// told of the last one); and one for the toolstack's user where something is wrong.
    pub(super) async fn report(&self, end: &End, told: &mut String) {
        let reason = format!("{end}");
        if *told == reason {
            return self.log.debug(format_args!("again, {reason}"));
        }
        let meanwhile = match self.class {
            Class::Block => "; requests wait",
            Class::Network => "",
        };
        match end {
            End::Reason(Reason::Removed | Reason::Detached) => self.log.info(format_args!("{reason}")),
            End::Reason(Reason::Closed | Reason::Moved) => {
                self.log.warn(format_args!("{reason}{meanwhile}"));
            }
            _ => {
                self.log.error(format_args!("{reason}{meanwhile}"));
                xenbus::fail(&self.path, &reason).await;
            }
        }
        *told = reason;
    }

    /// Enters Closed if there is a back end, and waits until that has let go of a connection that came as far
    /// as `phase`, but not for ever. Returns whether the own state is Closed now.
    ///
    /// Linux's xenbus looks at the state of the moment, so the next state has to wait until the back end has
    /// acted on this.
    pub(super) async fn close(&self, phase: Phase) -> bool {
        let mut closed = false;
        let closing = async {
            if let Some(BackEnd { path, .. }) = self.find().await? {
                xenbus::switch_state(&self.path, State::Closed).await?;
                closed = true;
                let mut states = xenstore::watch(&format!("{path}/state")).await?;
                loop {
                    match xenbus::read_state(&path).await {
                        Err(Error::Denied) => break,
                        state if self.class.has_let_go(phase, state?) => break,
                        _ => states.next().await,
                    };
                }
            }
            Ok::<_, Error>(())
        };
        if time::timeout(CLOSE, closing).await.is_err() {
            self.log.warn(format_args!("the back end does not close"));
        }
        closed
    }

    /// After [`close`](Self::close): whether the own state is still Closed. If not, this is another device in
    /// the place of the old one, and it may have another front end already.
    pub(super) async fn is_the_same(&self) -> Result<(), End> {
        match xenbus::find_state(&self.path).await? {
            Some(State::Closed) => Ok(()),
            _ => Err(End::Reason(Reason::Removed)),
        }
    }

    /// Takes pages back, however long that takes: `take_back` says whether that was all. If this end is
    /// `closed`, it says so again each time: Linux's blkback looks once, and keeps everything when it has
    /// requests under way at that moment.
    pub(super) async fn take_back(&self, closed: bool, mut take_back: impl FnMut() -> bool) {
        let (mut pause, mut warned) = (Duration::from_millis(10), false);
        while !take_back() {
            if pause > Duration::from_secs(1) && !warned {
                warned = true;
                self.log.warn(format_args!(
                    "the back end still has pages of ours; waiting for it"
                ));
            }
            time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(30));
            if closed {
                let _ = xenbus::repeat_state(&self.path, State::Closed).await;
            }
        }
    }
}
