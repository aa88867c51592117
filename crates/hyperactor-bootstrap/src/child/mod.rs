//! The life of a child process, from the bootstrap call to its exit: serve the socket, run the agent, report ready, obey,
//! end in order. What is done while the process has one thread is in `startup`.

mod group;
mod hands;
mod lifeline;
mod link;
mod output;
mod reunion;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use hyperactor_channel::ServeOptions;
use hyperactor_channel::spin::before_park;
use hyperactor_host::OutputPolicy;
use hyperactor_mailbox::{BoxedMailboxSender, MailboxSender};
use hyperactor_proc::{Proc, ProcAgent, Registry};
use hyperactor_refs::{BindSpec, ChannelAddr};
use hyperactor_router::{
    DialOptions, MailboxClient, MailboxRedialer, MailboxServer, MailboxServerHandle,
};
use rustix::process::Signal;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::control::FromChild;
use crate::error::BootError;
use crate::instructions::Instructions;
use crate::limits;
use crate::mailbox::{LocalProcDialer, RouteAgent, RouteCount};
use crate::pulse;
use crate::record::Record;
use crate::socket_dir::{SocketDir, SocketDirError};
use crate::startup::{self, ChildStart, Refusal};
use lifeline::{Lifeline, Order};
use link::HostLink;
use reunion::Reunion;

/// The exit status of a child that could not start: EX_SOFTWARE of BSD's sysexits.
const EXIT_REFUSED: i32 = 70;
/// The exit status of a child that ended in order because of a signal, as shells have it: this and the signal's number.
const EXIT_SIGNALLED: i32 = 128;
/// The exit status of a child that ended in order because its host was gone.
const EXIT_HOST_GONE: i32 = 0;

/// The forwarder of the proc that this process is, if it is one.
static FORWARDER: OnceLock<LocalProcDialer> = OnceLock::new();

/// What a program does at the top of its `main`, with choices. [`boot`] is the short form.
///
/// ```no_run
/// use hyperactor_bootstrap::Bootstrap;
/// use hyperactor_proc::Registry;
///
/// fn main() {
///     Bootstrap::new()
///         .registry(Registry::new())
///         .on_child_start(|| eprintln!("a child starts"))
///         .run_if_child();
///     // Only the program that a person started comes here.
/// }
/// ```
#[derive(Default)]
#[must_use = "nothing happens until `run_if_child` is called"]
pub struct Bootstrap {
    registry: Registry,
    on_child_start: Option<Box<dyn FnOnce()>>,
}

impl Bootstrap {
    /// A bootstrap whose procs can spawn no actors yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names the actors that others may spawn in the children.
    pub fn registry(mut self, registry: Registry) -> Self {
        self.registry = registry;
        self
    }

    /// Runs something in each child before its proc starts, such as setting up its log. It must not start the proc's
    /// work: nothing can be sent or received yet.
    pub fn on_child_start(mut self, start: impl FnOnce() + 'static) -> Self {
        self.on_child_start = Some(Box::new(start));
        self
    }

    /// Returns at once in a process that a person started. In a process that a host started as a child, runs the proc
    /// until it ends, and the process with it.
    ///
    /// Must be called before the process has a second thread, so before a runtime is made: it takes instructions out of the
    /// environment. Called too late in a child, it ends the child with a message that says so.
    pub fn run_if_child(self) {
        match startup::begin() {
            Ok(None) => {}
            Ok(Some(start)) => std::process::exit(run(start, self)),
            Err(refusal) => std::process::exit(refuse(refusal)),
        }
    }
}

impl std::fmt::Debug for Bootstrap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bootstrap")
            .field("registry", &self.registry)
            .finish_non_exhaustive()
    }
}

/// The one call at the top of `main`: returns at once in the program that a person started, never in a child.
///
/// See [`Bootstrap::run_if_child`].
pub fn boot(registry: Registry) {
    Bootstrap::new().registry(registry).run_if_child();
}

/// How many messages this process's proc sent to each other proc of its host, by route. Empty in a process that is no
/// child.
#[must_use]
pub fn route_counts() -> Vec<RouteCount> {
    FORWARDER
        .get()
        .map(LocalProcDialer::counts)
        .unwrap_or_default()
}

/// Tells the host why this child cannot start, or whoever reads its standard error where there is no host.
fn refuse(Refusal { error, control }: Refusal) -> i32 {
    let told = control.is_some_and(|control| report_failure(&HostLink::new(control), &error));
    if !told {
        eprintln!("hyperactor: this child process cannot start: {error}");
    }
    EXIT_REFUSED
}

fn report_failure(host: &HostLink, error: &BootError) -> bool {
    let frame = FromChild::Failed {
        code: error.code().to_owned(),
        reason: error.to_string(),
    };
    host.tell(&frame)
}

fn run(start: ChildStart, bootstrap: Bootstrap) -> i32 {
    let ChildStart {
        instructions,
        control,
    } = start;
    let host = HostLink::new(control);
    // Before anything of the user's runs that could start a process.
    let tied = group::tie_to_this_process();
    let wakes = match &instructions.pulse {
        Some(place) => pulse::go_on_without(place),
        None => Ok(()),
    };
    if !host.wait_for_go() {
        return end_before_the_start(&instructions);
    }
    if let Some(on_child_start) = bootstrap.on_child_start {
        on_child_start();
    }
    if let Err(error) = tied {
        tracing::warn!(target: "hyperactor::bootstrap", event = "group.untied", %error, "what this proc starts is ended by its host, if that lives then");
    }
    if let Err(error) = wakes {
        tracing::debug!(target: "hyperactor::bootstrap", event = "host.pulse", %error, "a stopped proc will not notice the end of its host before it goes on");
    }
    match live(&instructions, &host, bootstrap.registry) {
        Ok(status) => status,
        Err(error) => {
            if !report_failure(&host, &error) {
                // Nobody hears it: the host is gone, and what it left is this child's to remove.
                leave_abandoned(&instructions);
                eprintln!(
                    "hyperactor: proc `{}` cannot start: {error}",
                    instructions.spec.proc_id.name()
                );
                group::end_with_all();
            }
            EXIT_REFUSED
        }
    }
}

/// The host died before this child ran anything of its own.
fn end_before_the_start(instructions: &Instructions) -> i32 {
    leave_abandoned(instructions);
    group::end_with_all();
    EXIT_HOST_GONE
}

/// Removes the socket directory of a host that is gone, if nobody else lives in it.
fn leave_abandoned(instructions: &Instructions) {
    let name = instructions.spec.proc_id.name();
    // Gone already, when another child was the last to leave.
    let Ok(dir) = open_dir(instructions) else {
        return;
    };
    if let Err(error) = dir.leave(name) {
        tracing::warn!(target: "hyperactor::bootstrap", proc = name, %error, "a socket stays behind");
    }
}

fn open_dir(instructions: &Instructions) -> Result<SocketDir, SocketDirError> {
    let path = &instructions.socket_dir;
    if instructions.is_kept {
        SocketDir::open_kept(path)
    } else {
        SocketDir::open(path)
    }
}

/// In a directory that hosts share: says who this process is, so that another host finds out.
fn enter_record(dir: &SocketDir, instructions: &Instructions) -> Result<(), BootError> {
    if !instructions.is_kept {
        return Ok(());
    }
    let spec = &instructions.spec;
    let text = Record::new(spec.clone())
        .to_text()
        .map_err(|reason| BootError::Instructions { reason })?;
    Ok(dir.enter_record(spec.proc_id.name(), &text)?)
}

fn live(
    instructions: &Instructions,
    host: &HostLink,
    registry: Registry,
) -> Result<i32, BootError> {
    let spec = &instructions.spec;
    let name = spec.proc_id.name().to_owned();
    let dir = Arc::new(open_dir(instructions)?);
    enter_record(&dir, instructions)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("hyperactor")
        .on_thread_park(before_park)
        .build()
        .map_err(|source| BootError::Io {
            what: "start the runtime",
            source,
        })?;
    let inside = runtime.enter();
    let (backend, to_host) = backend_of(instructions);
    let dialer = LocalProcDialer::new(spec.frontend.clone(), dir.path(), backend)
        .with_aliases(spec.aliases.iter().cloned())
        .with_dial_options(dial_options(instructions))
        .with_policy(spec.config.route);
    let dialer = FORWARDER.get_or_init(|| dialer).clone();
    drop(inside);

    let proc = Proc::with_incarnation((*spec.proc_id).clone(), spec.incarnation, dialer.boxed());
    let (orders, order) = watch::channel(Order::Live);
    let closing = Arc::new(AtomicBool::new(false));
    let is_ready = Arc::new(AtomicBool::new(false));
    let lifeline = Lifeline {
        control: host.reader()?,
        host: host.clone(),
        reunion: instructions.grace.map(|grace| Reunion {
            path: dir.adopt_path(),
            name: name.clone(),
            incarnation: spec.incarnation,
            grace,
        }),
        is_ready: Arc::clone(&is_ready),
        dialer: dialer.clone(),
        proc: proc.clone(),
        orders,
        closing: Arc::clone(&closing),
        dir: Arc::clone(&dir),
        name: name.clone(),
        is_captured: spec.config.output != OutputPolicy::Inherited,
    };
    lifeline.start().map_err(|source| BootError::Io {
        what: "start the lifeline thread",
        source,
    })?;

    let end = runtime.block_on(async {
        let server = serve(&proc, &dialer, instructions, &dir).await?;
        ProcAgent::spawn_in(&proc, registry)
            .map_err(|error| BootError::Proc { reason: error.to_string() })?;
        RouteAgent::spawn_in(&proc, dialer.clone())
            .map_err(|error| BootError::Proc { reason: error.to_string() })?;
        let mut orders = Orders::new(order, instructions.grace.is_some())?;
        if instructions.grace.is_some() {
            dir.outlives_host(&name, true)?;
        }
        // Before the host is told: it may be gone the moment after, and its callers know of the proc by then.
        is_ready.store(true, Ordering::Release);
        if !host.tell(&FromChild::Ready { addr: server.addr().clone() }) {
            tracing::debug!(target: "hyperactor::bootstrap", "the host went before this proc was ready");
        }
        Ok::<_, BootError>(obey(&proc, &dialer, server, to_host, &mut orders, host).await)
    })?;
    // Said before the order that ended this proc, and by the same thread.
    let host_closes = closing.load(Ordering::Acquire);
    leave(runtime, &dir, &name, end, host_closes);
    let status = status_of(end);
    if end == Order::Orphaned {
        group::end_with_all();
    }
    Ok(status)
}

/// The way to the host, and the connection that is closed at the end, where it is always the same. A proc that outlives its host
/// does not take an address that nobody serves for an end, and dials it anew.
fn backend_of(instructions: &Instructions) -> (BoxedMailboxSender, Option<MailboxClient>) {
    let addr = instructions.spec.backend.clone();
    match instructions.grace {
        Some(_) => (
            MailboxRedialer::new(addr, dial_options(instructions)).into_boxed(),
            None,
        ),
        None => {
            let client = MailboxClient::dial_with(addr, dial_options(instructions));
            (client.boxed(), Some(client))
        }
    }
}

fn dial_options(instructions: &Instructions) -> DialOptions {
    DialOptions {
        spin: instructions.spec.config.spin,
        ..DialOptions::default()
    }
}

/// The exit status of a child that ends in order, by the order that it obeys.
fn status_of(end: Order) -> i32 {
    match end {
        Order::Terminate(signal) => EXIT_SIGNALLED + signal.as_raw(),
        Order::Orphaned => EXIT_HOST_GONE,
        Order::Live | Order::Drain(_) | Order::Stop => 0,
    }
}

/// Serves the proc's socket. Done before its agent runs, so that whoever hears from the agent can answer it.
async fn serve(
    proc: &Proc,
    dialer: &LocalProcDialer,
    instructions: &Instructions,
    dir: &SocketDir,
) -> Result<MailboxServerHandle, BootError> {
    let spec = &instructions.spec;
    let failed = |reason: String| BootError::Serve { reason };
    let path = dir.socket_path(spec.proc_id.name());
    let addr = ChannelAddr::unix_path(&path).map_err(|error| failed(error.to_string()))?;
    let options = ServeOptions {
        incarnation: spec.incarnation,
        spin: spec.config.spin,
        ..ServeOptions::default()
    };
    // One connection serves both directions, whichever of two siblings dials it.
    let sessions = dialer.sessions_of(spec.incarnation, proc.clone());
    MailboxServer::serve_duplex(BindSpec::from(addr), options, sessions)
        .await
        .map_err(|error| failed(error.to_string()))
}

/// Lives until it is told to end, and ends in order. A later order can only hasten the end. Returns the order that began
/// it.
async fn obey(
    proc: &Proc,
    dialer: &LocalProcDialer,
    server: MailboxServerHandle,
    to_host: Option<MailboxClient>,
    orders: &mut Orders,
    host: &HostLink,
) -> Order {
    let first = orders.next().await;
    let mut order = first;
    let report = loop {
        let deadline = match order {
            Order::Drain(deadline) => deadline,
            Order::Terminate(_) => limits::SIGTERM_DRAIN,
            // Half of the time is left for the rest of the end.
            Order::Stop | Order::Orphaned | Order::Live => limits::ORPHAN_GRACE / 2,
        };
        tokio::select! {
            report = proc.stop(deadline) => break report,
            next = orders.next() => order = next,
        }
    };
    tracing::debug!(target: "hyperactor::bootstrap", event = "proc.stopped", proc = %proc.proc_id(), ?report, "the proc of this process has stopped");
    let farewell = async {
        // Siblings send over the connections that this process dialled, too: both kinds end in order.
        tokio::join!(server.stop(), dialer.close());
        // The host would keep the session otherwise, in case that this process connects again.
        if let Some(to_host) = to_host.filter(|_| order != Order::Orphaned) {
            to_host.close();
            to_host.left().await;
        }
    };
    let goodbye = tokio::time::timeout(limits::FINAL_FLUSH_TIMEOUT / 2, farewell).await;
    let flushed = report.flushed.is_ok() && goodbye.is_ok();
    // A host that dies while its children drain removes nothing any more: that is the children's to do then.
    let status = status_of(first);
    let has_host = host.tell(&FromChild::Ending { flushed, status });
    if !has_host && first != Order::Orphaned {
        tracing::debug!(target: "hyperactor::bootstrap", "the host went before this proc");
    }
    // The most urgent order says how the process ended.
    if order == Order::Orphaned || !has_host {
        Order::Orphaned
    } else {
        first
    }
}

/// Removes what this process leaves in the file system.
fn leave(runtime: Runtime, dir: &SocketDir, name: &str, end: Order, host_closes: bool) {
    // An actor that blocks its thread must not hold up the end of the process.
    runtime.shutdown_background();
    let left = if end == Order::Orphaned {
        dir.leave(name)
    } else if host_closes {
        dir.leave_last(name)
    } else {
        dir.remove_socket(name).map(drop)
    };
    if let Err(error) = left {
        tracing::warn!(target: "hyperactor::bootstrap", proc = name, %error, "a socket stays behind");
    }
}

/// What the host and the operating system tell the child to do.
struct Orders {
    host: watch::Receiver<Order>,
    terminate: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
    /// Whether the proc outlives its host: then it outlives the hang-up, too.
    stays: bool,
}

impl Orders {
    fn new(host: watch::Receiver<Order>, stays: bool) -> Result<Self, BootError> {
        let catch = |kind, what| signal(kind).map_err(|source| BootError::Io { what, source });
        Ok(Self {
            host,
            terminate: catch(SignalKind::terminate(), "catch SIGTERM")?,
            // The kernel sends it to the whole group when the host dies while a process in it is stopped: without this,
            // the proc would die with its socket left behind.
            hang_up: catch(SignalKind::hangup(), "catch SIGHUP")?,
            stays,
        })
    }

    /// The next order. Cancel safe.
    async fn next(&mut self) -> Order {
        tokio::select! {
            changed = self.host.changed() => match changed {
                Ok(()) => *self.host.borrow_and_update(),
                // The lifeline thread is gone, which it never is while the host lives.
                Err(_) => Order::Orphaned,
            },
            _ = self.terminate.recv() => Order::Terminate(Signal::TERM),
            _ = self.hang_up.recv(), if !self.stays => Order::Terminate(Signal::HUP),
        }
    }
}
