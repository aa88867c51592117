//! The frame of a suite: a program that breaks something at length and counts what held. Its first line says how it can be
//! repeated, its last one how much held; between them stand its figures. What a suite does is its own affair.

use std::any::Any;
use std::error::Error;
use std::fmt::{self, Display};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::limits::FAILURES_TOLD;
use crate::{Ledger, Scale, Seed};

/// How many expectations held, how many did not, and how many could not be looked at.
///
/// Its text is the last line of a suite, from which whoever started it learns what came of it.
///
/// ```
/// use hyperactor_testkit::SuiteCounts;
///
/// let counts: SuiteCounts = "37 passed, 2 failed, 1 skipped".parse()?;
/// assert_eq!((counts.passed, counts.failed, counts.skipped), (37, 2, 1));
/// # Ok::<(), hyperactor_testkit::SuiteCountsError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SuiteCounts {
    /// Held.
    pub passed: u64,
    /// Did not hold.
    pub failed: u64,
    /// Could not be looked at, for want of something that the machine lacks.
    pub skipped: u64,
}

/// A line that is not the last one of a suite.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is no closing line: expected `N passed, N failed, N skipped`")]
pub struct SuiteCountsError(String);

impl Display for SuiteCounts {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            passed,
            failed,
            skipped,
        } = self;
        write!(to, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

impl FromStr for SuiteCounts {
    type Err = SuiteCountsError;

    fn from_str(line: &str) -> Result<Self, SuiteCountsError> {
        let mut parts = line.split(", ");
        let mut number = |word: &str| {
            let digits = parts.next()?.strip_suffix(word)?.strip_suffix(' ')?;
            digits.parse().ok()
        };
        match [number("passed"), number("failed"), number("skipped")] {
            [Some(passed), Some(failed), Some(skipped)] if parts.next().is_none() => Ok(Self {
                passed,
                failed,
                skipped,
            }),
            _ => Err(SuiteCountsError(line.to_owned())),
        }
    }
}

/// What came of a suite, printed as it is found.
///
/// ```
/// use hyperactor_testkit::SuiteReport;
///
/// let mut report = SuiteReport::default();
/// report.figure("messages", 1_000);
/// report.check("each has one outcome", true, "");
/// report.at_least("connections cut", 0, 10);
/// assert_eq!(report.counts().to_string(), "1 passed, 1 failed, 0 skipped");
/// ```
///
/// # Bounds
///
/// At most [`FAILURES_TOLD`] failures are printed in full; all are counted.
#[derive(Debug, Default)]
pub struct SuiteReport {
    counts: SuiteCounts,
    tells_all: bool,
}

impl SuiteReport {
    /// A report that prints each expectation that held, too: for suites that have few.
    #[must_use]
    pub fn telling_all() -> Self {
        Self {
            tells_all: true,
            ..Self::default()
        }
    }

    /// How much held so far.
    #[must_use]
    pub fn counts(&self) -> SuiteCounts {
        self.counts
    }

    /// Prints a number that is not judged.
    pub fn figure(&self, name: &str, value: impl Display) {
        println!("        {name:<58} {value}");
    }

    /// Judges one expectation; what was seen instead is printed when it is not met.
    pub fn check(&mut self, what: &str, holds: bool, seen: impl Display) {
        if holds {
            self.counts.passed += 1;
            if self.tells_all {
                println!("ok      {what}");
            }
            return;
        }
        self.counts.failed += 1;
        if self.counts.failed <= FAILURES_TOLD {
            println!("FAILED  {what}: {seen}");
        }
    }

    /// Says what could not be looked at, and why.
    pub fn skip(&mut self, what: &str, why: impl Display) {
        self.counts.skipped += 1;
        println!("SKIPPED {what}: {why}");
    }

    /// A count that shows that something really took place.
    pub fn at_least(&mut self, name: &str, seen: u64, minimum: u64) {
        let figure = format!("{seen} (at least {minimum})");
        self.judged(name, seen >= minimum, &figure, "it hardly took place");
    }

    /// A count or size that has a limit.
    pub fn at_most(&mut self, name: &str, value: u64, limit: u64) {
        let figure = format!("{value} (at most {limit})");
        self.judged(name, value <= limit, &figure, "beyond the limit");
    }

    /// A time that has a limit.
    pub fn within(&mut self, name: &str, took: Duration, limit: Duration) {
        let figure = format!("{took:.1?} (at most {limit:?})");
        self.judged(name, took <= limit, &figure, "it took too long");
    }

    /// Times of the same kind of thing, of which there has to be one. Half of them keep to the aim, whatever else the machine
    /// does meanwhile; the longest may take `longest` times as long. That is to be far from a time that passed because of a
    /// fault: a timeout, a retry.
    pub fn times(&mut self, name: &str, times: &[Duration], aim: Duration, longest: u32) {
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        let Some(&last) = sorted.last() else {
            return self.check(name, false, "nothing was measured");
        };
        let median = sorted[sorted.len() / 2];
        let p99 = sorted[(sorted.len() * 99 / 100).min(sorted.len() - 1)];
        self.figure(
            name,
            format!(
                "median {median:.1?}, 99 of 100 {p99:.1?}, longest {last:.1?} of {}",
                sorted.len()
            ),
        );
        self.within(&format!("{name}: median"), median, aim);
        self.within(&format!("{name}: longest"), last, aim * longest);
    }

    /// Judges a ledger: what is wrong with it is named in the failure.
    pub fn judge(&mut self, what: &str, ledger: &Ledger) {
        let verdict = ledger.verdict();
        self.check(what, verdict.is_clean(), &verdict);
    }

    /// Adds what a part of the suite found, which has printed it already.
    pub fn add(&mut self, part: SuiteCounts) {
        self.counts.passed += part.passed;
        self.counts.failed += part.failed;
        self.counts.skipped += part.skipped;
    }

    /// A judged number is printed whether it holds or not.
    fn judged(&mut self, name: &str, holds: bool, figure: &str, fault: &str) {
        if holds && !self.tells_all {
            self.figure(name, figure);
        }
        self.check(&format!("{name:<58} {figure}"), holds, fault);
    }
}

/// Runs a suite between its first line and its last ones; fails unless everything held.
///
/// That the work came to its end is an expectation of its own: an error or a panic in it is a failure, after which the figures
/// that were found still stand. Where something failed, the arguments that repeat the run stand before the last line.
///
/// ```
/// use hyperactor_testkit::{Scale, Seed, SuiteReport, run_suite};
///
/// let report = SuiteReport::default();
/// let ended = run_suite("sums", Seed::new(7), Scale::FULL, report, |report| {
///     report.check("two and two", 2 + 2 == 4, "the world has changed");
///     Ok(())
/// });
/// assert_eq!(ended, std::process::ExitCode::SUCCESS);
/// ```
pub fn run_suite(
    title: &str,
    seed: Seed,
    scale: Scale,
    mut report: SuiteReport,
    work: impl FnOnce(&mut SuiteReport) -> Result<(), Box<dyn Error>>,
) -> ExitCode {
    println!("== {title}: seed {seed}, scale {scale} %");
    let started = Instant::now();
    let ended = catch_unwind(AssertUnwindSafe(|| work(&mut report)));
    let fault = match &ended {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(panic) => Some(format!("it panicked: {}", said(panic.as_ref()))),
    };
    report.check(
        "the suite ran to its end",
        fault.is_none(),
        fault.unwrap_or_default(),
    );
    report.figure("seconds", format!("{:.1}", started.elapsed().as_secs_f64()));
    let counts = report.counts();
    if counts.failed > 0 {
        println!("to repeat: --seed {seed} --scale {scale}");
    }
    println!("{counts}");
    if counts.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The message of a panic, which `panic!` and the macros built on it make one of these two.
fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("it did not say why")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(work: impl FnOnce(&mut SuiteReport) -> Result<(), Box<dyn Error>>) -> ExitCode {
        run_suite(
            "this",
            Seed::new(1),
            Scale::FULL,
            SuiteReport::default(),
            work,
        )
    }

    #[test]
    fn the_last_line_reads_as_it_prints() {
        let counts = SuiteCounts {
            passed: 37,
            failed: 2,
            skipped: 1,
        };
        assert_eq!(counts.to_string().parse(), Ok(counts));
        for other in [
            "",
            "37 passed",
            "1 passed, 2 failed",
            "x passed, 2 failed, 0 skipped",
            "1 passed, 2 failed, 3 skipped, 4 lost",
            "ok      1 passed, 2 failed, 3 skipped",
        ] {
            assert!(other.parse::<SuiteCounts>().is_err(), "{other}");
        }
    }

    #[test]
    fn an_error_a_panic_and_a_failed_check_each_fail_the_suite() {
        assert_eq!(run(|_| Ok(())), ExitCode::SUCCESS);
        assert_eq!(run(|_| Err("no disk".into())), ExitCode::FAILURE);
        assert_eq!(run(|_| panic!("on purpose")), ExitCode::FAILURE);
        let checked = run(|report| {
            report.check("never", false, "seen");
            Ok(())
        });
        assert_eq!(checked, ExitCode::FAILURE);
    }

    #[test]
    fn what_was_skipped_fails_nothing_and_is_counted() {
        let mut report = SuiteReport::default();
        report.skip("control groups", "there are none");
        let mut whole = SuiteReport::telling_all();
        whole.add(report.counts());
        assert_eq!(whole.counts().to_string(), "0 passed, 0 failed, 1 skipped");
    }

    #[test]
    fn half_of_the_times_keep_to_the_aim_and_the_longest_to_its_multiple() {
        let seconds =
            |all: &[u64]| -> Vec<_> { all.iter().map(|s| Duration::from_secs(*s)).collect() };
        let failed = |times: &[Duration]| {
            let mut report = SuiteReport::default();
            report.times("waits", times, Duration::from_secs(2), 3);
            report.counts().failed
        };
        assert_eq!(failed(&seconds(&[1, 6, 2])), 0);
        assert_eq!(failed(&seconds(&[1, 7, 2])), 1);
        assert_eq!(failed(&seconds(&[3, 3, 1])), 1);
        assert_eq!(failed(&[]), 1);
    }

    #[test]
    fn numbers_at_their_limit_hold() {
        let mut report = SuiteReport::default();
        report.at_least("cuts", 5, 5);
        report.at_most("bytes", 5, 5);
        report.within("wait", Duration::from_secs(5), Duration::from_secs(5));
        assert_eq!(report.counts().to_string(), "3 passed, 0 failed, 0 skipped");
        report.at_least("cuts", 4, 5);
        report.at_most("bytes", 6, 5);
        report.within("wait", Duration::from_secs(6), Duration::from_secs(5));
        assert_eq!(report.counts().to_string(), "3 passed, 3 failed, 0 skipped");
    }
}
