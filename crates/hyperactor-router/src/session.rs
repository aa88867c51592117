//! Envelopes that come in over one session, whichever end opened it: posted into a sender, and settled by their return handles.
//! Who accepts sessions is in `server`, who opens them in `client`.

use std::sync::Arc;

use hyperactor_channel::{Deliver, Inbound, Ticket, Verdict};
use hyperactor_mailbox::{
    Failure, MailboxSender, MessageEnvelope, ReturnHandle, ReturnSink, Token, Undeliverable,
    Unknown,
};

use crate::reasons;

/// Posts what comes in over one session into a sender.
pub(crate) struct Incoming<S> {
    sender: S,
    sink: Arc<SessionSink>,
    /// For messages whose sender waits for the outcome: a relay asks its next hop for an answer at once, too.
    awaited: Arc<SessionSink>,
}

impl<S> Incoming<S> {
    pub(crate) fn new(sender: S, inbound: Inbound) -> Self {
        // Made once for the session: a return handle costs one reference count of it.
        let sink = |inbound, is_awaited| {
            Arc::new(SessionSink {
                inbound,
                is_awaited,
            })
        };
        Self {
            sender,
            awaited: sink(inbound.clone(), true),
            sink: sink(inbound, false),
        }
    }
}

impl<S: MailboxSender> Incoming<S> {
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

impl<S: MailboxSender> Deliver<MessageEnvelope> for Incoming<S> {
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

    fn releases_by_size(&self) -> bool {
        true
    }

    fn wants_outcome(&self) -> bool {
        self.is_awaited
    }
}
