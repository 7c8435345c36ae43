//! Token buckets that read the clock only when they run out.

use core::time::Duration;

/// The most that something may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// In the long run.
    pub per_second: u64,
    /// At once, after a time of rest. What the limit allows in 10 ms is always allowed at once.
    pub burst: u64,
}

const NANOS: u128 = 1_000_000_000;

/// A rest after which a bucket is filled again is long enough for this part of a second's tokens, so that
/// timers are few.
const STEPS_PER_SECOND: u64 = 200;

/// Tokens that are spent after the fact: whoever finds the bucket open may spend what he needs, even if that
/// leaves a debt.
pub(super) struct Bucket {
    per_second: u64,
    burst: u64,
    tokens: i64,
    /// Up to when tokens have been filled in.
    filled: Duration,
    /// The bucket is known to be empty until then.
    empty_until: Option<Duration>,
}

impl Bucket {
    /// A full bucket.
    pub(super) fn new(limit: RateLimit, now: Duration) -> Self {
        let per_second = limit.per_second.clamp(1, i64::MAX as u64);
        let burst = limit.burst.max(per_second / 100).clamp(1, i64::MAX as u64);
        Bucket {
            per_second,
            burst,
            tokens: burst as i64,
            filled: now,
            empty_until: None,
        }
    }

    /// Whether there are tokens. The clock is read if there seem to be none, and once only: then
    /// [`empty_until`](Self::empty_until) says when [`fill`](Self::fill) is to be called.
    pub(super) fn is_open(&mut self, now: impl FnOnce() -> Duration) -> bool {
        self.tokens > 0 || (self.empty_until.is_none() && self.fill(now()))
    }

    /// Spends tokens.
    pub(super) fn spend(&mut self, tokens: usize) {
        self.tokens = self.tokens.saturating_sub_unsigned(tokens as u64);
    }

    /// When there will be tokens again, if that is known.
    pub(super) fn empty_until(&self) -> Option<Duration> {
        self.empty_until
    }

    /// Fills in the tokens of the time that has passed, and tells whether there are any.
    pub(super) fn fill(&mut self, now: Duration) -> bool {
        let passed = now.saturating_sub(self.filled).as_nanos();
        let earned = passed.saturating_mul(self.per_second.into()) / NANOS;
        let missing = (self.burst as i128 - i128::from(self.tokens)) as u128;
        if earned >= missing {
            self.tokens = self.burst as i64;
            self.filled = now;
        } else {
            self.tokens += earned as i64;
            // What was not enough for a token counts next time.
            self.filled += time_for(earned, self.per_second);
        }
        if self.tokens > 0 {
            self.empty_until = None;
            return true;
        }
        let step = (self.per_second / STEPS_PER_SECOND).clamp(1, self.burst);
        let wanted = u128::from(self.tokens.unsigned_abs()) + u128::from(step);
        self.empty_until = Some(self.filled.saturating_add(time_for(wanted, self.per_second)));
        false
    }
}

/// How long it takes until there are so many tokens.
fn time_for(tokens: u128, per_second: u64) -> Duration {
    let nanos = tokens.saturating_mul(NANOS).div_ceil(per_second.into());
    Duration::from_nanos(nanos.try_into().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn never() -> Duration {
        panic!("the clock was read")
    }

    const LIMIT: RateLimit = RateLimit {
        per_second: 1000,
        burst: 100,
    };

    #[test]
    fn the_clock_is_read_only_when_tokens_run_out() {
        let mut bucket = Bucket::new(LIMIT, Duration::ZERO);
        for _ in 0..100 {
            assert!(bucket.is_open(never));
            bucket.spend(1);
        }
        assert!(!bucket.is_open(|| Duration::ZERO));
        assert!(!bucket.is_open(never));
        assert_eq!(bucket.empty_until(), Some(Duration::from_millis(5)));
        assert!(bucket.fill(Duration::from_millis(5)));
        for _ in 0..5 {
            assert!(bucket.is_open(never));
            bucket.spend(1);
        }
        assert!(bucket.is_open(|| Duration::from_millis(6)));
    }

    #[test]
    fn the_rate_is_kept_in_the_long_run() {
        for per_second in [1, 7, 1000, 12_500_000, 125_000_000_000] {
            let mut bucket = Bucket::new(RateLimit { per_second, burst: 0 }, Duration::ZERO);
            let size = 65_000;
            let mut now = Duration::ZERO;
            let mut spent = 0;
            for _ in 0..1000 {
                if bucket.is_open(|| now) {
                    bucket.spend(size);
                    spent += size as u128;
                } else {
                    let until = bucket.empty_until().unwrap();
                    assert!(until > now);
                    now = until;
                    assert!(bucket.fill(now));
                }
            }
            let earned = now.as_nanos() * u128::from(per_second) / NANOS;
            assert!(
                spent <= earned + u128::from(per_second / 100) + 65_000 + 1,
                "{per_second}"
            );
            assert!(
                spent + u128::from(per_second / 100) + 65_000 >= earned,
                "{per_second}"
            );
        }
    }

    #[test]
    fn extremes_do_not_overflow() {
        let limit = RateLimit {
            per_second: u64::MAX,
            burst: u64::MAX,
        };
        let mut bucket = Bucket::new(limit, Duration::ZERO);
        bucket.spend(usize::MAX);
        bucket.spend(usize::MAX);
        bucket.is_open(|| Duration::MAX);
        let mut bucket = Bucket::new(
            RateLimit {
                per_second: 0,
                burst: 0,
            },
            Duration::ZERO,
        );
        bucket.spend(usize::MAX);
        assert!(!bucket.is_open(|| Duration::ZERO));
        assert!(!bucket.fill(Duration::from_secs(1 << 40)));
    }
}
