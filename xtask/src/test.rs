//! All tests: with cargo-nextest where it is installed, else with libtest, and the documentation's
//! examples with rustdoc. Both runners get the same list of targets.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;

use crate::counts::Counts;
use crate::it::SUITES;
use crate::shell;
use crate::workspace::Workspace;

/// The longest that all tests may take, their build included, before they count as hung.
const LIMIT: Duration = Duration::from_secs(25 * 60);

#[derive(Args)]
pub(crate) struct Arguments {
    /// Runs only tests whose name contains this text; leaves the documentation's examples out.
    filter: Option<String>,
    /// Uses libtest even where cargo-nextest is installed.
    #[arg(long)]
    no_nextest: bool,
}

/// Which targets a run covers, and how.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    targets: Vec<String>,
    pub(crate) filter: Option<String>,
    pub(crate) one_at_a_time: bool,
    pub(crate) nextest: bool,
}

impl Selection {
    /// The named test binaries and nothing else.
    pub(crate) fn binaries(names: impl Iterator<Item = String>) -> Self {
        Self {
            targets: names.flat_map(|name| ["--test".to_owned(), name]).collect(),
            filter: None,
            one_at_a_time: false,
            nextest: has_nextest(),
        }
    }

    /// Every library, program and test binary, save the integration suites.
    pub(crate) fn all_but_suites(workspace: &Workspace) -> Self {
        let ordinary = workspace
            .targets("test")
            .into_iter()
            .filter(|name| SUITES.iter().all(|suite| suite.binary != *name))
            .map(str::to_owned);
        let mut selection = Self::binaries(ordinary);
        selection
            .targets
            .extend(["--lib", "--bins"].map(str::to_owned));
        selection
    }

    /// The command that runs this selection. Always over the whole workspace: with one set of features
    /// nothing is built twice.
    fn command(&self) -> Command {
        let mut command = shell::cargo();
        if self.nextest {
            command.args(["nextest", "run", "--workspace", "--no-fail-fast"]);
            command.args(["--no-tests", "pass"]);
        } else {
            command.args(["test", "--workspace", "--no-fail-fast"]);
        }
        command.args(&self.targets);
        if self.nextest && self.one_at_a_time {
            command.args(["--test-threads", "1"]);
        }
        command.args(&self.filter);
        if !self.nextest && self.one_at_a_time {
            command.args(["--", "--test-threads", "1"]);
        }
        command
    }
}

/// Runs all tests and closes with the line of counts.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let workspace = Workspace::load()?;
    let mut selection = Selection::all_but_suites(&workspace);
    selection.filter.clone_from(&arguments.filter);
    let mut suites = Selection::binaries(
        SUITES
            .iter()
            .filter(|suite| workspace.has_target(suite.package, "test", suite.binary))
            .map(|suite| suite.binary.to_owned()),
    );
    suites.filter.clone_from(&arguments.filter);
    suites.one_at_a_time = true;
    if arguments.no_nextest {
        selection.nextest = false;
        suites.nextest = false;
    }

    let mut counts = run_selection(&selection, LIMIT)?;
    if !suites.targets.is_empty() {
        counts += run_selection(&suites, LIMIT)?;
    }
    if arguments.filter.is_none() {
        counts += run_doctests()?;
    }
    close(counts, arguments.filter.is_some())
}

/// Runs a selection with the runner that it names.
pub(crate) fn run_selection(selection: &Selection, limit: Duration) -> Result<Counts> {
    let read = if selection.nextest {
        Counts::of_nextest
    } else {
        Counts::of_libtest
    };
    counted(&mut selection.command(), limit, read)
}

/// Runs the examples in the documentation of every library.
pub(crate) fn run_doctests() -> Result<Counts> {
    counted(
        shell::cargo().args(["test", "--workspace", "--no-fail-fast", "--doc"]),
        LIMIT,
        Counts::of_libtest,
    )
}

/// Prints the closing line; fails if a test failed, or if none ran.
pub(crate) fn close(counts: Counts, filtered: bool) -> Result<()> {
    println!("{counts}");
    if counts.failed > 0 {
        // A run that does not build, or is ended early, counts as one failed test.
        bail!("{} of {} failed", counts.failed, counts.total());
    }
    if counts.passed == 0 {
        let why = if filtered {
            ": does any name contain that text?"
        } else {
            ""
        };
        bail!("no test ran{why}");
    }
    Ok(())
}

fn counted(command: &mut Command, limit: Duration, read: fn(&str) -> Counts) -> Result<Counts> {
    let mut counts = Counts::default();
    let status = shell::watch(command, limit, |line| counts += read(line))?;
    Ok(counts.with_exit(status.success()))
}

fn has_nextest() -> bool {
    shell::cargo()
        .args(["nextest", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(nextest: bool) -> Selection {
        let workspace = Workspace::parse(
            r#"{"packages":[{"name":"hyperactor","manifest_path":"Cargo.toml","dependencies":[],"targets":[
                {"name":"ordinary","kind":["test"]},{"name":"it_seed","kind":["test"]}]}]}"#,
        )
        .unwrap();
        Selection {
            nextest,
            ..Selection::all_but_suites(&workspace)
        }
    }

    #[test]
    fn suites_are_left_to_their_own_run() {
        let line = shell::line(&selection(false).command());
        assert!(
            line.contains("--test ordinary") && line.contains("--lib"),
            "{line}"
        );
        assert!(!line.contains("it_seed"), "{line}");
    }

    #[test]
    fn both_runners_get_the_same_targets() {
        for nextest in [true, false] {
            let mut selection = selection(nextest);
            selection.filter = Some("word".to_owned());
            selection.one_at_a_time = true;
            let line = shell::line(&selection.command());
            assert!(line.contains("--workspace --no-fail-fast"), "{line}");
            assert!(line.contains("--lib --bins"), "{line}");
            assert!(
                line.contains("--test-threads 1") && line.contains("word"),
                "{line}"
            );
        }
    }

    #[test]
    fn a_run_without_tests_is_a_failure() {
        assert!(close(Counts::default(), false).is_err());
        assert!(close(Counts::one(true), false).is_ok());
        assert!(close(Counts::one(true) + Counts::one(false), false).is_err());
    }
}
