//! How much a process writes into its log: every line of a warning or worse is counted with its time, and none is kept.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// A little less than one: a line's time is taken a moment after whoever wrote it looked at the clock.
const SECOND: Duration = Duration::from_millis(900);

/// The lines of this process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<Instant>>>);

impl Lines {
    /// Counts from now on.
    pub(crate) fn count() -> Self {
        let lines = Self::default();
        tracing::subscriber::set_global_default(lines.clone()).unwrap();
        lines
    }

    /// How many lines there were, and the most within any one second.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let times = self.0.lock();
        let within_a_second = |(at, first): (usize, &Instant)| {
            let later = times[at..].iter();
            later.take_while(|time| **time - *first < SECOND).count()
        };
        let most = times.iter().enumerate().map(within_a_second).max();
        (times.len() as u64, most.unwrap_or(0) as u64)
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }

    fn event(&self, _event: &Event<'_>) {
        self.0.lock().push(Instant::now());
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}
