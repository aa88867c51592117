//! What the routes to a sibling are told, and what they answer: plain values. Who decides is in `route`.

use hyperactor_host::RoutePolicy;
use hyperactor_mailbox::{MessageEnvelope, ReturnHandle};
use hyperactor_refs::Incarnation;
use tokio::time::Instant;

use super::explain::LinkOrigin;

/// Which way one message goes.
#[derive(Clone, Debug)]
pub(super) enum Via<L> {
    Relay,
    Direct(L),
}

/// What is known of the sibling's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// Nobody announced it: only its socket can tell.
    Unannounced,
    /// The host says it is up.
    Up(Incarnation),
    /// The host says that this life is over.
    Gone(Incarnation),
}

/// What the sender of a message wants of its outcome; asked once, when the message is posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wants {
    /// Somebody waits for it.
    pub(super) outcome: bool,
    /// Credit is to be given back when the message has left its queue.
    pub(super) release: bool,
}

/// What an outcome changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settled {
    /// All groups below this number are settled now, and were not before.
    pub(super) below: Option<u64>,
    /// A fence fell: what was held is to be posted.
    pub(super) drain: bool,
}

/// What is to be done with a message that came back.
pub(super) enum Back {
    /// Nothing: it goes by another way, or once more.
    Again,
    /// It goes back to its sender.
    Report {
        envelope: MessageEnvelope,
        handle: Option<ReturnHandle>,
    },
}

/// What came of a message that came back.
pub(super) struct Returned<L> {
    pub(super) back: Back,
    /// Whether it had gone the direct way.
    pub(super) was_direct: bool,
    /// A link to close: it is of no use any more.
    pub(super) useless: Option<L>,
    /// Whether the reason is another than the last time, or there was a success since.
    pub(super) is_news: bool,
    pub(super) settled: Settled,
}

/// What became of a link that the sibling dialled.
#[derive(Debug)]
pub(super) struct Adopted<L> {
    /// Its number, for when it ends.
    pub(super) number: u64,
    /// Whether messages go by it from now on.
    pub(super) is_used: bool,
    /// A link to close: the sibling's stands in its place.
    pub(super) useless: Option<L>,
    /// The sibling's link takes the place of the present one only when nothing is under way any more: see
    /// [`Yield`].
    pub(super) is_waited_for: bool,
}

/// How far the change to a link that the sibling dialled has come.
#[derive(Debug)]
pub(super) enum Yield<L> {
    /// Messages go by it. The link that they went by before is to be closed.
    Done(Option<L>),
    /// It took too long: messages go by the former link again, for now.
    Reverted,
    /// Something else is decided.
    Over,
}

/// What a failure says about the direct link that the message was given to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing: the answer came from beyond it.
    None,
    /// The link cannot be used, and the message never left.
    NeverSent,
    /// The other end closed the link in order, and never took the message.
    Closed,
    /// The link ended with the message on it.
    Lost,
}

/// What to do with a new message.
pub(super) enum Admit<L> {
    /// Post it this way, under this number.
    Post {
        via: Via<L>,
        id: u64,
        wants: Wants,
        envelope: MessageEnvelope,
    },
    /// It is kept here.
    Held,
    /// Too many are held: give it back.
    Full {
        envelope: MessageEnvelope,
        handle: ReturnHandle,
    },
}

/// What to do to open the straight way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Open {
    /// Nothing.
    Nothing,
    /// Make a link: the sibling is known to be up.
    Dial,
    /// Find out in the background whether its socket answers.
    Probe,
}

/// Where the messages to a sibling go now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Through the host.
    Relay,
    /// Straight.
    Direct,
    /// Nowhere, until everything on the old route has its outcome.
    Changing { to_direct: bool },
    /// Nowhere, until there is a link: the host is not to be used.
    Waiting,
}

/// What the routes to a sibling can tell about themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) policy: RoutePolicy,
    pub(super) way: Way,
    /// Who dialled the link that messages go by, or will go by.
    pub(super) link: Option<LinkOrigin>,
    pub(super) life: Life,
    pub(super) is_opening: bool,
    /// Why the straight way failed last, and when.
    pub(super) fault: Option<(Instant, String)>,
    pub(super) retry_at: Option<Instant>,
    pub(super) under_way: usize,
    pub(super) held: usize,
}
