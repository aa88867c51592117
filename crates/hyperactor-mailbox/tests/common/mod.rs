//! What several suites share: ids, a sink that keeps what it is told, and a sender to be.
// Each suite is a crate of its own and uses a part of this.
#![allow(dead_code)]

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use hyperactor_mailbox::{
    Failure, Mailbox, MailboxMuxer, MailboxSender, MessageEnvelope, NotDelivered, Outbox,
    ReturnHandle, ReturnSink, SendFailure, Token, Undeliverable, Unknown,
};
use hyperactor_refs::{ActorId, ProcId};

/// A proc of this test's own.
pub(crate) fn proc_id() -> ProcId {
    ProcId::direct("local:7".parse().unwrap(), "here").unwrap()
}

/// An actor of that proc.
pub(crate) fn actor(name: &str) -> ActorId {
    ActorId::root(proc_id(), name)
}

/// What a sink was told.
#[derive(Debug)]
pub(crate) enum Event {
    Delivered(u64),
    Undelivered(u64, Undeliverable),
    Abandoned(u64),
    Lost(u64, Failure),
    Released(u64),
}

/// Sends what it is told to a channel.
pub(crate) struct Recorder {
    events: Sender<Event>,
    is_leased: bool,
}

impl Recorder {
    /// A sink as an actor of the same process has one.
    pub(crate) fn local() -> (Arc<Self>, Receiver<Event>) {
        let (events, receiver) = channel();
        (
            Arc::new(Self {
                events,
                is_leased: false,
            }),
            receiver,
        )
    }

    /// A sink as the receiving end of a session has one.
    pub(crate) fn leased() -> (Arc<Self>, Receiver<Event>) {
        let (events, receiver) = channel();
        (
            Arc::new(Self {
                events,
                is_leased: true,
            }),
            receiver,
        )
    }

    pub(crate) fn handle(self: &Arc<Self>, id: u64) -> ReturnHandle {
        ReturnHandle::new(self.clone(), Token { id, size: 1, to: 0 })
    }

    fn tell(&self, event: Event) {
        // Leases that end while a test cleans up have nobody to tell any more.
        drop(self.events.send(event));
    }
}

impl ReturnSink for Recorder {
    fn delivered(&self, token: Token) {
        self.tell(Event::Delivered(token.id));
    }

    fn undelivered(&self, token: Token, report: Undeliverable) {
        self.tell(Event::Undelivered(token.id, report));
    }

    fn abandoned(&self, token: Token) {
        self.tell(Event::Abandoned(token.id));
    }

    fn lost(&self, token: Token, failure: Failure) {
        self.tell(Event::Lost(token.id, failure));
    }

    fn released(&self, token: Token) {
        self.tell(Event::Released(token.id));
    }

    fn wants_release(&self) -> bool {
        self.is_leased
    }
}

/// Posts and gives back what came back; everything of this crate settles before `post` returns.
pub(crate) fn post_and_see(
    sender: &impl MailboxSender,
    envelope: MessageEnvelope,
) -> Result<(), Box<Undeliverable>> {
    let (return_handle, mut outcome) = ReturnHandle::oneshot();
    sender.post(envelope, return_handle);
    match outcome.try_take().expect("settled before post returned") {
        Ok(()) => Ok(()),
        Err(SendFailure::Returned(report)) => Err(report),
        Err(other) => panic!("lost: {other}"),
    }
}

/// The reason in a report.
pub(crate) fn reason(report: &Undeliverable) -> &NotDelivered {
    match &report.failure {
        Failure::NotDelivered(reason) => reason,
        other => panic!("not a definite failure: {other}"),
    }
}

/// Somebody who sends, with a mailbox in a muxer.
pub(crate) struct Cx {
    pub(crate) mailbox: Mailbox,
    pub(crate) muxer: MailboxMuxer,
    pub(crate) sink: Arc<Recorder>,
    pub(crate) events: std::sync::Mutex<Receiver<Event>>,
}

impl Cx {
    pub(crate) fn new(muxer: &MailboxMuxer, name: &str) -> Self {
        let (sink, events) = Recorder::local();
        let mailbox = Mailbox::new(actor(name));
        muxer.bind(mailbox.clone()).unwrap();
        Self {
            mailbox,
            muxer: muxer.clone(),
            sink,
            events: events.into(),
        }
    }

    pub(crate) fn event(&self) -> Option<Event> {
        self.events.lock().unwrap().try_recv().ok()
    }
}

impl Outbox for Cx {
    fn actor_id(&self) -> &ActorId {
        self.mailbox.actor_id()
    }

    fn return_handle(&self) -> ReturnHandle {
        self.sink.handle(0)
    }

    fn post(&self, envelope: MessageEnvelope, return_handle: ReturnHandle) {
        MailboxSender::post(&self.muxer, envelope, return_handle);
    }

    fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }
}

/// The failure of a handle that was dropped.
pub(crate) fn dropped() -> Failure {
    Failure::Unknown(Unknown::Dropped)
}
