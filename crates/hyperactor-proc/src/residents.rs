//! Who lives in a proc: the actors and the clients, by id, and how to tell them something.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use hyperactor_mailbox::ReturnSink;
use hyperactor_refs::{ActorId, BuildIdHasher};

use crate::control::AnyCell;
use crate::supervision::Watchers;

/// Whoever has a mailbox here.
#[derive(Default)]
pub(crate) struct Residents {
    pub(crate) is_closed: bool,
    /// Each is its own key.
    pub(crate) by_id: HashSet<Resident, BuildIdHasher>,
    /// Who was last found by their hash: what is given back comes in rows of the same sender's.
    last_by_hash: Option<ActorId>,
}

#[derive(Clone)]
pub(crate) enum Resident {
    Actor(Arc<dyn AnyCell>),
    Client(Arc<ClientEntry>),
}

pub(crate) struct ClientEntry {
    pub(crate) id: ActorId,
    pub(crate) sink: Arc<dyn ReturnSink>,
    pub(crate) watchers: Watchers,
}

/// A sender, and the way to tell it something.
pub(crate) type Teller = (ActorId, Arc<dyn ReturnSink>);

impl Residents {
    pub(crate) fn teller(&self, id: &ActorId) -> Option<Teller> {
        let resident = self.by_id.get(id)?;
        Some((id.clone(), resident.sink()))
    }

    /// Looks at everybody, unless it was the same one before: for the rare message that was posted within the proc and not
    /// handled.
    pub(crate) fn teller_by_hash(&mut self, hash: u64) -> Option<Teller> {
        let is_last = |id: &ActorId| id.precomputed_hash() == hash;
        if let Some(last) = self.last_by_hash.clone().filter(is_last)
            && let Some(teller) = self.teller(&last)
        {
            return Some(teller);
        }
        let resident = self.by_id.iter().find(|resident| is_last(resident.id()))?;
        let id = resident.id().clone();
        self.last_by_hash = Some(id.clone());
        Some((id, resident.sink()))
    }
}

impl Resident {
    pub(crate) fn id(&self) -> &ActorId {
        match self {
            Self::Actor(cell) => cell.actor_id(),
            Self::Client(client) => &client.id,
        }
    }

    fn sink(&self) -> Arc<dyn ReturnSink> {
        match self {
            Self::Actor(cell) => cell.clone(),
            Self::Client(client) => Arc::clone(&client.sink),
        }
    }

    pub(crate) fn watchers(&self) -> &Watchers {
        match self {
            Self::Actor(cell) => cell.watchers(),
            Self::Client(client) => &client.watchers,
        }
    }
}

impl PartialEq for Resident {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for Resident {}

impl Hash for Resident {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id().hash(state);
    }
}

impl Borrow<ActorId> for Resident {
    fn borrow(&self) -> &ActorId {
        self.id()
    }
}
