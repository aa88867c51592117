//! One address of a dialling router, with the client that leads there. A client that has ended is not kept, but for a while
//! where the peer speaks no common version.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use hyperactor_mailbox::{Hop, MailboxSender, MessageEnvelope, ReturnHandle, RouteKind};
use hyperactor_refs::{ChannelAddr, ChannelTransport};
use parking_lot::RwLock;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::client::MailboxClient;
use crate::limits::REFUSED_HOLD;
use hyperactor_channel::{DialOptions, Status};

/// An address and the present client for it.
pub(crate) struct Slot {
    addr: ChannelAddr,
    options: Arc<DialOptions>,
    present: RwLock<Present>,
}

#[derive(Default)]
struct Present {
    /// Shared, so that a post costs one reference count of it and not one of each of its parts.
    client: Option<Arc<MailboxClient>>,
    /// Counts the clients, so that one that ended is taken out once, and its successor is not.
    generation: u64,
    /// Clients that have ended and are still telling outcomes, with their numbers: a flush waits for them too.
    ending: Vec<(u64, MailboxClient)>,
    /// Until when the present client is kept though it has ended.
    kept_until: Option<Instant>,
}

impl Slot {
    pub(crate) fn new(addr: ChannelAddr, options: Arc<DialOptions>) -> Arc<Self> {
        Arc::new(Self {
            addr,
            options,
            present: RwLock::default(),
        })
    }

    /// Posts through the present client, or, where that has ended, through a new one.
    pub(crate) fn post(self: &Arc<Self>, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        let (client, generation) = self.client();
        if let Err(ended) = client.try_post(envelope, return_handle) {
            if ended.is_of_another_version() && self.keeps(generation) {
                return ended.give_back();
            }
            self.evict(generation);
            let (envelope, return_handle) = ended.into_post();
            // Tried once: a client that is new and has ended already will tell why.
            self.client().0.post_unchecked(envelope, return_handle);
        }
    }

    /// Whether a client is kept for now although its peer refused it: each post would be a dial, and be told the same.
    fn keeps(&self, generation: u64) -> bool {
        let now = Instant::now();
        let mut present = self.present.write();
        if present.generation != generation || present.client.is_none() {
            return false;
        }
        let until = present.kept_until.get_or_insert(now + REFUSED_HOLD);
        now < *until
    }

    /// The client that is there now.
    pub(crate) fn present(&self) -> Option<MailboxClient> {
        self.present.read().client.as_deref().cloned()
    }

    /// The same, shared.
    pub(crate) fn present_client(&self) -> Option<Arc<MailboxClient>> {
        self.present.read().client.clone()
    }

    /// All clients of this address that may still owe outcomes.
    pub(crate) fn clients(&self) -> Vec<MailboxClient> {
        let present = self.present.read();
        let ending = present.ending.iter().map(|(_, client)| client);
        ending.chain(present.client.as_deref()).cloned().collect()
    }

    /// Whether nothing is connected, or about to be.
    pub(crate) fn is_idle(&self) -> bool {
        self.present().is_none_or(|client| {
            let is_idle = matches!(*client.status().borrow(), Status::Idle | Status::Closed(_));
            // A channel that was just posted to is idle until its task has its turn.
            is_idle && is_ready(client.flush())
        })
    }

    pub(crate) fn addr(&self) -> &ChannelAddr {
        &self.addr
    }

    fn client(&self) -> (Arc<MailboxClient>, u64) {
        let generation = {
            let present = self.present.read();
            if let Some(client) = &present.client {
                return (Arc::clone(client), present.generation);
            }
            present.generation
        };
        // Outside the lock. Dialling is lazy: should another thread be first, this one never connects.
        let dialled = MailboxClient::dial_with(self.addr.clone(), (*self.options).clone())
            .with_hop(Hop {
                at: self.addr.to_string(),
                route: route_to(&self.addr),
            });
        let dialled = Arc::new(dialled);
        let mut present = self.present.write();
        if let Some(client) = &present.client {
            let first = (Arc::clone(client), present.generation);
            drop(present);
            return first;
        }
        present.client = Some(Arc::clone(&dialled));
        present.generation = generation.max(present.generation) + 1;
        (dialled, present.generation)
    }

    fn evict(self: &Arc<Self>, generation: u64) {
        let evicted = {
            let mut present = self.present.write();
            if present.generation != generation {
                return;
            }
            let evicted = present.client.take().map(|client| (*client).clone());
            present.kept_until = None;
            let ending = evicted.clone().map(|client| (generation, client));
            present.ending.extend(ending);
            evicted
        };
        let Some(client) = evicted else { return };
        let slot = Arc::clone(self);
        let mut told = Box::pin(async move {
            // However it ended, everything has its outcome then.
            drop(client.flush().await);
            slot.forget_ending(generation);
        });
        // As a rule all has been told by now, and there is nothing to wait for.
        if is_ready(told.as_mut()) {
            return;
        }
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(told)),
            // Without a runtime nobody can wait for it.
            Err(_) => self.forget_ending(generation),
        }
    }

    fn forget_ending(&self, generation: u64) {
        let told: Vec<_> = {
            let mut present = self.present.write();
            let is_told = |entry: &mut (u64, MailboxClient)| entry.0 == generation;
            present.ending.extract_if(.., is_told).collect()
        };
        // The end of a client may run others' code, so not under the lock.
        drop(told);
    }
}

/// Whether there is nothing to wait for.
fn is_ready(future: impl Future) -> bool {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    future.as_mut().poll(&mut context).is_ready()
}

/// How an address of this kind is reached.
fn route_to(addr: &ChannelAddr) -> RouteKind {
    match addr.transport() {
        ChannelTransport::Local | ChannelTransport::Unix => RouteKind::Direct,
        _ => RouteKind::Remote,
    }
}
