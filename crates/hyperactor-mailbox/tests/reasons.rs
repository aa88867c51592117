//! One test for each reason for which this crate gives a message back.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use bytes::Bytes;
use common::{actor, post_and_see, reason};
use hyperactor_mailbox::{
    Failure, Hop, Mailbox, MailboxMuxer, MailboxSender, Message, MessageEnvelope, NotDelivered,
    Payload, RouteKind, Undeliverable, Unknown, UnroutableMailboxSender, limits,
};
use hyperactor_refs::PortId;

fn envelope(dest: PortId) -> MessageEnvelope {
    MessageEnvelope::typed(actor("sender"), dest, "text".to_string())
}

#[test]
fn an_actor_that_never_was_is_unknown() {
    let muxer = MailboxMuxer::new();
    let report = post_and_see(&muxer, envelope(PortId::new(actor("nobody"), 1))).unwrap_err();
    assert_eq!(
        *reason(&report),
        NotDelivered::UnknownActor {
            actor_id: actor("nobody")
        }
    );
    assert_eq!(report.envelope.into_message::<String>().unwrap(), "text");
}

#[test]
fn an_actor_that_was_unbound_has_stopped() {
    let muxer = MailboxMuxer::new();
    muxer.bind(Mailbox::new(actor("gone"))).unwrap();
    muxer.unbind(&actor("gone")).unwrap();
    let report = post_and_see(&muxer, envelope(PortId::new(actor("gone"), 1))).unwrap_err();
    assert_eq!(
        *reason(&report),
        NotDelivered::ActorStopped {
            actor_id: actor("gone")
        }
    );
}

#[test]
fn an_actor_whose_mailbox_is_closed_has_stopped() {
    let mailbox = Mailbox::new(actor("closing"));
    let (port, _receiver) = mailbox.open_port::<String>();
    let dest = port.bind().into_port_id();
    mailbox.close();
    let report = post_and_see(&mailbox, envelope(dest)).unwrap_err();
    assert_eq!(
        *reason(&report),
        NotDelivered::ActorStopped {
            actor_id: actor("closing")
        }
    );
}

#[test]
fn a_mailbox_takes_messages_for_its_own_actor_only() {
    let mailbox = Mailbox::new(actor("one"));
    let report = post_and_see(&mailbox, envelope(PortId::new(actor("other"), 1))).unwrap_err();
    assert_eq!(
        *reason(&report),
        NotDelivered::UnknownActor {
            actor_id: actor("other")
        }
    );
}

#[test]
fn a_port_that_is_not_bound_is_unknown() {
    let mailbox = Mailbox::new(actor("a"));
    let (port, _receiver) = mailbox.open_port::<String>();
    let report = post_and_see(&mailbox, envelope(port.port_id().clone())).unwrap_err();
    assert_eq!(
        *reason(&report),
        NotDelivered::UnknownPort {
            port_id: port.port_id().clone()
        }
    );
}

#[test]
fn a_full_queue_gives_the_message_back_with_something_to_wait_for() {
    let mailbox = Mailbox::with_capacity(actor("a"), 2);
    let (port, mut receiver) = mailbox.open_port::<String>();
    let dest = port.bind().into_port_id();
    post_and_see(&mailbox, envelope(dest.clone())).unwrap();
    post_and_see(&mailbox, envelope(dest.clone())).unwrap();
    let report = post_and_see(&mailbox, envelope(dest.clone())).unwrap_err();
    assert_eq!(
        *reason(&report),
        NotDelivered::QueueFull {
            port_id: dest.clone(),
            capacity: 2
        }
    );
    assert!(report.failure.is_retryable());
    let capacity = report
        .capacity
        .expect("a queue of this process can be waited for");
    assert!(!capacity.has_room());
    assert_eq!(report.envelope.into_message::<String>().unwrap(), "text");
    receiver.try_recv().unwrap();
    assert!(capacity.has_room());
    post_and_see(&mailbox, envelope(dest)).unwrap();
}

/// E-04.
#[test]
fn a_message_of_another_type_is_refused_by_name() {
    let mailbox = Mailbox::new(actor("a"));
    let (port, mut receiver) = mailbox.open_port::<u64>();
    let dest = port.bind().into_port_id();
    let report = post_and_see(&mailbox, envelope(dest.clone())).unwrap_err();
    let expected = NotDelivered::TypeMismatch {
        port_id: dest.clone(),
        expected: "u64".into(),
        found: "String".into(),
    };
    assert_eq!(*reason(&report), expected);

    // Encoded, it is refused by its hash: that the bytes would decode as the port's type does not matter.
    let bytes = Bytes::from_static(&[1]);
    let payload = Payload::Encoded {
        type_hash: u32::TYPE_HASH,
        bytes,
    };
    let report =
        post_and_see(&mailbox, MessageEnvelope::new(actor("s"), dest, payload)).unwrap_err();
    assert_eq!(reason(&report).code(), "type-mismatch");
    assert_eq!(receiver.try_recv(), None);
}

#[test]
fn bytes_that_do_not_decode_are_given_back_as_they_were() {
    let mailbox = Mailbox::new(actor("a"));
    let (port, _receiver) = mailbox.open_port::<String>();
    let dest = port.bind().into_port_id();
    for bad in [&[200_u8, 1, b'x'][..], &[1, b'x', b'y'], &[]] {
        let bytes = Bytes::from_static(bad);
        let payload = Payload::Encoded {
            type_hash: String::TYPE_HASH,
            bytes,
        };
        let envelope = MessageEnvelope::new(actor("s"), dest.clone(), payload);
        let report = post_and_see(&mailbox, envelope).unwrap_err();
        assert_eq!(reason(&report).code(), "decode");
        assert!(
            matches!(report.envelope.payload(), Payload::Encoded { bytes, .. } if bytes == bad)
        );
    }
}

#[test]
fn the_last_step_is_taken_and_the_one_after_it_expires() {
    let mailbox = Mailbox::new(actor("a"));
    let (port, _receiver) = mailbox.open_port::<String>();
    let dest = port.bind().into_port_id();
    let mut last = envelope(dest.clone());
    last.set_ttl(1);
    post_and_see(&mailbox, last).unwrap();
    let mut spent = envelope(dest.clone());
    spent.set_ttl(0);
    let report = post_and_see(&mailbox, spent).unwrap_err();
    assert_eq!(*reason(&report), NotDelivered::TtlExpired { port_id: dest });
}

#[test]
fn two_senders_that_point_at_one_another_end_by_the_time_to_live() {
    use std::sync::OnceLock;
    #[derive(Clone)]
    struct Mirror(std::sync::Arc<OnceLock<hyperactor_mailbox::BoxedMailboxSender>>);
    impl MailboxSender for Mirror {
        fn post_unchecked(
            &self,
            envelope: MessageEnvelope,
            return_handle: hyperactor_mailbox::ReturnHandle,
        ) {
            self.0.get().unwrap().post(envelope, return_handle);
        }
    }
    let (one, other) = (Mirror(Default::default()), Mirror(Default::default()));
    one.0.set(other.boxed()).unwrap();
    other.0.set(one.boxed()).unwrap();
    let report = post_and_see(&one, envelope(PortId::new(actor("x"), 1))).unwrap_err();
    assert_eq!(reason(&report).code(), "ttl-expired");
    assert_eq!(report.envelope.ttl(), 0);
}

#[test]
fn an_unroutable_sender_says_why() {
    let sender = UnroutableMailboxSender::new("this proc has no network");
    let dest = PortId::new(actor("x"), 1);
    let report = post_and_see(&sender, envelope(dest.clone())).unwrap_err();
    let detail = "this proc has no network".to_string();
    assert_eq!(
        *reason(&report),
        NotDelivered::NoRoute {
            port_id: dest,
            detail
        }
    );
}

#[test]
fn a_boxed_sender_spends_one_step_and_not_two() {
    struct Keep(std::sync::Mutex<Vec<u8>>);
    impl MailboxSender for Keep {
        fn post_unchecked(
            &self,
            envelope: MessageEnvelope,
            return_handle: hyperactor_mailbox::ReturnHandle,
        ) {
            self.0.lock().unwrap().push(envelope.ttl());
            drop(return_handle.delivered());
        }
    }
    let keep = std::sync::Arc::new(Keep(Default::default()));
    let boxed = keep.boxed().boxed();
    post_and_see(&boxed, envelope(PortId::new(actor("x"), 1))).unwrap();
    assert_eq!(*keep.0.lock().unwrap(), [limits::TTL_DEFAULT - 1]);
}

#[test]
fn every_reason_has_a_number_and_a_code_of_its_own_and_survives_the_wire() {
    let port_id = PortId::new(actor("a"), 3);
    let actor_id = actor("a");
    let proc_id = std::sync::Arc::new(common::proc_id());
    let addr: hyperactor_refs::ChannelAddr = "tcp:127.0.0.1:9".parse().unwrap();
    let host = addr.clone();
    let known = vec!["service".to_string(), "worker".to_string()];
    let text = || "text".to_string();
    let after = std::time::Duration::from_secs(3);
    let failures: Vec<Failure> = vec![
        NotDelivered::UnknownProc {
            proc_id: proc_id.clone(),
            host,
            known,
        }
        .into(),
        NotDelivered::UnknownActor {
            actor_id: actor_id.clone(),
        }
        .into(),
        NotDelivered::UnknownPort {
            port_id: port_id.clone(),
        }
        .into(),
        NotDelivered::ActorStopped { actor_id }.into(),
        NotDelivered::ProcGone { proc_id }.into(),
        NotDelivered::QueueFull {
            port_id: port_id.clone(),
            capacity: 8,
        }
        .into(),
        NotDelivered::TooLarge { size: 9, max: 8 }.into(),
        NotDelivered::TypeMismatch {
            port_id: port_id.clone(),
            expected: text(),
            found: text(),
        }
        .into(),
        NotDelivered::Decode { error: text() }.into(),
        NotDelivered::Encode { error: text() }.into(),
        NotDelivered::TtlExpired {
            port_id: port_id.clone(),
        }
        .into(),
        NotDelivered::NoRoute {
            port_id,
            detail: text(),
        }
        .into(),
        NotDelivered::Connect {
            addr: addr.clone(),
            error: text(),
        }
        .into(),
        NotDelivered::PeerClosed { addr: addr.clone() }.into(),
        NotDelivered::TimedOut {
            addr: addr.clone(),
            after,
        }
        .into(),
        NotDelivered::Other {
            code: text(),
            detail: text(),
        }
        .into(),
        Unknown::PeerDied { addr: addr.clone() }.into(),
        Unknown::PeerRestarted { addr: addr.clone() }.into(),
        Unknown::ConnectionLost {
            addr: addr.clone(),
            error: text(),
        }
        .into(),
        Unknown::TimedOut { addr, after }.into(),
        Unknown::Dropped.into(),
        Unknown::Other {
            code: text(),
            detail: text(),
        }
        .into(),
    ];
    let numbers: std::collections::BTreeSet<_> = failures.iter().map(Failure::number).collect();
    let codes: std::collections::BTreeSet<_> = failures.iter().map(Failure::code).collect();
    assert_eq!(
        (numbers.len(), codes.len()),
        (failures.len(), failures.len())
    );
    for (at, failure) in failures.iter().enumerate() {
        let bytes = postcard::to_stdvec(failure).unwrap();
        // The second byte is the variant: it may never change, or two versions misunderstand one another.
        let variant = if at < 16 { at } else { at - 16 };
        assert_eq!(bytes[1], variant as u8, "{failure}");
        assert_eq!(postcard::from_bytes::<Failure>(&bytes).unwrap(), *failure);
    }
    assert_eq!(
        failures[0].to_string(),
        "not delivered: no proc `local:7,here` at host tcp:127.0.0.1:9; it has: service, worker"
    );
}

#[test]
fn a_report_tells_the_route_in_the_order_taken_and_keeps_it_bounded() {
    let mut report = Undeliverable::new(
        envelope(PortId::new(actor("x"), 1)),
        NotDelivered::TooLarge { size: 2, max: 1 },
    );
    report.push_hop(Hop {
        at: "unix:@far".into(),
        route: RouteKind::Direct,
    });
    report.push_hop(Hop {
        at: "unix:@host".into(),
        route: RouteKind::Relay,
    });
    let text = report.to_string();
    assert!(
        text.ends_with("; route: relay unix:@host, direct unix:@far"),
        "{text}"
    );
    for _ in 0..200 {
        report.push_hop(Hop {
            at: String::new(),
            route: RouteKind::Remote,
        });
    }
    assert_eq!(report.route.len(), limits::ROUTE_HOPS);
}
