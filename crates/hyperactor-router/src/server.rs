//! Envelopes from channels into a sender, [`MailboxServer`], and the sessions they come by, [`MailboxSession`], each of which
//! can carry envelopes back to its dialer. How an envelope that came is settled is in `session`.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyperactor_channel::{
    Accept, Deliver, Inbound, Outbound, Parcel, Peer, ServeError, ServeOptions, ServerHandle,
    Ticket, serve_with,
};
use hyperactor_mailbox::{MailboxSender, MessageEnvelope};
use hyperactor_refs::{BindSpec, ChannelAddr};
use tokio::runtime::Handle;

use crate::client::MailboxClient;
use crate::codec::EnvelopeCodec;
use crate::completion::EnvelopeCompletion;
use crate::session::Incoming;

/// Serves an address for envelopes.
#[derive(Debug)]
pub struct MailboxServer;

impl MailboxServer {
    /// Serves an address and posts each envelope that arrives there into `sender`, by the task that read it.
    ///
    /// What the sender says of an envelope goes back to whoever sent it: the session is settled by the envelope's return
    /// handle. So a server in front of a router is a relay, and the outcome that the first sender sees is that of the
    /// last mailbox. Each arrival spends a step of the envelope's time to live, so no loop of relays is endless.
    ///
    /// # Errors
    /// [`ServeError`] says which address or path was refused, and why.
    ///
    /// # Cancel safety
    /// Nothing is bound before it returns.
    pub async fn serve(
        bind: impl Into<BindSpec>,
        sender: impl MailboxSender + Clone,
        options: ServeOptions,
    ) -> Result<MailboxServerHandle, ServeError> {
        Self::serve_duplex(bind, options, OneSender(sender)).await
    }

    /// As [`serve`](Self::serve), for dialers that are sent envelopes back over their own connection: each session that one
    /// opens is shown to `acceptor`, which says who takes its envelopes.
    ///
    /// # Errors
    /// [`ServeError`] says which address or path was refused, and why.
    ///
    /// # Cancel safety
    /// Nothing is bound before it returns.
    pub async fn serve_duplex(
        bind: impl Into<BindSpec>,
        options: ServeOptions,
        acceptor: impl AcceptSession,
    ) -> Result<MailboxServerHandle, ServeError> {
        let sessions = Sessions {
            acceptor: Arc::new(acceptor),
            capacity: u64::from(options.outbox_messages),
            opened: AtomicU64::new(0),
            // A dialer in this process may open its session from a thread without one.
            runtime: Handle::try_current().ok(),
        };
        let server = serve_with(bind, options, EnvelopeCodec, sessions).await?;
        Ok(MailboxServerHandle { server })
    }
}

/// Owns a server. Dropping it ends the server at once.
pub struct MailboxServerHandle {
    server: ServerHandle,
}

impl MailboxServerHandle {
    /// The address that others dial; for a bind of "any", the one that was found.
    #[must_use]
    pub fn addr(&self) -> &ChannelAddr {
        self.server.addr()
    }

    /// Ends the server in order: nothing more is received, what was received is settled, and every peer is told goodbye.
    ///
    /// # Cancel safety
    /// Dropped half-way, the server goes on ending in order by itself.
    pub async fn stop(self) {
        self.server.stop().await;
    }
}

impl fmt::Debug for MailboxServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailboxServerHandle")
            .field("addr", &format_args!("{}", self.addr()))
            .finish_non_exhaustive()
    }
}

/// Takes the sessions that dialers open with a server: [`MailboxServer::serve_duplex`].
///
/// A session outlives its connections: one that is resumed over another connection is the same, and is not opened again.
pub trait AcceptSession: Send + Sync + 'static {
    /// Takes the envelopes of one session.
    type Sender: MailboxSender;

    /// A dialer has opened a session. Called before its first envelope is taken, by the task that reads it, so it must not
    /// block.
    fn opened(&self, session: &MailboxSession) -> Self::Sender;

    /// A session has ended for good: its dialer closed it or was away for too long, or the server ended. No envelope of it
    /// follows, and what was sent back has its outcomes. Called once for each that was opened.
    fn closed(&self, session: &MailboxSession) {
        let _nobody_asked = session;
    }
}

/// A session that a dialer opened.
#[derive(Clone)]
pub struct MailboxSession {
    id: u64,
    peer: Peer,
    back: Option<MailboxClient>,
}

impl MailboxSession {
    /// Its number: no other session of this server has it.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Who dialled, as far as that can be verified: the kernel says the user and the process, the dialer itself its
    /// incarnation.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Sends to the dialer, over the connection that it dialled; `None` where the dialer takes nothing
    /// ([`MailboxClient::dial`]).
    ///
    /// It has the same outcomes, room and flush as a client that was dialled. Differences: its dialer connects again when
    /// the connection is lost, this end waits for that; dropping it closes nothing; [closing](MailboxClient::close) it ends the
    /// session in both directions; and its failures name the address of the dialer's end where that has one, else the
    /// server's, unless another is [given](MailboxClient::with_addr).
    #[must_use]
    pub fn back(&self) -> Option<&MailboxClient> {
        self.back.as_ref()
    }
}

impl fmt::Debug for MailboxSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailboxSession")
            .field("id", &self.id)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// Gives all sessions to one sender, and sends nothing back.
struct OneSender<S>(S);

impl<S: MailboxSender + Clone> AcceptSession for OneSender<S> {
    type Sender = S;

    fn opened(&self, _session: &MailboxSession) -> S {
        self.0.clone()
    }
}

struct Sessions<A> {
    acceptor: Arc<A>,
    capacity: u64,
    opened: AtomicU64,
    runtime: Option<Handle>,
}

impl<A: AcceptSession> Accept<MessageEnvelope> for Sessions<A> {
    type Session = Session<A>;
    type Completion = EnvelopeCompletion;

    fn open(
        &self,
        peer: Peer,
        inbound: Inbound,
        outbound: Outbound<MessageEnvelope, EnvelopeCompletion>,
    ) -> Session<A> {
        let back = peer.receives.then(|| {
            let addr = peer.addr.as_ref().unwrap_or(outbound.addr()).clone();
            MailboxClient::over(outbound, addr, self.capacity, self.runtime.clone())
        });
        let session = MailboxSession {
            id: self.opened.fetch_add(1, Ordering::Relaxed),
            peer,
            back,
        };
        let sender = self.acceptor.opened(&session);
        Session {
            incoming: Incoming::new(sender, inbound),
            _open: Open {
                acceptor: Arc::clone(&self.acceptor),
                session,
            },
        }
    }
}

struct Session<A: AcceptSession> {
    incoming: Incoming<A::Sender>,
    /// Declared last: whoever is told of the end finds the session's sender dropped.
    _open: Open<A>,
}

impl<A: AcceptSession> Deliver<MessageEnvelope> for Session<A> {
    fn deliver(&mut self, envelope: MessageEnvelope, ticket: Ticket) {
        self.incoming.deliver(envelope, ticket);
    }

    fn deliver_awaited(&mut self, envelope: MessageEnvelope, ticket: Ticket) {
        self.incoming.deliver_awaited(envelope, ticket);
    }

    fn pass(&mut self, parcel: Parcel) -> Option<Parcel> {
        self.incoming.pass(parcel)
    }

    fn renamed(&mut self, name: u32) {
        self.incoming.renamed(name);
    }

    fn reconnected(&mut self) {
        self.incoming.reconnected();
    }

    fn batch_ended(&mut self) {
        self.incoming.batch_ended();
    }
}

/// Tells of the end of a session, however it ends: also when the sender of its envelopes panicked.
struct Open<A: AcceptSession> {
    acceptor: Arc<A>,
    session: MailboxSession,
}

impl<A: AcceptSession> Drop for Open<A> {
    fn drop(&mut self) {
        self.acceptor.closed(&self.session);
    }
}
