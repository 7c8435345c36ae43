//! What tasks of one virtual CPU wait for each other with.

use core::cell::Cell;
use core::future::poll_fn;
use core::pin::pin;
use core::task::{Context, Poll, Waker};

/// A flag that a task can wait for. It stays set until a wait consumes it, so a signal is never missed;
/// several before a wait count as one. One task may wait at a time; a second one takes the first one's place.
#[derive(Default)]
pub struct Signal {
    set: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

impl Signal {
    /// A flag that is not set.
    pub const fn new() -> Self {
        Self {
            set: Cell::new(false),
            waker: Cell::new(None),
        }
    }

    /// Sets the flag and wakes the task that waits.
    pub fn set(&self) {
        self.set.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Consumes the flag; whether it was set.
    pub fn take(&self) -> bool {
        self.set.take()
    }

    /// Consumes the flag, or registers the task to be woken when it is set.
    pub fn poll_wait(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.set.take() {
            return Poll::Ready(());
        }
        self.waker.set(Some(context.waker().clone()));
        Poll::Pending
    }

    /// Waits for the flag and consumes it.
    pub async fn wait(&self) {
        poll_fn(|context| self.poll_wait(context)).await
    }
}

/// Which of two futures was first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Either<A, B> {
    /// The first argument.
    First(A),
    /// The second argument.
    Second(B),
}

/// Waits for either of two futures and drops the other. The first has precedence if both are ready.
pub async fn select<A: Future, B: Future>(first: A, second: B) -> Either<A::Output, B::Output> {
    let (mut first, mut second) = (pin!(first), pin!(second));
    poll_fn(|context| {
        if let Poll::Ready(output) = first.as_mut().poll(context) {
            return Poll::Ready(Either::First(output));
        }
        second.as_mut().poll(context).map(Either::Second)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll_once<F: Future>(future: core::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_signal_is_kept_until_waited_for() {
        let signal = Signal::new();
        let mut wait = pin!(signal.wait());
        assert_eq!(poll_once(wait.as_mut()), Poll::Pending);
        signal.set();
        signal.set();
        assert_eq!(poll_once(wait.as_mut()), Poll::Ready(()));
        assert!(!signal.take());
    }

    #[test]
    fn select_prefers_the_first() {
        let both = pin!(select(core::future::ready(1), core::future::ready(2)));
        assert_eq!(poll_once(both), Poll::Ready(Either::First(1)));
        let second = pin!(select(core::future::pending::<()>(), core::future::ready(2)));
        assert_eq!(poll_once(second), Poll::Ready(Either::Second(2)));
    }
}
