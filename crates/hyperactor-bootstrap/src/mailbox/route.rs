//! Which way the messages to one sibling go, and when that changes: a state machine that is told of posts, outcomes and
//! announcements, and says what to do. It posts, dials and waits for nothing itself; `sibling` does.
//!
//! At any moment messages are under way on **one** route only. To change over, new messages are held back until every
//! message on the old route has its outcome (the fence), then they go, in the order posted, by the new one. So a change
//! of route never reorders.
//!
//! ```text
//!            dialled, nothing under way
//!   Relay ───────────────────────────────▶ Direct
//!     │ dialled, something under way          │ never sent: connection refused or lost
//!     ▼            all outcomes known         ▼
//!   Fence(Direct) ─────────▶ Direct         Fence(Relay) ─────────▶ Relay
//! ```

use std::collections::VecDeque;
use std::fmt::Display;
use std::time::Duration;

use hyperactor_host::RoutePolicy;
use hyperactor_mailbox::{Capacity, MessageEnvelope, ReturnHandle};
use tokio::time::Instant;

use super::pending::Groups;
use super::slots::Slots;
use super::words::{Admit, Back, Fault, Life, Open, Returned, Settled, Standing, Via, Wants, Way};
use crate::limits;

/// Where messages go now.
#[derive(Debug)]
enum Route<L> {
    /// Through the host.
    Relay,
    /// Straight.
    Direct(L),
    /// Straight, once there is a link: only where the host is not to be used.
    Unlinked,
    /// Nowhere, until everything under way has its outcome; then as told.
    Fence(Next<L>),
}

#[derive(Debug)]
enum Next<L> {
    Relay,
    Direct(L),
    Unlinked,
}

/// What is kept of a message until it has its outcome.
pub(super) struct Kept {
    pub(super) handle: ReturnHandle,
    wants: Wants,
    /// Its place among all messages to this sibling.
    order: u64,
    group: u64,
}

/// A message that waits behind a fence.
struct Held {
    envelope: MessageEnvelope,
    kept: Kept,
}

/// A message that is under way.
struct UnderWay {
    kept: Kept,
    is_direct: bool,
    was_held: bool,
}

/// The routes to one sibling.
pub(super) struct Routes<L> {
    policy: RoutePolicy,
    route: Route<L>,
    life: Life,
    under_way: Slots<UnderWay>,
    open: usize,
    held: VecDeque<Held>,
    /// Never sent by the direct route, to go by the next one, before those in `held`.
    returned: Vec<Held>,
    /// Somebody posts what was held, one by one; new messages queue up behind.
    draining: bool,
    /// What a held message met full just now.
    blocked: Option<Capacity>,
    order: u64,
    groups: Groups,
    /// A dial or a probe is under way.
    opening: bool,
    retry_at: Option<Instant>,
    backoff: Duration,
    /// Why the straight way failed last, and when; for people.
    fault: Option<(Instant, String)>,
    /// How many messages had been posted when it was last asked whether the link is idle.
    seen: u64,
}

impl<L: Clone> Routes<L> {
    pub(super) fn new(policy: RoutePolicy) -> Self {
        Self {
            policy,
            route: if policy == RoutePolicy::Direct {
                Route::Unlinked
            } else {
                Route::Relay
            },
            life: Life::Unannounced,
            under_way: Slots::default(),
            open: 0,
            held: VecDeque::new(),
            returned: Vec::new(),
            draining: false,
            blocked: None,
            order: 0,
            groups: Groups::new(),
            opening: false,
            retry_at: None,
            backoff: Duration::ZERO,
            fault: None,
            seen: 0,
        }
    }

    /// Whether the straight way is to be opened now. Whoever is told to must call [`opened`](Self::opened) or
    /// [`not_opened`](Self::not_opened) afterwards.
    pub(super) fn should_open(&mut self, now: impl FnOnce() -> Instant) -> Open {
        let wanted = match self.route {
            Route::Relay => self.policy == RoutePolicy::Auto,
            Route::Unlinked => true,
            Route::Direct(_) | Route::Fence(_) => false,
        };
        if !wanted || self.opening {
            return Open::Nothing;
        }
        let how = match (&self.route, self.life) {
            // There is no other way: dial, and let the outcome tell.
            (Route::Unlinked, _) | (_, Life::Up(_)) => Open::Dial,
            (_, Life::Unannounced) => Open::Probe,
            (_, Life::Gone(_)) => return Open::Nothing,
        };
        let waiting = self.retry_at.is_some_and(|at| now() < at);
        if waiting && !matches!(self.route, Route::Unlinked) {
            return Open::Nothing;
        }
        self.opening = true;
        how
    }

    /// The straight way can be used through this link. `Err`: not any more, the link is of no use.
    pub(super) fn opened(&mut self, link: L) -> Result<(), L> {
        self.opening = false;
        match self.route {
            Route::Relay | Route::Unlinked => {
                self.route = Route::Fence(Next::Direct(link));
                self.pass_fence();
                Ok(())
            }
            // Something else was decided while the link was made.
            Route::Direct(_) | Route::Fence(_) => Err(link),
        }
    }

    /// The straight way cannot be used for now. Returns whether that is news: not what was said last, with no success since.
    pub(super) fn not_opened(&mut self, now: Instant, why: String) -> bool {
        self.opening = false;
        self.back_off(now);
        self.note_fault(now, why)
    }

    fn note_fault(&mut self, now: Instant, why: String) -> bool {
        let last = self.fault.replace((now, why));
        let is_same =
            |(_, last): (_, String)| self.fault.as_ref().is_some_and(|(_, why)| *why == last);
        !last.is_some_and(is_same)
    }

    /// Decides about a new message.
    pub(super) fn admit(
        &mut self,
        envelope: MessageEnvelope,
        handle: ReturnHandle,
        wants: Wants,
    ) -> Admit<L> {
        let via = if self.draining || !self.held.is_empty() {
            None
        } else {
            self.via()
        };
        if via.is_none() && !self.has_room() {
            return Admit::Full { envelope, handle };
        }
        self.order += 1;
        let kept = Kept {
            handle,
            wants,
            order: self.order,
            group: self.groups.enter(),
        };
        let message = Held { envelope, kept };
        match via {
            Some(via) => self.start(message, via, false),
            None => {
                self.held.push_back(message);
                Admit::Held
            }
        }
    }

    /// The way of a message that is posted now; `None` behind a fence.
    fn via(&self) -> Option<Via<L>> {
        match &self.route {
            Route::Relay => Some(Via::Relay),
            Route::Direct(link) => Some(Via::Direct(link.clone())),
            Route::Unlinked | Route::Fence(_) => None,
        }
    }

    fn start(&mut self, message: Held, via: Via<L>, was_held: bool) -> Admit<L> {
        let Held { envelope, kept } = message;
        let wants = kept.wants;
        let is_direct = matches!(via, Via::Direct(_));
        match self.under_way.insert(UnderWay {
            kept,
            is_direct,
            was_held,
        }) {
            Ok(id) => {
                self.open += 1;
                Admit::Post {
                    via,
                    id,
                    wants,
                    envelope,
                }
            }
            Err(UnderWay { kept, .. }) => {
                self.groups.leave(kept.group);
                Admit::Full {
                    envelope,
                    handle: kept.handle,
                }
            }
        }
    }

    /// Begins to post what was held: `false` when there is nothing to post, or somebody else does.
    pub(super) fn start_draining(&mut self) -> bool {
        let can = !self.draining
            && !self.held.is_empty()
            && matches!(self.route, Route::Relay | Route::Direct(_));
        self.draining |= can;
        can
    }

    /// The next held message to post, for whoever is draining; `None` ends the draining.
    pub(super) fn next(&mut self) -> Option<Admit<L>> {
        let next = self
            .via()
            .and_then(|via| Some((via, self.held.pop_front()?)));
        match next {
            Some((via, message)) => Some(self.start(message, via, true)),
            None => {
                self.draining = false;
                None
            }
        }
    }

    /// What the message posted last met full, if it was put back: whoever drains waits for it.
    pub(super) fn take_blocked(&mut self) -> Option<Capacity> {
        self.blocked.take()
    }

    /// A message was placed in its mailbox. Returns the handle of its sender.
    pub(super) fn delivered(&mut self, id: u64) -> Option<(ReturnHandle, Settled)> {
        let UnderWay {
            kept, is_direct, ..
        } = self.under_way.remove(id)?;
        if is_direct && (self.retry_at.is_some() || self.fault.is_some()) {
            // The way is good: after the next fault, which is news then, it is tried again at once.
            self.fault = None;
            self.retry_at = None;
            self.backoff = Duration::ZERO;
        }
        Some((kept.handle, self.close(kept.group)))
    }

    /// A message is gone, and will have no other outcome than a failure. Returns the handle of its sender.
    pub(super) fn lost(&mut self, id: u64) -> Option<(ReturnHandle, Settled)> {
        let kept = self.under_way.remove(id)?.kept;
        Some((kept.handle, self.close(kept.group)))
    }

    /// A message came back; `full` is what it met full in this process.
    pub(super) fn returned(
        &mut self,
        id: u64,
        envelope: MessageEnvelope,
        full: Option<&Capacity>,
        fault: Fault,
        why: &impl Display,
        now: Instant,
    ) -> Returned<L> {
        let Some(UnderWay {
            kept,
            is_direct,
            was_held,
        }) = self.under_way.remove(id)
        else {
            let back = Back::Report {
                envelope,
                handle: None,
            };
            let settled = Settled::default();
            return Returned {
                back,
                was_direct: false,
                useless: None,
                is_news: false,
                settled,
            };
        };
        let failed = is_direct && fault != Fault::None;
        let (useless, is_news) = match failed.then(|| self.direct_failed(now, why)).flatten() {
            Some((link, is_news)) => (Some(link), is_news),
            None => (None, false),
        };
        let reroute = failed && fault == Fault::NeverSent && self.policy == RoutePolicy::Auto;
        // The sender of a held message was not told of the full queue, so the message waits here.
        let waits = !reroute && was_held && self.draining && full.is_some();
        let (back, settled) = if reroute || waits {
            let message = Held { envelope, kept };
            if reroute {
                self.returned.push(message);
            } else {
                self.held.push_front(message);
                self.blocked = full.cloned();
            }
            self.open -= 1;
            (
                Back::Again,
                Settled {
                    below: None,
                    drain: self.pass_fence(),
                },
            )
        } else {
            let settled = self.close(kept.group);
            (
                Back::Report {
                    envelope,
                    handle: Some(kept.handle),
                },
                settled,
            )
        };
        Returned {
            back,
            was_direct: is_direct,
            useless,
            is_news,
            settled,
        }
    }

    /// Messages go by the host from now on, or by a new link where the host is not to be used. Returns the old link, and
    /// whether the reason is news.
    fn direct_failed(&mut self, now: Instant, why: &impl Display) -> Option<(L, bool)> {
        if cfg!(planted = "P11") {
            return None;
        }
        let next = match self.policy {
            RoutePolicy::Direct => Next::Unlinked,
            _ => Next::Relay,
        };
        match std::mem::replace(&mut self.route, Route::Fence(next)) {
            Route::Direct(link) | Route::Fence(Next::Direct(link)) => {
                self.back_off(now);
                Some((link, self.note_fault(now, why.to_string())))
            }
            other => {
                self.route = other;
                None
            }
        }
    }

    /// One message has its outcome.
    fn close(&mut self, group: u64) -> Settled {
        self.open -= 1;
        let before = self.groups.settled_below();
        self.groups.leave(group);
        let below = self.groups.settled_below();
        Settled {
            below: (below > before).then_some(below),
            drain: self.pass_fence(),
        }
    }

    /// Falls through a fence when nothing is under way any more. What came back goes before what was held meanwhile.
    fn pass_fence(&mut self) -> bool {
        let is_open = self.open > 0 && !cfg!(planted = "P8");
        if is_open || !matches!(self.route, Route::Fence(_)) {
            return false;
        }
        let Route::Fence(next) = std::mem::replace(&mut self.route, Route::Relay) else {
            return false;
        };
        self.route = match next {
            Next::Relay => Route::Relay,
            Next::Direct(link) => Route::Direct(link),
            Next::Unlinked => Route::Unlinked,
        };
        self.returned.sort_unstable_by_key(|held| held.kept.order);
        for held in self.returned.drain(..).rev() {
            self.held.push_front(held);
        }
        true
    }

    /// The host says that the sibling is up, or gone. Returns the link that is of no use any more.
    pub(super) fn announce(&mut self, life: Life, now: Instant) -> Option<L> {
        let news = match (self.life, life) {
            // Late news of an earlier life.
            (Life::Up(present), Life::Gone(other)) => present == other,
            (old, new) => old != new,
        };
        if !news {
            return None;
        }
        let was_other_life = matches!(self.life, Life::Up(_));
        self.life = life;
        self.retry_at = None;
        self.backoff = Duration::ZERO;
        let useless = match life {
            Life::Gone(_) => self.direct_failed(now, &"the host said that it has ended"),
            // A link to an earlier life leads nowhere.
            Life::Up(_) if was_other_life => {
                self.direct_failed(now, &"the link led to an earlier life of it")
            }
            _ => None,
        };
        self.retry_at = None;
        self.pass_fence();
        useless.map(|(link, _)| link)
    }

    /// Takes out everything that is held, in order.
    pub(super) fn take_held(&mut self) -> Vec<(MessageEnvelope, ReturnHandle)> {
        self.draining = false;
        let held: Vec<Held> = self.held.drain(..).collect();
        held.into_iter()
            .map(|held| {
                self.groups.leave(held.kept.group);
                (held.envelope, held.kept.handle)
            })
            .collect()
    }

    /// Whether messages wait for a link that somebody has to make.
    pub(super) fn waits_for_link(&self) -> bool {
        matches!(self.route, Route::Unlinked) && !self.held.is_empty()
    }

    /// Asked from time to time: gives up a link over which nothing went since it was asked last. The next message opens
    /// another.
    pub(super) fn take_idle_link(&mut self) -> Option<L> {
        let was_used = std::mem::replace(&mut self.seen, self.order) != self.order;
        let is_quiet = self.open == 0 && self.held.is_empty() && !self.draining;
        if was_used || !is_quiet || !matches!(self.route, Route::Direct(_)) {
            return None;
        }
        let next = match self.policy {
            RoutePolicy::Direct => Route::Unlinked,
            _ => Route::Relay,
        };
        match std::mem::replace(&mut self.route, next) {
            Route::Direct(link) => Some(link),
            _ => None,
        }
    }

    /// Where messages go, and what stands against the straight way.
    pub(super) fn standing(&self) -> Standing {
        let way = match &self.route {
            Route::Relay => Way::Relay,
            Route::Direct(_) => Way::Direct,
            Route::Unlinked => Way::Waiting,
            Route::Fence(Next::Relay) => Way::Changing { to_direct: false },
            Route::Fence(Next::Direct(_) | Next::Unlinked) => Way::Changing { to_direct: true },
        };
        Standing {
            policy: self.policy,
            way,
            life: self.life,
            is_opening: self.opening,
            fault: self.fault.clone(),
            retry_at: self.retry_at,
            under_way: self.open,
            held: self.held.len() + self.returned.len(),
        }
    }

    /// What is known of the sibling's life.
    pub(super) fn life(&self) -> Life {
        self.life
    }

    /// Whether nothing is under way or held, and no link is open: such an entry can be forgotten.
    pub(super) fn is_idle(&self) -> bool {
        self.open == 0
            && self.under_way.len() == 0
            && self.held.is_empty()
            && self.returned.is_empty()
            && !self.opening
            && !self.draining
            && matches!(self.route, Route::Relay | Route::Unlinked)
    }

    /// Whether another message can be held.
    pub(super) fn has_room(&self) -> bool {
        self.held.len() < limits::HELD_MESSAGES_MAX
    }

    /// See [`Groups::mark`].
    pub(super) fn mark(&mut self) -> Option<u64> {
        self.groups.mark()
    }

    fn back_off(&mut self, now: Instant) {
        self.backoff =
            (self.backoff * 2).clamp(limits::PROBE_BACKOFF_MIN, limits::PROBE_BACKOFF_MAX);
        self.retry_at = Some(now + self.backoff);
    }
}
