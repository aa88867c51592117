//! Names for actors, beside their ids: per proc, free again when the actor ends, and found from other procs.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hyperactor_mailbox::{OncePortRef, Outbox};
use hyperactor_refs::{ActorId, NameError, ProcId, check_name};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore};

use crate::proc::WeakProc;
use crate::supervision::Told;
use crate::system::{self, FromSystem, System};
use crate::{AskError, Message, Proc, ask, limits};

/// The names of one proc. Made by [`Proc::names`].
///
/// A name leads to an actor of the proc. It is free again when the actor ends.
///
/// ```
/// use std::time::Duration;
/// use hyperactor_proc::{Actor, Proc};
///
/// #[derive(Actor)]
/// struct Store;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let proc = Proc::isolated("example");
/// let store = proc.spawn("store-7", Store)?;
/// proc.names().register("store", store.actor_id())?;
/// assert_eq!(proc.names().lookup("store").as_ref(), Some(store.actor_id()));
///
/// store.stop();
/// store.join().await;
/// assert_eq!(proc.names().lookup("store"), None);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Names {
    proc: Proc,
}

#[derive(Default)]
pub(crate) struct NameTable {
    /// The actor, and the key of the watch that frees the name.
    names: Mutex<BTreeMap<String, (ActorId, u64)>>,
    registered: Notify,
    waiting: Waiting,
}

/// How many others wait for names here.
struct Waiting(std::sync::Arc<Semaphore>);

impl Default for Waiting {
    fn default() -> Self {
        Self(std::sync::Arc::new(Semaphore::new(limits::NAME_WAITS_MAX)))
    }
}

/// Why a name was not registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// Another actor has it.
    #[error("the name `{name}` leads to `{actor_id}`; it is free again when that has ended")]
    Taken {
        /// The name.
        name: String,
        /// Who has it.
        actor_id: ActorId,
    },
    /// It cannot be a name.
    #[error("bad name: {0}")]
    BadName(#[from] NameError),
    /// The actor is not one of this proc.
    #[error("`{actor_id}` does not live in proc `{proc_id}`, whose names are its own actors'")]
    NotHere {
        /// The actor.
        actor_id: ActorId,
        /// The proc.
        proc_id: ProcId,
    },
    /// There are as many names as there may be.
    #[error("the proc has {max} names, which is the limit")]
    Full {
        /// The limit: [`limits::NAMES_MAX`].
        max: usize,
    },
}

impl RegisterError {
    /// A stable word for logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Taken { .. } => "name-taken",
            Self::BadName(_) => "bad-name",
            Self::NotHere { .. } => "not-here",
            Self::Full { .. } => "names-full",
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Taken { .. } | Self::Full { .. })
    }
}

impl Proc {
    /// The names of the actors of this proc.
    pub fn names(&self) -> Names {
        Names { proc: self.clone() }
    }
}

impl Names {
    fn table(&self) -> &NameTable {
        &self.proc.system().names
    }

    /// Gives an actor of this proc a name, in addition to those it has.
    ///
    /// # Errors
    /// [`RegisterError`]. Registering a name again for the actor that has it changes nothing.
    pub fn register(&self, name: &str, actor_id: &ActorId) -> Result<(), RegisterError> {
        check_name(name)?;
        let proc = &self.proc;
        if !proc.owns(actor_id) || proc.resident(actor_id).is_none() {
            return Err(RegisterError::NotHere {
                actor_id: actor_id.clone(),
                proc_id: proc.proc_id().clone(),
            });
        }
        let key = proc.next_key();
        {
            let mut names = self.table().names.lock();
            match names.get(name) {
                Some((holder, _)) if holder == actor_id => return Ok(()),
                Some((holder, _)) => {
                    return Err(RegisterError::Taken {
                        name: name.to_owned(),
                        actor_id: holder.clone(),
                    });
                }
                None if names.len() >= limits::NAMES_MAX => {
                    return Err(RegisterError::Full {
                        max: limits::NAMES_MAX,
                    });
                }
                None => names.insert(name.to_owned(), (actor_id.clone(), key)),
            };
        }
        // Watched after it is entered, so that an end in between frees the name all the same.
        let (weak, owned) = (proc.downgrade(), name.to_owned());
        let told = Told::List {
            leave: Box::new(move |_| free(&weak, &owned, key)),
            watcher: proc.system().actor_id().clone(),
        };
        proc.watch_actor(key, actor_id, told);
        self.table().registered.notify_waiters();
        Ok(())
    }

    /// Frees a name; whom it led to.
    pub fn unregister(&self, name: &str) -> Option<ActorId> {
        let (actor_id, key) = self.table().names.lock().remove(name)?;
        self.proc.unwatch_actor(key, &actor_id);
        Some(actor_id)
    }

    /// Whom a name leads to.
    pub fn lookup(&self, name: &str) -> Option<ActorId> {
        let names = self.table().names.lock();
        names.get(name).map(|(actor_id, _)| actor_id.clone())
    }

    /// Whom a name leads to, as soon as it does; nothing if it does not within `time`.
    ///
    /// # Cancel safety
    /// Cancel safe; it only watches.
    pub async fn lookup_within(&self, name: &str, time: Duration) -> Option<ActorId> {
        crate::time::within(time, self.registered(name)).await
    }

    async fn registered(&self, name: &str) -> ActorId {
        loop {
            let mut registered = std::pin::pin!(self.table().registered.notified());
            // Enabled before the look, so that a registration between the look and the wait is not missed.
            registered.as_mut().enable();
            if let Some(actor_id) = self.lookup(name) {
                return actor_id;
            }
            registered.await;
        }
    }

    /// All names, in order, and whom they lead to.
    pub fn list(&self) -> Vec<(String, ActorId)> {
        let names = self.table().names.lock();
        let entries = names.iter();
        entries
            .map(|(name, (actor_id, _))| (name.clone(), actor_id.clone()))
            .collect()
    }
}

fn free(proc: &WeakProc, name: &str, key: u64) {
    if let Ok(proc) = proc.upgrade() {
        let mut names = proc.system().names.names.lock();
        if names.get(name).is_some_and(|(_, holder)| *holder == key) {
            names.remove(name);
        }
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.list()).finish()
    }
}

/// Asks a proc whom a name leads to.
#[derive(Message, Serialize, Deserialize)]
#[message(name = "hyperactor.system.LookupName")]
struct LookupName {
    name: String,
    wait: Duration,
    reply: OncePortRef<Option<ActorId>>,
}

/// Finds out whom a name leads to in a proc, this or any other. Where it leads nowhere yet, the proc waits for that for
/// `wait`, and answers nothing when it is over.
///
/// # Errors
/// [`AskError`]: the proc did not answer.
///
/// # Bounds
/// A proc waits for [`limits::NAME_WAITS_MAX`] names at the same time, and answers further ones at once. It waits for
/// [`limits::NAME_WAIT_MAX`] at most.
///
/// # Cancel safety
/// Cancel safe; it changes nothing.
///
/// # Panics
/// As [`ActorRef::ask`](crate::ActorRef::ask).
pub async fn lookup_name(
    cx: &(impl Outbox + ?Sized),
    proc_id: &ProcId,
    name: impl Into<String>,
    wait: Duration,
) -> Result<Option<ActorId>, AskError> {
    let dest = system::port::<LookupName>(&std::sync::Arc::new(proc_id.clone()));
    let name = name.into();
    let deadline = wait.saturating_add(limits::ASK_DEADLINE);
    ask::ask(cx, dest, deadline, |reply| LookupName { name, wait, reply }).await
}

pub(crate) fn bind(system: &System, proc: &WeakProc) {
    system.on::<LookupName>(proc, |proc, _, LookupName { name, wait, reply }| {
        let found = proc.names().lookup(&name);
        // What cannot be a name is not waited for, nor kept.
        let wait = match check_name(&name) {
            Ok(()) => wait.min(limits::NAME_WAIT_MAX),
            Err(_) => Duration::ZERO,
        };
        let permit = proc.system().names.waiting.0.clone().try_acquire_owned();
        match (found, permit, proc.runtime()) {
            (None, Ok(permit), Some(runtime)) if !wait.is_zero() => {
                let weak = proc.downgrade();
                runtime.spawn(async move {
                    let found = tokio::time::timeout(wait, registered(&weak, &name)).await;
                    if let Ok(proc) = weak.upgrade() {
                        reply.post(&FromSystem(proc), found.ok().flatten());
                    }
                    drop(permit);
                });
            }
            (found, ..) => reply.post(&FromSystem(proc.clone()), found),
        }
    });
}

/// Waits without owning the proc while nothing happens.
async fn registered(proc: &WeakProc, name: &str) -> Option<ActorId> {
    loop {
        let names = proc.upgrade().ok()?.names();
        if let Some(found) = names.lookup_within(name, limits::NAME_LOOK_PERIOD).await {
            return Some(found);
        }
    }
}
