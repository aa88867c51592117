//! A suite on each transport in a process of its own, all at the same time; their reports one after the other, and the sum of
//! their counts.

use std::process::{Child, Stdio};

use super::net::Kind;
use super::process::suite;
use super::{Context, Report};

/// Starts the suite once for each transport, and adds up what came of it.
pub(crate) fn run(name: &str, context: &Context, report: &mut Report) {
    let started: Vec<(Kind, Child)> = Kind::ALL
        .into_iter()
        .map(|kind| {
            let child = suite(name, kind, context).stdout(Stdio::piped()).spawn();
            (kind, child.unwrap())
        })
        .collect();
    for (kind, child) in started {
        // A report is far smaller than what a pipe holds: the others go on while this one is waited for.
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let (body, counts) = match text.trim_end().rsplit_once('\n') {
            Some((body, last)) => (body, closing(last)),
            None => (text.as_ref(), None),
        };
        println!("{body}");
        let (passed, failed) = counts.unwrap_or_default();
        report.passed += passed;
        report.failed += failed;
        report.check(
            &format!("{}: its process ended as it says", kind.name()),
            counts.is_some() && output.status.success() == (failed == 0),
            output.status,
        );
    }
}

/// Reads `N passed, N failed`.
fn closing(line: &str) -> Option<(u64, u64)> {
    let (passed, failed) = line.strip_suffix(" failed")?.split_once(" passed, ")?;
    Some((passed.parse().ok()?, failed.parse().ok()?))
}
