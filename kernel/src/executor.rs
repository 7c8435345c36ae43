//! The executor: one queue of tasks that are ready, run to completion, on one virtual CPU.
//!
//! A task is woken by an event channel ([`crate::event`]), a timer ([`crate::time`]), a xenstore reply or
//! watch, or another task. When none is ready, the domain blocks until an event. A task that computes for
//! long keeps all others waiting: see [`yield_now`].

use core::cell::Cell;
use core::future::poll_fn;
use core::ptr::NonNull;
use core::task::Poll;

use async_task::Builder;

use crate::cell::CpuCell;
use crate::hypercall::{self, SchedOp};
use crate::stats::{Counter, count};
use crate::{boot, event, time};

/// A spawned task. Dropping it cancels the task, `detach` lets it run on its own, awaiting it gives its
/// result, `cancel` ends it and waits until it is gone.
pub type Task<T> = async_task::Task<T, Link>;

type Runnable = async_task::Runnable<Link>;

/// What each task has of the list that it is in while it is ready: the next one, by [`Runnable::into_raw`]. So
/// a list needs no memory, however many tasks there are.
#[derive(Default)]
pub struct Link(Cell<Option<NonNull<()>>>);

/// A list of tasks, each of which is in one list at most: the first one, as in a [`Link`]. They stay when the
/// list is dropped.
struct List(Option<NonNull<()>>);

impl List {
    /// Puts a task before all others.
    fn push(&mut self, task: Runnable) {
        task.metadata().0.set(self.0);
        self.0 = Some(task.into_raw());
    }

    /// Takes out the task that was put in last.
    fn pop(&mut self) -> Option<Runnable> {
        // SAFETY: `push` has made it of a task with such a link, and nothing else refers to it any more.
        let task = unsafe { Runnable::from_raw(self.0?) };
        self.0 = task.metadata().0.take();
        Some(task)
    }

    /// Takes everything out: a list with the first that was put in before all others.
    fn take_reversed(&mut self) -> Self {
        let mut reversed = Self(None);
        while let Some(task) = self.pop() {
            reversed.push(task);
        }
        reversed
    }
}

/// Tasks that are ready, the last one first.
static READY: CpuCell<List> = CpuCell::new(List(None));

/// Not part of the code of each task.
#[inline(never)]
fn make_ready(task: Runnable) {
    READY.borrow().push(task);
}

/// Starts a task.
pub fn spawn<T: 'static>(future: impl Future<Output = T> + 'static) -> Task<T> {
    let builder = Builder::new().metadata(Link::default());
    // SAFETY: future and output are 'static. They need not be `Send`, nor the wakers be used on one thread
    // only, because there is one virtual CPU and no other thread.
    let (runnable, task) = unsafe { builder.spawn_unchecked(|_| future, make_ready) };
    runnable.schedule();
    task
}

/// Lets all other ready tasks run, and events be seen, before going on.
pub async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

/// Runs tasks for as long as the domain lives.
pub(crate) fn run() -> ! {
    loop {
        let more_events = event::poll();
        time::wake_expired();
        // Only what is ready now: what that makes ready waits for the next look at the events.
        let mut batch = READY.borrow().take_reversed();
        while let Some(runnable) = batch.pop() {
            count(Counter::TaskPolls, 1);
            runnable.run();
        }
        time::arm();
        if READY.borrow().0.is_none() && !more_events && !event::is_pending() {
            block();
        }
    }
}

/// Waits for an event; returns at once if one is pending.
fn block() {
    hypercall::sched_op(SchedOp::Block);
    // The hypercall unmasked upcalls, and they stay so if it was not an upcall that ended it.
    // SAFETY: the page is mapped; Xen reads the byte when this virtual CPU enters or leaves it.
    unsafe { (&raw mut (*boot::vcpu_info()).evtchn_upcall_mask).write_volatile(1) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::RefCell;
    use std::vec::Vec;

    std::thread_local! {
        static LIST: RefCell<List> = const { RefCell::new(List(None)) };
        static RAN: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    }

    /// Runs what is ready, and returns which tasks that were.
    fn turn() -> Vec<usize> {
        let mut batch = LIST.with_borrow_mut(List::take_reversed);
        while let Some(task) = batch.pop() {
            task.run();
        }
        RAN.take()
    }

    #[test]
    fn ready_tasks_run_in_their_order_however_many_there_are() {
        let schedule = |task| LIST.with_borrow_mut(|list| list.push(task));
        let mut tasks: Vec<Task<()>> = Vec::new();
        for number in 0..1000 {
            let steps = async move {
                RAN.with_borrow_mut(|ran| ran.push(number));
                yield_now().await;
                RAN.with_borrow_mut(|ran| ran.push(1000 + number));
            };
            let builder = Builder::new().metadata(Link::default());
            let (task, handle) = builder.spawn(|_| steps, schedule);
            task.schedule();
            tasks.push(handle);
        }
        assert!(turn().into_iter().eq(0..1000));
        // Cancelled ones have their turn to go.
        tasks.drain(..10).for_each(drop);
        assert!(turn().into_iter().eq(1010..2000));
        assert!(turn().is_empty() && tasks.iter().all(Task::is_finished));
        tasks.into_iter().for_each(|task| task.detach());
    }
}
