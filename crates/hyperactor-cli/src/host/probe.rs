//! `hyperactor ping` and `hyperactor trace`: probes to an actor's mailbox, which the mailbox answers by taking them. No
//! actor handles one, so a stuck actor answers too; what is measured is the way there and back.

use std::fmt;
use std::time::{Duration, Instant};

use hyperactor::mailbox::{Failure as Failed, Notice, ReturnHandle, SendFailure};
use hyperactor::prelude::*;
use serde::Serialize;
use tokio::time::timeout;

use super::tool::Tool;
use super::{Shows, address};
use crate::args::{PingArgs, TraceArgs};
use crate::failure::Failure;
use crate::limits;

/// What became of one probe.
enum Answer {
    Placed(Duration),
    Failed(Box<SendFailure>),
    Silent,
}

async fn probe(tool: &Tool, to: &ActorId, ttl: Option<u8>) -> Answer {
    let mut envelope = Notice::Probe.envelope(tool.client.actor_id().clone(), to);
    if let Some(ttl) = ttl {
        envelope.set_ttl(ttl);
    }
    let (handle, outcome) = ReturnHandle::oneshot();
    let start = Instant::now();
    tool.sender().post(envelope, handle);
    match timeout(limits::TOOL_DEADLINE, outcome).await {
        Ok(Ok(())) => Answer::Placed(start.elapsed()),
        Ok(Err(failure)) => Answer::Failed(Box::new(failure)),
        Err(_) => Answer::Silent,
    }
}

#[derive(Serialize)]
struct Pinged {
    to: String,
    sent: u32,
    answered: u32,
    min_us: f64,
    median_us: f64,
    max_us: f64,
}

impl fmt::Display for Pinged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} of {} answered, round trip min/median/max {:.0}/{:.0}/{:.0} µs",
            self.to, self.answered, self.sent, self.min_us, self.median_us, self.max_us
        )
    }
}

pub(super) async fn ping(tool: &Tool, args: &PingArgs) -> Result<Shows, Failure> {
    let to = address::actor(&args.reference, &tool.host)?;
    let mut times = Vec::new();
    for number in 0..args.count {
        match probe(tool, &to, None).await {
            Answer::Placed(time) => times.push(time.as_secs_f64() * 1e6),
            Answer::Failed(failure) => {
                return Err(Failure::Unreachable(format!("{to}: {failure}")));
            }
            Answer::Silent => {
                let text = format!(
                    "{to}: no answer to probe {number} within {:?}",
                    limits::TOOL_DEADLINE
                );
                return Err(Failure::Unreachable(text));
            }
        }
    }
    let answered = times.len() as u32;
    times.sort_by(f64::total_cmp);
    let at = |index: usize| times.get(index).copied().unwrap_or_default();
    let pinged = Pinged {
        to: to.to_string(),
        sent: args.count,
        answered,
        min_us: at(0),
        median_us: at(times.len() / 2),
        max_us: at(times.len().saturating_sub(1)),
    };
    Shows::new(&pinged, args.target.json)
}

/// The way of a message, as far as it could be followed.
#[derive(Serialize)]
struct Traced {
    to: String,
    hops: Vec<Step>,
    reached: bool,
    /// Why it was not reached.
    error: Option<String>,
}

/// Where a probe with so many steps to live ended.
#[derive(Serialize)]
struct Step {
    ttl: u8,
    /// The places that reported it back, the last one first reached by it.
    way: Vec<String>,
    us: f64,
}

impl fmt::Display for Traced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "to {}", self.to)?;
        for Step { ttl, way, us } in &self.hops {
            let way = if way.is_empty() {
                "this program".to_owned()
            } else {
                way.join(" > ")
            };
            write!(f, "\n{ttl:>3}  {us:>8.0} µs  {way}")?;
        }
        match (&self.error, self.reached) {
            (Some(error), _) => write!(f, "\nnot reached: {error}"),
            (None, true) => write!(f, "\nreached"),
            (None, false) => write!(f, "\nnot reached within {} steps", limits::TRACE_STEPS_MAX),
        }
    }
}

pub(super) async fn trace(tool: &Tool, args: &TraceArgs) -> Result<Shows, Failure> {
    let to = address::actor(&args.reference, &tool.host)?;
    let mut traced = Traced {
        to: to.to_string(),
        hops: Vec::new(),
        reached: false,
        error: None,
    };
    for ttl in 1..=limits::TRACE_STEPS_MAX {
        let start = Instant::now();
        let answer = probe(tool, &to, Some(ttl)).await;
        let us = start.elapsed().as_secs_f64() * 1e6;
        match answer {
            Answer::Placed(_) => {
                traced.hops.push(Step {
                    ttl,
                    way: vec![to.to_string()],
                    us,
                });
                traced.reached = true;
                break;
            }
            Answer::Failed(failure) => {
                let (way, expired) = match &*failure {
                    SendFailure::Returned(report) => {
                        let expired = matches!(
                            report.failure,
                            Failed::NotDelivered(NotDelivered::TtlExpired { .. })
                        );
                        let hops = report.route.iter().rev();
                        (
                            hops.map(|hop| format!("{} ({})", hop.at, hop.route))
                                .collect(),
                            expired,
                        )
                    }
                    _ => (Vec::new(), false),
                };
                traced.hops.push(Step { ttl, way, us });
                if !expired {
                    traced.error = Some(failure.to_string());
                    break;
                }
            }
            Answer::Silent => {
                traced.error = Some(format!("no answer within {:?}", limits::TOOL_DEADLINE));
                break;
            }
        }
    }
    let failure = (!traced.reached).then(|| {
        let why = traced
            .error
            .clone()
            .unwrap_or_else(|| "too many steps".to_owned());
        Failure::Unreachable(format!("{to}: {why}"))
    });
    Ok(Shows::new(&traced, args.target.json)?.with_failure(failure))
}
