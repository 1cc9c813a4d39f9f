//! When a failed call is repeated, and after what pause.

use std::time::Duration;

use tokio::time::Instant;

use crate::errors::Error;

/// How long one attempt may take, so that a connection that died unnoticed leaves time for another attempt.
pub(crate) const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longer than anything waits here, and not too long for a clock.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

const FIRST_BOUND: Duration = Duration::from_millis(100);
const LAST_BOUND: Duration = Duration::from_secs(3);

/// The end of a span that begins now, however long it may be.
pub(crate) fn end_of(span: Duration) -> Instant {
    Instant::now() + span.min(FOREVER)
}

/// Uniform between 0 and `bound`: full jitter spreads a thousand clients of one restarted server best.
pub(crate) fn jitter(bound: Duration) -> Duration {
    bound.mul_f64(fastrand::f64())
}

/// Pauses that grow: each is drawn between 0 and a bound that doubles, from 100 ms to 3 s.
#[derive(Debug)]
pub(crate) struct Backoff {
    bound: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { bound: FIRST_BOUND }
    }

    /// The next pause; `at_least` is what the server asked for.
    pub(crate) fn pause(&mut self, at_least: Option<Duration>) -> Duration {
        let pause = jitter(self.bound) + at_least.unwrap_or_default();
        self.bound = LAST_BOUND.min(self.bound * 2);
        pause
    }

    /// Begins anew, after a success.
    pub(crate) fn reset(&mut self) {
        self.bound = FIRST_BOUND;
    }
}

/// The attempts of one call within its time.
#[derive(Debug)]
pub(crate) struct Attempts {
    deadline: Instant,
    backoff: Backoff,
}

impl Attempts {
    pub(crate) fn within(timeout: Duration) -> Self {
        Self { deadline: end_of(timeout), backoff: Backoff::new() }
    }

    /// How long the next attempt may take.
    pub(crate) fn timeout(&self) -> Duration {
        ATTEMPT_TIMEOUT.min(self.deadline.saturating_duration_since(Instant::now())).max(Duration::from_millis(1))
    }

    /// How long to wait before the next attempt; the error, if there should be none.
    pub(crate) fn pause_after(&mut self, error: Error) -> Result<Duration, Error> {
        let pause = self.backoff.pause(error.retry_after);
        if error.is_worth_repeating() && Instant::now() + pause < self.deadline { Ok(pause) } else { Err(error) }
    }
}
