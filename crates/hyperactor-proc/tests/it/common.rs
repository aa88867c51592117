//! What the tests of this crate share: a bound for every wait, two actors, and two procs joined by memory.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use hyperactor_mailbox::{MailboxSender, MessageEnvelope, NotDelivered, ReturnHandle};
use hyperactor_proc::{
    Actor, ActorResult, Context, Handler, Message, OncePortRef, Proc, Undeliverable,
};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc};

/// Long enough for a loaded machine; a test that reaches it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Fails a test that waits for something that does not come.
pub(crate) async fn soon<F: IntoFuture>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("did not happen in time")
}

/// A runtime of so many threads, for tests that keep one of them from its work.
pub(crate) fn workers(count: usize) -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(count)
        .enable_all()
        .build()
        .unwrap()
}

/// Polls a future one time.
pub(crate) async fn polled_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

#[derive(Message, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub(crate) struct Add(pub(crate) u64);

#[derive(Message, Serialize, Deserialize)]
pub(crate) struct Total(pub(crate) OncePortRef<u64>);

/// Adds up.
#[derive(Actor, Default)]
#[actor(messages(Add, Total))]
pub(crate) struct Counter {
    pub(crate) total: u64,
}

impl Handler<Add> for Counter {
    async fn handle(&mut self, _cx: &Context<Self>, Add(amount): Add) -> ActorResult {
        self.total += amount;
        Ok(())
    }
}

impl Handler<Total> for Counter {
    async fn handle(&mut self, cx: &Context<Self>, Total(reply): Total) -> ActorResult {
        cx.reply(reply, self.total);
        Ok(())
    }
}

/// Each handled message takes a permit; what it handled and what came back it tells.
#[derive(Actor)]
#[actor(hooks, messages(Add, Total))]
pub(crate) struct Gated {
    pub(crate) gate: Arc<Semaphore>,
    pub(crate) events: mpsc::UnboundedSender<Event>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Handling(u64),
    Handled(u64),
    Returned(u64),
    Dropped,
}

impl Gated {
    pub(crate) fn new() -> (Self, Arc<Semaphore>, mpsc::UnboundedReceiver<Event>) {
        let gate = Arc::new(Semaphore::new(0));
        let (events, seen) = mpsc::unbounded_channel();
        let actor = Self {
            gate: Arc::clone(&gate),
            events,
        };
        (actor, gate, seen)
    }

    pub(crate) fn tell(&self, event: Event) {
        // A test that looks no longer has dropped its end.
        self.events.send(event).ok();
    }
}

impl Drop for Gated {
    fn drop(&mut self) {
        self.tell(Event::Dropped);
    }
}

impl Actor for Gated {
    async fn on_undeliverable(
        &mut self,
        _cx: &Context<Self>,
        report: Undeliverable,
    ) -> ActorResult {
        let Add(number) = report.envelope.into_message().map_err(|(_, error)| error)?;
        self.tell(Event::Returned(number));
        Ok(())
    }
}

impl Handler<Add> for Gated {
    async fn handle(&mut self, _cx: &Context<Self>, Add(number): Add) -> ActorResult {
        self.tell(Event::Handling(number));
        self.gate.acquire().await?.forget();
        self.tell(Event::Handled(number));
        Ok(())
    }
}

impl Handler<Total> for Gated {
    async fn handle(&mut self, cx: &Context<Self>, Total(reply): Total) -> ActorResult {
        self.gate.acquire().await?.forget();
        cx.reply(reply, 0);
        Ok(())
    }
}

/// A message that is no longer used by tests of one kind: posts it through a reference.
#[derive(Message, Serialize, Deserialize)]
pub(crate) struct Forward {
    pub(crate) to: hyperactor_proc::PortRef<Add>,
    pub(crate) number: u64,
}

impl Handler<Forward> for Gated {
    async fn handle(&mut self, cx: &Context<Self>, message: Forward) -> ActorResult {
        message.to.post(cx, Add(message.number));
        Ok(())
    }
}

/// Routes between procs of one process by their names, encoding every message as a wire would.
#[derive(Clone, Default)]
pub(crate) struct Wire {
    procs: Arc<Mutex<HashMap<String, Proc>>>,
    carried: Arc<AtomicU64>,
}

impl Wire {
    /// A proc with this wire as its forwarder. The wire owns it too, until it is cut.
    pub(crate) fn proc(&self, name: &str) -> Proc {
        let proc_id = format!("local:7,{name}").parse().unwrap();
        let proc = Proc::new(proc_id, self.boxed());
        self.procs
            .lock()
            .unwrap()
            .insert(name.to_owned(), proc.clone());
        proc
    }

    /// Leads to a proc that was made elsewhere, or was cut off.
    pub(crate) fn join(&self, proc: &Proc) {
        let name = proc.proc_id().name().to_owned();
        self.procs.lock().unwrap().insert(name, proc.clone());
    }

    /// How many messages it was given.
    pub(crate) fn carried(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }

    pub(crate) fn cut(&self, name: &str) {
        let proc = self.procs.lock().unwrap().remove(name);
        drop(proc);
    }
}

impl MailboxSender for Wire {
    fn post_unchecked(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        self.carried.fetch_add(1, Ordering::Relaxed);
        let proc = {
            let procs = self.procs.lock().unwrap();
            procs.get(envelope.dest().proc_id().name()).cloned()
        };
        let Some(proc) = proc else {
            let proc_id = envelope.dest().actor_id().proc().clone();
            return return_handle.undeliverable(envelope, NotDelivered::ProcGone { proc_id });
        };
        let mut bytes = bytes::BytesMut::new();
        if let Err(error) = envelope.encode(&mut bytes) {
            let error = error.to_string();
            return return_handle.undeliverable(envelope, NotDelivered::Encode { error });
        }
        let envelope = MessageEnvelope::decode(bytes.freeze()).expect("what was encoded decodes");
        proc.post(envelope, return_handle);
    }
}
