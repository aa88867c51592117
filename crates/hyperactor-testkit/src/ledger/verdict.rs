//! The verdict: each message in the classes that it belongs to, and which classes are faults.

use std::collections::BTreeMap;
use std::fmt;

use super::stamped::Key;
use super::{Outcome, Record};
use crate::limits::VERDICT_SAMPLES;

/// Where posts, outcomes and arrivals meet or disagree. One message can be in several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Reported delivered, and arrived.
    Delivered,
    /// Reported not delivered, and did not arrive.
    Returned,
    /// Reported unknown, and did not arrive.
    Unknown,
    /// Reported unknown, and arrived.
    Recovered,
    /// Fault: reported delivered, and did not arrive.
    Lost,
    /// Fault: arrived more than once, in one life of the receiver or in two.
    Duplicated,
    /// Fault: arrived after a later message of its stream, in the same life of the receiver.
    Reordered,
    /// Fault: arrived, and was never posted.
    Unexpected,
    /// Fault: arrived with other contents than it was posted with.
    Corrupt,
    /// Fault: posted, and its sender was told nothing.
    Unresolved,
    /// Fault: its sender was told more than once.
    ResolvedTwice,
    /// Fault: reported not delivered, and arrived.
    FalseUndeliverable,
}

impl Class {
    /// Every class, the harmless ones first.
    pub const ALL: [Self; 12] = [
        Self::Delivered,
        Self::Returned,
        Self::Unknown,
        Self::Recovered,
        Self::Lost,
        Self::Duplicated,
        Self::Reordered,
        Self::Unexpected,
        Self::Corrupt,
        Self::Unresolved,
        Self::ResolvedTwice,
        Self::FalseUndeliverable,
    ];

    /// Whether a message in this class breaks a promise.
    #[must_use]
    pub fn is_fault(self) -> bool {
        !matches!(
            self,
            Self::Delivered | Self::Returned | Self::Unknown | Self::Recovered
        )
    }

    /// The class in words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Returned => "returned",
            Self::Unknown => "unknown",
            Self::Recovered => "recovered",
            Self::Lost => "lost",
            Self::Duplicated => "duplicated",
            Self::Reordered => "reordered",
            Self::Unexpected => "unexpected",
            Self::Corrupt => "corrupt",
            Self::Unresolved => "unresolved",
            Self::ResolvedTwice => "resolved-twice",
            Self::FalseUndeliverable => "false-undeliverable",
        }
    }
}

/// The messages of every class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    classes: BTreeMap<Class, Vec<Key>>,
}

impl Verdict {
    pub(super) fn of(records: &BTreeMap<Key, Record>) -> Self {
        let mut verdict = Self::default();
        for (key, record) in records {
            for class in classes(record) {
                verdict.classes.entry(class).or_default().push(*key);
            }
        }
        let reordered = reordered(records);
        if !reordered.is_empty() {
            verdict.classes.insert(Class::Reordered, reordered);
        }
        verdict
    }

    /// The messages of one class, in order.
    #[must_use]
    pub fn keys(&self, class: Class) -> &[Key] {
        self.classes.get(&class).map_or(&[], Vec::as_slice)
    }

    /// How many messages are in one class.
    #[must_use]
    pub fn count(&self, class: Class) -> usize {
        self.keys(class).len()
    }

    /// Whether no message is in a class that is a fault.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.classes.keys().all(|class| !class.is_fault())
    }

    /// Makes sure that no message is in a class that is a fault.
    ///
    /// # Panics
    ///
    /// When one is; the message names the first of each class.
    #[track_caller]
    pub fn assert_clean(&self) {
        assert!(
            self.is_clean(),
            "messages were not treated as promised\n{self}"
        );
    }
}

impl fmt::Display for Verdict {
    /// One line a class that is not empty; of faults the first messages are named.
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (class, keys) in &self.classes {
            write!(to, "{:<20}{:>8}", class.name(), keys.len())?;
            if class.is_fault() {
                for key in keys.iter().take(VERDICT_SAMPLES) {
                    write!(to, " {key}")?;
                }
                if keys.len() > VERDICT_SAMPLES {
                    to.write_str(" …")?;
                }
            }
            to.write_str("\n")?;
        }
        Ok(())
    }
}

/// The classes of one message by itself; order is a matter of several.
fn classes(record: &Record) -> Vec<Class> {
    let mut classes = Vec::new();
    let arrived = !record.arrivals.is_empty();
    match record.posted {
        None => {
            if arrived {
                classes.push(Class::Unexpected);
            }
        }
        Some(_) if record.outcomes.is_empty() => classes.push(Class::Unresolved),
        Some(_) => {}
    }
    if record.outcomes.len() > 1 {
        classes.push(Class::ResolvedTwice);
    }
    match record.outcomes.last() {
        Some(Outcome::Delivered) => {
            classes.push(if arrived {
                Class::Delivered
            } else {
                Class::Lost
            });
        }
        Some(Outcome::NotDelivered) => {
            classes.push(if arrived {
                Class::FalseUndeliverable
            } else {
                Class::Returned
            });
        }
        Some(Outcome::Unknown) => {
            classes.push(if arrived {
                Class::Recovered
            } else {
                Class::Unknown
            });
        }
        None => {}
    }
    if record.arrivals.len() > 1 {
        classes.push(Class::Duplicated);
    }
    let altered = |checksum| record.posted.is_some_and(|posted| posted != checksum);
    if record
        .arrivals
        .iter()
        .any(|arrival| !arrival.intact || altered(arrival.checksum))
    {
        classes.push(Class::Corrupt);
    }
    classes
}

/// The messages that arrived after a later one of their stream. Only first arrivals count: a second one
/// is a duplicate, whenever it comes.
fn reordered(records: &BTreeMap<Key, Record>) -> Vec<Key> {
    /// Sender, stream and the receiver's incarnation: within these, order is promised.
    type Lane = (u32, u32, u64);
    let mut lanes: BTreeMap<Lane, Vec<(u64, Key)>> = BTreeMap::new();
    for (key, record) in records {
        if let Some(first) = record.arrivals.first() {
            let lane = (key.sender, key.stream, first.incarnation);
            lanes.entry(lane).or_default().push((first.place, *key));
        }
    }
    let mut late = Vec::new();
    for arrivals in lanes.values_mut() {
        arrivals.sort_unstable();
        let mut highest = None;
        for (_, key) in arrivals {
            if highest.is_some_and(|highest| key.number < highest) {
                late.push(*key);
            }
            highest = highest.max(Some(key.number));
        }
    }
    late.sort_unstable();
    late
}

#[cfg(test)]
mod tests {
    use super::super::{Key, Ledger, Outcome, Stamped};
    use super::*;

    /// Posts `count` messages of one stream.
    fn posted(count: u64) -> (Ledger, Vec<Stamped>) {
        let ledger = Ledger::new();
        let messages = (0..count).map(|_| ledger.post(1, 1, vec![9])).collect();
        (ledger, messages)
    }

    #[track_caller]
    fn check(ledger: &Ledger, expected: &[(Class, usize)]) {
        let verdict = ledger.verdict();
        for class in Class::ALL {
            let wanted = expected
                .iter()
                .find(|(which, _)| *which == class)
                .map_or(0, |pair| pair.1);
            assert_eq!(verdict.count(class), wanted, "{}\n{verdict}", class.name());
        }
        assert_eq!(
            verdict.is_clean(),
            !expected.iter().any(|(class, _)| class.is_fault())
        );
    }

    #[test]
    fn what_is_reported_and_what_arrives_give_the_class() {
        use Outcome::{Delivered, NotDelivered, Unknown};
        for (outcome, arrives, class) in [
            (Some(Delivered), true, Class::Delivered),
            (Some(Delivered), false, Class::Lost),
            (Some(NotDelivered), true, Class::FalseUndeliverable),
            (Some(NotDelivered), false, Class::Returned),
            (Some(Unknown), true, Class::Recovered),
            (Some(Unknown), false, Class::Unknown),
            (None, true, Class::Unresolved),
            (None, false, Class::Unresolved),
        ] {
            let (ledger, messages) = posted(1);
            if let Some(outcome) = outcome {
                ledger.outcome(messages[0].key(), outcome);
            }
            if arrives {
                ledger.arrived(0, &messages[0]);
            }
            check(&ledger, &[(class, 1)]);
        }
    }

    #[test]
    fn a_second_arrival_is_a_duplicate_in_any_life() {
        for second_life in [0, 1] {
            let (ledger, messages) = posted(1);
            ledger.outcome(messages[0].key(), Outcome::Delivered);
            ledger.arrived(0, &messages[0]);
            ledger.arrived(second_life, &messages[0]);
            check(&ledger, &[(Class::Delivered, 1), (Class::Duplicated, 1)]);
        }
    }

    #[test]
    fn order_is_judged_within_a_stream_and_a_life() {
        let (ledger, messages) = posted(4);
        for index in [0, 2, 1, 3] {
            ledger.outcome(messages[index].key(), Outcome::Delivered);
            ledger.arrived(0, &messages[index]);
        }
        check(&ledger, &[(Class::Delivered, 4), (Class::Reordered, 1)]);
        assert_eq!(ledger.verdict().keys(Class::Reordered), [messages[1].key()]);

        // The same numbers in two lives, or in two streams, are not out of order.
        let ledger = Ledger::new();
        let first = ledger.post(1, 1, vec![]);
        let second = ledger.post(1, 1, vec![]);
        let other = ledger.post(1, 2, vec![]);
        for (incarnation, message) in [(0, &second), (1, &first), (0, &other)] {
            ledger.outcome(message.key(), Outcome::Delivered);
            ledger.arrived(incarnation, message);
        }
        check(&ledger, &[(Class::Delivered, 3)]);
    }

    #[test]
    fn a_message_that_nobody_posted_is_unexpected() {
        let ledger = Ledger::new();
        ledger.arrived(
            0,
            &Stamped::new(
                Key {
                    sender: 1,
                    stream: 1,
                    number: 5,
                },
                vec![],
            ),
        );
        check(&ledger, &[(Class::Unexpected, 1)]);
    }

    #[test]
    fn other_contents_are_corrupt_even_with_a_fitting_checksum() {
        let (ledger, messages) = posted(1);
        ledger.outcome(messages[0].key(), Outcome::Delivered);
        ledger.arrived(0, &Stamped::new(messages[0].key(), vec![1, 2]));
        check(&ledger, &[(Class::Delivered, 1), (Class::Corrupt, 1)]);
    }

    #[test]
    fn a_second_outcome_is_a_fault() {
        let (ledger, messages) = posted(1);
        ledger.outcome(messages[0].key(), Outcome::Unknown);
        ledger.outcome(messages[0].key(), Outcome::NotDelivered);
        check(&ledger, &[(Class::Returned, 1), (Class::ResolvedTwice, 1)]);
    }

    #[test]
    fn a_fault_is_printed_with_the_first_of_its_messages() {
        let (ledger, messages) = posted(VERDICT_SAMPLES as u64 + 1);
        for message in &messages {
            ledger.outcome(message.key(), Outcome::Delivered);
        }
        let text = ledger.verdict().to_string();
        assert!(
            text.starts_with("lost ") && text.contains(" 1/1#0 1/1#1 "),
            "{text}"
        );
        assert!(text.ends_with("1/1#7 …\n"), "{text}");
        assert_eq!((ledger.posted(), ledger.resolved()), (9, 9));
    }

    #[test]
    #[should_panic(expected = "unresolved")]
    fn a_fault_fails_the_test() {
        let (ledger, _messages) = posted(1);
        ledger.verdict().assert_clean();
    }

    #[test]
    fn arrivals_of_another_process_count() {
        let folder = crate::TempSocketDir::new().unwrap();
        let path = folder.path().join("journal");
        let (ledger, messages) = posted(2);
        let journal = crate::Journal::open(&path, 3).unwrap();
        for message in &messages {
            ledger.outcome(message.key(), Outcome::Delivered);
            journal.arrived(message).unwrap();
        }
        assert_eq!(ledger.read_journal(&path).unwrap(), 2);
        check(&ledger, &[(Class::Delivered, 2)]);
    }
}
