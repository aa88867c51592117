//! Groups: ports of actors anywhere under one name, to which one message is sent. A group has its home in one proc, which
//! watches the members.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use hyperactor_mailbox::{OncePortRef, Outbox, PortRef};
use hyperactor_refs::{PortId, ProcId, check_name};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::proc::WeakProc;
use crate::supervision::Told;
use crate::system::{self, FromSystem, System};
use crate::{AskError, Message, Proc, ask, limits};

/// A group of ports that take `M`, named by the proc where it has its home and by its name there.
///
/// It is a value: it may be made anywhere, and sent in messages. A group begins with its first member and ends with its
/// last. A member leaves by itself when its actor ends, or its proc is lost.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Group<M> {
    home: Arc<ProcId>,
    name: String,
    #[serde(skip)]
    message: PhantomData<fn(M)>,
}

/// Why a port did not join a group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The group's home did not answer.
    #[error("the home of group `{group}` did not answer: {error}")]
    Ask {
        /// The group's name.
        group: String,
        /// Why not.
        #[source]
        error: AskError,
    },
    /// The group's home has as many members of groups as it may, or the group's name is none that an actor could have.
    #[error(
        "group `{group}` takes no member: a proc is home to at most {} of all groups, and a group is named as an actor is",
        limits::GROUP_MEMBERS_MAX
    )]
    Refused {
        /// The group's name.
        group: String,
    },
}

impl JoinError {
    /// A stable word for logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Ask { error, .. } => error.code(),
            Self::Refused { .. } => "group-refused",
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Ask { error, .. } => error.is_retryable(),
            Self::Refused { .. } => false,
        }
    }
}

impl<M: Message> Group<M> {
    /// The group of this name at home in a proc.
    pub fn new(home: ProcId, name: impl Into<String>) -> Self {
        Self {
            home: Arc::new(home),
            name: name.into(),
            message: PhantomData,
        }
    }

    /// The proc where it has its home.
    pub fn home(&self) -> &ProcId {
        &self.home
    }

    /// Its name there.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn key(&self) -> GroupKey {
        GroupKey {
            name: self.name.clone(),
            type_hash: M::TYPE_HASH,
        }
    }

    /// Adds a member. Joining again changes nothing.
    ///
    /// # Errors
    /// [`JoinError`].
    ///
    /// # Cancel safety
    /// A dropped future leaves open whether the port has joined.
    ///
    /// # Panics
    /// As [`ActorRef::ask`](crate::ActorRef::ask), as do the other calls.
    pub async fn join(
        &self,
        cx: &(impl Outbox + ?Sized),
        member: &PortRef<M>,
    ) -> Result<(), JoinError> {
        let member = member.port_id().clone();
        let (dest, group) = (system::port::<Join>(&self.home), self.key());
        let joined = ask::ask(cx, dest, limits::ASK_DEADLINE, |reply| Join {
            group,
            member,
            reply,
        });
        let group = || {
            self.name
                .chars()
                .take(limits::TYPE_NAME_CHARS_MAX)
                .collect()
        };
        match joined.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(JoinError::Refused { group: group() }),
            Err(error) => Err(JoinError::Ask {
                group: group(),
                error,
            }),
        }
    }

    /// Takes a member out; whether it was one.
    ///
    /// # Errors
    /// [`AskError`]: the group's home did not answer.
    ///
    /// # Cancel safety
    /// A dropped future leaves open whether the port has left.
    pub async fn leave(
        &self,
        cx: &(impl Outbox + ?Sized),
        member: &PortRef<M>,
    ) -> Result<bool, AskError> {
        let member = member.port_id().clone();
        let (dest, group) = (system::port::<Leave>(&self.home), self.key());
        let left = ask::ask(cx, dest, limits::ASK_DEADLINE, |reply| Leave {
            group,
            member,
            reply,
        });
        left.await
    }

    /// The members, in the order of their ids.
    ///
    /// # Errors
    /// [`AskError`]: the group's home did not answer.
    ///
    /// # Cancel safety
    /// Cancel safe; it changes nothing.
    pub async fn members(&self, cx: &(impl Outbox + ?Sized)) -> Result<Vec<PortRef<M>>, AskError> {
        let (dest, group) = (system::port::<Members>(&self.home), self.key());
        let members = ask::ask(cx, dest, limits::ASK_DEADLINE, |reply| Members {
            group,
            reply,
        });
        Ok(members.await?.into_iter().map(PortRef::attest).collect())
    }

    /// Posts a message to each member, and tells to how many. What cannot be delivered comes back to the sender, as for
    /// every post.
    ///
    /// # Errors
    /// [`AskError`]: the group's home did not say who the members are, and nothing was posted.
    ///
    /// # Ordering
    /// The messages go from the sender straight to the members: two broadcasts of one sender, one awaited before the other,
    /// arrive at each member in that order.
    ///
    /// # Cancel safety
    /// A future that is dropped before it resolves has posted to all or to none.
    pub async fn broadcast(
        &self,
        cx: &(impl Outbox + ?Sized),
        message: M,
    ) -> Result<usize, AskError>
    where
        M: Clone + Sync,
    {
        let members = self.members(cx).await?;
        for member in &members {
            member.post(cx, message.clone());
        }
        Ok(members.len())
    }
}

impl<M: Message> Message for Group<M> {
    const TYPE_HASH: u64 = hyperactor_mailbox::combine(
        hyperactor_mailbox::type_hash("hyperactor.Group"),
        M::TYPE_HASH,
    );

    fn type_name() -> std::borrow::Cow<'static, str> {
        format!("hyperactor.Group<{}>", M::type_name()).into()
    }
}

impl<M> Clone for Group<M> {
    fn clone(&self) -> Self {
        Self {
            home: Arc::clone(&self.home),
            name: self.name.clone(),
            message: PhantomData,
        }
    }
}

impl<M> PartialEq for Group<M> {
    fn eq(&self, other: &Self) -> bool {
        self.home == other.home && self.name == other.name
    }
}

impl<M> Eq for Group<M> {}

impl<M> fmt::Debug for Group<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Group({} at {})", self.name, self.home)
    }
}

/// One group of a proc: groups of two types of messages may have one name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
struct GroupKey {
    name: String,
    type_hash: u64,
}

#[derive(Message, Serialize, Deserialize)]
#[message(name = "hyperactor.system.Join")]
struct Join {
    group: GroupKey,
    member: PortId,
    reply: OncePortRef<bool>,
}

#[derive(Message, Serialize, Deserialize)]
#[message(name = "hyperactor.system.Leave")]
struct Leave {
    group: GroupKey,
    member: PortId,
    reply: OncePortRef<bool>,
}

#[derive(Message, Serialize, Deserialize)]
#[message(name = "hyperactor.system.Members")]
struct Members {
    group: GroupKey,
    reply: OncePortRef<Vec<PortId>>,
}

/// The groups that have their home in a proc.
#[derive(Default)]
pub(crate) struct Groups {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    groups: BTreeMap<GroupKey, HashMap<PortId, u64>>,
    members: usize,
}

impl Groups {
    /// The groups by name, with the number of their members.
    pub(crate) fn list(&self) -> Vec<(String, u64)> {
        let table = self.table.lock();
        let groups = table.groups.iter();
        groups
            .map(|(key, members)| (key.name.clone(), members.len() as u64))
            .collect()
    }

    fn members(&self, group: &GroupKey) -> Vec<PortId> {
        let table = self.table.lock();
        let members = table.groups.get(group).into_iter().flat_map(HashMap::keys);
        let mut members: Vec<PortId> = members.cloned().collect();
        members.sort_unstable_by(by_id);
        members
    }

    /// Takes a member out, if it is the one of this watch, where one is named.
    fn remove(&self, group: &GroupKey, member: &PortId, only: Option<u64>) -> Option<u64> {
        let mut table = self.table.lock();
        let members = table.groups.get_mut(group)?;
        let key = *members.get(member)?;
        if only.is_some_and(|only| only != key) {
            return None;
        }
        members.remove(member);
        if members.is_empty() {
            table.groups.remove(group);
        }
        table.members -= 1;
        Some(key)
    }
}

fn by_id(a: &PortId, b: &PortId) -> Ordering {
    let by_actor = a.actor_id().cmp(b.actor_id());
    by_actor.then_with(|| a.index().cmp(&b.index()))
}

impl Proc {
    fn join_group(&self, group: &GroupKey, member: &PortId) -> bool {
        if check_name(&group.name).is_err() {
            return false;
        }
        let key = self.next_key();
        {
            let mut table = self.system().groups.table.lock();
            let is_full = table.members >= limits::GROUP_MEMBERS_MAX;
            let members = table.groups.entry(group.clone()).or_default();
            if members.contains_key(member) {
                return true;
            }
            if is_full {
                if members.is_empty() {
                    table.groups.remove(group);
                }
                return false;
            }
            members.insert(member.clone(), key);
            table.members += 1;
        }
        let (weak, group, port) = (self.downgrade(), group.clone(), member.clone());
        let told = Told::List {
            leave: Box::new(move |_| {
                if let Ok(proc) = weak.upgrade() {
                    proc.system().groups.remove(&group, &port, Some(key));
                }
            }),
            watcher: self.system().actor_id().clone(),
        };
        self.watch_actor(key, member.actor_id(), told);
        true
    }

    fn leave_group(&self, group: &GroupKey, member: &PortId) -> bool {
        match self.system().groups.remove(group, member, None) {
            Some(key) => {
                self.unwatch_actor(key, member.actor_id());
                true
            }
            None => false,
        }
    }
}

pub(crate) fn bind(system: &System, proc: &WeakProc) {
    system.on::<Join>(proc, |proc, _, request| {
        let joined = proc.join_group(&request.group, &request.member);
        request.reply.post(&FromSystem(proc.clone()), joined);
    });
    system.on::<Leave>(proc, |proc, _, request| {
        let left = proc.leave_group(&request.group, &request.member);
        request.reply.post(&FromSystem(proc.clone()), left);
    });
    system.on::<Members>(proc, |proc, _, request| {
        let members = proc.system().groups.members(&request.group);
        request.reply.post(&FromSystem(proc.clone()), members);
    });
}
