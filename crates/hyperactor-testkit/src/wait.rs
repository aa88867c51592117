//! Waiting for a condition that nothing announces, with a deadline. Where something can announce it (a
//! channel, a watch, a probe), wait for that instead.

use std::future::Future;
use std::panic::Location;
use std::thread;
use std::time::{Duration, Instant};

use crate::limits::POLL_INTERVAL;

/// Waits until the condition holds.
///
/// Time is tokio's: where a test pauses it, the wait costs none.
///
/// # Panics
///
/// When the condition does not hold within the deadline; the message names the caller's line.
///
/// # Cancel safety
///
/// Dropping the future stops the looking and nothing else.
#[track_caller]
pub fn eventually(
    deadline: Duration,
    mut condition: impl FnMut() -> bool,
) -> impl Future<Output = ()> {
    eventually_some(deadline, move || condition().then_some(()))
}

/// Waits until `look` finds something and returns it.
///
/// # Panics
///
/// When nothing is found within the deadline; the message names the caller's line.
///
/// # Cancel safety
///
/// As [`eventually`].
#[track_caller]
pub fn eventually_some<T>(
    deadline: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> impl Future<Output = T> {
    let caller = Location::caller();
    async move {
        let end = tokio::time::Instant::now() + deadline;
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(
                tokio::time::Instant::now() < end,
                "what {caller} waits for did not come within {deadline:?}"
            );
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

/// Waits until the condition holds, in a thread without a runtime.
///
/// # Panics
///
/// When the condition does not hold within the deadline; the message names the caller's line.
#[track_caller]
pub fn eventually_blocking(deadline: Duration, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + deadline;
    while !condition() {
        assert!(
            Instant::now() < end,
            "the condition did not come to hold within {deadline:?}"
        );
        thread::sleep(POLL_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_condition_that_comes_to_hold_ends_the_wait() {
        let mut looks = 0;
        eventually(Duration::from_secs(1), || {
            looks += 1;
            looks == 5
        })
        .await;
        assert_eq!(looks, 5);
        assert_eq!(
            eventually_some(Duration::ZERO, || Some("found")).await,
            "found"
        );
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "wait.rs")]
    async fn a_condition_that_never_holds_names_who_waited() {
        eventually(Duration::from_secs(5), || false).await;
    }

    #[test]
    fn a_thread_can_wait_too() {
        let mut looks = 0;
        eventually_blocking(Duration::from_secs(10), || {
            looks += 1;
            looks == 3
        });
    }

    #[test]
    #[should_panic(expected = "did not come to hold within 0ns")]
    fn a_thread_gives_up_as_well() {
        eventually_blocking(Duration::ZERO, || false);
    }
}
