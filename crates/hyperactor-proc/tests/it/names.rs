//! Names and groups: who has which, from where they are found, and how they go with their actors.

use std::time::Duration;

use hyperactor_proc::{
    Actor, ActorResult, Context, Group, Handler, PortRef, Proc, limits, lookup_name,
};
use tokio::sync::mpsc;

use crate::common::{Add, Counter, Total, Wire, polled_once, soon};

#[tokio::test]
async fn a_name_leads_to_its_actor_until_that_ends() {
    let proc = Proc::isolated("p");
    let names = proc.names();
    let first = proc.spawn("first", Counter::default()).unwrap();
    let second = proc.spawn("second", Counter::default()).unwrap();
    names.register("main", first.actor_id()).unwrap();
    names.register("main", first.actor_id()).unwrap();
    names.register("other", first.actor_id()).unwrap();
    assert_eq!(names.lookup("main").as_ref(), Some(first.actor_id()));
    let taken = names.register("main", second.actor_id()).unwrap_err();
    assert_eq!(taken.code(), "name-taken");
    assert!(taken.to_string().contains("first[0]"), "{taken}");
    assert_eq!(names.list().len(), 2);

    first.stop();
    soon(first.join()).await;
    assert_eq!(names.list(), []);
    names.register("main", second.actor_id()).unwrap();
    assert_eq!(names.unregister("main").as_ref(), Some(second.actor_id()));
    assert_eq!(names.unregister("main"), None);
    assert!(proc.snapshot().actors[0].watchers.is_empty());
}

#[tokio::test]
async fn only_an_actor_of_the_proc_gets_a_name() {
    let wire = Wire::default();
    let (a, b) = (wire.proc("a"), wire.proc("b"));
    let elsewhere = b.spawn("counter", Counter::default()).unwrap();
    let error = a
        .names()
        .register("main", elsewhere.actor_id())
        .unwrap_err();
    assert_eq!(error.code(), "not-here");
    let error = a
        .names()
        .register("main", &a.actor_id("nobody"))
        .unwrap_err();
    assert_eq!(error.code(), "not-here");
    let here = a.spawn("counter", Counter::default()).unwrap();
    assert_eq!(
        a.names().register("", here.actor_id()).unwrap_err().code(),
        "bad-name"
    );
}

#[tokio::test(start_paused = true)]
async fn a_look_up_waits_for_the_name_and_not_longer_than_it_was_told() {
    let wire = Wire::default();
    let (a, b) = (wire.proc("a"), wire.proc("b"));
    let main = a.client("main").unwrap();
    let counter = b.spawn("counter", Counter::default()).unwrap();
    let names = b.names();
    let mut local = std::pin::pin!(names.lookup_within("late", Duration::from_secs(60)));
    let mut remote = std::pin::pin!(lookup_name(
        &main,
        b.proc_id(),
        "late",
        Duration::from_secs(60)
    ));
    assert!(polled_once(local.as_mut()).await.is_pending());
    assert!(polled_once(remote.as_mut()).await.is_pending());
    tokio::time::sleep(Duration::from_secs(30)).await;
    names.register("late", counter.actor_id()).unwrap();
    assert_eq!(local.await.as_ref(), Some(counter.actor_id()));
    assert_eq!(remote.await.unwrap().as_ref(), Some(counter.actor_id()));

    let start = tokio::time::Instant::now();
    let wait = Duration::from_secs(3);
    assert_eq!(names.lookup_within("never", wait).await, None);
    assert_eq!(
        lookup_name(&main, b.proc_id(), "never", wait).await,
        Ok(None)
    );
    assert_eq!(start.elapsed(), wait * 2);
    assert_eq!(
        lookup_name(&main, b.proc_id(), "never", Duration::ZERO).await,
        Ok(None)
    );
}

/// Tells what it is given.
#[derive(Actor)]
#[actor(messages(Add))]
struct Member {
    name: &'static str,
    seen: mpsc::UnboundedSender<(&'static str, u64)>,
}

impl Handler<Add> for Member {
    async fn handle(&mut self, _cx: &Context<Self>, Add(number): Add) -> ActorResult {
        Ok(self.seen.send((self.name, number))?)
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_has_members_of_many_procs_and_the_dead_leave_by_themselves() {
    let wire = Wire::default();
    let procs = ["a", "b", "c"].map(|name| wire.proc(name));
    let (seen, mut arrived) = mpsc::unbounded_channel();
    let group = Group::<Add>::new(procs[0].proc_id().clone(), "workers");
    let clients = procs.each_ref().map(|proc| proc.client("main").unwrap());
    let mut members = Vec::new();
    for (at, name) in ["a", "b", "c"].into_iter().enumerate() {
        let seen = seen.clone();
        let member = procs[at].spawn("member", Member { name, seen }).unwrap();
        let port: PortRef<Add> = member.bind().port();
        soon(group.join(&clients[at], &port)).await.unwrap();
        soon(group.join(&clients[at], &port)).await.unwrap();
        members.push(member);
    }
    assert_eq!(procs[0].snapshot().groups, [("workers".to_owned(), 3)]);
    assert_eq!(soon(group.broadcast(&clients[1], Add(7))).await, Ok(3));
    let mut got = [
        soon(arrived.recv()).await,
        soon(arrived.recv()).await,
        soon(arrived.recv()).await,
    ];
    got.sort_unstable();
    assert_eq!(got, [Some(("a", 7)), Some(("b", 7)), Some(("c", 7))]);

    // One ends, and a whole proc goes.
    members[1].stop();
    soon(members[1].join()).await;
    wire.cut("c");
    tokio::time::sleep(limits::BEAT_PERIOD * 4).await;
    assert_eq!(soon(group.broadcast(&clients[1], Add(8))).await, Ok(1));
    assert_eq!(soon(arrived.recv()).await, Some(("a", 8)));
    let left = members[0].bind().port();
    assert_eq!(soon(group.leave(&clients[0], &left)).await, Ok(true));
    assert_eq!(soon(group.leave(&clients[0], &left)).await, Ok(false));
    assert_eq!(soon(group.members(&clients[0])).await, Ok(Vec::new()));
    assert_eq!(procs[0].snapshot().groups, []);
}

#[tokio::test]
async fn groups_of_two_types_of_messages_may_have_one_name() {
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let counter = proc.spawn("counter", Counter::default()).unwrap().bind();
    let adds = Group::<Add>::new(proc.proc_id().clone(), "all");
    let totals = Group::<Total>::new(proc.proc_id().clone(), "all");
    soon(adds.join(&main, &counter.port())).await.unwrap();
    soon(adds.join(&main, &counter.port())).await.unwrap();
    assert_eq!(soon(totals.members(&main)).await, Ok(Vec::new()));
    assert_eq!(
        soon(adds.members(&main)).await.map(|members| members.len()),
        Ok(1)
    );
    let copy: Group<Add> = postcard::from_bytes(&postcard::to_stdvec(&adds).unwrap()).unwrap();
    assert_eq!(copy, adds);
    // A name that no actor could have is refused before it is kept.
    let endless = Group::<Add>::new(proc.proc_id().clone(), "x".repeat(1 << 20));
    let refused = soon(endless.join(&main, &counter.port()))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), "group-refused");
    let nonsense = lookup_name(&main, proc.proc_id(), "\n", Duration::from_secs(3600));
    assert_eq!(soon(nonsense).await, Ok(None));
}
