//! What a comparison found, as an object for programs and as a table in Markdown for people.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::compare::machine::Machine;
use crate::compare::stats::{Quartiles, Target, Verdict};

/// A whole run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// Pairs of each line, where it is not counted.
    pub pairs: usize,
    /// Milliseconds that one measurement was to take.
    pub sample_ms: u64,
    /// Whether the program was optimised. Figures of one that was not mean nothing.
    pub is_optimised: bool,
    /// The rows, in the order measured.
    pub rows: Vec<RowReport>,
}

/// One row of the table of targets.
#[derive(Debug, Serialize, Deserialize)]
pub struct RowReport {
    /// Its name in the table of targets.
    pub id: String,
    /// What it is about.
    pub title: String,
    /// Where things ran.
    pub placement: String,
    /// What it found.
    pub lines: Vec<LineReport>,
    /// The machine just before.
    pub before: Machine,
    /// The machine just after.
    pub after: Machine,
}

/// One question and its answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct LineReport {
    /// The question.
    pub what: String,
    /// Which number.
    pub metric: String,
    /// Whose.
    pub subject: String,
    /// The subject's median, with its unit.
    pub subject_shown: String,
    /// Against whose.
    pub baseline: Option<String>,
    /// The baseline's median, with its unit.
    pub baseline_shown: Option<String>,
    /// Whether `values` are ratios of pairs, subject over baseline; else they are the subject's own.
    pub is_ratio: bool,
    /// The median of `values`.
    pub shown: Option<String>,
    /// The quartiles of `values`.
    pub quartiles: Option<Quartiles>,
    /// What is to be reached, in words.
    pub target_shown: Option<String>,
    /// What is to be reached; nothing where the line only informs.
    pub target: Option<Target>,
    /// Whether it is.
    pub verdict: Option<Verdict>,
    /// What was missing for this line.
    pub missing: Option<String>,
    /// What was measured, a value a round.
    pub subject_samples: Vec<f64>,
    /// What was measured, a value a round.
    pub baseline_samples: Vec<f64>,
    /// The values that are judged.
    pub values: Vec<f64>,
}

impl Report {
    /// The table.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut text = format!(
            "{} pairs, baseline and subject in turns, {} ms a measurement. Ratios are subject over baseline: median [quartiles].\n\n",
            self.pairs, self.sample_ms
        );
        if !self.is_optimised {
            text += "**Not optimised: these figures only show that the program runs.**\n\n";
        }
        text += "| | what | subject | baseline | value | target | verdict |\n|---|---|---:|---:|---:|---|---|\n";
        for row in &self.rows {
            for (index, line) in row.lines.iter().enumerate() {
                let id = if index == 0 { row.id.as_str() } else { "" };
                // Writing to a string does not fail.
                let _ = writeln!(text, "| {id} {}", line.to_markdown());
            }
        }
        text += "\nThe machine beside each row, before and after it:\n\n\
            | | placement | wake, µs | on one core, µs | cache line there and back, ns | load |\n|---|---|---:|---:|---:|---:|\n";
        for row in &self.rows {
            let _ = writeln!(text, "| {} | {} {}", row.id, row.placement, beside(row));
        }
        let cores = self.rows.first().map_or(0, |row| row.before.cores);
        let _ = writeln!(text, "\nCores: {cores}.");
        text
    }

    /// How many lines met and missed their target, and how many cannot say.
    #[must_use]
    pub fn closing_line(&self) -> String {
        let lines = || self.rows.iter().flat_map(|row| &row.lines);
        let count = |verdict| lines().filter(|line| line.verdict == Some(verdict)).count();
        format!(
            "{} met, {} missed, {} inconclusive",
            count(Verdict::Met),
            count(Verdict::Missed),
            count(Verdict::Inconclusive)
        )
    }
}

fn beside(row: &RowReport) -> String {
    let some = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
    };
    let (a, b) = (&row.before, &row.after);
    format!(
        "| {} / {} | {:.1} / {:.1} | {} / {} | {:.1} / {:.1} |",
        some(a.wake_us, 1),
        some(b.wake_us, 1),
        a.wake_same_core_us,
        b.wake_same_core_us,
        some(a.bounce_ns, 0),
        some(b.bounce_ns, 0),
        a.load,
        b.load
    )
}

impl LineReport {
    /// The cells of this line behind the row's name.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let value = match (&self.shown, &self.quartiles, self.is_ratio) {
            (Some(shown), Some(q), true) => format!("**{shown}** [{:.2}–{:.2}]", q.q1, q.q3),
            (Some(shown), _, _) => format!("**{shown}**"),
            (None, _, _) => "–".to_owned(),
        };
        let verdict = match (&self.verdict, &self.missing) {
            (Some(verdict), Some(missing)) => format!("{}: {missing}", verdict.word()),
            (Some(Verdict::Missed), None) => "**missed**".to_owned(),
            (Some(verdict), None) => verdict.word().to_owned(),
            (None, Some(missing)) => missing.clone(),
            (None, None) => String::new(),
        };
        format!(
            "| {}, {} | {} | {} | {value} | {} | {verdict} |",
            self.what,
            self.metric,
            self.subject_shown,
            self.baseline_shown.as_deref().unwrap_or("–"),
            self.target_shown.as_deref().unwrap_or("–"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine {
            cores: 2,
            load: 0.5,
            wake_us: Some(33.0),
            wake_same_core_us: 4.0,
            bounce_ns: None,
        }
    }

    fn report() -> Report {
        let line = |verdict| LineReport {
            what: "handle".to_owned(),
            metric: "rate".to_owned(),
            subject: "handle".to_owned(),
            subject_shown: "3.00 M/s".to_owned(),
            baseline: Some("tokio".to_owned()),
            baseline_shown: Some("2.00 M/s".to_owned()),
            is_ratio: true,
            shown: Some("1.50".to_owned()),
            quartiles: Quartiles::of(&[1.4, 1.5, 1.6]),
            target_shown: Some("≥ 1.2".to_owned()),
            target: Some(Target::AtLeast(1.2)),
            verdict: Some(verdict),
            missing: None,
            subject_samples: vec![3e6],
            baseline_samples: vec![2e6],
            values: vec![1.5],
        };
        Report {
            pairs: 7,
            sample_ms: 200,
            is_optimised: true,
            rows: vec![RowReport {
                id: "a1".to_owned(),
                title: "one to one".to_owned(),
                placement: "free".to_owned(),
                lines: vec![line(Verdict::Met), line(Verdict::Missed)],
                before: machine(),
                after: machine(),
            }],
        }
    }

    #[test]
    fn the_table_has_each_line_with_its_verdict_and_the_machine_beside_it() {
        let text = report().to_markdown();
        assert!(
            text.contains(
                "| a1 | handle, rate | 3.00 M/s | 2.00 M/s | **1.50** [1.45–1.55] | ≥ 1.2 | met |"
            ),
            "{text}"
        );
        assert!(
            text.contains("|  | handle, rate |") && text.contains("**missed**"),
            "{text}"
        );
        assert!(
            text.contains("| a1 | free | 33.0 / 33.0 | 4.0 / 4.0 | – / – | 0.5 / 0.5 |"),
            "{text}"
        );
        assert_eq!(report().closing_line(), "1 met, 1 missed, 0 inconclusive");
    }

    #[test]
    fn the_object_reads_back() {
        let text = serde_json::to_string(&report()).unwrap();
        let back: Report = serde_json::from_str(&text).unwrap();
        assert_eq!(back.to_markdown(), report().to_markdown());
        assert!(text.contains(r#""verdict":"met""#), "{text}");
    }
}
