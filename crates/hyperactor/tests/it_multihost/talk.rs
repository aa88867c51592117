//! Three machines: messages, asks, references in messages, spawns, watches, and messages that come back.

use std::time::Duration;

use hyperactor::prelude::*;
use hyperactor_testkit::Class;

use crate::actors::{Node, PassOn, SpawnAt, Watch, WhoAreYou};
use crate::lab::{Lab, soon};
use crate::streams::{self, Stream};

const MESSAGES: u64 = 500;

pub(crate) async fn play() {
    let mut lab = Lab::new("talk", 3).await;
    let mut procs = Vec::new();
    for machine in 1..=3 {
        let proc = lab.spawn_proc(machine, &format!("p{machine}")).await;
        assert_eq!(*proc.proc_id.addr(), lab.addr(machine));
        procs.push((*proc.proc_id).clone());
    }
    let mut nodes = Vec::new();
    for place in &procs {
        nodes.push(lab.node(place, "node").await);
    }
    asks(&lab, &nodes).await;
    references(&lab, &nodes).await;
    spawns(&lab, &nodes[0], &procs[2]).await;
    streams(&lab, &procs).await;
    returns(&lab, &procs).await;
    watches(&mut lab, &nodes).await;
    lab.end().await;
}

/// A node of each machine answers the observer, from a process of its own.
async fn asks(lab: &Lab, nodes: &[ActorRef<Node>]) {
    let mut pids = Vec::new();
    for node in nodes {
        let (id, pid) = soon(node.ask(&lab.client, WhoAreYou)).await.unwrap();
        assert_eq!(id, *node.actor_id());
        pids.push(pid);
    }
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), nodes.len());
    lab.say("asked");
}

/// References travel in messages from machine to machine, and are used where they come to; the answer goes straight to whoever
/// asked.
async fn references(lab: &Lab, nodes: &[ActorRef<Node>]) {
    let [one, two, three] = nodes else {
        panic!("three nodes")
    };
    let along: Vec<_> = [two, three, one, three, two].into_iter().cloned().collect();
    let expected: Vec<_> = [one, two, three, one, three, two]
        .map(|node| node.actor_id().clone())
        .into();
    let visited = one.ask(&lab.client, |reply| PassOn {
        along,
        visited: Vec::new(),
        reply,
    });
    assert_eq!(soon(visited).await.unwrap(), expected);
    lab.say("passed on");
}

/// An actor of one machine spawns one on another, and asks it; the reference works here, too.
async fn spawns(lab: &Lab, node: &ActorRef<Node>, place: &ProcId) {
    let spawned = node.ask(&lab.client, |reply| SpawnAt {
        place: place.clone(),
        name: "guest".to_owned(),
        reply,
    });
    let (guest, pid) = soon(spawned).await.unwrap().unwrap();
    assert_eq!(guest.actor_id().proc_id(), place);
    let (id, again) = soon(guest.ask(&lab.client, WhoAreYou)).await.unwrap();
    assert_eq!((&id, again), (guest.actor_id(), pid));
    lab.say("spawned");
}

/// Every machine sends to every other one at the same time.
async fn streams(lab: &Lab, procs: &[ProcId]) {
    let mut streams = Vec::new();
    for (from, _) in procs.iter().enumerate() {
        for (to, _) in procs.iter().enumerate().filter(|(to, _)| *to != from) {
            let sender = u32::try_from(10 * (from + 1) + to + 1).unwrap();
            streams.push(Stream::new(lab, sender, &procs[from], &procs[to]).await);
        }
    }
    for stream in &streams {
        stream.begin(lab, Duration::from_millis(1), MESSAGES).await;
    }
    for stream in streams {
        stream.arrives(lab, MESSAGES - 1).await;
        let (verdict, given) = stream.end(lab).await;
        verdict.assert_clean();
        assert_eq!(verdict.count(Class::Delivered) as u64, MESSAGES);
        assert!(given.failures.is_empty(), "{given:?}");
    }
}

/// What cannot be delivered comes back to its sender with the way that it took, hop by hop.
async fn returns(lab: &Lab, procs: &[ProcId]) {
    let [one, two, three] = procs else {
        panic!("three procs")
    };
    // A proc that never was, on a machine that is there: its host says so, and whom it has.
    let nobody = ProcId::direct(three.addr().clone(), "nobody").unwrap();
    let report = streams::bounce(lab, 91, one, &nobody).await;
    for words in ["nobody", "p3", &three.addr().to_string()] {
        assert!(report.contains(words), "`{words}` is missing: {report}");
    }
    assert!(report.contains("route: "), "{report}");
    assert!(
        report.contains(&format!("remote {}", three.addr())),
        "{report}"
    );
    // An actor that never was, in a proc that is there.
    let report = streams::bounce(lab, 92, one, two).await;
    assert!(
        report.contains(&format!("remote {}", two.addr())),
        "{report}"
    );
    assert!(report.contains("no-such-actor"), "{report}");
    lab.say(format_args!("came back: {report}"));
}

/// Actors watch one of another machine, and are told of the death of its process.
async fn watches(lab: &mut Lab, nodes: &[ActorRef<Node>]) {
    let [one, two, three] = nodes else {
        panic!("three nodes")
    };
    for node in [one, three] {
        let watched = node.ask(&lab.client, |reply| Watch(two.actor_id().clone(), reply));
        soon(watched).await.unwrap();
    }
    // The watches are there when the watched has been asked after them.
    tokio::time::timeout(Duration::from_secs(10), watchers(lab, two, 2))
        .await
        .unwrap();
    let start = std::time::Instant::now();
    lab.kill_proc(2, "p2").await;
    let mut by = Vec::new();
    for _ in 0..2 {
        let told = lab.told(Duration::from_secs(10)).await;
        assert_eq!(told.of, *two.actor_id());
        // The second, when a beat met the dead process's socket before its host knew.
        let is_loss = ["proc-died", "connection-lost"].contains(&told.code.as_str());
        assert!(is_loss, "{told:?}");
        by.push(told.by);
    }
    lab.say(format_args!("told after {:?}", start.elapsed()));
    by.sort();
    assert_eq!(by, [one.actor_id().clone(), three.actor_id().clone()]);
}

/// Waits until so many watches have reached the proc of the watched.
pub(crate) async fn watchers(lab: &Lab, node: &ActorRef<Node>, count: usize) {
    loop {
        let snapshot = hyperactor::proc::read_snapshot(&lab.client, node.actor_id().proc_id());
        let snapshot = soon(snapshot).await.unwrap();
        let seen = snapshot
            .actors
            .iter()
            .find(|actor| actor.actor_id == *node.actor_id());
        if seen.is_some_and(|actor| actor.watchers.len() >= count) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
