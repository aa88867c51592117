//! Runs a row: sizes its measurements, then measures its arms in turns, and sets them against each other.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::compare::machine::Machine;
use crate::compare::report::{LineReport, RowReport};
use crate::compare::row::{Against, Arm, Figures, Line, Metric, Row};
use crate::compare::stats::{Quartiles, Verdict};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) pairs: usize,
    /// What one measurement should take.
    pub(crate) sample: Duration,
    /// Whether this run only shows that everything works.
    pub(crate) is_quick: bool,
}

/// Measures a row that was set up.
pub(crate) fn run(id: &str, title: &str, row: Row, effort: Effort) -> Result<RowReport> {
    let Row {
        mut arms,
        lines,
        placement,
        is_counted,
    } = row;
    let before = Machine::probe()?;
    let counts = if is_counted {
        vec![1; arms.len()]
    } else {
        let sized = arms.iter_mut().map(|arm| size(arm, effort));
        sized.collect::<Result<Vec<u64>>>()?
    };
    let rounds = if is_counted { 1 } else { effort.pairs };
    let mut samples: Vec<Vec<Figures>> = vec![Vec::with_capacity(rounds); arms.len()];
    for round in 0..rounds {
        for turn in order(round, arms.len()) {
            let arm = &mut arms[turn];
            let found = (arm.measure)(counts[turn]).with_context(|| arm.name.to_owned())?;
            samples[turn].push(found);
        }
    }
    let after = Machine::probe()?;
    let of = |name: &str| -> Result<&[Figures]> {
        let Some(index) = arms.iter().position(|arm| arm.name == name) else {
            bail!("no arm `{name}` in the row {id}");
        };
        Ok(&samples[index])
    };
    let lines = lines
        .iter()
        .map(|line| judge(line, &of, is_counted, effort.is_quick))
        .collect::<Result<_>>()?;
    Ok(RowReport {
        id: id.to_owned(),
        title: title.to_owned(),
        placement: placement.to_owned(),
        lines,
        before,
        after,
    })
}

/// Which arm has its turn when: every second round backwards, so that neither side of a pair is always the first.
fn order(round: usize, arms: usize) -> Vec<usize> {
    let forward = 0..arms;
    if round.is_multiple_of(2) {
        forward.collect()
    } else {
        forward.rev().collect()
    }
}

/// Finds out how many make a measurement of the wanted length; that is the warm-up, too.
fn size(arm: &mut Arm, effort: Effort) -> Result<u64> {
    let (least, most) = arm.bounds;
    let most = if effort.is_quick {
        most.min(least.saturating_mul(4))
    } else {
        most
    };
    let mut count = least;
    loop {
        let found = (arm.measure)(count).with_context(|| format!("{}, warming up", arm.name))?;
        let took = found.elapsed.max(Duration::from_nanos(1));
        let wanted = count as f64 * effort.sample.as_secs_f64() / took.as_secs_f64();
        if took * 4 >= effort.sample || count >= most {
            return Ok((wanted as u64).clamp(least, most));
        }
        // Short measurements say little about long ones: in steps.
        count = (wanted as u64).clamp(count * 2, count * 16).min(most);
    }
}

fn judge<'s>(
    line: &Line,
    of: &impl Fn(&str) -> Result<&'s [Figures]>,
    is_counted: bool,
    is_quick: bool,
) -> Result<LineReport> {
    let read = |samples: &[Figures]| -> Vec<f64> {
        samples.iter().map(|found| line.metric.of(found)).collect()
    };
    let subject = match (of(line.subject), line.against) {
        (Ok(samples), _) => read(samples),
        // What is missing may be the subject itself.
        (Err(_), Against::Missing(_)) => Vec::new(),
        (Err(error), _) => return Err(error),
    };
    let (baseline, values) = match line.against {
        Against::Arm(name) => {
            let baseline = read(of(name)?);
            let ratios = subject.iter().zip(&baseline).map(|(s, b)| s / b.max(1e-9));
            let ratios = ratios.collect();
            (Some((name, baseline)), ratios)
        }
        Against::Nothing => (None, subject.clone()),
        Against::Missing(_) => (None, Vec::new()),
    };
    let verdict = line.target.map(|target| match (is_quick, is_counted) {
        (true, _) => Verdict::Inconclusive,
        (false, true) => Verdict::of_counts(&values, target),
        (false, false) => Verdict::of(&values, target),
    });
    let shown = |values: &[f64], metric: Metric| {
        Quartiles::of(values).map_or_else(|| "–".to_owned(), |q| metric.show(q.median))
    };
    Ok(LineReport {
        what: line.what.to_owned(),
        metric: line.metric.word().to_owned(),
        subject: line.subject.to_owned(),
        subject_shown: shown(&subject, line.metric),
        baseline: baseline.as_ref().map(|(name, _)| (*name).to_owned()),
        baseline_shown: baseline
            .as_ref()
            .map(|(_, values)| shown(values, line.metric)),
        is_ratio: !matches!(line.against, Against::Nothing),
        shown: Quartiles::of(&values).map(|q| match line.against {
            Against::Nothing => line.metric.show(q.median),
            _ => format!("{:.2}", q.median),
        }),
        quartiles: Quartiles::of(&values),
        target_shown: line.target.map(|target| target_text(target, line)),
        target: line.target,
        verdict,
        missing: match line.against {
            Against::Missing(why) => Some(why.to_owned()),
            _ => None,
        },
        subject_samples: subject,
        baseline_samples: baseline.map(|(_, values)| values).unwrap_or_default(),
        values,
    })
}

fn target_text(target: crate::compare::stats::Target, line: &Line) -> String {
    use crate::compare::stats::Target;
    let (sign, value) = match target {
        Target::AtLeast(least) => ('≥', least),
        Target::AtMost(most) => ('≤', most),
    };
    match (line.against, line.metric) {
        (Against::Nothing, _) | (_, Metric::Bytes | Metric::Count) => {
            format!("{sign} {}", line.metric.show(value))
        }
        _ => format!("{sign} {value}"),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;
    use crate::compare::row::Line;

    const EFFORT: Effort = Effort {
        pairs: 7,
        sample: Duration::from_millis(100),
        is_quick: false,
    };

    /// An arm that takes `each` for each message, by its own account, and notes its turns.
    fn arm(name: &'static str, each: Duration, turns: &Rc<RefCell<String>>) -> Arm {
        let turns = Rc::clone(turns);
        Arm::new(name, (1, 1_000_000), move |count| {
            turns.borrow_mut().push_str(name);
            Ok(Figures::throughput(count, each * u32::try_from(count)?))
        })
    }

    #[test]
    fn arms_take_turns_and_the_ratio_is_that_of_the_pairs() {
        let turns = Rc::default();
        let row = Row {
            arms: vec![
                arm("a", Duration::from_micros(2), &turns),
                arm("b", Duration::from_micros(1), &turns),
            ],
            lines: vec![
                Line::ratio("b to a", Metric::Rate, "b", "a").at_least(1.9),
                Line::ratio("b to a", Metric::Each, "b", "a").at_most(0.4),
            ],
            ..Row::default()
        };
        let report = run("x", "a row", row, EFFORT).unwrap();
        assert!(
            turns.borrow().ends_with("abbaabbaabbaab"),
            "{}",
            turns.borrow()
        );
        let [faster, time] = &report.lines[..] else {
            panic!("two lines");
        };
        assert_eq!(faster.values.len(), 7);
        assert!((faster.quartiles.unwrap().median - 2.0).abs() < 1e-6);
        assert_eq!(faster.verdict, Some(Verdict::Met));
        assert_eq!(time.verdict, Some(Verdict::Missed), "half is more than 0.4");
    }

    #[test]
    fn a_measurement_is_as_long_as_asked_for() {
        let turns = Rc::default();
        let mut slow = arm("s", Duration::from_micros(10), &turns);
        assert_eq!(size(&mut slow, EFFORT).unwrap(), 10_000);
        slow.bounds = (1, 50);
        assert_eq!(size(&mut slow, EFFORT).unwrap(), 50);
        slow.bounds = (20_000, 50_000);
        assert_eq!(size(&mut slow, EFFORT).unwrap(), 20_000);
    }

    #[test]
    fn a_line_without_its_baseline_is_inconclusive_and_says_what_is_missing() {
        let turns = Rc::default();
        let mut line = Line::ratio("a to none", Metric::Rate, "a", "none").at_least(1.0);
        line.against = Against::Missing("another build");
        let row = Row {
            arms: vec![arm("a", Duration::from_micros(2), &turns)],
            lines: vec![
                line,
                Line {
                    subject: "none",
                    ..line
                },
            ],
            ..Row::default()
        };
        let report = run("x", "a row", row, EFFORT).unwrap();
        assert_eq!(report.lines[0].verdict, Some(Verdict::Inconclusive));
        assert_eq!(report.lines[1].verdict, Some(Verdict::Inconclusive));
        assert!(report.lines[1].subject_samples.is_empty());
        assert_eq!(report.lines[0].missing.as_deref(), Some("another build"));
        assert_eq!(report.lines[0].shown, None);
    }
}
