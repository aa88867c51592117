//! Addresses of Unix sockets: a path, or a name in Linux's abstract space. No file is looked at.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::error::{AddrError, path_text};
use crate::limits::{MAX_UNIX_ABSTRACT_BYTES, MAX_UNIX_PATH_BYTES};
use crate::text::escape::Escaped;

/// The address of a Unix socket.
///
/// A path is kept without `.` components and doubled slashes, which never change its meaning. A `..` stays: what it
/// means depends on symbolic links.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnixAddr(Place);

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Place {
    Path(Arc<[u8]>),
    Abstract(Arc<[u8]>),
}

impl UnixAddr {
    /// The address of a socket at a path, absolute or relative.
    ///
    /// # Errors
    ///
    /// [`AddrError::EmptyUnix`], [`AddrError::NulInPath`], [`AddrError::DirectoryPath`] and
    /// [`AddrError::PathTooLong`], which name the path.
    pub fn path(path: impl AsRef<Path>) -> Result<Self, AddrError> {
        // On Unix these are the bytes of the path; elsewhere a superset of UTF-8.
        Self::path_bytes(path.as_ref().as_os_str().as_encoded_bytes())
    }

    /// The address of a socket with an abstract name, without its leading NUL.
    ///
    /// # Errors
    ///
    /// [`AddrError::EmptyUnix`] and [`AddrError::AbstractTooLong`]. Any byte may stand in the name.
    pub fn abstract_name(name: impl AsRef<[u8]>) -> Result<Self, AddrError> {
        let name = name.as_ref();
        if name.is_empty() {
            return Err(AddrError::EmptyUnix);
        }
        if name.len() > MAX_UNIX_ABSTRACT_BYTES {
            return Err(AddrError::AbstractTooLong { len: name.len() });
        }
        Ok(Self(Place::Abstract(name.into())))
    }

    /// The path, if it is one.
    pub fn as_path(&self) -> Option<&Path> {
        self.as_path_bytes().and_then(path_of)
    }

    /// The abstract name without its leading NUL, if it is one.
    pub fn as_abstract(&self) -> Option<&[u8]> {
        match &self.0 {
            Place::Path(_) => None,
            Place::Abstract(name) => Some(name),
        }
    }

    pub(crate) fn path_bytes(path: &[u8]) -> Result<Self, AddrError> {
        if path.is_empty() {
            return Err(AddrError::EmptyUnix);
        }
        if path.contains(&0) {
            return Err(AddrError::NulInPath {
                path: path_text(path),
            });
        }
        let last = path.rsplit(|b| *b == b'/').next().unwrap_or_default();
        if matches!(last, b"" | b"." | b"..") {
            return Err(AddrError::DirectoryPath {
                path: path_text(path),
            });
        }
        let path = normal(path);
        if path.len() > MAX_UNIX_PATH_BYTES {
            return Err(AddrError::PathTooLong {
                path: path_text(&path),
                len: path.len(),
            });
        }
        Ok(Self(Place::Path(path.into())))
    }

    /// The bytes of a path, or none if the name is abstract.
    pub(crate) fn as_path_bytes(&self) -> Option<&[u8]> {
        match &self.0 {
            Place::Path(bytes) => Some(bytes),
            Place::Abstract(_) => None,
        }
    }
}

/// The path without `.` components and doubled slashes.
fn normal(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    if path.first() == Some(&b'/') {
        out.push(b'/');
    }
    for (at, part) in path
        .split(|b| *b == b'/')
        .filter(|part| !matches!(*part, b"" | b"."))
        .enumerate()
    {
        if at > 0 {
            out.push(b'/');
        }
        out.extend_from_slice(part);
    }
    out
}

#[cfg(unix)]
fn path_of(bytes: &[u8]) -> Option<&Path> {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    Some(Path::new(OsStr::from_bytes(bytes)))
}

/// Where paths are not bytes, one that is not UTF-8 has no path.
#[cfg(not(unix))]
fn path_of(bytes: &[u8]) -> Option<&Path> {
    std::str::from_utf8(bytes).ok().map(Path::new)
}

impl fmt::Display for UnixAddr {
    /// As in an address: `/run/a.sock`, `@name`, escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Path(bytes) => Escaped(bytes).fmt(f),
            Place::Abstract(name) => write!(f, "@{}", Escaped(name)),
        }
    }
}

/// The body of the fuzz target that builds addresses from parts: what can be built prints and parses back.
#[cfg(any(feature = "fuzzing", test))]
pub fn fuzz_parts(data: &[u8]) -> crate::fuzzing::Seen {
    use std::net::{IpAddr, SocketAddr, SocketAddrV6};

    use crate::addr::{BindSpec, ChannelAddr};
    use crate::fuzzing::{Parts, Seen, check_value};

    let mut parts = Parts(data);
    let kind = parts.byte() % 6;
    let (number, bytes) = (parts.number(), parts.bytes());
    let port = u16::from_be_bytes([parts.byte(), parts.byte()]);
    let mut octets = [0; 16];
    octets
        .iter_mut()
        .zip(parts.bytes())
        .for_each(|(octet, byte)| *octet = *byte);
    let scope_id = u32::try_from(number & 0xffff_ffff).unwrap_or_default();
    let v6 = SocketAddr::V6(SocketAddrV6::new(octets.into(), port, 0, scope_id));
    let [a, b, c, d, ..] = octets;
    let v4 = SocketAddr::new(IpAddr::from([a, b, c, d]), port);
    let built = match kind {
        0 => ChannelAddr::local(number),
        1 => UnixAddr::path_bytes(bytes).map(ChannelAddr::Unix),
        2 => ChannelAddr::unix_abstract(bytes),
        3 => ChannelAddr::tcp(v4),
        4 => ChannelAddr::tls(v6),
        _ => ChannelAddr::tcp_host(&String::from_utf8_lossy(bytes), port),
    };
    check_value(&BindSpec::tcp(v6));
    check_value(&BindSpec::tls(v4));
    match built {
        Ok(addr) => {
            check_value(&addr);
            check_value(&BindSpec::from(addr));
            Seen(1 << 32 | u64::from(kind))
        }
        Err(error) => {
            assert!(error.to_string().len() < 2048, "{error}");
            Seen(2 << 32 | u64::from(kind) << 8 | error.code().len() as u64)
        }
    }
}
