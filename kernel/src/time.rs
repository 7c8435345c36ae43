//! Time: a monotonic clock, the wall clock, and timers.

use alloc::collections::BTreeMap;
use core::fmt;
use core::future::poll_fn;
use core::ops::{Add, Sub};
use core::pin::{Pin, pin};
use core::sync::atomic::{AtomicU64, Ordering, Ordering::Relaxed, fence};
use core::task::{Context, Poll, Waker};
use core::time::Duration;

use xen_sys as xen;

use crate::cell::CpuCell;
use crate::event::EventChannel;
use crate::stats::Counter;
use crate::{boot, hypercall};

/// A moment on the monotonic clock, in nanoseconds since the domain started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(u64);

impl Instant {
    /// When the domain started.
    pub const START: Self = Self(0);

    /// Whole microseconds since the domain started.
    pub fn as_micros(self) -> u64 {
        self.0 / 1000
    }

    /// Nanoseconds since the domain started.
    pub fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time since then; zero if that is in the future.
    pub fn elapsed(self) -> Duration {
        now() - self
    }
}

/// Saturates at the end of time (584 years).
impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(duration.as_nanos().try_into().unwrap_or(u64::MAX)),
        )
    }
}

/// The time from the right one to the left one; zero if it is negative.
impl Sub for Instant {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Xen's system time at which the domain started, in nanoseconds.
static START: AtomicU64 = AtomicU64::new(0);

/// Now, on the monotonic clock.
pub fn now() -> Instant {
    Instant(system_time().saturating_sub(START.load(Relaxed)))
}

/// A moment as Xen's system time, in nanoseconds, for hypercalls that wait until then.
pub(crate) fn to_system_time(moment: Instant) -> u64 {
    moment.0.saturating_add(START.load(Relaxed)).min(i64::MAX as u64)
}

/// Now, on the wall clock: the time since 1970-01-01 00:00 UTC.
pub fn wall() -> Duration {
    let shared = boot::shared_info();
    if shared.is_null() {
        return Duration::ZERO;
    }
    // SAFETY: the page is mapped; the fields are consistent while the version is even and unchanged.
    let start = unsafe {
        read_versioned(&raw const (*shared).wc_version, || {
            let seconds = (&raw const (*shared).wc_sec).read_volatile();
            let high_seconds = (&raw const (*shared).wc_sec_hi).read_volatile();
            let nanoseconds = (&raw const (*shared).wc_nsec).read_volatile();
            Duration::from_secs(u64::from(high_seconds) << 32 | u64::from(seconds))
                + Duration::from_nanos(nanoseconds.into())
        })
    };
    start + Duration::from_nanos(system_time())
}

/// Xen's system time, in nanoseconds, as `xen/include/public/xen.h` (`struct vcpu_time_info`) defines it; 0 before boot has mapped
/// the shared page.
fn system_time() -> u64 {
    if boot::shared_info().is_null() {
        return 0;
    }
    // SAFETY: the page is mapped; the fields are consistent while the version is even and unchanged.
    unsafe {
        let time = &raw const (*boot::vcpu_info()).time;
        read_versioned(&raw const (*time).version, || {
            let base = (&raw const (*time).system_time).read_volatile();
            let stamp = (&raw const (*time).tsc_timestamp).read_volatile();
            let multiplier = (&raw const (*time).tsc_to_system_mul).read_volatile();
            let shift = (&raw const (*time).tsc_shift).read_volatile();
            base.wrapping_add(scale(
                core::arch::x86_64::_rdtsc().wrapping_sub(stamp),
                multiplier,
                shift,
            ))
        })
    }
}

/// Ticks to nanoseconds.
fn scale(ticks: u64, multiplier: u32, shift: i8) -> u64 {
    let shifted = if shift < 0 {
        ticks.checked_shr(shift.unsigned_abs().into()).unwrap_or(0)
    } else {
        ticks.checked_shl(shift.unsigned_abs().into()).unwrap_or(0)
    };
    ((u128::from(shifted) * u128::from(multiplier)) >> 32) as u64
}

/// Reads what Xen may be changing, until it was left alone meanwhile.
///
/// # Safety
/// `version` must be readable.
unsafe fn read_versioned<T>(version: *const u32, mut read: impl FnMut() -> T) -> T {
    loop {
        // SAFETY: the caller vouches for it.
        let before = unsafe { version.read_volatile() };
        fence(Ordering::Acquire);
        let value = read();
        fence(Ordering::Acquire);
        // SAFETY: as above.
        if before % 2 == 0 && before == unsafe { version.read_volatile() } {
            return value;
        }
    }
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

/// Starts the clock.
pub(crate) fn init() {
    START.store(system_time(), Relaxed);
}

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

const VCPUOP_GET_RUNSTATE_INFO: u32 = 4;
const VCPUOP_STOP_PERIODIC_TIMER: u32 = 7;
const VCPUOP_SET_SINGLESHOT_TIMER: u32 = 8;

/// `struct vcpu_set_singleshot_timer` of `xen/include/public/vcpu.h`.
#[repr(C)]
struct SetSingleshotTimer {
    timeout_abs_ns: u64,
    flags: u32,
}

/// `struct vcpu_runstate_info` of `xen/include/public/vcpu.h`.
#[repr(C)]
#[derive(Default)]
struct RunstateInfo {
    state: i32,
    state_entry_time: u64,
    /// Nanoseconds running, runnable, blocked, offline.
    time: [u64; 4],
}

/// How much time the virtual CPU has run since the domain was made.
pub fn cpu_time() -> Duration {
    let mut info = RunstateInfo::default();
    // SAFETY: the structure is the command's.
    let _ = unsafe { hypercall::vcpu_op(VCPUOP_GET_RUNSTATE_INFO, Counter::OtherHypercall, &mut info) };
    Duration::from_nanos(info.time[0])
}

/// Wakes the tasks whose time has come, if the timer's event has come. Reading the clock may cost a trap, so it is not read without
/// cause.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_as_the_header_says() {
        // 1 GHz: a tick is a nanosecond, as 2^31 / 2^32 after one left shift.
        assert_eq!(scale(1_000_000, 1 << 31, 1), 1_000_000);
        // 4 GHz.
        assert_eq!(scale(4_000_000_000, 1 << 31, -1), 1_000_000_000);
        assert_eq!(scale(u64::MAX, u32::MAX, 0), u64::MAX - (1 << 32));
        assert_eq!(scale(5, 7, 127), 0);
        assert_eq!(scale(5, 7, -128), 0);
    }

    #[test]
    fn instants_saturate() {
        assert_eq!(Instant(5) - Instant(7), Duration::ZERO);
        assert_eq!(Instant(5) + Duration::MAX, Instant(u64::MAX));
        assert_eq!((Instant(2_000_000) - Instant(500_000)).as_micros(), 1500);
    }
}
