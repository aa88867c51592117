//! Request and reply with a deadline. A request that is known not to arrive ends the wait at once.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use hyperactor_mailbox::{
    Failure, Hop, Message, MessageEnvelope, NotDelivered, OncePortRef, Outbox, ReturnHandle,
    ReturnSink, Token, Undeliverable, Unknown,
};
use hyperactor_refs::{ActorId, PortId};
use parking_lot::Mutex;

/// Why a request has no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// The request was not delivered, and never will be.
    #[error("request to `{target}` not delivered: {reason}{}", Route(route))]
    NotDelivered {
        /// Who was asked.
        target: ActorId,
        /// Why.
        reason: Box<NotDelivered>,
        /// The steps the request had taken, the last one first.
        route: Vec<Hop>,
    },
    /// The request was sent, and what became of it is not known: it may have been handled.
    #[error("request to `{target}`: {reason}{}", Route(route))]
    Unknown {
        /// Who was asked.
        target: ActorId,
        /// Why it is not known.
        reason: Box<Unknown>,
        /// The steps the request had taken, the last one first.
        route: Vec<Hop>,
    },
    /// The actor had the request and ended without a reply: it was still in the queue, or its handler failed.
    ///
    /// Told at once where the two share a proc; elsewhere such a request times out.
    #[error("`{target}` has ended without a reply")]
    TargetEnded {
        /// Who was asked.
        target: ActorId,
    },
    /// No reply came in time. The request may have been handled, or may be yet.
    #[error("no reply from `{target}` within {} ms", deadline.as_millis())]
    TimedOut {
        /// Who was asked.
        target: ActorId,
        /// How long it was waited for.
        deadline: Duration,
    },
    /// Whoever asked has ended, so no reply can reach it.
    #[error("`{asker}` has ended and can receive no reply")]
    AskerEnded {
        /// Who asked.
        asker: ActorId,
    },
}

impl AskError {
    /// A stable word for logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotDelivered { reason, .. } => reason.code(),
            Self::Unknown { reason, .. } => reason.code(),
            Self::TargetEnded { .. } => "target-ended",
            Self::TimedOut { .. } => "no-reply",
            Self::AskerEnded { .. } => "asker-ended",
        }
    }

    /// Whether asking again is safe and promising: only when the request was certainly not handled.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NotDelivered { reason, .. } => reason.is_retryable(),
            _ => false,
        }
    }

    fn from_report(target: ActorId, failure: Failure, route: Vec<Hop>) -> Self {
        match failure {
            Failure::NotDelivered(reason) => Self::NotDelivered {
                target,
                reason: Box::new(reason),
                route,
            },
            Failure::Unknown(reason) => Self::Unknown {
                target,
                reason: Box::new(reason),
                route,
            },
        }
    }
}

struct Route<'a>(&'a [Hop]);

impl std::fmt::Display for Route<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, hop) in self.0.iter().rev().enumerate() {
            write!(f, "{}{hop}", if at == 0 { "; route: " } else { ", " })?;
        }
        Ok(())
    }
}

/// Marks the token of a request: no message has this size.
const REQUEST: u32 = u32::MAX;

fn request_token(reply_port: u64) -> Token {
    Token {
        id: reply_port,
        size: REQUEST,
    }
}

/// The port of the asker that waits for a reply, or 0 for the token of anything but a request.
pub(crate) fn reply_port(token: Token) -> u64 {
    if token.size == REQUEST { token.id } else { 0 }
}

/// Asks. The reply's port is the token of the request, by which an actor that ends with the request in its queue
/// finds whom to tell.
pub(crate) async fn ask<R: Message, M: Message>(
    cx: &(impl Outbox + ?Sized),
    dest: PortId,
    deadline: Duration,
    request: impl FnOnce(OncePortRef<R>) -> M,
) -> Result<R, AskError> {
    let target = dest.actor_id().clone();
    let (handle, mut receiver) = cx.mailbox().open_once_port::<R>();
    let reply_to = handle.bind();
    let token = request_token(reply_to.port_id().index());
    let mut envelope = MessageEnvelope::typed(cx.actor_id().clone(), dest, request(reply_to));
    let ttl = envelope.ttl();
    let fate = Arc::new(Fate::default());

    let waiting = async {
        loop {
            cx.post(envelope, ReturnHandle::new(fate.clone(), token));
            let bad_news = tokio::select! {
                biased;
                // First: a reply that is there counts, whatever is told of the request.
                reply = receiver.recv() => return Answer::Reply(reply.ok()),
                bad_news = fate.told() => bad_news,
            };
            let report = match bad_news {
                BadNews::Returned(report) => *report,
                BadNews::Lost(failure) => return Answer::Failed(failure, Vec::new()),
            };
            // A queue of this process was full: the deadline bounds the wait for room.
            let Some(capacity) = report.capacity else {
                return Answer::Failed(report.failure, report.route);
            };
            capacity.available().await;
            envelope = report.envelope;
            envelope.set_ttl(ttl);
        }
    };
    match tokio::time::timeout(deadline, waiting).await {
        Ok(Answer::Reply(Some(reply))) => Ok(reply),
        Ok(Answer::Failed(failure, route)) => Err(AskError::from_report(target, failure, route)),
        Ok(Answer::Reply(None)) if cx.mailbox().is_closed() => Err(AskError::AskerEnded {
            asker: cx.actor_id().clone(),
        }),
        // The port was closed for us: the actor has ended with the request.
        Ok(Answer::Reply(None)) => Err(AskError::TargetEnded { target }),
        Err(_) => Err(AskError::TimedOut { target, deadline }),
    }
}

enum Answer<R> {
    Reply(Option<R>),
    Failed(Failure, Vec<Hop>),
}

enum BadNews {
    Returned(Box<Undeliverable>),
    Lost(Failure),
}

/// What became of a request, as far as it is bad news.
#[derive(Default)]
struct Fate {
    bad_news: Mutex<Option<BadNews>>,
    waker: AtomicWaker,
}

impl Fate {
    fn tell(&self, bad_news: BadNews) {
        *self.bad_news.lock() = Some(bad_news);
        self.waker.wake();
    }

    async fn told(&self) -> BadNews {
        poll_fn(|cx| {
            // Registered before the look, so that news between the look and the sleep are not missed.
            self.waker.register(cx.waker());
            match self.bad_news.lock().take() {
                Some(bad_news) => Poll::Ready(bad_news),
                None => Poll::Pending,
            }
        })
        .await
    }
}

impl ReturnSink for Fate {
    fn undelivered(&self, _: Token, report: Undeliverable) {
        self.tell(BadNews::Returned(Box::new(report)));
    }

    fn abandoned(&self, _: Token) {
        self.tell(BadNews::Lost(Unknown::Dropped.into()));
    }

    fn lost(&self, _: Token, failure: Failure) {
        self.tell(BadNews::Lost(failure));
    }
}
