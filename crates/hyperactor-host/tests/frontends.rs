//! A host with several addresses: every spelling of an id means the same proc, from outside and from inside.
#![allow(
    clippy::unwrap_used,
    reason = "the panic of a test, and of its helpers, is its report"
)]

mod parrots;

use hyperactor_channel::ServeOptions;
use hyperactor_host::{Host, ProcConfig, limits};
use hyperactor_mailbox::{
    Failure, MailboxSender, MessageEnvelope, NotDelivered, ReturnHandle, SendFailure,
};
use hyperactor_proc::ActorRef;
use hyperactor_refs::{ActorId, BindSpec, ChannelAddr, ChannelTransport, PortId, ProcId};
use hyperactor_router::MailboxClient;
use parrots::{DEADLINE, Parrot, manager, parrot, spawn_parrot, who, who_by};

/// A host on every transport, with two procs that have a parrot each.
async fn many_doors(first: impl Into<BindSpec>) -> (Host, ActorRef<Parrot>) {
    let options = ServeOptions {
        danger_plaintext_beyond_loopback: true,
        ..ServeOptions::default()
    };
    let host = Host::builder()
        .serve_options(options)
        .also_serve(ChannelTransport::Unix)
        .also_serve(ChannelTransport::Tcp)
        .also_serve(ChannelTransport::Local)
        .also_serve("tcp:0.0.0.0:0".parse::<BindSpec>().unwrap())
        .alias("tcp:host.example:7000".parse().unwrap())
        .start(manager(), first)
        .await
        .unwrap();
    let a = spawn_parrot(&host, "a").await;
    spawn_parrot(&host, "b").await;
    (host, a)
}

/// The address with its host written in another way, where there is one.
fn respelt(addr: &ChannelAddr) -> ChannelAddr {
    addr.to_string()
        .replace("tcp:127.0.0.1:", "tcp:localhost:")
        .parse()
        .unwrap()
}

#[tokio::test]
async fn every_spelling_of_an_id_means_the_same_proc() {
    for first in [
        ChannelTransport::Unix,
        ChannelTransport::Tcp,
        ChannelTransport::Local,
    ] {
        let (host, inside) = many_doors(first).await;
        let outside = Host::new(manager(), ChannelTransport::Unix).await.unwrap();
        let from_outside = outside.service_proc().client("test").unwrap();
        let from_inside = host.service_proc().client("test").unwrap();
        let id = host.proc_id("b").unwrap();
        let addrs: Vec<ChannelAddr> = host.addrs().iter().cloned().collect();
        assert!(addrs.len() >= 6, "{addrs:?}");
        assert_eq!(addrs[0], *host.addr());
        for addr in addrs.iter().flat_map(|addr| [addr.clone(), respelt(addr)]) {
            // Everybody inside knows the alias, and no name is resolved for it; outside, it leads nowhere.
            let is_alias = addr.to_string().contains("example");
            let to = parrot(&addr, "b");
            if !is_alias {
                let asked = who(&from_outside, &to).await;
                assert_eq!(asked.unwrap(), id, "from outside as {addr}");
            }
            let asked = who(&from_inside, &to).await;
            assert_eq!(asked.unwrap(), id, "from the host's own proc as {addr}");
            let asked = who_by(&from_inside, &inside, &to).await;
            assert_eq!(asked.unwrap(), id, "from a sibling as {addr}");
        }
        assert!(host.stop(DEADLINE).await.is_clean());
        outside.stop(DEADLINE).await;
    }
}

#[tokio::test]
async fn every_entrance_answers_an_unknown_name_at_once_with_the_known_ones() {
    let (host, _) = many_doors(ChannelTransport::Unix).await;
    let mut asked = 0;
    for addr in host.addrs().iter() {
        if addr.to_string().contains("example") {
            continue;
        }
        // By every door, with the id spelt as the door is.
        let outside = MailboxClient::dial(addr.clone());
        let (handle, outcome) = ReturnHandle::oneshot();
        outside.post(to(ProcId::direct(addr.clone(), "nobody").unwrap()), handle);
        let Err(SendFailure::Returned(report)) = outcome.await else {
            panic!("it was delivered")
        };
        let Failure::NotDelivered(NotDelivered::UnknownProc { known, .. }) = report.failure else {
            panic!("{addr}: {}", report.failure);
        };
        assert_eq!(known, ["a", "b", "service"], "{addr}");
        asked += 1;
    }
    assert!(asked >= 5, "{asked}");
    host.stop(DEADLINE).await;
}

fn to(proc_id: ProcId) -> MessageEnvelope {
    let stranger = ProcId::direct("unix:@stranger".parse().unwrap(), "stranger").unwrap();
    let dest = PortId::new(ActorId::root(proc_id, "parrot"), 1);
    MessageEnvelope::typed(ActorId::root(stranger, "stranger"), dest, 7u64)
}

#[tokio::test]
async fn an_advertised_address_stands_in_the_ids() {
    let name: ChannelAddr = "tcp:host.example:7000".parse().unwrap();
    let host = Host::builder()
        .advertise(name.clone())
        .start(manager(), ChannelTransport::Tcp)
        .await
        .unwrap();
    assert_eq!(*host.addr(), name);
    let bound = host.addrs().others()[0].clone();
    assert_eq!(bound.transport(), ChannelTransport::Tcp);
    let client = host.service_proc().client("test").unwrap();
    let proc = host.spawn("a", ProcConfig::new()).await.unwrap();
    assert_eq!(*proc.proc_id().addr(), name);
    proc.spawn::<Parrot>(&client, "parrot", ()).await.unwrap();
    let asked = who(&client, &parrot(&bound, "a")).await;
    assert_eq!(asked.unwrap(), *proc.proc_id());
    host.stop(DEADLINE).await;
}

#[tokio::test]
async fn a_frontend_that_cannot_be_served_is_named_and_leaves_no_other() {
    let taken = Host::new(manager(), ChannelTransport::Unix).await.unwrap();
    let free: ChannelAddr = {
        let gone = Host::new(manager(), ChannelTransport::Unix).await.unwrap();
        gone.stop(DEADLINE).await;
        gone.addr().clone()
    };
    let error = Host::builder()
        .also_serve(taken.addr())
        .start(manager(), free.clone())
        .await
        .unwrap_err();
    assert_eq!(error.code(), "frontend");
    assert!(error.to_string().contains(&taken.addr().to_string()));
    let again = Host::new(manager(), free).await.unwrap();
    again.stop(DEADLINE).await;
    taken.stop(DEADLINE).await;

    let mut builder = Host::builder();
    for _ in 0..limits::FRONTENDS_MAX {
        builder = builder.also_serve(ChannelTransport::Local);
    }
    let error = builder
        .start(manager(), ChannelTransport::Local)
        .await
        .unwrap_err();
    assert_eq!(error.code(), "too-many-frontends");
}
