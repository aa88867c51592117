//! The heartbeat: a message to the system of a watched proc. Its outcome says whether the proc is there; the answer, sent
//! when it is news, says which life of it.

use std::sync::Arc;

use hyperactor_mailbox::{
    DeathCertificate, EnvelopeHead, Failure, ReturnHandle, ReturnSink, Token, Undeliverable,
    Unknown,
};
use hyperactor_refs::Incarnation;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{ProcLoss, Sign, Watched, Watches};
use crate::proc::WeakProc;
use crate::system::{System, Unheard};
use crate::{Message, Proc, limits};

/// Asks a proc whether it lives.
#[derive(Message, Serialize, Deserialize)]
#[message(name = "hyperactor.system.Beat")]
struct Beat {
    /// The life that the asking proc knows. It is answered when it is another.
    known: Option<Incarnation>,
    /// The digest of the watches that the asking proc has of actors here. It is answered when it is another.
    watches: u64,
}

/// Says which life of a proc it is.
#[derive(Clone, Copy, Message, Serialize, Deserialize)]
#[message(name = "hyperactor.system.Pulse")]
struct Pulse {
    incarnation: Incarnation,
    /// The watches that are known here are others: they are to be told again.
    is_short: bool,
}

pub(crate) fn bind(system: &System, proc: &WeakProc) {
    system.on::<Beat>(proc, |proc, head, beat| {
        let incarnation = proc.incarnation();
        let is_short = beat.watches != proc.incoming_digest(head.sender().proc_id());
        if beat.known != Some(incarnation) || is_short {
            let pulse = Pulse {
                incarnation,
                is_short,
            };
            // Lost, it is asked for again with the next beat.
            let envelope = proc.system_envelope(head.sender().proc(), pulse);
            proc.post_from_here(
                envelope,
                ReturnHandle::new(Arc::new(Unheard), Token::default()),
            );
        }
    });
    system.on::<Pulse>(proc, on_pulse);
}

fn on_pulse(proc: &Proc, head: &EnvelopeHead, pulse: Pulse) {
    let watches = &proc.system().watches;
    let Some(watched) = watches.find(head.sender().proc_id()) else {
        return;
    };
    let former = {
        let mut state = watched.state.lock();
        match state.incarnation {
            None => {
                state.incarnation = Some(pulse.incarnation);
                None
            }
            Some(life) if life == pulse.incarnation => None,
            former => former,
        }
    };
    let proc_id = Arc::clone(&watched.proc_id);
    let Some(former) = former else {
        if pulse.is_short {
            proc.call_roll(&proc_id);
        }
        return;
    };
    let loss = match watches.certificate(&proc_id, Some(former)) {
        Some(certificate) => ProcLoss::Died {
            proc_id,
            certificate: Some(certificate),
            seen: "another life of it answers".to_owned(),
        },
        None => ProcLoss::Restarted {
            proc_id,
            now: pulse.incarnation,
        },
    };
    proc.lose(&watched, &loss);
}

/// Sends one beat, unless the last one has no outcome yet (V-01).
pub(super) fn beat(proc: &Proc, watched: &Arc<Watched>) {
    let known = {
        let mut state = watched.state.lock();
        if std::mem::replace(&mut state.is_beating, true) {
            return;
        }
        state.incarnation
    };
    let sink = Arc::new(Outcome {
        proc: proc.downgrade(),
        watched: Arc::clone(watched),
    });
    let watches = proc.outgoing_digest(&watched.proc_id);
    let envelope = proc.system_envelope(&watched.proc_id, Beat { known, watches });
    proc.post_from_here(envelope, ReturnHandle::new(sink, Token::default()));
}

impl Watches {
    /// Sends a beat to each watched proc, drops those that nobody watches any more, and ends the wait for certificates that
    /// did not come.
    pub(crate) fn round(&self, proc: &Proc) {
        let now = Instant::now();
        let watched: Vec<_> = {
            let mut table = self.table.lock();
            table.retain(|_, watched| !is_unused(watched, now));
            table.values().cloned().collect()
        };
        for watched in watched {
            let overdue = {
                let mut state = watched.state.lock();
                let is_due = state
                    .suspicion
                    .as_ref()
                    .is_some_and(|(_, until)| *until <= now);
                if is_due { state.suspicion.take() } else { None }
            };
            match overdue {
                Some((loss, _)) => proc.lose(&watched, &loss),
                None => beat(proc, &watched),
            }
        }
    }
}

/// Whether nobody has watched for a while. Called with the table locked, without which no watch is made.
fn is_unused(watched: &Arc<Watched>, now: Instant) -> bool {
    let is_watched = Arc::strong_count(watched) > 1;
    let mut state = watched.state.lock();
    if is_watched {
        // A beat that is under way counts as a watch; it has an outcome soon.
        if !state.is_beating {
            state.unused_since = None;
        }
        return false;
    }
    let since = *state.unused_since.get_or_insert(now);
    now.duration_since(since) >= limits::WATCH_LINGER
}

/// What became of a beat.
struct Outcome {
    proc: WeakProc,
    watched: Arc<Watched>,
}

impl Outcome {
    fn failed(&self, failure: &Failure, certificate: Option<&Arc<DeathCertificate>>) {
        let Ok(proc) = self.proc.upgrade() else {
            return;
        };
        let watched = &self.watched;
        let sign = Sign::of(failure);
        let life = {
            let mut state = watched.state.lock();
            state.is_beating = false;
            match sign {
                Sign::Alive | Sign::Busy => return,
                // V-02: what is in doubt three times in a row is lost.
                Sign::Doubt if state.doubts + 1 < limits::BEATS_IN_DOUBT_MAX => {
                    state.doubts += 1;
                    return;
                }
                Sign::Doubt | Sign::Lost | Sign::Gone => state.incarnation,
            }
        };
        let proc_id = Arc::clone(&watched.proc_id);
        let certificate = match certificate {
            Some(certificate) => Some(Arc::clone(certificate)),
            // Where the life is not known, an old certificate may be that of a former one.
            None => life.and_then(|life| proc.system().watches.certificate(&proc_id, Some(life))),
        };
        let is_certain = certificate.is_some();
        let loss = if is_certain || sign == Sign::Gone {
            ProcLoss::Died {
                proc_id,
                certificate,
                seen: failure.to_string(),
            }
        } else {
            ProcLoss::Unreachable {
                proc_id,
                failure: failure.clone(),
            }
        };
        // V-03: its host is this one's too, and is about to say how it ended; or that of another is about to find out that it has.
        let is_here = watched.proc_id.addr() == proc.proc_id().addr();
        if !is_certain && (is_here || sign == Sign::Lost) {
            watched.suspect(loss);
        } else {
            proc.lose(watched, &loss);
        }
    }
}

impl ReturnSink for Outcome {
    fn delivered(&self, _: Token) {
        let mut state = self.watched.state.lock();
        state.is_beating = false;
        state.doubts = 0;
        // That it was gone stays true: what answers now is another life.
        if matches!(state.suspicion, Some((ProcLoss::Unreachable { .. }, _))) {
            state.suspicion = None;
        }
    }

    fn undelivered(&self, _: Token, report: Undeliverable) {
        self.failed(&report.failure, report.certificate.as_ref());
    }

    fn abandoned(&self, _: Token) {
        self.failed(&Unknown::Dropped.into(), None);
    }

    fn lost(&self, _: Token, failure: Failure) {
        self.failed(&failure, None);
    }
}
