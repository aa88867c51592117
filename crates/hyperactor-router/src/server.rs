//! Envelopes from channels into a sender: [`MailboxServer`].

use std::fmt;
use std::sync::Arc;

use hyperactor_channel::{
    Accept, Deliver, Ignore, Inbound, Outbound, Peer, ServeError, ServeOptions, ServerHandle,
    Ticket, Verdict, serve_with,
};
use hyperactor_mailbox::{
    Failure, MailboxSender, MessageEnvelope, ReturnHandle, ReturnSink, Token, Undeliverable,
    Unknown,
};
use hyperactor_refs::{BindSpec, ChannelAddr};

use crate::codec::EnvelopeCodec;
use crate::reasons;

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
        let server = serve_with(bind, options, EnvelopeCodec, Sessions { sender }).await?;
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

struct Sessions<S> {
    sender: S,
}

impl<S: MailboxSender + Clone> Accept<MessageEnvelope> for Sessions<S> {
    type Session = Session<S>;
    type Completion = Ignore;

    fn open(
        &self,
        _peer: Peer,
        inbound: Inbound,
        _outbound: Outbound<MessageEnvelope, Ignore>,
    ) -> Session<S> {
        // Made once for the session: a return handle costs one reference count of it.
        let sink = |inbound, is_awaited| {
            Arc::new(SessionSink {
                inbound,
                is_awaited,
            })
        };
        let awaited = sink(inbound.clone(), true);
        Session {
            sender: self.sender.clone(),
            sink: sink(inbound, false),
            awaited,
        }
    }
}

struct Session<S> {
    sender: S,
    sink: Arc<SessionSink>,
    /// For messages whose sender waits for the outcome: a relay asks its next hop for an answer at once, too.
    awaited: Arc<SessionSink>,
}

impl<S: MailboxSender> Session<S> {
    fn post(&self, sink: &Arc<SessionSink>, envelope: MessageEnvelope, ticket: Ticket) {
        let token = Token {
            id: ticket.seq,
            size: ticket.size,
            to: ticket.to,
        };
        self.sender
            .post(envelope, ReturnHandle::new(sink.clone(), token));
    }
}

impl<S: MailboxSender> Deliver<MessageEnvelope> for Session<S> {
    fn deliver(&mut self, envelope: MessageEnvelope, ticket: Ticket) {
        self.post(&self.sink, envelope, ticket);
    }

    fn deliver_awaited(&mut self, envelope: MessageEnvelope, ticket: Ticket) {
        self.post(&self.awaited, envelope, ticket);
    }
}

/// Settles the messages of one session.
struct SessionSink {
    inbound: Inbound,
    is_awaited: bool,
}

fn ticket(token: Token) -> Ticket {
    Ticket {
        seq: token.id,
        size: token.size,
        to: token.to,
    }
}

impl ReturnSink for SessionSink {
    fn delivered(&self, token: Token) {
        self.inbound.settle(ticket(token), Verdict::Delivered);
    }

    fn undelivered(&self, token: Token, report: Undeliverable) {
        let verdict = reasons::verdict_of(&report.failure, &report.route);
        self.inbound.refuse(ticket(token), verdict, report.envelope);
    }

    fn abandoned(&self, token: Token) {
        self.lost(token, Unknown::Dropped.into());
    }

    fn lost(&self, token: Token, failure: Failure) {
        self.inbound
            .settle(ticket(token), reasons::verdict_of(&failure, &[]));
    }

    fn released(&self, token: Token) {
        self.inbound.release(ticket(token));
    }

    fn wants_release(&self) -> bool {
        true
    }

    fn wants_outcome(&self) -> bool {
        self.is_awaited
    }
}
