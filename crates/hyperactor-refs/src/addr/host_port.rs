//! A host and a port that can be dialled.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU16;

use super::error::AddrError;
use super::host::Host;

/// A host and a port that can be dialled: the host is not unspecified and the port is not zero.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    host: Host,
    port: NonZeroU16,
}

impl HostPort {
    /// Joins a host and a port.
    ///
    /// # Errors
    ///
    /// [`AddrError::WildcardHost`] and [`AddrError::PortZero`].
    pub fn new(host: Host, port: u16) -> Result<Self, AddrError> {
        if host.is_unspecified() {
            return Err(AddrError::WildcardHost);
        }
        let port = NonZeroU16::new(port).ok_or(AddrError::PortZero)?;
        Ok(Self { host, port })
    }

    /// The host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port; not zero.
    pub fn port(&self) -> u16 {
        self.port.get()
    }

    /// The socket address, if there is nothing left to resolve: neither a name nor a zone that is given by the name
    /// of an interface.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        self.host.socket_addr(self.port())
    }
}

impl TryFrom<SocketAddr> for HostPort {
    type Error = AddrError;

    fn try_from(addr: SocketAddr) -> Result<Self, AddrError> {
        Self::new(Host::from(addr), addr.port())
    }
}

impl fmt::Display for HostPort {
    /// As in an address: `127.0.0.1:80`, `[::1]:80`, `localhost:80`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_host_port(f, &self.host, self.port())
    }
}

pub(super) fn write_host_port(f: &mut fmt::Formatter<'_>, host: &Host, port: u16) -> fmt::Result {
    match host {
        Host::V6(scoped) => write!(f, "[{scoped}]:{port}"),
        Host::V4(_) | Host::Name(_) => write!(f, "{host}:{port}"),
    }
}
