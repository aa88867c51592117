//! Counting tests from what the test runners print: libtest's result lines, nextest's summary, the last line of a suite.

use std::fmt;
use std::ops::{Add, AddAssign};

/// How many tests passed, failed and were left out.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Counts {
    /// One check that either passed or failed, such as a demo run.
    pub(crate) fn one(passed: bool) -> Self {
        Self {
            passed: u64::from(passed),
            failed: u64::from(!passed),
            skipped: 0,
        }
    }

    /// Reads one line of libtest; a line that reports no counts adds nothing.
    pub(crate) fn of_libtest(line: &str) -> Self {
        let line = without_colours(line);
        // "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; …"
        let Some(rest) = line.trim().strip_prefix("test result:") else {
            return Self::default();
        };
        Self {
            passed: number_before(rest, "passed"),
            failed: number_before(rest, "failed"),
            skipped: number_before(rest, "ignored"),
        }
    }

    /// Reads one line of nextest; a line that reports no counts adds nothing. Of a failed test nextest shows
    /// all that it printed, libtest's result line too: that one is not counted here.
    pub(crate) fn of_nextest(line: &str) -> Self {
        let line = without_colours(line);
        // "Summary [   0.5s] 5 tests run: 3 passed (1 slow), 1 failed, 1 timed out, 2 skipped"
        match line.trim().strip_prefix("Summary [") {
            Some(rest) if rest.contains("run:") => Self {
                passed: number_before(rest, "passed"),
                failed: number_before(rest, "failed")
                    + number_before(rest, "exec failed")
                    + number_before(rest, "timed out"),
                skipped: number_before(rest, "skipped"),
            },
            _ => Self::default(),
        }
    }

    /// Reads the last line of a suite, `N passed, N failed, N skipped`; any other line is none.
    pub(crate) fn of_suite(line: &str) -> Option<Self> {
        let (passed, rest) = line.split_once(" passed, ")?;
        let (failed, rest) = rest.split_once(" failed, ")?;
        Some(Self {
            passed: passed.parse().ok()?,
            failed: failed.parse().ok()?,
            skipped: rest.strip_suffix(" skipped")?.parse().ok()?,
        })
    }

    /// A runner that failed without a failed test (it did not compile, it was killed) counts as one.
    pub(crate) fn with_exit(mut self, success: bool) -> Self {
        if !success {
            self.failed = self.failed.max(1);
        }
        self
    }

    pub(crate) fn total(self) -> u64 {
        self.passed + self.failed + self.skipped
    }
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            to,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

/// The number that stands right before `word` in "3 passed; 0 failed" or "3 passed (1 slow), 1 timed out".
fn number_before(text: &str, word: &str) -> u64 {
    text.split([';', ',', ':', '.'])
        .filter_map(|part| {
            let part = part.split(" (").next().unwrap_or(part).trim();
            let (number, what) = part.split_once(' ')?;
            (what == word).then(|| number.parse::<u64>().ok()).flatten()
        })
        .sum()
}

/// Drops the escape sequences that colour a terminal.
fn without_colours(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            for inner in characters.by_ref() {
                if inner.is_ascii_alphabetic() {
                    break;
                }
            }
        } else {
            text.push(character);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(read: fn(&str) -> Counts, line: &str, passed: u64, failed: u64, skipped: u64) {
        assert_eq!(
            read(line),
            Counts {
                passed,
                failed,
                skipped
            },
            "{line}"
        );
    }

    #[test]
    fn the_last_line_of_a_suite_is_read_and_others_are_not() {
        let counts = Counts::of_suite("37 passed, 2 failed, 1 skipped").unwrap();
        assert_eq!((counts.passed, counts.failed, counts.skipped), (37, 2, 1));
        for other in [
            "",
            "37 passed",
            "x passed, 2 failed, 0 skipped",
            "1 passed, 2 failed",
            "ok  2 failed",
        ] {
            assert_eq!(Counts::of_suite(other), None, "{other}");
        }
    }

    #[test]
    fn libtest_lines_are_counted() {
        check(
            Counts::of_libtest,
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s",
            3,
            0,
            1,
        );
        check(
            Counts::of_libtest,
            "test result: FAILED. 30 passed; 12 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.2s",
            30,
            12,
            0,
        );
    }

    #[test]
    fn nextest_summaries_are_counted() {
        check(
            Counts::of_nextest,
            "     Summary [   0.012s] 3 tests run: 3 passed, 1 skipped",
            3,
            0,
            1,
        );
        check(
            Counts::of_nextest,
            "     Summary [  12.0s] 1 test run: 1 passed, 0 skipped",
            1,
            0,
            0,
        );
        check(
            Counts::of_nextest,
            "     Summary [   4.5s] 7/9 tests run: 4 passed (1 slow, 1 leaky), 1 failed, 1 timed out, 1 exec failed, 2 skipped",
            4,
            3,
            2,
        );
        check(
            Counts::of_nextest,
            "\u{1b}[32;1m     Summary\u{1b}[0m [   0.012s] \u{1b}[1m3\u{1b}[0m tests run: \u{1b}[1m3\u{1b}[0m \u{1b}[32;1mpassed\u{1b}[0m, \u{1b}[1m1\u{1b}[0m skipped",
            3,
            0,
            1,
        );
    }

    #[test]
    fn other_lines_count_nothing() {
        for line in [
            "test counts::tests::x ... ok",
            "5 passed",
            "Summary [of the talk] 5 passed",
            "",
        ] {
            check(Counts::of_libtest, line, 0, 0, 0);
            check(Counts::of_nextest, line, 0, 0, 0);
        }
    }

    #[test]
    fn what_a_failed_test_printed_is_not_counted_again() {
        let line =
            "    test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 8 filtered out";
        check(Counts::of_nextest, line, 0, 0, 0);
    }

    #[test]
    fn a_runner_that_fails_without_a_failed_test_counts_as_a_failure() {
        assert_eq!(Counts::default().with_exit(false).failed, 1);
        assert_eq!(Counts::one(false).with_exit(false).failed, 1);
        assert_eq!(Counts::one(true).with_exit(true), Counts::one(true));
    }

    #[test]
    fn counts_print_as_one_plain_line() {
        let sum = Counts::one(true)
            + Counts {
                passed: 2,
                failed: 1,
                skipped: 4,
            };
        assert_eq!(sum.to_string(), "3 passed, 1 failed, 4 skipped");
        assert_eq!(sum.total(), 8);
    }
}
