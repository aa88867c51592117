//! The integration suites: test binaries that start real processes and use real sockets.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;

use crate::counts::Counts;
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
];

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
    test::run_selection(&selection, LIMIT)
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
