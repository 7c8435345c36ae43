//! A started queue, shared by the device that can end it and the task that runs it.

use alloc::rc::{Rc, Weak};
use core::cell::{Cell, RefCell};
use core::future::poll_fn;
use core::task::{Context, Poll, Waker};

use super::Worker;
use crate::virtqueue::QueueError;

/// A started queue. The device holds it; the task has but a weak reference, so that the queue's resources are
/// gone the moment the device lets go of it.
pub(super) struct Live<W> {
    worker: RefCell<W>,
    phase: Cell<Phase>,
    task: Cell<Option<Waker>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// Broken by the driver; what is under way is waited for.
    Broken,
    /// Being reset or dropped: the task has nothing to do with it any more.
    Stopped,
}

impl<W: Worker> Live<W> {
    pub(super) fn new(worker: W) -> Self {
        Live {
            worker: RefCell::new(worker),
            phase: Cell::new(Phase::Running),
            task: Cell::new(None),
        }
    }

    /// Ends the task.
    pub(super) fn stop(&self) {
        self.phase.set(Phase::Stopped);
        if let Some(waker) = self.task.take() {
            waker.wake();
        }
    }

    /// See [`Worker::poll_quiesce`].
    pub(super) fn poll_quiesce(&self, context: &mut Context<'_>) -> Poll<()> {
        self.worker.borrow_mut().poll_quiesce(context)
    }

    fn poll(&self, context: &mut Context<'_>, broken: impl Fn(QueueError)) -> Poll<()> {
        if self.phase.get() == Phase::Running {
            match self.worker.borrow_mut().poll(context) {
                Poll::Ready(error) => {
                    self.phase.set(Phase::Broken);
                    broken(error);
                }
                Poll::Pending => {
                    self.register(context);
                    return Poll::Pending;
                }
            }
        }
        if self.phase.get() == Phase::Broken && self.poll_quiesce(context).is_pending() {
            self.register(context);
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    fn register(&self, context: &mut Context<'_>) {
        let waker = match self.task.take() {
            Some(waker) if waker.will_wake(context.waker()) => waker,
            _ => context.waker().clone(),
        };
        self.task.set(Some(waker));
    }
}

/// The task of a queue: serves it until it is stopped, dropped, or broken and at rest.
pub(super) async fn run<W: Worker>(live: Weak<Live<W>>, broken: impl Fn(QueueError)) {
    poll_fn(|context| match live.upgrade() {
        Some(live) => Rc::as_ref(&live).poll(context, &broken),
        None => Poll::Ready(()),
    })
    .await;
}
