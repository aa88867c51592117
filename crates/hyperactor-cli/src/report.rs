//! The demo's result: its one JSON object, its text for people, and whether it is a success.

use std::fmt;

use serde::Serialize;

use crate::input::Skipped;
use crate::style::{Look, Style};

/// The object that `--json` prints. Its fields and their order are a promise to scripts.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) procs: u32,
    pub(crate) files: u64,
    pub(crate) words: u64,
    pub(crate) distinct: u64,
    pub(crate) verified: bool,
    pub(crate) messages: Messages,
    pub(crate) undeliverable: u64,
    pub(crate) seconds: f64,
    pub(crate) messages_per_second: f64,
    pub(crate) left_behind: u64,
}

/// Messages between the demo's processes, by the route that carried them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Messages {
    /// Within one process.
    pub(crate) in_process: u64,
    /// From process to process.
    pub(crate) direct: u64,
    /// From process to process through the host.
    pub(crate) relay: u64,
}

/// Messages from one process to one other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) direct: u64,
    pub(crate) relay: u64,
}

/// Everything that is told at the end of a demo.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) summary: Summary,
    pub(crate) origin: String,
    pub(crate) skipped: Skipped,
    pub(crate) top: Vec<(String, u64)>,
    /// Row: from; column: to. The diagonal is unused, see `in_process`.
    pub(crate) pairs: Vec<Vec<Pair>>,
    /// Messages within each process.
    pub(crate) in_process: Vec<u64>,
    /// Why the result is not right; empty on success.
    pub(crate) problems: Vec<String>,
}

impl Messages {
    /// Sums what every process counted.
    pub(crate) fn sum(in_process: &[u64], pairs: &[Vec<Pair>]) -> Self {
        let sum = |of: fn(&Pair) -> u64| pairs.iter().flatten().map(of).sum();
        Self {
            in_process: in_process.iter().sum(),
            direct: sum(|pair| pair.direct),
            relay: sum(|pair| pair.relay),
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.in_process + self.direct + self.relay
    }

    /// The share of the messages between different processes that went directly, in percent.
    pub(crate) fn direct_percent(&self) -> Option<f64> {
        let between = self.direct + self.relay;
        (between > 0).then(|| self.direct as f64 * 100.0 / between as f64)
    }
}

impl Summary {
    /// True when the result was verified and nothing was lost or left behind.
    pub(crate) fn is_success(&self) -> bool {
        self.verified && self.undeliverable == 0 && self.left_behind == 0
    }

    /// One line, without a line end.
    ///
    /// # Errors
    ///
    /// None in practice: every field is a plain number.
    pub(crate) fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }
}

/// `value` with `digits` decimals, so that an object does not show more than was measured.
pub(crate) fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

impl Report {
    /// The text for people.
    pub(crate) fn to_text(&self, style: Style) -> impl fmt::Display {
        Text {
            report: self,
            style,
        }
    }
}

/// Columns of the table of pairs that fit a usual window; with more processes each row is summed up.
const TABLE_PROCS_MAX: usize = 12;

struct Text<'a> {
    report: &'a Report,
    style: Style,
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.heading(f)?;
        self.top(f)?;
        self.routes(f)?;
        self.verdict(f)
    }
}

impl Text<'_> {
    fn heading(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report {
            summary,
            origin,
            skipped,
            ..
        } = self.report;
        writeln!(
            f,
            "{} words, {} of them different, in {} files of {origin} (skipped: {skipped})",
            summary.words, summary.distinct, summary.files,
        )?;
        writeln!(
            f,
            "{} processes, {} messages in {:.3} s: {:.0} messages/s",
            summary.procs,
            summary.messages.total(),
            summary.seconds,
            summary.messages_per_second,
        )
    }

    fn top(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heading = self.style.paint(Look::Heading, "Commonest words");
        writeln!(f, "\n{heading}")?;
        let widest = self.report.top.first().map_or(0, |(_, n)| digits(*n));
        for (word, times) in &self.report.top {
            writeln!(f, "  {times:>widest$}  {word}")?;
        }
        Ok(())
    }

    fn routes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let messages = &self.report.summary.messages;
        let heading = self.style.paint(Look::Heading, "Messages by route");
        writeln!(f, "\n{heading}")?;
        writeln!(f, "  in-process {}", messages.in_process)?;
        match messages.direct_percent() {
            Some(percent) => writeln!(
                f,
                "  direct     {} ({percent:.1} % of those between processes)",
                messages.direct
            )?,
            None => writeln!(f, "  direct     0 (there is one process)")?,
        }
        writeln!(f, "  relay      {}", messages.relay)?;
        if self.report.pairs.len() > TABLE_PROCS_MAX {
            self.rows_summed(f)
        } else {
            self.table(f)
        }
    }

    fn table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cells: Vec<Vec<String>> = self
            .report
            .pairs
            .iter()
            .enumerate()
            .map(|(from, row)| {
                row.iter()
                    .enumerate()
                    .map(|(to, pair)| match from == to {
                        true => self
                            .report
                            .in_process
                            .get(from)
                            .map_or_else(String::new, |n| format!("({n})")),
                        false => format!("{}+{}", pair.direct, pair.relay),
                    })
                    .collect()
            })
            .collect();
        let widest = cells.iter().flatten().map(String::len).max().unwrap_or(0);
        let width = widest.max("to 00".len());
        let legend = self
            .style
            .paint(Look::Faint, "direct+relay, in brackets: within the process");
        write!(f, "\n  {:<8}", "")?;
        for to in 0..cells.len() {
            write!(f, "  {:>width$}", format!("to {to}"))?;
        }
        writeln!(f)?;
        for (from, row) in cells.iter().enumerate() {
            write!(f, "  {:<8}", format!("from {from}"))?;
            for cell in row {
                write!(f, "  {cell:>width$}")?;
            }
            writeln!(f)?;
        }
        writeln!(f, "  {legend}")
    }

    fn rows_summed(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        for (from, row) in self.report.pairs.iter().enumerate() {
            let direct: u64 = row.iter().map(|pair| pair.direct).sum();
            let relay: u64 = row.iter().map(|pair| pair.relay).sum();
            let own = self.report.in_process.get(from).copied().unwrap_or(0);
            writeln!(
                f,
                "  from {from:>2}: {direct} direct, {relay} relay, {own} within the process"
            )?;
        }
        Ok(())
    }

    fn verdict(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let summary = &self.report.summary;
        writeln!(f)?;
        if summary.is_success() {
            let good = self.style.paint(Look::Good, "verified");
            return writeln!(
                f,
                "{good}: equal to a count made in one process; nothing undeliverable, nothing left behind"
            );
        }
        let bad = self.style.paint(Look::Bad, "not right");
        writeln!(
            f,
            "{bad}: verified {}, undeliverable {}, left behind {}",
            summary.verified, summary.undeliverable, summary.left_behind
        )
    }
}

fn digits(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let pairs = vec![
            vec![
                Pair::default(),
                Pair {
                    direct: 95,
                    relay: 1,
                },
            ],
            vec![
                Pair {
                    direct: 94,
                    relay: 0,
                },
                Pair::default(),
            ],
        ];
        let in_process = vec![40, 41];
        Report {
            summary: Summary {
                procs: 2,
                files: 3,
                words: 1000,
                distinct: 100,
                verified: true,
                messages: Messages::sum(&in_process, &pairs),
                undeliverable: 0,
                seconds: 0.5,
                messages_per_second: 542.0,
                left_behind: 0,
            },
            origin: "docs".into(),
            skipped: Skipped::default(),
            top: vec![("the".into(), 120), ("a".into(), 7)],
            pairs,
            in_process,
            problems: Vec::new(),
        }
    }

    #[test]
    fn the_json_object_has_exactly_the_promised_fields_in_order() {
        assert_eq!(
            report().summary.to_json().unwrap(),
            r#"{"procs":2,"files":3,"words":1000,"distinct":100,"verified":true,"messages":{"in_process":81,"direct":189,"relay":1},"undeliverable":0,"seconds":0.5,"messages_per_second":542.0,"left_behind":0}"#
        );
    }

    #[test]
    fn success_needs_all_three() {
        let good = report().summary;
        assert!(good.is_success());
        for broken in [
            Summary {
                verified: false,
                ..good.clone()
            },
            Summary {
                undeliverable: 1,
                ..good.clone()
            },
            Summary {
                left_behind: 1,
                ..good
            },
        ] {
            assert!(!broken.is_success());
        }
    }

    #[test]
    fn the_text_shows_words_routes_and_the_verdict() {
        let text = report().to_text(Style::plain()).to_string();
        for expected in [
            "1000 words, 100 of them different, in 3 files of docs (skipped: nothing)",
            "  120  the\n    7  a\n",
            "direct     189 (99.5 % of those between processes)",
            "from 0     (40)   95+1\n",
            "from 1     94+0   (41)\n",
            "verified: equal",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn many_processes_are_summed_up_in_a_line_each() {
        let mut many = report();
        many.pairs = vec![
            vec![
                Pair {
                    direct: 2,
                    relay: 1
                };
                13
            ];
            13
        ];
        let text = many.to_text(Style::plain()).to_string();
        assert!(text.contains("from 12: 26 direct, 13 relay"), "{text}");
    }

    #[test]
    fn a_single_process_has_no_share_of_direct_messages() {
        let alone = Messages::sum(&[7], &[vec![Pair::default()]]);
        assert_eq!(alone.direct_percent(), None);
        assert_eq!(alone.total(), 7);
    }

    #[test]
    fn numbers_are_rounded_to_what_was_measured() {
        assert_eq!(rounded(0.123_456, 3), 0.123);
        assert_eq!(rounded(12_345.678, 0), 12_346.0);
    }
}
