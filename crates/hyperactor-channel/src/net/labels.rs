//! Names and the labels that stand for them: what a sending half has given out, whom each destination keeps waiting, and
//! what a receiving half was told over the present connection.

use std::collections::HashMap;
use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::{Bytes, BytesMut};
use hyperactor_protocol::limits::LABEL_NAME_MAX;
use hyperactor_protocol::{Label, Session};

use crate::outbound::Capacity;
use crate::{Codec, DecodeError, EncodeError, Names, Reason};

/// How often a pair of names is looked for, when finding the one pushes the other out.
const PAIR_TRIES: usize = 3;

/// The labels of one session's sending half.
pub(super) struct Labels<N> {
    by_name: HashMap<N, Label>,
    /// By the label's number, with the count of those given out until then.
    names: Vec<Option<(N, u64)>>,
    /// Destinations that a message was refused for.
    rooms: HashMap<Label, Capacity>,
    /// The last destination and the last sender: as a rule the next message has the same.
    recent: [Option<(N, Label)>; 2],
    /// How often a label was given out so far.
    given: u64,
}

impl<N: Clone + Eq + Hash> Labels<N> {
    pub(super) fn new() -> Self {
        Self {
            by_name: HashMap::new(),
            names: Vec::new(),
            rooms: HashMap::new(),
            recent: [None, None],
            given: 0,
        }
    }

    /// The labels of a message's destination and sender, given to them if they have none.
    ///
    /// # Errors
    ///
    /// `Full` while every label is in use; `Encode` for a name that cannot be told.
    #[inline]
    pub(super) fn pair<M>(
        &mut self,
        session: &mut Session,
        codec: &impl Codec<M, Name = N>,
        names: Names<'_, N>,
    ) -> Result<(Label, Label), Reason> {
        // The ordinary case first: none at all, or those of the last message.
        if let (Some(to), Some(from)) = (self.recent(names.to, 0), self.recent(names.from, 1)) {
            return Ok((to, from));
        }
        self.find_pair(session, codec, names)
    }

    fn find_pair<M>(
        &mut self,
        session: &mut Session,
        codec: &impl Codec<M, Name = N>,
        names: Names<'_, N>,
    ) -> Result<(Label, Label), Reason> {
        for _ in 0..PAIR_TRIES {
            let to = self.find(session, codec, names.to, 0)?;
            let given = self.given;
            let from = self.find(session, codec, names.from, 1)?;
            // A label that nothing refers to yet may have been given to the other name.
            if self.given == given || self.name(to) == names.to {
                return Ok((to, from));
            }
        }
        // Labels were given, so the session knows of nobody who waits for one.
        session.expect_room();
        Err(Reason::Full)
    }

    fn find<M>(
        &mut self,
        session: &mut Session,
        codec: &impl Codec<M, Name = N>,
        name: Option<&N>,
        place: usize,
    ) -> Result<Label, Reason> {
        if let Some(label) = self.recent(name, place) {
            return Ok(label);
        }
        let Some(name) = name else {
            return Ok(Label::NONE);
        };
        let label = match self.by_name.get(name) {
            Some(label) => *label,
            None => self.add(session, codec, name)?,
        };
        self.recent[place] = Some((name.clone(), label));
        Ok(label)
    }

    /// The label of the last message's name in this place, if it is this one; no name has none.
    #[inline]
    fn recent(&self, name: Option<&N>, place: usize) -> Option<Label> {
        let Some(name) = name else {
            return Some(Label::NONE);
        };
        match &self.recent[place] {
            Some((recent, label)) if recent == name => Some(*label),
            _ => None,
        }
    }

    fn add<M>(
        &mut self,
        session: &mut Session,
        codec: &impl Codec<M, Name = N>,
        name: &N,
    ) -> Result<Label, Reason> {
        let mut bytes = BytesMut::new();
        let encoded = catch_unwind(AssertUnwindSafe(|| codec.encode_name(name, &mut bytes)))
            .unwrap_or_else(|_| Err(EncodeError::new("its codec panicked")));
        encoded.map_err(|error| Reason::Encode(format!("a name of it: {}", error.text())))?;
        if bytes.is_empty() || bytes.len() > LABEL_NAME_MAX {
            let size = bytes.len();
            return Err(Reason::Encode(format!(
                "a name of it has {size} bytes, and 1 to {LABEL_NAME_MAX} can be told"
            )));
        }
        let label = session.add_label(bytes.freeze()).ok_or(Reason::Full)?;
        self.given += 1;
        self.forget(label);
        let at = label.number() as usize;
        if self.names.len() <= at {
            self.names.resize_with(at + 1, || None);
        }
        self.names[at] = Some((name.clone(), self.given));
        self.by_name.insert(name.clone(), label);
        Ok(label)
    }

    /// The label is another name's from now on.
    fn forget(&mut self, label: Label) {
        let slot = self.names.get_mut(label.number() as usize);
        if let Some((former, _)) = slot.and_then(Option::take) {
            self.by_name.remove(&former);
        }
        for recent in &mut self.recent {
            recent.take_if(|(_, recent)| *recent == label);
        }
        self.open(label);
    }

    /// What a label stands for.
    pub(super) fn name(&self, label: Label) -> Option<&N> {
        let (name, _) = self.names.get(label.number() as usize)?.as_ref()?;
        Some(name)
    }

    /// When a label was given to the name that it stands for.
    pub(super) fn since(&self, label: Label) -> u64 {
        match self.names.get(label.number() as usize) {
            Some(Some((_, since))) => *since,
            _ => 0,
        }
    }

    /// The room of a destination, if a message to it was refused.
    pub(super) fn room(&self, name: Option<&N>) -> Option<Capacity> {
        let label = self.by_name.get(name?)?;
        Some(self.rooms.get(label).cloned().unwrap_or_else(Capacity::new))
    }

    /// A message to this destination was refused.
    pub(super) fn refuse(&mut self, label: Label) {
        self.rooms
            .entry(label)
            .or_insert_with(Capacity::new)
            .set(false);
    }

    /// As [`refuse`](Self::refuse), by name; nothing for a name without a label.
    pub(super) fn refuse_name(&mut self, name: Option<&N>) {
        if let Some(label) = name.and_then(|name| self.by_name.get(name)) {
            self.refuse(*label);
        }
    }

    /// There is room for this destination again.
    pub(super) fn open(&mut self, label: Label) {
        if let Some(room) = self.rooms.remove(&label) {
            room.set(true);
        }
    }

    /// There may be room for every destination, or none of them matters any more.
    pub(super) fn open_all(&mut self) {
        for (_, room) in self.rooms.drain() {
            room.set(true);
        }
    }
}

/// The names that a peer has told over the present connection.
pub(super) struct Known<N>(Vec<Option<Result<N, DecodeError>>>);

impl<N> Known<N> {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    /// Another connection begins: its names are told anew.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// A name was told. One that does not decode fails the messages that use it.
    pub(super) fn learn<M>(&mut self, codec: &impl Codec<M, Name = N>, label: Label, name: Bytes) {
        let decoded = catch_unwind(AssertUnwindSafe(|| codec.decode_name(name)))
            .unwrap_or_else(|_| Err(DecodeError::new("its decoder panicked")));
        let at = label.number() as usize;
        if self.0.len() <= at {
            // The session takes no label above its limit.
            self.0.resize_with(at + 1, || None);
        }
        self.0[at] = Some(decoded);
    }

    /// What the labels of a message stand for.
    #[inline(always)]
    pub(super) fn names(&self, to: Label, from: Label) -> Result<Names<'_, N>, DecodeError> {
        Ok(Names {
            to: self.name(to)?,
            from: self.name(from)?,
        })
    }

    #[inline(always)]
    fn name(&self, label: Label) -> Result<Option<&N>, DecodeError> {
        if label.is_none() {
            return Ok(None);
        }
        match self.0.get(label.number() as usize) {
            Some(Some(Ok(name))) => Ok(Some(name)),
            other => Err(unknown(other)),
        }
    }
}

#[cold]
fn unknown<N>(told: Option<&Option<Result<N, DecodeError>>>) -> DecodeError {
    match told {
        Some(Some(Err(error))) => error.clone(),
        // The session lets no message through whose labels were not told.
        _ => DecodeError::new("a name of it was never told"),
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use hyperactor_protocol::limits::LABELS_MAX;
    use hyperactor_protocol::{Config, SessionId, Time};
    use hyperactor_refs::Incarnation;

    use super::*;

    /// Names are numbers.
    struct Numbers;

    impl Codec<()> for Numbers {
        type Name = u32;

        fn encode_name(&self, name: &u32, out: &mut BytesMut) -> Result<(), EncodeError> {
            out.extend_from_slice(&name.to_le_bytes());
            Ok(())
        }

        fn encode(&self, (): &(), _: &mut BytesMut) -> Result<(), EncodeError> {
            Ok(())
        }

        fn decode(&self, _: Bytes, _: Names<'_, u32>) -> Result<(), DecodeError> {
            Ok(())
        }
    }

    fn session() -> Session {
        let life = Incarnation::new(1);
        Session::dialer(Config::default(), SessionId(1), life, Time::ZERO)
    }

    #[test]
    fn both_names_of_a_message_have_labels_of_their_own_also_when_others_give_way() {
        let (mut labels, mut session) = (Labels::new(), session());
        // Nothing is ever posted, so every label is idle and may be taken for the next name.
        for name in 0..3 * LABELS_MAX {
            let (to, from) = (name, name + 1_000_000);
            let names = Names {
                to: Some(&to),
                from: Some(&from),
            };
            let pair = labels.pair(&mut session, &Numbers, names);
            let (to_label, from_label) = pair.unwrap();
            assert_ne!(to_label, from_label);
            assert_eq!(labels.name(to_label), Some(&to));
            assert_eq!(labels.name(from_label), Some(&from));
        }
        assert!(labels.by_name.len() <= LABELS_MAX as usize);
        assert_eq!(labels.by_name.len(), labels.names.iter().flatten().count());
    }

    #[test]
    fn a_label_that_another_name_gets_opens_the_room_of_the_former() {
        let (mut labels, mut session) = (Labels::new(), session());
        fn named(name: &u32) -> Names<'_, u32> {
            Names {
                to: Some(name),
                from: None,
            }
        }
        let (first, _) = labels.pair(&mut session, &Numbers, named(&0)).unwrap();
        let since = labels.since(first);
        labels.refuse(first);
        let room = labels.room(Some(&0)).unwrap();
        assert!(!room.has_room());
        for name in 1..=LABELS_MAX {
            labels.pair(&mut session, &Numbers, named(&name)).unwrap();
        }
        assert!(
            labels.room(Some(&0)).is_none(),
            "the label is still its own"
        );
        assert!(room.has_room());
        // What stood for the former does not stand for the other one.
        assert!(labels.name(first).is_some_and(|name| *name != 0));
        assert_ne!(labels.since(first), since);
    }
}
