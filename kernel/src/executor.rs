//! The executor: one queue of tasks that are ready, run to completion, on one virtual CPU.
//!
//! A task is woken by an event channel ([`crate::event`]), a timer ([`crate::time`]), a xenstore reply or
//! watch, or another task. When none is ready, the domain blocks until an event. A task that computes for
//! long keeps all others waiting: see [`yield_now`].

use alloc::collections::VecDeque;
use core::future::poll_fn;
use core::task::Poll;

use async_task::Runnable;

use crate::cell::CpuCell;
use crate::hypercall::{self, SchedOp};
use crate::stats::{Counter, count};
use crate::{boot, event, time};

/// A spawned task. Dropping it cancels the task, `detach` lets it run on its own, awaiting it gives its
/// result, `cancel` ends it and waits until it is gone.
pub use async_task::Task;

static READY: CpuCell<VecDeque<Runnable>> = CpuCell::new(VecDeque::new());

/// Starts a task.
pub fn spawn<T: 'static>(future: impl Future<Output = T> + 'static) -> Task<T> {
    let schedule = |runnable| READY.borrow().push_back(runnable);
    // SAFETY: future and output are 'static. They need not be `Send`, nor the wakers be used on one thread
    // only, because there is one virtual CPU and no other thread.
    let (runnable, task) = unsafe { async_task::spawn_unchecked(future, schedule) };
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
        let batch = READY.borrow().len();
        for _ in 0..batch {
            let Some(runnable) = READY.borrow().pop_front() else {
                break;
            };
            count(Counter::TaskPolls, 1);
            runnable.run();
        }
        time::arm();
        if READY.borrow().is_empty() && !more_events && !event::is_pending() {
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
