//! Messages that come in parts: put together in memory that grows with what has come, or was there before, within a room
//! of their own.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes, BytesMut};

use crate::frame::DataFlags;
use crate::landing::{PartHead, Supply};
use crate::limits::{ASSEMBLIES_MAX, CREDIT_FRACTION, READ_STEP_BYTES};
use crate::shares::Telling;
use crate::{Label, Seq, Violation};

/// A message of which parts have come.
#[derive(Debug)]
struct Assembly {
    declared: u64,
    got: u64,
    /// Nothing is kept: the whole is refused when it is there.
    is_refused: bool,
    body: BytesMut,
}

/// What came of a part.
#[derive(Debug)]
pub(crate) enum Piece {
    /// In the read buffer, from where it is copied; of a first part with the size in front.
    Read(Bytes),
    /// Where it stays, or in memory of its own if that is gone.
    Landed(BytesMut),
}

impl Assembly {
    fn append(&mut self, part: Piece) {
        self.got += part.len();
        if self.is_refused {
            return;
        }
        match part {
            // Nothing is copied where it was read into this memory's own end.
            Piece::Landed(room) => self.body.unsplit(room),
            Piece::Read(part) => {
                let need = self.body.len() + part.len();
                if self.body.capacity() < need {
                    self.grow(self.may_hold().max(need));
                }
                self.body.extend_from_slice(&part);
            }
        }
    }

    /// W-13: as much again as is there, one step at least, and never by what is declared. The last of several
    /// steps is a whole one, so that messages of nearly one size can use each other's memory.
    fn may_hold(&self) -> usize {
        let mut most = usize::try_from(self.declared).unwrap_or(usize::MAX);
        if most > READ_STEP_BYTES {
            most = most
                .checked_next_multiple_of(READ_STEP_BYTES)
                .unwrap_or(most);
        }
        (2 * self.body.len()).max(READ_STEP_BYTES).min(most)
    }

    /// Exactly, and without more copies than the allocator's.
    fn grow(&mut self, room: usize) {
        let mut bytes = Vec::from(std::mem::take(&mut self.body));
        bytes.reserve_exact(room.saturating_sub(bytes.len()));
        self.body = BytesMut::from(Bytes::from(bytes));
    }

    /// The free end of its memory, if that has room for so much, or may have.
    fn room(&mut self, bytes: usize) -> Option<BytesMut> {
        let held = self.body.len();
        let need = held.checked_add(bytes)?;
        if self.is_refused {
            return None;
        }
        if self.body.capacity() < need {
            let room = self.may_hold();
            if room < need {
                return None;
            }
            self.grow(room);
        }
        Some(self.body.split_off(held))
    }
}

impl Piece {
    fn len(&self) -> u64 {
        match self {
            Self::Read(part) => part.len() as u64,
            Self::Landed(room) => room.len() as u64,
        }
    }
}

/// What a part was.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// One of more to come.
    Kept,
    /// The last: here is the whole.
    Whole(Bytes),
    /// The last of a message that is refused, with its size.
    Refused(u64),
}

/// The messages that come in parts, by their label, and the room that they have, waiting in queues included.
#[derive(Debug)]
pub(crate) struct Assemblies {
    open: BTreeMap<u32, Assembly>,
    supply: Supply,
    max_message: u64,
    room: u64,
    /// Declared in all, and given back.
    begun: u64,
    released: u64,
    granted: u64,
    /// Where the connection went on.
    base: u64,
}

impl Assemblies {
    pub(crate) fn new(max_message: u64, room: u64) -> Self {
        Self {
            open: BTreeMap::new(),
            supply: Supply::default(),
            max_message,
            room,
            begun: 0,
            released: 0,
            granted: room,
            base: 0,
        }
    }

    pub(crate) fn set_supply(&mut self, supply: Supply) {
        self.supply = supply;
    }

    /// How many are open, and the bytes that they hold.
    pub(crate) fn held(&self) -> (usize, u64) {
        let bytes = self.open.values().map(|each| each.body.capacity() as u64);
        (self.open.len(), bytes.sum())
    }

    /// Whether a message is open for this label.
    #[inline]
    pub(crate) fn is_open(&self, to: Label) -> bool {
        !self.open.is_empty() && self.open.contains_key(&to.number())
    }

    /// Judges a part before anything of it is kept.
    pub(crate) fn check(
        &self,
        seq: Seq,
        to: Label,
        flags: DataFlags,
        declared: Option<u64>,
        came: u64,
    ) -> Result<(), Violation> {
        let misplaced = Violation::PartOutOfPlace { seq, label: to };
        let open = self.open.get(&to.number());
        if flags.contains(DataFlags::FIRST) {
            if open.is_some() {
                return Err(misplaced);
            }
            let declared = declared.unwrap_or(0);
            if declared > self.max_message {
                return Err(Violation::MessageTooLong {
                    declared,
                    max: self.max_message,
                });
            }
            if declared <= came {
                return Err(Violation::PartsLength {
                    label: to,
                    declared,
                    got: came,
                });
            }
            if self.open.len() >= ASSEMBLIES_MAX {
                return Err(Violation::TooManyParts {
                    max: ASSEMBLIES_MAX as u64,
                });
            }
            // S-33, S-35: begun within what was granted.
            if self.begun + declared > self.granted {
                return Err(Violation::BeyondCredit { seq });
            }
            return Ok(());
        }
        let Some(open) = open else {
            return Err(misplaced);
        };
        let got = open.got + came;
        let is_last = flags.contains(DataFlags::LAST);
        let fits = if is_last {
            got == open.declared
        } else {
            got < open.declared
        };
        fits.then_some(()).ok_or(Violation::PartsLength {
            label: to,
            declared: open.declared,
            got,
        })
    }

    /// Room for a part that was checked, whose body has not come: at the end of what is there of its message, or for a
    /// first part in memory that is kept for that.
    pub(crate) fn room(&mut self, head: &PartHead) -> Option<BytesMut> {
        match head.declared {
            Some(declared) => self.supply.take(declared),
            None => self.open.get_mut(&head.to.number())?.room(head.bytes),
        }
    }

    /// Takes a part that was checked.
    pub(crate) fn take(
        &mut self,
        to: Label,
        flags: DataFlags,
        declared: Option<u64>,
        piece: Piece,
        is_refused: bool,
    ) -> Part {
        if let Some(declared) = declared {
            self.begun += declared;
            let body = match &piece {
                // Empty: what came into it is joined to it.
                Piece::Landed(_) => None,
                Piece::Read(_) => self.supply.take(declared),
            };
            let mut assembly = Assembly {
                declared,
                got: 0,
                is_refused,
                body: body.unwrap_or_default(),
            };
            assembly.append(piece);
            self.open.insert(to.number(), assembly);
            return Part::Kept;
        }
        let Some(assembly) = self.open.get_mut(&to.number()) else {
            return Part::Kept;
        };
        if is_refused && !assembly.is_refused {
            assembly.is_refused = true;
            self.supply.give(std::mem::take(&mut assembly.body));
        }
        assembly.append(piece);
        if !flags.contains(DataFlags::LAST) {
            return Part::Kept;
        }
        match self.open.remove(&to.number()) {
            Some(whole) if !whole.is_refused => Part::Whole(self.supply.clone().lend(whole.body)),
            whole => Part::Refused(whole.map_or(0, |whole| whole.declared)),
        }
    }

    /// Drops what came of a message; returns its declared size, and gives its room back.
    pub(crate) fn withdraw(&mut self, to: Label) -> Option<u64> {
        let Assembly { declared, body, .. } = self.open.remove(&to.number())?;
        self.supply.give(body);
        self.release(declared);
        Some(declared)
    }

    /// A message in parts left its queue.
    #[inline]
    pub(crate) fn release(&mut self, bytes: u64) {
        self.released = (self.released + bytes).min(self.begun);
    }

    /// What may be begun on this connection, counted from where it went on.
    pub(crate) fn grant(&mut self) -> u64 {
        self.granted = self.granted.max(self.released.saturating_add(self.room));
        self.granted - self.base
    }

    #[inline]
    fn ungranted(&self) -> u64 {
        (self.released.saturating_add(self.room)).saturating_sub(self.granted)
    }

    #[inline]
    pub(crate) fn has_credit(&self) -> bool {
        self.ungranted() != 0
    }

    /// When the sender is to know of what can be granted: it waits for room where a message of its may not fit.
    #[inline]
    pub(crate) fn telling(&self) -> Telling {
        let ungranted = self.ungranted();
        if ungranted == 0 {
            Telling::Along
        } else if ungranted.saturating_mul(CREDIT_FRACTION) >= self.room {
            Telling::Now
        } else if self.granted - self.begun < self.max_message {
            Telling::Soon
        } else {
            Telling::Along
        }
    }

    /// A connection goes on from what has come.
    pub(crate) fn resume(&mut self) {
        self.base = self.begun;
    }

    /// The sender's state is new: what it began it will not end.
    pub(crate) fn forget(&mut self) {
        let open: u64 = self.open.values().map(|each| each.declared).sum();
        for (_, each) in std::mem::take(&mut self.open) {
            self.supply.give(each.body);
        }
        self.release(open);
    }

    pub(crate) fn check_state(&self) {
        assert!(self.released <= self.begun && self.begun <= self.granted);
        assert!(self.open.len() <= ASSEMBLIES_MAX);
        for each in self.open.values() {
            assert!(each.got < each.declared && each.declared <= self.max_message);
            assert!(each.is_refused || each.body.len() as u64 == each.got);
        }
        let open: u64 = self.open.values().map(|each| each.declared).sum();
        assert!(
            open <= self.begun - self.released,
            "an open message has no room"
        );
    }
}

/// Takes the size that a first part declares off its front; the decoder has seen to it that it is there.
pub(crate) fn take_declared(flags: DataFlags, body: &mut Bytes) -> Option<u64> {
    flags
        .contains(DataFlags::FIRST)
        .then(|| body.try_get_u64_le().unwrap_or(0))
}
