//! Addresses that can be dialled.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::Path;
use std::str::FromStr;

use super::error::AddrError;
use super::host::Host;
use super::host_port::HostPort;
use super::parse;
use super::transport::ChannelTransport;
use super::unix::UnixAddr;
use crate::text::error::{ParseError, ParseErrorKind, run};
use crate::text::piece::{Fault, Piece};

/// Where a channel can be dialled, in its one form.
///
/// The text is `local:7`, `tcp:host:port`, `tls:host:port`, `unix:/path` or `unix:@abstract`; the URL spellings
/// (`tcp://host:port`, `unix:///path`, `unix://@abstract`, `inproc://7`) parse too. Wildcards are no addresses: see
/// [`BindSpec`](crate::BindSpec). The grammar stands in `docs/spec/address.md`.
///
/// ```
/// use hyperactor_refs::ChannelAddr;
///
/// let addr: ChannelAddr = "TCP://127.1:0080".parse()?;
/// assert_eq!(addr.to_string(), "tcp:127.0.0.1:80");
/// # Ok::<(), hyperactor_refs::ParseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ChannelAddr {
    /// Within this process, by number. Zero is for binding alone.
    Local(NonZeroU64),
    /// TCP, in plain text.
    Tcp(HostPort),
    /// TLS over TCP.
    Tls(HostPort),
    /// A Unix stream socket.
    Unix(UnixAddr),
}

impl ChannelAddr {
    /// An address within this process.
    ///
    /// # Errors
    ///
    /// [`AddrError::LocalZero`] for zero, which binds any number.
    pub fn local(number: u64) -> Result<Self, AddrError> {
        NonZeroU64::new(number)
            .map(Self::Local)
            .ok_or(AddrError::LocalZero)
    }

    /// A TCP address.
    ///
    /// # Errors
    ///
    /// [`AddrError::WildcardHost`] and [`AddrError::PortZero`]: those can be bound and not dialled.
    pub fn tcp(addr: SocketAddr) -> Result<Self, AddrError> {
        addr.try_into().map(Self::Tcp)
    }

    /// A TCP address of a host, which may be a name.
    ///
    /// # Errors
    ///
    /// As [`Host::new`] and [`HostPort::new`].
    pub fn tcp_host(host: &str, port: u16) -> Result<Self, AddrError> {
        HostPort::new(Host::new(host)?, port).map(Self::Tcp)
    }

    /// A TLS address.
    ///
    /// # Errors
    ///
    /// As [`ChannelAddr::tcp`].
    pub fn tls(addr: SocketAddr) -> Result<Self, AddrError> {
        addr.try_into().map(Self::Tls)
    }

    /// A TLS address of a host, which may be a name.
    ///
    /// # Errors
    ///
    /// As [`ChannelAddr::tcp_host`].
    pub fn tls_host(host: &str, port: u16) -> Result<Self, AddrError> {
        HostPort::new(Host::new(host)?, port).map(Self::Tls)
    }

    /// The address of a Unix socket at a path.
    ///
    /// # Errors
    ///
    /// As [`UnixAddr::path`]: an empty path, one with a NUL, of a directory, or of more than 107 bytes is refused, and
    /// the error names path and limit.
    pub fn unix_path(path: impl AsRef<Path>) -> Result<Self, AddrError> {
        UnixAddr::path(path).map(Self::Unix)
    }

    /// The address of a Unix socket with an abstract name, without its leading NUL.
    ///
    /// # Errors
    ///
    /// As [`UnixAddr::abstract_name`].
    pub fn unix_abstract(name: impl AsRef<[u8]>) -> Result<Self, AddrError> {
        UnixAddr::abstract_name(name).map(Self::Unix)
    }

    /// The kind of channel.
    pub const fn transport(&self) -> ChannelTransport {
        match self {
            Self::Local(_) => ChannelTransport::Local,
            Self::Tcp(_) => ChannelTransport::Tcp,
            Self::Tls(_) => ChannelTransport::Tls,
            Self::Unix(_) => ChannelTransport::Unix,
        }
    }

    /// The host and port of a TCP or TLS address.
    pub const fn host_port(&self) -> Option<&HostPort> {
        match self {
            Self::Tcp(host_port) | Self::Tls(host_port) => Some(host_port),
            Self::Local(_) | Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for ChannelAddr {
    /// The canonical text, which parses back to an equal address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.transport().scheme())?;
        f.write_str(":")?;
        match self {
            Self::Local(number) => number.fmt(f),
            Self::Tcp(host_port) | Self::Tls(host_port) => host_port.fmt(f),
            Self::Unix(unix) => unix.fmt(f),
        }
    }
}

impl FromStr for ChannelAddr {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        run("a channel address", text, parse_channel_addr)
    }
}

/// Reads an address that fills the whole piece.
pub(crate) fn parse_channel_addr(whole: Piece<'_>) -> Result<ChannelAddr, Fault> {
    let written = parse::scheme(whole)?;
    match written.transport {
        ChannelTransport::Local => {
            let rest = written.rest;
            let number = written
                .local()?
                .ok_or_else(|| rest.fault(ParseErrorKind::BadNumber, "a decimal number"))?;
            ChannelAddr::local(number).map_err(|error| parse::fault_of(rest, &error))
        }
        ChannelTransport::Tcp => parse_host_port(&written).map(ChannelAddr::Tcp),
        ChannelTransport::Tls => parse_host_port(&written).map(ChannelAddr::Tls),
        ChannelTransport::Unix => {
            let rest = written.rest;
            written.unix()?.map(ChannelAddr::Unix).ok_or_else(|| {
                rest.fault(
                    ParseErrorKind::MissingPath,
                    "a path or `@` and an abstract name",
                )
            })
        }
    }
}

fn parse_host_port(written: &parse::Written<'_>) -> Result<HostPort, Fault> {
    let found = written.host_port()?.ok_or_else(|| {
        written
            .rest
            .fault(ParseErrorKind::MissingHost, "a host and a port")
    })?;
    let (host_piece, port_piece) = (found.host_piece, found.port_piece);
    HostPort::new(found.host, found.port).map_err(|error| {
        let place = if error == AddrError::PortZero {
            port_piece
        } else {
            host_piece
        };
        parse::fault_of(place, &error)
    })
}

/// The body of the fuzz target for [`ChannelAddr`].
#[cfg(any(feature = "fuzzing", test))]
pub fn fuzz_channel_addr(data: &[u8]) -> crate::fuzzing::Seen {
    crate::fuzzing::check_text::<ChannelAddr>(data)
}
