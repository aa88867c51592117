//! The actor that all cases are played with: it does what it is ordered, and reports what it is told.

use std::time::Duration;

use hyperactor::prelude::*;
use hyperactor::proc::{ChildSpec, Event, Relation, Strategy, Supervisor};
use serde::{Deserialize, Serialize};

pub(crate) fn registry() -> Registry {
    Registry::new().with::<Node>()
}

/// What a node reports.
#[derive(Clone, Debug, PartialEq, Eq, Message, Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) node: String,
    pub(crate) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq, Message, Serialize, Deserialize)]
pub(crate) enum What {
    Started,
    /// It was asked to stop, and cleans up.
    Stopped,
    /// It was told of an end: of whom, as what, how, and the full text.
    Told {
        actor: ActorId,
        relation: String,
        code: String,
        text: String,
    },
}

#[derive(Clone, Debug, Message, Serialize, Deserialize)]
pub(crate) struct NodeParams {
    pub(crate) name: String,
    pub(crate) notes: PortRef<Note>,
    /// Whether it reports what it is told; else it does the default.
    pub(crate) traps: bool,
}

#[derive(Actor)]
#[actor(hooks, messages(Order, Ping))]
pub(crate) struct Node {
    params: NodeParams,
    monitors: Vec<hyperactor::proc::MonitorId>,
}

#[derive(Clone, Debug, Message, Serialize, Deserialize)]
pub(crate) enum Order {
    Link(ActorId),
    Unlink(ActorId),
    Monitor(ActorId),
    /// Ends all its monitors.
    Demonitor,
    End(End),
    /// Takes a name in its proc.
    Register(String),
    /// Supervises a node in another proc, through a supervisor that is its child.
    Supervise(ProcId, NodeParams),
    /// Ends the process with this status.
    Exit(i32),
    /// Ends the process by a signal.
    Crash,
}

/// How a node is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Message, Serialize, Deserialize)]
pub(crate) enum End {
    Stop,
    Drain,
    Fail,
    Panic,
    Kill,
}

#[derive(Message, Serialize, Deserialize)]
pub(crate) struct Ping(pub(crate) OncePortRef<()>);

impl Node {
    pub(crate) fn new(params: NodeParams) -> Self {
        Self {
            params,
            monitors: Vec::new(),
        }
    }

    fn report(&self, cx: &Context<Self>, what: What) {
        let node = self.params.name.clone();
        self.params.notes.post(cx, Note { node, what });
    }
}

impl RemoteSpawn for Node {
    type Params = NodeParams;

    fn create(params: NodeParams) -> Result<Self, ActorError> {
        Ok(Self::new(params))
    }
}

impl Actor for Node {
    async fn init(&mut self, cx: &Context<Self>) -> ActorResult {
        self.report(cx, What::Started);
        Ok(())
    }

    async fn on_supervision(&mut self, cx: &Context<Self>, event: Event) -> ActorResult {
        if !self.params.traps {
            let is_passed_up =
                !matches!(event.relation, Relation::Monitored(_)) && !event.is_orderly();
            return if is_passed_up {
                Err(hyperactor::proc::Escalation::new(event).into_error())
            } else {
                Ok(())
            };
        }
        let relation = match event.relation {
            Relation::Child => "child",
            Relation::Linked => "linked",
            Relation::Monitored(_) => "monitored",
            _ => "other",
        };
        let told = What::Told {
            actor: event.actor_id.clone(),
            relation: relation.to_owned(),
            code: event.cause.code().to_owned(),
            text: event.to_string(),
        };
        self.report(cx, told);
        Ok(())
    }

    async fn cleanup(&mut self, cx: &Context<Self>, reason: &ExitReason) -> ActorResult {
        if matches!(reason, ExitReason::Stopped) {
            self.report(cx, What::Stopped);
        }
        Ok(())
    }
}

impl Handler<Ping> for Node {
    async fn handle(&mut self, cx: &Context<Self>, Ping(reply): Ping) -> ActorResult {
        cx.reply(reply, ());
        Ok(())
    }
}

impl Handler<Order> for Node {
    async fn handle(&mut self, cx: &Context<Self>, order: Order) -> ActorResult {
        match order {
            Order::Link(other) => cx.link(&other)?,
            Order::Unlink(other) => cx.unlink(&other),
            Order::Monitor(other) => self.monitors.push(cx.monitor(&other)?),
            Order::Demonitor => {
                for id in self.monitors.drain(..) {
                    cx.demonitor(id);
                }
            }
            Order::Register(name) => cx.proc()?.names().register(&name, cx.actor_id())?,
            Order::Supervise(place, child) => {
                let child = ChildSpec::remote::<Self>(child.name.clone(), place, child);
                cx.spawn(Supervisor::new(Strategy::OneForOne).child(child))?;
            }
            Order::End(end) => return self.end(cx, end).await,
            Order::Exit(status) => std::process::exit(status),
            Order::Crash => std::process::abort(),
        }
        Ok(())
    }
}

impl Node {
    async fn end(&self, cx: &Context<Self>, end: End) -> ActorResult {
        match end {
            End::Stop => cx.stop(),
            End::Drain => cx.drain(),
            End::Fail => return Err(ActorError::from("no disk").context("save")),
            End::Panic => panic!("broken on purpose"),
            End::Kill => {
                cx.handle().abort();
                tokio::time::sleep(Duration::from_secs(3600)).await;
            }
        }
        Ok(())
    }
}
