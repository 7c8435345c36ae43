//! Waiting until a moment.

use alloc::collections::BTreeMap;
use core::fmt;
use core::future::poll_fn;
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};
use core::time::Duration;

use xen_sys as xen;

use super::clock::{Instant, now, to_system_time};
use crate::cell::CpuCell;
use crate::event::EventChannel;
use crate::hypercall;
use crate::stats::Counter;

const VCPUOP_STOP_PERIODIC_TIMER: u32 = 7;
const VCPUOP_SET_SINGLESHOT_TIMER: u32 = 8;

/// `struct vcpu_set_singleshot_timer` of `xen/include/public/vcpu.h`.
#[repr(C)]
struct SetSingleshotTimer {
    timeout_abs_ns: u64,
    flags: u32,
}

struct Timers {
    /// By deadline, then in the order they were made.
    waiting: BTreeMap<(Instant, u64), Waker>,
    next_id: u64,
    /// What Xen was last asked for, if its event has not come yet.
    armed: Option<Instant>,
    /// Where Xen's events arrive.
    channel: Option<EventChannel>,
}

static TIMERS: CpuCell<Timers> = CpuCell::new(Timers {
    waiting: BTreeMap::new(),
    next_id: 0,
    armed: None,
    channel: None,
});

/// Makes timers work.
pub(crate) fn start() {
    // A new domain has a periodic timer that nobody wants.
    let nothing = core::ptr::null_mut::<u8>();
    // SAFETY: the command takes no argument.
    let _ = unsafe { hypercall::vcpu_op(VCPUOP_STOP_PERIODIC_TIMER, Counter::OtherHypercall, nothing) };
    match EventChannel::bind_virq(xen::VIRQ_TIMER) {
        Ok(channel) => TIMERS.borrow().channel = Some(channel),
        Err(error) => log::error!("no timer: {error}"),
    }
}

/// Wakes the tasks whose time has come, if the timer's event has come. Reading the clock may cost a trap, so
/// it is not read without cause.
pub(crate) fn wake_expired() {
    {
        let mut timers = TIMERS.borrow();
        if !timers.channel.as_ref().is_some_and(EventChannel::take_pending) {
            return;
        }
        timers.armed = None;
    }
    let now = now();
    loop {
        // The borrow ends before a task is woken.
        let mut timers = TIMERS.borrow();
        let Some(first) = timers.waiting.first_entry().filter(|entry| entry.key().0 <= now) else {
            return;
        };
        let waker = first.remove();
        drop(timers);
        waker.wake();
    }
}

/// Asks Xen for an event at the next deadline, unless it will send one by then anyway.
pub(crate) fn arm() {
    let mut timers = TIMERS.borrow();
    let Some((&(deadline, _), _)) = timers.waiting.first_key_value() else {
        return;
    };
    if timers.armed.is_some_and(|armed| armed <= deadline) {
        return;
    }
    timers.armed = Some(deadline);
    let mut argument = SetSingleshotTimer {
        timeout_abs_ns: to_system_time(deadline),
        flags: 0,
    };
    // SAFETY: the structure is the command's. A deadline in the past makes an event at once.
    let result = unsafe { hypercall::vcpu_op(VCPUOP_SET_SINGLESHOT_TIMER, Counter::Timer, &mut argument) };
    if let Err(error) = result {
        log::error!("cannot set the timer: {error}");
    }
}

/// Resolves at a moment; made by [`sleep`] and [`sleep_until`].
#[must_use = "futures do nothing unless awaited"]
pub struct Sleep {
    deadline: Instant,
    /// Its number among the timers, once it waits there. Whoever removes it from them wakes it.
    id: Option<u64>,
}

/// Resolves after a time.
pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(now() + duration)
}

/// Resolves at a moment; soon, if that has passed.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline, id: None }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut timers = TIMERS.borrow();
        if let Some(id) = self.id {
            return match timers.waiting.get_mut(&(self.deadline, id)) {
                Some(waker) => {
                    waker.clone_from(context.waker());
                    Poll::Pending
                }
                None => Poll::Ready(()),
            };
        }
        timers.next_id += 1;
        self.id = Some(timers.next_id);
        let key = (self.deadline, timers.next_id);
        timers.waiting.insert(key, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let _waker = TIMERS.borrow().waiting.remove(&(self.deadline, id));
        }
    }
}

/// The time for something ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("timed out")
    }
}

impl core::error::Error for Elapsed {}

/// Waits for a future, but not longer than this.
pub async fn timeout<F: Future>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    let mut sleep = pin!(sleep(limit));
    poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        sleep.as_mut().poll(context).map(|()| Err(Elapsed))
    })
    .await
}
