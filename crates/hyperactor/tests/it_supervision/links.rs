//! The table of links and monitors: who is told what when an actor ends, and who goes with it.

use hyperactor::prelude::*;
use libtest_mimic::Trial;

use crate::nodes::{End, Node, Order, What};
use crate::table;
use crate::worlds::{Place, World, soon};

/// How `a` comes to watch `b`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setup {
    Link,
    LinkTwice,
    /// `b` links itself with `a`.
    LinkBack,
    LinkThenUnlink,
    /// `a` links, `b` unlinks.
    LinkThenUnlinkBack,
    Monitor,
    MonitorTwice,
    MonitorThenDemonitor,
    LinkAndMonitor,
    /// `a` is linked with a node that is linked with `b`, and that does the default.
    Chain,
    Nothing,
}

/// What becomes of `a`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Lives,
    /// It fails; the end that began it all, and how many lie between.
    Fails(&'static str, usize),
}

struct Case {
    name: &'static str,
    setup: Setup,
    /// Whether `a` reports what it is told; else it does the default.
    traps: bool,
    /// How `b` ends; nothing where there was never one.
    end: Option<End>,
    /// As what and how `a` is told, in any order.
    told: &'static [(&'static str, &'static str)],
    fate: Fate,
}

const fn case(
    name: &'static str,
    setup: Setup,
    traps: bool,
    end: Option<End>,
    told: &'static [(&'static str, &'static str)],
    fate: Fate,
) -> Case {
    Case {
        name,
        setup,
        traps,
        end,
        told,
        fate,
    }
}

const TRAPS: bool = true;
const DEFAULT: bool = false;

use End::{Drain, Fail, Kill, Panic, Stop};
use Fate::{Fails, Lives};
use Setup::{
    Chain, Link, LinkAndMonitor, LinkBack, LinkThenUnlink, LinkThenUnlinkBack, LinkTwice, Monitor,
    MonitorThenDemonitor, MonitorTwice, Nothing,
};

// V-07: a link from the other side, and unlinking from there, are among them.
#[rustfmt::skip]
const CASES: &[Case] = &[
    case("a_link_tells_a_failure", Link, TRAPS, Some(Fail), &[("linked", "failed")], Lives),
    case("a_link_tells_a_panic", Link, TRAPS, Some(Panic), &[("linked", "panicked")], Lives),
    case("a_link_tells_a_kill", Link, TRAPS, Some(Kill), &[("linked", "killed")], Lives),
    case("a_link_tells_a_stop", Link, TRAPS, Some(Stop), &[("linked", "stopped")], Lives),
    case("a_link_tells_a_drain", Link, TRAPS, Some(Drain), &[("linked", "stopped")], Lives),
    case("a_link_tells_that_nobody_is_there", Link, TRAPS, None, &[("linked", "no-such-actor")], Lives),
    case("a_failure_takes_the_linked_along", Link, DEFAULT, Some(Fail), &[], Fails("failed", 1)),
    case("a_panic_takes_the_linked_along", Link, DEFAULT, Some(Panic), &[], Fails("panicked", 1)),
    case("a_kill_takes_the_linked_along", Link, DEFAULT, Some(Kill), &[], Fails("killed", 1)),
    case("a_stop_does_not_take_the_linked_along", Link, DEFAULT, Some(Stop), &[], Lives),
    case("a_drain_does_not_take_the_linked_along", Link, DEFAULT, Some(Drain), &[], Lives),
    case("a_link_to_nobody_fails_the_linked", Link, DEFAULT, None, &[], Fails("no-such-actor", 1)),
    case("two_links_are_one", LinkTwice, TRAPS, Some(Fail), &[("linked", "failed")], Lives),
    case("a_link_works_from_the_other_side", LinkBack, TRAPS, Some(Fail), &[("linked", "failed")], Lives),
    case("a_link_from_the_other_side_takes_along", LinkBack, DEFAULT, Some(Panic), &[], Fails("panicked", 1)),
    case("an_unlinked_actor_is_told_nothing", LinkThenUnlink, TRAPS, Some(Fail), &[], Lives),
    case("an_unlinked_actor_lives_on", LinkThenUnlink, DEFAULT, Some(Fail), &[], Lives),
    case("either_side_can_unlink", LinkThenUnlinkBack, DEFAULT, Some(Kill), &[], Lives),
    case("a_chain_of_links_carries_the_first_cause", Chain, DEFAULT, Some(Fail), &[], Fails("failed", 2)),
    case("a_chain_of_links_carries_a_panic", Chain, DEFAULT, Some(Panic), &[], Fails("panicked", 2)),
    case("a_chain_of_links_carries_a_kill", Chain, DEFAULT, Some(Kill), &[], Fails("killed", 2)),
    case("a_chain_of_links_ends_at_an_orderly_end", Chain, DEFAULT, Some(Stop), &[], Lives),
    case("a_monitor_tells_a_failure", Monitor, TRAPS, Some(Fail), &[("monitored", "failed")], Lives),
    case("a_monitor_tells_a_panic", Monitor, TRAPS, Some(Panic), &[("monitored", "panicked")], Lives),
    case("a_monitor_tells_a_kill", Monitor, TRAPS, Some(Kill), &[("monitored", "killed")], Lives),
    case("a_monitor_tells_a_stop", Monitor, TRAPS, Some(Stop), &[("monitored", "stopped")], Lives),
    case("a_monitor_tells_a_drain", Monitor, TRAPS, Some(Drain), &[("monitored", "stopped")], Lives),
    case("a_monitor_tells_that_nobody_is_there", Monitor, TRAPS, None, &[("monitored", "no-such-actor")], Lives),
    case("a_monitor_takes_nobody_along", Monitor, DEFAULT, Some(Panic), &[], Lives),
    case("each_monitor_tells_once", MonitorTwice, TRAPS, Some(Fail), &[("monitored", "failed"), ("monitored", "failed")], Lives),
    case("an_ended_monitor_tells_nothing", MonitorThenDemonitor, TRAPS, Some(Fail), &[], Lives),
    case("a_link_and_a_monitor_both_tell", LinkAndMonitor, TRAPS, Some(Fail), &[("linked", "failed"), ("monitored", "failed")], Lives),
    case("strangers_are_told_nothing", Nothing, TRAPS, Some(Fail), &[], Lives),
    case("strangers_live_on", Nothing, DEFAULT, Some(Kill), &[], Lives),
];

pub(crate) fn trials() -> Vec<Trial> {
    table("links", CASES, |case| case.name, play)
}

async fn play(world: &mut World, case: &Case, tag: &str) {
    let a = world.spawn(Place::A, &format!("a{tag}"), case.traps).await;
    let b = match case.end {
        Some(_) => world.spawn(Place::B, &format!("b{tag}"), false).await,
        None => ActorRef::attest(ActorId::root(
            world.place(Place::B).clone(),
            format!("b{tag}"),
        )),
    };
    let fence = world.spawn(Place::A, &format!("fence{tag}"), true).await;
    set_up(world, case.setup, &a, &b, tag).await;
    // Watches `b` last of all, from where `a` is: when it has been told, `a` has been told all.
    let is_linked_back = case.setup == LinkBack;
    let fate_of_a = world.monitor(a.actor_id());
    let end_of_b = world.monitor(b.actor_id());
    if let Some(end) = case.end {
        world
            .order(&fence, Order::Monitor(b.actor_id().clone()))
            .await;
        b.post(&world.client, Order::End(end));
    }
    soon(end_of_b.ended()).await;
    if case.end.is_none() {
        world
            .order(&fence, Order::Monitor(b.actor_id().clone()))
            .await;
    }

    let mut told = Vec::new();
    let mut is_fenced = false;
    while !is_fenced || told.len() < case.told.len() {
        let note = world.next_note().await;
        if let What::Told {
            actor,
            relation,
            code,
            text,
        } = note.what
        {
            assert_eq!(actor, *b.actor_id(), "{text}");
            assert_eq!(text.lines().count(), 5, "{text}");
            if note.node == format!("fence{tag}") {
                is_fenced = true;
            } else {
                assert_eq!(note.node, format!("a{tag}"));
                told.push((relation, code));
            }
        }
    }
    told.sort();
    let expected: Vec<_> = case
        .told
        .iter()
        .map(|(as_what, how)| ((*as_what).to_owned(), (*how).to_owned()))
        .collect();
    assert_eq!(told, expected);

    match case.fate {
        // What is told from both sides may take a little longer than what the fence sees.
        Fails(..) => {
            let event = soon(fate_of_a.ended()).await;
            let Fails(root, distance) = case.fate else {
                unreachable!()
            };
            assert_eq!(event.cause.code(), "failed", "{event}");
            assert_eq!(event.chain.len(), distance, "{event}");
            assert_eq!(event.root().1.code(), root, "{event}");
            assert_eq!(event.root().0, b.actor_id(), "{event}");
        }
        Lives => {
            soon(a.ask(&world.client, crate::nodes::Ping))
                .await
                .unwrap();
            assert!(fate_of_a.event().is_none(), "{:?}", fate_of_a.event());
            a.post(&world.client, Order::End(Stop));
            assert!(soon(fate_of_a.ended()).await.is_orderly());
        }
    }
    let end_of_fence = world.monitor(fence.actor_id());
    fence.post(&world.client, Order::End(Stop));
    soon(end_of_fence.ended()).await;
    let rest = world.notes_so_far();
    let is_surplus = |note: &crate::nodes::Note| matches!(note.what, What::Told { .. });
    assert!(is_linked_back || !rest.iter().any(is_surplus), "{rest:?}");
}

async fn set_up(
    world: &mut World,
    setup: Setup,
    a: &ActorRef<Node>,
    b: &ActorRef<Node>,
    tag: &str,
) {
    let link = |to: &ActorRef<Node>| Order::Link(to.actor_id().clone());
    let unlink = |to: &ActorRef<Node>| Order::Unlink(to.actor_id().clone());
    let monitor = Order::Monitor(b.actor_id().clone());
    // Posted without waiting for an answer: `a` may fail by it.
    let orders: Vec<(&ActorRef<Node>, Order)> = match setup {
        Nothing => vec![],
        Link => vec![(a, link(b))],
        LinkTwice => vec![(a, link(b)), (a, link(b))],
        LinkBack => vec![(b, link(a))],
        LinkThenUnlink => vec![(a, link(b)), (a, unlink(b))],
        LinkThenUnlinkBack => vec![(a, link(b)), (b, unlink(a))],
        Monitor => vec![(a, monitor)],
        MonitorTwice => vec![(a, monitor.clone()), (a, monitor)],
        MonitorThenDemonitor => vec![(a, monitor), (a, Order::Demonitor)],
        LinkAndMonitor => vec![(a, link(b)), (a, monitor)],
        Chain => {
            let middle = world.spawn(Place::B, &format!("middle{tag}"), false).await;
            world.order(&middle, link(b)).await;
            return world.order(a, link(&middle)).await;
        }
    };
    for (node, order) in orders {
        let is_last_word = setup == LinkThenUnlinkBack && matches!(order, Order::Link(_));
        node.post(&world.client, order);
        // Who links with nobody may be gone before it can answer.
        drop(soon(node.ask(&world.client, crate::nodes::Ping)).await);
        if is_last_word {
            // The link has to be known on the other side before that ends it.
            wait_for_link(world, b, a).await;
        }
    }
    if setup == LinkBack {
        wait_for_link(world, a, b).await;
    }
}

async fn wait_for_link(world: &World, node: &ActorRef<Node>, with: &ActorRef<Node>) {
    let proc_id = node.actor_id().proc_id();
    let is_linked = async || {
        let snapshot = hyperactor::proc::read_snapshot(&world.client, proc_id);
        let snapshot = soon(snapshot).await.unwrap();
        let mut actors = snapshot.actors.iter();
        actors.any(|actor| {
            actor.actor_id == *node.actor_id() && actor.links.contains(with.actor_id())
        })
    };
    while !is_linked().await {
        tokio::task::yield_now().await;
    }
}
