//! Hosts by name: serving one, and every command that talks to a running one through its service proc.
//!
//! This file says which command is which and how results are printed; each has a module of its own.

mod address;
mod doctor;
mod ends;
mod listing;
mod probe;
mod route;
mod serve;
mod spawn;
mod tool;

use std::fmt::Display;

use serde::Serialize;

use self::tool::with_tool;
use crate::args::{HostCommand, ToolCommand};
use crate::failure::Failure;
use crate::signals::Signals;

/// What a command has to show: one JSON object, or a text.
pub(crate) trait Shown: Serialize + Display {}

impl<T: Serialize + Display> Shown for T {}

/// What is printed at the end of a command, and whether it is what was hoped for.
pub(crate) struct Shows {
    pub(crate) text: String,
    pub(crate) failure: Option<Failure>,
}

impl Shows {
    fn new(shown: &impl Shown, json: bool) -> Result<Self, Failure> {
        let text = if json {
            serde_json::to_string(shown).map_err(|error| Failure::Job(error.into()))?
        } else {
            shown.to_string()
        };
        Ok(Self {
            text,
            failure: None,
        })
    }

    fn with_failure(mut self, failure: Option<Failure>) -> Self {
        self.failure = failure;
        self
    }
}

/// Runs a command about hosts themselves.
pub(crate) async fn run_host(
    command: &HostCommand,
    signals: &mut Signals,
) -> Result<Shows, Failure> {
    match command {
        HostCommand::Serve(args) => serve::run(args, signals).await,
        HostCommand::Spawn(args) => {
            let work = with_tool(&args.target, async |tool| spawn::run(tool, args).await);
            signals.unless(work).await
        }
    }
}

/// Runs a command that asks a running host, or looks at this machine.
pub(crate) async fn run_tool(
    command: &ToolCommand,
    signals: &mut Signals,
) -> Result<Shows, Failure> {
    if let ToolCommand::Doctor(target) = command {
        return signals.unless(doctor::run(target)).await;
    }
    let work = with_tool(command.target(), async |tool| match command {
        ToolCommand::Ps(target) => listing::ps(tool, target).await,
        ToolCommand::Tree(target) => listing::tree(tool, target).await,
        ToolCommand::Stop(args) => ends::stop(tool, args).await,
        ToolCommand::Kill(args) => ends::kill(tool, args).await,
        ToolCommand::Logs(args) => listing::logs(tool, args).await,
        ToolCommand::Ping(args) => probe::ping(tool, args).await,
        ToolCommand::Route(args) => route::run(tool, args).await,
        ToolCommand::Trace(args) => probe::trace(tool, args).await,
        ToolCommand::Doctor(target) => doctor::run(target).await,
    });
    signals.unless(work).await
}
