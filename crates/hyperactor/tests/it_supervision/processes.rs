//! Whole processes that die: who is told, how soon, with which certificate, and what is started again.

use std::time::{Duration, Instant};

use hyperactor::host::RestartPolicy;
use hyperactor::prelude::*;
use hyperactor::proc::{Backoff, ChildSpec, Strategy, Supervisor};
use libtest_mimic::Trial;

use crate::nodes::{End, Node, Note, Order, Ping, What};
use crate::trial;
use crate::worlds::{Kind, Place, World, soon};

/// How soon the death of a process of the same host is known.
const PROMPT: Duration = Duration::from_secs(1);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "processes::a_death_is_told_with_its_certificate_within_a_second",
            certificate,
        ),
        trial("processes::a_death_takes_the_linked_along", linked),
        trial(
            "processes::what_a_dead_process_watched_is_forgotten",
            forgotten,
        ),
        trial(
            "processes::children_elsewhere_end_with_the_process_of_their_supervisor",
            orphans,
        ),
        trial(
            "processes::a_child_is_started_again_in_the_next_life_of_its_proc",
            next_life,
        ),
        trial(
            "processes::a_name_is_found_and_a_group_loses_its_dead",
            names_and_groups,
        ),
        trial("processes::a_death_is_known_on_another_host", two_hosts),
    ]
}

fn host(world: &World) -> &Host {
    world.host().expect("a world of processes")
}

async fn spawn_in(
    world: &mut World,
    hosted: &HostedProc,
    name: &str,
    traps: bool,
) -> ActorRef<Node> {
    let params = world.params(name, traps);
    let node = soon(hosted.spawn::<Node>(&world.client, name, params))
        .await
        .unwrap();
    assert_eq!(world.next_note().await.what, What::Started);
    node
}

/// Waits until a watch has reached the proc of the watched.
async fn watched(world: &World, node: &ActorRef<Node>, watchers: usize) {
    loop {
        let snapshot = hyperactor::proc::read_snapshot(&world.client, node.actor_id().proc_id());
        let snapshot = soon(snapshot).await.unwrap();
        let seen = snapshot
            .actors
            .iter()
            .find(|actor| actor.actor_id == *node.actor_id());
        if seen.is_some_and(|actor| actor.watchers.len() >= watchers) {
            return;
        }
        tokio::task::yield_now().await;
    }
}

async fn certificate() {
    let mut world = World::new(Kind::TwoProcesses).await;
    let a = world.spawn(Place::A, "a", true).await;
    let deaths: [(&str, Option<Order>, &str); 3] = [
        ("exits", Some(Order::Exit(17)), "exited with status 17"),
        ("crashes", Some(Order::Crash), "was ended by signal 6"),
        ("killed", None, "was ended by signal 9"),
    ];
    for (name, order, words) in deaths {
        let hosted = host(&world).spawn_default(name).await.unwrap();
        let victim = spawn_in(&mut world, &hosted, "victim", false).await;
        let monitor = world.monitor(victim.actor_id());
        world
            .order(&a, Order::Monitor(victim.actor_id().clone()))
            .await;
        watched(&world, &victim, 2).await;
        let start = Instant::now();
        match order {
            Some(order) => victim.post(&world.client, order),
            None => drop(hosted.end(hyperactor::host::End::Kill).await),
        }
        // In the process of the host, and in another one.
        let event = soon(monitor.ended()).await;
        let here = start.elapsed();
        assert_eq!(event.cause.code(), "proc-died", "{event}");
        assert!(event.to_string().contains(words), "{event}");
        let Note {
            what: What::Told {
                code, text, actor, ..
            },
            ..
        } = world.next_note().await
        else {
            panic!("a was told nothing");
        };
        let there = start.elapsed();
        assert_eq!((code.as_str(), &actor), ("proc-died", victim.actor_id()));
        assert!(text.contains(words), "{text}");
        assert_eq!(text.lines().count(), 5, "{text}");
        eprintln!("{name}: known after {here:?} in the host and {there:?} in a sibling");
        assert!(here < PROMPT && there < PROMPT, "{here:?} {there:?}");
    }
    world.end().await;
}

async fn linked() {
    let mut world = World::new(Kind::TwoProcesses).await;
    let a = world.spawn(Place::A, "a", false).await;
    let b = world.spawn(Place::B, "b", false).await;
    world.order(&a, Order::Link(b.actor_id().clone())).await;
    watched(&world, &b, 1).await;
    let fate = world.monitor(a.actor_id());
    b.post(&world.client, Order::Exit(3));
    let event = soon(fate.ended()).await;
    assert_eq!(event.cause.code(), "failed", "{event}");
    assert_eq!(event.root().1.code(), "proc-died", "{event}");
    assert!(
        event.to_string().contains("exited with status 3"),
        "{event}"
    );
    world.end().await;
}

// V-08
async fn forgotten() {
    let mut world = World::new(Kind::TwoProcesses).await;
    let a = world.spawn(Place::A, "a", false).await;
    let b = world.spawn(Place::B, "b", false).await;
    world.order(&a, Order::Monitor(b.actor_id().clone())).await;
    watched(&world, &b, 1).await;
    a.post(&world.client, Order::Crash);
    let start = Instant::now();
    loop {
        let snapshot = hyperactor::proc::read_snapshot(&world.client, b.actor_id().proc_id());
        let snapshot = soon(snapshot).await.unwrap();
        let actor = snapshot
            .actors
            .iter()
            .find(|actor| actor.actor_id == *b.actor_id())
            .unwrap();
        if actor.watchers.is_empty() {
            break;
        }
        assert!(start.elapsed() < PROMPT * 5, "{actor:?}");
        tokio::task::yield_now().await;
    }
    soon(b.ask(&world.client, Ping)).await.unwrap();
    world.end().await;
}

async fn orphans() {
    let mut world = World::new(Kind::TwoProcesses).await;
    let a = world.spawn(Place::A, "a", false).await;
    let child = world.params("child", false);
    let place = world.place(Place::B).clone();
    world
        .order(&a, Order::Supervise(place.clone(), child))
        .await;
    assert_eq!(world.next_note().await.what, What::Started);
    let child = ActorRef::<Node>::attest(ActorId::root(place, "child"));
    watched(&world, &child, 1).await;
    let ended = world.monitor(child.actor_id());
    soon(child.ask(&world.client, Ping)).await.unwrap();
    let start = Instant::now();
    a.post(&world.client, Order::Crash);
    // It is stopped in order, in a process that nothing happened to.
    let event = soon(ended.ended()).await;
    assert_eq!(event.cause.code(), "stopped", "{event}");
    assert!(start.elapsed() < PROMPT * 2, "{:?}", start.elapsed());
    assert_eq!(world.next_note().await.what, What::Stopped);
    world.end().await;
}

async fn next_life() {
    let mut world = World::new(Kind::TwoProcesses).await;
    let restart =
        RestartPolicy::always().with_backoff(Duration::from_millis(10), Duration::from_millis(100));
    let config = ProcConfig::new().with_restart(restart);
    let hosted = host(&world).spawn("phoenix", config).await.unwrap();
    let params = world.params("child", false);
    let supervisor = Supervisor::new(Strategy::OneForOne)
        .intensity(100, Duration::from_secs(60))
        .backoff(Backoff::new(
            Duration::from_millis(10),
            Duration::from_millis(200),
        ))
        .child(ChildSpec::remote::<Node>(
            "child",
            hosted.proc_id().clone(),
            params,
        ));
    let supervisor = world.proc.spawn("supervisor", supervisor).unwrap();
    let child = ActorRef::<Node>::attest(ActorId::root(hosted.proc_id().clone(), "child"));
    for _ in 0..3 {
        assert_eq!(world.next_note().await.what, What::Started);
        soon(child.ask(&world.client, Ping)).await.unwrap();
        child.post(&world.client, Order::Crash);
    }
    assert_eq!(world.next_note().await.what, What::Started);
    let exit = soon(supervisor.stop_within(Duration::from_secs(10))).await;
    assert!(exit.unwrap().is_orderly());
    world.end().await;
}

async fn names_and_groups() {
    let mut world = World::new(Kind::TwoProcesses).await;
    let a = world.spawn(Place::A, "a", false).await;
    let b = world.spawn(Place::B, "b", false).await;
    world.order(&b, Order::Register("chief".to_owned())).await;
    let wait = Duration::from_secs(5);
    let found = hyperactor::proc::lookup_name(&world.client, world.place(Place::B), "chief", wait);
    assert_eq!(soon(found).await.unwrap().as_ref(), Some(b.actor_id()));

    let group = hyperactor::proc::Group::<Order>::new(world.place(Place::A).clone(), "all");
    for node in [&a, &b] {
        soon(group.join(&world.client, &node.port())).await.unwrap();
    }
    assert_eq!(soon(group.members(&world.client)).await.unwrap().len(), 2);
    b.post(&world.client, Order::Exit(1));
    let start = Instant::now();
    while soon(group.members(&world.client)).await.unwrap().len() > 1 {
        assert!(start.elapsed() < PROMPT * 5);
        tokio::task::yield_now().await;
    }
    // What is left is told to stop, all of it.
    let fate = world.monitor(a.actor_id());
    assert_eq!(
        soon(group.broadcast(&world.client, Order::End(End::Stop))).await,
        Ok(1)
    );
    assert!(soon(fate.ended()).await.is_orderly());
    world.end().await;
}

/// Each host has its frontend at a TCP address, and procs that are processes.
async fn two_hosts() {
    let start = |name: &'static str| async move {
        let frontend: hyperactor::refs::BindSpec = "tcp:127.0.0.1:0".parse().unwrap();
        let host = Host::new(ProcessManager::new().unwrap(), frontend)
            .await
            .unwrap();
        let hosted = host.spawn_default(name).await.unwrap();
        (host, hosted)
    };
    let ((near, a), (far, b)) = tokio::join!(start("a"), start("b"));
    let client = near.service_proc().client("observer").unwrap();
    let (handle, mut notes) = client.mailbox().open_port::<Note>();
    let params = |name: &str| crate::nodes::NodeParams {
        name: name.to_owned(),
        notes: handle.bind(),
        traps: true,
    };
    let a = soon(a.spawn::<Node>(&client, "a", params("a")))
        .await
        .unwrap();
    let b_ref = soon(b.spawn::<Node>(&client, "b", params("b")))
        .await
        .unwrap();
    for _ in 0..2 {
        assert_eq!(soon(notes.recv()).await.unwrap().what, What::Started);
    }
    for order in [
        Order::Link(b_ref.actor_id().clone()),
        Order::Monitor(b_ref.actor_id().clone()),
    ] {
        a.post(&client, order);
        soon(a.ask(&client, Ping)).await.unwrap();
    }
    let monitor = near.service_proc().monitor(b_ref.actor_id());
    soon(b_ref.ask(&client, Ping)).await.unwrap();
    let began = Instant::now();
    b_ref.post(&client, Order::Crash);
    let event = soon(monitor.ended()).await;
    assert_eq!(event.cause.code(), "proc-died", "{event}");
    let mut told = Vec::new();
    for _ in 0..2 {
        match soon(notes.recv()).await.unwrap().what {
            What::Told { relation, code, .. } => told.push((relation, code)),
            other => panic!("{other:?}"),
        }
    }
    told.sort();
    let expected =
        ["linked", "monitored"].map(|relation| (relation.to_owned(), "proc-died".to_owned()));
    assert_eq!(told, expected);
    eprintln!("known on the other host after {:?}", began.elapsed());
    for host in [near, far] {
        let report = soon(host.stop(Duration::from_secs(5))).await;
        assert!(report.left_behind.is_empty(), "{report:?}");
    }
    drop(b);
}
