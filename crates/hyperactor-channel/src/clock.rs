//! The time that sessions are driven by: tokio's, so that tests can pause it.

use std::sync::LazyLock;

use hyperactor_protocol::Time;
use tokio::time::Instant;

/// The time since a moment before the first call.
pub(crate) fn now() -> Time {
    Time::from_duration(Instant::now().saturating_duration_since(*START))
}

/// The moment that a time names.
pub(crate) fn instant(time: Time) -> Instant {
    let since = time.since_start();
    // Beyond what the clock can name means: not in the life of this process.
    START
        .checked_add(since)
        .unwrap_or_else(|| *START + std::time::Duration::from_secs(86_400 * 365))
}

static START: LazyLock<Instant> = LazyLock::new(Instant::now);
