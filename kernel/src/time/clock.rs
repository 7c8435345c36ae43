//! What time it is.

use core::ops::{Add, Sub};
use core::sync::atomic::{AtomicU64, Ordering, Ordering::Relaxed, fence};
use core::time::Duration;

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

/// Xen's system time, in nanoseconds, as `xen/include/public/xen.h` (`struct vcpu_time_info`) defines it; 0
/// before boot has mapped the shared page.
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

/// Starts the clock.
pub(crate) fn init() {
    START.store(system_time(), Relaxed);
}

const VCPUOP_GET_RUNSTATE_INFO: u32 = 4;

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
