//! The table of supervisors: which children are stopped and started again, in which order, and when the supervisor gives up.
//! In one proc the children live beside it; else they live in the other proc.

use std::time::Duration;

use hyperactor::prelude::*;
use hyperactor::proc::{ChildSpec, ListChildren, Restart, Strategy, Supervisor, spawn_remote};
use libtest_mimic::Trial;

use crate::nodes::{End, Node, Order, What};
use crate::worlds::{Kind, Place, World, soon};
use crate::{table, trial};

struct Case {
    name: &'static str,
    strategy: Strategy,
    children: [Restart; 3],
    /// Restarts that are allowed.
    restarts_max: u32,
    /// Which child ends, by number, and how; one after the other.
    ends: &'static [(usize, End)],
    /// What is then seen: `-2` for the stop of child 2, `+2` for its start. In other procs stops and starts of different
    /// children are seen in any order.
    seen: &'static [i32],
    /// Whether the supervisor lives on; else it fails.
    lives: bool,
}

const P: Restart = Restart::Permanent;
const T: Restart = Restart::Transient;
const X: Restart = Restart::Temporary;

use End::{Fail, Kill, Panic, Stop};
use Strategy::{OneForAll, OneForOne, RestForOne};

const fn row(
    name: &'static str,
    strategy: Strategy,
    children: [Restart; 3],
    restarts_max: u32,
    ends: &'static [(usize, End)],
    seen: &'static [i32],
    lives: bool,
) -> Case {
    Case {
        name,
        strategy,
        children,
        restarts_max,
        ends,
        seen,
        lives,
    }
}

#[rustfmt::skip]
const CASES: &[Case] = &[
    row("one_for_one_starts_the_failed_one", OneForOne, [P, P, P], 3, &[(2, Fail)], &[2], true),
    row("one_for_one_starts_one_that_panicked", OneForOne, [P, P, P], 3, &[(1, Panic)], &[1], true),
    row("one_for_one_starts_one_that_was_killed", OneForOne, [P, P, P], 3, &[(3, Kill)], &[3], true),
    row("a_permanent_child_is_started_after_an_orderly_end", OneForOne, [P, P, P], 3, &[(2, Stop)], &[-2, 2], true),
    row("a_transient_child_is_not_started_after_an_orderly_end", OneForOne, [P, T, P], 3, &[(2, Stop)], &[-2], true),
    row("a_transient_child_is_started_after_a_failure", OneForOne, [P, T, P], 3, &[(2, Fail)], &[2], true),
    row("a_temporary_child_is_never_started_again", OneForOne, [P, X, P], 3, &[(2, Panic)], &[], true),
    row("one_for_one_goes_on_within_its_intensity", OneForOne, [P, P, P], 3, &[(1, Fail), (2, Kill), (1, Fail)], &[1, 2, 1], true),
    row("one_for_all_starts_all_in_order", OneForAll, [P, P, P], 3, &[(2, Fail)], &[-3, -1, 1, 2, 3], true),
    row("one_for_all_counts_as_one_restart", OneForAll, [P, P, P], 1, &[(1, Fail)], &[-3, -2, 1, 2, 3], true),
    row("one_for_all_leaves_a_temporary_sibling_down", OneForAll, [P, P, X], 3, &[(1, Kill)], &[-3, -2, 1, 2], true),
    row("one_for_all_is_not_begun_by_a_temporary_child", OneForAll, [P, X, P], 3, &[(2, Fail)], &[], true),
    row("one_for_all_is_not_begun_by_an_orderly_transient_child", OneForAll, [P, T, P], 3, &[(2, Stop)], &[-2], true),
    row("a_transient_child_that_ended_in_order_stays_down_with_the_others_restart", OneForAll, [P, T, P], 3, &[(2, Stop), (1, Fail)], &[-2, -3, 1, 3], true),
    row("rest_for_one_starts_those_that_came_later", RestForOne, [P, P, P], 3, &[(2, Fail)], &[-3, 2, 3], true),
    row("rest_for_one_of_the_first_starts_all", RestForOne, [P, P, P], 3, &[(1, Panic)], &[-3, -2, 1, 2, 3], true),
    row("rest_for_one_of_the_last_starts_it_alone", RestForOne, [P, P, P], 3, &[(3, Kill)], &[3], true),
    row("rest_for_one_leaves_a_temporary_sibling_down", RestForOne, [P, P, X], 3, &[(2, Fail)], &[-3, 2], true),
    row("no_restart_allowed_ends_the_supervisor", OneForOne, [P, P, P], 0, &[(2, Fail)], &[-3, -1], false),
    row("one_restart_too_many_ends_the_supervisor", OneForOne, [P, P, P], 2, &[(1, Fail), (1, Fail), (1, Kill)], &[1, 1, -3, -2], false),
    row("all_for_one_too_many_ends_the_supervisor", OneForAll, [P, P, P], 1, &[(3, Fail), (3, Fail)], &[-2, -1, 1, 2, 3, -2, -1], false),
    row("temporary_children_use_up_no_restarts", OneForOne, [X, X, P], 0, &[(1, Fail), (2, Fail)], &[], true),
];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = table("supervisors", CASES, |case| case.name, play);
    for kind in Kind::ALL {
        let name = format!(
            "supervisors::{}::a_supervisor_of_supervisors_starts_a_whole_branch_again",
            kind.name()
        );
        trials.push(trial(name, move || branch(kind)));
    }
    trials
}

fn child(world: &World, name: &str, restart: Restart) -> ChildSpec {
    let params = world.params(name, false);
    let spec = if world.kind == Kind::OneProc {
        ChildSpec::exporting(name, move || Node::new(params.clone()))
    } else {
        ChildSpec::remote::<Node>(name, world.place(Place::B).clone(), params)
    };
    match restart {
        Restart::Transient => spec.transient(),
        Restart::Temporary => spec.temporary(),
        _ => spec,
    }
}

async fn play(world: &mut World, case: &Case, tag: &str) {
    let names: Vec<String> = (1..=3).map(|number| format!("c{tag}-{number}")).collect();
    let mut supervisor = Supervisor::new(case.strategy)
        .intensity(case.restarts_max, Duration::from_secs(600))
        .backoff(hyperactor::proc::Backoff::none());
    for (name, restart) in names.iter().zip(case.children) {
        supervisor = supervisor.child(child(world, name, restart));
    }
    let supervisor = world
        .proc
        .spawn(&format!("supervisor{tag}"), supervisor)
        .unwrap();
    let control = supervisor.bind();
    let number = |name: &str| names.iter().position(|other| other == name).unwrap() as i32 + 1;
    for _ in 0..3 {
        assert_eq!(world.next_note().await.what, What::Started);
    }
    let fate = world.monitor(supervisor.actor_id());
    // It watches its children when it answers: from here on it is told of their ends before this test is.
    soon(control.ask(&world.client, |reply| ListChildren { reply }))
        .await
        .unwrap();

    for (which, end) in case.ends {
        let node = ActorId::root(
            if world.kind == Kind::OneProc {
                world.proc.proc_id()
            } else {
                world.place(Place::B)
            }
            .clone(),
            &names[which - 1],
        );
        let node = ActorRef::<Node>::attest(node);
        let ended = world.monitor(node.actor_id());
        // The monitor is in place on the other side.
        soon(node.ask(&world.client, crate::nodes::Ping))
            .await
            .unwrap();
        node.post(&world.client, Order::End(*end));
        soon(ended.ended()).await;
        // The supervisor was told before this: what it does about it is done when it answers, or ends.
        let listed = soon(control.ask(&world.client, |reply| ListChildren { reply })).await;
        if case.lives {
            let running = listed
                .unwrap()
                .iter()
                .filter(|child| child.actor_id.is_some())
                .count();
            assert!(running > 0);
        }
    }
    if case.lives {
        assert!(fate.event().is_none(), "{:?}", fate.event());
    } else {
        let event = soon(fate.ended()).await;
        assert_eq!(event.cause.code(), "failed", "{event}");
        assert_eq!(event.chain.len(), 1, "{event}");
        assert!(
            event
                .cause
                .to_string()
                .contains("restarts of children within"),
            "{event}"
        );
    }

    let mut seen = Vec::new();
    while seen.len() < case.seen.len() {
        let note = world.next_note().await;
        seen.push(match note.what {
            What::Started => number(&note.node),
            What::Stopped => -number(&note.node),
            told @ What::Told { .. } => panic!("{told:?}"),
        });
    }
    let mut expected = case.seen.to_vec();
    if world.kind != Kind::OneProc {
        seen.sort_unstable();
        expected.sort_unstable();
    }
    assert_eq!(seen, expected);

    // The end of a supervisor is that of all its children, wherever they live, and nothing else had happened.
    supervisor.stop();
    soon(supervisor.join()).await;
    let left = soon(hyperactor::proc::read_snapshot(
        &world.client,
        world.place(Place::B),
    ))
    .await
    .unwrap();
    let is_child = |id: &ActorId| names.iter().any(|name| name == id.name());
    assert!(
        !left.actors.iter().any(|actor| is_child(&actor.actor_id)),
        "{left:?}"
    );
    let rest = world.notes_so_far();
    assert!(
        !rest.iter().any(|note| note.what == What::Started),
        "{rest:?}"
    );
}

/// The inner supervisor gives up, and the outer one starts it again, with all its children.
async fn branch(kind: Kind) {
    let mut world = World::new(kind).await;
    let inner = {
        let params = world.params("leaf", false);
        let place = (kind != Kind::OneProc).then(|| world.place(Place::B).clone());
        move || {
            let params = params.clone();
            let leaf = match &place {
                None => ChildSpec::exporting("leaf", move || Node::new(params.clone())),
                Some(place) => ChildSpec::remote::<Node>("leaf", place.clone(), params),
            };
            Supervisor::new(OneForOne)
                .intensity(0, Duration::from_secs(600))
                .child(leaf)
        }
    };
    let outer = Supervisor::new(OneForOne)
        .intensity(1, Duration::from_secs(600))
        .child(ChildSpec::new("inner", inner));
    let outer = world.proc.spawn("outer", outer).unwrap();
    let fate = world.monitor(outer.actor_id());
    let place = if kind == Kind::OneProc {
        world.proc.proc_id()
    } else {
        world.place(Place::B)
    };
    let leaf = ActorRef::<Node>::attest(ActorId::root(place.clone(), "leaf"));
    for _ in 0..2 {
        assert_eq!(world.next_note().await.what, What::Started);
        leaf.post(&world.client, Order::End(Fail));
    }
    // The leaf failed, which the inner one passed up, which the outer one passed up.
    let event = soon(fate.ended()).await;
    assert_eq!(event.chain.len(), 2, "{event}");
    assert_eq!(event.root().0, leaf.actor_id());
    assert_eq!(event.root().1.to_string(), "failed: save: no disk");
    drop(
        spawn_remote::<Node>(
            &world.client,
            &world.places[0],
            "after",
            world.params("after", true),
        )
        .await,
    );
    world.end().await;
}
