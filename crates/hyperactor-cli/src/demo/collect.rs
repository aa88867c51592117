//! The host's side of the job: takes the actors' events and knows when everything has come.
//! A state machine without actors or time; `job` drives it.

use crate::demo::messages::Event;
use crate::words::{self, Counts};

/// What has come so far.
#[derive(Debug)]
pub(crate) struct Collector {
    pub(crate) counts: Counts,
    /// Words that the readers saw, to be compared with the sum of `counts`.
    pub(crate) words: u64,
    pub(crate) bytes_read: u64,
    met: Vec<bool>,
    sent: Vec<Option<Vec<u64>>>,
    received: Vec<Option<Vec<u64>>>,
}

/// An event that cannot be: the job has failed. In words for people.
pub(crate) type Broken = String;

impl Collector {
    /// For as many readers as owners.
    pub(crate) fn new(procs: usize) -> Self {
        Self {
            counts: Counts::new(),
            words: 0,
            bytes_read: 0,
            met: vec![false; procs],
            sent: vec![None; procs],
            received: vec![None; procs],
        }
    }

    /// Takes one event.
    ///
    /// # Errors
    ///
    /// An actor's own failure, or an event from nobody or after its sender's last.
    pub(crate) fn take(&mut self, event: Event) -> Result<(), Broken> {
        match event {
            Event::Met { reader } => match self.met.get_mut(reader as usize) {
                Some(met) => *met = true,
                None => return Err(format!("there is no reader {reader}")),
            },
            Event::PartRead { bytes, words } => {
                self.bytes_read += bytes;
                self.words += words;
            }
            Event::ReaderDone { reader, sent } => note(&mut self.sent, reader, sent, "reader")?,
            Event::Counted { owner, counts } => self.counted(owner, counts)?,
            Event::OwnerDone { owner, received } => {
                note(&mut self.received, owner, received, "owner")?;
            }
            Event::Failed { who, why } => return Err(format!("{who}: {why}")),
        }
        Ok(())
    }

    fn counted(&mut self, owner: u32, counts: Vec<(String, u64)>) -> Result<(), Broken> {
        if !matches!(self.received.get(owner as usize), Some(None)) {
            return Err(format!("owner {owner} sent results after its last message"));
        }
        for (word, times) in counts {
            if self.counts.insert(word.as_str().into(), times).is_some() {
                return Err(format!("the word {word:?} was counted by two owners"));
            }
        }
        Ok(())
    }

    /// True when every reader reached every owner.
    pub(crate) fn is_connected(&self) -> bool {
        self.met.iter().all(|met| *met)
    }

    /// True when every reader and every owner said its last word.
    pub(crate) fn is_complete(&self) -> bool {
        self.sent.iter().all(Option::is_some) && self.received.iter().all(Option::is_some)
    }

    /// Where what was sent is not what was received, or the words do not add up, in words; empty when all is right.
    pub(crate) fn imbalances(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (from, sent) in self.sent.iter().enumerate() {
            for (to, received) in self.received.iter().enumerate() {
                let out = sent.as_ref().and_then(|sent| sent.get(to));
                let came = received.as_ref().and_then(|received| received.get(from));
                if out != came {
                    found.push(format!(
                        "reader {from} sent {} messages to owner {to}, which got {}",
                        out.copied().unwrap_or(0),
                        came.copied().unwrap_or(0)
                    ));
                }
            }
        }
        let counted: u64 = self.counts.values().sum();
        if counted != self.words {
            found.push(format!(
                "the readers saw {} words and the owners counted {counted}",
                self.words
            ));
        }
        found
    }

    /// Compares with a count that was made without actors; says on which word they differ first.
    pub(crate) fn difference(&self, alone: &Counts) -> Option<String> {
        words::first_difference(&self.counts, alone).map(|(word, ours, alone)| {
            format!("the word {word:?} was counted {ours} times, and {alone} times in one process")
        })
    }
}

fn note(
    table: &mut [Option<Vec<u64>>],
    index: u32,
    value: Vec<u64>,
    what: &str,
) -> Result<(), Broken> {
    match table.get_mut(index as usize) {
        Some(place @ None) => {
            *place = Some(value);
            Ok(())
        }
        Some(Some(_)) => Err(format!("{what} {index} ended twice")),
        None => Err(format!("there is no {what} {index}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(owner: u32, word: &str, times: u64) -> Event {
        Event::Counted {
            owner,
            counts: vec![(word.to_owned(), times)],
        }
    }

    fn taken(events: Vec<Event>) -> Collector {
        let mut collector = Collector::new(2);
        for event in events {
            collector.take(event).unwrap();
        }
        collector
    }

    fn whole_job() -> Vec<Event> {
        vec![
            Event::Met { reader: 0 },
            Event::Met { reader: 1 },
            Event::PartRead {
                bytes: 10,
                words: 3,
            },
            Event::ReaderDone {
                reader: 0,
                sent: vec![1, 2],
            },
            Event::ReaderDone {
                reader: 1,
                sent: vec![3, 4],
            },
            counted(0, "a", 2),
            Event::OwnerDone {
                owner: 0,
                received: vec![1, 3],
            },
            counted(1, "b", 1),
            Event::OwnerDone {
                owner: 1,
                received: vec![2, 4],
            },
        ]
    }

    #[test]
    fn a_job_is_complete_when_everybody_said_the_last_word() {
        let mut events = whole_job();
        let last = events.pop().unwrap();
        let mut collector = taken(events);
        assert!(collector.is_connected() && !collector.is_complete());
        collector.take(last).unwrap();
        assert!(collector.is_complete());
        assert_eq!(collector.imbalances(), [""; 0]);
        assert_eq!(collector.bytes_read, 10);
    }

    #[test]
    fn a_lost_message_and_a_lost_word_are_imbalances() {
        let mut events = whole_job();
        events[6] = Event::OwnerDone {
            owner: 0,
            received: vec![1, 2],
        };
        events[7] = counted(1, "b", 9);
        let found = taken(events).imbalances();
        assert_eq!(
            found,
            [
                "reader 1 sent 3 messages to owner 0, which got 2",
                "the readers saw 3 words and the owners counted 11"
            ]
        );
    }

    #[test]
    fn impossible_events_and_failures_break_the_job() {
        let done = || Event::OwnerDone {
            owner: 0,
            received: vec![0, 0],
        };
        let cases: Vec<(Vec<Event>, &str)> = vec![
            (vec![Event::Met { reader: 2 }], "there is no reader 2"),
            (vec![done(), done()], "owner 0 ended twice"),
            (vec![done(), counted(0, "a", 1)], "after its last message"),
            (
                vec![counted(0, "a", 1), counted(1, "a", 1)],
                "by two owners",
            ),
            (vec![counted(7, "a", 1)], "owner 7"),
            (
                vec![Event::Failed {
                    who: "reader 1".into(),
                    why: "disk".into(),
                }],
                "reader 1: disk",
            ),
        ];
        for (mut events, expected) in cases {
            let last = events.pop().unwrap();
            let text = taken(events).take(last).unwrap_err();
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn a_difference_names_the_word_and_both_counts() {
        let collector = taken(vec![counted(0, "a", 2)]);
        let mut alone = Counts::new();
        words::add(&mut alone, "a", 2);
        assert_eq!(collector.difference(&alone), None);
        words::add(&mut alone, "a", 1);
        let text = collector.difference(&alone).unwrap();
        assert!(
            text.contains("counted 2 times, and 3 times in one process"),
            "{text}"
        );
    }
}
