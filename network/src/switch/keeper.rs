//! What a switch does by the clock: forget stations, lift limits.

use alloc::boxed::Box;
use alloc::rc::Weak;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;

use super::Inner;
use super::memory::Memory;
use crate::time::Time;

/// How long a generation of the table of stations is. What is heard again within ten of them is not
/// forgotten.
const GENERATION: Duration = Duration::from_secs(30);

impl<M: Memory, T: Time> Inner<M, T> {
    /// Starts to count generations.
    pub(super) fn start_ageing(&self) {
        self.next_turn.set(Some(self.time.now() + GENERATION));
        self.wake_keeper();
    }

    pub(super) fn wake_keeper(&self) {
        if let Some(waker) = self.keeper.take() {
            waker.wake();
        }
    }

    /// When there is something to be done.
    fn next_deadline(&self) -> Option<Duration> {
        let ports = self.ports.borrow();
        let limits = ports.iter().flatten().filter_map(|port| port.limited_until());
        limits.chain(self.next_turn.get()).min()
    }

    /// Does what is due.
    fn tick(&self) {
        let now = self.time.now();
        for port in self.ports.borrow().iter().flatten() {
            port.lift_limits(now);
        }
        if self.next_turn.get().is_some_and(|turn| turn <= now) {
            let mut table = self.table.borrow_mut();
            table.turn();
            self.next_turn.set(table.ages().then(|| now + GENERATION));
        }
    }
}

/// Looks after a switch until it is gone. It sleeps unless a limit has been reached or a station was learned.
pub(super) async fn keep<M: Memory, T: Time>(switch: Weak<Inner<M, T>>, time: T) {
    let mut alarm = Alarm { time, set: None };
    poll_fn(|context| {
        let Some(switch) = switch.upgrade() else {
            return Poll::Ready(());
        };
        switch.keeper.set(Some(context.waker().clone()));
        while alarm.poll(switch.next_deadline(), context).is_ready() {
            switch.tick();
        }
        Poll::Pending
    })
    .await
}

/// A timer that can be set again.
struct Alarm<T: Time> {
    time: T,
    set: Option<(Duration, Pin<Box<T::Sleep>>)>,
}

impl<T: Time> Alarm<T> {
    /// `Ready` once `deadline` has come; what was set before is forgotten.
    fn poll(&mut self, deadline: Option<Duration>, context: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = deadline else {
            self.set = None;
            return Poll::Pending;
        };
        if self.set.as_ref().is_none_or(|(set, _)| *set != deadline) {
            let remaining = deadline.saturating_sub(self.time.now());
            self.set = Some((deadline, Box::pin(self.time.sleep(remaining))));
        }
        let polled = match &mut self.set {
            Some((_, sleep)) => sleep.as_mut().poll(context),
            None => Poll::Pending,
        };
        if polled.is_ready() {
            self.set = None;
        }
        polled
    }
}
