//! What the demo's actors and the host say to each other. Every type here crosses processes.

use hyperactor::prelude::*;
use serde::{Deserialize, Serialize};

use crate::demo::owner::Owner;
use crate::parts::Part;
use crate::routes::Tally;

/// What a reader is made from.
#[derive(Debug, Serialize, Deserialize, Message)]
pub(crate) struct ReaderParams {
    pub(crate) index: u32,
    pub(crate) host: PortRef<Event>,
}

/// What an owner is made from.
#[derive(Debug, Serialize, Deserialize, Message)]
pub(crate) struct OwnerParams {
    pub(crate) index: u32,
    pub(crate) readers: u32,
    pub(crate) host: PortRef<Event>,
}

/// To a reader: these own the words, by the number that a word's hash gives.
#[derive(Debug, Serialize, Deserialize, Message)]
pub(crate) struct Meet {
    pub(crate) owners: Vec<ActorRef<Owner>>,
}

/// To a reader: count these.
#[derive(Debug, Serialize, Deserialize, Message)]
pub(crate) struct Read {
    pub(crate) parts: Vec<Part>,
}

/// To a reader: there are no more parts.
#[derive(Debug, Serialize, Deserialize, Message)]
pub(crate) struct Finish;

/// To an owner, the first word of a reader: opens the way between their processes before the work begins.
#[derive(Debug, Serialize, Deserialize, Message)]
pub(crate) struct Open {
    pub(crate) reader: u32,
}

/// To an owner: partial counts of words that it owns.
#[derive(Debug, Serialize, Deserialize, Message)]
pub(crate) struct Partial {
    pub(crate) reader: u32,
    pub(crate) counts: Vec<(String, u64)>,
}

/// To an owner, the last word of a reader: how many `Partial`s came before it.
#[derive(Debug, Serialize, Deserialize, Message)]
pub(crate) struct NoMore {
    pub(crate) reader: u32,
    pub(crate) sent: u64,
}

/// To both kinds: what did you lose, and, for the first one asked in a process, which routes were taken?
#[derive(Debug, Serialize, Deserialize, Message)]
pub(crate) struct TellTally {
    pub(crate) reply: OncePortRef<Tally>,
}

/// To the host.
#[derive(Debug, Serialize, Deserialize, Message)]
pub(crate) enum Event {
    /// The reader's first word reached every owner.
    Met { reader: u32 },
    /// A part was read and sent off.
    PartRead { bytes: u64, words: u64 },
    /// The reader is through; `sent` messages went to each owner.
    ReaderDone { reader: u32, sent: Vec<u64> },
    /// Final counts of words of one owner.
    Counted {
        owner: u32,
        counts: Vec<(String, u64)>,
    },
    /// All counts of this owner are sent. `received` messages came from each reader.
    OwnerDone { owner: u32, received: Vec<u64> },
    /// An actor cannot go on, and why.
    Failed { who: String, why: String },
}
