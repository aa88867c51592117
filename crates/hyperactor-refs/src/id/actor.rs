//! The id of an actor: its proc, its name, and its index among the actors of that name.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use super::hash::{hash_of, join};
use super::name::{NameError, check_name};
use super::parse::parse_actor_id;
use super::proc::{ProcId, ProcKey};
use super::short_name::ShortName;
use crate::text::error::{ParseError, run};
use crate::text::escape::EscapedName;

/// The id of an actor.
///
/// Its text is the proc's, a comma, the name and the index: `unix:@abc123,service,counter[0]`.
///
/// A clone is one reference count; the hash is computed once, when the id is built; comparing looks at the pointers and
/// the hashes first. None of them allocates or formats.
#[derive(Clone)]
pub struct ActorId(Arc<Inner>);

struct Inner {
    hash: u64,
    index: u64,
    proc: ProcKey,
    name: ShortName,
}

impl ActorId {
    /// The id of the actor `name`, number `index`, in a proc. Any name is taken, and prints and parses back.
    pub fn new(proc: impl Into<Arc<ProcId>>, name: impl AsRef<str>, index: u64) -> Self {
        Self::in_proc(ProcKey::new(proc.into()), name.as_ref(), index)
    }

    /// The id of the first actor of its name: index 0.
    pub fn root(proc: impl Into<Arc<ProcId>>, name: impl AsRef<str>) -> Self {
        Self::new(proc, name, 0)
    }

    /// As [`ActorId::new`], with the name checked.
    ///
    /// # Errors
    ///
    /// Those of [`check_name`].
    pub fn checked(
        proc: impl Into<Arc<ProcId>>,
        name: impl AsRef<str>,
        index: u64,
    ) -> Result<Self, NameError> {
        check_name(name.as_ref())?;
        Ok(Self::new(proc, name, index))
    }

    /// The id of another actor in the same proc, which shares this one's proc id and its hash.
    pub fn sibling(&self, name: impl AsRef<str>, index: u64) -> Self {
        Self::in_proc(self.0.proc.clone(), name.as_ref(), index)
    }

    pub(crate) fn in_proc(proc: ProcKey, name: &str, index: u64) -> Self {
        let hash = join(proc.hash ^ hash_of(name), index);
        Self(Arc::new(Inner {
            hash,
            index,
            proc,
            name: ShortName::new(name),
        }))
    }

    /// The id of its proc.
    pub fn proc_id(&self) -> &ProcId {
        &self.0.proc.proc
    }

    /// The id of its proc, to share.
    pub fn proc(&self) -> &Arc<ProcId> {
        &self.0.proc.proc
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.0.name.as_str()
    }

    /// The index among the actors of this name.
    pub fn index(&self) -> u64 {
        self.0.index
    }

    /// The hash that was computed when the id was built. It is not for storing: another build may have another.
    pub fn precomputed_hash(&self) -> u64 {
        self.0.hash
    }

    /// Whether both are in one proc. As a rule a look at two numbers says that they are not.
    pub fn shares_proc(&self, other: &Self) -> bool {
        self.0.proc == other.0.proc
    }

    pub(crate) fn proc_key(&self) -> &ProcKey {
        &self.0.proc
    }

    #[inline(never)]
    fn has_equal_parts(&self, other: &Self) -> bool {
        self.0.hash == other.0.hash
            && self.0.index == other.0.index
            && self.0.name == other.0.name
            && self.0.proc == other.0.proc
    }
}

impl PartialEq for ActorId {
    // Most that are compared are one allocation, and it costs no call to see that.
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.has_equal_parts(other)
    }
}

impl Eq for ActorId {}

impl Hash for ActorId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

impl Ord for ActorId {
    /// By proc, then name, then index.
    fn cmp(&self, other: &Self) -> Ordering {
        if Arc::ptr_eq(&self.0, &other.0) {
            return Ordering::Equal;
        }
        let by_proc = if Arc::ptr_eq(self.proc(), other.proc()) {
            Ordering::Equal
        } else {
            self.proc_id().cmp(other.proc_id())
        };
        by_proc
            .then_with(|| self.0.name.cmp(&other.0.name))
            .then_with(|| self.0.index.cmp(&other.0.index))
    }
}

impl PartialOrd for ActorId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for ActorId {
    /// The canonical text, which parses back to an equal id.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{},{}[{}]",
            self.proc_id(),
            EscapedName(self.name()),
            self.index()
        )
    }
}

impl fmt::Debug for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ActorId({self})")
    }
}

impl FromStr for ActorId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        run("an actor id", text, parse_actor_id)
    }
}

/// The body of the fuzz target for [`ActorId`].
#[cfg(any(feature = "fuzzing", test))]
pub fn fuzz_actor_id(data: &[u8]) -> crate::fuzzing::Seen {
    crate::fuzzing::check_text::<ActorId>(data)
}
