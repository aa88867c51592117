//! The reader: splits text into words and sends each word's partial counts to the word's owner.

use std::collections::HashMap;

use hyperactor::prelude::*;

use crate::demo::messages::{
    Event, Finish, Meet, NoMore, Open, Partial, Read, ReaderParams, TellTally,
};
use crate::demo::owner::Owner;
use crate::parts::Part;
use crate::routes::{self, Lost};
use crate::{limits, words};

/// Reads the parts it is given, one after the other.
///
/// Holds at most one part of text and one batch an owner. `feed` waits when the way to an owner is full, so a slow
/// owner slows its readers down and nothing grows.
#[derive(Actor)]
#[actor(hooks, messages(Meet, Read, Finish, TellTally))]
pub(crate) struct Reader {
    index: u32,
    host: PortRef<Event>,
    outgoing: Vec<Outgoing>,
    lost: Lost,
}

/// What waits for one owner, and what it was sent.
struct Outgoing {
    owner: ActorRef<Owner>,
    counts: HashMap<String, u64>,
    occurrences: usize,
    sent: u64,
}

impl RemoteSpawn for Reader {
    type Params = ReaderParams;

    fn create(params: ReaderParams) -> Result<Self, ActorError> {
        Ok(Self {
            index: params.index,
            host: params.host,
            outgoing: Vec::new(),
            lost: Lost::default(),
        })
    }
}

impl Actor for Reader {
    async fn on_undeliverable(&mut self, cx: &Context<Self>, report: Undeliverable) -> ActorResult {
        // The job cannot succeed any more: say so at once, and once.
        if let Some(why) = self.lost.note(&report) {
            let who = self.name();
            self.host.feed(cx, Event::Failed { who, why }).await;
        }
        Ok(())
    }
}

impl Handler<Meet> for Reader {
    async fn handle(&mut self, cx: &Context<Self>, Meet { owners }: Meet) -> ActorResult {
        let reader = self.index;
        for owner in owners {
            let outcome = owner.send(cx, Open { reader }).await;
            if !outcome.is_delivered() {
                let who = self.name();
                let why = format!("its first message to {owner} was not delivered: {outcome}");
                self.host.feed(cx, Event::Failed { who, why }).await;
            }
            self.outgoing.push(Outgoing {
                owner,
                counts: HashMap::new(),
                occurrences: 0,
                sent: 0,
            });
        }
        self.host.feed(cx, Event::Met { reader }).await;
        Ok(())
    }
}

impl Handler<Read> for Reader {
    async fn handle(&mut self, cx: &Context<Self>, Read { parts }: Read) -> ActorResult {
        for part in parts {
            let bytes = part.bytes();
            match self.read(cx, part).await {
                Ok(words) => self.host.feed(cx, Event::PartRead { bytes, words }).await,
                Err(error) => {
                    let (who, why) = (self.name(), format!("{error:#}"));
                    self.host.feed(cx, Event::Failed { who, why }).await;
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

impl Handler<Finish> for Reader {
    async fn handle(&mut self, cx: &Context<Self>, Finish: Finish) -> ActorResult {
        let reader = self.index;
        for outgoing in &mut self.outgoing {
            outgoing.flush(cx, reader).await;
            let sent = outgoing.sent;
            outgoing.owner.feed(cx, NoMore { reader, sent }).await;
        }
        let sent = self.outgoing.iter().map(|outgoing| outgoing.sent).collect();
        self.host.feed(cx, Event::ReaderDone { reader, sent }).await;
        Ok(())
    }
}

impl Handler<TellTally> for Reader {
    async fn handle(&mut self, cx: &Context<Self>, message: TellTally) -> ActorResult {
        message
            .reply
            .post(cx, routes::tally(&cx.proc()?, &self.lost));
        Ok(())
    }
}

impl Reader {
    fn name(&self) -> String {
        format!("reader {}", self.index)
    }

    /// Returns how many words the part has.
    async fn read(&mut self, cx: &Context<Self>, part: Part) -> anyhow::Result<u64> {
        // Disks block; the other actors of this process go on meanwhile.
        let text = tokio::task::spawn_blocking(move || part.read()).await??;
        let mut words = 0;
        let mut rest = text.as_slice();
        while !rest.is_empty() {
            let (stretch, behind) = split_stretch(rest);
            rest = behind;
            words += self.gather(stretch);
            for outgoing in &mut self.outgoing {
                if outgoing.occurrences >= limits::BATCH_WORDS {
                    outgoing.flush(cx, self.index).await;
                }
            }
        }
        Ok(words)
    }

    fn gather(&mut self, text: &[u8]) -> u64 {
        let mut words = 0;
        let owners = self.outgoing.len();
        words::for_each_word(text, |word| {
            words += 1;
            if let Some(outgoing) = self.outgoing.get_mut(words::owner_of(word, owners)) {
                outgoing.add(word);
            }
        });
        words
    }
}

impl Outgoing {
    fn add(&mut self, word: &str) {
        self.occurrences += 1;
        match self.counts.get_mut(word) {
            Some(seen) => *seen += 1,
            None => {
                self.counts.insert(word.to_owned(), 1);
            }
        }
    }

    async fn flush(&mut self, cx: &Context<Reader>, reader: u32) {
        if self.counts.is_empty() {
            return;
        }
        self.occurrences = 0;
        self.sent += 1;
        let counts = self.counts.drain().collect();
        self.owner.feed(cx, Partial { reader, counts }).await;
    }
}

/// A stretch of text that ends between words and is short enough for a batch not to grow far over its size.
fn split_stretch(text: &[u8]) -> (&[u8], &[u8]) {
    const STRETCH_BYTES: usize = 1024;
    let end = text
        .iter()
        .enumerate()
        .skip(STRETCH_BYTES)
        .find(|(_, byte)| words::is_gap(**byte))
        .map_or(text.len(), |(index, _)| index);
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_end_between_words_and_lose_nothing() {
        let text = "abc def_ghi ".repeat(1000);
        let mut rest = text.as_bytes();
        let mut words = Vec::new();
        let mut stretches = 0;
        while !rest.is_empty() {
            let (stretch, behind) = split_stretch(rest);
            words::for_each_word(stretch, |word| words.push(word.to_owned()));
            rest = behind;
            stretches += 1;
        }
        assert!(stretches > 5);
        assert_eq!(words.len(), 3000);
        assert!(words.iter().all(|word| word.len() == 3));
    }
}
