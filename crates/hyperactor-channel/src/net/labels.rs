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
    /// By the label's number.
    names: Vec<Option<N>>,
    /// Destinations that a message was refused for.
    rooms: HashMap<Label, Capacity>,
    /// The last destination and the last sender: as a rule the next message has the same.
    recent: [Option<(N, Label)>; 2],
}

impl<N: Clone + Eq + Hash> Labels<N> {
    pub(super) fn new() -> Self {
        Self {
            by_name: HashMap::new(),
            names: Vec::new(),
            rooms: HashMap::new(),
            recent: [None, None],
        }
    }

    /// The labels of a message's destination and sender, given to them if they have none.
    ///
    /// # Errors
    ///
    /// `Full` while every label is in use; `Encode` for a name that cannot be told.
    pub(super) fn pair<M>(
        &mut self,
        session: &mut Session,
        codec: &impl Codec<M, Name = N>,
        names: Names<'_, N>,
    ) -> Result<(Label, Label), Reason> {
        for _ in 0..PAIR_TRIES {
            let to = self.find(session, codec, names.to, 0)?;
            let from = self.find(session, codec, names.from, 1)?;
            // A label that nothing refers to yet may have been given to the other name.
            if self.name(to) == names.to && self.name(from) == names.from {
                return Ok((to, from));
            }
        }
        Err(Reason::Full)
    }

    fn find<M>(
        &mut self,
        session: &mut Session,
        codec: &impl Codec<M, Name = N>,
        name: Option<&N>,
        place: usize,
    ) -> Result<Label, Reason> {
        let Some(name) = name else {
            return Ok(Label::NONE);
        };
        if let Some((recent, label)) = &self.recent[place]
            && recent == name
        {
            return Ok(*label);
        }
        let label = match self.by_name.get(name) {
            Some(label) => *label,
            None => self.add(session, codec, name)?,
        };
        self.recent[place] = Some((name.clone(), label));
        Ok(label)
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
        self.forget(label);
        let at = label.number() as usize;
        if self.names.len() <= at {
            self.names.resize_with(at + 1, || None);
        }
        self.names[at] = Some(name.clone());
        self.by_name.insert(name.clone(), label);
        Ok(label)
    }

    /// The label is another name's from now on.
    fn forget(&mut self, label: Label) {
        let slot = self.names.get_mut(label.number() as usize);
        if let Some(former) = slot.and_then(Option::take) {
            self.by_name.remove(&former);
        }
        for recent in &mut self.recent {
            recent.take_if(|(_, recent)| *recent == label);
        }
        self.open(label);
    }

    /// What a label stands for.
    pub(super) fn name(&self, label: Label) -> Option<&N> {
        self.names.get(label.number() as usize)?.as_ref()
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
    pub(super) fn names(&self, to: Label, from: Label) -> Result<Names<'_, N>, DecodeError> {
        Ok(Names {
            to: self.name(to)?,
            from: self.name(from)?,
        })
    }

    fn name(&self, label: Label) -> Result<Option<&N>, DecodeError> {
        if label.is_none() {
            return Ok(None);
        }
        match self.0.get(label.number() as usize) {
            Some(Some(Ok(name))) => Ok(Some(name)),
            Some(Some(Err(error))) => Err(error.clone()),
            // The session lets no message through whose labels were not told.
            _ => Err(DecodeError::new("a name of it was never told")),
        }
    }
}
