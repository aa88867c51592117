//! A probe: where the code under test puts values, and where the test takes them, in order.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::limits::PROBE_VALUES;

/// The test's end: takes values in the order in which they were recorded.
///
/// ```
/// use std::time::Duration;
/// use hyperactor_testkit::Probe;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let mut probe = Probe::new();
/// let recorder = probe.recorder();
/// tokio::spawn(async move { recorder.record("placed") });
/// assert_eq!(probe.expect_within(Duration::from_secs(5)).await, "placed");
/// # }
/// ```
#[derive(Debug)]
pub struct Probe<T> {
    shared: Arc<Shared<T>>,
}

/// The other end: an actor, a callback or a thread records into it. Cheap to clone.
pub struct Recorder<T> {
    shared: Arc<Shared<T>>,
}

#[derive(Debug)]
struct Shared<T> {
    values: Mutex<VecDeque<T>>,
    came: Notify,
}

impl<T> Probe<T> {
    /// A probe that holds nothing yet.
    #[must_use]
    pub fn new() -> Self {
        let shared = Shared {
            values: Mutex::new(VecDeque::new()),
            came: Notify::new(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// An end to record into.
    #[must_use]
    pub fn recorder(&self) -> Recorder<T> {
        Recorder {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Takes the next value if there is one.
    pub fn take(&mut self) -> Option<T> {
        self.shared.values.lock().pop_front()
    }

    /// Takes all values that are there.
    pub fn drain(&mut self) -> Vec<T> {
        self.shared.values.lock().drain(..).collect()
    }

    /// How many values wait to be taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.values.lock().len()
    }

    /// Whether no value waits to be taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the next value.
    ///
    /// # Panics
    ///
    /// When none comes within the deadline.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future takes nothing.
    pub async fn expect_within(&mut self, deadline: Duration) -> T {
        let end = Instant::now() + deadline;
        match self.next_until(end).await {
            Some(value) => value,
            None => panic!("no value came within {deadline:?}"),
        }
    }

    /// Takes the next `count` values.
    ///
    /// # Panics
    ///
    /// When they are not all there within the deadline; the message says how many were.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses the values that it had taken already.
    pub async fn expect_many_within(&mut self, count: usize, deadline: Duration) -> Vec<T> {
        let end = Instant::now() + deadline;
        let mut values = Vec::new();
        while values.len() < count {
            match self.next_until(end).await {
                Some(value) => values.push(value),
                None => panic!(
                    "{} of {count} values came within {deadline:?}",
                    values.len()
                ),
            }
        }
        values
    }

    /// Waits for the whole of `time` and makes sure that no value comes. With tokio's time paused, that
    /// costs nothing.
    ///
    /// # Panics
    ///
    /// When a value comes.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future takes nothing.
    pub async fn expect_none_within(&mut self, time: Duration)
    where
        T: fmt::Debug,
    {
        let end = Instant::now() + time;
        if let Some(value) = self.next_until(end).await {
            panic!("no value was expected, but {value:?} came");
        }
    }

    async fn next_until(&mut self, end: Instant) -> Option<T> {
        loop {
            // Made before the look: a value recorded in between leaves its permit for this future.
            let came = self.shared.came.notified();
            if let Some(value) = self.shared.values.lock().pop_front() {
                return Some(value);
            }
            timeout_at(end, came).await.ok()?;
        }
    }
}

impl<T> Default for Probe<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Recorder<T> {
    /// Adds a value. Never waits.
    ///
    /// # Panics
    ///
    /// When [`PROBE_VALUES`] values wait already: the test forgot to take them.
    pub fn record(&self, value: T) {
        let mut values = self.shared.values.lock();
        assert!(
            values.len() < PROBE_VALUES,
            "{PROBE_VALUES} values wait in this probe"
        );
        values.push_back(value);
        drop(values);
        self.shared.came.notify_one();
    }
}

impl<T> Clone for Recorder<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T> fmt::Debug for Recorder<T> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Recorder").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn values_come_in_order_from_any_thread() {
        let mut probe = Probe::new();
        let recorder = probe.recorder();
        recorder.record(1);
        std::thread::spawn(move || {
            for value in 2..=10 {
                recorder.record(value);
            }
        })
        .join()
        .unwrap();
        assert_eq!(probe.len(), 10);
        assert_eq!(probe.expect_within(SECOND).await, 1);
        assert_eq!(
            probe.expect_many_within(8, SECOND).await,
            (2..=9).collect::<Vec<_>>()
        );
        assert_eq!(probe.drain(), [10]);
        assert_eq!(probe.take(), None);
        probe.expect_none_within(SECOND).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_value_recorded_while_waiting_is_not_missed() {
        for round in 0..1_000 {
            let mut probe = Probe::new();
            let recorder = probe.recorder();
            tokio::spawn(async move { recorder.record(round) });
            assert_eq!(probe.expect_within(10 * SECOND).await, round);
        }
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "1 of 2 values came within 1s")]
    async fn a_missing_value_is_counted() {
        let mut probe = Probe::new();
        probe.recorder().record(());
        probe.expect_many_within(2, SECOND).await;
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "but 7 came")]
    async fn an_unexpected_value_is_shown() {
        let mut probe = Probe::new();
        probe.recorder().record(7);
        probe.expect_none_within(SECOND).await;
    }
}
