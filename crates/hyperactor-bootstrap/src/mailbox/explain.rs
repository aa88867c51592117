//! Which way the messages to a proc go, and what stands against each faster one: for people and their tools. Decides
//! nothing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hyperactor_host::{RoutePolicy, SERVICE_PROC};
use hyperactor_proc::Message;
use hyperactor_refs::ProcId;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Shared;
use super::words::{Life, Standing, Way};

/// One way to another proc, from fast to slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RouteRung {
    /// A value moves into a queue of the same process.
    InProcess,
    /// A ring in memory that both processes share.
    SharedMemory,
    /// One Unix socket between the two processes.
    Direct,
    /// Through the host.
    Relay,
    /// Through the host, to another one.
    Remote,
}

impl fmt::Display for RouteRung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InProcess => "in-process",
            Self::SharedMemory => "shared-memory",
            Self::Direct => "direct",
            Self::Relay => "relay",
            Self::Remote => "remote",
        })
    }
}

/// Who dialled the connection between two processes. One serves both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum LinkOrigin {
    /// The process that is asked.
    Dialled,
    /// The other one.
    Accepted,
}

impl fmt::Display for LinkOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dialled => "dialled",
            Self::Accepted => "accepted",
        })
    }
}

/// Why one way is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RungRefusal {
    /// Which way.
    pub rung: RouteRung,
    /// A short name for programs to compare, stable between versions.
    pub code: String,
    /// The reason in words.
    pub reason: String,
}

/// Which way messages to a proc go, and what stands against the faster ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Message)]
#[non_exhaustive]
pub struct RouteReport {
    /// The proc that is addressed.
    pub to: Arc<ProcId>,
    /// What was asked for.
    pub policy: RoutePolicy,
    /// The way that a message posted now would take; `None` while messages are held, until those on the old route have
    /// their outcome or there is a link.
    pub now: Option<RouteRung>,
    /// The way that is changed to, where one is.
    pub next: Option<RouteRung>,
    /// Where messages go straight, now or next: who dialled the connection.
    pub link: Option<LinkOrigin>,
    /// Every way that is faster than `now`, with the reason against it; the fastest first.
    pub refusals: Vec<RungRefusal>,
    /// Messages that went straight.
    pub direct: u64,
    /// Messages that went through the host.
    pub relay: u64,
    /// Messages without an outcome yet.
    pub under_way: u64,
    /// Messages that wait for a change of route.
    pub held: u64,
}

pub(super) fn explain(shared: &Shared, proc_id: &ProcId) -> RouteReport {
    let mut report = RouteReport {
        to: Arc::new(proc_id.clone()),
        policy: shared.policy,
        now: None,
        next: None,
        link: None,
        refusals: Vec::new(),
        direct: 0,
        relay: 0,
        under_way: 0,
        held: 0,
    };
    if shared
        .own
        .as_ref()
        .is_some_and(|(own, _)| **own == *proc_id)
    {
        report.now = Some(RouteRung::InProcess);
        return report;
    }
    refuse(
        &mut report,
        RouteRung::InProcess,
        "other-process",
        "it is another process",
    );
    if !shared.addrs.contains(proc_id.addr()) {
        let reason = format!(
            "it is a proc of {}, and this host is {}",
            proc_id.addr(),
            shared.addrs.canonical()
        );
        for rung in [RouteRung::SharedMemory, RouteRung::Direct, RouteRung::Relay] {
            refuse(&mut report, rung, "other-host", reason.clone());
        }
        report.now = Some(RouteRung::Remote);
        return report;
    }
    refuse(
        &mut report,
        RouteRung::SharedMemory,
        "not-built",
        "this version has no shared memory",
    );
    if proc_id.name() == SERVICE_PROC {
        refuse(
            &mut report,
            RouteRung::Direct,
            "service",
            "the service proc lives in the host itself",
        );
        report.now = Some(RouteRung::Relay);
        return report;
    }
    let sibling = shared.siblings.read().get(proc_id.name()).map(Arc::clone);
    let Some(sibling) = sibling else {
        let (code, reason) = match shared.policy {
            RoutePolicy::Relay => ("policy", "the policy is to go through the host"),
            _ => (
                "unknown",
                "nothing was sent to it, and the host has not announced it",
            ),
        };
        refuse(&mut report, RouteRung::Direct, code, reason);
        report.now = (shared.policy != RoutePolicy::Direct).then_some(RouteRung::Relay);
        return report;
    };
    (report.direct, report.relay) = sibling.counts();
    let standing = sibling.standing();
    report.under_way = standing.under_way as u64;
    report.held = standing.held as u64;
    report.link = standing.link;
    (report.now, report.next) = match standing.way {
        Way::Direct => (Some(RouteRung::Direct), None),
        Way::Relay => (Some(RouteRung::Relay), None),
        Way::Changing { to_direct: true } => (None, Some(RouteRung::Direct)),
        Way::Changing { to_direct: false } => (None, Some(RouteRung::Relay)),
        Way::Waiting => (None, Some(RouteRung::Direct)),
    };
    if report.now != Some(RouteRung::Direct) {
        let (code, reason) = against_direct(&standing);
        refuse(&mut report, RouteRung::Direct, code, reason);
    }
    report
}

fn refuse(report: &mut RouteReport, rung: RouteRung, code: &str, reason: impl Into<String>) {
    report.refusals.push(RungRefusal {
        rung,
        code: code.to_owned(),
        reason: reason.into(),
    });
}

fn against_direct(standing: &Standing) -> (&'static str, String) {
    if standing.policy == RoutePolicy::Relay {
        return ("policy", "the policy is to go through the host".to_owned());
    }
    if let Life::Gone(incarnation) = standing.life {
        return (
            "gone",
            format!("the host said that its life {incarnation} has ended"),
        );
    }
    if matches!(standing.way, Way::Changing { .. }) {
        let text = format!(
            "the route is changing: {} messages on the old one have no outcome yet",
            standing.under_way
        );
        return ("changing", text);
    }
    if standing.is_opening {
        return ("opening", "its socket is being looked for".to_owned());
    }
    let Some((at, why)) = &standing.fault else {
        return match standing.life {
            Life::Up(_) => (
                "idle",
                "there is no link now; the next message opens one".to_owned(),
            ),
            _ => (
                "unannounced",
                "the host has not announced it, and no message has looked for its socket"
                    .to_owned(),
            ),
        };
    };
    let now = Instant::now();
    let ago = whole(now.saturating_duration_since(*at));
    let again = match standing.retry_at {
        Some(retry) if retry > now => format!(
            "tried again by the first message after {:?} more",
            whole(retry - now)
        ),
        _ => "tried again by the next message".to_owned(),
    };
    ("failed", format!("{ago:?} ago: {why}; {again}"))
}

/// To the millisecond: what is finer says nothing to people.
fn whole(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

impl fmt::Display for RouteReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.now, self.next) {
            (Some(now), _) => write!(f, "to {}: {now}", self.to)?,
            (None, Some(next)) => write!(f, "to {}: held, until it can go {next}", self.to)?,
            (None, None) => write!(f, "to {}: no way", self.to)?,
        }
        if let Some(link) = self.link {
            write!(f, " over a connection that was {link}")?;
        }
        write!(
            f,
            " (policy {}; {} direct, {} relayed, {} under way, {} held)",
            self.policy, self.direct, self.relay, self.under_way, self.held
        )?;
        for RungRefusal { rung, reason, .. } in &self.refusals {
            write!(f, "\n  not {rung}: {reason}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use hyperactor_mailbox::{
        MailboxSender, MessageEnvelope, ReturnHandle, UnroutableMailboxSender,
    };
    use hyperactor_refs::{ActorId, ChannelAddr, Incarnation, PortId};
    use hyperactor_testkit::eventually;

    use super::super::LocalProcDialer;
    use super::*;

    fn proc_id(addr: &str, name: &str) -> ProcId {
        let addr: ChannelAddr = addr.parse().unwrap();
        ProcId::Direct(addr, name.to_owned())
    }

    fn dialer(policy: RoutePolicy) -> LocalProcDialer {
        let backend = UnroutableMailboxSender::new("there is no host in this test");
        LocalProcDialer::new("unix:@host".parse().unwrap(), "/nowhere", backend).with_policy(policy)
    }

    fn against(report: &RouteReport, rung: RouteRung) -> &RungRefusal {
        let mut refusals = report.refusals.iter();
        refusals
            .find(|refusal| refusal.rung == rung)
            .expect("a refusal of it")
    }

    #[test]
    fn every_faster_way_has_a_reason_against_it() {
        let report = dialer(RoutePolicy::Auto).explain(&proc_id("tcp:127.0.0.1:9", "b"));
        assert_eq!(report.now, Some(RouteRung::Remote));
        let rungs: Vec<_> = report.refusals.iter().map(|refusal| refusal.rung).collect();
        let faster = [
            RouteRung::InProcess,
            RouteRung::SharedMemory,
            RouteRung::Direct,
            RouteRung::Relay,
        ];
        assert_eq!(rungs, faster);
        assert_eq!(against(&report, RouteRung::Direct).code, "other-host");
    }

    #[test]
    fn a_forced_route_is_the_reason() {
        let report = dialer(RoutePolicy::Relay).explain(&proc_id("unix:@host", "b"));
        assert_eq!(report.now, Some(RouteRung::Relay));
        assert_eq!(against(&report, RouteRung::Direct).code, "policy");
    }

    #[test]
    fn the_service_proc_is_reached_through_the_host_it_lives_in() {
        let report = dialer(RoutePolicy::Auto).explain(&proc_id("unix:@host", SERVICE_PROC));
        assert_eq!(report.now, Some(RouteRung::Relay));
        assert_eq!(against(&report, RouteRung::Direct).code, "service");
    }

    #[test]
    fn a_sibling_that_ended_is_named_as_gone() {
        let dialer = dialer(RoutePolicy::Auto);
        dialer.announce("b", Incarnation::new(7));
        assert_eq!(
            against(
                &dialer.explain(&proc_id("unix:@host", "b")),
                RouteRung::Direct
            )
            .code,
            "idle"
        );
        dialer.announce_gone("b", Incarnation::new(7));
        let report = dialer.explain(&proc_id("unix:@host", "b"));
        assert_eq!(against(&report, RouteRung::Direct).code, "gone");
        assert!(
            report.to_string().contains("not direct: the host said"),
            "{report}"
        );
    }

    #[tokio::test]
    async fn a_socket_that_does_not_answer_is_named_with_what_the_kernel_said() {
        let dialer = dialer(RoutePolicy::Auto);
        let b = proc_id("unix:@host", "b");
        assert_eq!(
            against(&dialer.explain(&b), RouteRung::Direct).code,
            "unknown"
        );
        let dest = PortId::new(ActorId::root(b.clone(), "actor"), 1);
        let sender = ActorId::root(proc_id("unix:@host", "a"), "actor");
        let (handle, outcome) = ReturnHandle::oneshot();
        dialer.post_unchecked(MessageEnvelope::typed(sender, dest, 1_u64), handle);
        assert!(outcome.await.is_err());
        let failed = || against(&dialer.explain(&b), RouteRung::Direct).code == "failed";
        eventually(Duration::from_secs(5), failed).await;
        let report = dialer.explain(&b);
        let reason = &against(&report, RouteRung::Direct).reason;
        assert!(reason.contains("No such file"), "{reason}");
        assert!(reason.contains("tried again"), "{reason}");
    }
}
