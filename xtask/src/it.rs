//! The integration suites: test binaries that start real processes and use real sockets.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::counts::Counts;
use crate::shell;
use crate::test::{self, Selection};
use crate::workspace::Workspace;

/// One suite: a test binary of one member.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Suite {
    pub(crate) name: &'static str,
    pub(crate) package: &'static str,
    /// The test binary, `tests/<binary>.rs` of the package.
    pub(crate) binary: &'static str,
    /// What a person learns from its passing.
    pub(crate) shows: &'static str,
}

/// Every suite. A new one is a line here and a test target `it_<name>` in its crate.
pub(crate) const SUITES: &[Suite] = &[
    Suite {
        name: "seed",
        package: "hyperactor",
        binary: "it_seed",
        shows: "each example of docs/seed.md runs and does what its text says",
    },
    Suite {
        name: "routes",
        package: "hyperactor-cli",
        binary: "it_routes",
        shows: "procs as processes talk directly, through the host, and after either ends",
    },
    Suite {
        name: "hosts",
        package: "hyperactor-cli",
        binary: "it_hosts",
        shows: "hosts are served, looked into and ended from the command line",
    },
    Suite {
        name: "supervision",
        package: "hyperactor",
        binary: "it_supervision",
        shows: "who is told of an end, and what is started again: in a proc, across procs, processes and hosts",
    },
    Suite {
        name: "ask",
        package: "hyperactor",
        binary: "it_ask",
        shows: "questions between procs are taken back, ended with their cause, streamed, and never wait in a circle",
    },
    Suite {
        name: "mailbox",
        package: "hyperactor",
        binary: "it_mailbox",
        shows: "full mailboxes hold back their own senders, give back what they drop, and stay flat in memory",
    },
    Suite {
        name: "bypass",
        package: "hyperactor-bootstrap",
        binary: "it_bypass",
        shows: "each row of the table of LocalProcDialer: what goes straight, what does not, and what that costs",
    },
    Suite {
        name: "multihost",
        package: "hyperactor",
        binary: "it_multihost",
        shows: "hosts on several machines: links that are cut heal, and a machine that was gone is known anew",
    },
];

/// How a line begins in which a suite says which test it leaves out, and for what lack of this machine.
const SKIPPED: &str = "SKIPPED: ";

/// The longest that a suite may take before it counts as hung.
const LIMIT: Duration = Duration::from_secs(15 * 60);

#[derive(Args)]
#[command(after_help = suites_text())]
pub(crate) struct Arguments {
    /// The suite's name, or `all`.
    suite: String,
    /// Runs only tests whose name contains this text.
    filter: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let counts = run_suites(&select(&arguments.suite)?, arguments.filter.as_deref())?;
    test::close(counts, arguments.filter.is_some())
}

/// Runs the suites in one go, so that they are built once and with the features that all tests have.
pub(crate) fn run_suites(suites: &[&Suite], filter: Option<&str>) -> Result<Counts> {
    let workspace = Workspace::load()?;
    for suite in suites {
        if !workspace.has_target(suite.package, "test", suite.binary) {
            bail!(
                "suite `{}` has no test binary `{}` in package `{}`",
                suite.name,
                suite.binary,
                suite.package
            );
        }
    }
    let mut selection = Selection::binaries(suites.iter().map(|suite| suite.binary.to_owned()));
    selection.filter = filter.map(str::to_owned);
    // What these tests measure and kill must not share its two cores with other tests' processes.
    selection.one_at_a_time = true;
    let counts = test::run_selection(&selection, LIMIT)?;
    // With a filter, what it leaves out counts as skipped, too.
    if counts.skipped > 0 && filter.is_none() {
        tell_skipped(suites)?;
    }
    Ok(counts)
}

/// Says which tests were skipped, and why. The runners keep that to themselves: a suite says it when it is listed.
fn tell_skipped(suites: &[&Suite]) -> Result<()> {
    let mut command = shell::cargo();
    command.args(["test", "--quiet", "--workspace"]);
    for suite in suites {
        command.args(["--test", suite.binary]);
    }
    command.args(["--", "--list", "--ignored"]);
    let listed = command.stdin(Stdio::null()).output();
    let listed = listed.with_context(|| format!("cannot start `{}`", shell::line(&command)))?;
    let text = String::from_utf8_lossy(&listed.stderr);
    for line in text.lines().filter(|line| line.starts_with(SKIPPED)) {
        println!("== {line}");
    }
    Ok(())
}

/// Finds the suites that a name stands for.
pub(crate) fn select(name: &str) -> Result<Vec<&'static Suite>> {
    let chosen: Vec<_> = SUITES
        .iter()
        .filter(|suite| name == "all" || suite.name == name)
        .collect();
    if chosen.is_empty() {
        bail!("no suite is called `{name}`\n{}", suites_text());
    }
    Ok(chosen)
}

fn suites_text() -> String {
    SUITES.iter().fold(
        "Suites:\n  all      every one of these".to_owned(),
        |text, suite| format!("{text}\n  {:8} {}", suite.name, suite.shows),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_stands_for_every_suite() {
        assert_eq!(select("all").unwrap().len(), SUITES.len());
    }

    #[test]
    fn a_name_stands_for_one_suite() {
        assert_eq!(select("seed").unwrap(), [&SUITES[0]]);
    }

    #[test]
    fn an_unknown_suite_is_answered_with_the_known_ones() {
        let error = select("sede").unwrap_err().to_string();
        assert!(error.contains("sede") && error.contains("seed") && error.contains("routes"));
    }

    #[test]
    fn every_binary_is_named_after_its_suite() {
        for suite in SUITES {
            assert_eq!(suite.binary, format!("it_{}", suite.name));
        }
    }
}
