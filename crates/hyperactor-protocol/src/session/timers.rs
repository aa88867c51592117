//! Deadlines. All of them measure silence, none measures size.

use std::time::Duration;

use super::{Role, Session};
use crate::life::Life;
use crate::{Cause, Config, Notice, Time};

/// What a deadline asks of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// An acknowledgement waited long enough: [`Session::transmit`] has it.
    AckDue,
    /// The connection was quiet: [`Session::transmit`] has a ping.
    Ping,
    /// The connection is dead: drop it. The session waits for another one.
    Dead {
        /// How long nothing moved.
        silence: Duration,
    },
    /// The session is over: nothing moved for the delivery timeout, or nobody resumed it.
    Expired,
}

impl Session {
    /// Returns when [`on_timeout`](Self::on_timeout) is to be called next, `None` for never as things stand. It may
    /// lie in the past.
    pub fn next_timeout(&self) -> Option<Time> {
        let timers = [
            self.ack_at
                .filter(|_| self.life == Life::Connected && !self.ack_due),
            self.ping_at(),
            self.dead_at(),
            self.expires_at(),
        ];
        timers.into_iter().flatten().min()
    }

    /// Acts on the next deadline that has passed; call it until it has none.
    pub fn on_timeout(&mut self, now: Time) -> Option<Timeout> {
        self.touch(now);
        let passed = |at: Option<Time>| at.is_some_and(|at| at <= now);
        if passed(self.expires_at()) {
            self.give_up(Cause::TimedOut);
            return Some(Timeout::Expired);
        }
        if passed(self.dead_at()) {
            let silence = now.since(self.alive());
            self.notice(|| Notice::Silent { silence });
            self.lose();
            return Some(Timeout::Dead { silence });
        }
        if passed(self.ping_at()) {
            self.pinged = now;
            self.ping_due = true;
            return Some(Timeout::Ping);
        }
        if self.life == Life::Connected && !self.ack_due && passed(self.ack_at) {
            self.ack_at = None;
            self.ack_due = true;
            return Some(Timeout::AckDue);
        }
        None
    }

    /// Acts on every deadline that has passed, as [`on_timeout`](Self::on_timeout) called until it has none; returns
    /// what weighs most: the end of the session, then that of the connection.
    pub fn run_timeouts(&mut self, now: Time) -> Option<Timeout> {
        let mut gravest = None;
        while let Some(timeout) = self.on_timeout(now) {
            let is_grave = matches!(timeout, Timeout::Expired | Timeout::Dead { .. });
            if gravest.is_none() || is_grave {
                gravest = Some(timeout);
            }
        }
        gravest
    }

    fn alive(&self) -> Time {
        match self.life {
            Life::Connected => self.heard.max(self.drained),
            Life::Detached | Life::Handshaking | Life::Closed => self.since,
        }
    }

    fn ping_at(&self) -> Option<Time> {
        let keepalive = self.config.keepalive_idle.min(self.silence / 3);
        let idle = self.heard.max(self.pinged) + keepalive;
        (self.life == Life::Connected && !self.ping_due).then_some(idle)
    }

    /// S-26: a connection on which nothing moves is dead, also one whose handshake hangs.
    pub(super) fn dead_at(&self) -> Option<Time> {
        match self.life {
            Life::Connected if self.is_late => Some(self.now),
            Life::Connected => Some(self.alive() + self.silence),
            Life::Handshaking => Some(self.since + self.config.handshake_timeout),
            Life::Detached | Life::Closed => None,
        }
    }

    /// When the messages fail, if nothing moves. A new connection is given the time in which it would show to be dead, but only
    /// so much in all: a peer that greets and goes does not hold messages for ever.
    fn deadline(&self) -> Time {
        let Config {
            delivery_timeout, ..
        } = self.config;
        let due = self.progress + delivery_timeout;
        let tried = self.greeted + self.silence.min(delivery_timeout);
        due.max(tried.min(due + delivery_timeout))
    }

    /// S-27: messages without progress, or a state that nobody resumes.
    fn expires_at(&self) -> Option<Time> {
        if self.life == Life::Closed {
            return None;
        }
        let messages = (self.open != 0).then(|| {
            if self.progress_unset {
                // Since when a first message waits is not known before a call brings the time: it is asked for at once.
                self.now
            } else {
                self.deadline()
            }
        });
        // P6 is a deliberate fault for the test of the simulator's oracle: a state that nobody resumes stays.
        let may_expire = self.role == Role::Acceptor && !cfg!(planted = "P6");
        let abandoned = (may_expire && self.life == Life::Detached)
            .then(|| self.since + self.config.session_ttl);
        [messages, abandoned].into_iter().flatten().min()
    }
}
