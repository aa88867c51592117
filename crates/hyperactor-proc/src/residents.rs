//! Who lives in a proc: the actors and the clients, by id, and how to tell them something.

use std::collections::HashMap;
use std::sync::Arc;

use hyperactor_mailbox::ReturnSink;
use hyperactor_refs::ActorId;

use crate::control::Control;
use crate::supervision::Watchers;

/// Whoever has a mailbox here.
#[derive(Default)]
pub(crate) struct Residents {
    pub(crate) is_closed: bool,
    pub(crate) by_id: HashMap<ActorId, Resident>,
    /// Who was last found by their hash: what is given back comes in rows of the same sender's.
    last_by_hash: Option<ActorId>,
}

#[derive(Clone)]
pub(crate) enum Resident {
    Actor(Arc<Control>),
    Client(Arc<ClientEntry>),
}

pub(crate) struct ClientEntry {
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
        let (id, resident) = self.by_id.iter().find(|(id, _)| is_last(id))?;
        self.last_by_hash = Some(id.clone());
        Some((id.clone(), resident.sink()))
    }
}

impl Resident {
    fn sink(&self) -> Arc<dyn ReturnSink> {
        match self {
            Self::Actor(control) => control.clone(),
            Self::Client(client) => Arc::clone(&client.sink),
        }
    }

    pub(crate) fn watchers(&self) -> &Watchers {
        match self {
            Self::Actor(control) => control.watchers(),
            Self::Client(client) => &client.watchers,
        }
    }
}
