//! The common part of the two grammars of addresses: a scheme, and what stands behind it, open or not.
//! Whether a form that only can be bound is taken, the types decide.

use super::error::AddrError;
use super::host::{Host, HostName, ScopedV6, Zone};
use super::ipv4::{self, Ipv4Text};
use super::transport::ChannelTransport;
use super::unix::UnixAddr;
use crate::text::error::ParseErrorKind;
use crate::text::escape::unescape;
use crate::text::piece::{Fault, NumberFault, Piece};

/// An address as it is written.
pub(super) struct Written<'a> {
    pub(super) transport: ChannelTransport,
    /// What stands behind the scheme, and behind `//` in the URL spelling.
    pub(super) rest: Piece<'a>,
    is_url: bool,
}

/// A host and a port as they are written, with their places.
pub(super) struct WrittenHostPort<'a> {
    pub(super) host: Host,
    pub(super) port: u16,
    pub(super) host_piece: Piece<'a>,
    pub(super) port_piece: Piece<'a>,
}

const SCHEMES: [(&str, ChannelTransport); 5] = [
    ("local", ChannelTransport::Local),
    ("inproc", ChannelTransport::Local),
    ("tcp", ChannelTransport::Tcp),
    ("tls", ChannelTransport::Tls),
    ("unix", ChannelTransport::Unix),
];

const SCHEME_EXPECTED: &str = "one of `local:`, `tcp:`, `tls:` and `unix:`";

/// Takes the scheme off.
pub(super) fn scheme(whole: Piece<'_>) -> Result<Written<'_>, Fault> {
    let Some((name, rest)) = whole.split_once(b':') else {
        return Err(no_scheme(whole));
    };
    let known = SCHEMES
        .iter()
        .find(|(scheme, _)| name.text().eq_ignore_ascii_case(scheme));
    let Some((_, transport)) = known else {
        return Err(unknown_scheme(whole, name));
    };
    let url = rest.strip_prefix("//");
    // `unix://` begins a URL only before `/` and `@`: a path may begin with two slashes, but then nobody knows which
    // of the two was meant.
    if *transport == ChannelTransport::Unix
        && let Some(path) = url
        && !matches!(path.bytes().first(), Some(b'/' | b'@') | None)
    {
        let mend = format!("/{}", path.text());
        return Err(rest
            .first(2)
            .fault(
                ParseErrorKind::BadPath,
                "`///` before an absolute path, or no slashes before a relative one",
            )
            .mend_at(rest.range(), mend));
    }
    Ok(Written {
        transport: *transport,
        rest: url.unwrap_or(rest),
        is_url: url.is_some(),
    })
}

fn no_scheme(whole: Piece<'_>) -> Fault {
    let fault = whole
        .first(0)
        .fault(ParseErrorKind::MissingScheme, SCHEME_EXPECTED);
    match whole.bytes().first() {
        Some(b'/' | b'@' | b'.') => fault.mend_with("unix:"),
        _ => fault,
    }
}

fn unknown_scheme(whole: Piece<'_>, name: Piece<'_>) -> Fault {
    let written = name.text();
    let mend = match written {
        "ipc" | "uds" | "file" => Some("unix".to_owned()),
        "ssl" => Some("tls".to_owned()),
        "" => None,
        _ => nearest_scheme(written),
    };
    if let Some(mend) = mend {
        return name
            .fault(ParseErrorKind::UnknownScheme, SCHEME_EXPECTED)
            .mend_with(mend);
    }
    if written.starts_with(['/', '@', '.']) {
        return no_scheme(whole);
    }
    // `localhost:80` and `[::1]:80` are addresses that lack their scheme.
    let port = whole.skip(name.bytes().len()).strip_prefix(":");
    let has_port = port.is_some_and(|port| port.number(u64::from(u16::MAX)).is_ok());
    if written.starts_with('[') || has_port && Host::new(written).is_ok() {
        return whole
            .first(0)
            .fault(ParseErrorKind::MissingScheme, SCHEME_EXPECTED)
            .mend_with("tcp:");
    }
    let kind = if written.is_empty() {
        ParseErrorKind::MissingScheme
    } else {
        ParseErrorKind::UnknownScheme
    };
    name.fault(kind, SCHEME_EXPECTED)
}

/// The scheme that a slip of the finger away from `written` is: one change, or two neighbours swapped.
fn nearest_scheme(written: &str) -> Option<String> {
    let lower = written.to_ascii_lowercase();
    if lower.len() > 8 || lower.len() < 2 {
        return None;
    }
    let near = SCHEMES
        .iter()
        .find(|(scheme, _)| is_one_slip(lower.as_bytes(), scheme.as_bytes()));
    near.map(|(scheme, _)| (*scheme).to_owned())
}

fn is_one_slip(a: &[u8], b: &[u8]) -> bool {
    let front = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let (a, b) = (&a[front..], &b[front..]);
    let back = a
        .iter()
        .rev()
        .zip(b.iter().rev())
        .take_while(|(x, y)| x == y)
        .count();
    match (&a[..a.len() - back], &b[..b.len() - back]) {
        ([_], [_]) | ([_], []) | ([], [_]) => true,
        ([x1, x2], [y1, y2]) => x1 == y2 && x2 == y1,
        _ => false,
    }
}

impl<'a> Written<'a> {
    /// The number of an in-process address; none if nothing is written.
    pub(super) fn local(&self) -> Result<Option<u64>, Fault> {
        match self.rest.number(u64::MAX) {
            Ok(number) => Ok(Some(number)),
            Err(NumberFault::Empty) => Ok(None),
            Err(NumberFault::NotADigit { at }) => Err(self
                .rest
                .skip(at)
                .fault(ParseErrorKind::BadNumber, "a decimal number")),
            Err(NumberFault::TooLarge) => Err(self
                .rest
                .fault(ParseErrorKind::BadNumber, "a number below 2^64")),
        }
    }

    /// The path or name of a Unix address; none if nothing is written.
    pub(super) fn unix(&self) -> Result<Option<UnixAddr>, Fault> {
        let rest = self.rest;
        if rest.is_empty() {
            return Ok(None);
        }
        let (written, addr) = match rest.strip_prefix("@") {
            Some(name) => (name, UnixAddr::abstract_name(unescape(name)?)),
            None => (rest, UnixAddr::path_bytes(&unescape(rest)?)),
        };
        // P16 is a deliberate fault for the test of the fuzz targets: parsing looks something up.
        let addr = if cfg!(planted = "P16") {
            addr.map(made_absolute)
        } else {
            addr
        };
        addr.map(Some).map_err(|error| fault_of(written, &error))
    }

    /// The host and port; none if nothing is written.
    pub(super) fn host_port(&self) -> Result<Option<WrittenHostPort<'a>>, Fault> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (host_piece, port_piece) = split_host_port(self.rest)?;
        let host = match bracketed(host_piece) {
            Some(inner) => self.ipv6(host_piece, inner)?,
            None => name_or_ipv4(host_piece)?,
        };
        let port = port_of(port_piece)?;
        Ok(Some(WrittenHostPort {
            host,
            port,
            host_piece,
            port_piece,
        }))
    }

    fn ipv6(&self, brackets: Piece<'a>, inner: Piece<'a>) -> Result<Host, Fault> {
        let (addr_piece, zone) = match inner.split_once(b'%') {
            Some((addr, zone)) => (addr, Some(self.zone(zone)?)),
            None => (inner, None),
        };
        match addr_piece.text().parse() {
            Ok(addr) => Ok(ScopedV6::host(addr, zone)),
            Err(_) => {
                let fault = addr_piece.fault(ParseErrorKind::BadIpv6, "an IPv6 address");
                let is_other = !inner.is_empty() && Host::new(inner.text()).is_ok();
                Err(if is_other {
                    fault.mend_at(brackets.range(), inner.text())
                } else {
                    fault
                })
            }
        }
    }

    fn zone(&self, piece: Piece<'a>) -> Result<Zone, Fault> {
        // In a URL the `%` itself is escaped (RFC 6874).
        let zone = if self.is_url {
            piece.strip_prefix("25").unwrap_or(piece)
        } else {
            piece
        };
        Zone::new(zone.text()).map_err(|error| fault_of(zone, &error))
    }
}

/// The fault that an address cannot be built from what is written at `piece`.
pub(super) fn fault_of(piece: Piece<'_>, error: &AddrError) -> Fault {
    piece.fault(error.kind(), error.expected())
}

/// What P16 does: a relative path is looked up in the working directory.
fn made_absolute(addr: UnixAddr) -> UnixAddr {
    let joined = match (addr.as_path(), std::env::current_dir()) {
        (Some(path), Ok(folder)) => UnixAddr::path(folder.join(path)),
        _ => return addr,
    };
    joined.unwrap_or(addr)
}

fn bracketed(host: Piece<'_>) -> Option<Piece<'_>> {
    let inner = host.strip_prefix("[")?;
    let (inner, _) = inner.rsplit_once(b']')?;
    Some(inner)
}

fn split_host_port(rest: Piece<'_>) -> Result<(Piece<'_>, Piece<'_>), Fault> {
    if rest.bytes().first() == Some(&b'[') {
        let Some(close) = rest.bytes().iter().position(|b| *b == b']') else {
            return Err(rest
                .behind()
                .fault(ParseErrorKind::BadIpv6, "`]` behind the IPv6 address"));
        };
        let (host, after) = (rest.first(close + 1), rest.skip(close + 1));
        return match after.bytes().first() {
            Some(b':') => Ok((host, after.skip(1))),
            None => Err(no_port(after)),
            Some(_) => Err(after.fault(ParseErrorKind::MissingPort, "`:` and a port")),
        };
    }
    let Some((host, port)) = rest.rsplit_once(b':') else {
        return Err(no_port(rest.behind()));
    };
    if host.bytes().contains(&b':') {
        let whole = rest.text().parse::<std::net::Ipv6Addr>().is_ok();
        let fault = rest.fault(
            ParseErrorKind::BadIpv6,
            "brackets around an IPv6 address, and a port",
        );
        let part = Host::new(host.text()).is_ok();
        return Err(match (part, whole) {
            (true, _) => fault.mend_with(format!("[{}]:{}", host.text(), port.text())),
            _ => fault,
        });
    }
    Ok((host, port))
}

fn no_port(place: Piece<'_>) -> Fault {
    place.fault(ParseErrorKind::MissingPort, "`:` and a port")
}

fn name_or_ipv4(piece: Piece<'_>) -> Result<Host, Fault> {
    if piece.is_empty() {
        return Err(piece.fault(ParseErrorKind::MissingHost, "a host"));
    }
    match ipv4::read(piece.text()) {
        Ipv4Text::Addr(addr) => Ok(Host::V4(addr)),
        Ipv4Text::Malformed(expected) => Err(piece.fault(ParseErrorKind::BadIpv4, expected)),
        Ipv4Text::NotANumber => HostName::new(piece.text())
            .map(Host::Name)
            .map_err(|error| {
                let fault = fault_of(piece, &error);
                if piece.text() == "*" {
                    fault.mend_with("0.0.0.0")
                } else {
                    fault
                }
            }),
    }
}

fn port_of(piece: Piece<'_>) -> Result<u16, Fault> {
    let expected = "a port from 0 to 65535";
    match piece.number(u64::from(u16::MAX)) {
        Ok(port) => u16::try_from(port).map_err(|_| piece.fault(ParseErrorKind::BadPort, expected)),
        Err(NumberFault::Empty) => Err(piece.fault(ParseErrorKind::MissingPort, "a port")),
        Err(NumberFault::TooLarge) => Err(piece.fault(ParseErrorKind::BadPort, expected)),
        Err(NumberFault::NotADigit { at: 0 }) => {
            Err(piece.fault(ParseErrorKind::BadPort, expected))
        }
        Err(NumberFault::NotADigit { at }) => Err(piece
            .skip(at)
            .fault(ParseErrorKind::TrailingText, "nothing behind the port")
            .mend_with("")),
    }
}
