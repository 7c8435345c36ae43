//! Time: a monotonic clock, the wall clock, and timers.

mod clock;
mod timers;

pub use clock::{Instant, cpu_time, now, wall};
pub(crate) use clock::{init, to_system_time};
pub use timers::{Elapsed, Sleep, sleep, sleep_until, timeout};
pub(crate) use timers::{arm, start, wake_expired};
