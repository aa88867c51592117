//! What is seen of a proc from outside: its snapshot, its actors' counters, and the spans of its tasks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyperactor_proc::{Actor, ActorResult, Context, Handler, Proc, TraceContext, read_snapshot};
use tokio::sync::oneshot;
use tracing_subscriber::layer::SubscriberExt;

use crate::common::{Add, Counter, Event, Forward, Gated, Total, Wire, soon};

#[tokio::test]
async fn a_snapshot_counts_what_actors_handled_and_what_waits_for_them() {
    let wire = Wire::default();
    let (a, b) = (wire.proc("a"), wire.proc("b"));
    let main = a.client("main").unwrap();
    let counter = b.spawn("counter", Counter::default()).unwrap().bind();
    let (gated, gate, mut events) = Gated::new();
    let gated = b.spawn("gated", gated).unwrap();
    for number in 0..10 {
        counter.post(&main, Add(number));
    }
    assert_eq!(soon(counter.ask(&main, Total)).await, Ok(45));
    let here = b.client("here").unwrap();
    gated.post(&here, Add(0)).unwrap();
    assert_eq!(soon(events.recv()).await, Some(Event::Handling(0)));
    for number in 1..=100 {
        gated.post(&here, Add(number)).unwrap();
    }

    // From another proc, and no actor of this one could answer: one is stuck, the other one is not asked.
    let snapshot = soon(read_snapshot(&main, b.proc_id())).await.unwrap();
    assert_eq!(*snapshot.proc_id, *b.proc_id());
    assert_eq!(snapshot.incarnation, b.incarnation());
    assert_eq!(snapshot.total, 2);
    assert_eq!(snapshot.clients, [here.actor_id().clone()]);
    let [counter, stuck] = &snapshot.actors[..] else {
        panic!("{snapshot:?}");
    };
    assert_eq!(counter.handled, 11);
    assert_eq!(counter.queued, 0);
    assert_eq!(counter.message, None);
    assert!(
        counter.actor_type.ends_with("::Counter"),
        "{}",
        counter.actor_type
    );
    assert_eq!(stuck.status, "running");
    assert_eq!(stuck.handled, 0);
    assert_eq!(stuck.queued, 100);
    assert!(
        stuck.message.as_ref().unwrap().ends_with("::Add"),
        "{stuck:?}"
    );
    assert!(stuck.busy_for.unwrap() <= stuck.busy);

    gate.add_permits(101);
    while soon(events.recv()).await != Some(Event::Handled(100)) {}
    hyperactor_testkit::eventually(Duration::from_secs(20), || {
        let actors = b.snapshot().actors;
        actors[1].handled == 101 && actors[1].queued == 0 && actors[1].busy_for.is_none()
    })
    .await;
}

#[tokio::test]
async fn a_snapshot_shows_who_is_whose_child_and_who_watches_whom() {
    /// Spawns a child that is linked with it.
    #[derive(Actor)]
    struct Parent;
    impl Handler<oneshot::Sender<()>> for Parent {
        async fn handle(&mut self, cx: &Context<Self>, done: oneshot::Sender<()>) -> ActorResult {
            let child = cx.spawn(Counter::default())?;
            cx.link(child.actor_id())?;
            done.send(()).map_err(|()| "the test has ended")?;
            Ok(())
        }
    }
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let parent = proc.spawn("parent", Parent).unwrap();
    let (done, is_done) = oneshot::channel();
    assert!(parent.post(&main, done).is_ok());
    soon(is_done).await.unwrap();
    proc.names().register("boss", parent.actor_id()).unwrap();
    let snapshot = proc.snapshot();
    let [parent, child] = &snapshot.actors[..] else {
        panic!("{snapshot:?}");
    };
    assert_eq!(parent.children, std::slice::from_ref(&child.actor_id));
    assert_eq!(child.parent.as_ref(), Some(&parent.actor_id));
    assert_eq!(parent.links, std::slice::from_ref(&child.actor_id));
    assert_eq!(child.links, std::slice::from_ref(&parent.actor_id));
    assert!(child.watchers.contains(&parent.actor_id));
    assert_eq!(
        snapshot.names,
        [("boss".to_owned(), parent.actor_id.clone())]
    );
    let bytes = postcard::to_stdvec(&snapshot).unwrap();
    let back: hyperactor_proc::ProcSnapshot = postcard::from_bytes(&bytes).unwrap();
    assert_eq!(back.actors, snapshot.actors);
}

#[tokio::test]
async fn an_actor_that_waits_in_its_handler_counts_as_busy_and_one_without_messages_does_not() {
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let (gated, gate, mut events) = Gated::new();
    let gated = proc.spawn("gated", gated).unwrap();
    let busy = || proc.snapshot().actors[0].clone();
    gated.post(&main, Add(0)).unwrap();
    assert_eq!(soon(events.recv()).await, Some(Event::Handling(0)));
    let start = std::time::Instant::now();
    hyperactor_testkit::eventually(Duration::from_secs(20), || {
        busy()
            .busy_for
            .is_some_and(|time| time > Duration::from_millis(20))
    })
    .await;
    gate.add_permits(1);
    hyperactor_testkit::eventually(Duration::from_secs(20), || busy().busy_for.is_none()).await;
    let total = busy().busy;
    assert!(total >= Duration::from_millis(20), "{total:?}");
    assert!(
        total <= start.elapsed() + Duration::from_millis(100),
        "{total:?}"
    );
    assert_eq!(busy().busy, total);
}

/// The spans of handled messages, as they are made on this thread.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<HashMap<String, String>>>>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Spans {
    fn on_new_span(
        &self,
        attributes: &tracing::span::Attributes<'_>,
        _id: &tracing::span::Id,
        _cx: tracing_subscriber::layer::Context<'_, S>,
    ) {
        struct Fields(HashMap<String, String>);
        impl tracing::field::Visit for Fields {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0.insert(field.name().to_owned(), format!("{value:?}"));
            }
        }
        let mut fields = Fields(HashMap::new());
        let name = attributes.metadata().name().to_owned();
        fields.0.insert("name".to_owned(), name);
        attributes.record(&mut fields);
        self.0.lock().unwrap().push(fields.0);
    }
}

impl Spans {
    fn of(&self, name: &str) -> Vec<HashMap<String, String>> {
        let spans = self.0.lock().unwrap();
        spans
            .iter()
            .filter(|span| span["name"] == name)
            .cloned()
            .collect()
    }
}

#[tokio::test]
async fn a_trace_goes_with_its_messages_from_actor_to_actor_and_from_proc_to_proc() {
    let spans = Spans::default();
    let subscriber = tracing_subscriber::registry().with(spans.clone());
    let _guard = tracing::subscriber::set_default(subscriber);
    let wire = Wire::default();
    let (a, b) = (wire.proc("a"), wire.proc("b"));
    let main = a.client("main").unwrap();
    let (relay, _gate, _events) = Gated::new();
    let relay = a.spawn("relay", relay).unwrap();
    let counter = b.spawn("counter", Counter::default()).unwrap().bind();

    let root: TraceContext = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        .parse()
        .unwrap();
    main.set_trace(Some(root));
    // Through a handle, and from there over the wire.
    let forward = Forward {
        to: counter.port(),
        number: 5,
    };
    relay.post(&main, forward).unwrap();
    relay.drain();
    soon(relay.join()).await;
    main.set_trace(None);
    assert_eq!(soon(counter.ask(&main, Total)).await, Ok(5));

    let handled = spans.of("handle");
    let [first, second, third] = &handled[..] else {
        panic!("{handled:#?}");
    };
    assert_eq!(first["actor"], relay.actor_id().to_string());
    assert!(first["message"].contains("Forward"), "{first:?}");
    assert_eq!(first["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(first["parent_id"], "00f067aa0ba902b7");
    assert_eq!(second["actor"], counter.actor_id().to_string());
    assert_eq!(second["trace_id"], first["trace_id"]);
    assert_eq!(second["parent_id"], first["span_id"]);
    assert_ne!(second["span_id"], first["span_id"]);
    // The question afterwards belongs to no trace.
    assert!(!third.contains_key("trace_id"), "{third:?}");
    let actors = spans.of("actor");
    assert_eq!(actors[0]["id"], relay.actor_id().to_string());
    assert_eq!(actors[1]["id"], counter.actor_id().to_string());
}

#[tokio::test]
async fn an_actor_may_begin_a_trace_and_it_ends_with_its_message() {
    struct Begin(oneshot::Sender<TraceContext>);
    struct Ask(oneshot::Sender<Option<TraceContext>>);
    #[derive(Actor)]
    struct Traced;
    impl Handler<Begin> for Traced {
        async fn handle(&mut self, cx: &Context<Self>, Begin(reply): Begin) -> ActorResult {
            assert_eq!(cx.trace(), None);
            let trace = TraceContext::root();
            cx.set_trace(Some(trace));
            assert_eq!(cx.trace(), Some(trace));
            Ok(reply.send(trace).map_err(|_| "the test has ended")?)
        }
    }
    impl Handler<Ask> for Traced {
        async fn handle(&mut self, cx: &Context<Self>, Ask(reply): Ask) -> ActorResult {
            Ok(reply.send(cx.trace()).map_err(|_| "the test has ended")?)
        }
    }
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let traced = proc.spawn("traced", Traced).unwrap();
    let (reply, begun) = oneshot::channel();
    assert!(traced.post(&main, Begin(reply)).is_ok());
    let (reply, after) = oneshot::channel();
    assert!(traced.post(&main, Ask(reply)).is_ok());
    soon(begun).await.unwrap();
    assert_eq!(soon(after).await.unwrap(), None);
}
