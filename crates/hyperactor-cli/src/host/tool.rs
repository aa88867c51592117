//! The program as a guest of a host: it has no address of its own, asks over the one connection that it dials, and says in
//! words for people when nobody answers.

use std::time::Duration;

use anyhow::Context as _;
use hyperactor::host::{Guest, GuestError, HostAgent, HostRefusal};
use hyperactor::mailbox::BoxedMailboxSender;
use hyperactor::prelude::*;

use super::address;
use crate::args::Target;
use crate::failure::Failure;
use crate::limits;

/// A connection to a host for the time of one command.
pub(crate) struct Tool {
    /// The host that is asked.
    pub(crate) host: ChannelAddr,
    pub(crate) client: Client,
    guest: Guest,
}

/// Does `work` with a connection to the host that the command line names, and takes leave in order, so that those who answered
/// learn that their answers arrived.
pub(crate) async fn with_tool<T>(
    target: &Target,
    work: impl AsyncFnOnce(&Tool) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let tool = Tool::to(target).await?;
    let outcome = work(&tool).await;
    let Tool { client, guest, .. } = tool;
    drop(client);
    guest.leave(limits::FAREWELL).await;
    outcome
}

impl Tool {
    /// Joins the host that is nearest: the one that is asked, or the one by which the way leads.
    async fn to(target: &Target) -> Result<Self, Failure> {
        let asked = address::host(target.host.as_deref())?;
        let door = match &target.via {
            Some(via) => address::host(Some(via))?,
            None => asked.clone(),
        };
        let guest = Guest::join(door.clone())
            .await
            .map_err(|error| match error {
                GuestError::Unreachable { .. } => Failure::Unreachable(format!(
                    "{error}; is it running? `hyperactor host serve {door}` starts one"
                )),
                GuestError::Refused { .. } => Failure::Refused(error.to_string()),
                error => Failure::Job(error.into()),
            })?;
        // A host that was dialled says itself how it is called.
        let host = match (&target.host, &target.via) {
            (Some(_), Some(_)) => asked,
            _ => guest.host().clone(),
        };
        let client = guest
            .client("cli")
            .context("cannot take part in the conversation")?;
        Ok(Self {
            host,
            client,
            guest,
        })
    }

    /// The way that everything takes which this program posts.
    pub(crate) fn sender(&self) -> BoxedMailboxSender {
        self.guest.sender()
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
            "no host answers at {}: {error}; is it running, and behind the host that was dialled?",
            self.host
        ))
    }
}

impl From<HostRefusal> for Failure {
    fn from(refusal: HostRefusal) -> Self {
        Self::Refused(refusal.text)
    }
}
