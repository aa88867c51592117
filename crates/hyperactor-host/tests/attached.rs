//! Hosts behind hosts: one open door leads to the procs of all, and nobody stands behind itself.
#![allow(
    clippy::unwrap_used,
    reason = "the panic of a test, and of its helpers, is its report"
)]

mod parrots;

use std::time::Duration;

use hyperactor_host::{Guest, Host, HostError, limits};
use hyperactor_refs::{BindSpec, ChannelAddr, ChannelTransport};
use hyperactor_testkit::eventually;
use parrots::{DEADLINE, manager, parrot, spawn_parrot, who, who_by};

async fn alone(bind: impl Into<BindSpec>) -> Host {
    Host::new(manager(), bind).await.unwrap()
}

async fn behind(other: &Host, bind: impl Into<BindSpec>) -> Result<Host, HostError> {
    Host::builder()
        .behind(other.addr().clone())
        .start(manager(), bind)
        .await
}

/// The code of the other host's reason.
fn code(error: HostError) -> String {
    match error {
        HostError::Behind { code, .. } => code,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_guest_of_the_front_host_reaches_the_procs_of_all_behind_it() {
    for front in [
        ChannelTransport::Tcp,
        ChannelTransport::Unix,
        ChannelTransport::Local,
    ] {
        let a = alone(front).await;
        let b = behind(&a, ChannelTransport::Unix).await.unwrap();
        let c = behind(&b, ChannelTransport::Unix).await.unwrap();
        assert_eq!(c.hosts_above(), [b.addr().clone(), a.addr().clone()]);
        eventually(DEADLINE, || a.addrs_behind().len() == 2).await;
        let (at_a, at_b, at_c) = (
            spawn_parrot(&a, "x").await,
            spawn_parrot(&b, "x").await,
            spawn_parrot(&c, "x").await,
        );
        let guest = Guest::join(a.addr().clone()).await.unwrap();
        let client = guest.client("test").unwrap();
        for (host, parrot) in [(&a, &at_a), (&b, &at_b), (&c, &at_c)] {
            let id = host.proc_id("x").unwrap();
            assert_eq!(who(&client, parrot).await.unwrap(), id);
        }
        // From below: to the hosts above, to a guest of theirs, and to one beside.
        guest
            .proc()
            .spawn("parrot", parrots::Parrot)
            .unwrap()
            .bind();
        let its = parrot(guest.host(), guest.proc().proc_id().name());
        for (from, to) in [
            (&at_c, &at_a),
            (&at_c, &at_b),
            (&at_b, &at_c),
            (&at_c, &its),
        ] {
            let id = to.actor_id().proc_id().clone();
            assert_eq!(who_by(&client, from, to).await.unwrap(), id);
        }
        // What no host behind has is said by the one that it would be on.
        let error = who(&client, &parrot(c.addr(), "nobody")).await.unwrap_err();
        let error = error.to_string();
        assert!(error.contains(&format!("at host {}", c.addr())), "{error}");

        // The last one ends: the others go on, and nothing leads there any more.
        c.stop(DEADLINE).await;
        eventually(DEADLINE, || a.addrs_behind().len() == 1).await;
        let error = who(&client, &at_c).await.unwrap_err().to_string();
        assert!(error.contains("no route"), "{error}");
        who(&client, &at_b).await.unwrap();
        drop(client);
        b.stop(DEADLINE).await;
        a.stop(DEADLINE).await;
    }
}

#[tokio::test]
async fn a_host_behind_needs_no_door_that_leads_to_it() {
    // Its address means nothing outside of its process, and nobody dials it.
    let a = alone(ChannelTransport::Tcp).await;
    let b = Host::builder()
        .advertise("tcp:inside.example:1".parse().unwrap())
        .behind(a.addr().clone())
        .start(manager(), ChannelTransport::Local)
        .await
        .unwrap();
    let at_b = spawn_parrot(&b, "x").await;
    let guest = Guest::join(a.addr().clone()).await.unwrap();
    let client = guest.client("test").unwrap();
    assert_eq!(who(&client, &at_b).await.unwrap(), b.proc_id("x").unwrap());
    drop(client);
    b.stop(DEADLINE).await;
    a.stop(DEADLINE).await;
}

#[tokio::test]
async fn nobody_stands_behind_itself_or_in_a_circle() {
    // By its own address.
    let own: ChannelAddr = "unix:@itself".parse().unwrap();
    let error = Host::builder()
        .advertise(own.clone())
        .behind(own)
        .start(manager(), ChannelTransport::Unix)
        .await
        .unwrap_err();
    assert_eq!(code(error), "itself");

    // In a circle of three: one that has the first one's address wants to be behind the last.
    let a = alone(ChannelTransport::Unix).await;
    let b = behind(&a, ChannelTransport::Unix).await.unwrap();
    let c = behind(&b, ChannelTransport::Unix).await.unwrap();
    let begun = tokio::time::Instant::now();
    let error = Host::builder()
        .alias(a.addr().clone())
        .behind(c.addr().clone())
        .start(manager(), ChannelTransport::Unix)
        .await
        .unwrap_err();
    assert_eq!(code(error), "circle");
    assert!(begun.elapsed() < limits::DOOR_TIMEOUT, "not at once");

    // The first one goes, and its successor gets behind the last: then the second finds no place behind that.
    let addr = a.addr().clone();
    a.stop(DEADLINE).await;
    let successor = loop {
        let started = Host::builder()
            .behind(c.addr().clone())
            .start(manager(), addr.clone())
            .await;
        match started {
            Ok(host) => break host,
            // The others hold on to the place of the one that has gone until they are told.
            Err(error) => assert_eq!(code(error), "circle"),
        }
    };
    let at_a = spawn_parrot(&successor, "x").await;
    let at_b = spawn_parrot(&b, "x").await;
    let client = b.service_proc().client("test").unwrap();
    for _ in 0..3 {
        // Down to it by the way on which it came.
        assert_eq!(
            who_by(&client, &at_b, &at_a).await.unwrap(),
            *at_a.actor_id().proc_id()
        );
        tokio::time::sleep(limits::ATTACH_BACKOFF_MAX).await;
        assert!(b.hosts_above().is_empty(), "{:?}", b.hosts_above());
        assert_eq!(
            successor.hosts_above(),
            [c.addr().clone(), b.addr().clone()]
        );
    }
    drop(client);
    successor.stop(DEADLINE).await;
    c.stop(DEADLINE).await;
    b.stop(DEADLINE).await;
}

#[tokio::test]
async fn two_hosts_of_one_name_do_not_stand_behind_the_same() {
    let a = alone(ChannelTransport::Tcp).await;
    let name: ChannelAddr = "tcp:inside.example:1".parse().unwrap();
    let named = async || {
        Host::builder()
            .advertise(name.clone())
            .behind(a.addr().clone())
            .start(manager(), ChannelTransport::Unix)
            .await
    };
    let first = named().await.unwrap();
    let at_first = spawn_parrot(&first, "x").await;
    assert_eq!(code(named().await.unwrap_err()), "address-taken");
    let guest = Guest::join(a.addr().clone()).await.unwrap();
    let client = guest.client("test").unwrap();
    who(&client, &at_first).await.unwrap();
    first.stop(DEADLINE).await;
    // The name is free as soon as the first has left.
    eventually(DEADLINE, || a.addrs_behind().is_empty()).await;
    let second = named().await.unwrap();
    let at_second = spawn_parrot(&second, "x").await;
    who(&client, &at_second).await.unwrap();
    drop(client);
    second.stop(DEADLINE).await;
    a.stop(DEADLINE).await;
}

#[tokio::test]
async fn a_front_host_that_comes_back_is_found_again() {
    let a = alone(ChannelTransport::Unix).await;
    let addr = a.addr().clone();
    let b = behind(&a, ChannelTransport::Unix).await.unwrap();
    let at_b = spawn_parrot(&b, "x").await;
    a.stop(DEADLINE).await;
    let again = alone(addr).await;
    eventually(DEADLINE, || again.addrs_behind().len() == 1).await;
    let guest = Guest::join(again.addr().clone()).await.unwrap();
    let client = guest.client("test").unwrap();
    who(&client, &at_b).await.unwrap();
    drop(client);
    b.stop(DEADLINE).await;
    again.stop(DEADLINE).await;
}

#[tokio::test]
async fn a_front_host_that_is_not_there_is_named() {
    let gone = alone(ChannelTransport::Unix).await;
    gone.stop(DEADLINE).await;
    let begun = tokio::time::Instant::now();
    let error = behind(&gone, ChannelTransport::Unix).await.unwrap_err();
    assert!(begun.elapsed() < limits::ATTACH_TIMEOUT + Duration::from_secs(5));
    assert!(
        error.to_string().contains(&gone.addr().to_string()),
        "{error}"
    );
    assert_eq!(code(error), "unreachable");
}
