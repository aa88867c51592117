//! What an end tells to whom: the text of an event, the chain of an escalation, the order before messages, and watches
//! across procs that lose messages. The table of all cases, over sockets and processes too, is the suite `supervision`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyperactor_mailbox::{MailboxSender, MessageEnvelope, ReturnHandle, Unknown};
use hyperactor_proc::{
    Actor, ActorHandle, ActorResult, Context, Escalation, Event, Handler, MonitorId, Proc,
    Relation, limits,
};
use hyperactor_refs::{ActorId, Incarnation, ProcId};
use tokio::sync::mpsc;

use crate::common::{Wire, soon};

/// Does what it is told, and tells what it is told of.
#[derive(Actor)]
#[actor(hooks)]
struct Node {
    seen: mpsc::UnboundedSender<Event>,
    /// Whether it takes the default for what it is told of.
    passes_up: bool,
}

type Do = Box<dyn FnOnce(&Context<Node>) -> ActorResult + Send>;

impl Node {
    fn keeping() -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (seen, events) = mpsc::unbounded_channel();
        let passes_up = false;
        (Self { seen, passes_up }, events)
    }

    fn passing_up() -> Self {
        let (seen, _) = mpsc::unbounded_channel();
        let passes_up = true;
        Self { seen, passes_up }
    }
}

impl Actor for Node {
    async fn on_supervision(&mut self, _cx: &Context<Self>, event: Event) -> ActorResult {
        if self.passes_up && !event.is_orderly() {
            return Err(Escalation::new(event).into_error());
        }
        // A test that looks no longer has dropped its end.
        self.seen.send(event).ok();
        Ok(())
    }
}

impl Handler<Do> for Node {
    async fn handle(&mut self, cx: &Context<Self>, order: Do) -> ActorResult {
        order(cx)
    }
}

fn tell(
    proc: &Proc,
    node: &ActorHandle<Node>,
    order: impl FnOnce(&Context<Node>) -> ActorResult + Send + 'static,
) {
    let name = format!("teller-{}", node.actor_id().name());
    let teller = proc.client(&name).unwrap();
    assert!(node.post(&teller, Box::new(order) as Do).is_ok());
}

/// Has a node do something and waits for what it gives.
async fn ask<T: Send + 'static>(
    proc: &Proc,
    node: &ActorHandle<Node>,
    order: impl FnOnce(&Context<Node>) -> T + Send + 'static,
) -> T {
    let (done, answer) = tokio::sync::oneshot::channel();
    tell(proc, node, move |cx| {
        done.send(order(cx)).ok();
        Ok(())
    });
    soon(answer).await.unwrap()
}

fn fixed_proc(name: &str) -> Proc {
    let proc_id = format!("unix:@host,{name}").parse().unwrap();
    let forwarder = hyperactor_mailbox::UnroutableMailboxSender::default();
    Proc::with_incarnation(proc_id, Incarnation::new(7), forwarder.into_boxed())
}

#[tokio::test]
async fn an_event_prints_in_five_lines_who_why_where_after_what_and_to_whom() {
    let proc = fixed_proc("worker");
    let (top, mut events) = Node::keeping();
    let top = proc.spawn("top", top).unwrap();
    let middle = ask(&proc, &top, |cx| cx.spawn(Node::passing_up()).unwrap()).await;
    let leaf = ask(&proc, &middle, |cx| cx.spawn(Node::passing_up()).unwrap()).await;
    tell(&proc, &leaf, |_| {
        Err(hyperactor_proc::ActorError::from("disk is full\nreally").context("save page 3"))
    });
    let event = soon(events.recv()).await.unwrap();
    assert_eq!(
        event.to_string(),
        "`unix:@host,worker,top[1]` failed\n  \
           why:   the child `unix:@host,worker,top[2]` failed\n  \
           where: proc `unix:@host,worker`, life 0000000000000007\n  \
           after: `unix:@host,worker,top[2]` failed: save page 3: disk is full really\n  \
           told:  because it was a child"
    );
    let (first, cause) = event.root();
    assert_eq!(first, leaf.actor_id());
    assert_eq!(cause.code(), "failed");
    drop(middle);
}

#[tokio::test]
async fn a_panic_is_told_with_its_message_place_and_stack_and_travels_with_them() {
    let proc = fixed_proc("worker");
    let (node, _) = Node::keeping();
    let node = proc.spawn("node", node).unwrap();
    let monitor = proc.monitor(node.actor_id());
    tell(&proc, &node, |_| panic!("index {}\nis out of bounds", 7));
    let event = soon(monitor.ended()).await;
    let text = event.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 5, "{text}");
    assert_eq!(lines[0], "`unix:@host,worker,node[0]` panicked");
    assert_eq!(lines[1], "  why:   index 7 is out of bounds");
    assert!(lines[2].contains("supervision.rs:"), "{text}");
    assert_eq!(lines[3], "  after: nothing before it");
    let bytes = postcard::to_stdvec(&event).unwrap();
    assert!(bytes.len() < 32 * 1024, "{} bytes", bytes.len());
    let back: Event = postcard::from_bytes(&bytes).unwrap();
    assert_eq!(back.to_string(), text);
    let hyperactor_proc::Cause::Panicked(report) = &back.cause else {
        panic!("{back}");
    };
    let stack = report.backtrace.as_ref().unwrap().to_string();
    assert!(stack.contains("hyperactor_proc"), "{stack}");
}

/// Logs in which order it is given what.
#[derive(Actor)]
#[actor(hooks)]
struct Orderly {
    log: mpsc::UnboundedSender<&'static str>,
}

/// Monitors the actor, and waits.
struct Hold(ActorId, tokio::sync::oneshot::Receiver<()>);

impl Actor for Orderly {
    async fn on_supervision(&mut self, _cx: &Context<Self>, _event: Event) -> ActorResult {
        Ok(self.log.send("end")?)
    }
}

impl Handler<Hold> for Orderly {
    async fn handle(&mut self, cx: &Context<Self>, Hold(id, until): Hold) -> ActorResult {
        cx.monitor(&id)?;
        self.log.send("hold")?;
        Ok(until.await?)
    }
}

impl Handler<u8> for Orderly {
    async fn handle(&mut self, _cx: &Context<Self>, _: u8) -> ActorResult {
        Ok(self.log.send("message")?)
    }
}

#[tokio::test]
async fn the_end_of_another_goes_before_the_messages_that_wait() {
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let (log, mut logged) = mpsc::unbounded_channel();
    let orderly = proc.spawn("orderly", Orderly { log }).unwrap();
    let (target, _) = Node::keeping();
    let target = proc.spawn("target", target).unwrap();
    let (release, until) = tokio::sync::oneshot::channel();
    assert!(
        orderly
            .post(&main, Hold(target.actor_id().clone(), until))
            .is_ok()
    );
    assert_eq!(soon(logged.recv()).await, Some("hold"));
    for _ in 0..3 {
        orderly.post(&main, 1_u8).unwrap();
    }
    target.stop();
    soon(target.join()).await;
    release.send(()).unwrap();
    for expected in ["end", "message", "message", "message"] {
        assert_eq!(soon(logged.recv()).await, Some(expected));
    }
}

#[tokio::test]
async fn after_a_demonitor_nothing_is_told() {
    let proc = Proc::isolated("p");
    let (watcher, mut events) = Node::keeping();
    let watcher = proc.spawn("watcher", watcher).unwrap();
    let (target, _) = Node::keeping();
    let target = proc.spawn("target", target).unwrap();
    let id = target.actor_id().clone();
    let (first, second) = ask(&proc, &watcher, move |cx| {
        let first = cx.monitor(&id).unwrap();
        let second = cx.monitor(&id).unwrap();
        assert!(cx.demonitor(first));
        assert!(!cx.demonitor(first));
        (first, second)
    })
    .await;
    assert_ne!(first, second);
    target.stop();
    let event = soon(events.recv()).await.unwrap();
    assert_eq!(event.relation, Relation::Monitored(second));
    assert_eq!(event.cause.code(), "stopped");
    watcher.stop();
    assert!(soon(watcher.join()).await.is_orderly());
    assert!(soon(events.recv()).await.is_none());
}

#[tokio::test]
async fn a_monitor_of_an_actor_that_was_never_there_is_told_at_once() {
    let wire = Wire::default();
    let (a, b) = (wire.proc("a"), wire.proc("b"));
    for target in [a.actor_id("nobody"), b.actor_id("nobody")] {
        let event = soon(a.monitor(&target).ended()).await;
        assert_eq!(event.cause.code(), "no-such-actor");
        assert_eq!(event.actor_id, target);
    }
}

// V-04
#[tokio::test]
async fn a_monitor_that_comes_late_is_told_how_the_actor_had_ended() {
    let wire = Wire::default();
    let (a, b) = (wire.proc("a"), wire.proc("b"));
    let (target, _) = Node::keeping();
    let target = b.spawn("target", target).unwrap();
    tell(&b, &target, |_| Err("no disk".into()));
    soon(target.join()).await;
    for proc in [&a, &b] {
        let event = soon(proc.monitor(target.actor_id()).ended()).await;
        assert_eq!(event.cause.to_string(), "failed: no disk");
    }
}

#[tokio::test]
async fn a_client_that_is_dropped_is_told_as_stopped() {
    let wire = Wire::default();
    let (a, b) = (wire.proc("a"), wire.proc("b"));
    let client = b.client("main").unwrap();
    let monitor = a.monitor(client.actor_id());
    drop(client);
    assert_eq!(soon(monitor.ended()).await.cause.code(), "stopped");
}

/// Loses everything that it is given while it is told to, without a verdict.
#[derive(Clone)]
struct Lossy {
    wire: Wire,
    is_losing: Arc<AtomicBool>,
}

impl MailboxSender for Lossy {
    fn post_unchecked(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        if self.is_losing.load(Ordering::SeqCst) {
            return_handle.lost(Unknown::Dropped);
        } else {
            self.wire.post_unchecked(envelope, return_handle);
        }
    }
}

// V-06
#[tokio::test(start_paused = true)]
async fn a_watch_and_its_end_survive_lost_messages() {
    for is_end_lost in [false, true] {
        let wire = Wire::default();
        let losing = |value: bool| Arc::new(AtomicBool::new(value));
        let (of_a, of_b) = (losing(!is_end_lost), losing(is_end_lost));
        let lossy = |name: &str, is_losing: &Arc<AtomicBool>| {
            let proc_id: ProcId = format!("local:7,{name}").parse().unwrap();
            let lossy = Lossy {
                wire: wire.clone(),
                is_losing: Arc::clone(is_losing),
            };
            let proc = Proc::new(proc_id, lossy.into_boxed());
            wire.join(&proc);
            proc
        };
        let (a, b) = (lossy("a", &of_a), lossy("b", &of_b));
        let (target, _) = Node::keeping();
        let target = b.spawn("target", target).unwrap();
        let monitor = a.monitor(target.actor_id());
        target.stop();
        soon(target.join()).await;
        tokio::time::sleep(limits::BEAT_PERIOD).await;
        assert!(monitor.event().is_none());
        of_a.store(false, Ordering::SeqCst);
        of_b.store(false, Ordering::SeqCst);
        assert_eq!(soon(monitor.ended()).await.cause.code(), "stopped");
    }
}

// V-05
#[tokio::test(start_paused = true)]
async fn a_watch_that_the_far_side_has_forgotten_is_made_known_again() {
    let wire = Wire::default();
    let (a, b) = (wire.proc("a"), wire.proc("b"));
    let (target, _) = Node::keeping();
    let target = b.spawn("target", target).unwrap();
    let monitor = a.monitor(target.actor_id());
    tokio::time::sleep(limits::BEAT_PERIOD * 4).await;
    // For a while `b` does not reach `a`, while `a` reaches `b`.
    wire.cut("a");
    tokio::time::sleep(limits::BEAT_PERIOD * 8).await;
    wire.join(&a);
    tokio::time::sleep(limits::BEAT_PERIOD * 4).await;
    assert!(monitor.event().is_none());
    target.stop();
    assert_eq!(soon(monitor.ended()).await.cause.code(), "stopped");
}

#[tokio::test]
async fn the_watches_of_an_actor_end_with_it() {
    let wire = Wire::default();
    let (a, b) = (wire.proc("a"), wire.proc("b"));
    let (target, _) = Node::keeping();
    let target = b.spawn("target", target).unwrap();
    let (watcher, _) = Node::keeping();
    let watcher = a.spawn("watcher", watcher).unwrap();
    let id = target.actor_id().clone();
    ask(&a, &watcher, move |cx| cx.monitor(&id).unwrap()).await;
    let watchers = |proc: &Proc| proc.snapshot().actors[0].watchers.clone();
    assert_eq!(watchers(&b), [watcher.actor_id().clone()]);
    watcher.stop();
    soon(watcher.join()).await;
    assert_eq!(watchers(&b), []);
}

#[tokio::test]
async fn a_monitor_names_itself_in_its_event_and_in_its_text() {
    let proc = Proc::isolated("p");
    let (target, _) = Node::keeping();
    let target = proc.spawn("target", target).unwrap();
    let monitor = proc.monitor(target.actor_id());
    target.abort();
    let event = soon(monitor.ended()).await;
    let Relation::Monitored(id) = event.relation else {
        panic!("{event}");
    };
    let _: MonitorId = id;
    assert!(
        event
            .to_string()
            .ends_with(&format!("it was monitored ({id})"))
    );
    assert_eq!(event.cause.code(), "killed");
}

#[tokio::test]
async fn links_and_monitors_of_oneself_end_nothing() {
    let proc = Proc::isolated("p");
    let (node, _) = Node::keeping();
    let node = proc.spawn("node", node).unwrap();
    let own: ActorId = node.actor_id().clone();
    ask(&proc, &node, move |cx| cx.link(&own).unwrap()).await;
    let exit = soon(node.stop_within(Duration::from_secs(5))).await;
    assert!(exit.unwrap().is_orderly());
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_never_returns_is_ended_at_the_deadline_and_its_watchers_are_told() {
    struct Forever(tokio::sync::oneshot::Sender<()>);
    impl Handler<Forever> for Node {
        async fn handle(&mut self, _cx: &Context<Self>, begun: Forever) -> ActorResult {
            begun.0.send(()).ok();
            std::future::pending().await
        }
    }
    let proc = Proc::isolated("p");
    let (node, _) = Node::keeping();
    let node = proc.spawn("node", node).unwrap();
    let monitor = proc.monitor(node.actor_id());
    let main = proc.client("main").unwrap();
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    assert!(node.post(&main, Forever(begun)).is_ok());
    soon(has_begun).await.unwrap();
    let start = tokio::time::Instant::now();
    let exit = node.stop_within(Duration::from_secs(3)).await.unwrap();
    assert_eq!(exit.code(), "aborted");
    assert_eq!(start.elapsed(), Duration::from_secs(3));
    assert_eq!(monitor.event().unwrap().cause.code(), "killed");
}
