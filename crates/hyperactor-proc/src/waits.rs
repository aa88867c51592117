//! Requests that come from other processes: what their envelopes carry for those who answer, and how both ends are
//! told when one of them gives up. Within a process the port of the reply does the same by itself.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use hyperactor_mailbox::{
    Asked, BoxFuture, Headers, Mailbox, Never, NotDelivered, Notice, WaitLink,
    limits as mailbox_limits,
};
use hyperactor_refs::{ActorId, PortId};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::limits;
use crate::proc::WeakProc;

/// The key of the header that makes an envelope a request.
pub(crate) const ASK_HEADER: u32 = 1;

/// What a request carries beside its message.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AskHeader {
    /// The port of the sender that waits for the reply.
    pub(crate) reply_port: u64,
    /// Who waits for whom, the sender last.
    pub(crate) chain: Vec<WaitLink>,
}

impl AskHeader {
    /// The header's bytes. Of a long chain the first actors are left out: a circle through them is then found by its
    /// deadline only.
    pub(crate) fn encode(mut self) -> Bytes {
        let excess = self
            .chain
            .len()
            .saturating_sub(mailbox_limits::WAIT_CHAIN_ACTORS);
        self.chain.drain(..excess);
        loop {
            match postcard::to_stdvec(&self) {
                Ok(bytes) if bytes.len() <= mailbox_limits::HEADER_VALUE_BYTES => {
                    return bytes.into();
                }
                // An id that does not encode, or a chain that is too long.
                _ if self.chain.is_empty() => return Bytes::new(),
                _ => drop(self.chain.remove(0)),
            }
        }
    }

    pub(crate) fn read(headers: &Headers) -> Option<Self> {
        let bytes = headers.value(ASK_HEADER)?;
        let (header, rest) = postcard::take_from_bytes::<Self>(bytes).ok()?;
        let is_sound = rest.is_empty() && header.chain.len() <= mailbox_limits::WAIT_CHAIN_ACTORS;
        is_sound.then_some(header)
    }
}

/// A port for a reply in another process, as seen by the actor that has its reference.
pub(crate) struct RemoteReply {
    /// Where the reply goes.
    port_id: PortId,
    /// The mailbox of the actor that owes it.
    mailbox: Mailbox,
    proc: WeakProc,
    chain: Vec<WaitLink>,
    /// Whether the mailbox knows it as a request.
    is_request: bool,
    state: Mutex<State>,
    unwanted: Notify,
}

#[derive(Default)]
struct State {
    /// Nobody waits, or nobody here is to answer any more.
    is_over: bool,
    is_taken: bool,
    is_dropped: bool,
}

impl RemoteReply {
    /// The reply to a request that can be withdrawn.
    pub(crate) fn to_request(
        mailbox: &Mailbox,
        proc: &WeakProc,
        asker: &ActorId,
        header: AskHeader,
    ) -> Arc<dyn Asked> {
        let port_id = PortId::new(asker.clone(), header.reply_port);
        let mut reply = Self::new(mailbox, proc, port_id.clone());
        reply.chain = header.chain;
        reply.is_request = true;
        let reply: Arc<dyn Asked> = Arc::new(reply);
        mailbox.enter_request(port_id, &reply);
        reply
    }

    /// A port whose reference came in a message, and that need not be a request's.
    pub(crate) fn to_port(mailbox: &Mailbox, proc: &WeakProc, port_id: PortId) -> Arc<dyn Asked> {
        Arc::new(Self::new(mailbox, proc, port_id))
    }

    fn new(mailbox: &Mailbox, proc: &WeakProc, port_id: PortId) -> Self {
        Self {
            port_id,
            mailbox: mailbox.clone(),
            proc: proc.clone(),
            chain: Vec::new(),
            is_request: false,
            state: Mutex::default(),
            unwanted: Notify::new(),
        }
    }

    /// Nothing is owed any more; false if that was known.
    fn end(&self) -> bool {
        let is_news = !std::mem::replace(&mut self.state.lock().is_over, true);
        if is_news {
            self.unwanted.notify_waiters();
        }
        is_news
    }
}

impl Asked for RemoteReply {
    fn is_wanted(&self) -> bool {
        !self.state.lock().is_over
    }

    fn unwanted(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            loop {
                let mut notified = pin!(self.unwanted.notified());
                // Registered before the look, so that an end between the look and the wait is not missed.
                notified.as_mut().enable();
                if !self.is_wanted() {
                    return;
                }
                notified.await;
            }
        })
    }

    fn withdrawn(&self) {
        self.end();
    }

    fn dropped(&self) {
        {
            let mut state = self.state.lock();
            if state.is_taken {
                state.is_dropped = true;
                return;
            }
        }
        self.never(Never::Dropped);
    }

    fn answered(&self) {
        self.end();
    }

    fn is_elsewhere(&self) -> bool {
        true
    }

    fn undelivered(&self, reason: &NotDelivered) {
        use NotDelivered::{ActorStopped, ProcGone, UnknownActor, UnknownPort, UnknownProc};

        // Whoever waited has gone, and the wait with it.
        if matches!(
            reason,
            ActorStopped { .. }
                | ProcGone { .. }
                | UnknownActor { .. }
                | UnknownPort { .. }
                | UnknownProc { .. }
        ) {
            return;
        }
        let reason = clipped(reason);
        self.tell(Never::Undelivered { reason });
    }

    fn handed_over(&self) {
        self.end();
    }

    fn taken(&self) {
        self.state.lock().is_taken = true;
    }

    fn let_go(&self) {
        {
            let mut state = self.state.lock();
            state.is_taken = false;
            if !state.is_dropped {
                return;
            }
        }
        self.never(Never::Dropped);
    }

    fn never(&self, why: Never) {
        // once, and to nobody who has left.
        if self.end() {
            self.tell(why);
        }
    }

    fn is_behind(&self, actor_id: &ActorId) -> bool {
        self.chain.iter().any(|link| link.actor_id == *actor_id)
    }

    fn chain(self: Arc<Self>) -> Vec<WaitLink> {
        self.chain.clone()
    }
}

impl RemoteReply {
    fn tell(&self, why: Never) {
        let reply_port = self.port_id.index();
        let notice = Notice::Never { reply_port, why };
        let me = self.mailbox.actor_id().clone();
        let envelope = notice.envelope(me, self.port_id.actor_id());
        self.proc.post(envelope, Notice::return_handle());
    }
}

impl Drop for RemoteReply {
    fn drop(&mut self) {
        if self.is_request {
            self.mailbox.leave_request(&self.port_id);
        }
    }
}

/// The words in which an end is told to those who wait, cut to what a notice may carry.
pub(crate) fn ended(cause: &impl std::fmt::Display) -> Never {
    Never::Ended {
        cause: clipped(cause),
    }
}

fn clipped(cause: &impl std::fmt::Display) -> String {
    let mut cause = cause.to_string();
    if cause.len() > limits::CAUSE_BYTES_MAX {
        let mut end = limits::CAUSE_BYTES_MAX;
        while !cause.is_char_boundary(end) {
            end -= 1;
        }
        cause.truncate(end);
        cause.push('…');
    }
    cause
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str) -> WaitLink {
        let actor_id = format!("unix:@h,p,{name}[0]").parse().unwrap();
        WaitLink {
            actor_id,
            reply_port: 1_024,
        }
    }

    fn read(bytes: Bytes) -> Option<AskHeader> {
        let mut headers = Headers::new();
        headers.set(ASK_HEADER, bytes).unwrap();
        AskHeader::read(&headers)
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let chain = vec![link("a"), link("b")];
        let header = || AskHeader {
            reply_port: 7,
            chain: chain.clone(),
        };
        assert_eq!(read(header().encode()), Some(header()));
        assert_eq!(AskHeader::read(&Headers::new()), None);
    }

    ///
    #[test]
    fn of_a_chain_that_is_too_long_the_last_actors_are_kept() {
        let chain: Vec<_> = (0..100).map(|at| link(&format!("actor-{at}"))).collect();
        let reply_port = u64::MAX;
        let header = AskHeader { reply_port, chain };
        let bytes = header.encode();
        assert!(bytes.len() <= mailbox_limits::HEADER_VALUE_BYTES);
        let header = read(bytes).unwrap();
        assert_eq!(header.reply_port, reply_port);
        assert_eq!(header.chain.last(), Some(&link("actor-99")));
        assert!(header.chain.len() > 8 && header.chain.len() <= mailbox_limits::WAIT_CHAIN_ACTORS);
        // One name that does not fit at all: the request goes without a chain.
        let chain = vec![link(&"x".repeat(2_000))];
        let header = AskHeader { reply_port, chain };
        assert_eq!(read(header.encode()).unwrap().chain, []);
    }

    #[test]
    fn a_header_that_is_none_makes_no_request() {
        assert_eq!(read(Bytes::new()), None);
        assert_eq!(read(Bytes::from_static(&[1, 1])), None);
        let mut long = AskHeader {
            reply_port: 1,
            chain: vec![],
        }
        .encode()
        .to_vec();
        long.push(0);
        assert_eq!(read(long.into()), None);
    }
}
