//! The owner: adds up the partial counts of the words that hash to it.

use hyperactor::prelude::*;

use crate::demo::messages::{Event, NoMore, Open, OwnerParams, Partial, TellTally};
use crate::limits;
use crate::routes::{self, Lost};
use crate::words::{self, Counts};

/// Knows when it is complete: every reader says how many messages it sent, as its last one.
#[derive(Actor)]
#[actor(hooks, messages(Open, Partial, NoMore, TellTally))]
pub(crate) struct Owner {
    index: u32,
    host: PortRef<Event>,
    counts: Counts,
    readers: Vec<Incoming>,
    lost: Lost,
}

/// What came from one reader.
#[derive(Clone, Default)]
struct Incoming {
    received: u64,
    is_done: bool,
}

impl RemoteSpawn for Owner {
    type Params = OwnerParams;

    fn create(params: OwnerParams) -> Result<Self, ActorError> {
        Ok(Self {
            index: params.index,
            host: params.host,
            counts: Counts::new(),
            readers: vec![Incoming::default(); params.readers as usize],
            lost: Lost::default(),
        })
    }
}

impl Actor for Owner {
    async fn on_undeliverable(&mut self, cx: &Context<Self>, report: Undeliverable) -> ActorResult {
        if let Some(why) = self.lost.note(&report) {
            self.fail(cx, why).await;
        }
        Ok(())
    }
}

impl Handler<Open> for Owner {
    async fn handle(&mut self, cx: &Context<Self>, Open { reader }: Open) -> ActorResult {
        if self.readers.get(reader as usize).is_none() {
            self.fail(cx, format!("there is no reader {reader}")).await;
        }
        Ok(())
    }
}

impl Handler<Partial> for Owner {
    async fn handle(&mut self, cx: &Context<Self>, message: Partial) -> ActorResult {
        let Partial { reader, counts } = message;
        match self.readers.get_mut(reader as usize) {
            Some(incoming) if !incoming.is_done => incoming.received += 1,
            _ => {
                let why = format!("reader {reader} sent counts after its last message");
                self.fail(cx, why).await;
                return Ok(());
            }
        }
        for (word, times) in counts {
            words::add(&mut self.counts, &word, times);
        }
        Ok(())
    }
}

impl Handler<NoMore> for Owner {
    async fn handle(&mut self, cx: &Context<Self>, NoMore { reader, sent }: NoMore) -> ActorResult {
        let Some(incoming) = self.readers.get_mut(reader as usize) else {
            return Ok(());
        };
        incoming.is_done = true;
        let received = incoming.received;
        if received != sent {
            // Messages of one sender keep their order, so what has not come by now will not come.
            let why = format!("reader {reader} sent {sent} messages and {received} arrived");
            self.fail(cx, why).await;
        }
        if self.readers.iter().all(|reader| reader.is_done) {
            self.report(cx).await;
        }
        Ok(())
    }
}

impl Handler<TellTally> for Owner {
    async fn handle(&mut self, cx: &Context<Self>, message: TellTally) -> ActorResult {
        message
            .reply
            .post(cx, routes::tally(&cx.proc()?, &self.lost));
        Ok(())
    }
}

impl Owner {
    async fn report(&mut self, cx: &Context<Self>) {
        let owner = self.index;
        let mut all = std::mem::take(&mut self.counts)
            .into_iter()
            .map(|(word, n)| (word.into(), n));
        loop {
            let counts: Vec<_> = all.by_ref().take(limits::RESULTS_PER_MESSAGE).collect();
            if counts.is_empty() {
                break;
            }
            self.host.feed(cx, Event::Counted { owner, counts }).await;
        }
        let received = self.readers.iter().map(|reader| reader.received).collect();
        self.host
            .feed(cx, Event::OwnerDone { owner, received })
            .await;
    }

    async fn fail(&mut self, cx: &Context<Self>, why: String) {
        let who = format!("owner {}", self.index);
        self.host.feed(cx, Event::Failed { who, why }).await;
    }
}
