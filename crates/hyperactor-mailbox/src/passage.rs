//! The short way of envelopes that only pass through this process: [`Passage`] takes them as they came, encoded, where a
//! [`MailboxSender`](crate::MailboxSender) has said that it would send all of them the same way. Which way that is, and how it
//! is found, is the senders' matter.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::settle::ReturnHandle;

/// An envelope in the encoding without ids ([`MessageEnvelope::encode_unnamed`](crate::MessageEnvelope::encode_unnamed)), with the
/// duty to tell what becomes of it.
pub struct Sealed {
    /// Its bytes: [`is_plain`](crate::is_plain) says of them that nobody on the way has to read more than that.
    pub body: Bytes,
    /// Settled by whoever takes it.
    pub return_handle: ReturnHandle,
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed")
            .field("bytes", &self.body.len())
            .field("return_handle", &self.return_handle)
            .finish()
    }
}

/// Takes the envelopes of one actor for another one, as long as they all go the same way.
pub trait Pass: Send + Sync + 'static {
    /// Takes those in front, in their order, as [`MailboxSender::post`](crate::MailboxSender::post) would, with one step of their
    /// time to live; from the first on that it does not take, they stay, and who has them posts them decoded. Says whether
    /// this is the way still: once it is not, it takes none any more.
    fn pass(&self, run: &mut VecDeque<Sealed>) -> bool;
}

/// A way for the envelopes of one actor for another one: what
/// [`MailboxSender::passage`](crate::MailboxSender::passage) found. It holds no connection open.
#[derive(Clone)]
pub struct Passage(Arc<dyn Pass>);

impl Passage {
    /// A passage by this way.
    pub fn new(way: impl Pass) -> Self {
        Self(Arc::new(way))
    }

    /// Passes on what it can: see [`Pass::pass`].
    #[must_use = "a way that has ended is to be looked for anew"]
    pub fn pass(&self, run: &mut VecDeque<Sealed>) -> bool {
        self.0.pass(run)
    }
}

impl fmt::Debug for Passage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passage").finish_non_exhaustive()
    }
}
