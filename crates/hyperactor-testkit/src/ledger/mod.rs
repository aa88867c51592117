//! A ledger of messages: what was posted, what its sender was told, what arrived. Its verdict says where
//! the three disagree.
//!
//! The ledger judges; it sends nothing. The wire form of a message and its evidence on disk are in
//! `stamped.rs` and `journal.rs`, the verdict in `verdict.rs`.

mod journal;
mod stamped;
mod verdict;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

pub use journal::Journal;
pub use stamped::{Key, Stamped};
pub use verdict::{Class, Verdict};

/// What a sender was told of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// It was placed in its destination.
    Delivered,
    /// It was not and never will be.
    NotDelivered,
    /// Nobody knows.
    Unknown,
}

/// Collects the three sides of every message. Cheap to clone; any thread may record.
///
/// # Bounds
///
/// Memory grows with the messages, by about 200 bytes each; bodies are not kept.
///
/// ```
/// use hyperactor_testkit::{Class, Ledger, Outcome};
///
/// let ledger = Ledger::new();
/// let kept = ledger.post(1, 1, b"kept".to_vec());
/// let lost = ledger.post(1, 1, b"lost".to_vec());
/// for message in [&kept, &lost] {
///     ledger.outcome(message.key(), Outcome::Delivered);
/// }
/// ledger.arrived(0, &kept);
///
/// let verdict = ledger.verdict();
/// assert_eq!(verdict.keys(Class::Lost), [lost.key()]);
/// assert!(!verdict.is_clean());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    books: Arc<Mutex<Books>>,
}

#[derive(Debug, Default)]
struct Books {
    /// The number that the next message of a stream gets.
    next: BTreeMap<(u32, u32), u64>,
    /// What is known of each message, posted or not.
    records: BTreeMap<Key, Record>,
    /// How many arrivals were recorded: the order between them.
    arrivals: u64,
}

/// What is known of one message.
#[derive(Clone, Debug, Default)]
struct Record {
    /// The checksum it was posted with; nothing if it never was.
    posted: Option<u64>,
    outcomes: Vec<Outcome>,
    arrivals: Vec<Arrival>,
}

#[derive(Clone, Copy, Debug)]
struct Arrival {
    /// The life of the receiver that took it.
    incarnation: u64,
    /// Its place among all arrivals.
    place: u64,
    /// Whether body and checksum agreed.
    intact: bool,
    checksum: u64,
}

impl Ledger {
    /// An empty ledger.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the next message of a stream and records it as posted.
    ///
    /// A stream is what promises order: the messages of one sender to one receiver.
    #[must_use = "a message that is posted and never sent stays unresolved"]
    pub fn post(&self, sender: u32, stream: u32, body: Vec<u8>) -> Stamped {
        let mut books = self.books.lock();
        let next = books.next.entry((sender, stream)).or_default();
        let number = *next;
        *next += 1;
        let message = Stamped::new(
            Key {
                sender,
                stream,
                number,
            },
            body,
        );
        books.records.entry(message.key()).or_default().posted = Some(message.checksum());
        message
    }

    /// Records what the sender was told.
    pub fn outcome(&self, key: Key, outcome: Outcome) {
        self.books
            .lock()
            .records
            .entry(key)
            .or_default()
            .outcomes
            .push(outcome);
    }

    /// Records that one life of the receiver took a message.
    pub fn arrived(&self, incarnation: u64, message: &Stamped) {
        self.arrival(
            incarnation,
            message.key(),
            message.checksum(),
            message.is_intact(),
        );
    }

    /// Records the arrivals that a receiver in another process wrote down.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, and when a complete line of it is none of a journal's.
    pub fn read_journal(&self, path: &Path) -> io::Result<usize> {
        let entries = journal::read(path)?;
        for entry in &entries {
            self.arrival(entry.incarnation, entry.key, entry.checksum, entry.intact);
        }
        Ok(entries.len())
    }

    /// How many messages were posted.
    #[must_use]
    pub fn posted(&self) -> usize {
        let books = self.books.lock();
        books
            .records
            .values()
            .filter(|record| record.posted.is_some())
            .count()
    }

    /// How many messages have an outcome.
    #[must_use]
    pub fn resolved(&self) -> usize {
        self.books
            .lock()
            .records
            .values()
            .filter(|record| !record.outcomes.is_empty())
            .count()
    }

    /// Compares the three sides of every message, as they stand now.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        Verdict::of(&self.books.lock().records)
    }

    fn arrival(&self, incarnation: u64, key: Key, checksum: u64, intact: bool) {
        let mut books = self.books.lock();
        let place = books.arrivals;
        books.arrivals += 1;
        let arrival = Arrival {
            incarnation,
            place,
            intact,
            checksum,
        };
        books.records.entry(key).or_default().arrivals.push(arrival);
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::Delivered => "delivered",
            Self::NotDelivered => "not delivered",
            Self::Unknown => "unknown",
        })
    }
}
