//! A suite on each transport in a process of its own, all at the same time; their reports one after the other, and the sum of
//! their counts.

use std::process::{Child, Stdio};

use super::Context;
use super::net::Kind;
use super::process::suite;
use hyperactor_testkit::{SuiteCounts, SuiteReport};

/// Starts the suite once for each transport, and adds up what came of it.
pub(crate) fn run(name: &str, context: &Context, report: &mut SuiteReport) {
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
            Some((body, last)) => (body, last.parse::<SuiteCounts>().ok()),
            None => (text.as_ref(), None),
        };
        println!("{body}");
        report.add(counts.unwrap_or_default());
        report.check(
            &format!("{}: its process ended as it says", kind.name()),
            counts.is_some_and(|counts| output.status.success() == (counts.failed == 0)),
            output.status,
        );
    }
}
