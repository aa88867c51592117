//! The id of a proc: where its host can be reached, and what it is called there.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use super::hash::hash_of;
use super::name::{NameError, check_name};
use super::parse::parse_proc_id;
use crate::addr::ChannelAddr;
use crate::text::error::{ParseError, run};
use crate::text::escape::EscapedName;

/// The id of a proc.
///
/// Its text is the host's address, a comma and the name: `unix:@abc123,service`. Characters of the name that the
/// grammar needs are escaped, so every id parses back to itself.
///
/// ```
/// use hyperactor_refs::{ChannelAddr, ProcId};
///
/// let addr: ChannelAddr = "unix:@abc123".parse()?;
/// let proc_id = ProcId::Direct(addr, "service".to_string());
/// assert_eq!(proc_id.to_string(), "unix:@abc123,service");
/// assert_eq!("unix:@abc123,service".parse::<ProcId>()?, proc_id);
/// # Ok::<(), hyperactor_refs::ParseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ProcId {
    /// A proc under its host's address, with its name there. [`ProcId::direct`] is the checked constructor; here any
    /// string is taken, and prints and parses back.
    Direct(ChannelAddr, String),
}

impl ProcId {
    /// The id of the proc `name` of the host at `addr`.
    ///
    /// # Errors
    ///
    /// Those of [`check_name`]: the name is empty, longer than [`MAX_NAME_BYTES`](crate::limits::MAX_NAME_BYTES), or
    /// has a control character.
    pub fn direct(addr: ChannelAddr, name: impl Into<String>) -> Result<Self, NameError> {
        let name = name.into();
        check_name(&name)?;
        Ok(Self::Direct(addr, name))
    }

    /// The address of the host.
    pub const fn addr(&self) -> &ChannelAddr {
        let Self::Direct(addr, _) = self;
        addr
    }

    /// The name of the proc within its host.
    pub fn name(&self) -> &str {
        let Self::Direct(_, name) = self;
        name
    }
}

impl fmt::Display for ProcId {
    /// The canonical text, which parses back to an equal id.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.addr(), EscapedName(self.name()))
    }
}

impl FromStr for ProcId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        run("a proc id", text, parse_proc_id)
    }
}

/// A shared proc id with its hash: what ids of actors hold, and what maps of procs are keyed by.
#[derive(Clone, Debug)]
pub(crate) struct ProcKey {
    pub(crate) proc: Arc<ProcId>,
    pub(crate) hash: u64,
}

impl ProcKey {
    pub(crate) fn new(proc: Arc<ProcId>) -> Self {
        let hash = hash_of_proc(&proc);
        Self { proc, hash }
    }
}

pub(crate) fn hash_of_proc(proc: &ProcId) -> u64 {
    hash_of(proc)
}

/// A proc id with its hash, owned or not: a map of [`ProcKey`]s is asked with it without touching a count.
pub(crate) trait ProcLookup {
    fn proc(&self) -> &ProcId;
    fn proc_hash(&self) -> u64;
}

impl ProcLookup for ProcKey {
    fn proc(&self) -> &ProcId {
        &self.proc
    }

    fn proc_hash(&self) -> u64 {
        self.hash
    }
}

impl ProcLookup for (&ProcId, u64) {
    fn proc(&self) -> &ProcId {
        self.0
    }

    fn proc_hash(&self) -> u64 {
        self.1
    }
}

impl<'a> Borrow<dyn ProcLookup + 'a> for ProcKey {
    fn borrow(&self) -> &(dyn ProcLookup + 'a) {
        self
    }
}

impl Hash for dyn ProcLookup + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.proc_hash());
    }
}

impl PartialEq for dyn ProcLookup + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.proc_hash() == other.proc_hash()
            && (std::ptr::eq(self.proc(), other.proc()) || self.proc() == other.proc())
    }
}

impl Eq for dyn ProcLookup + '_ {}

impl Hash for ProcKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl PartialEq for ProcKey {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && (Arc::ptr_eq(&self.proc, &other.proc) || self.proc == other.proc)
    }
}

impl Eq for ProcKey {}

/// The body of the fuzz target for [`ProcId`].
#[cfg(any(feature = "fuzzing", test))]
pub fn fuzz_proc_id(data: &[u8]) -> crate::fuzzing::Seen {
    crate::fuzzing::check_text::<ProcId>(data)
}
