//! Envelopes that only pass through a process go on undecoded, and nobody can tell by what becomes of them: their order, their
//! steps, the way that the table says at the time, and the reasons for which they come back are those of any other.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use common::{PATIENCE, proc_at, reason, sender, serve};
use hyperactor_mailbox::{
    BoxFuture, Bytes, FlushError, MailboxSender, MessageEnvelope, NotDelivered, OutcomeReceiver,
    Passage, Payload, ReturnHandle, SendFailure, Undeliverable, limits,
};
use hyperactor_refs::{ActorId, ChannelTransport, PortId, ProcId};
use hyperactor_router::{DialMailboxRouter, MailboxClient, MailboxServerHandle};

/// A router that counts what it is posted one by one.
#[derive(Clone)]
struct Counted {
    router: DialMailboxRouter,
    posted: Arc<AtomicUsize>,
}

impl MailboxSender for Counted {
    fn post_unchecked(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        self.posted.fetch_add(1, Ordering::Relaxed);
        self.router.post_unchecked(envelope, return_handle);
    }

    fn passage(&self, envelope: &MessageEnvelope) -> Option<Passage> {
        self.router.passage(envelope)
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), FlushError>> {
        self.router.flush()
    }
}

/// Takes everything, and keeps what it saw: port, steps left, headers, bytes.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<Seen>>>);

type Seen = (u64, u8, usize, Bytes);

impl MailboxSender for Recorder {
    fn post_unchecked(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        let Payload::Encoded { bytes, .. } = envelope.payload() else {
            panic!("it came over a channel");
        };
        let seen = (
            envelope.dest().index(),
            envelope.ttl(),
            envelope.headers().len(),
            bytes.clone(),
        );
        self.0.lock().unwrap().push(seen);
        drop(return_handle.delivered());
    }
}

struct Chain {
    client: MailboxClient,
    router: DialMailboxRouter,
    posted: Arc<AtomicUsize>,
    proc_id: ProcId,
    seen: Recorder,
    /// Kept, for what they serve.
    _relay: MailboxServerHandle,
    _far: MailboxServerHandle,
}

async fn chain() -> Chain {
    let seen = Recorder::default();
    let far = serve(ChannelTransport::Unix, seen.clone()).await;
    let (router, posted) = (DialMailboxRouter::new(), Arc::default());
    let counted = Counted {
        router: router.clone(),
        posted: Arc::clone(&posted),
    };
    let relay = serve(ChannelTransport::Unix, counted).await;
    let proc_id = proc_at(relay.addr(), "far");
    router.bind(proc_id.clone(), far.addr().clone()).unwrap();
    router.own(relay.addr().clone());
    Chain {
        client: MailboxClient::dial(relay.addr().clone()),
        router,
        posted,
        proc_id,
        seen,
        _relay: relay,
        _far: far,
    }
}

impl Chain {
    fn envelope(&self, port: u64, bytes: Vec<u8>) -> MessageEnvelope {
        let dest = PortId::new(ActorId::root(self.proc_id.clone(), "a"), port);
        let bytes = Bytes::from(bytes);
        let payload = Payload::Encoded {
            type_hash: 7,
            bytes,
        };
        MessageEnvelope::new(sender(), dest, payload)
    }

    fn post(&self, envelope: MessageEnvelope) -> OutcomeReceiver {
        let (return_handle, outcome) = ReturnHandle::oneshot();
        self.client.post(envelope, return_handle);
        outcome
    }

    /// Posts envelopes to this port, and waits for all of them.
    async fn stream(&self, port: u64, count: usize) {
        let sent: Vec<_> = (0..count)
            .map(|number| self.post(self.envelope(port, number.to_le_bytes().to_vec())))
            .collect();
        for outcome in sent {
            arrived(outcome).await.unwrap();
        }
    }

    fn posted(&self) -> usize {
        self.posted.load(Ordering::Relaxed)
    }

    fn taken(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.0.lock().unwrap())
    }
}

async fn arrived(outcome: OutcomeReceiver) -> Result<(), Box<Undeliverable>> {
    match tokio::time::timeout(PATIENCE, outcome).await.unwrap() {
        Ok(()) => Ok(()),
        Err(SendFailure::Returned(report)) => Err(report),
        Err(other) => panic!("lost: {other}"),
    }
}

#[tokio::test]
async fn a_stream_passes_a_relay_undecoded_in_order_and_with_its_step_spent() {
    let chain = chain().await;
    chain.stream(1, 2_000).await;
    chain.stream(2, 2_000).await;
    let seen = chain.taken();
    assert_eq!(seen.len(), 4_000);
    for (number, (port, ttl, _, bytes)) in seen.into_iter().enumerate() {
        assert_eq!(port, if number < 2_000 { 1 } else { 2 });
        assert_eq!(bytes[..], (number % 2_000).to_le_bytes());
        // One by the post, one at the relay, one at the far end, whichever way it went.
        assert_eq!(ttl, limits::TTL_DEFAULT - 3);
    }
    assert!(chain.posted() < 10, "{} were decoded", chain.posted());
}

#[tokio::test]
async fn large_envelopes_pass_beside_small_ones_and_stay_whole() {
    let chain = chain().await;
    chain.stream(1, 10).await;
    chain.taken();
    let sizes = [10, 17_000, 65_000, 70_000, 3_000_000, 20, 16_384 - 18, 0];
    let body = |size: usize| -> Vec<u8> { (0..size).map(|at| (at % 251) as u8).collect() };
    let sent = sizes.map(|size| chain.post(chain.envelope(1, body(size))));
    for outcome in sent {
        arrived(outcome).await.unwrap();
    }
    let found: Vec<_> = chain.taken().into_iter().map(|seen| seen.3).collect();
    let expected: Vec<_> = sizes.map(body).into_iter().map(Bytes::from).collect();
    assert!(found == expected, "altered, or out of order");
    assert!(chain.posted() < 10, "{} were decoded", chain.posted());
}

#[tokio::test]
async fn envelopes_with_headers_keep_them_and_their_place_among_the_others() {
    let chain = chain().await;
    chain.stream(1, 10).await;
    chain.taken();
    let sent: Vec<_> = (0..100_u8)
        .map(|number| {
            let mut envelope = chain.envelope(1, vec![number]);
            if number % 3 == 0 {
                envelope.headers_mut().set(4, "kept").unwrap();
            }
            chain.post(envelope)
        })
        .collect();
    for outcome in sent {
        arrived(outcome).await.unwrap();
    }
    for (number, (_, _, headers, bytes)) in chain.taken().into_iter().enumerate() {
        assert_eq!(usize::from(bytes[0]), number);
        assert_eq!(headers, usize::from(number % 3 == 0));
    }
}

#[tokio::test]
async fn an_envelope_without_a_step_left_does_not_pass() {
    let chain = chain().await;
    chain.stream(1, 10).await;
    chain.taken();
    for ttl in [0, 1] {
        let mut envelope = chain.envelope(1, vec![ttl]);
        // The client's own post spends one, too, where there is one.
        envelope.set_ttl(ttl + 1);
        let report = arrived(chain.post(envelope)).await.unwrap_err();
        let why = reason(&report);
        assert!(matches!(why, NotDelivered::TtlExpired { .. }), "{why}");
    }
    assert!(chain.taken().is_empty());
}

#[tokio::test]
async fn envelopes_go_where_the_table_leads_at_the_time() {
    let chain = chain().await;
    chain.stream(1, 100).await;
    assert_eq!(chain.taken().len(), 100);
    let other = Recorder::default();
    let elsewhere = serve(ChannelTransport::Unix, other.clone()).await;
    let proc_id = chain.proc_id.clone();
    let addr = elsewhere.addr().clone();
    chain.router.bind(proc_id.clone(), addr).unwrap();
    chain.stream(1, 100).await;
    assert_eq!(
        (chain.taken().len(), other.0.lock().unwrap().len()),
        (0, 100)
    );
    // A port of the actor that leads elsewhere than its proc.
    let port = PortId::new(ActorId::root(proc_id.clone(), "a"), 9);
    chain.router.bind_sender(port, chain.seen.clone());
    chain.stream(1, 10).await;
    chain.stream(9, 10).await;
    assert_eq!(
        (chain.taken().len(), other.0.lock().unwrap().len()),
        (10, 110)
    );
    chain.router.unbind(&proc_id.into());
    let report = arrived(chain.post(chain.envelope(1, vec![])))
        .await
        .unwrap_err();
    let why = reason(&report);
    assert!(matches!(why, NotDelivered::UnknownProc { .. }), "{why}");
}

#[tokio::test]
async fn what_passed_and_finds_nobody_comes_back_with_its_message() {
    let chain = chain().await;
    chain.stream(1, 100).await;
    let Chain { _far: far, .. } = &chain;
    let addr = far.addr().clone();
    let Chain {
        client,
        proc_id,
        _far: far,
        _relay,
        ..
    } = chain;
    far.stop().await;
    let dest = PortId::new(ActorId::root(proc_id, "a"), 1);
    let report = common::send(&client, &dest, "text".to_owned()).await;
    let report = report.unwrap_err();
    assert!(report.to_string().contains(&addr.to_string()), "{report}");
    assert_eq!(report.envelope.into_message::<String>().unwrap(), "text");
}
