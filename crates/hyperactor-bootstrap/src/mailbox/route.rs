//! Which way the messages to one sibling go, and when that changes: a state machine that is told of posts, outcomes and
//! announcements, and says what to do. It posts, dials and waits for nothing itself; `sibling` does.
//!
//! At any moment messages are under way on **one** route only. To change over, new messages are held back until every
//! message on the old route has its outcome (the fence), then they go, in the order posted, by the new one. So a change
//! of route never reorders.
//!
//! ```text
//!            a link, nothing under way
//!   Relay ───────────────────────────────▶ Direct ──────────────────────┐ another link takes its place
//!     │ a link, something under way           │ refused, lost or closed  ▼
//!     ▼            all outcomes known         ▼                     Fence(Direct) ─────▶ Direct
//!   Fence(Direct) ─────────▶ Direct         Fence(Relay) ─────▶ Relay
//! ```
//!
//! Where links come from, and which of two is used, is in `links`.

use std::collections::VecDeque;
use std::fmt::Display;
use std::time::Duration;

use hyperactor_host::RoutePolicy;
use hyperactor_mailbox::{Capacity, MessageEnvelope, ReturnHandle};
use tokio::time::Instant;

use super::links::{Line, Links, Wire};
use super::pending::Groups;
use super::slots::Slots;
use super::words::{Admit, Back, Fault, Life, Returned, Settled, Standing, Via, Wants, Way};
use crate::limits;

/// Where messages go now.
#[derive(Debug)]
pub(super) enum Route<L> {
    /// Through the host.
    Relay,
    /// Straight.
    Direct(Line<L>),
    /// Straight, once there is a link: only where the host is not to be used.
    Unlinked,
    /// Nowhere, until everything under way has its outcome; then as told.
    Fence(Next<L>),
}

#[derive(Debug)]
pub(super) enum Next<L> {
    Relay,
    Direct(Line<L>),
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
pub(super) struct Held {
    envelope: MessageEnvelope,
    kept: Kept,
}

/// A message that is under way.
struct UnderWay {
    kept: Kept,
    /// The link that it went by, where it went straight.
    line: Option<Wire>,
    was_held: bool,
}

/// The routes to one sibling.
pub(super) struct Routes<L> {
    pub(super) policy: RoutePolicy,
    pub(super) route: Route<L>,
    pub(super) life: Life,
    pub(super) links: Links<L>,
    under_way: Slots<UnderWay>,
    pub(super) open: usize,
    pub(super) held: VecDeque<Held>,
    /// Never sent by the direct route, to go by the next one, before those in `held`.
    returned: Vec<Held>,
    /// Somebody posts what was held, one by one; new messages queue up behind.
    pub(super) draining: bool,
    /// What a held message met full just now.
    blocked: Option<Capacity>,
    pub(super) order: u64,
    groups: Groups,
    /// A dial or a probe is under way.
    pub(super) opening: bool,
    pub(super) retry_at: Option<Instant>,
    pub(super) backoff: Duration,
    /// Why the straight way failed last, and when; for people.
    pub(super) fault: Option<(Instant, String)>,
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
            links: Links::default(),
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
        }
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
            Route::Direct(line) => Some(Via::Direct(line.link.clone())),
            Route::Unlinked | Route::Fence(_) => None,
        }
    }

    fn start(&mut self, message: Held, via: Via<L>, was_held: bool) -> Admit<L> {
        let Held { envelope, kept } = message;
        let wants = kept.wants;
        let line = match &self.route {
            Route::Direct(line) => Some(line.wire),
            _ => None,
        };
        match self.under_way.insert(UnderWay {
            kept,
            line,
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
        let UnderWay { kept, line, .. } = self.under_way.remove(id)?;
        if line.is_some() && (self.retry_at.is_some() || self.fault.is_some()) {
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
            line,
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
        let (reroute, failed) = match line {
            Some(wire) => self.judge(wire, fault, now, why),
            None => (false, None),
        };
        let (useless, is_news) = match failed {
            Some((link, is_news)) => (Some(link), is_news),
            None => (None, false),
        };
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
            was_direct: line.is_some(),
            useless,
            is_news,
            settled,
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

    /// Falls through a fence when nothing is under way any more. What came back goes before what was held meanwhile. True
    /// when it fell: what is held is to be posted then.
    pub(super) fn pass_fence(&mut self) -> bool {
        let is_open = self.open > 0 && !cfg!(planted = "P8");
        if is_open || !matches!(self.route, Route::Fence(_)) {
            return false;
        }
        let Route::Fence(next) = std::mem::replace(&mut self.route, Route::Relay) else {
            return false;
        };
        self.route = match next {
            Next::Relay => Route::Relay,
            Next::Direct(line) => Route::Direct(line),
            Next::Unlinked => Route::Unlinked,
        };
        self.returned.sort_unstable_by_key(|held| held.kept.order);
        for held in self.returned.drain(..).rev() {
            self.held.push_front(held);
        }
        true
    }

    /// The host says that the sibling is up, or gone. Returns the links that are of no use any more.
    pub(super) fn announce(&mut self, life: Life, now: Instant) -> Vec<L> {
        let news = match (self.life, life) {
            // Late news of an earlier life.
            (Life::Up(present), Life::Gone(other)) => present == other,
            (old, new) => old != new,
        };
        if !news {
            return Vec::new();
        }
        let was_other_life = matches!(self.life, Life::Up(_));
        self.life = life;
        self.retry_at = None;
        self.backoff = Duration::ZERO;
        let useless = match life {
            Life::Gone(_) => self.all_failed(now, &"the host said that it has ended"),
            // A link to an earlier life leads nowhere.
            Life::Up(_) if was_other_life => {
                self.all_failed(now, &"the link led to an earlier life of it")
            }
            _ => Vec::new(),
        };
        self.retry_at = None;
        self.pass_fence();
        useless
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
            link: self.line().map(|line| line.wire.origin),
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
            && self.links.spare.is_none()
    }

    /// Whether another message can be held.
    pub(super) fn has_room(&self) -> bool {
        self.held.len() < limits::HELD_MESSAGES_MAX
    }

    /// See [`Groups::mark`].
    pub(super) fn mark(&mut self) -> Option<u64> {
        self.groups.mark()
    }
}
