//! The actor types that may be spawned from other processes, by name. The actor that does it on request is in
//! `agent.rs`, the call in `remote_spawn.rs`.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use hyperactor_mailbox::Payload;
use hyperactor_refs::ActorId;
use serde::{Deserialize, Serialize};

use crate::panics::{caught_sync, install_hook};
use crate::{ActorError, Exports, Message, Proc, SpawnError, limits};

/// An actor that can be made from a message: spawned in another process by the name of its type.
///
/// ```
/// use hyperactor_proc::{Actor, ActorError, Registry, RemoteSpawn};
///
/// #[derive(Actor)]
/// struct Worker {
///     shard: u32,
/// }
///
/// impl RemoteSpawn for Worker {
///     type Params = u32;
///
///     fn create(shard: u32) -> Result<Self, ActorError> {
///         Ok(Self { shard })
///     }
/// }
///
/// let registry = Registry::new().with::<Worker>();
/// assert_eq!(registry.type_names().count(), 1);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be spawned in another process",
    label = "no `impl RemoteSpawn for {Self}`",
    note = "write `impl RemoteSpawn for {Self} {{ type Params = …; fn create(params: Self::Params) -> Result<Self, ActorError> {{ … }} }}`"
)]
pub trait RemoteSpawn: Exports {
    /// What the actor is made from.
    type Params: Message;

    /// Makes the actor, in the process in which it will live.
    ///
    /// # Errors
    /// Whatever is wrong with the parameters; it is told to whoever asked.
    fn create(params: Self::Params) -> Result<Self, ActorError>;
}

/// The actor types that a process can spawn on request from others. Only what is listed can be.
#[derive(Clone, Default)]
pub struct Registry {
    types: BTreeMap<&'static str, Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    type_id: TypeId,
    spawn: fn(&Proc, &str, u64, Bytes) -> Result<ActorId, SpawnRefusal>,
}

impl Registry {
    /// A registry without types.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a type, under its [`Exports::type_name`]. Adding it again changes nothing.
    ///
    /// # Panics
    /// When another type has the same name, as two types can that were given it by `#[actor(name = "…")]`: a
    /// registry that silently spawned the wrong one would be worse.
    #[must_use]
    pub fn with<A: RemoteSpawn>(mut self) -> Self {
        let name = A::type_name();
        let entry = Entry {
            type_id: TypeId::of::<A>(),
            spawn: spawn::<A>,
        };
        let before = self.types.insert(name, entry);
        assert!(
            before.is_none_or(|before| before.type_id == entry.type_id),
            "two actor types are called `{name}`; give one of them another `#[actor(name = \"…\")]`"
        );
        self
    }

    /// The names of its types, in order.
    pub fn type_names(&self) -> impl Iterator<Item = &'static str> {
        self.types.keys().copied()
    }

    /// Spawns an actor in `proc` by the name of its type, and opens the ports of its exported messages.
    ///
    /// # Errors
    /// [`SpawnRefusal`].
    pub(crate) fn spawn(
        &self,
        proc: &Proc,
        type_name: &str,
        name: &str,
        params_type: u64,
        params: Bytes,
    ) -> Result<ActorId, SpawnRefusal> {
        match self.types.get(type_name) {
            Some(entry) => (entry.spawn)(proc, name, params_type, params),
            None => Err(self.unknown(type_name)),
        }
    }

    fn unknown(&self, type_name: &str) -> SpawnRefusal {
        let mut near: Vec<_> = self
            .type_names()
            .map(|known| (distance(last_part(type_name), last_part(known)), known))
            .collect();
        near.sort_unstable();
        SpawnRefusal::UnknownType {
            type_name: shortened(type_name),
            near: near
                .into_iter()
                .take(limits::NEAR_NAMES_MAX)
                .map(|(_, known)| known.to_owned())
                .collect(),
        }
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.type_names()).finish()
    }
}

fn spawn<A: RemoteSpawn>(
    proc: &Proc,
    name: &str,
    params_type: u64,
    params: Bytes,
) -> Result<ActorId, SpawnRefusal> {
    let type_name = || A::type_name().to_owned();
    let payload = Payload::Encoded {
        type_hash: params_type,
        bytes: params,
    };
    let params =
        payload
            .into_message::<A::Params>()
            .map_err(|(_, error)| SpawnRefusal::BadParams {
                type_name: type_name(),
                error: error.to_string(),
            })?;
    // `create` is the user's code: its panic must not end the agent that runs it.
    install_hook();
    let actor = match caught_sync(|| A::create(params)) {
        Ok(Ok(actor)) => actor,
        Ok(Err(error)) => {
            return Err(SpawnRefusal::NotCreated {
                type_name: type_name(),
                error: error.to_string(),
            });
        }
        Err(report) => {
            return Err(SpawnRefusal::NotCreated {
                type_name: type_name(),
                error: format!("panicked: {report}"),
            });
        }
    };
    let handle = proc.spawn(name, actor)?;
    Ok(handle.bind().actor_id().clone())
}

/// Why a proc did not spawn an actor that it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Message, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnRefusal {
    /// The process has no such type in its registry.
    #[error(
        "no actor type `{type_name}` in the registry of the process; {}",
        Near(near)
    )]
    UnknownType {
        /// The name that was asked for.
        type_name: String,
        /// The nearest names that it has, the nearest first; at most [`limits::NEAR_NAMES_MAX`].
        near: Vec<String>,
    },
    /// The parameters are not what the type is made from.
    #[error("cannot read the parameters of `{type_name}`: {error}")]
    BadParams {
        /// The actor's type.
        type_name: String,
        /// What is wrong.
        error: String,
    },
    /// The type's `create` failed.
    #[error("`{type_name}` could not be created: {error}")]
    NotCreated {
        /// The actor's type.
        type_name: String,
        /// What it said.
        error: String,
    },
    /// The proc did not take the actor: see [`SpawnError`].
    #[error("{error}")]
    NotSpawned {
        /// [`SpawnError::code`].
        code: String,
        /// [`SpawnError`] in words.
        error: String,
    },
}

impl SpawnRefusal {
    /// A stable word for logs and metrics.
    pub fn code(&self) -> &str {
        match self {
            Self::UnknownType { .. } => "unknown-type",
            Self::BadParams { .. } => "bad-params",
            Self::NotCreated { .. } => "not-created",
            Self::NotSpawned { code, .. } => code,
        }
    }
}

impl From<SpawnError> for SpawnRefusal {
    fn from(error: SpawnError) -> Self {
        Self::NotSpawned {
            code: error.code().to_owned(),
            error: error.to_string(),
        }
    }
}

struct Near<'a>(&'a [String]);

impl fmt::Display for Near<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("it has none: add the type with `Registry::with`"),
            near => write!(f, "did you mean one of: {}?", near.join(", ")),
        }
    }
}

/// The type itself, without its path: the part that a person types.
fn last_part(name: &str) -> &str {
    name.rsplit("::").next().unwrap_or(name)
}

/// What a peer sent is repeated to it only up to the length of a name.
fn shortened(name: &str) -> String {
    name.chars().take(limits::TYPE_NAME_CHARS_MAX).collect()
}

/// The Levenshtein distance, without regard to case, of the first [`limits::TYPE_NAME_CHARS_MAX`] characters.
fn distance(a: &str, b: &str) -> usize {
    let letters = |text: &str| -> Vec<char> {
        text.chars()
            .flat_map(char::to_lowercase)
            .take(limits::TYPE_NAME_CHARS_MAX)
            .collect()
    };
    let (a, b) = (letters(a), letters(b));
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_is_the_number_of_edits_without_regard_to_case() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("Counter", "counter"), 0);
        assert_eq!(distance("", "abc"), 3);
    }

    #[test]
    fn a_long_foreign_name_is_neither_compared_nor_repeated_in_full() {
        let long = "x".repeat(1 << 20);
        let SpawnRefusal::UnknownType { type_name, near } = Registry::new().unknown(&long) else {
            panic!("an empty registry knows no type");
        };
        assert_eq!(type_name.len(), limits::TYPE_NAME_CHARS_MAX);
        assert!(near.is_empty());
    }
}
