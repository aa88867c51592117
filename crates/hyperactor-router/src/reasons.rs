//! Translates outcomes: the channel's reasons into those of mailboxes on the sending side, and the report of an
//! undeliverable into a refusal, and back, between the two sides.

use std::sync::Arc;

use hyperactor_channel as channel;
use hyperactor_channel::{Reason, Refusal, Verdict};
use hyperactor_mailbox::{Failure, Hop, NotDelivered, Unknown, limits as mailbox_limits};
use hyperactor_refs::{ChannelAddr, ChannelTransport, PortId};

use crate::limits;

/// The verdict that tells the other side of a session why a message failed, and by which route.
///
/// # Bounds
/// The detail has at most [`limits::REPORT_BYTES`] bytes: the first steps of a long route go, then names, then all but
/// the reason's text.
pub(crate) fn verdict_of(failure: &Failure, route: &[Hop]) -> Verdict {
    let refusal = Refusal::new(failure.number()).with_detail(detail_of(failure, route));
    match failure {
        Failure::NotDelivered(_) => Verdict::NotDelivered(refusal),
        Failure::Unknown(_) => Verdict::Unknown(refusal),
    }
}

fn detail_of(failure: &Failure, route: &[Hop]) -> Vec<u8> {
    // The steps farthest from the sender stand first: those beyond the relays are the ones worth keeping.
    let mut route = &route[..route.len().min(limits::REPORT_HOPS)];
    loop {
        if let Some(detail) = fitting(failure, route) {
            return detail;
        }
        match route {
            [] => break,
            [shorter @ .., _] => route = shorter,
        }
    }
    if let Failure::NotDelivered(NotDelivered::UnknownProc {
        proc_id,
        host,
        known,
    }) = failure
    {
        let mut known = known.clone();
        while known.pop().is_some() {
            let (proc_id, host) = (Arc::clone(proc_id), host.clone());
            let reason = NotDelivered::UnknownProc {
                proc_id,
                host,
                known: known.clone(),
            };
            if let Some(detail) = fitting(&reason.into(), &[]) {
                return detail;
            }
        }
    }
    let code = failure.code().to_owned();
    let detail = clip(&failure.to_string(), limits::REPORT_BYTES / 2);
    let short = match failure {
        Failure::NotDelivered(_) => NotDelivered::Other { code, detail }.into(),
        Failure::Unknown(_) => Unknown::Other { code, detail }.into(),
    };
    // Half of the limit for the text leaves the rest for the few bytes around it.
    fitting(&short, &[]).unwrap_or_default()
}

fn fitting(failure: &Failure, route: &[Hop]) -> Option<Vec<u8>> {
    // An id or address that does not encode is as one that does not fit: the text stands for it.
    let bytes = postcard::to_stdvec(&(failure, route)).ok()?;
    (bytes.len() <= limits::REPORT_BYTES).then_some(bytes)
}

fn clip(text: &str, max: usize) -> String {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// What a channel's failure means for an envelope to `dest` that was sent to `addr`, and the route as far as the other
/// side told it. The destination is missing where the envelope is lost.
pub(crate) fn failure_of(
    failure: channel::Failure,
    addr: &ChannelAddr,
    dest: Option<&PortId>,
) -> (Failure, Vec<Hop>) {
    match failure {
        channel::Failure::NotDelivered(Reason::Remote(refusal)) => {
            let (failure, route) = report_of(&refusal);
            match failure {
                // What the session says outweighs what the detail says, so that neither hides a double delivery.
                Some(failure @ Failure::NotDelivered(_)) => (failure, route),
                _ => (
                    NotDelivered::Other {
                        code: code(&refusal),
                        detail: text(&refusal),
                    }
                    .into(),
                    route,
                ),
            }
        }
        channel::Failure::Unknown(Reason::Remote(refusal)) => {
            let (failure, route) = report_of(&refusal);
            match failure {
                Some(failure @ Failure::Unknown(_)) => (failure, route),
                _ => (
                    Unknown::Other {
                        code: code(&refusal),
                        detail: text(&refusal),
                    }
                    .into(),
                    route,
                ),
            }
        }
        channel::Failure::NotDelivered(reason) => {
            (not_delivered(reason, addr, dest).into(), Vec::new())
        }
        channel::Failure::Unknown(reason) => (unknown(reason, addr).into(), Vec::new()),
    }
}

fn code(refusal: &Refusal) -> String {
    format!("refusal-{}", refusal.code)
}

fn text(refusal: &Refusal) -> String {
    format!("the receiver refused it with code {}", refusal.code)
}

fn report_of(refusal: &Refusal) -> (Option<Failure>, Vec<Hop>) {
    match postcard::from_bytes::<(Failure, Vec<Hop>)>(&refusal.detail) {
        Ok((mut failure, mut route)) => {
            route.truncate(mailbox_limits::ROUTE_HOPS);
            if let Failure::NotDelivered(NotDelivered::UnknownProc { known, .. }) = &mut failure {
                known.truncate(mailbox_limits::KNOWN_NAMES);
            }
            (Some(failure), route)
        }
        // A newer version's reason, or a detail that was left out: the code alone is told.
        Err(_) => (None, Vec::new()),
    }
}

fn not_delivered(reason: Reason, addr: &ChannelAddr, dest: Option<&PortId>) -> NotDelivered {
    let addr = addr.clone();
    match (reason, dest) {
        // Only where one life of the peer was asked for: that one is gone.
        (Reason::PeerRestarted, Some(dest)) => NotDelivered::ProcGone {
            proc_id: Arc::clone(dest.actor_id().proc()),
        },
        (reason @ Reason::NoRuntime, Some(dest)) => NotDelivered::NoRoute {
            port_id: dest.clone(),
            detail: reason.to_string(),
        },
        (reason, _) => match reason {
            Reason::Closed | Reason::PeerClosed => NotDelivered::PeerClosed { addr },
            Reason::TooLarge { size, max } => NotDelivered::TooLarge {
                size: size as u64,
                max: max as u64,
            },
            Reason::Encode(error) => NotDelivered::Encode { error },
            Reason::Decode(error) => NotDelivered::Decode { error },
            Reason::Connect { addr, error, .. } => NotDelivered::Connect { addr, error },
            Reason::Refused { addr, code, text } => NotDelivered::Connect {
                addr,
                error: format!("{text} (code {code})"),
            },
            Reason::Silent(after) => NotDelivered::TimedOut { addr, after },
            other => NotDelivered::Other {
                code: other.code().to_owned(),
                detail: format!("sending to {addr}: {other}"),
            },
        },
    }
}

fn unknown(reason: Reason, addr: &ChannelAddr) -> Unknown {
    let is_local = matches!(
        addr.transport(),
        ChannelTransport::Unix | ChannelTransport::Local
    );
    let addr = addr.clone();
    match reason {
        Reason::PeerRestarted => Unknown::PeerRestarted { addr },
        Reason::Silent(after) => Unknown::TimedOut { addr, after },
        Reason::Dropped => Unknown::Dropped,
        // On one machine a socket that refuses after it was connected has lost its process.
        Reason::Connect { .. } if is_local => Unknown::PeerDied { addr },
        other => Unknown::ConnectionLost {
            addr,
            error: other.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyperactor_mailbox::RouteKind;
    use hyperactor_refs::{ActorId, ProcId};

    fn dest() -> PortId {
        let proc_id = ProcId::direct("local:3".parse().unwrap(), "p").unwrap();
        PortId::new(ActorId::root(proc_id, "a"), 9)
    }

    fn addr() -> ChannelAddr {
        "local:3".parse().unwrap()
    }

    fn round(failure: &Failure, route: &[Hop]) -> (Failure, Vec<Hop>) {
        let over = match verdict_of(failure, route) {
            Verdict::NotDelivered(refusal) => {
                channel::Failure::NotDelivered(Reason::Remote(refusal))
            }
            Verdict::Unknown(refusal) => channel::Failure::Unknown(Reason::Remote(refusal)),
            Verdict::Delivered => panic!("a failure became a delivery"),
        };
        failure_of(over, &addr(), Some(&dest()))
    }

    #[test]
    fn a_reason_and_its_route_cross_a_channel_unchanged() {
        let route = vec![Hop {
            at: "unix:@far".into(),
            route: RouteKind::Direct,
        }];
        let failures: [Failure; 2] = [
            NotDelivered::UnknownPort { port_id: dest() }.into(),
            Unknown::PeerDied { addr: addr() }.into(),
        ];
        for failure in failures {
            assert_eq!(round(&failure, &route), (failure, route.clone()));
        }
    }

    #[test]
    fn a_report_that_is_too_long_loses_its_route_first_and_then_names() {
        let hop = Hop {
            at: "x".repeat(300),
            route: RouteKind::Relay,
        };
        let failure = NotDelivered::UnknownPort { port_id: dest() }.into();
        let (same, route) = round(&failure, &vec![hop; 40]);
        assert_eq!((same, route.len()), (failure, 3));

        let known: Vec<String> = (0..16).map(|n| format!("{n:0>200}")).collect();
        let proc_id = Arc::clone(dest().actor_id().proc());
        let failure = NotDelivered::UnknownProc {
            proc_id,
            host: addr(),
            known,
        }
        .into();
        let (shorter, _) = round(&failure, &[]);
        let Failure::NotDelivered(NotDelivered::UnknownProc { known, .. }) = shorter else {
            panic!("another reason")
        };
        assert_eq!(known.len(), 4);
    }

    #[test]
    fn a_reason_that_cannot_be_cut_becomes_its_text() {
        let failure = NotDelivered::Decode {
            error: "é".repeat(2_000),
        }
        .into();
        let (shorter, _) = round(&failure, &[]);
        let Failure::NotDelivered(NotDelivered::Other { code, detail }) = shorter else {
            panic!("another reason")
        };
        assert_eq!(code, "decode");
        assert!(
            detail.starts_with("not delivered: the message does not decode"),
            "{detail}"
        );
    }

    #[test]
    fn a_peer_cannot_turn_an_unknown_outcome_into_a_certain_one() {
        let certain = verdict_of(&NotDelivered::TooLarge { size: 2, max: 1 }.into(), &[]);
        let Verdict::NotDelivered(refusal) = certain else {
            panic!("not certain")
        };
        let seen = channel::Failure::Unknown(Reason::Remote(refusal));
        let (failure, _) = failure_of(seen, &addr(), Some(&dest()));
        assert!(
            matches!(failure, Failure::Unknown(Unknown::Other { .. })),
            "{failure}"
        );
    }

    #[test]
    fn a_detail_that_is_noise_leaves_the_code() {
        for detail in [vec![], vec![0xff; 900], vec![0, 200]] {
            let refusal = Refusal::new(77).with_detail(detail);
            let seen = channel::Failure::NotDelivered(Reason::Remote(refusal));
            let (failure, route) = failure_of(seen, &addr(), Some(&dest()));
            assert!(failure.to_string().contains("refusal-77"), "{failure}");
            assert!(route.is_empty());
        }
    }

    #[test]
    fn what_the_channel_says_keeps_its_meaning() {
        let not = |reason| {
            failure_of(
                channel::Failure::NotDelivered(reason),
                &addr(),
                Some(&dest()),
            )
            .0
        };
        let unknown =
            |reason| failure_of(channel::Failure::Unknown(reason), &addr(), Some(&dest())).0;
        let connect = || Reason::Connect {
            addr: addr(),
            error: "refused".into(),
            errno: Some(111),
        };
        let second = std::time::Duration::from_secs(1);
        assert_eq!(not(connect()).code(), "connect");
        assert_eq!(not(Reason::PeerClosed).code(), "peer-closed");
        assert_eq!(not(Reason::PeerRestarted).code(), "proc-gone");
        assert_eq!(not(Reason::Silent(second)).code(), "timed-out");
        assert_eq!(
            not(Reason::TooLarge { size: 2, max: 1 }).code(),
            "too-large"
        );
        assert_eq!(not(Reason::Encode(String::new())).code(), "encode");
        assert_eq!(not(Reason::NoRuntime).code(), "no-route");
        assert_eq!(unknown(connect()).code(), "peer-died");
        assert_eq!(unknown(Reason::PeerRestarted).code(), "peer-restarted");
        assert_eq!(unknown(Reason::Silent(second)).code(), "unacknowledged");
        assert_eq!(
            unknown(Reason::Violation(String::new())).code(),
            "connection-lost"
        );
        assert_eq!(unknown(Reason::Dropped).code(), "dropped");
    }
}
