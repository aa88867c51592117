//! Hosts: IPv4 and IPv6 addresses and names. A name stays a name here; who dials it resolves it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::num::NonZeroU32;
use std::sync::Arc;

use super::error::AddrError;
use super::ipv4::{self, Ipv4Text};
use crate::limits::{MAX_HOST_LABEL_BYTES, MAX_HOST_NAME_BYTES, MAX_ZONE_NAME_BYTES};

/// A host in its one form: an IPv4-mapped IPv6 address is the IPv4 address, and names are lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Host {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address, with its zone if it is link-local and has one.
    V6(ScopedV6),
    /// A host name, not resolved.
    Name(HostName),
}

impl Host {
    /// Makes a host of a name or an address, as it stands in a text: `localhost`, `127.0.0.1`, `::1`, `fe80::1%eth0`.
    ///
    /// # Errors
    ///
    /// [`AddrError::BadHostName`] and [`AddrError::BadZone`].
    pub fn new(text: &str) -> Result<Self, AddrError> {
        if text.contains(':') {
            return ScopedV6::read(text);
        }
        match ipv4::read(text) {
            Ipv4Text::Addr(addr) => Ok(Self::V4(addr)),
            Ipv4Text::Malformed(expected) => Err(AddrError::bad_host_name(text, expected)),
            Ipv4Text::NotANumber => HostName::new(text).map(Self::Name),
        }
    }

    /// An IPv6 address with its zone, in its one form: an IPv4-mapped address is the IPv4 address, and the zone of an
    /// address that is not link-local is dropped.
    pub fn v6(addr: Ipv6Addr, zone: Option<Zone>) -> Self {
        ScopedV6::host(addr, zone)
    }

    /// The IP address, if it is one. The zone is not part of it.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::V4(addr) => Some(IpAddr::V4(*addr)),
            Self::V6(scoped) => Some(IpAddr::V6(scoped.addr())),
            Self::Name(_) => None,
        }
    }

    /// The name, if it is one.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name.as_str()),
            Self::V4(_) | Self::V6(_) => None,
        }
    }

    /// The socket address with `port`, if there is nothing left to resolve: neither a name nor a zone that is given
    /// by the name of an interface.
    pub fn socket_addr(&self, port: u16) -> Option<SocketAddr> {
        match self {
            Self::V4(addr) => Some(SocketAddr::V4(SocketAddrV4::new(*addr, port))),
            Self::V6(scoped) => {
                let scope_id = match scoped.zone() {
                    None => 0,
                    Some(Zone::Index(index)) => index.get(),
                    Some(Zone::Name(_)) => return None,
                };
                Some(SocketAddr::V6(SocketAddrV6::new(
                    scoped.addr(),
                    port,
                    0,
                    scope_id,
                )))
            }
            Self::Name(_) => None,
        }
    }

    /// Whether it is the unspecified address, `0.0.0.0` or `::`.
    pub fn is_unspecified(&self) -> bool {
        self.ip().is_some_and(|ip| ip.is_unspecified())
    }

    /// Whether it is of this machine's loopback: `127.0.0.0/8`, `::1`, or a name that RFC 6761 (section 6.3) keeps
    /// for it (`localhost`, and names that end in `.localhost`).
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::V4(addr) => addr.is_loopback(),
            Self::V6(scoped) => scoped.addr().is_loopback(),
            Self::Name(name) => name.is_localhost(),
        }
    }
}

impl From<IpAddr> for Host {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(addr) => Self::V4(addr),
            IpAddr::V6(addr) => ScopedV6::host(addr, None),
        }
    }
}

impl From<SocketAddr> for Host {
    /// The host part. The scope of an address that is not link-local is dropped, as is the flow information.
    fn from(addr: SocketAddr) -> Self {
        match addr {
            SocketAddr::V4(v4) => Self::V4(*v4.ip()),
            SocketAddr::V6(v6) => {
                ScopedV6::host(*v6.ip(), NonZeroU32::new(v6.scope_id()).map(Zone::Index))
            }
        }
    }
}

impl From<HostName> for Host {
    fn from(name: HostName) -> Self {
        Self::Name(name)
    }
}

impl fmt::Display for Host {
    /// Without brackets: `127.0.0.1`, `fe80::1%eth0`, `localhost`. A resolver takes this text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(addr) => addr.fmt(f),
            Self::V6(scoped) => scoped.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// An IPv6 address that is no IPv4-mapped one, and its zone if it is link-local and has one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ScopedV6(Scoped);

/// The zone stands behind a pointer: it is rare, and an address stays small without it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Scoped {
    Plain(Ipv6Addr),
    Zoned(Arc<(Ipv6Addr, Zone)>),
}

impl ScopedV6 {
    /// The address.
    pub fn addr(&self) -> Ipv6Addr {
        match &self.0 {
            Scoped::Plain(addr) => *addr,
            Scoped::Zoned(zoned) => zoned.0,
        }
    }

    /// The zone of a link-local address.
    pub fn zone(&self) -> Option<&Zone> {
        match &self.0 {
            Scoped::Plain(_) => None,
            Scoped::Zoned(zoned) => Some(&zoned.1),
        }
    }

    /// The one form of an address with a zone. A zone chooses a link, so it is kept for link-local addresses alone.
    pub(super) fn host(addr: Ipv6Addr, zone: Option<Zone>) -> Host {
        if let Some(mapped) = addr.to_ipv4_mapped() {
            return Host::V4(mapped);
        }
        Host::V6(Self(match zone {
            Some(zone) if addr.is_unicast_link_local() => Scoped::Zoned(Arc::new((addr, zone))),
            _ => Scoped::Plain(addr),
        }))
    }

    fn read(text: &str) -> Result<Host, AddrError> {
        let (addr, zone) = match text.split_once('%') {
            Some((addr, zone)) => (addr, Some(Zone::new(zone)?)),
            None => (text, None),
        };
        match addr.parse() {
            Ok(addr) => Ok(Self::host(addr, zone)),
            Err(_) => Err(AddrError::bad_host_name(text, "an IPv6 address")),
        }
    }
}

impl fmt::Display for ScopedV6 {
    /// In the form of RFC 5952, with `%` and the zone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.zone() {
            None => self.addr().fmt(f),
            Some(zone) => write!(f, "{}%{zone}", self.addr()),
        }
    }
}

/// The zone of a link-local address: which of this machine's links it is on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Zone {
    /// The interface's number.
    Index(NonZeroU32),
    /// The interface's name, not resolved.
    Name(ZoneName),
}

impl Zone {
    /// Reads a zone: all digits are a number, anything else is a name.
    ///
    /// # Errors
    ///
    /// [`AddrError::BadZone`] for zero, a number beyond 32 bits, or what is no interface's name here.
    pub fn new(text: &str) -> Result<Self, AddrError> {
        let bytes = text.as_bytes();
        if !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit) {
            let index = text.parse::<u32>().ok().and_then(NonZeroU32::new);
            return index
                .map(Self::Index)
                .ok_or_else(|| AddrError::bad_zone(text));
        }
        let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        let named = (1..=MAX_ZONE_NAME_BYTES).contains(&bytes.len()) && bytes.iter().all(plain);
        if named {
            Ok(Self::Name(ZoneName(text.into())))
        } else {
            Err(AddrError::bad_zone(text))
        }
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => index.fmt(f),
            Self::Name(name) => f.write_str(name.as_str()),
        }
    }
}

/// The name of a network interface, of letters, digits and `-._`, and not of digits alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ZoneName(Box<str>);

impl ZoneName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A host name in lower case, by the rules of RFC 1123 with underscores allowed, perhaps with a dot at its end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(Arc<str>);

impl HostName {
    /// Checks a host name and makes it lower case.
    ///
    /// # Errors
    ///
    /// [`AddrError::BadHostName`] if it is empty, too long, has an empty or too long label, a character that host
    /// names have not, or a number as its last label (it would be an IPv4 address).
    pub fn new(name: &str) -> Result<Self, AddrError> {
        if let Some(reason) = fault_of_name(name) {
            return Err(AddrError::bad_host_name(name, reason));
        }
        Ok(if name.bytes().any(|b| b.is_ascii_uppercase()) {
            Self(name.to_ascii_lowercase().into())
        } else {
            Self(name.into())
        })
    }

    /// The name, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn is_localhost(&self) -> bool {
        let name = self.0.strip_suffix('.').unwrap_or(&self.0);
        name == "localhost" || name.ends_with(".localhost")
    }
}

fn fault_of_name(name: &str) -> Option<&'static str> {
    let undotted = name.strip_suffix('.').unwrap_or(name);
    if undotted.is_empty() {
        return Some("a host");
    }
    if undotted.len() > MAX_HOST_NAME_BYTES {
        return Some("a host name of at most 253 bytes");
    }
    if !name.is_ascii() {
        return Some("a host name in ASCII (an international one as `xn--…`)");
    }
    for label in undotted.split('.') {
        let bytes = label.as_bytes();
        if !(1..=MAX_HOST_LABEL_BYTES).contains(&bytes.len()) {
            return Some("a host name of labels of 1 to 63 bytes");
        }
        if bytes.first() == Some(&b'-') || bytes.last() == Some(&b'-') {
            return Some("a host name without `-` at the ends of a label");
        }
        if !bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        {
            return Some("a host name of letters, digits and `-_.`");
        }
    }
    match ipv4::read(undotted) {
        Ipv4Text::NotANumber => None,
        Ipv4Text::Addr(_) | Ipv4Text::Malformed(_) => {
            Some("a host name whose last label is not a number")
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The body of the fuzz target for [`Host::new`].
#[cfg(any(feature = "fuzzing", test))]
pub fn fuzz_host(data: &[u8]) -> crate::fuzzing::Seen {
    use crate::fuzzing::{NOTHING, Seen};
    let Ok(text) = std::str::from_utf8(data) else {
        return NOTHING;
    };
    match Host::new(text) {
        Ok(host) => {
            assert_eq!(
                Host::new(&host.to_string()).as_ref(),
                Ok(&host),
                "{text:?} has two forms"
            );
            if let Some(ip) = host.ip() {
                assert_eq!(host.socket_addr(1).map_or(ip, |addr| addr.ip()), ip);
            }
            let kind = match &host {
                Host::V4(_) => 1,
                Host::V6(scoped) => 2 + u64::from(scoped.zone().is_some()),
                Host::Name(name) => 4 + name.as_str().split('.').count() as u64,
            };
            Seen(1 << 32 | kind)
        }
        Err(error) => {
            // What is kept of the text is at most 316 bytes, and a byte prints as `\u{1}` at worst.
            assert!(error.to_string().len() < 2048);
            Seen(2 << 32 | error.code().len() as u64)
        }
    }
}
