//! Spawning, failing, panicking, names, children, and what is left of an actor that ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyperactor_mailbox::MailboxSender;
use hyperactor_proc::{
    Actor, ActorError, ActorExit, ActorHandle, ActorResult, ActorStatus, Cause, Context,
    ExitReason, Handler, Outbox, Proc, Relation, SpawnError,
};
use hyperactor_refs::ActorId;
use tokio::sync::{mpsc, oneshot};

use crate::common::{Add, Counter, Event, Gated, Total, soon};

#[test]
fn a_proc_is_made_and_inspected_without_a_runtime() {
    let proc = Proc::isolated("p");
    assert_eq!(proc.proc_id().name(), "p");
    assert!(proc.actors().is_empty());
    let client = proc.client("main").unwrap();
    assert_eq!(Outbox::actor_id(&client), &proc.actor_id("main"));
    let _boxed = proc.boxed();
}

#[test]
fn two_lives_of_a_proc_differ_in_their_incarnation() {
    let a = Proc::isolated("p").incarnation();
    assert_ne!(a, Proc::isolated("p").incarnation());
}

#[test]
fn spawning_without_a_runtime_is_a_typed_error() {
    let error = Proc::isolated("p")
        .spawn("counter", Counter::default())
        .unwrap_err();
    assert_eq!(error.code(), "no-runtime");
    assert!(error.to_string().contains("`counter`"), "{error}");
}

#[tokio::test]
async fn a_name_is_taken_while_its_actor_lives_and_free_when_join_returns() {
    let proc = Proc::isolated("p");
    let first = proc.spawn("counter", Counter::default()).unwrap();
    let error = proc.spawn("counter", Counter::default()).unwrap_err();
    assert_eq!(error.code(), "name-taken");
    assert_eq!(proc.client("counter").unwrap_err().code(), "name-taken");
    first.stop();
    assert!(soon(first.join()).await.is_orderly());
    let second = proc.spawn("counter", Counter { total: 1 }).unwrap();
    // The reference is by name, so it reaches the one that has the name now.
    let main = proc.client("main").unwrap();
    first.bind();
    assert_eq!(soon(second.bind().ask(&main, Total)).await, Ok(1));
}

#[tokio::test]
async fn a_clients_name_is_free_when_it_is_dropped() {
    let proc = Proc::isolated("p");
    let client = proc.client("main").unwrap();
    assert_eq!(proc.client("main").unwrap_err().code(), "name-taken");
    drop(client);
    proc.client("main").unwrap();
}

#[tokio::test]
async fn bad_names_are_refused_with_the_reason() {
    let proc = Proc::isolated("p");
    for name in ["", "a\0b", &"x".repeat(10_000)] {
        let error = proc.spawn(name, Counter::default()).unwrap_err();
        assert_eq!(error.code(), "bad-name", "{error}");
    }
}

/// Runs one piece of code in the hook that a test chooses.
#[derive(Actor, Default)]
#[actor(hooks)]
struct Scripted {
    init: Option<fn() -> ActorResult>,
    cleanup: Option<fn() -> ActorResult>,
    drop: Option<fn()>,
    /// Told by `cleanup`.
    reason: Option<oneshot::Sender<ExitReason>>,
}

impl Actor for Scripted {
    async fn init(&mut self, _cx: &Context<Self>) -> ActorResult {
        self.init.map_or(Ok(()), |init| init())
    }

    async fn cleanup(&mut self, _cx: &Context<Self>, reason: &ExitReason) -> ActorResult {
        if let Some(told) = self.reason.take() {
            told.send(reason.clone())
                .map_err(|_| "the test has ended")?;
        }
        self.cleanup.map_or(Ok(()), |cleanup| cleanup())
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        if let Some(drop) = self.drop {
            drop();
        }
    }
}

impl Handler<fn() -> ActorResult> for Scripted {
    async fn handle(&mut self, _cx: &Context<Self>, run: fn() -> ActorResult) -> ActorResult {
        // Not in the first poll, so that a panic happens in a task that was resumed.
        tokio::task::yield_now().await;
        run()
    }
}

fn scripted() -> (Scripted, oneshot::Receiver<ExitReason>) {
    let (told, reason) = oneshot::channel();
    let actor = Scripted {
        reason: Some(told),
        ..Scripted::default()
    };
    (actor, reason)
}

async fn exit_after(proc: &Proc, actor: Scripted, message: fn() -> ActorResult) -> ActorExit {
    let main = proc.client("main").unwrap();
    let handle = proc.spawn("scripted", actor).unwrap();
    handle.post(&main, message).unwrap();
    soon(handle.join()).await
}

#[tokio::test]
async fn a_handlers_error_fails_the_actor_after_its_cleanup() {
    let (actor, reason) = scripted();
    let exit = exit_after(&Proc::isolated("p"), actor, || {
        Err(ActorError::from("disk is full").context("save"))
    })
    .await;
    let ActorExit::Failed(error) = exit else {
        panic!("{exit}");
    };
    assert_eq!(error.to_string(), "save: disk is full");
    assert!(matches!(soon(reason).await, Ok(ExitReason::Failed(_))));
}

#[tokio::test]
async fn an_init_that_fails_is_seen_by_join_and_runs_no_cleanup() {
    let (mut actor, reason) = scripted();
    actor.init = Some(|| Err("no device".into()));
    let handle = Proc::isolated("p");
    let handle = handle.spawn("scripted", actor).unwrap();
    let exit = soon(handle.join()).await;
    assert_eq!(exit.to_string(), "failed: init: no device");
    assert!(soon(reason).await.is_err());
}

fn assert_panicked(exit: &ActorExit, message: &str) {
    let ActorExit::Panicked(report) = exit else {
        panic!("{exit}");
    };
    assert_eq!(report.message, message);
    let location = report.location.as_deref().unwrap();
    assert!(location.contains("lifecycle.rs:"), "{location}");
    let stack = report.backtrace.as_ref().unwrap().to_string();
    assert!(stack.contains("lifecycle"), "{stack}");
}

#[tokio::test]
async fn a_panic_in_a_handler_is_reported_and_its_neighbours_live() {
    let proc = Proc::isolated("p");
    let neighbour = proc.spawn("neighbour", Counter::default()).unwrap().bind();
    let (actor, reason) = scripted();
    let exit = exit_after(&proc, actor, || panic!("broke {}", 7)).await;
    assert_panicked(&exit, "broke 7");
    // A state that panicked is not trusted with a cleanup.
    assert!(soon(reason).await.is_err());
    let main = proc.client("main").unwrap();
    assert_eq!(soon(neighbour.ask(&main, Total)).await, Ok(0));
}

#[tokio::test]
async fn a_panic_in_init_in_cleanup_and_in_drop_is_reported() {
    let proc = Proc::isolated("p");
    let stop: fn() -> ActorResult = || Ok(());

    let (mut actor, _reason) = scripted();
    actor.init = Some(|| panic!("in init"));
    assert_panicked(&exit_after(&proc, actor, stop).await, "in init");

    for (cleanup, message) in [(true, "in cleanup"), (false, "in drop")] {
        let (mut actor, _reason) = scripted();
        if cleanup {
            actor.cleanup = Some(|| panic!("in cleanup"));
        } else {
            actor.drop = Some(|| panic!("in drop"));
        }
        let handle = proc.spawn("scripted", actor).unwrap();
        handle.stop();
        assert_panicked(&soon(handle.join()).await, message);
    }
}

#[tokio::test]
async fn a_cleanup_that_fails_makes_the_exit_failed_unless_it_had_failed_before() {
    let proc = Proc::isolated("p");
    let (mut actor, _reason) = scripted();
    actor.cleanup = Some(|| Err("second".into()));
    let handle = proc.spawn("scripted", actor).unwrap();
    handle.stop();
    let exit = soon(handle.join()).await;
    assert_eq!(exit.to_string(), "failed: cleanup: second");

    let (mut actor, _reason) = scripted();
    actor.cleanup = Some(|| Err("second".into()));
    let exit = exit_after(&proc, actor, || Err("first".into())).await;
    assert_eq!(exit.to_string(), "failed: first");
}

#[derive(Actor)]
#[actor(hooks)]
struct Lingering;

impl Actor for Lingering {
    async fn cleanup(&mut self, _cx: &Context<Self>, _reason: &ExitReason) -> ActorResult {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_cleanup_that_hangs_is_ended_at_its_deadline() {
    let proc = Proc::isolated("p");
    let handle = proc.spawn("lingering", Lingering).unwrap();
    handle.stop();
    let start = tokio::time::Instant::now();
    assert!(matches!(handle.join().await, ActorExit::Aborted));
    assert_eq!(start.elapsed(), hyperactor_proc::limits::CLEANUP_DEADLINE);
}

#[tokio::test]
async fn the_status_tells_each_step_of_a_life() {
    let proc = Proc::isolated("p");
    let handle = proc.spawn("counter", Counter::default()).unwrap();
    let mut status = handle.status();
    assert!(matches!(*status.borrow(), ActorStatus::Starting));
    soon(status.wait_for(|status| matches!(status, ActorStatus::Running)))
        .await
        .unwrap();
    assert_eq!(proc.actors().len(), 1);
    assert_eq!(proc.actors()[0].actor_id, *handle.actor_id());
    handle.stop();
    soon(status.wait_for(|status| status.exit().is_some()))
        .await
        .unwrap();
    assert!(proc.actors().is_empty());
}

/// Spawns children, and tells their ends.
#[derive(Actor)]
#[actor(hooks)]
struct Parent {
    children: Vec<ActorHandle<Gated>>,
    ends: mpsc::UnboundedSender<(ActorId, Cause)>,
}

struct Spawn(
    oneshot::Sender<Result<ActorHandle<Gated>, SpawnError>>,
    Gated,
);

impl Actor for Parent {
    async fn on_supervision(
        &mut self,
        _cx: &Context<Self>,
        event: hyperactor_proc::Event,
    ) -> ActorResult {
        assert_eq!(event.relation, Relation::Child);
        self.ends
            .send((event.actor_id, event.cause))
            .map_err(|_| "the test has ended")?;
        Ok(())
    }
}

impl Handler<Spawn> for Parent {
    async fn handle(&mut self, cx: &Context<Self>, Spawn(reply, child): Spawn) -> ActorResult {
        let handle = cx.spawn(child);
        self.children.extend(handle.iter().cloned());
        reply.send(handle).map_err(|_| "the test has ended")?;
        Ok(())
    }
}

async fn with_child(
    proc: &Proc,
) -> (
    ActorHandle<Parent>,
    ActorHandle<Gated>,
    mpsc::UnboundedReceiver<Event>,
    mpsc::UnboundedReceiver<(ActorId, Cause)>,
) {
    let (ends, ended) = mpsc::unbounded_channel();
    let parent = Parent {
        children: Vec::new(),
        ends,
    };
    let parent = proc.spawn("parent", parent).unwrap();
    let main = proc.client("spawner").unwrap();
    let (child, _gate, events) = Gated::new();
    let (reply, handle) = oneshot::channel();
    assert!(parent.post(&main, Spawn(reply, child)).is_ok());
    let child = soon(handle).await.unwrap().unwrap();
    (parent, child, events, ended)
}

#[tokio::test]
async fn a_child_has_its_parents_name_and_ends_before_its_parents_end_is_seen() {
    let proc = Proc::isolated("p");
    let (parent, child, _events, mut ended) = with_child(&proc).await;
    assert_eq!(child.actor_id().name(), "parent");
    assert_ne!(child.actor_id().index(), 0);
    parent.stop();
    assert!(soon(parent.join()).await.is_orderly());
    assert!(matches!(*child.status().borrow(), ActorStatus::Ended(_)));
    // The end of a child that ends with its parent is no news to it.
    assert!(ended.recv().await.is_none());
}

#[tokio::test]
async fn a_parent_is_told_of_a_child_that_ends_by_itself() {
    let proc = Proc::isolated("p");
    let (parent, child, _events, mut ended) = with_child(&proc).await;
    child.abort();
    let (id, cause) = soon(ended.recv()).await.unwrap();
    assert_eq!(id, *child.actor_id());
    assert_eq!(cause.code(), "killed");
    assert!(matches!(*parent.status().borrow(), ActorStatus::Running));
}

#[tokio::test]
async fn an_aborted_parent_takes_its_children_along() {
    let proc = Proc::isolated("p");
    let (parent, child, mut events, _ended) = with_child(&proc).await;
    parent.abort();
    assert_eq!(soon(parent.join()).await.code(), "aborted");
    assert_eq!(soon(child.join()).await.code(), "aborted");
    assert_eq!(soon(events.recv()).await, Some(Event::Dropped));
}

#[tokio::test(start_paused = true)]
async fn a_child_that_does_not_stop_in_time_is_aborted() {
    let proc = Proc::isolated("p");
    let (parent, child, mut events, _ended) = with_child(&proc).await;
    let main = proc.client("main").unwrap();
    child.post(&main, Add(0)).unwrap();
    assert_eq!(events.recv().await, Some(Event::Handling(0)));
    parent.stop();
    let start = tokio::time::Instant::now();
    assert!(parent.join().await.is_orderly());
    assert_eq!(start.elapsed(), hyperactor_proc::limits::CHILDREN_DEADLINE);
    assert_eq!(child.join().await.code(), "aborted");
}

#[tokio::test]
async fn dropping_the_last_owner_of_a_proc_stops_its_actors_and_bounces_what_is_sent() {
    let proc = Proc::isolated("p");
    let proc_id = proc.proc_id().clone();
    let main = proc.client("main").unwrap();
    let (actor, _gate, mut events) = Gated::new();
    let handle = proc.spawn("gated", actor).unwrap();
    let counter = proc.spawn("counter", Counter::default()).unwrap().bind();
    drop(proc);
    assert!(soon(handle.join()).await.is_orderly());
    assert_eq!(soon(events.recv()).await, Some(Event::Dropped));

    counter.post(&main, Add(1));
    let report = soon(main.next_undeliverable()).await;
    assert_eq!(report.failure.code(), "proc-gone");
    assert!(
        report.to_string().contains(&proc_id.to_string()),
        "{report}"
    );
    assert_eq!(
        handle.post(&main, Add(1)).unwrap_err().code(),
        "actor-stopped"
    );
    assert_eq!(
        soon(counter.ask(&main, Total)).await.unwrap_err().code(),
        "proc-gone"
    );
}

#[test]
fn an_actor_whose_runtime_ends_is_dropped_and_its_end_is_known() {
    let proc = Proc::isolated("p");
    let (actor, _gate, mut events) = Gated::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let handle = runtime.block_on(async {
        let handle = proc.spawn("gated", actor).unwrap();
        let mut status = handle.status();
        soon(status.wait_for(|status| matches!(status, ActorStatus::Running)))
            .await
            .unwrap();
        handle
    });
    drop(runtime);
    assert_eq!(events.try_recv(), Ok(Event::Dropped));
    assert_eq!(handle.status().borrow().exit().unwrap().code(), "aborted");
    assert!(proc.actors().is_empty());
}

#[tokio::test]
async fn a_queued_message_whose_drop_panics_ends_nothing_else() {
    struct Bomb(Arc<AtomicBool>);
    impl Drop for Bomb {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
            panic!("dropped");
        }
    }
    impl Handler<Bomb> for Gated {
        async fn handle(&mut self, _cx: &Context<Self>, _: Bomb) -> ActorResult {
            Ok(())
        }
    }
    let proc = Proc::isolated("p");
    // Gone when the actor ends, so that the report that carries the message is dropped there.
    let sender = proc.client("sender").unwrap();
    let (actor, _gate, mut events) = Gated::new();
    let handle = proc.spawn("gated", actor).unwrap();
    handle.post(&sender, Add(0)).unwrap();
    assert_eq!(soon(events.recv()).await, Some(Event::Handling(0)));
    let dropped = Arc::new(AtomicBool::new(false));
    assert!(handle.post(&sender, Bomb(Arc::clone(&dropped))).is_ok());
    handle.post(&sender, Add(1)).unwrap();
    drop(sender);
    handle.abort();
    assert_eq!(soon(handle.join()).await.code(), "aborted");
    assert!(dropped.load(Ordering::SeqCst));
    assert_eq!(proc.traffic().unhandled, 2);
}

#[tokio::test(start_paused = true)]
async fn an_idle_actor_sleeps() {
    // With a paused clock, a timer fires only when everything else is idle: an actor that polled itself would keep
    // this from ever returning.
    let proc = Proc::isolated("p");
    let _handle = proc.spawn("counter", Counter::default()).unwrap();
    tokio::time::sleep(Duration::from_secs(3600)).await;
}

#[test]
fn an_actor_lives_and_ends_on_a_runtime_without_a_timer() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let proc = Proc::isolated("p");
    let exit = runtime.block_on(async {
        let main = proc.client("main").unwrap();
        let (parent, reason) = scripted();
        let handle = proc.spawn("scripted", parent).unwrap();
        handle
            .post(&main, (|| Ok(())) as fn() -> ActorResult)
            .unwrap();
        handle.drain();
        let exit = handle.join().await;
        assert!(matches!(reason.await, Ok(ExitReason::Drained)));
        exit
    });
    assert!(exit.is_orderly(), "{exit}");
}

#[tokio::test]
async fn a_port_that_panics_when_it_is_closed_does_not_hide_the_end_of_its_actor() {
    struct Angry;
    impl hyperactor_mailbox::PortSink for Angry {
        fn deliver(
            &self,
            _: hyperactor_mailbox::MessageEnvelope,
            _: hyperactor_mailbox::ReturnHandle,
        ) {
        }
        fn closed(&self) {
            panic!("closed");
        }
    }
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    #[derive(Actor)]
    struct Binds;
    impl Handler<()> for Binds {
        async fn handle(&mut self, cx: &Context<Self>, (): ()) -> ActorResult {
            Ok(cx.mailbox().bind_sink(7, Arc::new(Angry))?)
        }
    }
    let binds = proc.spawn("binds", Binds).unwrap();
    binds.post(&main, ()).unwrap();
    binds.drain();
    assert!(soon(binds.join()).await.is_orderly());
    assert!(proc.spawn("binds", Binds).is_ok());
}
