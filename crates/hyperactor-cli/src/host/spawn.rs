//! `hyperactor host spawn`: a proc more on a running host.

use std::fmt;

use hyperactor::host::{OnHostLoss, ProcDescription, ProcLimits, RestartPolicy, SpawnProc};
use hyperactor::prelude::*;
use serde::Serialize;

use super::Shows;
use super::tool::Tool;
use crate::args::{Restart, SpawnArgs};
use crate::failure::Failure;
use crate::limits;
use crate::site::policy;

/// A proc that runs, as it is shown.
#[derive(Serialize)]
pub(super) struct ProcLine {
    pub(super) name: String,
    pub(super) id: String,
    pub(super) pid: Option<u32>,
    pub(super) incarnation: String,
    pub(super) addr: String,
}

impl From<&ProcDescription> for ProcLine {
    fn from(proc: &ProcDescription) -> Self {
        Self {
            name: proc.proc_id.name().to_owned(),
            id: proc.proc_id.to_string(),
            pid: proc.pid,
            incarnation: proc.incarnation.to_string(),
            addr: proc.addr.to_string(),
        }
    }
}

impl fmt::Display for ProcLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.id)?;
        match self.pid {
            Some(pid) => write!(f, " (process {pid})"),
            None => Ok(()),
        }
    }
}

pub(super) async fn run(tool: &Tool, args: &SpawnArgs) -> Result<Shows, Failure> {
    let mut bounds = ProcLimits::new().with_cpus(args.cpus.iter().copied());
    bounds.memory = args.memory;
    bounds.descriptors = args.descriptors;
    let restart = match args.restart {
        Restart::Never => RestartPolicy::never(),
        Restart::OnFailure => RestartPolicy::on_failure(),
        Restart::Always => RestartPolicy::always(),
    };
    let on_host_loss = if args.stay {
        OnHostLoss::Stay
    } else {
        OnHostLoss::End
    };
    let config = ProcConfig::new()
        .with_on_host_loss(on_host_loss)
        .with_route(policy(args.route))
        .with_limits(bounds)
        .with_restart(restart);
    let name = args.name.clone();
    let spawned = tool
        .ask_host(limits::SPAWN_DEADLINE, |reply| SpawnProc {
            name,
            config,
            reply,
        })
        .await?;
    Shows::new(&ProcLine::from(&spawned), args.target.json)
}
