//! The applications: what posts messages, what takes them, and the relay, which does both.

use std::collections::BTreeSet;
use std::convert::Infallible;

use hyperactor_protocol::{DataFlags, Label, Outgoing, PostId, PushError, Verdict};

use super::drive::{RELAYED, refusal};
use super::state::{Half, Sent, Waiting};
use super::{Ev, Sim};
use crate::fault::Nanos;
use crate::labels::Lane;
use crate::ledger::{self, FlawKind};
use crate::rng::mix;

impl Sim<'_> {
    pub(super) fn post(&mut self, at: usize) {
        let post = &self.scenario.posts[at];
        let (link, side) = (post.link, usize::from(post.back));
        let node = self.links[link].ends[side];
        if !self.nodes[node].up {
            return;
        }
        let half = if post.back {
            self.links[link].accepted.last().copied()
        } else {
            self.dialing_half(link)
        };
        let Some(half) = half else { return };
        self.links[link].backlog[side].push_back(Waiting::Post(at));
        self.feed(half);
        self.wake(half);
    }

    /// Moves waiting messages into the session while it takes them. A place that takes none for now holds up those
    /// that go there, and no others.
    pub(super) fn feed(&mut self, half: usize) {
        let (link, side) = (self.halves[half].link, self.halves[half].side);
        let mut full = BTreeSet::new();
        let mut at = 0;
        while let Some(waiting) = self.links[link].backlog[side].get(at).copied() {
            let to = self.place_of(waiting);
            if full.contains(&to) {
                at += 1;
                continue;
            }
            match self.push_message(half, waiting) {
                Ok(post) => self.entered(half, post.0, waiting),
                Err(PushError::Full) => {
                    self.seen.queue_full += 1;
                    if !self.halves[half].session.has_room() {
                        return;
                    }
                    self.seen.place_full += 1;
                    full.insert(to);
                    continue;
                }
                // It waits for the next session.
                Err(PushError::Closed) => return,
                Err(PushError::TooLarge { .. }) => {
                    self.seen.too_large += 1;
                    self.turned_away(waiting);
                }
                Err(error) => {
                    self.ledger
                        .flaw(FlawKind::Unwarranted, || error.to_string());
                    return;
                }
            }
            self.links[link].backlog[side].remove(at);
        }
    }

    fn place_of(&mut self, waiting: Waiting) -> Lane {
        match waiting {
            Waiting::Post(at) => self.scenario.posts[at].to,
            Waiting::Relayed { id, .. } => self.ledger.entry(id).map_or(0, |entry| entry.lane),
        }
    }

    fn push_message(
        &mut self,
        half: usize,
        waiting: Waiting,
    ) -> Result<PostId, PushError<Infallible>> {
        let (id, size, urgent, places) = match waiting {
            Waiting::Post(at) => {
                let post = &self.scenario.posts[at];
                let places = (post.to, post.from);
                (self.ledger.next(), post.size, post.urgent, places)
            }
            Waiting::Relayed { id, .. } => {
                let entry = self.ledger.entry(id);
                let (size, places) = entry.map_or((0, (0, 0)), |entry| {
                    (entry.size(), (entry.lane, entry.from()))
                });
                (id, size, id.is_multiple_of(3), places)
            }
        };
        let Half { session, given, .. } = &mut self.halves[half];
        if session.is_closed() || session.is_closing() {
            return Err(PushError::Closed);
        }
        let (to, from) = given.labels(session, places).ok_or(PushError::Full)?;
        let body = ledger::body(id, size);
        let shared = if id.is_multiple_of(4) {
            body.slice(ledger::BODY_MIN..)
        } else {
            bytes::Bytes::new()
        };
        let inline = body.slice(..body.len() - shared.len());
        let flags = if urgent {
            DataFlags::ACK_NOW
        } else {
            DataFlags::NONE
        };
        let outgoing = Outgoing {
            flags,
            to,
            from,
            room: 0,
            shared,
        };
        session.push(outgoing, |out| {
            out.extend_from_slice(&inline);
            Ok(())
        })
    }

    fn entered(&mut self, half: usize, post: u64, waiting: Waiting) {
        let node = self.halves[half].node;
        let sent = match waiting {
            Waiting::Post(at) => {
                let id = self.ledger.next();
                let size = self.scenario.posts[at].size;
                let places = (self.scenario.posts[at].to, self.scenario.posts[at].from);
                self.ledger.post_to(node, size, half as u64 + 1, places);
                self.seen.labelled += u64::from(places.0 != 0);
                self.seen.posted += 1;
                Sent { id, owed: None }
            }
            Waiting::Relayed { id, half, seq } => Sent {
                id,
                owed: Some((half, seq)),
            },
        };
        self.log
            .line(self.now, node, "push", [sent.id, half as u64, post]);
        self.halves[half].sent.insert(post, sent);
    }

    /// A message is too large for the session, and known to be so at once.
    fn turned_away(&mut self, waiting: Waiting) {
        if let Waiting::Relayed { half, seq, .. } = waiting {
            self.answer(half, seq, Verdict::NotDelivered(refusal(RELAYED)));
        }
    }

    /// A message came out of a session.
    pub(super) fn arrived(
        &mut self,
        half: usize,
        (seq, to, size): (u64, Label, u32),
        from: Label,
        body: &[u8],
    ) {
        let (node, link, side) = {
            let this = &self.halves[half];
            (this.node, this.link, this.side)
        };
        let world = &self.scenario.world;
        let relays = world.relay && node == 1 && side == 1;
        let Some(id) = self.ledger.arrive(node, half as u64 + 1, body, !relays) else {
            return;
        };
        self.log
            .line(self.now, node, "arrive", [id, half as u64, seq]);
        let named = &self.halves[half].named;
        let (lane, whom) = (named.lane(to), named.lane(from));
        self.ledger.is_for(id, lane, whom);
        self.seen.in_parts += u64::from(size > world.config.fragment_bytes);
        if relays {
            // The relay's queue is its backlog; credit goes back when the message has left it.
            let out = self.scenario.world.senders;
            self.links[out].backlog[0].push_back(Waiting::Relayed { id, half, seq });
            self.push(self.now, Ev::Release { half, to, size });
            if let Some(next) = self.dialing_half(out) {
                self.feed(next);
                self.push(self.now, Ev::Pump(next));
            }
            return;
        }
        let service = if self.healed { 0 } else { world.service };
        let disorder = world.disorder;
        let at = self.now
            + if service == 0 {
                0
            } else {
                self.links[link].rng.below(service)
            };
        let event = Ev::Settle {
            half,
            seq,
            to,
            id,
            size,
        };
        let at = if disorder {
            at
        } else {
            at.max(self.halves[half].settle_after)
        };
        self.halves[half].settle_after = at;
        let is_free = self.stuck_until(node, lane) <= self.now;
        if at == self.now && self.nodes[node].slow_until <= self.now && is_free {
            self.give_verdict(half, seq, id);
            let _written_after_the_input = self.halves[half].session.release(to, size);
        } else {
            self.push(at, event);
        }
    }

    /// Until when a place takes nothing; in the past when it does.
    fn stuck_until(&self, node: usize, lane: Option<Lane>) -> Nanos {
        let lane = lane.unwrap_or_default();
        if !self.thawed && self.scenario.world.frozen.contains(&lane) {
            return Nanos::MAX;
        }
        self.nodes[node].stuck.get(&lane).copied().unwrap_or(0)
    }

    pub(super) fn settle(&mut self, half: usize, (seq, to, size): (u64, Label, u32), id: u64) {
        if self.halves[half].gone {
            return;
        }
        let node = self.halves[half].node;
        let lane = self.ledger.entry(id).map(|entry| entry.lane);
        let slow_until = self.nodes[node].slow_until;
        let stuck_until = self.stuck_until(node, lane);
        // Every other place has a queue that is full: what comes is not even taken in.
        let waits_outside = stuck_until != Nanos::MAX && lane.unwrap_or(0) % 2 == 1;
        let wait_until = if waits_outside {
            slow_until.max(stuck_until)
        } else {
            slow_until
        };
        if wait_until > self.now {
            self.seen.stuck_outside += u64::from(waits_outside && stuck_until > self.now);
            let event = Ev::Settle {
                half,
                seq,
                to,
                id,
                size,
            };
            self.push(wait_until, event);
            return;
        }
        self.give_verdict(half, seq, id);
        if stuck_until == Nanos::MAX {
            self.nodes[node].frozen.push((half, to, size));
        } else if stuck_until > self.now {
            self.seen.stuck += 1;
            self.push(stuck_until, Ev::Release { half, to, size });
        } else if id.is_multiple_of(5) && !self.healed {
            // Some leave their queue later than they are settled.
            let pause = self.rng.below(self.scenario.world.service + 1);
            self.push(self.now + pause, Ev::Release { half, to, size });
        } else {
            let _written_below = self.halves[half].session.release(to, size);
        }
        self.wake(half);
    }

    fn give_verdict(&mut self, half: usize, seq: u64, id: u64) {
        let draw = mix(self.scenario.seed ^ mix(id)) % 16;
        let verdict = match draw {
            0 if self.scenario.world.refusals => Verdict::NotDelivered(refusal(7)),
            1 if self.scenario.world.refusals => Verdict::Unknown(refusal(8)),
            _ => Verdict::Delivered,
        };
        if let Some(entry) = self.ledger.entry(id) {
            entry.answered = true;
        }
        if verdict == Verdict::Delivered {
            self.ledger.place(id);
        }
        let node = self.halves[half].node;
        self.log
            .line(self.now, node, "settle", [id, half as u64, draw]);
        let _written_by_the_caller = self.halves[half].session.settle(seq.into(), verdict);
    }

    /// What a half that ends without a word leaves behind: its senders are gone too, or a relay's upstream never
    /// hears of it.
    pub(super) fn drop_half(&mut self, half: usize) {
        self.halves[half].gone = true;
        let sent = std::mem::take(&mut self.halves[half].sent);
        for each in sent.into_values() {
            match each.owed {
                None => self.ledger.forget_one(each.id),
                // Whoever loses a log knows that nobody can know.
                Some((upstream, seq)) => {
                    if !self.halves[upstream].gone {
                        self.answer(upstream, seq, Verdict::Unknown(refusal(RELAYED)));
                    }
                }
            }
        }
        let (side, link) = (self.halves[half].side, self.halves[half].link);
        if side == 0 {
            self.links[link].dialer = None;
        } else {
            self.links[link].accepted.retain(|each| *each != half);
        }
    }
}
