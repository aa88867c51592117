//! What a row of the comparison is made of: arms that can be measured, and lines that set one against another.
//! How they are run is in `run.rs`, what they measure in `rows/`.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::compare::stats::{Target, percentile};

/// What one measurement of an arm found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) elapsed: Duration,
    /// Messages, or round trips.
    pub(crate) count: u64,
    pub(crate) trips: Trips,
    /// What is neither a rate nor a time: bytes, allocations.
    pub(crate) value: f64,
}

/// Round trips, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trips {
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) mean: u64,
}

impl Figures {
    pub(crate) fn throughput(count: u64, elapsed: Duration) -> Self {
        Self {
            elapsed,
            count,
            ..Self::default()
        }
    }

    pub(crate) fn round_trips(times: Vec<u64>, elapsed: Duration) -> Self {
        Self {
            elapsed,
            count: times.len() as u64,
            trips: Trips::of(times),
            value: 0.0,
        }
    }

    pub(crate) fn value(value: f64) -> Self {
        Self {
            count: 1,
            value,
            ..Self::default()
        }
    }
}

impl Trips {
    pub(crate) fn of(mut times: Vec<u64>) -> Self {
        times.sort_unstable();
        Self {
            p50: percentile(&times, 50),
            p99: percentile(&times, 99),
            mean: times.iter().sum::<u64>() / (times.len() as u64).max(1),
        }
    }
}

/// One number of [`Figures`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metric {
    /// Messages a second.
    Rate,
    /// Nanoseconds.
    P50,
    /// Nanoseconds.
    P99,
    /// Nanoseconds.
    Mean,
    /// Nanoseconds for each, where they were not timed one by one.
    Each,
    /// Bytes.
    Bytes,
    /// A count.
    Count,
}

impl Metric {
    pub(crate) fn of(self, figures: &Figures) -> f64 {
        let seconds = figures.elapsed.as_secs_f64();
        match self {
            Self::Rate => figures.count as f64 / seconds.max(1e-9),
            Self::Each => seconds * 1e9 / (figures.count as f64).max(1.0),
            Self::P50 => figures.trips.p50 as f64,
            Self::P99 => figures.trips.p99 as f64,
            Self::Mean => figures.trips.mean as f64,
            Self::Bytes | Self::Count => figures.value,
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::Mean => "mean",
            Self::Each => "time each",
            Self::Bytes => "bytes",
            Self::Count => "count",
        }
    }

    /// A value of this metric with a unit that suits its size.
    pub(crate) fn show(self, value: f64) -> String {
        let scaled = |value: f64, units: [&str; 3], step: f64| {
            let (mut value, mut unit) = (value, units[0]);
            for next in &units[1..] {
                if value.abs() >= step {
                    (value, unit) = (value / step, next);
                }
            }
            let digits = if value.abs() >= 100.0 { 0 } else { 2 };
            format!("{value:.digits$}{unit}")
        };
        match self {
            Self::Rate => scaled(value, [" /s", " k/s", " M/s"], 1e3),
            Self::P50 | Self::P99 | Self::Mean | Self::Each => {
                scaled(value, [" ns", " µs", " ms"], 1e3)
            }
            Self::Bytes => scaled(value, [" B", " KiB", " MiB"], 1024.0),
            Self::Count => format!("{value:.3}"),
        }
    }
}

/// Does so many, and says what came of it.
pub(crate) type Measure = Box<dyn FnMut(u64) -> Result<Figures>>;

/// Something that can be measured again and again.
pub(crate) struct Arm {
    pub(crate) name: &'static str,
    /// The least and the most that one measurement does.
    pub(crate) bounds: (u64, u64),
    pub(crate) measure: Measure,
}

impl Arm {
    pub(crate) fn new(
        name: &'static str,
        bounds: (u64, u64),
        measure: impl FnMut(u64) -> Result<Figures> + 'static,
    ) -> Self {
        Self {
            name,
            bounds,
            measure: Box::new(measure),
        }
    }
}

/// What the ratio of a line is to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Against {
    /// The arm of this name.
    Arm(&'static str),
    /// Nothing: the value itself counts.
    Nothing,
    /// Something that is missing, and how to get it.
    Missing(&'static str),
}

/// One question that a row answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    pub(crate) what: &'static str,
    pub(crate) subject: &'static str,
    pub(crate) against: Against,
    pub(crate) metric: Metric,
    /// None where the figure is only for information.
    pub(crate) target: Option<Target>,
}

impl Line {
    pub(crate) fn ratio(
        what: &'static str,
        metric: Metric,
        subject: &'static str,
        baseline: &'static str,
    ) -> Self {
        Self {
            what,
            subject,
            against: Against::Arm(baseline),
            metric,
            target: None,
        }
    }

    pub(crate) fn value(what: &'static str, metric: Metric, subject: &'static str) -> Self {
        Self {
            what,
            subject,
            against: Against::Nothing,
            metric,
            target: None,
        }
    }

    pub(crate) fn at_least(mut self, least: f64) -> Self {
        self.target = Some(Target::AtLeast(least));
        self
    }

    pub(crate) fn at_most(mut self, most: f64) -> Self {
        self.target = Some(Target::AtMost(most));
        self
    }
}

/// A row that is set up: its arms live until it is dropped.
#[derive(Default)]
pub(crate) struct Row {
    pub(crate) arms: Vec<Arm>,
    pub(crate) lines: Vec<Line>,
    /// Where things ran, in words.
    pub(crate) placement: &'static str,
    /// Whether one round says it all: what is counted does not vary, and what is started anew is slow.
    pub(crate) is_counted: bool,
}

/// Times `work`.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let started = Instant::now();
    let made = work();
    (made, started.elapsed())
}

/// The nanoseconds since `started`.
pub(crate) fn nanos_since(started: Instant) -> u64 {
    nanos(started.elapsed())
}

pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_read_their_own_figure() {
        let figures = Figures {
            elapsed: Duration::from_millis(500),
            count: 1000,
            trips: Trips::of((1..=100).collect()),
            value: 3.5,
        };
        let read = |metric: Metric| metric.of(&figures);
        assert_eq!(read(Metric::Rate), 2000.0);
        assert_eq!(read(Metric::Each), 500_000.0);
        assert_eq!(
            (read(Metric::P50), read(Metric::P99), read(Metric::Mean)),
            (50.0, 99.0, 50.0)
        );
        assert_eq!(read(Metric::Bytes), 3.5);
    }

    #[test]
    fn values_are_shown_in_units_that_suit_their_size() {
        assert_eq!(Metric::Rate.show(2_345_678.0), "2.35 M/s");
        assert_eq!(Metric::P50.show(12_345.0), "12.35 µs");
        assert_eq!(Metric::P99.show(870.0), "870 ns");
        assert_eq!(Metric::Bytes.show(1536.0), "1.50 KiB");
        assert_eq!(Metric::Count.show(1.0), "1.000");
    }
}
