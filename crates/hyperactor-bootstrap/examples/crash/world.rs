//! A host with procs, and looks at processes from outside.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use hyperactor_bootstrap::ProcessManager;
use hyperactor_host::{Host, HostedProc, OutputPolicy, ProcConfig, RoutePolicy};
use hyperactor_mailbox::PortRef;
use hyperactor_proc::{ActorRef, Client};
use hyperactor_refs::ChannelTransport;
use hyperactor_testkit::is_alive;
use rustix::process::{Pid, Signal, kill_process};

use crate::actors::{Item, Open, Opened, Posts, Receiver, ReceiverParams, Send, Sender, Told};
use crate::report::Result;

/// What stands before the role on the command line of a process that plays one, as every host does.
pub(crate) const ROLE: &str = "--role";

/// How long an answer may take before a suite calls it missing.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A host whose procs are processes.
pub(crate) struct World {
    pub(crate) host: Host,
    pub(crate) client: Client,
    pub(crate) dir: PathBuf,
}

impl World {
    pub(crate) async fn new() -> Result<Self> {
        Self::of(ProcessManager::new()?).await
    }

    pub(crate) async fn of(manager: ProcessManager) -> Result<Self> {
        let dir = manager.socket_dir().to_path_buf();
        let host = Host::new(manager, ChannelTransport::Unix).await?;
        let client = host.service_proc().client("suite")?;
        Ok(Self { host, client, dir })
    }

    pub(crate) async fn spawn(&self, name: &str, route: RoutePolicy) -> Result<HostedProc> {
        let config = ProcConfig::new()
            .with_route(route)
            .with_output(OutputPolicy::Kept);
        Ok(self.host.spawn(name, config).await?)
    }

    pub(crate) async fn sender(&self, proc: &HostedProc) -> Result<ActorRef<Sender>> {
        Ok(proc.spawn::<Sender>(&self.client, "sender", ()).await?)
    }

    pub(crate) async fn receiver(
        &self,
        proc: &HostedProc,
        params: ReceiverParams,
    ) -> Result<PortRef<Item>> {
        let receiver = proc
            .spawn::<Receiver>(&self.client, "receiver", params)
            .await?;
        let Opened(port) = receiver.ask(&self.client, Open).await?;
        Ok(port)
    }

    /// Has a sender post, and returns what it was told.
    pub(crate) async fn send(
        &self,
        from: &ActorRef<Sender>,
        to: &PortRef<Item>,
        batch: Batch,
    ) -> Result<Told> {
        let to = to.clone();
        let posts = Posts {
            to,
            sender: batch.sender,
            stream: batch.stream,
            first: batch.first,
            count: batch.count,
            one_by_one: false,
            die_after: None,
        };
        let send = |reply| Send { posts, reply };
        Ok(from.ask_within(&self.client, LONG, send).await?)
    }

    /// Ends the host. An error says what is left.
    pub(crate) async fn end(self) -> Result {
        let report = self.host.stop(Duration::from_secs(5)).await;
        if !report.left_behind.is_empty() || self.dir.exists() {
            return Err(format!("left behind: {report:?}").into());
        }
        Ok(())
    }
}

/// Messages to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch {
    pub(crate) sender: u32,
    pub(crate) stream: u32,
    pub(crate) first: u64,
    pub(crate) count: u64,
}

/// This program in a process of its own, in another role.
pub(crate) struct Role {
    pub(crate) process: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    /// Not left in `process`, whose `wait` would close it.
    stdin: std::process::ChildStdin,
}

impl Role {
    pub(crate) fn play(role: &str, arguments: &[&str]) -> Result<Self> {
        Self::play_with(role, arguments, &[])
    }

    /// With these variables in its environment.
    pub(crate) fn play_with(
        role: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let mut process = Command::new("/proc/self/exe")
            .arg(ROLE)
            .arg(role)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = process.stdout.take().ok_or("no standard output")?;
        let stdin = process.stdin.take().ok_or("no standard input")?;
        Ok(Self {
            process,
            lines: BufReader::new(stdout).lines(),
            stdin,
        })
    }

    /// Writes a line to its standard input.
    pub(crate) fn tell(&mut self, line: &str) -> Result {
        Ok(writeln!(self.stdin, "{line}")?)
    }

    /// The rest of the first line that begins with `word`.
    pub(crate) fn says(&mut self, word: &str) -> Result<String> {
        for line in self.lines.by_ref() {
            let line = line?;
            if let Some(rest) = line.strip_prefix(word) {
                return Ok(rest.trim().to_owned());
            }
        }
        Err(format!("the process ended without saying {word}").into())
    }

    /// The last line, of those that are still to be read, that is one of these words; the first of them if there is none.
    pub(crate) fn last_of(&mut self, words: &[&'static str]) -> Result<&'static str> {
        let mut last = *words.first().ok_or("no words")?;
        for line in self.lines.by_ref() {
            let line = line?;
            last = words.iter().find(|word| **word == line).unwrap_or(&last);
        }
        Ok(last)
    }

    /// Sends a signal to the process, which is not reaped yet, and reaps it.
    pub(crate) fn end_by(&mut self, signal: Signal) -> Result<ExitStatus> {
        kill_process(Pid::from_child(&self.process), signal)?;
        Ok(self.process.wait()?)
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // Ended already, mostly.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

pub(crate) fn signal(pid: u32, signal: Signal) -> Result {
    let pid = Pid::from_raw(i32::try_from(pid)?).ok_or("no process")?;
    Ok(kill_process(pid, signal)?)
}

/// How long it took until every process had ended and the folder was gone; `None` when it did not happen in time.
pub(crate) fn gone_within(limit: Duration, pids: &[u32], dir: &Path) -> Option<Duration> {
    let start = std::time::Instant::now();
    loop {
        if !pids.iter().any(|pid| is_alive(*pid)) && !dir.exists() {
            return Some(start.elapsed());
        }
        if start.elapsed() > limit {
            return None;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
