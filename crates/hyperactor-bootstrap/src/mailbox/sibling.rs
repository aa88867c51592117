//! One sibling: carries out what its `Routes` decide. Messages are posted, links dialled and senders told outside the
//! lock; under it only the state machine moves.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use hyperactor_host::RoutePolicy;
use hyperactor_mailbox::{
    BoxedMailboxSender, Capacity, DeathCertificate, Failure, Hop, Lease, MailboxSender,
    MessageEnvelope, NotDelivered, ReturnHandle, ReturnSink, RouteKind, Token, Undeliverable,
};
use hyperactor_refs::{Incarnation, ProcId};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::connect::{Connect, Link};
use super::explain::LinkOrigin;
use super::route::Routes;
use super::sink::{HeldRoom, Leased, Sink};
use super::words::{
    Admit, Back, Fault, Life, Open, Returned, Settled, Standing, Via, Wants, Yield,
};
use crate::limits;

/// The routes to one sibling, and the counts of what they carried.
pub(super) struct Sibling {
    core: Arc<Core>,
    /// The sinks of messages under way, made once: for senders that wait for the outcome, and for the others.
    urgent: Arc<Sink>,
    plain: Arc<Sink>,
}

/// What the messages to one sibling share.
pub(super) struct Core {
    proc_id: Arc<ProcId>,
    relay: BoxedMailboxSender,
    connect: Arc<dyn Connect>,
    routes: Mutex<Routes<Arc<dyn Link>>>,
    /// Rings when held messages have gone out.
    room: Notify,
    /// All groups below this number are settled; for those who flush.
    settled: watch::Sender<u64>,
    /// How the life that ended last ended.
    certificate: Mutex<Option<Arc<DeathCertificate>>>,
    direct: AtomicU64,
    relayed: AtomicU64,
}

impl Sibling {
    pub(super) fn new(
        proc_id: Arc<ProcId>,
        policy: RoutePolicy,
        relay: BoxedMailboxSender,
        connect: Arc<dyn Connect>,
    ) -> Self {
        let core = Arc::new(Core {
            proc_id,
            relay,
            connect,
            routes: Mutex::new(Routes::new(policy)),
            room: Notify::new(),
            settled: watch::Sender::new(0),
            certificate: Mutex::default(),
            direct: AtomicU64::new(0),
            relayed: AtomicU64::new(0),
        });
        let sink = |urgent| Arc::new(Sink::new(Arc::clone(&core), urgent));
        Self {
            urgent: sink(true),
            plain: sink(false),
            core,
        }
    }

    pub(super) fn proc_id(&self) -> &Arc<ProcId> {
        &self.core.proc_id
    }

    /// How many messages went straight, and how many through the host.
    pub(super) fn counts(&self) -> (u64, u64) {
        let Core {
            direct, relayed, ..
        } = &*self.core;
        (
            direct.load(Ordering::Relaxed),
            relayed.load(Ordering::Relaxed),
        )
    }

    /// Where its messages go, and what stands against the straight way.
    pub(super) fn standing(&self) -> Standing {
        self.core.routes.lock().standing()
    }

    /// Closes a link over which nothing went, either way, since the last call.
    pub(super) fn close_idle(&self) {
        let idle = self
            .core
            .routes
            .lock()
            .take_idle_link(|link| link.received());
        self.core.discard(idle);
    }

    /// Closes its links, and opens none any more. They may go on telling outcomes.
    pub(super) fn end_links(&self) -> Vec<Arc<dyn Link>> {
        let links = self.core.routes.lock().end_links(Instant::now());
        for link in &links {
            link.close();
        }
        self.core.drain();
        links
    }

    /// This life of the sibling has dialled: messages can go back over its link. Says by which number the link is known from
    /// now on; none when it cannot be used.
    pub(super) fn adopt(&self, incarnation: Incarnation, link: Arc<dyn Link>) -> Option<u64> {
        self.core.adopt(incarnation, link)
    }

    /// Whether this is the life that is known to be up.
    pub(super) fn lives(&self, incarnation: Incarnation) -> bool {
        self.core.lives(incarnation)
    }

    /// What a link to it is watched with.
    pub(super) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Posts a message by the route of the moment. Never blocks.
    pub(super) fn post(&self, envelope: MessageEnvelope, handle: ReturnHandle) {
        let wants = Wants {
            outcome: handle.wants_outcome(),
            release: handle.is_leased(),
        };
        let admitted = {
            let mut routes = self.core.routes.lock();
            match routes.should_open(Instant::now) {
                Open::Nothing => routes.admit(envelope, handle, wants),
                open => {
                    drop(routes);
                    // Neither of them waits. A link made here takes this message already.
                    self.core.open(open);
                    self.core.routes.lock().admit(envelope, handle, wants)
                }
            }
        };
        match admitted {
            Admit::Post {
                via,
                id,
                wants,
                envelope,
            } => {
                let sink: Arc<dyn ReturnSink> = match wants {
                    Wants { release: true, .. } => self.core.sink(wants),
                    Wants { outcome: true, .. } => self.urgent.clone(),
                    Wants { outcome: false, .. } => self.plain.clone(),
                };
                self.core.send(via, id, envelope, sink);
            }
            // The fence may have fallen since.
            Admit::Held => self.core.drain(),
            Admit::Full { envelope, handle } => self.core.refuse(envelope, handle),
        }
    }

    /// The host says that the sibling is up, or gone.
    pub(super) fn announce(&self, life: Life) {
        let useless = self.core.routes.lock().announce(life, Instant::now());
        tracing::debug!(
            target: "hyperactor::route", event = "route.announced", proc = %self.core.proc_id, ?life,
            "the host announced a sibling"
        );
        for link in useless {
            self.core.discard(Some(link));
        }
        self.core.drain();
    }

    /// The host says that a life of the sibling is over, and how it ended.
    pub(super) fn note_end(&self, certificate: Arc<DeathCertificate>) {
        let incarnation = certificate.incarnation;
        // Before the announcement: what comes back because of it names the certificate.
        *self.core.certificate.lock() = Some(certificate);
        self.announce(Life::Gone(incarnation));
    }

    /// Whether the entry can be forgotten without anybody noticing.
    pub(super) fn is_idle(&self) -> bool {
        self.core.routes.lock().is_idle()
    }

    /// Resolves when every message posted before the call has an outcome. Which ones are meant is decided when this is
    /// called, not when the future is first polled.
    pub(super) fn flush(&self) -> impl Future<Output = ()> + Send + use<> {
        let mark = self.core.routes.lock().mark();
        let core = Arc::clone(&self.core);
        async move {
            let Some(mark) = mark else { return };
            let mut settled = core.settled.subscribe();
            // The sender lives in `core`: the wait ends with the condition.
            drop(settled.wait_for(|settled| *settled >= mark).await);
        }
    }
}

impl Core {
    fn sink(self: &Arc<Self>, wants: Wants) -> Arc<dyn ReturnSink> {
        let sink = Sink::new(Arc::clone(self), wants.outcome);
        if wants.release {
            Arc::new(Leased::new(sink))
        } else {
            Arc::new(sink)
        }
    }

    /// Opens the straight way, as it was decided: dials a sibling that is known to be up, looks in the background for
    /// one that is not.
    fn open(self: &Arc<Self>, how: Open) {
        match how {
            Open::Nothing => {}
            Open::Dial => self.dial(),
            Open::Probe => self.probe(),
        }
    }

    fn probe(self: &Arc<Self>) {
        let Some(runtime) = self.connect.runtime() else {
            self.not_opened("there is no runtime to look for its socket in");
            return;
        };
        let probe = self.connect.probe();
        let core = Arc::downgrade(self);
        runtime.spawn(async move {
            let answer = tokio::time::timeout(limits::PROBE_TIMEOUT, probe).await;
            let Some(core) = core.upgrade() else { return };
            match answer {
                Ok(Ok(())) => core.dial(),
                Ok(Err(error)) => core.not_answered(&error),
                Err(_) => core.not_answered(&io::ErrorKind::TimedOut.into()),
            }
        });
    }

    /// A sibling's socket does not answer, or not as one of ours.
    fn not_answered(&self, error: &io::Error) {
        let why = format!("its socket does not answer: {error}");
        if error.kind() != io::ErrorKind::PermissionDenied {
            return self.not_opened(why);
        }
        if self.routes.lock().not_opened(Instant::now(), why) {
            tracing::warn!(
                target: "hyperactor::route", event = "route.stranger", proc = %self.proc_id, %error,
                "where a sibling's socket should be is something that is not ours"
            );
        }
    }

    /// A sibling cannot be reached straight for now. The same reason again is a detail: it is tried again and again.
    fn not_opened(&self, why: impl Into<String>) {
        let why = why.into();
        if self.routes.lock().not_opened(Instant::now(), why.clone()) {
            tracing::info!(
                target: "hyperactor::route", event = "route.no_answer", proc = %self.proc_id, why,
                "a sibling cannot be reached straight"
            );
        } else {
            tracing::trace!(
                target: "hyperactor::route", event = "route.no_answer", proc = %self.proc_id, why,
                "a sibling still cannot be reached straight"
            );
        }
    }

    /// Makes a link. It connects with the first message; nothing is waited for here.
    fn dial(self: &Arc<Self>) {
        let life = self.routes.lock().life();
        let expect = if let Life::Up(incarnation) = life {
            Some(incarnation)
        } else {
            None
        };
        let wins = expect.is_none_or(|incarnation| self.dial_wins(incarnation));
        let Some(link) = self.connect.connect(expect) else {
            self.not_opened("its socket's path is too long for the kernel, or there is no runtime");
            return;
        };
        let opened = self.routes.lock().opened(link, wins);
        match opened {
            Ok(()) => {
                tracing::debug!(
                    target: "hyperactor::route", event = "route.direct", proc = %self.proc_id,
                    link = %LinkOrigin::Dialled, "messages to a sibling go straight"
                );
                self.drain();
            }
            Err(useless) => self.discard(Some(useless)),
        }
    }

    /// Of two that dial each other at once, the lower incarnation's dial stands. Both ends know both.
    fn dial_wins(&self, theirs: Incarnation) -> bool {
        self.connect.incarnation().is_none_or(|ours| ours < theirs)
    }

    fn adopt(self: &Arc<Self>, incarnation: Incarnation, link: Arc<dyn Link>) -> Option<u64> {
        let wins = self.dial_wins(incarnation);
        let life = Life::Up(incarnation);
        let adopted = self.routes.lock().adopted(link, life, wins).ok()?;
        if adopted.is_used {
            tracing::debug!(
                target: "hyperactor::route", event = "route.direct", proc = %self.proc_id,
                link = %LinkOrigin::Accepted, "messages to a sibling go straight"
            );
        }
        self.discard(adopted.useless);
        self.drain();
        if adopted.is_waited_for
            && let Some(runtime) = self.connect.runtime()
        {
            runtime.spawn(yield_to(Arc::downgrade(self), adopted.number));
        }
        Some(adopted.number)
    }

    /// Looks after a change to a link that the sibling dialled. Says whether it was called off, to be tried again.
    fn look_after_yield(self: &Arc<Self>, number: u64) -> bool {
        let came = self.routes.lock().settle_yield(number);
        match came {
            Yield::Done(former) => {
                self.discard(former);
                false
            }
            Yield::Reverted => {
                tracing::debug!(
                    target: "hyperactor::route", event = "route.stays", proc = %self.proc_id,
                    "messages to a sibling go by the former link again: some take too long there to wait for"
                );
                self.drain();
                true
            }
            Yield::Over => false,
        }
    }

    fn yield_again(self: &Arc<Self>, number: u64) -> bool {
        let goes_on = self.routes.lock().yield_again(number);
        self.drain();
        goes_on
    }

    /// A link that the sibling dialled is over.
    pub(super) fn ended(self: &Arc<Self>, number: u64) {
        let drains = self.routes.lock().ended(number);
        tracing::debug!(
            target: "hyperactor::route", event = "route.ended", proc = %self.proc_id,
            "a link that a sibling dialled is over"
        );
        if drains {
            self.drain();
        }
    }

    /// The connection of such a link was lost, and may come back.
    pub(super) fn lost(&self, number: u64) {
        self.routes.lock().drop_spare(number);
    }

    /// Whether this is the life that is known to be up.
    pub(super) fn lives(&self, incarnation: Incarnation) -> bool {
        self.routes.lock().life() == Life::Up(incarnation)
    }

    /// How it is reached.
    pub(super) fn connect(&self) -> &Arc<dyn Connect> {
        &self.connect
    }

    fn discard(&self, useless: Option<Arc<dyn Link>>) {
        if let Some(link) = useless {
            link.close();
            tracing::debug!(
                target: "hyperactor::route", event = "route.closed", proc = %self.proc_id,
                "messages to a sibling no longer go by this link"
            );
        }
    }

    /// Puts one message on its way. Not under the lock.
    fn send(
        &self,
        via: Via<Arc<dyn Link>>,
        id: u64,
        envelope: MessageEnvelope,
        sink: Arc<dyn ReturnSink>,
    ) {
        let handle = ReturnHandle::new(sink, Token { id, size: 0, to: 0 });
        match via {
            Via::Relay => {
                self.relayed.fetch_add(1, Ordering::Relaxed);
                self.relay.post_unchecked(envelope, handle);
            }
            Via::Direct(link) => {
                self.direct.fetch_add(1, Ordering::Relaxed);
                link.post_unchecked(envelope, handle);
            }
        }
    }

    /// Posts what was held, if nothing stands in its way. One thread does so at a time, and new messages queue up behind:
    /// that keeps the order.
    fn drain(self: &Arc<Self>) {
        let open = {
            let mut routes = self.routes.lock();
            if routes.waits_for_link() {
                routes.should_open(Instant::now)
            } else {
                Open::Nothing
            }
        };
        self.open(open);
        let mine = self.routes.lock().start_draining();
        if mine {
            self.go_on_draining();
        }
    }

    fn go_on_draining(self: &Arc<Self>) {
        loop {
            let next = self.routes.lock().next();
            match next {
                Some(Admit::Post {
                    via,
                    id,
                    wants,
                    envelope,
                }) => {
                    self.send(via, id, envelope, self.sink(wants));
                    let blocked = self.routes.lock().take_blocked();
                    if let Some(capacity) = blocked {
                        self.drain_when(capacity);
                        return;
                    }
                }
                Some(Admit::Full { envelope, handle }) => self.refuse(envelope, handle),
                Some(Admit::Held) => {}
                None => break,
            }
        }
        self.room.notify_waiters();
    }

    /// A queue on the route is full: goes on when it has room.
    fn drain_when(self: &Arc<Self>, capacity: Capacity) {
        match self.connect.runtime() {
            Some(runtime) => {
                let core = Arc::clone(self);
                runtime.spawn(async move {
                    capacity.available().await;
                    core.go_on_draining();
                });
            }
            // Nothing can wait without a runtime: the senders are told.
            None => {
                let held = self.routes.lock().take_held();
                for (envelope, handle) in held {
                    self.refuse(envelope, handle);
                }
            }
        }
    }

    /// Gives a message back because too many are held. Its sender can wait for room.
    fn refuse(self: &Arc<Self>, envelope: MessageEnvelope, handle: ReturnHandle) {
        let port_id = envelope.dest().clone();
        let capacity = limits::HELD_MESSAGES_MAX as u64;
        let mut report =
            Undeliverable::new(envelope, NotDelivered::QueueFull { port_id, capacity });
        report.capacity = Some(Capacity::new(Arc::new(HeldRoom(Arc::clone(self)))));
        handle.report(report);
    }

    fn after(self: &Arc<Self>, settled: &Settled) {
        if let Some(below) = settled.below {
            self.settled.send_if_modified(|present| {
                let risen = *present < below;
                *present = below.max(*present);
                risen
            });
        }
        if settled.drain {
            self.drain();
        }
    }

    /// Whether another message can be held behind the fence.
    pub(super) fn has_room(&self) -> bool {
        self.routes.lock().has_room()
    }

    /// Rings when held messages have gone out.
    pub(super) fn room(&self) -> &Notify {
        &self.room
    }

    /// A message was placed in its mailbox.
    pub(super) fn placed(self: &Arc<Self>, token: Token) -> Lease {
        let kept = self.routes.lock().delivered(token.id);
        let Some((handle, settled)) = kept else {
            return Lease::none();
        };
        let lease = handle.delivered();
        self.after(&settled);
        lease
    }

    /// A message came back: it goes another way, or to its sender.
    pub(super) fn came_back(self: &Arc<Self>, token: Token, report: Undeliverable) {
        let Undeliverable {
            envelope,
            failure,
            route,
            capacity,
            certificate,
        } = report;
        let fault = self.connect.fault(&failure);
        let now = Instant::now();
        let returned = self.routes.lock().returned(
            token.id,
            envelope,
            capacity.as_ref(),
            fault,
            &failure,
            now,
        );
        let Returned {
            back,
            was_direct,
            useless,
            is_news,
            settled,
        } = returned;
        if is_news {
            tracing::info!(
                target: "hyperactor::route", event = "route.lost", proc = %self.proc_id, code = failure.code(),
                "the direct route to a sibling failed: {failure}"
            );
        } else if useless.is_some() {
            tracing::debug!(
                target: "hyperactor::route", event = "route.lost", proc = %self.proc_id, code = failure.code(),
                "the direct route to a sibling failed again: {failure}"
            );
        }
        self.discard(useless);
        match back {
            Back::Again => {
                let counter = if was_direct {
                    &self.direct
                } else {
                    &self.relayed
                };
                counter.fetch_sub(1, Ordering::Relaxed);
            }
            Back::Report {
                envelope,
                handle: Some(handle),
            } => {
                let report = Undeliverable {
                    envelope,
                    failure,
                    route,
                    capacity,
                    certificate,
                };
                self.give_back(handle, report, was_direct);
            }
            // Not reached: the number of a message under way is given out once and comes back once.
            Back::Report { handle: None, .. } => {}
        }
        self.after(&settled);
    }

    /// Tells a sender, with the step that its message had taken.
    fn give_back(&self, handle: ReturnHandle, mut report: Undeliverable, was_direct: bool) {
        let route = if was_direct {
            RouteKind::Direct
        } else {
            RouteKind::Relay
        };
        report.push_hop(Hop {
            at: self.proc_id.to_string(),
            route,
        });
        let unreachable = matches!(
            report.failure,
            Failure::NotDelivered(NotDelivered::UnknownProc { .. } | NotDelivered::Connect { .. })
        );
        if unreachable && matches!(self.routes.lock().life(), Life::Gone(_)) {
            // It is not there because it has ended: that says more than that nobody knows it.
            report.failure = NotDelivered::ProcGone {
                proc_id: Arc::clone(&self.proc_id),
            }
            .into();
        }
        if report.certificate.is_none() {
            report.certificate = self.certificate_of(&report.failure, was_direct);
        }
        handle.report(report);
    }

    /// How the sibling ended, if that is why a message failed.
    fn certificate_of(&self, failure: &Failure, was_direct: bool) -> Option<Arc<DeathCertificate>> {
        let Life::Gone(incarnation) = self.routes.lock().life() else {
            return None;
        };
        let is_why = match failure {
            Failure::NotDelivered(NotDelivered::ProcGone { .. }) => true,
            failure => was_direct && self.connect.fault(failure) != Fault::None,
        };
        let certificate = self.certificate.lock();
        let ours = certificate
            .as_ref()
            .filter(|certificate| is_why && certificate.incarnation == incarnation);
        ours.cloned()
    }

    /// A message is gone without an answer, or cannot be given back.
    pub(super) fn disappeared(self: &Arc<Self>, token: Token, failure: Option<Failure>) {
        let kept = self.routes.lock().lost(token.id);
        let Some((handle, settled)) = kept else {
            return;
        };
        match failure {
            Some(failure) => handle.lost(failure),
            // Dropped unsettled, it tells its sender the same.
            None => drop(handle),
        }
        self.after(&settled);
    }
}

/// Changes over to a link that the sibling dialled, as soon as that keeps nobody waiting.
async fn yield_to(core: Weak<Core>, number: u64) {
    let mut pause = limits::YIELD_FENCE_MAX;
    loop {
        tokio::time::sleep(limits::YIELD_FENCE_MAX).await;
        let was_called_off = core
            .upgrade()
            .is_some_and(|core| core.look_after_yield(number));
        if !was_called_off {
            return;
        }
        pause = (pause * 2).min(limits::LINK_IDLE);
        tokio::time::sleep(pause).await;
        let goes_on = core.upgrade().is_some_and(|core| core.yield_again(number));
        if !goes_on {
            return;
        }
    }
}

#[cfg(test)]
#[path = "sibling_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "idle_tests.rs"]
mod idle_tests;

#[cfg(test)]
#[path = "chaos_tests.rs"]
mod chaos_tests;

#[cfg(test)]
#[path = "links_tests.rs"]
mod links_tests;
