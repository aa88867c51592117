//! Streaming replies: one question, many items, an end. The one who asks grants places, so a fast sender waits for a slow
//! receiver, here and across processes, and costs nobody else anything. Every stream ends visibly: finished, failed with
//! a reason, or lost.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hyperactor_mailbox::{
    BoxFuture, Failure, MessageEnvelope, Notice, OncePortRef, Outbox, PortReceiver, PortRef,
    ReturnHandle, ReturnSink, Token, Undeliverable, Unknown,
};
use hyperactor_refs::{ActorId, PortId};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::ask::{self, AskError};
use crate::{ActorRef, Message, Receives, limits};

/// What travels from the sender of a stream to its receiver.
#[derive(Message, Serialize, Deserialize)]
#[message(name = "hyperactor.StreamFrame")]
enum Frame<R> {
    /// With its number, so that one that was lost on the way is missed.
    Item(u64, R),
    /// With the number of items.
    End(u64),
    Failed(String),
    /// The writer was dropped before it said how the stream ends.
    Dropped,
}

/// What travels the other way.
#[derive(Message, Serialize, Deserialize)]
#[message(name = "hyperactor.StreamGrant")]
enum Grant {
    /// So many more items may be sent.
    More(u32),
    /// Nobody receives any more.
    Stop,
}

/// The answer to the question: the stream is open.
#[derive(Message, Serialize, Deserialize)]
#[message(name = "hyperactor.StreamOpened")]
struct Opened {
    grants: PortRef<Grant>,
}

/// The end of a stream that a request carries to whoever is to send the items. [`open`](Self::open) it, or the one who
/// asked waits until its deadline; dropped, it says so at once.
#[derive(Message, Serialize, Deserialize)]
#[message(name = "hyperactor.StreamRef")]
#[serde(bound = "")]
pub struct StreamRef<R: Message> {
    opened: OncePortRef<Opened>,
    items: PortRef<Frame<R>>,
    window: u32,
}

impl<R: Message> StreamRef<R> {
    /// Opens the stream, so that items can be sent.
    ///
    /// # Errors
    /// [`NoDelegate`], for an outbox of the user's own only.
    pub fn open(self, cx: &(impl Outbox + ?Sized)) -> Result<StreamWriter<R>, NoDelegate> {
        let outbox = delegate(cx)?;
        let (handle, grants) = outbox.mailbox().open_port_with_capacity(GRANTS_QUEUED_MAX);
        let grants_ref = handle.bind();
        let lost = outbox.proc_lost(self.items.port_id().actor_id().proc());
        self.opened.post(&*outbox, Opened { grants: grants_ref });
        Ok(StreamWriter {
            outbox,
            items: self.items,
            grants,
            left: self.window.min(limits::STREAM_WINDOW_MAX),
            sent: 0,
            fate: Arc::default(),
            lost,
            is_stopped: false,
            is_over: false,
        })
    }

    /// Whether whoever asked still waits for the stream to begin.
    pub fn is_wanted(&self) -> bool {
        self.opened.is_wanted()
    }
}

/// Grants that may wait at a writer; a receiver never has more than two under way.
const GRANTS_QUEUED_MAX: usize = 16;

fn delegate(cx: &(impl Outbox + ?Sized)) -> Result<Arc<dyn Outbox>, NoDelegate> {
    cx.delegate().ok_or_else(|| NoDelegate {
        actor_id: cx.actor_id().clone(),
    })
}

/// An outbox of the user's own that gives no [`delegate`](Outbox::delegate) cannot be one end of a stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the outbox of `{actor_id}` gives no delegate, which a stream needs to end by itself")]
pub struct NoDelegate {
    /// Whose outbox.
    pub actor_id: ActorId,
}

/// Sends the items of a stream. Dropping it before [`finish`](Self::finish) tells the receiver that the stream broke off.
#[must_use = "a writer that is dropped breaks its stream off"]
pub struct StreamWriter<R: Message> {
    outbox: Arc<dyn Outbox>,
    items: PortRef<Frame<R>>,
    grants: PortReceiver<Grant>,
    /// Items that may be sent before the next grant.
    left: u32,
    sent: u64,
    fate: Arc<Fate>,
    lost: Option<BoxFuture<'static, String>>,
    is_stopped: bool,
    is_over: bool,
}

/// What became of the frames that were sent, as far as it is bad news. A stream has its own ways to tell of its end, so
/// its frames do not come back to the actor.
#[derive(Default)]
struct Fate(Mutex<Option<String>>);

impl Fate {
    fn fail(&self, failure: &Failure) {
        self.0.lock().get_or_insert_with(|| failure.to_string());
    }

    fn failure(&self) -> Option<String> {
        self.0.lock().clone()
    }
}

impl ReturnSink for Fate {
    fn undelivered(&self, _: Token, report: Undeliverable) {
        self.fail(&report.failure);
    }

    fn abandoned(&self, _: Token) {
        self.fail(&Unknown::Dropped.into());
    }

    fn lost(&self, _: Token, failure: Failure) {
        self.fail(&failure);
    }
}

impl<R: Message> StreamWriter<R> {
    /// Sends an item, as soon as the receiver has granted a place for it; waits at most
    /// [`limits::STREAM_DEADLINE`] for that.
    ///
    /// # Errors
    /// [`StreamClosed`]: nobody receives any more, or not in time. The item is dropped.
    ///
    /// # Cancel safety
    /// Cancel safe: an item is sent only in the moment this returns; a future that is dropped before drops it.
    ///
    /// # Panics
    /// In a runtime without a timer, if it has to wait.
    pub async fn send(&mut self, item: R) -> Result<(), StreamClosed> {
        while let Some(grant) = self.grants.try_recv() {
            self.take(&grant);
        }
        while self.left == 0 && !self.is_stopped {
            self.granted().await?;
        }
        if self.is_stopped {
            return Err(StreamClosed::Unwanted);
        }
        if let Some(reason) = self.fate.failure() {
            return Err(StreamClosed::Undelivered { reason });
        }
        self.left -= 1;
        self.post(Frame::Item(self.sent, item));
        self.sent += 1;
        Ok(())
    }

    fn post(&self, frame: Frame<R>) {
        let (sender, dest) = (self.outbox.actor_id(), self.items.port_id());
        let envelope = MessageEnvelope::typed(sender.clone(), dest.clone(), frame);
        let return_handle = ReturnHandle::new(self.fate.clone(), Token::default());
        self.outbox.post(envelope, return_handle);
    }

    async fn granted(&mut self) -> Result<(), StreamClosed> {
        let deadline = limits::STREAM_DEADLINE;
        let grant = tokio::select! {
            biased;
            grant = self.grants.recv() => grant,
            cause = lost(&mut self.lost) => return Err(StreamClosed::ReceiverLost { cause }),
            () = tokio::time::sleep(deadline) => return Err(StreamClosed::Stalled { deadline }),
        };
        match grant {
            Some(grant) => self.take(&grant),
            // The mailbox was closed: this end's owner has ended.
            None => self.is_stopped = true,
        }
        Ok(())
    }

    /// what may be sent is what was granted.
    fn take(&mut self, grant: &Grant) {
        match grant {
            Grant::More(more) => {
                self.left = self
                    .left
                    .saturating_add(*more)
                    .min(limits::STREAM_WINDOW_MAX);
            }
            Grant::Stop => self.is_stopped = true,
        }
    }

    /// Whether somebody still receives, as far as is known here.
    pub fn is_wanted(&mut self) -> bool {
        while let Some(grant) = self.grants.try_recv() {
            self.take(&grant);
        }
        !self.is_stopped
    }

    /// Ends the stream: the receiver knows that it had everything.
    pub fn finish(mut self) {
        let count = self.sent;
        self.end(match self.fate.failure() {
            None => Frame::End(count),
            Some(reason) => Frame::Failed(reason),
        });
    }

    /// Ends the stream with a failure that the receiver is told.
    pub fn fail(mut self, reason: impl fmt::Display) {
        self.end(Frame::Failed(reason.to_string()));
    }

    fn end(&mut self, frame: Frame<R>) {
        while let Some(grant) = self.grants.try_recv() {
            self.take(&grant);
        }
        if !std::mem::replace(&mut self.is_over, true) && !self.is_stopped {
            self.post(frame);
        }
    }
}

impl<R: Message> Drop for StreamWriter<R> {
    fn drop(&mut self) {
        self.end(Frame::Dropped);
    }
}

impl<R: Message> fmt::Debug for StreamWriter<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamWriter({}, {} left)", self.items, self.left)
    }
}

/// Resolves when the other end's proc is known to be lost.
async fn lost(watch: &mut Option<BoxFuture<'static, String>>) -> String {
    match watch {
        Some(lost) => {
            let cause = lost.await;
            *watch = None;
            cause
        }
        None => std::future::pending().await,
    }
}

/// Why an item of a stream was not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamClosed {
    /// The receiver was dropped, or this end's owner has ended.
    #[error("nobody receives the stream any more")]
    Unwanted,
    /// An item before this one did not arrive.
    #[error("an item of the stream is lost: {reason}")]
    Undelivered {
        /// Why, in words.
        reason: String,
    },
    /// The receiver granted no place in time.
    #[error("the receiver took nothing for {} ms", deadline.as_millis())]
    Stalled {
        /// How long it was waited for.
        deadline: Duration,
    },
    /// The receiver's process was lost.
    #[error("the receiver of the stream is lost: {cause}")]
    ReceiverLost {
        /// How, in words.
        cause: String,
    },
}

/// Receives the items of a stream. Dropping it tells the sender that nobody wants more.
#[must_use = "a stream that is dropped stops its sender"]
pub struct Stream<R: Message> {
    outbox: Arc<dyn Outbox>,
    from: ActorId,
    items: PortReceiver<Frame<R>>,
    grants: PortRef<Grant>,
    window: u32,
    received: u64,
    /// Items received since the last grant.
    taken: u32,
    lost: Option<BoxFuture<'static, String>>,
    is_over: bool,
}

impl<R: Message> Stream<R> {
    /// The next item, or `None` once the sender has finished; waits at most [`limits::STREAM_DEADLINE`].
    ///
    /// # Errors
    /// [`StreamError`]. After [`TimedOut`](StreamError::TimedOut) one may go on waiting; any other ends the stream.
    ///
    /// # Cancel safety
    /// Cancel safe: an item is taken only in the moment it is returned.
    ///
    /// # Panics
    /// In a runtime without a timer.
    pub async fn next(&mut self) -> Result<Option<R>, StreamError> {
        self.next_within(limits::STREAM_DEADLINE).await
    }

    /// As [`next`](Self::next), with a deadline of one's own.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    ///
    /// # Cancel safety
    /// As [`next`](Self::next).
    ///
    /// # Panics
    /// As [`next`](Self::next).
    pub async fn next_within(&mut self, deadline: Duration) -> Result<Option<R>, StreamError> {
        if self.is_over {
            return Ok(None);
        }
        let (items, watch) = (&mut self.items, &mut self.lost);
        let received = timeout(deadline, async {
            tokio::select! {
                biased;
                frame = items.recv() => Ok(frame),
                cause = lost(watch) => Err(cause),
            }
        });
        let from = self.from.clone();
        let frame = match received.await {
            Err(_) => return Err(StreamError::TimedOut { from, deadline }),
            Ok(Err(cause)) => return Err(self.over(StreamError::SenderLost { from, cause })),
            Ok(Ok(frame)) => frame,
        };
        match frame {
            Some(Frame::Item(number, _)) | Some(Frame::End(number)) if number != self.received => {
                let expected = self.received;
                Err(self.over(StreamError::Gap { from, expected }))
            }
            Some(Frame::Item(_, item)) => {
                self.received += 1;
                self.taken += 1;
                // Half of the window is always on its way, so the sender seldom has to wait for a grant.
                if self.taken >= self.window.div_ceil(2) {
                    let more = std::mem::take(&mut self.taken);
                    self.grant(Grant::More(more));
                }
                Ok(Some(item))
            }
            Some(Frame::End(_)) => {
                self.is_over = true;
                Ok(None)
            }
            Some(Frame::Failed(reason)) => Err(self.over(StreamError::Failed { from, reason })),
            Some(Frame::Dropped) => Err(self.over(StreamError::BrokenOff { from })),
            // The mailbox was closed: this end's owner has ended.
            None => Err(self.over(StreamError::ReceiverEnded)),
        }
    }

    fn grant(&self, grant: Grant) {
        let (sender, dest) = (self.outbox.actor_id(), self.grants.port_id());
        let envelope = MessageEnvelope::typed(sender.clone(), dest.clone(), grant);
        // The sender may have ended the stream already: nobody needs to hear that this one came too late.
        self.outbox.post(envelope, Notice::return_handle());
    }

    fn over(&mut self, error: StreamError) -> StreamError {
        self.is_over = true;
        error
    }

    /// Receives all items until the end.
    ///
    /// # Errors
    /// As [`next`](Self::next). What was received before is dropped.
    ///
    /// # Bounds
    /// As many items as the sender sends.
    pub async fn collect(mut self) -> Result<Vec<R>, StreamError> {
        let mut items = Vec::new();
        while let Some(item) = self.next().await? {
            items.push(item);
        }
        Ok(items)
    }

    /// Who sends.
    pub fn from(&self) -> &ActorId {
        &self.from
    }
}

impl<R: Message> Drop for Stream<R> {
    fn drop(&mut self) {
        if !self.is_over {
            self.grant(Grant::Stop);
        }
    }
}

impl<R: Message> fmt::Debug for Stream<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream(from {})", self.from)
    }
}

/// Why a stream has no next item: R-09.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The sender ended the stream with a failure.
    #[error("the stream from `{from}` failed: {reason}")]
    Failed {
        /// Who sent it.
        from: ActorId,
        /// Why, in the sender's words.
        reason: String,
    },
    /// The sender dropped the stream, or ended, before it said how the stream ends.
    #[error("the stream from `{from}` broke off")]
    BrokenOff {
        /// Who sent it.
        from: ActorId,
    },
    /// The sender's process was lost.
    #[error("the stream from `{from}` is lost: {cause}")]
    SenderLost {
        /// Who sent it.
        from: ActorId,
        /// How it was lost, in words.
        cause: String,
    },
    /// An item is missing: it was lost on the way.
    #[error("item {expected} of the stream from `{from}` is missing")]
    Gap {
        /// Who sent it.
        from: ActorId,
        /// The number of the missing item, from 0.
        expected: u64,
    },
    /// Nothing came in time.
    #[error("nothing came in the stream from `{from}` for {} ms", deadline.as_millis())]
    TimedOut {
        /// Who sends it.
        from: ActorId,
        /// How long it was waited for.
        deadline: Duration,
    },
    /// Whoever receives has ended.
    #[error("the receiver of the stream has ended")]
    ReceiverEnded,
}

impl<A> ActorRef<A> {
    /// Sends a request and waits until the stream that answers it is open, for [`limits::ASK_DEADLINE`].
    ///
    /// `request` makes the message around the end of the stream that the other side [opens](StreamRef::open).
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    ///
    /// # Bounds
    /// At most [`limits::STREAM_WINDOW`] items are under way or waiting.
    ///
    /// # Cancel safety
    /// As [`ask`](Self::ask).
    ///
    /// # Panics
    /// As [`ask`](Self::ask).
    pub async fn ask_stream<R: Message, M: Message>(
        &self,
        cx: &(impl Outbox + ?Sized),
        request: impl FnOnce(StreamRef<R>) -> M,
    ) -> Result<Stream<R>, AskError>
    where
        A: Receives<M>,
    {
        let window = limits::STREAM_WINDOW;
        let outbox = delegate(cx)
            .map_err(|NoDelegate { actor_id }| AskError::AskerEnded { asker: actor_id })?;
        // One place more than items: for the frame that ends the stream.
        let (handle, items) = cx.mailbox().open_port_with_capacity(window as usize + 1);
        let items_ref = handle.bind();
        let dest = PortId::new(self.actor_id().clone(), M::port());
        let opened: Opened = ask::ask(cx, dest, limits::ASK_DEADLINE, |opened| {
            request(StreamRef {
                opened,
                items: items_ref,
                window,
            })
        })
        .await?;
        // The sender may be another than the one who was asked.
        let from = opened.grants.port_id().actor_id().clone();
        let lost = outbox.proc_lost(from.proc());
        Ok(Stream {
            outbox,
            from,
            items,
            grants: opened.grants,
            window,
            received: 0,
            taken: 0,
            lost,
            is_over: false,
        })
    }
}
