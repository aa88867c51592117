//! Ends that are cut short or configured to the edge: a close that is not awaited, a runtime that is gone, a decoder or
//! a receiver that panics, limits of zero and of for ever.

#![allow(
    clippy::unwrap_used,
    reason = "a test may unwrap: its panic is its report"
)]

mod support;

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use hyperactor_channel::{
    Accept, ChannelTx, Codec, DecodeError, Deliver, DialOptions, EncodeError, Failure, Ignore,
    Inbound, Names, NoName, Outbound, Peer, Postcard, Reason, ServeOptions, Ticket, Verdict,
    dial_tx, dial_with, serve, serve_queue, serve_with,
};
use hyperactor_refs::ChannelAddr;
use support::{Entry, Kind, Ledger, Message, soon};
use tokio::runtime::Runtime;

const KINDS: [Kind; 3] = [Kind::Local, Kind::UnixPath, Kind::Tcp];

#[tokio::test]
async fn a_receiver_whose_close_was_cut_short_comes_to_its_end_all_the_same() {
    for kind in KINDS {
        let place = kind.place();
        let (_, mut rx) = serve::<Message>(place.bind.clone()).await.unwrap();
        tokio::select! {
            biased;
            () = rx.close() => panic!("it was to be cut short"),
            () = std::future::ready(()) => {}
        }
        assert_eq!(soon("the end", rx.recv()).await, None);
    }
}

#[test]
fn a_receiver_learns_that_the_runtime_of_its_server_is_gone() {
    for kind in KINDS {
        let place = kind.place();
        let server = Runtime::new().unwrap();
        let (_, mut rx) = server
            .block_on(serve::<Message>(place.bind.clone()))
            .unwrap();
        drop(server);
        let end = Runtime::new().unwrap().block_on(soon("the end", rx.recv()));
        assert_eq!(end, None);
    }
}

#[tokio::test]
async fn a_dialer_may_wait_for_a_local_server_without_a_limit() {
    for kind in [Kind::Local, Kind::UnixPath] {
        let place = kind.place();
        let addr = match place.bind.addr() {
            Some(addr) => addr.clone(),
            None => "local:900001".parse::<ChannelAddr>().unwrap(),
        };
        let options = DialOptions {
            connect_give_up_local: Duration::MAX,
            delivery_timeout: Duration::MAX,
            silence_timeout: Duration::MAX,
            ..Default::default()
        };
        let tx: ChannelTx<Message> = dial_tx(addr.clone(), options, Postcard);
        let (outcome, rx) = tokio::join!(
            soon("the outcome", tx.send(Message::new(1))),
            serve::<Message>(addr)
        );
        assert!(outcome.is_delivered(), "{kind:?}: {outcome:?}");
        drop(rx.unwrap());
    }
}

#[tokio::test]
async fn an_outbox_for_no_message_takes_one_at_a_time() {
    for kind in KINDS {
        let place = kind.place();
        let (addr, mut rx) = serve::<Message>(place.bind.clone()).await.unwrap();
        let options = DialOptions {
            outbox_messages: 0,
            outbox_bytes: 0,
            ..Default::default()
        };
        let tx: ChannelTx<Message> = dial_tx(addr, options, Postcard);
        for id in 0..3 {
            let outcome = soon("the outcome", tx.send(Message::new(id))).await;
            assert!(outcome.is_delivered(), "{kind:?}: {outcome:?}");
            assert_eq!(rx.recv().await.unwrap().id, id);
        }
    }
}

/// Places all but the message 3, of which it panics.
struct PanicsAtThree;

struct PanicsAtThreeSession(Inbound);

impl Accept<Message> for PanicsAtThree {
    type Session = PanicsAtThreeSession;
    type Completion = Ignore;
    fn open(
        &self,
        _peer: Peer,
        inbound: Inbound,
        _: Outbound<Message, Ignore>,
    ) -> PanicsAtThreeSession {
        PanicsAtThreeSession(inbound)
    }
}

impl Deliver<Message> for PanicsAtThreeSession {
    fn deliver(&mut self, message: Message, ticket: Ticket) {
        assert_ne!(message.id, 3, "a receiver that panics");
        self.0.settle(ticket, Verdict::Delivered);
        self.0.release(ticket);
    }
}

#[tokio::test]
async fn what_a_receiver_was_never_handed_because_it_panicked_comes_back() {
    let addr: ChannelAddr = "local:900002".parse().unwrap();
    let ledger = Ledger::default();
    let tx = dial_with(addr.clone(), DialOptions::default(), Postcard);
    // Nobody serves yet, so they are handed over together later.
    for id in 0..6 {
        tx.try_post(Message::new(id), ledger.line(id));
    }
    let options = ServeOptions::default();
    let _server = serve_with(addr, options, Postcard, PanicsAtThree)
        .await
        .unwrap();
    ledger.all_settled().await;
    let dropped = || Entry::Failed(Failure::NotDelivered(Reason::Dropped), true);
    let unknown = Entry::Failed(Failure::Unknown(Reason::Dropped), false);
    let entries: Vec<Entry> = (0..6).map(|id| ledger.of(id)).collect();
    let expected = [
        Entry::Delivered,
        Entry::Delivered,
        Entry::Delivered,
        unknown,
        dropped(),
        dropped(),
    ];
    assert_eq!(entries, expected);
}

/// Panics when it decodes the message 3.
#[derive(Clone, Copy)]
struct PanicsToDecodeThree;

impl Codec<Message> for PanicsToDecodeThree {
    type Name = NoName;

    fn encode(&self, message: &Message, out: &mut BytesMut) -> Result<(), EncodeError> {
        out.put_u64(message.id);
        Ok(())
    }

    fn decode(&self, bytes: Bytes, _: Names<'_, NoName>) -> Result<Message, DecodeError> {
        let id = bytes.first_chunk().map(|id| u64::from_be_bytes(*id));
        assert_ne!(id, Some(3), "a decoder that panics");
        Ok(Message::new(id.unwrap()))
    }
}

#[tokio::test]
async fn a_message_whose_decoder_panics_is_refused_alone_and_keeps_its_outcome() {
    for kind in [Kind::UnixPath, Kind::Tcp] {
        let place = kind.place();
        let options = ServeOptions::default();
        let mut rx = serve_queue(place.bind.clone(), options, PanicsToDecodeThree)
            .await
            .unwrap();
        let ledger = Ledger::default();
        let options = DialOptions::default();
        let tx = dial_with(rx.addr().clone(), options, PanicsToDecodeThree);
        for id in 0..6 {
            tx.try_post(Message::new(id), ledger.line(id));
        }
        for id in [0, 1, 2, 4, 5] {
            assert_eq!(soon("a message", rx.recv()).await.unwrap().id, id);
        }
        ledger.all_settled().await;
        // It cannot be rebuilt for its sender either.
        assert!(
            matches!(
                ledger.of(3),
                Entry::Failed(Failure::NotDelivered(Reason::Decode(_)), false)
            ),
            "{kind:?}: {:?}",
            ledger.of(3)
        );
    }
}

/// Overwrites what it was to append to.
struct Damages;

impl Codec<Message> for Damages {
    type Name = NoName;

    fn encode(&self, _message: &Message, out: &mut BytesMut) -> Result<(), EncodeError> {
        out.clear();
        Ok(())
    }

    fn decode(&self, _bytes: Bytes, _: Names<'_, NoName>) -> Result<Message, DecodeError> {
        Err(DecodeError::new("nothing was encoded"))
    }
}

#[tokio::test]
async fn a_channel_that_its_first_message_damages_has_ended_and_says_so() {
    let place = Kind::UnixPath.place();
    let addr = place.bind.addr().unwrap().clone();
    let tx: ChannelTx<Message> = dial_tx(addr, DialOptions::default(), Damages);
    let (_, reason) = tx.try_post(Message::new(1)).unwrap_err();
    assert!(matches!(reason, Reason::Encode(_)), "{reason}");
    let why = soon("the end", tx.closed()).await;
    assert!(matches!(why, Reason::Encode(_)), "{why}");
}
