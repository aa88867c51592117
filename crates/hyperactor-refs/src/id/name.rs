//! What the checked constructors take as the name of a proc or an actor.

use std::error::Error;
use std::fmt;

use crate::limits::MAX_NAME_BYTES;

/// Why a name is refused by a checked constructor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NameError {
    /// The name is empty.
    Empty,
    /// The name is longer than [`MAX_NAME_BYTES`].
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// The name has a control character, such as NUL or a line feed.
    Control {
        /// The character.
        character: char,
        /// Its place in the name, in bytes.
        at: usize,
    },
}

impl NameError {
    /// A stable word for programs: it does not change when the message does.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Empty => "name-empty",
            Self::TooLong { .. } => "name-too-long",
            Self::Control { .. } => "name-control-character",
        }
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("empty name: give the proc or actor at least one character"),
            Self::TooLong { len } => {
                write!(
                    f,
                    "name of {len} bytes: the longest name has {MAX_NAME_BYTES}"
                )
            }
            Self::Control { character, at } => {
                write!(
                    f,
                    "name with the control character {character:?} at byte {at}: leave it out"
                )
            }
        }
    }
}

impl Error for NameError {}

/// Checks that a name is one to give to a proc or an actor: not empty, at most [`MAX_NAME_BYTES`], and without
/// control characters. Anything else may stand in it.
///
/// # Errors
///
/// The first of the three that it breaks.
pub fn check_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(NameError::TooLong { len: name.len() });
    }
    match name.char_indices().find(|(_, c)| c.is_control()) {
        Some((at, character)) => Err(NameError::Control { character, at }),
        None => Ok(()),
    }
}

/// The body of the fuzz target that builds ids of any names: what can be built prints and parses back.
#[cfg(any(feature = "fuzzing", test))]
pub fn fuzz_names(data: &[u8]) -> crate::fuzzing::Seen {
    use crate::addr::ChannelAddr;
    use crate::fuzzing::{Parts, Seen, check_value, shape};
    use crate::id::{ActorId, PortId, ProcId, Reference};

    let mut parts = Parts(data);
    let addr = ChannelAddr::unix_abstract(parts.bytes())
        .or_else(|_| ChannelAddr::local(1))
        .unwrap_or_else(|error| unreachable!("1 is not 0: {error}"));
    let (proc_name, actor_name) = (parts.string(), parts.string());
    let checked = ProcId::direct(addr.clone(), proc_name.clone());
    assert_eq!(checked.is_ok(), check_name(&proc_name).is_ok());
    let proc = ProcId::Direct(addr, proc_name);
    check_value(&proc);
    let actor = ActorId::new(proc.clone(), actor_name, parts.number());
    check_value(&actor);
    let port = PortId::new(actor.clone(), parts.number());
    check_value(&port);
    let (proc, actor, port) = (
        Reference::from(proc),
        Reference::from(actor),
        Reference::from(port),
    );
    for reference in [&proc, &actor, &port] {
        check_value(reference);
    }
    assert!(
        proc < actor && actor < port,
        "{port} does not follow its prefixes"
    );
    assert!(proc.is_prefix_of(&actor) && proc.is_prefix_of(&port) && actor.is_prefix_of(&port));
    assert!(!port.is_prefix_of(&actor) && !actor.is_prefix_of(&proc) && !port.is_prefix_of(&proc));
    Seen(1 << 32 | u64::from(checked.is_ok()) << 31 | shape(port.to_string().as_bytes()))
}
