//! The clock and the timers that the network runs by.

use core::future::Future;
use core::time::Duration;

/// A clock that never goes backwards, and timers.
///
/// Reading the clock is not free, so nothing here does it once per frame.
pub trait Time: Clone + 'static {
    /// See [`sleep`](Self::sleep).
    type Sleep: Future<Output = ()> + 'static;

    /// The time since the domain's start, or any other fixed point.
    fn now(&self) -> Duration;

    /// A future that is ready once this much time has passed. It counts from this call, not from its first
    /// poll.
    fn sleep(&self, duration: Duration) -> Self::Sleep;
}
