//! The facade's examples: each is run, has to end in order by itself, and to print the last line that its first lines promise.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::counts::Counts;
use crate::workspace::Workspace;
use crate::{shell, test};

/// Whose examples are run: those that users copy.
const PACKAGE: &str = "hyperactor";

/// How the first lines of an example promise its last line.
const PROMISE: &str = "//! Its last line: `";

/// The longest that one example may take before it counts as hung.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Args)]
pub(crate) struct Arguments {
    /// The example's name; all of them if left out.
    name: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    test::close(run_examples(arguments.name.as_deref())?, false)
}

/// Builds and runs one example or all, and counts those that end well.
pub(crate) fn run_examples(only: Option<&str>) -> Result<Counts> {
    let workspace = Workspace::load()?;
    let package = workspace
        .packages
        .iter()
        .find(|package| package.name == PACKAGE)
        .with_context(|| format!("no member is called `{PACKAGE}`"))?;
    let all: Vec<&str> = package
        .targets
        .iter()
        .filter(|target| target.kind.iter().any(|kind| kind == "example"))
        .map(|target| target.name.as_str())
        .collect();
    let chosen: Vec<&str> = all
        .iter()
        .copied()
        .filter(|name| only.is_none_or(|only| only == *name))
        .collect();
    if chosen.is_empty() {
        bail!("no such example; there are: {}", all.join(", "));
    }
    // Over the whole workspace, as the tests are: with one set of features nothing is built twice.
    shell::run(shell::cargo().args(["build", "--workspace", "--examples"]))?;
    let mut counts = Counts::default();
    for name in chosen {
        let last_line = promise(
            &package
                .manifest_path
                .with_file_name("examples")
                .join(format!("{name}.rs")),
        )?;
        let mut last = None;
        let mut command = Command::new(
            workspace
                .target_directory
                .join("debug")
                .join("examples")
                .join(name),
        );
        let status = shell::watch(command.stdin(Stdio::null()), LIMIT, |line| {
            // What goes to standard error may come in between, or behind.
            if last.is_none() && line == last_line {
                last = Some(());
            }
        });
        let passed = match status {
            Ok(status) if status.success() && last.is_some() => true,
            Ok(status) if status.success() => {
                eprintln!("error: example `{name}` did not print the line `{last_line}`");
                false
            }
            Ok(status) => {
                eprintln!("error: example `{name}` ended with {status}");
                false
            }
            Err(error) => {
                eprintln!("error: {error:#}");
                false
            }
        };
        counts += Counts::one(passed);
    }
    Ok(counts)
}

/// The line that an example promises to end with.
fn promise(file: &Path) -> Result<String> {
    let source =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let head = source.lines().take_while(|line| line.starts_with("//!"));
    let promised = head
        .filter_map(|line| line.strip_prefix(PROMISE)?.strip_suffix("`."))
        .next();
    let Some(promised) = promised else {
        bail!(
            "{} does not say `{PROMISE}…`.` in its first lines",
            file.display()
        );
    };
    Ok(promised.to_owned())
}
