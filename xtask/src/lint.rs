//! Formatting, clippy and the documentation build. A warning is a failure.

use anyhow::Result;

use crate::shell;

/// Members whose documentation is left out: the program's binary would be written to the same place as
/// the facade's library, and nobody reads the documentation of this program.
const UNDOCUMENTED: [&str; 3] = ["hyperactor-cli", "hyperactor-benches", "xtask"];

/// Sets of features that no other build covers: what a user may ask for must compile.
const FEATURE_SETS: &[(&str, &[&str])] = &[
    ("hyperactor-refs", &["--no-default-features"]),
    (
        "hyperactor-refs",
        &["--no-default-features", "--features", "proptest"],
    ),
    ("hyperactor-refs", &["--all-features"]),
    // The whole workspace at once has the feature `link-registration`.
    ("hyperactor-proc", &["--all-targets"]),
];

/// Formats all members, or only checks that they are.
pub(crate) fn fmt(check: bool) -> Result<()> {
    let mut command = shell::cargo();
    command.args(["fmt", "--all"]);
    if check {
        command.arg("--check");
    }
    shell::run(&mut command)
}

/// Everything that reads the sources without running them, save the format check.
pub(crate) fn sources() -> Result<()> {
    shell::run(shell::cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    for (package, features) in FEATURE_SETS {
        shell::run(
            shell::cargo()
                .args(["check", "--package", package])
                .args(*features),
        )?;
    }
    docs(false)
}

/// What `cargo xtask lint` runs.
pub(crate) fn all() -> Result<()> {
    fmt(true)?;
    sources()
}

/// Builds the documentation of the libraries.
pub(crate) fn docs(open: bool) -> Result<()> {
    let mut command = shell::cargo();
    command.args(["doc", "--workspace", "--no-deps"]);
    for package in UNDOCUMENTED {
        command.args(["--exclude", package]);
    }
    if open {
        command.arg("--open");
    }
    shell::run(command.env("RUSTDOCFLAGS", "-D warnings"))
}
