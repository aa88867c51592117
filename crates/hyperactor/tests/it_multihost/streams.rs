//! Steady streams between the machines, every message of which is accounted for.

use std::time::{Duration, Instant};

use hyperactor::prelude::*;
use hyperactor_testkit::{Class, Key, Ledger, Outcome, Verdict};

use crate::actors::{
    Begin, DELIVERED, Finish, Given, Giver, Item, NOT_DELIVERED, Open, ReadGiven, ReadTaken, Taker,
    TakerParams, UNKNOWN, body,
};
use crate::lab::{Lab, PATIENCE, soon};

/// A stream from a proc to another one.
pub(crate) struct Stream {
    sender: u32,
    giver: ActorRef<Giver>,
    pub(crate) taker: ActorRef<Taker>,
    port: PortRef<Item>,
    journal: std::path::PathBuf,
}

impl Stream {
    /// Makes its two ends; nothing is sent yet. Each stream of a laboratory has another sender.
    pub(crate) async fn new(lab: &Lab, sender: u32, from: &ProcId, to: &ProcId) -> Self {
        let giver = lab
            .spawn::<Giver>(from, &format!("giver-{sender}"), ())
            .await;
        let journal = lab.folder().join(format!("journal-{sender}"));
        let params = TakerParams {
            journal: journal.to_str().unwrap().to_owned(),
            life: 1,
        };
        let taker = lab
            .spawn::<Taker>(to, &format!("taker-{sender}"), params)
            .await;
        let port = soon(taker.ask(&lab.client, Open)).await.unwrap();
        Self {
            sender,
            giver,
            taker,
            port,
            journal,
        }
    }

    /// Begins to send, one message each `every`.
    pub(crate) async fn begin(&self, lab: &Lab, every: Duration, at_most: u64) {
        let begun = self.giver.ask(&lab.client, |reply| Begin {
            to: self.port.clone(),
            sender: self.sender,
            stream: 1,
            every,
            at_most,
            reply,
        });
        soon(begun).await.unwrap();
    }

    /// How many messages were posted, and how many have their outcome.
    pub(crate) async fn given(&self, lab: &Lab) -> (u64, u64) {
        let asked = self
            .giver
            .ask(&lab.client, |reply| ReadGiven(self.sender, reply));
        soon(asked).await.unwrap()
    }

    /// One past the number of the last message that arrived.
    pub(crate) async fn taken(&self, lab: &Lab) -> u64 {
        let taken = soon(self.taker.ask(&lab.client, ReadTaken)).await.unwrap();
        taken
            .into_iter()
            .find(|(sender, _)| *sender == self.sender)
            .map_or(0, |(_, next)| next)
    }

    /// Waits until message `number` has arrived, and says how long that took.
    pub(crate) async fn arrives(&self, lab: &Lab, number: u64) -> Duration {
        let start = Instant::now();
        while self.taken(lab).await <= number {
            assert!(
                start.elapsed() < PATIENCE,
                "message {number} of sender {} did not arrive in {PATIENCE:?}",
                self.sender
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        start.elapsed()
    }

    /// Waits until a message arrives that is posted from now on, and says how long that took.
    pub(crate) async fn flows(&self, lab: &Lab) -> Duration {
        let (posted, _) = self.given(lab).await;
        self.arrives(lab, posted).await
    }

    /// Ends the stream, waits for every outcome and compares what was posted, told and taken.
    pub(crate) async fn end(self, lab: &Lab) -> (Verdict, Given) {
        let finished = self
            .giver
            .ask_within(&lab.client, PATIENCE + PATIENCE, |reply| {
                Finish(self.sender, reply)
            });
        let given = finished.await.unwrap();
        let ledger = Ledger::new();
        for (number, outcomes) in given.outcomes.iter().enumerate() {
            let key: Key = ledger.post(self.sender, 1, body(number as u64)).key();
            for outcome in outcomes {
                let outcome = match *outcome {
                    DELIVERED => Outcome::Delivered,
                    NOT_DELIVERED => Outcome::NotDelivered,
                    UNKNOWN => Outcome::Unknown,
                    other => panic!("outcome {other}"),
                };
                ledger.outcome(key, outcome);
            }
        }
        ledger.read_journal(&self.journal).unwrap();
        let verdict = ledger.verdict();
        let counts: Vec<_> = Class::ALL
            .into_iter()
            .filter(|class| verdict.count(*class) > 0)
            .map(|class| format!("{} {}", verdict.count(class), class.name()))
            .collect();
        lab.say(format_args!(
            "sender {}: {}",
            self.sender,
            counts.join(", ")
        ));
        (verdict, given)
    }
}

/// Sends one message to an actor that is not in a proc, from another proc, and returns what its sender was told.
pub(crate) async fn bounce(lab: &Lab, sender: u32, from: &ProcId, to: &ProcId) -> String {
    let giver = lab
        .spawn::<Giver>(from, &format!("giver-{sender}"), ())
        .await;
    let port = PortId::new(ActorId::root(to.clone(), "no-such-actor"), 1);
    let begun = giver.ask(&lab.client, |reply| Begin {
        to: PortRef::attest(port),
        sender,
        stream: 1,
        every: Duration::ZERO,
        at_most: 1,
        reply,
    });
    soon(begun).await.unwrap();
    while soon(giver.ask(&lab.client, |reply| ReadGiven(sender, reply)))
        .await
        .unwrap()
        == (0, 0)
    {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let given = soon(giver.ask(&lab.client, |reply| Finish(sender, reply)))
        .await
        .unwrap();
    assert_eq!(given.outcomes, [[NOT_DELIVERED]], "{given:?}");
    given.failures[0].clone()
}
