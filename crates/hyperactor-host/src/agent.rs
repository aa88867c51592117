//! [`HostAgent`]: the actor in a host's service proc through which tools reach the host, from any process. It holds no
//! policy: what it is asked for, the host does.

use std::sync::{Arc, Weak};
use std::time::Duration;

use hyperactor_mailbox::{DeathCertificate, OncePortRef, ProcExit};
use hyperactor_proc::{
    Actor, ActorError, ActorRef, ActorResult, Client, Context, Handler, Message,
};
use hyperactor_refs::{ActorId, ChannelAddr, Incarnation, ProcId};
use serde::{Deserialize, Serialize};

use crate::config::ProcConfig;
use crate::error::HostError;
use crate::host::{Host, Inner, SERVICE_PROC};
use crate::hosted::HostedProc;
use crate::limits;
use crate::logs::ProcLogs;
use crate::spec::End;
use crate::visitors::Attached;

/// The name of a host's agent in its service proc.
pub const HOST_AGENT: &str = "host";

/// The name under which the agent answers what takes longer than a moment.
const ANSWERS: &str = "host-answers";

/// Describes its host, and starts and ends procs of it, at the request of others.
///
/// Every host has one. Who may reach it is who may reach the host's frontend: with a Unix socket, processes of the same
/// user.
#[derive(Actor)]
#[actor(hooks)]
#[actor(messages(DescribeHost, SpawnProc, EndProc, ReadLogs, StopHost))]
pub struct HostAgent {
    host: Weak<Inner>,
    /// Answers while the agent goes on.
    answers: Option<Arc<Client>>,
}

impl HostAgent {
    pub(crate) fn new(host: Weak<Inner>) -> Self {
        Self {
            host,
            answers: None,
        }
    }

    /// A reference to the agent of the host at an address, wherever that is.
    #[must_use]
    pub fn at(host: &ChannelAddr) -> ActorRef<Self> {
        let service = ProcId::Direct(host.clone(), SERVICE_PROC.to_owned());
        ActorRef::attest(ActorId::root(service, HOST_AGENT))
    }

    fn host(&self) -> Result<Host, HostRefusal> {
        let inner = self.host.upgrade().ok_or(HostError::Stopping)?;
        Ok(Host { inner })
    }

    fn proc(&self, name: &str) -> Result<HostedProc, HostRefusal> {
        let host = self.host()?;
        host.proc(name)
            .ok_or_else(|| HostRefusal::no_such_proc(&host, name))
    }

    /// Answers when the work is done, without keeping others waiting.
    fn answer<T: Message>(
        &self,
        reply: OncePortRef<T>,
        work: impl Future<Output = T> + Send + 'static,
    ) -> ActorResult {
        let client = self
            .answers
            .clone()
            .ok_or_else(|| ActorError::new("asked before its start"))?;
        tokio::spawn(async move { reply.post(&*client, work.await) });
        Ok(())
    }
}

impl Actor for HostAgent {
    async fn init(&mut self, cx: &Context<Self>) -> ActorResult {
        self.answers = Some(Arc::new(cx.proc()?.client(ANSWERS)?));
        Ok(())
    }
}

/// Asks a host what it is and which procs it has.
#[derive(Message, Serialize, Deserialize)]
pub struct DescribeHost {
    /// Takes the answer.
    pub reply: OncePortRef<Result<HostDescription, HostRefusal>>,
}

/// Asks a host to start a proc.
#[derive(Message, Serialize, Deserialize)]
pub struct SpawnProc {
    /// The proc's name.
    pub name: String,
    /// What is chosen about it.
    pub config: ProcConfig,
    /// Takes the answer, once the proc can be reached.
    pub reply: OncePortRef<Result<ProcDescription, HostRefusal>>,
}

/// Asks a host to end a proc.
#[derive(Message, Serialize, Deserialize)]
pub struct EndProc {
    /// The proc's name.
    pub name: String,
    /// How; a drain's deadline is at most [`limits::END_DEADLINE_MAX`].
    pub how: End,
    /// Takes the proc's certificate, once it has ended and its name is free.
    pub reply: OncePortRef<Result<ProcEnd, HostRefusal>>,
}

/// Asks a host for the last lines that a proc's process wrote.
#[derive(Message, Serialize, Deserialize)]
pub struct ReadLogs {
    /// The proc's name.
    pub name: String,
    /// Takes the answer.
    pub reply: OncePortRef<Result<ProcLogs, HostRefusal>>,
}

/// Asks a host to end itself, with all of its procs.
#[derive(Message, Serialize, Deserialize)]
pub struct StopHost {
    /// How long procs may empty their mailboxes; at most [`limits::END_DEADLINE_MAX`].
    pub deadline: Duration,
    /// Takes whether the program that owns the host was told. The host ends after that.
    pub reply: OncePortRef<Result<(), HostRefusal>>,
}

/// How a proc ended that a host was asked to end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Message)]
pub struct ProcEnd {
    /// What is known of its end.
    pub certificate: DeathCertificate,
}

/// What a host is, and which procs it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Message)]
#[non_exhaustive]
pub struct HostDescription {
    /// Where the world reaches its procs.
    pub addr: ChannelAddr,
    /// The other addresses under which the world knows it.
    pub aliases: Vec<ChannelAddr>,
    /// The hosts that it stands behind: the next one, then the one before that, and so on.
    pub above: Vec<ChannelAddr>,
    /// The hosts that stand directly behind it.
    pub attached: Vec<AttachedHost>,
    /// How many guests it has.
    pub guests: u64,
    /// Where its procs reach it.
    pub backend: ChannelAddr,
    /// Which of its lives this is.
    pub incarnation: Incarnation,
    /// The operating-system process that it lives in.
    pub pid: u32,
    /// The version of the program's runtime.
    pub version: String,
    /// Since when it runs.
    pub up: Duration,
    /// Its running procs, by name; its own is not among them.
    pub procs: Vec<ProcDescription>,
}

/// A host that stands behind another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Message)]
#[non_exhaustive]
pub struct AttachedHost {
    /// The address in the ids of its procs.
    pub addr: ChannelAddr,
    /// Its other addresses, and those of the hosts behind it.
    pub others: Vec<ChannelAddr>,
    /// Which of its lives this is.
    pub incarnation: Incarnation,
    /// Whether its connection is there at the moment.
    pub connected: bool,
}

impl From<Attached> for AttachedHost {
    fn from(attached: Attached) -> Self {
        let connected = attached.is_connected();
        let mut addrs = attached.addrs.into_iter();
        Self {
            // A claim has one at least.
            addr: addrs.next().unwrap_or_else(|| attached.back.addr().clone()),
            others: addrs.collect(),
            incarnation: attached.incarnation,
            connected,
        }
    }
}

/// A running proc.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Message)]
#[non_exhaustive]
pub struct ProcDescription {
    /// Who it is.
    pub proc_id: Arc<ProcId>,
    /// Which of its lives this is.
    pub incarnation: Incarnation,
    /// Where its host dials it.
    pub addr: ChannelAddr,
    /// Its operating-system process, unless it runs in its host's.
    pub pid: Option<u32>,
}

impl From<&HostedProc> for ProcDescription {
    fn from(proc: &HostedProc) -> Self {
        let info = proc.info();
        Self {
            proc_id: Arc::clone(&info.proc_id),
            incarnation: info.incarnation,
            addr: info.addr.clone(),
            pid: info.pid,
        }
    }
}

/// Why a host did not do what it was asked for, as told to another process.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize, Message)]
#[error("{text}")]
#[non_exhaustive]
pub struct HostRefusal {
    /// A short name for programs to compare, stable between versions: that of [`HostError::code`], or `no-such-proc`.
    pub code: String,
    /// The reason in words.
    pub text: String,
}

impl HostRefusal {
    pub(crate) fn new(code: &str, text: String) -> Self {
        let code = code.to_owned();
        Self { code, text }
    }

    fn no_such_proc(host: &Host, name: &str) -> Self {
        let known: Vec<String> = host
            .procs()
            .iter()
            .take(limits::NAMES_IN_REFUSAL_MAX)
            .map(|proc| format!("`{}`", proc.name()))
            .collect();
        let known = match known.as_slice() {
            [] => "it has none".to_owned(),
            some => format!("it has {}", some.join(", ")),
        };
        Self {
            code: "no-such-proc".to_owned(),
            text: format!(
                "no proc called `{name}` runs on the host {}: {known}",
                host.addr()
            ),
        }
    }
}

impl From<HostError> for HostRefusal {
    fn from(error: HostError) -> Self {
        Self {
            code: error.code().to_owned(),
            text: error.to_string(),
        }
    }
}

impl Handler<DescribeHost> for HostAgent {
    async fn handle(
        &mut self,
        cx: &Context<Self>,
        DescribeHost { reply }: DescribeHost,
    ) -> ActorResult {
        let description = self.host().map(|host| HostDescription {
            addr: host.addr().clone(),
            aliases: host.addrs().others().to_vec(),
            above: host.hosts_above(),
            attached: host
                .inner
                .relay
                .visitors()
                .attached()
                .into_iter()
                .map(AttachedHost::from)
                .collect(),
            guests: host.guests().len() as u64,
            backend: host.backend_addr().clone(),
            incarnation: host.service_proc().incarnation(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            up: host.inner.since.elapsed(),
            procs: host.procs().iter().map(ProcDescription::from).collect(),
        });
        cx.reply(reply, description);
        Ok(())
    }
}

impl Handler<SpawnProc> for HostAgent {
    async fn handle(&mut self, _: &Context<Self>, request: SpawnProc) -> ActorResult {
        let SpawnProc {
            name,
            config,
            reply,
        } = request;
        let host = self.host();
        self.answer(reply, async move {
            let proc = host?.spawn(&name, config).await?;
            Ok(ProcDescription::from(&proc))
        })
    }
}

impl Handler<EndProc> for HostAgent {
    async fn handle(
        &mut self,
        _: &Context<Self>,
        EndProc { name, how, reply }: EndProc,
    ) -> ActorResult {
        let proc = self.proc(&name);
        let how = match how {
            End::Drain { deadline } => End::Drain {
                deadline: deadline.min(limits::END_DEADLINE_MAX),
            },
            End::Kill => End::Kill,
        };
        self.answer(reply, async move {
            let proc = proc?;
            let exit: ProcExit = proc.end(how).await;
            let info = proc.info();
            let certificate = match proc.certificate() {
                Some(certificate) => (*certificate).clone(),
                None => DeathCertificate::new(Arc::clone(&info.proc_id), info.incarnation, exit),
            };
            Ok(ProcEnd { certificate })
        })
    }
}

impl Handler<ReadLogs> for HostAgent {
    async fn handle(
        &mut self,
        cx: &Context<Self>,
        ReadLogs { name, reply }: ReadLogs,
    ) -> ActorResult {
        cx.reply(reply, self.proc(&name).map(|proc| proc.logs()));
        Ok(())
    }
}

impl Handler<StopHost> for HostAgent {
    async fn handle(
        &mut self,
        cx: &Context<Self>,
        StopHost { deadline, reply }: StopHost,
    ) -> ActorResult {
        let told = self.host().map(|host| {
            let deadline = deadline.min(limits::END_DEADLINE_MAX);
            host.inner.stop_wanted.send_replace(Some(deadline));
        });
        cx.reply(reply, told);
        Ok(())
    }
}
