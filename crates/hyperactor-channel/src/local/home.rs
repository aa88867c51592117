//! Where the receiving end of a dialled in-process channel stays between its sessions, and how it settles messages of the
//! one that is present.

use std::any::Any;
use std::sync::Arc;

use hyperactor_protocol::Verdict;
use parking_lot::Mutex;

use super::link::farewell;
use crate::inbound::Settlements;
use crate::{Deliver, Ticket};

/// What takes the messages that come back to a dialer.
pub(crate) struct Home<M> {
    state: Mutex<HomeState<M>>,
}

struct HomeState<M> {
    /// Not here while a session has it.
    deliver: Option<Box<dyn Deliver<M>>>,
    /// The channel has ended.
    is_over: bool,
    sessions: u64,
}

/// Numbers of messages that one session may use before they could be taken for those of the next.
const NUMBERS_PER_SESSION: u64 = 1 << 40;

impl<M: 'static> Home<M> {
    pub(crate) fn new(deliver: Box<dyn Deliver<M>>) -> Self {
        let state = HomeState {
            deliver: Some(deliver),
            is_over: false,
            sessions: 0,
        };
        Self {
            state: Mutex::new(state),
        }
    }

    /// Lends it to a session, with the first number of that session's messages. None while another session still calls it.
    pub(super) fn lend(self: &Arc<Self>) -> Option<(Lent<M>, u64)> {
        let mut state = self.state.lock();
        let deliver = state.deliver.take()?;
        state.sessions += 1;
        let lent = Lent {
            deliver: Some(deliver),
            home: Arc::clone(self),
        };
        Some((lent, state.sessions.wrapping_mul(NUMBERS_PER_SESSION)))
    }

    /// A session gives it back; when the channel has ended, the caller tells it so.
    pub(super) fn give_back(&self, deliver: Box<dyn Deliver<M>>) -> Option<Box<dyn Deliver<M>>> {
        let mut state = self.state.lock();
        if state.is_over {
            return Some(deliver);
        }
        state.deliver = Some(deliver);
        None
    }

    /// The channel has ended; the caller tells what is here.
    pub(super) fn end(&self) -> Option<Box<dyn Deliver<M>>> {
        let mut state = self.state.lock();
        state.is_over = true;
        state.deliver.take()
    }
}

/// Lent to a session that may not come about: then it goes back.
pub(crate) struct Lent<M: 'static> {
    deliver: Option<Box<dyn Deliver<M>>>,
    home: Arc<Home<M>>,
}

impl<M: 'static> Lent<M> {
    /// Where it belongs.
    pub(super) fn home(&self) -> Arc<Home<M>> {
        Arc::clone(&self.home)
    }

    /// The session has come about. It gives back what it got.
    pub(super) fn take(mut self) -> Option<Box<dyn Deliver<M>>> {
        self.deliver.take()
    }
}

impl<M: 'static> Drop for Lent<M> {
    fn drop(&mut self) {
        let deliver = self.deliver.take();
        if let Some(ended) = deliver.and_then(|deliver| self.home.give_back(deliver)) {
            farewell(ended);
        }
    }
}

/// Settles what came by the present session of a channel; what is said of an earlier one is not known there.
#[derive(Default)]
pub(crate) struct HomeInbound(Mutex<Option<Arc<dyn Settlements>>>);

impl HomeInbound {
    pub(super) fn set(&self, present: Option<Arc<dyn Settlements>>) {
        // The former one is dropped without the lock.
        let former = std::mem::replace(&mut *self.0.lock(), present);
        drop(former);
    }

    fn present(&self) -> Option<Arc<dyn Settlements>> {
        self.0.lock().clone()
    }
}

impl Settlements for HomeInbound {
    fn settle(&self, ticket: Ticket, verdict: Verdict, message: Option<Box<dyn Any + Send>>) {
        if let Some(present) = self.present() {
            present.settle(ticket, verdict, message);
        }
    }

    fn settle_run(&self, first: u64, count: u64) {
        if let Some(present) = self.present() {
            present.settle_run(first, count);
        }
    }

    fn release(&self, to: u32, messages: u64, bytes: u64) {
        if let Some(present) = self.present() {
            present.release(to, messages, bytes);
        }
    }
}
