//! The benchmarks: one criterion file a layer, in `benches/`.

use anyhow::{Result, bail};
use clap::Args;

use crate::shell;
use crate::workspace::Workspace;

#[derive(Args)]
pub(crate) struct Arguments {
    /// The layer: a file of `benches/benches/` without its ending. All of them if left out.
    layer: Option<String>,
    /// Runs only benchmarks whose name contains this text.
    filter: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
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
