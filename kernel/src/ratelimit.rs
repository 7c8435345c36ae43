//! Logging what others can cause, without letting them flood the log.

use alloc::rc::Rc;
use alloc::string::String;
use core::cell::RefCell;
use core::fmt;
use core::time::Duration;

use log::Level;

use crate::time::{self, Instant};

/// Lines that may come at once.
const BURST: u32 = 5;
/// One more line may come after each of these.
const REFILL: Duration = Duration::from_secs(5);

/// The log of one client or device: each line begins with its name, and there is a limit to how many come.
/// What is left out is counted, and the next line says how much it was. Clones share the limit.
#[derive(Clone)]
pub struct LogLimit(Rc<Shared>);

struct Shared {
    name: String,
    bucket: RefCell<Bucket>,
}

impl LogLimit {
    /// A log for this name.
    pub fn new(name: &str) -> Self {
        Self(Rc::new(Shared {
            name: name.into(),
            bucket: RefCell::new(Bucket::new()),
        }))
    }

    /// Logs an error.
    pub fn error(&self, message: fmt::Arguments<'_>) {
        self.log(Level::Error, message);
    }

    /// Logs a warning.
    pub fn warn(&self, message: fmt::Arguments<'_>) {
        self.log(Level::Warn, message);
    }

    /// Logs information.
    pub fn info(&self, message: fmt::Arguments<'_>) {
        self.log(Level::Info, message);
    }

    /// Logs what only helps to find a fault.
    pub fn debug(&self, message: fmt::Arguments<'_>) {
        self.log(Level::Debug, message);
    }

    /// Logs at any level.
    pub fn log(&self, level: Level, message: fmt::Arguments<'_>) {
        if level > log::max_level() {
            return;
        }
        let name = &self.0.name;
        let taken = self.0.bucket.borrow_mut().take(time::now());
        match taken {
            None => {}
            Some(0) => log::log!(target: name, level, "{message}"),
            Some(left_out) => {
                log::log!(target: name, level, "{message} ({left_out} lines before this were left out)");
            }
        }
    }
}

/// Tokens for lines.
struct Bucket {
    tokens: u32,
    /// When the bucket was last full, or got its last token.
    refilled: Instant,
    left_out: u32,
}

impl Bucket {
    fn new() -> Self {
        Self {
            tokens: BURST,
            refilled: Instant::START,
            left_out: 0,
        }
    }

    /// Takes a token; if there is one, how often there was none since the last.
    fn take(&mut self, now: Instant) -> Option<u32> {
        let due = ((now - self.refilled).as_nanos() / REFILL.as_nanos()).min(BURST.into()) as u32;
        if self.tokens + due >= BURST {
            self.tokens = BURST;
            self.refilled = now;
        } else {
            self.tokens += due;
            self.refilled = self.refilled + REFILL * due;
        }
        if self.tokens == 0 {
            self.left_out = self.left_out.saturating_add(1);
            return None;
        }
        self.tokens -= 1;
        Some(core::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_one_by_one() {
        let mut bucket = Bucket::new();
        let at = |ms| Instant::START + Duration::from_millis(ms);
        for _ in 0..BURST {
            assert_eq!(bucket.take(at(0)), Some(0));
        }
        for ms in 0..4999 {
            assert_eq!(bucket.take(at(ms)), None);
        }
        assert_eq!(bucket.take(at(5000)), Some(4999));
        assert_eq!(bucket.take(at(9999)), None);
        assert_eq!(bucket.take(at(10_000)), Some(1));
        for _ in 0..BURST {
            assert_eq!(bucket.take(at(1_000_000)), Some(0));
        }
        assert_eq!(bucket.take(at(1_000_001)), None);
    }
}
