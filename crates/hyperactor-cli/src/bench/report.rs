//! The figures of `bench routes`: medians over the rounds, the ratios between routes, and how they are shown.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::progress;
use crate::report::rounded;
use crate::style::{Look, Style};

/// What one round measured on one route.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sample {
    /// Confirmed messages a second.
    pub(crate) messages_per_second: f64,
    /// Median of the round trips.
    pub(crate) p50: Duration,
    /// The round trip that one in a hundred exceeds.
    pub(crate) p99: Duration,
}

/// All figures of a run; also the object that `--json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct RoutesReport {
    pub(crate) messages: u64,
    pub(crate) size: u64,
    pub(crate) rounds: u64,
    pub(crate) round_trips: u64,
    pub(crate) in_process: Figures,
    pub(crate) direct: Figures,
    pub(crate) relay: Figures,
    pub(crate) in_process_to_direct: Ratios,
    pub(crate) direct_to_relay: Ratios,
    pub(crate) left_behind: u64,
}

/// The medians of one route.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Figures {
    pub(crate) messages_per_second: f64,
    /// Absent in one process, where a payload is handed over and no byte of it moves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mib_per_second: Option<f64>,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// How many times better one route is than the next: above 1 means faster, in each figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Ratios {
    pub(crate) throughput: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Figures {
    /// The medians of the rounds of one route on which messages of `size` bytes moved; `None` where they do not.
    pub(crate) fn medians(samples: &[Sample], size: Option<u64>) -> Self {
        let rate = median(samples.iter().map(|sample| sample.messages_per_second));
        let micros = |of: fn(&Sample) -> Duration| {
            median(samples.iter().map(|sample| of(sample).as_secs_f64() * 1e6))
        };
        Self {
            messages_per_second: rounded(rate, 0),
            mib_per_second: size.map(|size| rounded(rate * size as f64 / (1024.0 * 1024.0), 1)),
            p50_us: rounded(micros(|sample| sample.p50), 1),
            p99_us: rounded(micros(|sample| sample.p99), 1),
        }
    }
}

impl Ratios {
    /// The median of the rounds' own ratios: rounds on a busy machine are slow on every route alike, so a
    /// ratio within one round is steadier than one of two medians.
    pub(crate) fn of(faster: &[Sample], slower: &[Sample]) -> Self {
        let ratio = |of: fn(&Sample, &Sample) -> f64| {
            rounded(median(faster.iter().zip(slower).map(|(f, s)| of(f, s))), 2)
        };
        Self {
            throughput: ratio(|f, s| quotient(f.messages_per_second, s.messages_per_second)),
            p50: ratio(|f, s| quotient(s.p50.as_secs_f64(), f.p50.as_secs_f64())),
            p99: ratio(|f, s| quotient(s.p99.as_secs_f64(), f.p99.as_secs_f64())),
        }
    }
}

/// The value that `percent` of the sorted values do not exceed (nearest rank); zero of nothing.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// One throughput figure from a count and the time it took.
pub(crate) fn messages_per_second(messages: u64, time: Duration) -> f64 {
    progress::rate(messages, time)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_unstable_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

fn quotient(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}

impl RoutesReport {
    /// The table for people.
    pub(crate) fn to_text(&self, style: Style) -> impl fmt::Display {
        Text {
            report: self,
            style,
        }
    }
}

struct Text<'a> {
    report: &'a RoutesReport,
    style: Style,
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.report;
        writeln!(
            f,
            "{} messages of {} bytes one way, {} round trips; medians of {} rounds, routes in turns\n",
            report.messages, report.size, report.round_trips, report.rounds
        )?;
        let heading = format!(
            "{:<11} {:>12} {:>9} {:>11} {:>11}",
            "route", "messages/s", "MiB/s", "p50 µs", "p99 µs"
        );
        writeln!(f, "{}", self.style.paint(Look::Heading, heading))?;
        for (name, figures) in [
            ("in-process", &report.in_process),
            ("direct", &report.direct),
            ("relay", &report.relay),
        ] {
            writeln!(
                f,
                "{name:<11} {:>12.0} {:>9} {:>11.1} {:>11.1}",
                figures.messages_per_second,
                figures
                    .mib_per_second
                    .map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}")),
                figures.p50_us,
                figures.p99_us
            )?;
        }
        writeln!(f)?;
        for (routes, ratios) in [
            ("in-process against direct", &report.in_process_to_direct),
            ("direct against relay", &report.direct_to_relay),
        ] {
            writeln!(
                f,
                "{:<27}{:.2} times the messages, round trips {:.2} times as fast (p99 {:.2})",
                format!("{routes}:"),
                ratios.throughput,
                ratios.p50,
                ratios.p99
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(rate: f64, p50: u64, p99: u64) -> Sample {
        Sample {
            messages_per_second: rate,
            p50: Duration::from_micros(p50),
            p99: Duration::from_micros(p99),
        }
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_micros).collect();
        assert_eq!(percentile(&times, 50), Duration::from_micros(100));
        assert_eq!(percentile(&times, 99), Duration::from_micros(198));
        assert_eq!(percentile(&times[..1], 99), Duration::from_micros(1));
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }

    #[test]
    fn one_bad_round_does_not_move_the_figures() {
        let rounds = [
            sample(1e6, 10, 50),
            sample(9.0, 9_000, 9_000),
            sample(1.1e6, 11, 51),
        ];
        let figures = Figures::medians(&rounds, Some(1024 * 1024));
        assert_eq!(figures.messages_per_second, 1e6);
        assert_eq!(figures.mib_per_second, Some(1e6));
        assert_eq!((figures.p50_us, figures.p99_us), (11.0, 51.0));
    }

    #[test]
    fn a_ratio_above_one_means_that_the_first_route_is_faster() {
        let direct = [sample(2e6, 10, 40), sample(1e6, 20, 80)];
        let relay = [sample(1e6, 20, 60), sample(0.5e6, 40, 120)];
        let expected = Ratios {
            throughput: 2.0,
            p50: 2.0,
            p99: 1.5,
        };
        assert_eq!(Ratios::of(&direct, &relay), expected);
        let nothing = Ratios::of(&[], &[]);
        assert_eq!(
            nothing.throughput, 0.0,
            "no round is no ratio, and no panic"
        );
    }

    #[test]
    fn the_table_and_the_object_show_the_same_figures() {
        let direct = Figures::medians(&[sample(2e6, 10, 40)], Some(64));
        let relay = Figures::medians(&[sample(1e6, 20, 60)], Some(64));
        let report = RoutesReport {
            messages: 1000,
            size: 64,
            rounds: 5,
            round_trips: 2000,
            in_process: Figures::medians(&[sample(8e6, 1, 3)], None),
            direct,
            relay,
            in_process_to_direct: Ratios::of(&[sample(8e6, 1, 3)], &[sample(2e6, 10, 40)]),
            direct_to_relay: Ratios::of(&[sample(2e6, 10, 40)], &[sample(1e6, 20, 60)]),
            left_behind: 0,
        };
        let text = report.to_text(Style::plain()).to_string();
        assert!(
            text.contains("in-process       8000000         -"),
            "{text}"
        );
        assert!(
            text.contains("direct           2000000     122.1        10.0        40.0"),
            "{text}"
        );
        assert!(
            text.contains("in-process against direct: 4.00 times the messages, round trips 10.00"),
            "{text}"
        );
        assert!(
            text.contains("direct against relay:      2.00 times the messages"),
            "{text}"
        );
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["direct"]["p50_us"], 10.0);
        assert_eq!(json["direct_to_relay"]["throughput"], 2.0);
        assert_eq!(json["in_process_to_direct"]["p50"], 10.0);
        assert_eq!(json["left_behind"], 0);
        assert!(json["in_process"].get("mib_per_second").is_none());
    }
}
