//! What the tests share: a host with its children, the roles that the test binary plays in a process of its own, and
//! looks at processes from outside.

use std::future::Future;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hyperactor_bootstrap::ProcessManager;
use hyperactor_host::{Host, HostedProc, ProcConfig, RoutePolicy};
use hyperactor_proc::{ActorRef, Client};
use hyperactor_refs::{BindSpec, ChannelTransport};
use hyperactor_testkit::eventually_blocking;
use libtest_mimic::{Failed, Trial};
use rustix::process::{Pid, Signal};

use crate::actors::{Arrived, Flood, ReadRoutes, Sink, Source, Tally};

/// The variable that makes the test binary play a role instead of running tests.
pub(crate) const ROLE: &str = "HYPERACTOR_TEST_ROLE";

pub(crate) const LONG: Duration = Duration::from_secs(30);

pub(crate) type TestResult<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// A test that runs on a runtime of its own.
pub(crate) fn trial<F>(name: &str, test: fn() -> F) -> Trial
where
    F: Future<Output = TestResult> + 'static,
{
    Trial::test(name, move || {
        let runtime = tokio::runtime::Runtime::new()?;
        runtime
            .block_on(test())
            .map_err(|error| Failed::from(error.to_string()))
    })
}

/// A host whose procs are processes.
pub(crate) struct World {
    pub(crate) host: Host,
    pub(crate) client: Client,
    pub(crate) dir: PathBuf,
}

impl World {
    pub(crate) async fn new() -> TestResult<Self> {
        Self::at(ChannelTransport::Unix).await
    }

    pub(crate) async fn at(frontend: impl Into<BindSpec>) -> TestResult<Self> {
        Self::of(ProcessManager::new()?, frontend).await
    }

    pub(crate) async fn of(
        manager: ProcessManager,
        frontend: impl Into<BindSpec>,
    ) -> TestResult<Self> {
        let dir = manager.socket_dir().to_path_buf();
        let host = Host::new(manager, frontend).await?;
        let client = host.service_proc().client("test")?;
        Ok(Self { host, client, dir })
    }

    pub(crate) async fn spawn(&self, name: &str, route: RoutePolicy) -> TestResult<HostedProc> {
        Ok(self
            .host
            .spawn(name, ProcConfig::new().with_route(route))
            .await?)
    }

    /// A proc with a source, and a proc with a sink.
    pub(crate) async fn pair(&self, route: RoutePolicy) -> TestResult<Pair> {
        let (a, b) = tokio::join!(self.spawn("a", route), self.spawn("b", route));
        let (a, b) = (a?, b?);
        let source = a.spawn::<Source>(&self.client, "source", ()).await?;
        let sink = b.spawn::<Sink>(&self.client, "sink", ()).await?;
        Ok(Pair { a, b, source, sink })
    }

    /// Has a source send items and returns what became of them.
    pub(crate) async fn flood(
        &self,
        source: &ActorRef<Source>,
        to: &ActorRef<Sink>,
        first: u64,
        count: u64,
    ) -> TestResult<Tally> {
        let to = to.clone();
        let flood = |reply| Flood {
            to,
            source: 1,
            first,
            count,
            size: 64,
            reply,
        };
        Ok(source.ask_within(&self.client, LONG, flood).await?)
    }

    /// How many items a sink has, all in order.
    pub(crate) async fn arrived(&self, sink: &ActorRef<Sink>) -> TestResult<u64> {
        let (count, disorder) = sink.ask(&self.client, Arrived).await?;
        assert_eq!(disorder, None);
        Ok(count)
    }

    /// How many messages went straight, and how many by the host, from a source's proc to a proc.
    pub(crate) async fn routes(
        &self,
        source: &ActorRef<Source>,
        to: &str,
    ) -> TestResult<(u64, u64)> {
        let routes = source.ask(&self.client, ReadRoutes).await?;
        let found = routes.into_iter().find(|(name, ..)| name == to);
        Ok(found
            .map(|(_, direct, relay)| (direct, relay))
            .unwrap_or_default())
    }

    /// Ends the host, and fails if anything is left.
    pub(crate) async fn end(self) -> TestResult {
        let pids: Vec<u32> = self
            .host
            .procs()
            .iter()
            .filter_map(|hosted| hosted.info().pid)
            .collect();
        let report = self.host.stop(Duration::from_secs(5)).await;
        assert!(report.left_behind.is_empty(), "{report:?}");
        for (name, exit) in &report.procs {
            assert!(exit.is_orderly(), "{name} {exit}");
        }
        for pid in pids {
            // Reaped, too: a zombie still has its entry.
            assert!(
                !Path::new(&format!("/proc/{pid}")).exists(),
                "process {pid} is still there"
            );
        }
        assert!(!self.dir.exists(), "{} is still there", self.dir.display());
        Ok(())
    }
}

pub(crate) struct Pair {
    pub(crate) a: HostedProc,
    pub(crate) b: HostedProc,
    pub(crate) source: ActorRef<Source>,
    pub(crate) sink: ActorRef<Sink>,
}

/// The test binary in a process of its own, playing a role.
pub(crate) struct Actor {
    pub(crate) process: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    /// Not left in `process`, whose `wait` would close it.
    _stdin: Option<std::process::ChildStdin>,
}

impl Actor {
    pub(crate) fn play(role: &str) -> TestResult<Self> {
        use std::os::unix::process::CommandExt;
        let mut process = Command::new(std::env::current_exe()?)
            .env(ROLE, role)
            // Open for as long as the test lives: see `roles::end_with_the_test`.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let stdout = process.stdout.take().ok_or("no standard output")?;
        let _stdin = process.stdin.take();
        Ok(Self {
            process,
            lines: BufReader::new(stdout).lines(),
            _stdin,
        })
    }

    /// The rest of the first line that begins with `word`.
    pub(crate) fn says(&mut self, word: &str) -> TestResult<String> {
        for line in self.lines.by_ref() {
            let line = line?;
            if let Some(rest) = line.strip_prefix(word) {
                return Ok(rest.trim().to_owned());
            }
        }
        Err(format!("the process ended without saying {word}").into())
    }

    pub(crate) fn signal(&self, signal: Signal) -> TestResult {
        Ok(send_signal(self.process.id(), signal)?)
    }

    /// As the terminal does for Ctrl-C: to the whole foreground process group.
    pub(crate) fn interrupt_group(&self) -> TestResult {
        let pid = Pid::from_child(&self.process);
        Ok(rustix::process::kill_process_group(pid, Signal::INT)?)
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // Ended already, in most tests.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

pub(crate) fn send_signal(pid: u32, signal: Signal) -> rustix::io::Result<()> {
    let number = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(rustix::io::Errno::SRCH)?;
    rustix::process::kill_process(number, signal)?;
    if signal == Signal::STOP {
        // Its threads stop when each of them is looked at: until then they go on.
        eventually_blocking(LONG, || is_stopped(pid));
    }
    Ok(())
}

/// Whether no thread of a process runs any more.
pub(crate) fn is_stopped(pid: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return true;
    };
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // The name before it may hold anything but the end of a line.
        let state = stat.rsplit_once(") ").map(|(_, rest)| &rest[..1]);
        state.is_none_or(|state| "TtZX".contains(state))
    })
}
