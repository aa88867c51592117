//! A step of the way that takes its time: messages go through it in their order, and now and then one keeps those behind it
//! waiting. It makes the time in which a change of route could go wrong long enough to be met.

use std::time::Duration;

use hyperactor_mailbox::{MailboxSender, MessageEnvelope, ReturnHandle};
use hyperactor_testkit::Rng;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// One message of so many waits.
const WAITS_ONE_OF: u64 = 48;
const WAITS_LONGEST: Duration = Duration::from_millis(3);

type Message = (MessageEnvelope, ReturnHandle);

/// The sender in front of the gate.
#[derive(Clone)]
pub(crate) struct Gate(mpsc::UnboundedSender<Message>);

impl MailboxSender for Gate {
    fn post_unchecked(&self, envelope: MessageEnvelope, handle: ReturnHandle) {
        // What came too late is dropped with its handle, which says that nobody knows.
        drop(self.0.send((envelope, handle)));
    }
}

impl Gate {
    /// Whether nothing goes through any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

/// Whoever moves messages through a gate. It goes on until no sender is left.
pub(crate) struct Keeper(JoinHandle<()>);

impl Keeper {
    /// Moves nothing any more. What waits is dropped, and never arrives.
    pub(crate) async fn discard(self) {
        self.0.abort();
        // It was told to end: that is all that can come of it.
        drop(self.0.await);
    }
}

/// A gate in front of a sender.
pub(crate) fn gate(inner: impl MailboxSender, mut rng: Rng) -> (Gate, Keeper) {
    let (gate, mut messages) = mpsc::unbounded_channel::<Message>();
    let keeper = tokio::spawn(async move {
        while let Some((envelope, handle)) = messages.recv().await {
            if rng.chance(1, WAITS_ONE_OF) {
                let longest = WAITS_LONGEST.as_micros() as u64;
                tokio::time::sleep(Duration::from_micros(rng.below(longest))).await;
            }
            inner.post_unchecked(envelope, handle);
        }
    });
    (Gate(gate), Keeper(keeper))
}
