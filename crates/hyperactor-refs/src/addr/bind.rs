//! What can be bound: every address, and the open forms that nothing can dial.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use super::channel::ChannelAddr;
use super::host::Host;
use super::host_port::{HostPort, write_host_port};
use super::parse;
use super::transport::ChannelTransport;
use super::unix::UnixAddr;
use crate::text::error::{ParseError, run};
use crate::text::piece::{Fault, Piece};

/// What a channel can be bound to. Binding it gives a [`ChannelAddr`], which can be dialled.
///
/// ```
/// use hyperactor_refs::{BindSpec, ChannelTransport};
///
/// let spec: BindSpec = "tcp:0.0.0.0:0".parse()?;
/// assert_eq!(spec.transport(), ChannelTransport::Tcp);
/// assert_eq!("unix:".parse::<BindSpec>()?, BindSpec::Any(ChannelTransport::Unix));
/// # Ok::<(), hyperactor_refs::ParseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum BindSpec {
    /// Any free address of a transport, of whoever binds it choosing; for TCP and TLS one on loopback. Its text is the
    /// scheme alone: `unix:`.
    Any(ChannelTransport),
    /// This address.
    Addr(ChannelAddr),
    /// All addresses of the machine, or any port, or both, for TCP.
    TcpWildcard(WildcardPort),
    /// The same for TLS.
    TlsWildcard(WildcardPort),
}

impl BindSpec {
    /// A TCP address or wildcard.
    pub fn tcp(addr: SocketAddr) -> Self {
        Self::tcp_host(Host::from(addr), addr.port())
    }

    /// A TCP address or wildcard of a host, which may be a name.
    pub fn tcp_host(host: Host, port: u16) -> Self {
        match open(host, port) {
            Ok(host_port) => Self::Addr(ChannelAddr::Tcp(host_port)),
            Err(wildcard) => Self::TcpWildcard(wildcard),
        }
    }

    /// A TLS address or wildcard.
    pub fn tls(addr: SocketAddr) -> Self {
        Self::tls_host(Host::from(addr), addr.port())
    }

    /// A TLS address or wildcard of a host, which may be a name.
    pub fn tls_host(host: Host, port: u16) -> Self {
        match open(host, port) {
            Ok(host_port) => Self::Addr(ChannelAddr::Tls(host_port)),
            Err(wildcard) => Self::TlsWildcard(wildcard),
        }
    }

    /// The kind of channel.
    pub const fn transport(&self) -> ChannelTransport {
        match self {
            Self::Any(transport) => *transport,
            Self::Addr(addr) => addr.transport(),
            Self::TcpWildcard(_) => ChannelTransport::Tcp,
            Self::TlsWildcard(_) => ChannelTransport::Tls,
        }
    }

    /// The address, if it is one.
    pub const fn addr(&self) -> Option<&ChannelAddr> {
        match self {
            Self::Addr(addr) => Some(addr),
            Self::Any(_) | Self::TcpWildcard(_) | Self::TlsWildcard(_) => None,
        }
    }
}

/// A host and a port of which at least one is open: the host is unspecified, or the port is zero.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WildcardPort {
    host: Host,
    port: u16,
}

impl WildcardPort {
    /// The host, perhaps the unspecified address.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port; zero is any.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The socket address to bind, if there is nothing left to resolve: neither a name nor a zone that is given by
    /// the name of an interface.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        self.host.socket_addr(self.port)
    }
}

impl fmt::Display for WildcardPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_host_port(f, &self.host, self.port)
    }
}

/// What can be dialled as a `HostPort`, so that one place has one form; the rest as a wildcard.
fn open(host: Host, port: u16) -> Result<HostPort, WildcardPort> {
    // A host is two words; cloning it is at most a count.
    HostPort::new(host.clone(), port).map_err(|_| WildcardPort { host, port })
}

impl From<ChannelAddr> for BindSpec {
    fn from(addr: ChannelAddr) -> Self {
        Self::Addr(addr)
    }
}

impl From<&ChannelAddr> for BindSpec {
    fn from(addr: &ChannelAddr) -> Self {
        Self::Addr(addr.clone())
    }
}

impl From<ChannelTransport> for BindSpec {
    fn from(transport: ChannelTransport) -> Self {
        Self::Any(transport)
    }
}

impl From<UnixAddr> for BindSpec {
    fn from(addr: UnixAddr) -> Self {
        Self::Addr(ChannelAddr::Unix(addr))
    }
}

impl fmt::Display for BindSpec {
    /// The canonical text, which parses back to an equal specification.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any(transport) => write!(f, "{}:", transport.scheme()),
            Self::Addr(addr) => addr.fmt(f),
            Self::TcpWildcard(wildcard) => write!(f, "tcp:{wildcard}"),
            Self::TlsWildcard(wildcard) => write!(f, "tls:{wildcard}"),
        }
    }
}

impl FromStr for BindSpec {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        run("a bind specification", text, parse_bind_spec)
    }
}

pub(crate) fn parse_bind_spec(whole: Piece<'_>) -> Result<BindSpec, Fault> {
    let written = parse::scheme(whole)?;
    let any = BindSpec::Any(written.transport);
    Ok(match written.transport {
        ChannelTransport::Local => match written.local()?.map(ChannelAddr::local) {
            Some(Ok(addr)) => BindSpec::Addr(addr),
            // `local:0` is how other programs write "any".
            Some(Err(_)) | None => any,
        },
        ChannelTransport::Tcp => written
            .host_port()?
            .map_or(any, |found| BindSpec::tcp_host(found.host, found.port)),
        ChannelTransport::Tls => written
            .host_port()?
            .map_or(any, |found| BindSpec::tls_host(found.host, found.port)),
        ChannelTransport::Unix => written
            .unix()?
            .map_or(any, |unix| BindSpec::Addr(ChannelAddr::Unix(unix))),
    })
}

/// The body of the fuzz target for [`BindSpec`].
#[cfg(any(feature = "fuzzing", test))]
pub fn fuzz_bind_spec(data: &[u8]) -> crate::fuzzing::Seen {
    if let Ok(addr) = std::str::from_utf8(data)
        .unwrap_or_default()
        .parse::<ChannelAddr>()
    {
        // What can be dialled can be bound, in the same words.
        let spec = std::str::from_utf8(data)
            .unwrap_or_default()
            .parse::<BindSpec>();
        assert_eq!(spec, Ok(BindSpec::Addr(addr)));
    }
    crate::fuzzing::check_text::<BindSpec>(data)
}
