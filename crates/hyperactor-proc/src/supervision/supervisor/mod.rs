//! The ready supervisor: an actor that starts its children, and starts them again. What it decides is in `policy`, how one
//! child is made and ended in `child`.

mod child;
mod policy;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use hyperactor_mailbox::{Class, OncePortRef, Refusal};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Cause, Escalation, Event, Relation};
use crate::cell::Cell;
use crate::runs::Meta;
use crate::{Actor, ActorResult, Context, ExitReason, Handler, Message};

pub use child::{ChildInfo, ChildSpec};
use child::{Running, StartError};
use policy::Intensity;
pub use policy::{Backoff, Restart, Strategy};

/// An actor that keeps others running.
///
/// It starts its children in the order they were named, each when the one before has been initialised, and stops them in the
/// reverse order. When one ends it does as its [`Strategy`] and the child's [`Restart`] say, after a [`Backoff`]. More
/// restarts than its intensity allows end it: its own supervisor is told, with the whole chain.
///
/// ```
/// use std::time::Duration;
/// use hyperactor_proc::{Actor, ActorResult, ChildSpec, Context, Handler, Proc, Strategy, Supervisor};
///
/// #[derive(Actor)]
/// struct Worker;
///
/// impl Handler<u32> for Worker {
///     async fn handle(&mut self, _cx: &Context<Self>, number: u32) -> ActorResult {
///         Err(format!("cannot work with {number}").into())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let proc = Proc::isolated("example");
/// let supervisor = Supervisor::new(Strategy::OneForOne)
///     .intensity(3, Duration::from_secs(5))
///     .child(ChildSpec::new("worker", || Worker).transient());
/// let supervisor = proc.spawn("supervisor", supervisor)?;
/// # let report = proc.stop(Duration::from_secs(5)).await;
/// # assert!(report.is_clean());
/// # Ok(())
/// # }
/// ```
#[derive(Actor, Debug)]
#[actor(hooks, messages(ListChildren))]
pub struct Supervisor {
    strategy: Strategy,
    intensity: Intensity,
    backoff: Backoff,
    children: Vec<Child>,
}

#[derive(Debug)]
struct Child {
    spec: ChildSpec,
    state: State,
    /// Grows with each change of the state, so that a delayed start is known to be out of date.
    turn: u64,
    restarts: u64,
}

enum State {
    /// Not started yet, or over for good.
    Down,
    /// About to be started again.
    Waiting,
    Up(Running),
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Down => f.write_str("Down"),
            Self::Waiting => f.write_str("Waiting"),
            Self::Up(running) => write!(f, "Up({})", running.actor_id()),
        }
    }
}

/// Asks a supervisor how its children are doing.
#[derive(Message, Serialize, Deserialize)]
#[message(name = "hyperactor.ListChildren")]
pub struct ListChildren {
    /// Takes the answer, in the order of the start.
    pub reply: OncePortRef<Vec<ChildInfo>>,
}

/// Has a supervisor start a further child, after all others. Within the proc only.
#[derive(Debug)]
pub struct StartChild(pub ChildSpec);

/// Has a supervisor stop a child, and start it no more. Within the proc only.
#[derive(Debug)]
pub struct StopChild {
    /// The child's name.
    pub name: String,
}

/// The wait before a restart is over, for these children in these turns.
struct Resume(Vec<(usize, u64)>);

impl Supervisor {
    /// A supervisor without children, which allows 3 restarts in 5 s.
    pub fn new(strategy: Strategy) -> Self {
        Self {
            strategy,
            intensity: Intensity::new(3, Duration::from_secs(5)),
            backoff: Backoff::default(),
            children: Vec::new(),
        }
    }

    /// Allows so many restarts within a window of time; one more ends the supervisor. A restart of several children at once
    /// counts as one.
    #[must_use]
    pub fn intensity(mut self, restarts_max: u32, window: Duration) -> Self {
        self.intensity = Intensity::new(restarts_max, window);
        self
    }

    /// How long to wait before a restart.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// One more child, started after those before it.
    #[must_use]
    pub fn child(mut self, spec: ChildSpec) -> Self {
        self.children.push(Child::new(spec));
        self
    }

    /// Starts one child.
    async fn start(&mut self, cx: &Context<Self>, at: usize) -> Result<(), StartError> {
        let child = &mut self.children[at];
        child.turn += 1;
        child.state = State::Down;
        // A supervisor that is told to stop does not wait for a child that starts slowly.
        let Some(started) = unless_stopped(cx, child.spec.start(cx)).await else {
            return Ok(());
        };
        child.state = State::Up(started?);
        tracing::debug!(target: "hyperactor::supervisor", event = "child.started", supervisor = %cx.actor_id(), child = child.spec.name, restarts = child.restarts, "a child was started");
        Ok(())
    }

    /// Stops children, the last one first.
    async fn stop(&mut self, cx: &Context<Self>, which: &[usize]) {
        for at in which.iter().rev() {
            let child = &mut self.children[*at];
            child.turn += 1;
            if let State::Up(running) = std::mem::replace(&mut child.state, State::Down) {
                running.stop(cx, child.spec.stop_deadline).await;
            }
        }
    }

    /// Does what the end of a child calls for.
    async fn restart(&mut self, cx: &Context<Self>, at: usize, event: Event) -> ActorResult {
        let mut next = Some((at, event));
        while let Some((at, event)) = next.take() {
            let name = self.children[at].spec.name.clone();
            self.children[at].turn += 1;
            self.children[at].state = State::Down;
            if !self.children[at].spec.restart.wants(event.is_orderly()) {
                tracing::info!(target: "hyperactor::supervisor", event = "child.ended", supervisor = %cx.actor_id(), child = name, cause = %event.cause, "a child has ended and is not started again");
                return Ok(());
            }
            let Some(earlier) = self.intensity.note(Instant::now()) else {
                let reason = format!(
                    "`{name}` ended after {} restarts of children within {} ms",
                    self.intensity.restarts_max,
                    self.intensity.window.as_millis()
                );
                return Err(Escalation::because(event, reason).into_error());
            };
            let concerned: Vec<usize> = match self.strategy {
                Strategy::OneForOne => vec![at],
                Strategy::OneForAll => (0..self.children.len()).collect(),
                Strategy::RestForOne => (at..self.children.len()).collect(),
            };
            let resumed = self.put_down(cx, at, &concerned).await;
            let delay = self.backoff.delay(earlier, random());
            tracing::warn!(target: "hyperactor::supervisor", event = "child.restart", supervisor = %cx.actor_id(), child = name, cause = %event.cause, concerned = resumed.len(), ?delay, "a child has ended and is started again");
            if delay.is_zero() {
                next = self.resume(cx, resumed).await;
            } else {
                resume_later(cx, delay, resumed);
            }
        }
        Ok(())
    }

    /// Stops those of the concerned that run, and gives those that are to be started again.
    async fn put_down(
        &mut self,
        cx: &Context<Self>,
        at: usize,
        concerned: &[usize],
    ) -> Vec<(usize, u64)> {
        // One that ended in order before, or was never to be started again, stays as it is.
        let is_up = |at: &usize| !matches!(self.children[*at].state, State::Down);
        let alive: Vec<usize> = concerned.iter().copied().filter(is_up).collect();
        self.stop(cx, &alive).await;
        let mut resumed = Vec::new();
        for index in concerned {
            let child = &mut self.children[*index];
            let comes_back = *index == at || alive.contains(index);
            if comes_back && child.spec.restart != Restart::Temporary {
                child.state = State::Waiting;
                resumed.push((*index, child.turn));
            }
        }
        resumed
    }

    /// Starts children whose wait is over. Gives the first that did not start, with why.
    async fn resume(
        &mut self,
        cx: &Context<Self>,
        which: Vec<(usize, u64)>,
    ) -> Option<(usize, Event)> {
        for (at, turn) in which {
            if self.children[at].turn != turn {
                continue;
            }
            self.children[at].restarts += 1;
            if let Err(error) = self.start(cx, at).await {
                // What comes after it waits for it: its own restart concerns them again.
                return Some((at, self.not_started(cx, at, &error)));
            }
        }
        None
    }

    /// A start that failed, as an event.
    fn not_started(&self, cx: &Context<Self>, at: usize, error: &StartError) -> Event {
        let id = cx.actor_id().sibling(&self.children[at].spec.name, 0);
        let cause = match error {
            StartError::Ended(exit) => Cause::of(exit),
            error => Cause::Failed {
                errors: vec!["it was not started".to_owned(), error.to_string()],
            },
        };
        Event::bare(id, None, cause)
    }
}

impl Child {
    fn new(spec: ChildSpec) -> Self {
        Self {
            spec,
            state: State::Down,
            turn: 0,
            restarts: 0,
        }
    }

    fn info(&self) -> ChildInfo {
        let actor_id = match &self.state {
            State::Up(running) => Some(running.actor_id().clone()),
            State::Down | State::Waiting => None,
        };
        ChildInfo {
            name: self.spec.name.clone(),
            actor_id,
            restart: self.spec.restart,
            restarts: self.restarts,
        }
    }
}

// The compiler shall not offer it to whoever forgot a derive.
#[diagnostic::do_not_recommend]
impl Actor for Supervisor {
    async fn init(&mut self, cx: &Context<Self>) -> ActorResult {
        cx.control().end_children_in_order();
        for at in 0..self.children.len() {
            if let Err(error) = self.start(cx, at).await {
                let reason = format!("cannot start `{}`", self.children[at].spec.name);
                let event = self.not_started(cx, at, &error);
                return Err(Escalation::because(event, reason).into_error());
            }
        }
        Ok(())
    }

    async fn on_supervision(&mut self, cx: &Context<Self>, event: Event) -> ActorResult {
        let child = self.children.iter().position(
            |child| matches!(&child.state, State::Up(running) if running.is_meant_by(&event)),
        );
        match child {
            Some(at) => self.restart(cx, at, event).await,
            None if event.relation == Relation::Linked && !event.is_orderly() => {
                Err(Escalation::new(event).into_error())
            }
            None => Ok(()),
        }
    }

    /// The children of this proc have ended already; those elsewhere are ended here.
    async fn cleanup(&mut self, cx: &Context<Self>, _reason: &ExitReason) -> ActorResult {
        let all: Vec<usize> = (0..self.children.len()).collect();
        self.stop(cx, &all).await;
        Ok(())
    }
}

impl Handler<ListChildren> for Supervisor {
    async fn handle(
        &mut self,
        cx: &Context<Self>,
        ListChildren { reply }: ListChildren,
    ) -> ActorResult {
        cx.reply(reply, self.children.iter().map(Child::info).collect());
        Ok(())
    }
}

impl Handler<StartChild> for Supervisor {
    async fn handle(&mut self, cx: &Context<Self>, StartChild(spec): StartChild) -> ActorResult {
        let at = self.children.len();
        self.children.push(Child::new(spec));
        match self.start(cx, at).await {
            Ok(()) => Ok(()),
            Err(error) => {
                let event = self.not_started(cx, at, &error);
                self.restart(cx, at, event).await
            }
        }
    }
}

impl Handler<StopChild> for Supervisor {
    async fn handle(&mut self, cx: &Context<Self>, StopChild { name }: StopChild) -> ActorResult {
        // The place stays, because delayed starts count places; a later child may have the name again.
        let named = |child: &Child| child.spec.name == name && !matches!(child.state, State::Down);
        if let Some(at) = self.children.iter().position(named) {
            self.stop(cx, &[at]).await;
        }
        Ok(())
    }
}

impl Handler<Resume> for Supervisor {
    async fn handle(&mut self, cx: &Context<Self>, Resume(which): Resume) -> ActorResult {
        match self.resume(cx, which).await {
            Some((at, event)) => self.restart(cx, at, event).await,
            None => Ok(()),
        }
    }
}

/// The output, unless the supervisor is asked to stop before.
async fn unless_stopped<F: Future>(cx: &Context<Supervisor>, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|task| match future.as_mut().poll(task) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => cx.control().poll_stop(task).map(|()| None),
    })
    .await
}

/// Has the supervisor go on after a while, if it still lives then.
fn resume_later(cx: &Context<Supervisor>, delay: Duration, which: Vec<(usize, u64)>) {
    let cell: Weak<Cell<Supervisor>> = Arc::downgrade(cx.handle().cell());
    tokio::spawn(async move {
        tokio::time::sleep(delay).await;
        let mut message = Resume(which);
        while let Some(cell) = cell.upgrade() {
            let sender_hash = cell.actor_id().precomputed_hash();
            let meta = Meta::handle(sender_hash, None);
            match cell.inbox.push(Class::User, message, meta, None) {
                Err(refused) if refused.why == Refusal::Full => {
                    let capacity = cell.capacity();
                    drop(cell);
                    capacity.available().await;
                    message = refused.message;
                }
                Ok(_) | Err(_) => return,
            }
        }
    });
}

fn random() -> u64 {
    // Without a source of randomness there is no jitter, and the waits are as long as they may be.
    getrandom::u64().unwrap_or(u64::MAX)
}
