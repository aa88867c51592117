//! Waiting for the outcome of one post: a sink and a future that share one allocation.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::failure::{Failure, Outcome, Unknown};
use crate::settle::{ReturnHandle, ReturnSink, Token};
use crate::undeliverable::Undeliverable;

/// How a post that was waited for failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum SendFailure {
    /// The message came back.
    Returned(Box<Undeliverable>),
    /// The message did not come back.
    Lost(Failure),
}

impl SendFailure {
    /// Why it failed.
    #[must_use]
    pub fn failure(&self) -> &Failure {
        match self {
            Self::Returned(report) => &report.failure,
            Self::Lost(failure) => failure,
        }
    }

    /// Why it failed, without the message.
    #[must_use]
    pub fn into_failure(self) -> Failure {
        match self {
            Self::Returned(report) => report.failure,
            Self::Lost(failure) => failure,
        }
    }
}

impl fmt::Display for SendFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Returned(report) => report.fmt(f),
            Self::Lost(failure) => failure.fmt(f),
        }
    }
}

impl std::error::Error for SendFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.failure())
    }
}

impl From<SendFailure> for Outcome {
    fn from(failure: SendFailure) -> Self {
        failure.into_failure().into()
    }
}

enum State {
    Pending(Option<Waker>),
    Done(Result<(), SendFailure>),
    Taken,
}

struct Shared(Mutex<State>);

impl Shared {
    fn settle(&self, result: Result<(), SendFailure>) {
        let before = std::mem::replace(&mut *self.0.lock(), State::Done(result));
        // Woken after the lock is gone.
        if let State::Pending(Some(waker)) = before {
            waker.wake();
        }
    }
}

impl ReturnSink for Shared {
    fn delivered(&self, _: Token) {
        self.settle(Ok(()));
    }

    fn undelivered(&self, _: Token, report: Undeliverable) {
        self.settle(Err(SendFailure::Returned(Box::new(report))));
    }

    fn abandoned(&self, _: Token) {
        self.settle(Err(SendFailure::Lost(Unknown::Dropped.into())));
    }

    fn lost(&self, _: Token, failure: Failure) {
        self.settle(Err(SendFailure::Lost(failure)));
    }

    fn wants_outcome(&self) -> bool {
        true
    }
}

impl ReturnHandle {
    /// A handle whose outcome is waited for.
    pub fn oneshot() -> (Self, OutcomeReceiver) {
        let shared = Arc::new(Shared(Mutex::new(State::Pending(None))));
        (
            Self::new(shared.clone(), Token::default()),
            OutcomeReceiver(shared),
        )
    }
}

/// The outcome of one post, as a future.
///
/// Dropping it changes nothing about the message; its outcome is then seen by nobody.
#[must_use = "an outcome does nothing unless it is awaited"]
pub struct OutcomeReceiver(Arc<Shared>);

impl OutcomeReceiver {
    /// The outcome, if there is one already.
    pub fn try_take(&mut self) -> Option<Result<(), SendFailure>> {
        let mut state = self.0.0.lock();
        match std::mem::replace(&mut *state, State::Taken) {
            State::Done(result) => Some(result),
            other => {
                *state = other;
                None
            }
        }
    }
}

impl Future for OutcomeReceiver {
    type Output = Result<(), SendFailure>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.0.0.lock();
        match std::mem::replace(&mut *state, State::Taken) {
            State::Done(result) => Poll::Ready(result),
            State::Pending(_) => {
                *state = State::Pending(Some(cx.waker().clone()));
                Poll::Pending
            }
            // Polled again after it was ready; there is nothing more to come.
            State::Taken => Poll::Pending,
        }
    }
}

impl fmt::Debug for OutcomeReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &*self.0.0.lock() {
            State::Pending(_) => "pending",
            State::Done(_) => "done",
            State::Taken => "taken",
        };
        f.debug_tuple("OutcomeReceiver").field(&state).finish()
    }
}
