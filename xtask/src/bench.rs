//! The benchmarks: one criterion file a layer, in `benches/`, and the comparison with what the machine can do.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};

use crate::flame;
use crate::shell;
use crate::workspace::Workspace;

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
    /// The layer: a file of `benches/benches/` without its ending. All of them if left out.
    layer: Option<String>,
    /// Runs only benchmarks whose name contains this text.
    filter: Option<String>,
}

#[derive(Subcommand)]
enum What {
    /// Measures baseline and subject in turns, in one run, and says which targets are met; docs/performance.md says how to
    /// read it.
    Compare(CompareArguments),
    /// Draws where the time of the direct path goes: a flame graph of two processes, one of which sends the messages of row b1
    /// to the other. Needs `perf` and `setarch`.
    Flame(FlameArguments),
}

#[derive(Args)]
struct FlameArguments {
    /// The picture.
    #[arg(default_value = "docs/performance/direct.svg")]
    svg: PathBuf,
    /// How many messages are sent.
    #[arg(long, default_value_t = 3_000_000)]
    messages: u64,
}

#[derive(Args)]
struct CompareArguments {
    /// The rows to measure: a1, b3, memory, … All if left out; an unknown one lists them.
    rows: Vec<String>,
    /// Pairs of a line; fewer than seven prove nothing.
    #[arg(long)]
    pairs: Option<u16>,
    /// Milliseconds that one measurement should take.
    #[arg(long)]
    sample_ms: Option<u64>,
    /// Writes all that was measured.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes the table.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Measures throughput and latency against the size of messages, too, and draws them.
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,
    /// Without optimisation, and as little as shows that everything works; proves nothing.
    #[arg(long)]
    quick: bool,
    /// Builds this revision, too, for the rows that compare with another build (b5: one without spinning).
    #[arg(long, value_name = "REVISION")]
    against: Option<String>,
    /// Builds other libraries, too (ractor, ractor_cluster, kameo and its remote actors, actix, xtra, tonic, zeromq), for the rows that are compared with them.
    #[arg(long)]
    peers: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.what {
        Some(What::Compare(arguments)) => return compare(arguments),
        Some(What::Flame(arguments)) => return direct_flames(arguments),
        None => {}
    }
    let workspace = Workspace::load()?;
    let layers = workspace.targets("bench");
    let mut command = shell::cargo();
    command.args(["bench", "--package", "hyperactor-benches"]);
    match &arguments.layer {
        Some(layer) if layers.contains(&layer.as_str()) => {
            command.args(["--bench", layer]);
        }
        Some(layer) => {
            bail!(
                "no benchmarks of a layer `{layer}`; there are: {}",
                layers.join(", ")
            );
        }
        None => {
            command.arg("--benches");
        }
    }
    if let Some(filter) = &arguments.filter {
        command.args(["--", filter]);
    }
    shell::run(&mut command)
}

/// Builds the comparison and the program whose idle proc it weighs, and runs it where the caller is.
fn compare(arguments: &CompareArguments) -> Result<()> {
    let target = Workspace::load()?.target_directory;
    let mut build = shell::cargo();
    build.args(["build", "--bins"]);
    build.args(["--package", "hyperactor-benches"]);
    build.args(["--package", "hyperactor-cli"]);
    let profile = if arguments.quick {
        "debug"
    } else {
        build.arg("--release");
        "release"
    };
    shell::run(&mut build)?;
    let built = target.join(profile);
    let mut command = Command::new(built.join("compare"));
    command.args(&arguments.rows);
    command.arg("--demo").arg(built.join("hyperactor"));
    for (name, number) in [
        ("--pairs", arguments.pairs.map(u64::from)),
        ("--sample-ms", arguments.sample_ms),
    ] {
        if let Some(number) = number {
            command.args([name, &number.to_string()]);
        }
    }
    for (name, path) in [
        ("--json", &arguments.json),
        ("--markdown", &arguments.markdown),
        ("--svg", &arguments.svg),
    ] {
        if let Some(path) = path {
            command.arg(name).arg(path);
        }
    }
    if arguments.quick {
        command.arg("--quick");
    }
    if let Some(revision) = &arguments.against {
        let folder = target.join("compare");
        command
            .arg("--against")
            .arg(other_build(revision, &folder)?);
    }
    if arguments.peers {
        command.arg("--peers").arg(peers(&target.join("peers"))?);
    }
    shell::run(&mut command)
}

/// Builds the comparison, has it send over the direct path under the eyes of `perf`, and draws what was seen.
fn direct_flames(arguments: &FlameArguments) -> Result<()> {
    let target = Workspace::load()?.target_directory;
    let mut build = shell::cargo();
    build.args(["build", "--release", "--package", "hyperactor-benches"]);
    shell::run(build.args(["--bin", "compare"]))?;
    let mut stream = Command::new(target.join("release/compare"));
    stream.args(["--stream-direct", &arguments.messages.to_string()]);
    let title = "Direct path: small messages from one process to another";
    flame::record(&stream, &target.join("flame"), title, &arguments.svg)
}

/// The programs of other libraries. They are no members of the workspace, and nothing else builds them. Each is built by a call
/// of its own, so that one does not get the features that another one's dependencies want.
fn peers(folder: &Path) -> Result<PathBuf> {
    for package in [
        "hyperactor-peers",
        "hyperactor-peers-cluster",
        "hyperactor-peers-kameo-remote",
    ] {
        let mut build = shell::cargo();
        build.args(["build", "--release", "--locked", "--package", package]);
        build.arg("--manifest-path");
        build.arg(crate::workspace::root().join("benches/peers/Cargo.toml"));
        shell::run(build.arg("--target-dir").arg(folder))?;
    }
    Ok(folder.join("release/hyperactor-peers"))
}

/// The comparison as it was at another revision, built from a copy of its sources.
fn other_build(revision: &str, folder: &Path) -> Result<PathBuf> {
    let mut resolve = Command::new("git");
    resolve.current_dir(crate::workspace::root());
    resolve.args(["rev-parse", "--verify", "--short=12"]);
    resolve.arg(format!("{revision}^{{commit}}"));
    let commit = shell::capture(&mut resolve)
        .with_context(|| format!("`{revision}` is no revision"))?
        .trim()
        .to_owned();
    let sources = folder.join(&commit);
    if !sources.join("Cargo.toml").is_file() {
        std::fs::create_dir_all(&sources).context("a folder for the other revision")?;
        let archive = folder.join(format!("{commit}.tar"));
        let mut pack = Command::new("git");
        pack.current_dir(crate::workspace::root());
        pack.args(["archive", "--format=tar", "--output"]);
        shell::run(pack.arg(&archive).arg(&commit))?;
        let mut unpack = Command::new("tar");
        unpack.arg("--extract").arg("--file").arg(&archive);
        shell::run(unpack.arg("--directory").arg(&sources))?;
    }
    ensure!(
        sources.join("benches/src/bin/compare.rs").is_file(),
        "the revision {commit} has no comparison to compare with"
    );
    let built = folder.join("build");
    let mut build = shell::cargo();
    build.args(["build", "--release", "--package", "hyperactor-benches"]);
    build.args(["--bin", "compare", "--manifest-path"]);
    build.arg(sources.join("Cargo.toml"));
    shell::run(build.arg("--target-dir").arg(&built))?;
    // Kept under a name of its own, since the next revision is built in the same place.
    let program = folder.join(format!("compare-{commit}"));
    std::fs::copy(built.join("release/compare"), &program).context("the other build")?;
    Ok(program)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        let words = ["bench"].into_iter().chain(line.split_whitespace());
        Ok(Cli::try_parse_from(words)?.arguments)
    }

    #[test]
    fn a_layer_and_the_comparison_are_told_apart() {
        let layer = parse("refs parse").unwrap();
        assert_eq!(layer.layer.as_deref(), Some("refs"));
        assert_eq!(layer.filter.as_deref(), Some("parse"));
        let Some(What::Compare(compare)) = parse("compare a1 b3 --pairs 11 --quick").unwrap().what
        else {
            panic!("no comparison");
        };
        assert_eq!(compare.rows, ["a1", "b3"]);
        assert_eq!((compare.pairs, compare.quick), (Some(11), true));
        assert!(parse("compare --pears 3").is_err());
    }
}
