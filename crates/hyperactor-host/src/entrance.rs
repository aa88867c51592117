//! What the frontends of a host let in, and from whom; and the backend, which lets everybody in whom it gets.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use hyperactor_mailbox::{
    BoxFuture, FlushError, MailboxSender, MessageEnvelope, NotDelivered, ReturnHandle,
};
use hyperactor_refs::{Incarnation, ProcId};
use hyperactor_router::{AcceptSession, MailboxSession};
use parking_lot::Mutex;

use crate::agent::HostRefusal;
use crate::door::{self, DOOR, Knock, STARTING, Welcome};
use crate::limits;
use crate::relay::{Reach, Relay};
use crate::visitors::SessionKey;

/// What a frontend leads into: the procs of this host and of those behind it, and nothing beyond. A host is no relay for
/// strangers, who could reach through it what they cannot reach themselves.
#[derive(Clone)]
pub(crate) struct Entrance {
    /// The number of the frontend.
    number: usize,
    house: Arc<House>,
}

struct House {
    incarnation: Incarnation,
    /// How many sessions there are, with those of the backend.
    sessions: AtomicUsize,
    /// Set when the host is ready to be spoken to.
    relay: OnceLock<Relay>,
    /// Set when nothing waits any more that came before.
    open: OnceLock<Relay>,
    /// What came before that, in its order; `None` from then on.
    held: Mutex<Option<VecDeque<Held>>>,
}

/// An envelope that came before the host was ready.
struct Held {
    caller: Arc<Caller>,
    envelope: MessageEnvelope,
    return_handle: ReturnHandle,
}

impl House {
    /// Keeps an envelope until the host is ready; gives it back when that is so already.
    fn hold(&self, held: Held) -> Option<Held> {
        let mut queue = self.held.lock();
        match queue.as_mut() {
            Some(queue) if queue.len() < limits::HELD_MAX => {
                queue.push_back(held);
                None
            }
            _ => Some(held),
        }
    }
}

impl Drop for House {
    fn drop(&mut self) {
        for held in self.held.get_mut().take().into_iter().flatten() {
            let detail = "the host did not come to be".to_owned();
            refuse(held.envelope, held.return_handle, detail);
        }
    }
}

impl Entrance {
    /// The first entrance of a host, closed.
    pub(crate) fn new(incarnation: Incarnation) -> Self {
        let house = House {
            incarnation,
            sessions: AtomicUsize::new(0),
            relay: OnceLock::new(),
            open: OnceLock::new(),
            held: Mutex::new(Some(VecDeque::new())),
        };
        Self {
            number: 0,
            house: Arc::new(house),
        }
    }

    /// Another entrance of the same host.
    pub(crate) fn numbered(&self, number: usize) -> Self {
        Self {
            number,
            house: Arc::clone(&self.house),
        }
    }

    /// The entrance of the host's own procs, which is open at once.
    pub(crate) fn backend(&self, relay: Relay) -> Backend {
        Backend {
            house: Arc::clone(&self.house),
            relay,
        }
    }

    /// How many sessions there are at all entrances.
    pub(crate) fn sessions(&self) -> usize {
        self.house.sessions.load(Ordering::Relaxed)
    }

    /// Opens all entrances. What came before goes on first.
    pub(crate) fn open(&self, relay: &Relay) {
        self.house.relay.get_or_init(|| relay.clone());
        loop {
            let batch = {
                let mut held = self.house.held.lock();
                match held.as_mut().map(std::mem::take) {
                    Some(batch) if !batch.is_empty() => batch,
                    _ => {
                        // Nothing came meanwhile: from here on nothing waits.
                        *held = None;
                        self.house.open.get_or_init(|| relay.clone());
                        return;
                    }
                }
            };
            for held in batch {
                held.caller.pass(relay, held.envelope, held.return_handle);
            }
        }
    }

    fn key(&self, session: &MailboxSession) -> SessionKey {
        SessionKey {
            frontend: self.number,
            session: session.id(),
        }
    }
}

impl AcceptSession for Entrance {
    type Sender = Visitor;

    fn opened(&self, session: &MailboxSession) -> Visitor {
        self.house.sessions.fetch_add(1, Ordering::Relaxed);
        let caller = Caller {
            key: self.key(session),
            session: session.clone(),
            guest: OnceLock::new(),
            is_host: OnceLock::new(),
        };
        Visitor {
            house: Arc::clone(&self.house),
            caller: Arc::new(caller),
        }
    }

    fn closed(&self, session: &MailboxSession) {
        self.house.sessions.fetch_sub(1, Ordering::Relaxed);
        if let Some(relay) = self.house.relay.get() {
            relay.visitors().leave(self.key(session));
        }
    }
}

/// What the backend leads into: everything that the host knows a way to.
pub(crate) struct Backend {
    house: Arc<House>,
    relay: Relay,
}

impl AcceptSession for Backend {
    type Sender = Relay;

    fn opened(&self, _: &MailboxSession) -> Relay {
        self.house.sessions.fetch_add(1, Ordering::Relaxed);
        self.relay.clone()
    }

    fn closed(&self, _: &MailboxSession) {
        self.house.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Takes the envelopes of one session.
pub(crate) struct Visitor {
    house: Arc<House>,
    caller: Arc<Caller>,
}

/// Who is at the other end of a session.
struct Caller {
    key: SessionKey,
    session: MailboxSession,
    /// The guest that the session is, once it has spoken as one: then it is no one else.
    guest: OnceLock<Arc<ProcId>>,
    /// Set when the session leads to a host behind this one.
    is_host: OnceLock<()>,
}

impl Caller {
    /// Whether the session may send in the name of this proc; if not, why. The first time that it speaks as a guest, it
    /// becomes that guest.
    fn admit(&self, relay: &Relay, sender: &Arc<ProcId>) -> Result<(), String> {
        if let Some(guest) = self.guest.get() {
            if **guest == **sender {
                return Ok(());
            }
            return Err(format!(
                "this connection speaks for `{guest}` only, and not for `{sender}`"
            ));
        }
        if self.is_host.get().is_some() {
            if relay.visitors().speaks_for(self.key, sender.addr()) {
                return Ok(());
            }
            return Err(format!(
                "this connection speaks for the host at its end, and not for `{sender}`"
            ));
        }
        if !door::is_guest(sender.name()) {
            return Ok(());
        }
        if !relay.addrs().contains(sender.addr()) {
            let host = relay.addrs().canonical();
            return Err(format!("`{sender}` is no guest of the host {host}"));
        }
        let Some(back) = self.session.back() else {
            return Err(
                "a guest takes its answers over its own connection, and this one takes none"
                    .to_owned(),
            );
        };
        relay.visitors().enter(self.key, sender, back)?;
        self.guest.get_or_init(|| Arc::clone(sender));
        Ok(())
    }

    /// Answers who knocks.
    fn knock(&self, house: &House, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        let sender = Arc::clone(envelope.sender().proc());
        let Some(back) = self.session.back() else {
            let detail = "who knocks takes no answer over its connection".to_owned();
            return refuse(envelope, return_handle, detail);
        };
        let Knock { claim, reply } = match envelope.into_message::<Knock>() {
            Ok(knock) => knock,
            Err((envelope, error)) => {
                let error = error.to_string();
                return return_handle.undeliverable(envelope, NotDelivered::Decode { error });
            }
        };
        drop(return_handle.delivered());
        let answer = if reply.actor_id().proc_id() == &*sender {
            self.answer(house, claim)
        } else {
            Err(HostRefusal::new(
                "bad-reply",
                "the answer is for another proc".to_owned(),
            ))
        };
        let host = house.relay.get().map(|relay| relay.service().clone());
        door::answer(back, &host.unwrap_or(sender), reply, answer);
    }

    fn answer(&self, house: &House, claim: Option<door::Claim>) -> Result<Welcome, HostRefusal> {
        let is_self = |claim: &door::Claim| claim.incarnation == house.incarnation;
        if claim.as_ref().is_some_and(is_self) {
            let text = "the host cannot stand behind itself".to_owned();
            return Err(HostRefusal::new("itself", text));
        }
        let Some(relay) = house.relay.get() else {
            let text = "the host is still starting: try again".to_owned();
            return Err(HostRefusal::new(STARTING, text));
        };
        let floors = relay.floors();
        if let Some(claim) = claim {
            if self.guest.get().is_some() {
                let text = "this connection is that of a guest".to_owned();
                return Err(HostRefusal::new("bad-claim", text));
            }
            let Some(back) = self.session.back() else {
                return Err(HostRefusal::new(
                    "bad-claim",
                    "the connection has no way back".to_owned(),
                ));
            };
            relay.visitors().attach(self.key, claim, back, &floors)?;
            self.is_host.get_or_init(|| ());
        }
        Ok(Welcome { floors })
    }

    /// Moves an envelope on, if the session may send it.
    fn pass(&self, relay: &Relay, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        if let Err(detail) = self.admit(relay, envelope.sender().proc()) {
            return refuse(envelope, return_handle, detail);
        }
        let reach = if self.is_host.get().is_some() {
            Reach::Around
        } else {
            Reach::Below
        };
        relay.post_from_outside(envelope, return_handle, reach);
    }
}

fn refuse(envelope: MessageEnvelope, return_handle: ReturnHandle, detail: String) {
    let port_id = envelope.dest().clone();
    return_handle.undeliverable(envelope, NotDelivered::NoRoute { port_id, detail });
}

impl MailboxSender for Visitor {
    fn post_unchecked(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        let (house, caller) = (&*self.house, &self.caller);
        if envelope.dest().proc_id().name() == DOOR {
            return caller.knock(house, envelope, return_handle);
        }
        if let Some(relay) = house.open.get() {
            return caller.pass(relay, envelope, return_handle);
        }
        let held = Held {
            caller: Arc::clone(caller),
            envelope,
            return_handle,
        };
        let Some(Held {
            envelope,
            return_handle,
            ..
        }) = house.hold(held)
        else {
            return;
        };
        // Opened in the meantime, or too many wait.
        match house.open.get() {
            Some(relay) => caller.pass(relay, envelope, return_handle),
            None => {
                let detail = format!(
                    "the host is still starting, and {} messages wait",
                    limits::HELD_MAX
                );
                refuse(envelope, return_handle, detail);
            }
        }
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), FlushError>> {
        match self.house.relay.get() {
            Some(relay) => relay.flush(),
            None => Box::pin(std::future::ready(Ok(()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hyperactor_channel::ServeOptions;
    use hyperactor_mailbox::{Mailbox, MailboxMuxer};
    use hyperactor_refs::{ActorId, ChannelTransport, PortId};
    use hyperactor_router::{DialMailboxRouter, MailboxClient, MailboxServer};
    use hyperactor_testkit::eventually;

    use super::*;
    use crate::above::Above;
    use crate::addrs::HostAddrs;
    use crate::departed::Departed;
    use crate::relay::Ways;
    use crate::visitors::Visitors;

    #[tokio::test]
    async fn what_comes_before_a_host_is_ready_waits_in_its_order() {
        const COUNT: u64 = 100;
        let entrance = Entrance::new(Incarnation::new(1));
        let options = ServeOptions::default();
        let bind = ChannelTransport::Unix;
        let server = MailboxServer::serve_duplex(bind, options, entrance.clone())
            .await
            .unwrap();
        let service = Arc::new(ProcId::direct(server.addr().clone(), "service").unwrap());
        let mailbox = Mailbox::new(ActorId::root(Arc::clone(&service), "a"));
        let (port, mut receiver) = mailbox.open_port::<u64>();
        let dest: PortId = port.bind().into_port_id();
        let muxer = MailboxMuxer::new();
        muxer.bind(mailbox).unwrap();
        let router = DialMailboxRouter::new();
        router.bind_sender(Arc::clone(&service), muxer);

        let client = MailboxClient::dial(server.addr().clone());
        let sender: ActorId = "unix:@x,y,z[0]".parse().unwrap();
        let mut outcomes = Vec::new();
        for number in 0..COUNT {
            let (handle, outcome) = ReturnHandle::oneshot();
            let envelope = MessageEnvelope::typed(sender.clone(), dest.clone(), number);
            client.post(envelope, handle);
            outcomes.push(outcome);
        }
        let waiting = || entrance.house.held.lock().as_ref().map_or(0, VecDeque::len);
        eventually(Duration::from_secs(5), || waiting() as u64 == COUNT).await;
        assert_eq!(receiver.try_recv(), None);

        entrance.open(&Relay::new(Ways {
            incarnation: Incarnation::new(1),
            addrs: HostAddrs::new(server.addr().clone()),
            service,
            router,
            departed: Departed::default(),
            visitors: Visitors::new(),
            above: Above::default(),
        }));
        for outcome in outcomes {
            outcome.await.unwrap();
        }
        for number in 0..COUNT {
            assert_eq!(receiver.try_recv(), Some(number));
        }
        server.stop().await;
    }

    #[tokio::test]
    async fn a_host_that_does_not_come_to_be_gives_back_what_waits() {
        let entrance = Entrance::new(Incarnation::new(1));
        let options = ServeOptions::default();
        let bind = ChannelTransport::Local;
        let server = MailboxServer::serve_duplex(bind, options, entrance.clone())
            .await
            .unwrap();
        let client = MailboxClient::dial(server.addr().clone());
        let dest = format!("{},service,a[0][1]", server.addr());
        let (handle, outcome) = ReturnHandle::oneshot();
        let sender: ActorId = "unix:@x,y,z[0]".parse().unwrap();
        client.post(
            MessageEnvelope::typed(sender, dest.parse().unwrap(), 7u64),
            handle,
        );
        let waiting = || entrance.house.held.lock().as_ref().map_or(0, VecDeque::len);
        eventually(Duration::from_secs(5), || waiting() == 1).await;
        server.stop().await;
        drop(entrance);
        let failure = outcome.await.unwrap_err().into_failure();
        assert!(!failure.to_string().is_empty());
    }
}
