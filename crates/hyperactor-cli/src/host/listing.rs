//! `hyperactor ps`, `tree` and `logs`: what runs on a host, and what it printed.

use std::fmt;

use futures_util::future::join_all;
use hyperactor::host::{DescribeHost, HostDescription, OutputStream, ProcLogs, ReadLogs};
use hyperactor::proc::{ListActors, ProcAgent};
use serde::Serialize;

use super::Shows;
use super::spawn::ProcLine;
use super::tool::Tool;
use crate::args::{LogsArgs, Target};
use crate::failure::Failure;
use crate::limits;

/// A host, as it is shown.
#[derive(Serialize)]
struct HostLine {
    addr: String,
    aliases: Vec<String>,
    /// The hosts that it stands behind.
    above: Vec<String>,
    /// The hosts that stand behind it.
    attached: Vec<String>,
    guests: u64,
    backend: String,
    pid: u32,
    incarnation: String,
    version: String,
    up_seconds: f64,
    procs: Vec<ProcLine>,
}

impl From<&HostDescription> for HostLine {
    fn from(host: &HostDescription) -> Self {
        Self {
            addr: host.addr.to_string(),
            aliases: host.aliases.iter().map(ToString::to_string).collect(),
            above: host.above.iter().map(ToString::to_string).collect(),
            attached: host
                .attached
                .iter()
                .map(|host| host.addr.to_string())
                .collect(),
            guests: host.guests,
            backend: host.backend.to_string(),
            pid: host.pid,
            incarnation: host.incarnation.to_string(),
            version: host.version.clone(),
            up_seconds: host.up.as_secs_f64(),
            procs: host.procs.iter().map(ProcLine::from).collect(),
        }
    }
}

impl fmt::Display for HostLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "host {} (process {}, version {}, up {:.0} s)",
            self.addr, self.pid, self.version, self.up_seconds
        )?;
        if !self.aliases.is_empty() {
            write!(f, "\nalso {}", self.aliases.join(", "))?;
        }
        if !self.above.is_empty() {
            write!(f, "\nbehind {}", self.above.join(", behind "))?;
        }
        for host in &self.attached {
            write!(f, "\nbefore {host}")?;
        }
        if self.procs.is_empty() {
            return write!(f, "\nno procs; `hyperactor host spawn NAME` starts one");
        }
        let width = self
            .procs
            .iter()
            .map(|proc| proc.name.chars().count())
            .max();
        let width = width.unwrap_or_default().max(4);
        write!(
            f,
            "\n{:width$}  {:>7}  INCARNATION       ADDRESS",
            "NAME", "PROCESS"
        )?;
        for proc in &self.procs {
            let pid = proc
                .pid
                .map_or_else(|| "-".to_owned(), |pid| pid.to_string());
            write!(
                f,
                "\n{:width$}  {pid:>7}  {:16}  {}",
                proc.name, proc.incarnation, proc.addr
            )?;
        }
        Ok(())
    }
}

pub(super) async fn ps(tool: &Tool, target: &Target) -> Result<Shows, Failure> {
    let host = tool
        .ask_host(limits::TOOL_DEADLINE, |reply| DescribeHost { reply })
        .await?;
    Shows::new(&HostLine::from(&host), target.json)
}

/// A host with its procs and their actors.
#[derive(Serialize)]
struct Tree {
    host: String,
    procs: Vec<Branch>,
}

#[derive(Serialize)]
struct Branch {
    name: String,
    pid: Option<u32>,
    actors: Vec<Leaf>,
    /// How many actors there are beyond those listed.
    more: u64,
    /// Why the proc did not answer.
    error: Option<String>,
}

#[derive(Serialize)]
struct Leaf {
    actor: String,
    status: String,
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.host)?;
        for (index, branch) in self.procs.iter().enumerate() {
            let is_last = index + 1 == self.procs.len();
            let (knot, line) = if is_last {
                ("└─", "  ")
            } else {
                ("├─", "│ ")
            };
            write!(f, "\n{knot} {}", branch.name)?;
            if let Some(pid) = branch.pid {
                write!(f, " (process {pid})")?;
            }
            if let Some(error) = &branch.error {
                write!(f, ": no answer: {error}")?;
            }
            let more = (branch.more > 0).then(|| format!("and {} more", branch.more));
            let leaves = branch
                .actors
                .iter()
                .map(|leaf| format!("{}  {}", leaf.actor, leaf.status));
            let leaves: Vec<String> = leaves.chain(more).collect();
            for (index, leaf) in leaves.iter().enumerate() {
                let knot = if index + 1 == leaves.len() {
                    "└─"
                } else {
                    "├─"
                };
                write!(f, "\n{line} {knot} {leaf}")?;
            }
        }
        Ok(())
    }
}

pub(super) async fn tree(tool: &Tool, target: &Target) -> Result<Shows, Failure> {
    let host = tool
        .ask_host(limits::TOOL_DEADLINE, |reply| DescribeHost { reply })
        .await?;
    let asked = host.procs.iter().map(|proc| {
        let agent = ProcAgent::at(&proc.proc_id);
        async move { tool.ask(&agent, |reply| ListActors { reply }).await }
    });
    let answers = join_all(asked).await;
    let silent = answers.iter().filter(|answer| answer.is_err()).count();
    let branches = host.procs.iter().zip(answers).map(|(proc, answer)| {
        let mut branch = Branch {
            name: proc.proc_id.name().to_owned(),
            pid: proc.pid,
            actors: Vec::new(),
            more: 0,
            error: None,
        };
        match answer {
            Ok(list) => {
                branch.more = list.total.saturating_sub(list.actors.len() as u64);
                branch.actors = list
                    .actors
                    .iter()
                    .map(|actor| Leaf {
                        actor: format!("{}[{}]", actor.actor_id.name(), actor.actor_id.index()),
                        status: actor.status.clone(),
                    })
                    .collect();
            }
            Err(error) => branch.error = Some(error.to_string()),
        }
        branch
    });
    let tree = Tree {
        host: host.addr.to_string(),
        procs: branches.collect(),
    };
    let failure = (silent > 0).then(|| Failure::Result(format!("{silent} procs did not answer")));
    Ok(Shows::new(&tree, target.json)?.with_failure(failure))
}

/// The last lines of a proc's process.
#[derive(Serialize)]
struct Lines(ProcLogs);

impl fmt::Display for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.dropped > 0 {
            writeln!(f, "({} earlier lines are not kept)", self.0.dropped)?;
        }
        for line in &self.0.lines {
            let mark = match line.stream {
                OutputStream::Stdout => "out",
                OutputStream::Stderr => "err",
            };
            writeln!(f, "{mark} | {}", line.text)?;
        }
        Ok(())
    }
}

pub(super) async fn logs(tool: &Tool, args: &LogsArgs) -> Result<Shows, Failure> {
    let name = args.name.clone();
    let logs = tool
        .ask_host(limits::TOOL_DEADLINE, |reply| ReadLogs { name, reply })
        .await?;
    Shows::new(&Lines(logs), args.target.json)
}
