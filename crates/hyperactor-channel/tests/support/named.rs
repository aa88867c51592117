//! Messages that name a destination and a sender, and a receiver with a queue for each destination.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use hyperactor_channel::{
    Accept, Codec, Completion, DecodeError, Deliver, EncodeError, Failure, Ignore, Inbound, Names,
    Outbound, Peer, Refusal, Ticket, Verdict,
};
use parking_lot::Mutex;
use tokio::sync::mpsc;

/// A message from one place to another. Its places are not in its bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Letter {
    pub to: String,
    pub from: String,
    pub id: u64,
    pub body: Bytes,
}

impl Letter {
    pub fn new(to: &(impl ToString + ?Sized), id: u64) -> Self {
        Self::sized(to, id, 0)
    }

    pub fn sized(to: &(impl ToString + ?Sized), id: u64, bytes: usize) -> Self {
        let body: Vec<u8> = (0..bytes).map(|at| (at as u64 ^ id) as u8).collect();
        Self {
            to: to.to_string(),
            from: "me".to_owned(),
            id,
            body: body.into(),
        }
    }
}

/// Above this size a letter is the same byte all over: quicker to compare.
pub const PATTERN_MAX: usize = 16 << 20;

impl Letter {
    /// Of one size, quickly made.
    pub fn large(to: &(impl ToString + ?Sized), id: u64, bytes: usize) -> Self {
        assert!(bytes > PATTERN_MAX);
        Self {
            body: vec![7; bytes].into(),
            ..Self::new(to, id)
        }
    }

    fn is_whole(&self) -> bool {
        if self.body.len() <= PATTERN_MAX {
            return *self == Self::sized(&self.to, self.id, self.body.len());
        }
        let expected = vec![7; 1 << 20];
        self.body
            .chunks(expected.len())
            .all(|chunk| *chunk == expected[..chunk.len()])
    }
}

impl std::fmt::Debug for Letter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Letter({} to {}, {} bytes)",
            self.id,
            self.to,
            self.body.len()
        )
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Post;

/// A place whose name does not decode.
pub const NOWHERE: &str = "nowhere";

impl Codec<Letter> for Post {
    type Name = String;

    fn names<'m>(&self, letter: &'m Letter) -> Names<'m, String> {
        Names {
            to: Some(&letter.to),
            from: Some(&letter.from),
        }
    }

    fn encode_name(&self, name: &String, out: &mut BytesMut) -> Result<(), EncodeError> {
        out.extend_from_slice(name.as_bytes());
        Ok(())
    }

    fn decode_name(&self, bytes: Bytes) -> Result<String, DecodeError> {
        match std::str::from_utf8(&bytes) {
            Ok(NOWHERE) | Err(_) => Err(DecodeError::new("no such place")),
            Ok(name) => Ok(name.to_owned()),
        }
    }

    fn encode(&self, letter: &Letter, out: &mut BytesMut) -> Result<(), EncodeError> {
        out.put_u64_le(letter.id);
        Ok(())
    }

    fn shared_tail(&self, letter: &Letter) -> Bytes {
        letter.body.clone()
    }

    fn decode(&self, mut bytes: Bytes, names: Names<'_, String>) -> Result<Letter, DecodeError> {
        let (Some(to), Some(from)) = (names.to, names.from) else {
            return Err(DecodeError::new("a letter without its places"));
        };
        if bytes.len() < 8 {
            return Err(DecodeError::new("too short"));
        }
        let body = bytes.split_off(8);
        let id = u64::from_le_bytes(bytes[..].try_into().unwrap());
        Ok(Letter {
            to: to.clone(),
            from: from.clone(),
            id,
            body,
        })
    }
}

/// Places every letter at once, and takes those of some destinations never.
#[derive(Clone, Default)]
pub struct Office(Arc<Mutex<Desk>>);

#[derive(Default)]
pub struct Desk {
    /// Destinations that take nothing.
    pub stuck: BTreeSet<String>,
    /// Destinations whose letters are refused.
    pub refused: BTreeSet<String>,
    /// What has come, in its order: destination, number, size, and whether it is whole.
    pub came: Vec<(String, u64, usize, bool)>,
    pub held: BTreeMap<String, Vec<(Ticket, Inbound)>>,
}

impl Office {
    pub fn with<T>(&self, look: impl FnOnce(&mut Desk) -> T) -> T {
        look(&mut self.0.lock())
    }

    pub fn stick(&self, to: &str) {
        self.with(|desk| desk.stuck.insert(to.to_owned()));
    }

    pub fn count(&self, to: &str) -> usize {
        self.with(|desk| desk.came.iter().filter(|came| came.0 == to).count())
    }

    /// The destination takes everything from now on.
    pub fn unstick(&self, to: &str) {
        let held = self.with(|desk| {
            desk.stuck.remove(to);
            desk.held.remove(to)
        });
        for (ticket, inbound) in held.into_iter().flatten() {
            inbound.release(ticket);
        }
    }

    /// Each destination's letters came in the order of their numbers, each whole, none twice.
    pub fn check_order(&self) {
        let mut last = BTreeMap::new();
        self.with(|desk| {
            for (to, id, _, is_whole) in &desk.came {
                assert!(*is_whole, "{id} to {to} is broken");
                let before = last.insert(to.clone(), *id);
                assert!(before < Some(*id), "{to} got {id} after {before:?}");
            }
        });
    }

    pub fn session(&self, inbound: Inbound) -> OfficeSession {
        OfficeSession(self.clone(), inbound)
    }
}

impl Accept<Letter> for Office {
    type Session = OfficeSession;
    type Completion = Ignore;

    fn open(&self, _: Peer, inbound: Inbound, _: Outbound<Letter, Ignore>) -> OfficeSession {
        self.session(inbound)
    }
}

pub struct OfficeSession(Office, Inbound);

impl Deliver<Letter> for OfficeSession {
    fn deliver(&mut self, letter: Letter, ticket: Ticket) {
        let is_whole = letter.is_whole();
        let (is_stuck, is_refused) = self.0.with(|desk| {
            let size = letter.body.len();
            desk.came
                .push((letter.to.clone(), letter.id, size, is_whole));
            (
                desk.stuck.contains(&letter.to),
                desk.refused.contains(&letter.to),
            )
        });
        if is_refused {
            let verdict = Verdict::NotDelivered(Refusal::new(9));
            return self.1.refuse(ticket, verdict, letter);
        }
        self.1.settle(ticket, Verdict::Delivered);
        if is_stuck {
            let held = (ticket, self.1.clone());
            self.0
                .with(|desk| desk.held.entry(letter.to).or_default().push(held));
        } else {
            self.1.release(ticket);
        }
    }
}

/// Tells every outcome, with the letter where it came back.
pub struct Told(
    pub mpsc::UnboundedSender<(u64, Option<Failure>, Option<Letter>)>,
    pub u64,
);

impl Completion<Letter> for Told {
    fn delivered(self) {
        drop(self.0.send((self.1, None, None)));
    }

    fn undelivered(self, letter: Letter, failure: Failure) {
        drop(self.0.send((self.1, Some(failure), Some(letter))));
    }

    fn lost(self, failure: Failure) {
        drop(self.0.send((self.1, Some(failure), None)));
    }

    fn wants_outcome(&self) -> bool {
        true
    }
}
