//! The program as a peer of a host: a proc of its own with an address for answers, and asks with words for people when
//! nobody answers.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use hyperactor::channel::ServeOptions;
use hyperactor::host::{HostAgent, HostRefusal};
use hyperactor::prelude::*;
use hyperactor::refs::BindSpec;
use hyperactor::router::{DialMailboxRouter, MailboxServer, MailboxServerHandle};
use tokio::time::timeout;

use super::address;
use crate::failure::Failure;
use crate::limits;

/// A connection to a host for the time of one command.
pub(crate) struct Tool {
    pub(crate) host: ChannelAddr,
    pub(crate) client: Client,
    /// Where what this program posts goes out.
    pub(crate) router: DialMailboxRouter,
    proc: Proc,
    server: MailboxServerHandle,
}

/// Does `work` with a connection to the host at the address in `text`, or the default one, and takes leave in order, so that
/// those who answered learn that their answers arrived.
pub(crate) async fn with_tool<T>(
    text: Option<&str>,
    work: impl AsyncFnOnce(&Tool) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let tool = Tool::to(text).await?;
    let outcome = work(&tool).await;
    let Tool {
        client,
        proc,
        server,
        ..
    } = tool;
    drop(client);
    let farewell = async {
        proc.stop(limits::FAREWELL).await;
        server.stop().await;
    };
    if timeout(limits::FAREWELL * 2, farewell).await.is_err() {
        tracing::debug!("the host did not take leave in time");
    }
    outcome
}

impl Tool {
    /// Makes ready to talk. Nothing is sent yet.
    async fn to(text: Option<&str>) -> Result<Self, Failure> {
        let host = address::host(text)?;
        let router = DialMailboxRouter::new();
        let bind = BindSpec::Any(host.transport());
        let server = MailboxServer::serve(bind, router.clone(), ServeOptions::default())
            .await
            .context("cannot listen for answers")?;
        let addr = server.addr().clone();
        let proc_id = ProcId::Direct(addr.clone(), "cli".to_owned());
        router.own(addr);
        let proc = Proc::new(proc_id.clone(), router.boxed());
        router.bind_sender(Arc::new(proc_id), proc.clone());
        let client = proc
            .client("cli")
            .context("cannot take part in the conversation")?;
        Ok(Self {
            host,
            client,
            router,
            proc,
            server,
        })
    }

    /// Asks the host's agent.
    pub(crate) async fn ask_host<R, M>(
        &self,
        deadline: Duration,
        make: impl FnOnce(OncePortRef<Result<R, HostRefusal>>) -> M,
    ) -> Result<R, Failure>
    where
        Result<R, HostRefusal>: Message,
        M: Message,
        HostAgent: Receives<M>,
    {
        let agent = HostAgent::at(&self.host);
        let answer = agent.ask_within(&self.client, deadline, make).await;
        answer
            .map_err(|error| self.unreachable(&error))?
            .map_err(Failure::from)
    }

    /// Asks an actor of another proc.
    pub(crate) async fn ask<A, R, M>(
        &self,
        actor: &ActorRef<A>,
        make: impl FnOnce(OncePortRef<R>) -> M,
    ) -> Result<R, AskError>
    where
        A: Receives<M>,
        R: Message,
        M: Message,
    {
        actor
            .ask_within(&self.client, limits::TOOL_DEADLINE, make)
            .await
    }

    fn unreachable(&self, error: &AskError) -> Failure {
        Failure::Unreachable(format!(
            "no host answers at {}: {error}; is it running? `hyperactor host serve {}` starts one",
            self.host, self.host
        ))
    }
}

impl From<HostRefusal> for Failure {
    fn from(refusal: HostRefusal) -> Self {
        Self::Refused(refusal.text)
    }
}
