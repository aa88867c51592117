//! What is counted of one actor. Written by the actor's own task alone, without locked instructions; read by everybody.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

#[derive(Default)]
pub(crate) struct Counters {
    handled: AtomicU64,
    failed: AtomicU64,
    returned: AtomicU64,
    /// Nanoseconds.
    busy: AtomicU64,
    /// When it began, on the clock of [`nanos`]; 0 while the actor waits for messages.
    busy_since: AtomicU64,
    /// The type of the message that is handled, or was last.
    message: Mutex<Option<&'static str>>,
}

/// What was read of the counters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) handled: u64,
    pub(crate) failed: u64,
    pub(crate) returned: u64,
    pub(crate) busy: Duration,
    pub(crate) busy_for: Option<Duration>,
    pub(crate) message: Option<&'static str>,
}

/// The system's coarse clock: it ticks every few milliseconds, and is read for a tenth of what the exact one costs, which two
/// looks a message would make the larger part of a short handler's time. Its sums are right in the mean.
#[cfg(target_os = "linux")]
fn nanos() -> u64 {
    use nix::time::{ClockId, clock_gettime};

    // It fails for clocks that a system does not have, and Linux has had this one since 2.6.32.
    let Ok(now) = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE) else {
        return 1;
    };
    // Neither is ever negative, and together they last for 584 years.
    let (seconds, nanos) = (now.tv_sec() as u64, now.tv_nsec() as u64);
    seconds
        .wrapping_mul(1_000_000_000)
        .wrapping_add(nanos)
        .max(1)
}

#[cfg(not(target_os = "linux"))]
fn nanos() -> u64 {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    let since = START.get_or_init(std::time::Instant::now).elapsed();
    // 584 years.
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX - 1) + 1
}

impl Counters {
    /// One writer: a load and a store are cheaper than an addition that others could interrupt.
    fn add(counter: &AtomicU64, amount: u64) {
        let sum = counter.load(Ordering::Relaxed).wrapping_add(amount);
        counter.store(sum, Ordering::Relaxed);
    }

    pub(crate) fn handled(&self) {
        Self::add(&self.handled, 1);
    }

    pub(crate) fn handled_so_far(&self) -> u64 {
        self.handled.load(Ordering::Relaxed)
    }

    pub(crate) fn failed(&self) {
        Self::add(&self.failed, 1);
    }

    pub(crate) fn returned(&self) {
        Self::add(&self.returned, 1);
    }

    /// The actor has messages, or something else to look at.
    pub(crate) fn wakes(&self) {
        if self.busy_since.load(Ordering::Relaxed) == 0 {
            self.busy_since.store(nanos(), Ordering::Relaxed);
        }
    }

    /// The actor waits for messages.
    pub(crate) fn rests(&self) {
        let since = self.busy_since.load(Ordering::Relaxed);
        if since != 0 {
            Self::add(&self.busy, nanos().saturating_sub(since));
            self.busy_since.store(0, Ordering::Relaxed);
        }
    }

    /// The actor handles messages of this type from now on.
    pub(crate) fn takes(&self, message: &'static str) {
        *self.message.lock() = Some(message);
    }

    pub(crate) fn read(&self) -> Reading {
        let since = self.busy_since.load(Ordering::Relaxed);
        let busy_for = (since != 0).then(|| Duration::from_nanos(nanos().saturating_sub(since)));
        let rested = Duration::from_nanos(self.busy.load(Ordering::Relaxed));
        Reading {
            handled: self.handled.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            returned: self.returned.load(Ordering::Relaxed),
            busy: rested + busy_for.unwrap_or_default(),
            busy_for,
            message: if since == 0 {
                None
            } else {
                *self.message.lock()
            },
        }
    }
}
