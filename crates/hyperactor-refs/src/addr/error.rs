//! Why an address cannot be built from parts. The faults of a text are in [`ParseError`](crate::ParseError).

use std::error::Error;
use std::fmt;

use crate::limits::{
    MAX_HOST_LABEL_BYTES, MAX_HOST_NAME_BYTES, MAX_UNIX_ABSTRACT_BYTES, MAX_UNIX_PATH_BYTES,
    MAX_ZONE_NAME_BYTES,
};
use crate::text::error::ParseErrorKind;
use crate::text::escape::Escaped;

/// Why an address cannot be built.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddrError {
    /// The number of an in-process address is zero. [`BindSpec::Any`](crate::BindSpec::Any) binds any.
    LocalZero,
    /// The port is zero, which nothing can dial. A [`BindSpec`](crate::BindSpec) binds any port.
    PortZero,
    /// The address is unspecified (`0.0.0.0`, `[::]`), which nothing can dial.
    /// A [`BindSpec`](crate::BindSpec) binds all addresses.
    WildcardHost,
    /// The text is no host name.
    BadHostName {
        /// The text, cut if it is long.
        name: String,
        /// What a host name would have.
        reason: &'static str,
    },
    /// The text is neither a zone's number nor an interface's name.
    BadZone {
        /// The text, cut if it is long.
        zone: String,
    },
    /// A Unix path or abstract name is empty.
    EmptyUnix,
    /// The path has a NUL, at which the kernel would end it.
    NulInPath {
        /// The path, escaped as in an address.
        path: String,
    },
    /// The path names a directory: it ends in `/`, `/.` or `/..`.
    DirectoryPath {
        /// The path, escaped as in an address.
        path: String,
    },
    /// The path is longer than the kernel takes ([`MAX_UNIX_PATH_BYTES`]).
    PathTooLong {
        /// The path, escaped as in an address, cut if it is very long.
        path: String,
        /// Its length in bytes.
        len: usize,
    },
    /// The abstract name is longer than the kernel takes ([`MAX_UNIX_ABSTRACT_BYTES`]).
    AbstractTooLong {
        /// Its length in bytes.
        len: usize,
    },
}

impl AddrError {
    /// A stable word for programs: it does not change when the message does.
    pub const fn code(&self) -> &'static str {
        self.kind().code()
    }

    /// The kind that the fault has when it is met in a text.
    pub(crate) const fn kind(&self) -> ParseErrorKind {
        match self {
            Self::LocalZero => ParseErrorKind::LocalZero,
            Self::PortZero => ParseErrorKind::PortZero,
            Self::WildcardHost => ParseErrorKind::WildcardHost,
            Self::BadHostName { .. } => ParseErrorKind::BadHost,
            Self::BadZone { .. } => ParseErrorKind::BadZone,
            Self::EmptyUnix => ParseErrorKind::MissingPath,
            Self::NulInPath { .. } | Self::DirectoryPath { .. } => ParseErrorKind::BadPath,
            Self::PathTooLong { .. } | Self::AbstractTooLong { .. } => ParseErrorKind::PathTooLong,
        }
    }

    /// What a text should have had in that place.
    pub(crate) fn expected(&self) -> String {
        match self {
            Self::LocalZero => "a number from 1: 0 is for binding alone".to_owned(),
            Self::PortZero => "a port from 1 to 65535: 0 is for binding alone".to_owned(),
            Self::WildcardHost => {
                "a host that can be dialled: the unspecified address is for binding alone"
                    .to_owned()
            }
            Self::BadHostName { reason, .. } => (*reason).to_owned(),
            Self::BadZone { .. } => format!(
                "a zone: a number from 1, or an interface's name of at most {MAX_ZONE_NAME_BYTES} \
                 letters, digits and `-._`"
            ),
            Self::EmptyUnix => "a path or `@` and an abstract name".to_owned(),
            Self::NulInPath { .. } => "a path without NUL bytes".to_owned(),
            Self::DirectoryPath { .. } => "the path of a socket, not of a directory".to_owned(),
            Self::PathTooLong { len, .. } => {
                format!("a path of at most {MAX_UNIX_PATH_BYTES} bytes, not {len}")
            }
            Self::AbstractTooLong { len } => {
                format!("an abstract name of at most {MAX_UNIX_ABSTRACT_BYTES} bytes, not {len}")
            }
        }
    }

    pub(crate) fn bad_host_name(name: &str, reason: &'static str) -> Self {
        Self::BadHostName {
            name: cut(name),
            reason,
        }
    }

    pub(crate) fn bad_zone(zone: &str) -> Self {
        Self::BadZone { zone: cut(zone) }
    }
}

impl fmt::Display for AddrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expected = self.expected();
        match self {
            Self::LocalZero => write!(f, "local address 0: expected {expected}"),
            Self::PortZero => write!(f, "port 0: expected {expected}"),
            Self::WildcardHost => write!(f, "unspecified host: expected {expected}"),
            Self::BadHostName { name, .. } => write!(f, "host name {name:?}: expected {expected}"),
            Self::BadZone { zone } => write!(f, "zone {zone:?}: expected {expected}"),
            Self::EmptyUnix => write!(f, "empty unix address: expected {expected}"),
            Self::NulInPath { path } | Self::DirectoryPath { path } => {
                write!(f, "unix path {path}: expected {expected}")
            }
            Self::PathTooLong { path, .. } => write!(f, "unix path {path}: expected {expected}"),
            Self::AbstractTooLong { .. } => write!(f, "abstract unix name: expected {expected}"),
        }
    }
}

impl Error for AddrError {}

/// The text of a path for a message: escaped, and cut well behind the limit that it broke.
pub(crate) fn path_text(path: &[u8]) -> String {
    let kept = &path[..path.len().min(2 * MAX_UNIX_PATH_BYTES)];
    let dots = if kept.len() < path.len() { "…" } else { "" };
    format!("{}{dots}", Escaped(kept))
}

fn cut(text: &str) -> String {
    let most = MAX_HOST_NAME_BYTES + MAX_HOST_LABEL_BYTES;
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most)
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0);
    format!("{}…", &text[..end])
}
