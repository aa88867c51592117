//! What is seen of a proc from outside: its snapshot, its actors' counters, and the spans of its tasks.

use std::time::Duration;

use hyperactor_proc::{Actor, ActorResult, Context, Handler, Proc, read_snapshot};
use tokio::sync::oneshot;

use crate::common::{Add, Counter, Event, Gated, Total, Wire, soon};

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
