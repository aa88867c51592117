//! The one timer of a connection.

use std::pin::Pin;
use std::task::{Context, Poll};

use hyperactor_protocol::Time;
use tokio::time::Sleep;

use crate::clock;

/// A timer that is set anew only when its deadline comes nearer: one that is too early costs a look, a reset costs the
/// runtime's timer lock.
pub(super) struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
    at: Time,
}

impl Alarm {
    pub(super) fn new() -> Self {
        Self {
            sleep: None,
            at: Time::ZERO,
        }
    }

    /// Waits for `next`; may be ready too early, when an earlier deadline was given before.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, next: Option<Time>) -> Poll<()> {
        let Some(next) = next else {
            return Poll::Pending;
        };
        match &mut self.sleep {
            None => {
                self.at = next;
                self.sleep = Some(Box::pin(tokio::time::sleep_until(clock::instant(next))));
            }
            Some(sleep) if next < self.at || sleep.is_elapsed() => {
                self.at = next;
                sleep.as_mut().reset(clock::instant(next));
            }
            Some(_) => {}
        }
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}
