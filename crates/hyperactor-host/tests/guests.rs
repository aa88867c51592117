//! Guests: who joins a host over one connection is reached through it, and nobody else can pass for them.
#![allow(
    clippy::unwrap_used,
    reason = "the panic of a test, and of its helpers, is its report"
)]

mod parrots;

use std::sync::Arc;

use hyperactor_host::DescribeHost;
use hyperactor_host::{GUEST_PREFIX, Guest, Host, HostAgent, ProcConfig, limits};
use hyperactor_mailbox::{
    Failure, MailboxSender, MessageEnvelope, NotDelivered, Notice, ReturnHandle,
};
use hyperactor_refs::{ActorId, BindSpec, ChannelAddr, ChannelTransport, ProcId};
use hyperactor_router::{DialOptions, MailboxClient};
use hyperactor_testkit::eventually;
use parrots::{DEADLINE, manager, parrot, spawn_parrot, who, who_by};

async fn two_doors() -> Host {
    Host::builder()
        .also_serve(ChannelTransport::Tcp)
        .also_serve(ChannelTransport::Local)
        .start(manager(), ChannelTransport::Unix)
        .await
        .unwrap()
}

/// What becomes of a probe in the name of `sender`.
async fn probe(way: &impl MailboxSender, sender: &ProcId, to: &ProcId) -> Result<(), Failure> {
    let host = ActorId::root(to.clone(), "host");
    let envelope = Notice::Probe.envelope(ActorId::root(sender.clone(), "somebody"), &host);
    let (handle, outcome) = ReturnHandle::oneshot();
    way.post(envelope, handle);
    outcome.await.map_err(|failure| failure.into_failure())
}

#[tokio::test]
async fn a_guest_asks_and_is_answered_over_its_own_connection() {
    let host = two_doors().await;
    let parrot_ref = spawn_parrot(&host, "a").await;
    for door in host.addrs().iter() {
        let guest = Guest::join(door.clone()).await.unwrap();
        // It is called by the host's own name, whichever door it came by.
        let id = guest.proc().proc_id().clone();
        assert_eq!(id.addr(), host.addr(), "by {door}");
        assert!(id.name().starts_with(GUEST_PREFIX), "{id}");
        assert_eq!(host.guests(), [Arc::new(id.clone())]);

        let client = guest.client("test").unwrap();
        let a = host.proc_id("a").unwrap();
        assert_eq!(who(&client, &parrot_ref).await.unwrap(), a);
        // Nobody but the guest knows the name that it dialled; every other name of the host will do.
        assert_eq!(who(&client, &parrot(door, "a")).await.unwrap(), a);
        let described = HostAgent::at(guest.host())
            .ask_within(&client, DEADLINE, |reply| DescribeHost { reply })
            .await
            .unwrap()
            .unwrap();
        assert_eq!(described.guests, 1);
        let error = who(&client, &parrot(guest.host(), "nobody")).await;
        assert!(error.unwrap_err().to_string().contains("it has: a"));

        drop(client);
        let report = guest.leave(DEADLINE).await;
        assert!(report.flushed.is_ok(), "{report:?}");
        eventually(DEADLINE, || host.guests().is_empty()).await;
    }
    host.stop(DEADLINE).await;
}

#[tokio::test]
async fn guests_reach_each_other_and_actors_of_theirs_are_reached_from_procs() {
    let host = two_doors().await;
    let inside = spawn_parrot(&host, "a").await;
    let (one, other) = (
        Guest::join(host.addr().clone()).await.unwrap(),
        Guest::join(host.addrs().others()[0].clone()).await.unwrap(),
    );
    one.proc().spawn("parrot", parrots::Parrot).unwrap().bind();
    let its = parrot(one.host(), one.proc().proc_id().name());
    let client = other.client("test").unwrap();
    let id = one.proc().proc_id().clone();
    assert_eq!(who(&client, &its).await.unwrap(), id);
    assert_eq!(who_by(&client, &inside, &its).await.unwrap(), id);
    // In another spelling of the host, too.
    let respelt = parrot(&host.addrs().others()[0], id.name());
    assert_eq!(who_by(&client, &inside, &respelt).await.unwrap(), id);

    // Gone, it is unknown at once.
    one.leave(DEADLINE).await;
    eventually(DEADLINE, || host.guests().len() == 1).await;
    let error = who(&client, &its).await.unwrap_err().to_string();
    assert!(error.contains("no proc"), "{error}");
    host.stop(DEADLINE).await;
}

#[tokio::test]
async fn a_guest_that_is_dropped_is_forgotten() {
    let host = two_doors().await;
    let guest = Guest::join(host.addr().clone()).await.unwrap();
    let kept = guest.clone();
    drop(guest);
    let client = kept.client("test").unwrap();
    assert_eq!(host.guests().len(), 1);
    drop(client);
    drop(kept);
    eventually(DEADLINE, || host.guests().is_empty()).await;
    host.stop(DEADLINE).await;
}

#[tokio::test]
async fn nobody_passes_for_a_guest_and_a_guest_for_nobody_else() {
    let host = two_doors().await;
    let service = host.service_proc().proc_id().clone();
    let guest = Guest::join(host.addr().clone()).await.unwrap();
    let id = guest.proc().proc_id().clone();
    let refused = |result: Result<(), Failure>| {
        let failure = result.unwrap_err();
        assert_eq!(failure.code(), "no-route", "{failure}");
        failure.to_string()
    };

    // Another connection, that could take answers.
    let hall = hyperactor_mailbox::MailboxMuxer::new();
    let thief = MailboxClient::dial_duplex(host.addr().clone(), DialOptions::default(), hall);
    let said = refused(probe(&thief, &id, &service).await);
    assert!(said.contains("another connection"), "{said}");
    // One that could not.
    let sends = MailboxClient::dial(host.addr().clone());
    let name = format!("{GUEST_PREFIX}0123");
    let invented = ProcId::Direct(host.addr().clone(), name.clone());
    let said = refused(probe(&sends, &invented, &service).await);
    assert!(said.contains("takes none"), "{said}");
    // A guest of another host.
    let foreign = ProcId::Direct("unix:@elsewhere".parse().unwrap(), name);
    let said = refused(probe(&thief, &foreign, &service).await);
    assert!(said.contains("no guest of the host"), "{said}");
    // The guest itself, in the name of a proc and of another guest.
    for other in [host.proc_id("a").unwrap(), invented.clone(), foreign] {
        let said = refused(probe(&guest.sender(), &other, &service).await);
        assert!(said.contains("speaks for"), "{said}");
    }
    assert_eq!(host.guests(), [Arc::new(id.clone())]);
    probe(&guest.sender(), &id, &service).await.unwrap();

    // And no proc of the host can have such a name.
    let error = host.spawn(id.name(), ProcConfig::new()).await.unwrap_err();
    assert_eq!(error.code(), "reserved");
    host.stop(DEADLINE).await;
}

#[tokio::test]
async fn a_guest_reaches_nothing_beyond_its_host() {
    let host = two_doors().await;
    let other = two_doors().await;
    let guest = Guest::join(host.addr().clone()).await.unwrap();
    let client = guest.client("test").unwrap();
    let error = who(&client, &parrot(other.addr(), "a")).await.unwrap_err();
    let error = error.to_string();
    assert!(error.contains("for its own procs only"), "{error}");
    host.stop(DEADLINE).await;
    other.stop(DEADLINE).await;
}

#[tokio::test]
async fn the_number_of_guests_is_bounded() {
    let host = Host::new(manager(), ChannelTransport::Local).await.unwrap();
    let service = host.service_proc().proc_id().clone();
    let mut here = Vec::new();
    for number in 0..limits::GUESTS_MAX {
        let id = ProcId::Direct(host.addr().clone(), format!("{GUEST_PREFIX}{number}"));
        let hall = hyperactor_mailbox::MailboxMuxer::new();
        let client = MailboxClient::dial_duplex(host.addr().clone(), DialOptions::default(), hall);
        probe(&client, &id, &service).await.unwrap();
        here.push(client);
    }
    let error = Guest::join(host.addr().clone()).await.unwrap_err();
    assert_eq!(error.code(), "refused", "{error}");
    assert!(error.to_string().contains("limit"), "{error}");
    // One goes, one comes.
    here.pop();
    eventually(DEADLINE, || host.guests().len() < limits::GUESTS_MAX).await;
    Guest::join(host.addr().clone()).await.unwrap();
    drop(here);
    host.stop(DEADLINE).await;
}

#[tokio::test]
async fn joining_nobody_fails_with_the_address_and_leaves_nothing() {
    let gone: ChannelAddr = {
        let host = two_doors().await;
        host.stop(DEADLINE).await;
        host.addr().clone()
    };
    let error = Guest::join(gone.clone()).await.unwrap_err();
    assert_eq!(error.code(), "unreachable");
    assert!(error.to_string().contains(&gone.to_string()), "{error}");
    assert!(error.is_retryable());
}

#[tokio::test]
async fn a_guest_that_only_listens_is_known_to_a_restarted_host() {
    let first = two_doors().await;
    let addr = first.addr().clone();
    let guest = Guest::join(addr.clone()).await.unwrap();
    guest
        .proc()
        .spawn("parrot", parrots::Parrot)
        .unwrap()
        .bind();
    // Dropped, not stopped: nobody says goodbye.
    drop(first);
    let again = restarted(addr).await;
    eventually(DEADLINE, || again.guests().len() == 1).await;
    let client = again.service_proc().client("test").unwrap();
    let its = parrot(again.addr(), guest.proc().proc_id().name());
    let id = who(&client, &its).await.unwrap();
    assert_eq!(id, *guest.proc().proc_id());
    again.stop(DEADLINE).await;
}

/// A host at an address that another one just had in this process: its server goes with its task.
async fn restarted(addr: ChannelAddr) -> Host {
    loop {
        match Host::new(manager(), BindSpec::from(addr.clone())).await {
            Ok(host) => return host,
            Err(error) if error.code() == "frontend" => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn what_is_said_at_the_door_is_checked() {
    let host = two_doors().await;
    let guest = Guest::join(host.addr().clone()).await.unwrap();
    let id = guest.proc().proc_id().clone();
    // Something that is no knock.
    let door = ProcId::Direct("unix:@whatever".parse().unwrap(), GUEST_PREFIX.to_owned());
    let dest = hyperactor_refs::PortId::new(ActorId::root(door, "door"), 0);
    let envelope = MessageEnvelope::typed(ActorId::root(id, "x"), dest, 7u64);
    let (handle, outcome) = ReturnHandle::oneshot();
    guest.sender().post(envelope, handle);
    let failure = outcome.await.unwrap_err().into_failure();
    assert!(
        matches!(failure, Failure::NotDelivered(NotDelivered::Decode { .. })),
        "{failure}"
    );
    host.stop(DEADLINE).await;
}
