//! Asking many and collecting what they say: all of them, or the first few, until a deadline; whoever did not answer is
//! named.

use std::fmt;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use hyperactor_mailbox::{Message, OncePortRef, Outbox};
use hyperactor_refs::ActorId;
use tokio::time::{Instant, timeout_at};

use crate::{ActorRef, AskError, Receives, limits};

/// How the replies of many are collected.
///
/// ```
/// # use hyperactor_proc::{Actor, ActorResult, Collect, Context, Handler, Message, OncePortRef, Proc};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Message, Serialize, Deserialize)]
/// # struct Total(OncePortRef<u64>);
/// # #[derive(Actor)]
/// # #[actor(messages(Total))]
/// # struct Counter(u64);
/// # impl Handler<Total> for Counter {
/// #     async fn handle(&mut self, cx: &Context<Self>, Total(reply): Total) -> ActorResult {
/// #         cx.reply(reply, self.0);
/// #         Ok(())
/// #     }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let proc = Proc::isolated("example");
/// let main = proc.client("main")?;
/// let one = proc.spawn("one", Counter(1))?.bind();
/// let two = proc.spawn("two", Counter(2))?.bind();
///
/// let collected = Collect::all().ask(&main, &[one, two], Total).await;
/// assert!(collected.is_complete());
/// assert_eq!(collected.replies().sum::<u64>(), 3);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Collect {
    want: usize,
    deadline: Duration,
}

impl Collect {
    /// Waits for every reply, for [`limits::ASK_DEADLINE`].
    #[must_use]
    pub fn all() -> Self {
        Self::first(usize::MAX)
    }

    /// Waits for the first `count` replies, for [`limits::ASK_DEADLINE`]. The other questions are then taken back.
    #[must_use]
    pub fn first(count: usize) -> Self {
        Self {
            want: count,
            deadline: limits::ASK_DEADLINE,
        }
    }

    /// With a deadline of one's own, for all of it.
    #[must_use]
    pub fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Asks them all, and collects what they reply.
    ///
    /// # Bounds
    /// At most [`limits::ASKS_IN_FLIGHT_MAX`] questions wait at a time; those of the others follow as replies come.
    ///
    /// # Cancel safety
    /// A dropped future takes all questions back, as [`ActorRef::ask`] does.
    ///
    /// # Panics
    /// As [`ActorRef::ask`].
    pub async fn ask<A, R, M>(
        self,
        cx: &(impl Outbox + ?Sized),
        actors: &[ActorRef<A>],
        request: impl Fn(OncePortRef<R>) -> M,
    ) -> Collected<R>
    where
        A: Receives<M>,
        R: Message,
        M: Message,
    {
        let until = Instant::now() + self.deadline;
        let want = self.want.min(actors.len());
        let request = &request;
        let asks = actors.iter().enumerate().map(|(at, actor)| async move {
            let left = until.saturating_duration_since(Instant::now());
            (at, actor.ask_within(cx, left, request).await)
        });
        let mut asks = stream::iter(asks).buffer_unordered(limits::ASKS_IN_FLIGHT_MAX);
        let mut answers: Vec<Option<Result<R, AskError>>> = Vec::new();
        answers.resize_with(actors.len(), || None);
        let mut count = 0;
        while count < want
            && let Ok(Some((at, answer))) = timeout_at(until, asks.next()).await
        {
            count += usize::from(answer.is_ok());
            answers[at] = Some(answer);
        }
        let mut collected = Collected {
            replied: Vec::new(),
            failed: Vec::new(),
            missing: Vec::new(),
            want,
        };
        for (actor, answer) in actors.iter().zip(answers) {
            let actor_id = actor.actor_id().clone();
            match answer {
                Some(Ok(reply)) => collected.replied.push((actor_id, reply)),
                Some(Err(AskError::TimedOut { .. })) | None => collected.missing.push(actor_id),
                Some(Err(error)) => collected.failed.push((actor_id, error)),
            }
        }
        collected
    }
}

/// What many said. Each actor that was asked is in one of the three lists, in the order asked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Collected<R> {
    /// Who replied, with what.
    pub replied: Vec<(ActorId, R)>,
    /// From whom no reply can come, with why.
    pub failed: Vec<(ActorId, AskError)>,
    /// Who had not replied when the deadline came, or when there were replies enough.
    pub missing: Vec<ActorId>,
    want: usize,
}

impl<R> Collected<R> {
    /// Whether there are as many replies as were wanted.
    pub fn is_complete(&self) -> bool {
        self.replied.len() >= self.want
    }

    /// The replies.
    pub fn replies(self) -> impl Iterator<Item = R> {
        self.replied.into_iter().map(|(_, reply)| reply)
    }

    /// The replies, if there are as many as were wanted.
    ///
    /// # Errors
    /// [`Incomplete`] names those who did not reply.
    pub fn complete(self) -> Result<Vec<(ActorId, R)>, Incomplete> {
        if self.is_complete() {
            return Ok(self.replied);
        }
        Err(Incomplete {
            got: self.replied.len(),
            want: self.want,
            failed: self.failed,
            missing: self.missing,
        })
    }
}

/// Fewer replied than were wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{got} of {want} replied{}{}", Failed(failed), Missing(missing))]
#[non_exhaustive]
pub struct Incomplete {
    /// How many replied.
    pub got: usize,
    /// How many were wanted.
    pub want: usize,
    /// From whom no reply can come, with why.
    pub failed: Vec<(ActorId, AskError)>,
    /// Who had not replied when the deadline came.
    pub missing: Vec<ActorId>,
}

struct Failed<'a>(&'a [(ActorId, AskError)]);

impl fmt::Display for Failed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|(_, error)| write!(f, "; {error}"))
    }
}

struct Missing<'a>(&'a [ActorId]);

impl fmt::Display for Missing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|actor_id| write!(f, "; no reply in time from `{actor_id}`"))
    }
}
