//! The results of a test run, as lines and as totals.

use std::sync::Mutex;
use std::time::Duration;

use crate::ui;

/// How a test ended.
pub enum Verdict {
    /// As it should.
    Passed,
    /// Not as it should, for this reason.
    Failed(String),
    /// It was not run, for this reason.
    Skipped(String),
}

/// The totals of a run; tests that run at the same time share one.
#[derive(Default)]
pub struct Tally(Mutex<Totals>);

#[derive(Default, Clone, Copy)]
struct Totals {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Tally {
    /// Shows a test's result in one line, and counts it.
    pub fn add(&self, name: &str, time: Duration, verdict: &Verdict) {
        let (word, reason) = match verdict {
            Verdict::Passed => ("ok", ""),
            Verdict::Failed(reason) => ("FAILED", reason.as_str()),
            Verdict::Skipped(reason) => ("skipped", reason.as_str()),
        };
        match verdict {
            Verdict::Passed => self.count(1, 0, 0),
            Verdict::Failed(_) => self.count(0, 1, 0),
            Verdict::Skipped(_) => self.count(0, 0, 1),
        }
        let line = format!("{word:<8}{name:<44}{:>7.1} s  {reason}", time.as_secs_f32());
        ui::line(line.trim_end());
    }

    /// Counts results that are shown otherwise.
    pub fn count(&self, passed: usize, failed: usize, skipped: usize) {
        let mut totals = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        totals.passed += passed;
        totals.failed += failed;
        totals.skipped += skipped;
    }

    /// Whether nothing failed.
    pub fn is_good(&self) -> bool {
        self.totals().failed == 0
    }

    /// The line that ends a run.
    pub fn summary(&self) -> String {
        let Totals {
            passed,
            failed,
            skipped,
        } = self.totals();
        format!("{passed} passed, {failed} failed, {skipped} skipped")
    }

    fn totals(&self) -> Totals {
        *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_add_up() {
        let tally = Tally::default();
        tally.count(57, 0, 1);
        tally.add("a", Duration::ZERO, &Verdict::Passed);
        assert!(tally.is_good());
        tally.add("b", Duration::ZERO, &Verdict::Failed("why".into()));
        tally.add("c", Duration::ZERO, &Verdict::Skipped("why".into()));
        assert!(!tally.is_good());
        assert_eq!(tally.summary(), "58 passed, 1 failed, 2 skipped");
    }
}
