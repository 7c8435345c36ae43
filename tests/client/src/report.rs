//! Results of checks: one line each on the console, and a last line with the sums.

use alloc::string::String;
use core::time::Duration;

use kernel::time;

/// What a check or a step of one results in; the error says what was expected and what was seen.
pub type Outcome<T = ()> = Result<T, String>;

/// The longest that one check may take. Emulation that counts instructions is slow, so this only catches what
/// hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// Fails the check unless a condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(alloc::format!($($message)+));
        }
    };
}

/// The sums of a run.
#[derive(Default)]
pub struct Report {
    passed: u32,
    failed: u32,
}

impl Report {
    /// Runs a check, for a bounded time, and tells how it went.
    pub async fn check(&mut self, name: &str, check: impl Future<Output = Outcome>) -> bool {
        self.step(name, check).await.is_some()
    }

    /// Runs a step that the others need, as [`check`](Self::check) runs a check, and gives what it made.
    pub async fn step<T>(&mut self, name: &str, step: impl Future<Output = Outcome<T>>) -> Option<T> {
        let outcome = time::timeout(LIMIT, step)
            .await
            .unwrap_or_else(|_| Err("it takes too long".into()));
        let (made, outcome) = match outcome {
            Ok(made) => (Some(made), Ok(())),
            Err(reason) => (None, Err(reason)),
        };
        self.add(name, outcome);
        made
    }

    /// Adds a result; whether it is a good one.
    pub fn add(&mut self, name: &str, outcome: Outcome) -> bool {
        match &outcome {
            Ok(()) => {
                self.passed += 1;
                log::info!(target: "client", "ok {name}");
            }
            Err(reason) => {
                self.failed += 1;
                log::error!(target: "client", "not ok {name}: {reason}");
            }
        }
        outcome.is_ok()
    }

    /// Prints the sums.
    pub fn finish(&self) {
        log::info!(target: "client", "passed {} failed {}", self.passed, self.failed);
    }
}
