//! The links to one sibling: which of them messages go by, and when one is opened, replaced or given up. A part of the state
//! machine in `route`; it dials and closes nothing itself.
//!
//! Both ends may dial at once. Then the dial of the lower incarnation wins, at both ends: one of them changes over to the
//! other's link, behind the fence, and closes its own. Until that is closed, the other end keeps it as the **spare**.
//!
//! A destination that takes nothing may keep messages under way for as long as it likes. Those to its neighbours do not wait for
//! that: a change from one good link to another is called off when the fence stands too long, and tried again later.

use std::fmt::Display;

use hyperactor_host::RoutePolicy;
use tokio::time::Instant;

use super::explain::LinkOrigin;
use super::route::{Next, Route, Routes};
use super::words::{Adopted, Fault, Life, Open, Yield};
use crate::limits;

/// One link, and what tells it from others.
#[derive(Clone, Debug)]
pub(super) struct Line<L> {
    pub(super) link: L,
    pub(super) wire: Wire,
}

/// What is kept of a link with each message that goes by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wire {
    /// No other link to the same sibling had it.
    pub(super) number: u64,
    pub(super) origin: LinkOrigin,
}

/// What is known of links beside the one in use.
#[derive(Debug)]
pub(super) struct Links<L> {
    /// Another link than the one that messages go by: one that the sibling dialled and may be using, or, while messages change
    /// over to that, the one that was dialled here. It takes the place of the other should that fail.
    pub(super) spare: Option<Line<L>>,
    /// How many links there have been.
    count: u64,
    /// The sibling closed the link in order: another is opened before anything goes by the host.
    reopen: bool,
    /// How many messages had been posted, and how many had come in over the link, when it was last asked whether it is idle.
    seen: (u64, u64),
}

impl<L> Default for Links<L> {
    fn default() -> Self {
        Self {
            spare: None,
            count: 0,
            reopen: false,
            seen: (0, 0),
        }
    }
}

impl<L> Links<L> {
    fn line(&mut self, link: L, origin: LinkOrigin) -> Line<L> {
        self.count += 1;
        let number = self.count;
        Line {
            link,
            wire: Wire { number, origin },
        }
    }
}

impl<L: Clone> Routes<L> {
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
        // Tried once; what is held goes by the host when that cannot be.
        self.links.reopen = false;
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

    /// The straight way can be used through this link, which was dialled here. `Err`: not any more, the link is of no use.
    pub(super) fn opened(&mut self, link: L, dial_wins: bool) -> Result<(), L> {
        self.opening = false;
        let yields = |line: &Line<L>| dial_wins && line.wire.origin == LinkOrigin::Accepted;
        match &self.route {
            Route::Relay | Route::Unlinked => {}
            // The sibling has dialled meanwhile. It changes over to this link as soon as it learns of it.
            Route::Direct(line) | Route::Fence(Next::Direct(line)) if yields(line) => {
                self.links.spare = Some(line.clone());
            }
            // Something else was decided while the link was made.
            Route::Direct(_) | Route::Fence(_) => return Err(link),
        }
        let line = self.links.line(link, LinkOrigin::Dialled);
        self.change_to(Next::Direct(line));
        Ok(())
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

    /// The sibling has dialled: messages can go back over its link, unless a dial of this side wins. `Err`: they cannot,
    /// because it is not the life that is known, or no link is to be used.
    pub(super) fn adopted(
        &mut self,
        link: L,
        life: Life,
        dial_wins: bool,
    ) -> Result<Adopted<L>, L> {
        if self.policy == RoutePolicy::Relay || self.life != life {
            return Err(link);
        }
        let line = self.links.line(link, LinkOrigin::Accepted);
        let number = line.wire.number;
        let present = self.line().cloned();
        let own = present
            .as_ref()
            .is_some_and(|line| line.wire.origin == LinkOrigin::Dialled);
        if own && dial_wins {
            self.links.spare = Some(line);
            return Ok(Adopted {
                number,
                is_used: false,
                useless: None,
                is_waited_for: false,
            });
        }
        // Of two that the sibling dialled, one is about to be closed: most likely the older.
        if present.is_some() {
            self.links.spare = present;
        }
        let had_begun = matches!(self.route, Route::Direct(_));
        self.change_to(Next::Direct(line));
        let is_waited_for = own && had_begun && matches!(self.route, Route::Fence(_));
        let useless = if own && !is_waited_for {
            self.links.spare.take().map(|line| line.link)
        } else {
            None
        };
        Ok(Adopted {
            number,
            is_used: true,
            useless,
            is_waited_for,
        })
    }

    /// Looks how far the change to the link of this number has come, and calls it off where it has not: everything under way
    /// went by the former link, so what follows it there keeps the order. What is held is to be posted then.
    pub(super) fn settle_yield(&mut self, number: u64) -> Yield<L> {
        if self.line().is_none_or(|line| line.wire.number != number) {
            return Yield::Over;
        }
        let own = |line: &mut Line<L>| line.wire.origin == LinkOrigin::Dialled;
        let former = self.links.spare.take_if(own);
        match (&self.route, former) {
            (Route::Fence(Next::Direct(line)), Some(former)) => {
                self.links.spare = Some(line.clone());
                self.route = Route::Direct(former);
                Yield::Reverted
            }
            (Route::Direct(_), former) => Yield::Done(former.map(|line| line.link)),
            _ => Yield::Over,
        }
    }

    /// Tries again to change to the link of this number. False when there is nothing to try any more.
    pub(super) fn yield_again(&mut self, number: u64) -> bool {
        let Route::Direct(own) = &self.route else {
            return false;
        };
        if own.wire.origin != LinkOrigin::Dialled {
            return false;
        }
        let own = own.clone();
        let is_meant = |line: &mut Line<L>| line.wire.number == number;
        let Some(line) = self.links.spare.take_if(is_meant) else {
            return false;
        };
        self.links.spare = Some(own);
        self.change_to(Next::Direct(line));
        true
    }

    /// A link that the sibling dialled is over. True when what is held is to be posted.
    pub(super) fn ended(&mut self, number: u64) -> bool {
        self.drop_spare(number);
        if self.line().is_none_or(|line| line.wire.number != number) {
            return false;
        }
        let next = self.next_way();
        self.links.reopen = !matches!(next, Next::Direct(_));
        self.change_to(next)
    }

    /// The connection of a link that the sibling dialled was lost: it is not there to fall back on.
    pub(super) fn drop_spare(&mut self, number: u64) {
        let is_spare = |line: &mut Line<L>| line.wire.number == number;
        self.links.spare.take_if(is_spare);
    }

    /// A message came back from a link: whether it goes by another, and the link that is of no use any more, with whether the
    /// reason is news.
    pub(super) fn judge(
        &mut self,
        wire: Wire,
        fault: Fault,
        now: Instant,
        why: &impl Display,
    ) -> (bool, Option<(L, bool)>) {
        match fault {
            Fault::None => (false, None),
            // Its dialer wants it no more: that is no failure, whatever route is forced.
            Fault::Closed if wire.origin == LinkOrigin::Accepted => {
                // The message itself is still under way, so the fence stands until it is put back.
                self.ended(wire.number);
                (true, None)
            }
            Fault::Closed | Fault::NeverSent => {
                let useless = self.failed(wire.number, now, why);
                (self.policy == RoutePolicy::Auto, useless)
            }
            Fault::Lost => (false, self.failed(wire.number, now, why)),
        }
    }

    /// No link is of use any more. Returns them.
    pub(super) fn all_failed(&mut self, now: Instant, why: &impl Display) -> Vec<L> {
        let spare = self.links.spare.take().map(|line| line.link);
        let number = self.line().map(|line| line.wire.number);
        let used = number.and_then(|number| self.failed(number, now, why));
        let used = used.map(|(link, _)| link);
        used.into_iter().chain(spare).collect()
    }

    /// Messages go by the host from now on, whatever was asked for. Returns the links.
    pub(super) fn end_links(&mut self, now: Instant) -> Vec<L> {
        self.policy = RoutePolicy::Relay;
        let links = self.all_failed(now, &"this process ends its links");
        self.change_to(Next::Relay);
        links
    }

    /// Messages go another way than by this link from now on. Returns it, and whether the reason is news; nothing when they do
    /// already.
    fn failed(&mut self, number: u64, now: Instant, why: &impl Display) -> Option<(L, bool)> {
        if cfg!(planted = "P11") {
            return None;
        }
        self.drop_spare(number);
        let link = match self.line() {
            Some(line) if line.wire.number == number => line.link.clone(),
            _ => return None,
        };
        let is_news = self.note_fault(now, why.to_string());
        let next = self.next_way();
        if !matches!(next, Next::Direct(_)) {
            self.back_off(now);
        }
        // No message falls through the fence here: the one that failed is still counted, or there is none.
        self.route = Route::Fence(next);
        Some((link, is_news))
    }

    /// The link that messages go by, or will go by.
    pub(super) fn line(&self) -> Option<&Line<L>> {
        match &self.route {
            Route::Direct(line) | Route::Fence(Next::Direct(line)) => Some(line),
            _ => None,
        }
    }

    /// Where messages go without the present link.
    fn next_way(&mut self) -> Next<L> {
        match (self.links.spare.take(), self.policy) {
            (Some(line), _) => Next::Direct(line),
            (None, RoutePolicy::Direct) => Next::Unlinked,
            (None, _) => Next::Relay,
        }
    }

    /// Whether messages wait for a link that somebody has to make.
    pub(super) fn waits_for_link(&self) -> bool {
        let wants = match self.route {
            Route::Unlinked => true,
            Route::Relay => self.links.reopen,
            _ => false,
        };
        wants && !self.held.is_empty()
    }

    /// Asked from time to time: gives up a link that was dialled here and over which nothing went, either way, since it was
    /// asked last. `received` says how many messages came in over a link. The next message opens another.
    pub(super) fn take_idle_link(&mut self, received: impl FnOnce(&L) -> u64) -> Option<L> {
        let Route::Direct(line) = &self.route else {
            return None;
        };
        // Who dialled closes: two who do so at once would cross with the next dial.
        if line.wire.origin != LinkOrigin::Dialled {
            return None;
        }
        let seen = (self.order, received(&line.link));
        let was_used = std::mem::replace(&mut self.links.seen, seen) != seen;
        if was_used || self.open != 0 || !self.held.is_empty() || self.draining {
            return None;
        }
        let link = line.link.clone();
        let next = self.next_way();
        self.change_to(next);
        Some(link)
    }

    /// From now on messages go another way, once everything under way has its outcome. True when what is held is to be posted.
    fn change_to(&mut self, next: Next<L>) -> bool {
        self.route = Route::Fence(next);
        self.pass_fence()
    }

    fn back_off(&mut self, now: Instant) {
        self.backoff =
            (self.backoff * 2).clamp(limits::PROBE_BACKOFF_MIN, limits::PROBE_BACKOFF_MAX);
        self.retry_at = Some(now + self.backoff);
    }
}
