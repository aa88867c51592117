//! Every limit of this crate, by name. It holds numbers and where they come from, and no code.

/// The longest path of a Unix socket, in bytes: `sun_path` of Linux has 108, and the last is a NUL.
///
/// Source: `unix(7)`.
pub const MAX_UNIX_PATH_BYTES: usize = 107;

/// The longest abstract name of a Unix socket, in bytes: `sun_path` of Linux has 108, and the first is a NUL.
///
/// Source: `unix(7)`.
pub const MAX_UNIX_ABSTRACT_BYTES: usize = 107;

/// The longest host name, in bytes, without a trailing dot.
///
/// Source: RFC 1035, section 2.3.4, less the length bytes of the wire form.
pub const MAX_HOST_NAME_BYTES: usize = 253;

/// The longest label of a host name, in bytes. Source: RFC 1035, section 2.3.4.
pub const MAX_HOST_LABEL_BYTES: usize = 63;

/// The longest name of a network interface, in bytes: `IFNAMSIZ` of Linux is 16 with its NUL.
///
/// Source: `netdevice(7)`.
pub const MAX_ZONE_NAME_BYTES: usize = 15;

/// The longest name of a proc or an actor that the checked constructors take, in bytes.
///
/// Printing and parsing have no limit of their own: every value that can be built prints and parses back, and
/// takes memory in proportion to its text.
pub const MAX_NAME_BYTES: usize = 1024;

/// How many bytes of an input an error keeps around the place of the fault.
pub const MAX_ERROR_EXCERPT_BYTES: usize = 160;

/// The longest input, in bytes, for which an error looks for the nearest valid form.
pub const MAX_SUGGESTION_BYTES: usize = 1024;
