//! serde: the text in formats that people read, a compact form in the others.
//!
//! The compact form is written by types of this file's own, so that a change of a public type cannot change bytes.
//! What is read goes through the checked constructors: bytes cannot make an address that a text cannot.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::{
    ActorId, BindSpec, ChannelAddr, ChannelTransport, Host, HostPort, Incarnation, PortId, ProcId,
    Reference, UnixAddr, Zone,
};

/// Visits a text and parses it.
struct TextVisitor<T>(std::marker::PhantomData<T>, &'static str);

impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse()
            .map_err(|error| E::custom(format_args!("{error:#}")))
    }
}

fn text<'de, T, D>(deserializer: D, what: &'static str) -> Result<T, D::Error>
where
    T: FromStr<Err: fmt::Display>,
    D: Deserializer<'de>,
{
    deserializer.deserialize_str(TextVisitor(std::marker::PhantomData, what))
}

/// Bytes, of which a part of the input may be borrowed.
struct Raw<T>(T);

impl Serialize for Raw<&[u8]> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de> Deserialize<'de> for Raw<Vec<u8>> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BytesVisitor;
        impl Visitor<'_> for BytesVisitor {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }

            fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(bytes)
            }
        }
        deserializer.deserialize_byte_buf(BytesVisitor).map(Raw)
    }
}

/// A host in compact form. The order of the variants is the wire's.
#[derive(serde::Serialize, serde::Deserialize)]
enum CompactHost<S> {
    V4([u8; 4]),
    V6([u8; 16]),
    V6Index([u8; 16], u32),
    V6Name([u8; 16], S),
    Name(S),
}

/// An address in compact form. The order of the variants is the wire's.
#[derive(serde::Serialize, serde::Deserialize)]
enum CompactAddr<S, B> {
    Local(u64),
    Tcp(CompactHost<S>, u16),
    Tls(CompactHost<S>, u16),
    UnixPath(B),
    UnixAbstract(B),
}

/// A bind specification in compact form. The order of the variants is the wire's.
#[derive(serde::Serialize, serde::Deserialize)]
enum CompactBind<S, B> {
    AnyLocal,
    AnyTcp,
    AnyTls,
    AnyUnix,
    Addr(CompactAddr<S, B>),
    Tcp(CompactHost<S>, u16),
    Tls(CompactHost<S>, u16),
}

type CompactAddrOut<'a> = CompactAddr<&'a str, Raw<&'a [u8]>>;
type CompactAddrIn = CompactAddr<String, Raw<Vec<u8>>>;

impl<'a> CompactHost<&'a str> {
    fn of(host: &'a Host) -> Self {
        match host {
            Host::V4(addr) => Self::V4(addr.octets()),
            Host::Name(name) => Self::Name(name.as_str()),
            Host::V6(scoped) => {
                let octets = scoped.addr().octets();
                match scoped.zone() {
                    None => Self::V6(octets),
                    Some(Zone::Index(index)) => Self::V6Index(octets, index.get()),
                    Some(Zone::Name(name)) => Self::V6Name(octets, name.as_str()),
                }
            }
        }
    }
}

impl CompactHost<String> {
    fn check<E: de::Error>(self) -> Result<Host, E> {
        let v6 = |octets: [u8; 16]| Ipv6Addr::from(octets);
        match self {
            Self::V4(octets) => Ok(Host::V4(Ipv4Addr::from(octets))),
            Self::V6(octets) => Ok(Host::v6(v6(octets), None)),
            Self::V6Index(octets, index) => {
                let zone = std::num::NonZeroU32::new(index).map(Zone::Index);
                Ok(Host::v6(v6(octets), zone))
            }
            Self::V6Name(octets, name) => {
                let zone = Zone::new(&name).map_err(E::custom)?;
                Ok(Host::v6(v6(octets), Some(zone)))
            }
            Self::Name(name) => Host::new(&name).map_err(E::custom),
        }
    }
}

impl<'a> CompactAddrOut<'a> {
    fn of(addr: &'a ChannelAddr) -> Self {
        match addr {
            ChannelAddr::Local(number) => Self::Local(number.get()),
            ChannelAddr::Tcp(at) => Self::Tcp(CompactHost::of(at.host()), at.port()),
            ChannelAddr::Tls(at) => Self::Tls(CompactHost::of(at.host()), at.port()),
            ChannelAddr::Unix(unix) => match (unix.as_path_bytes(), unix.as_abstract()) {
                (Some(path), _) => Self::UnixPath(Raw(path)),
                (None, name) => Self::UnixAbstract(Raw(name.unwrap_or_default())),
            },
        }
    }
}

impl CompactAddrIn {
    fn check<E: de::Error>(self) -> Result<ChannelAddr, E> {
        let addr = match self {
            Self::Local(number) => ChannelAddr::local(number),
            Self::Tcp(host, port) => HostPort::new(host.check()?, port).map(ChannelAddr::Tcp),
            Self::Tls(host, port) => HostPort::new(host.check()?, port).map(ChannelAddr::Tls),
            Self::UnixPath(path) => UnixAddr::path_bytes(&path.0).map(ChannelAddr::Unix),
            Self::UnixAbstract(name) => ChannelAddr::unix_abstract(&name.0),
        };
        addr.map_err(E::custom)
    }
}

impl Serialize for ChannelAddr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.collect_str(self);
        }
        CompactAddr::of(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ChannelAddr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return text(deserializer, "the text of a channel address");
        }
        CompactAddrIn::deserialize(deserializer)?.check()
    }
}

impl Serialize for BindSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.collect_str(self);
        }
        let compact: CompactBind<&str, Raw<&[u8]>> = match self {
            Self::Any(ChannelTransport::Local) => CompactBind::AnyLocal,
            Self::Any(ChannelTransport::Tcp) => CompactBind::AnyTcp,
            Self::Any(ChannelTransport::Tls) => CompactBind::AnyTls,
            Self::Any(ChannelTransport::Unix) => CompactBind::AnyUnix,
            Self::Addr(addr) => CompactBind::Addr(CompactAddr::of(addr)),
            Self::TcpWildcard(at) => CompactBind::Tcp(CompactHost::of(at.host()), at.port()),
            Self::TlsWildcard(at) => CompactBind::Tls(CompactHost::of(at.host()), at.port()),
        };
        compact.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for BindSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return text(deserializer, "the text of a bind specification");
        }
        Ok(
            match CompactBind::<String, Raw<Vec<u8>>>::deserialize(deserializer)? {
                CompactBind::AnyLocal => Self::Any(ChannelTransport::Local),
                CompactBind::AnyTcp => Self::Any(ChannelTransport::Tcp),
                CompactBind::AnyTls => Self::Any(ChannelTransport::Tls),
                CompactBind::AnyUnix => Self::Any(ChannelTransport::Unix),
                CompactBind::Addr(addr) => Self::Addr(addr.check()?),
                CompactBind::Tcp(host, port) => Self::tcp_host(host.check()?, port),
                CompactBind::Tls(host, port) => Self::tls_host(host.check()?, port),
            },
        )
    }
}

impl Serialize for ProcId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.collect_str(self);
        }
        (self.addr(), self.name()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ProcId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return text(deserializer, "the text of a proc id");
        }
        let (addr, name) = Deserialize::deserialize(deserializer)?;
        Ok(Self::Direct(addr, name))
    }
}

impl Serialize for ActorId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.collect_str(self);
        }
        (self.proc_id(), self.name(), self.index()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ActorId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return text(deserializer, "the text of an actor id");
        }
        let (proc, name, index): (ProcId, String, u64) = Deserialize::deserialize(deserializer)?;
        Ok(Self::new(proc, name, index))
    }
}

impl Serialize for PortId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.collect_str(self);
        }
        (self.actor_id(), self.index()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PortId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return text(deserializer, "the text of a port id");
        }
        let (actor, index) = Deserialize::deserialize(deserializer)?;
        Ok(Self::new(actor, index))
    }
}

/// A reference in compact form. The order of the variants is the wire's.
#[derive(serde::Serialize, serde::Deserialize)]
enum CompactReference<P, A, Q> {
    Proc(P),
    Actor(A),
    Port(Q),
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.collect_str(self);
        }
        let compact = match self {
            Self::Proc(proc) => CompactReference::Proc(&**proc),
            Self::Actor(actor) => CompactReference::Actor(actor),
            Self::Port(port) => CompactReference::Port(port),
        };
        compact.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return text(deserializer, "the text of a reference");
        }
        Ok(match Deserialize::deserialize(deserializer)? {
            CompactReference::Proc(proc) => Self::Proc(Arc::<ProcId>::new(proc)),
            CompactReference::Actor(actor) => Self::Actor(actor),
            CompactReference::Port(port) => Self::Port(port),
        })
    }
}

impl Serialize for Incarnation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.collect_str(self);
        }
        self.get().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Incarnation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return text(deserializer, "the text of an incarnation");
        }
        u64::deserialize(deserializer).map(Self::new)
    }
}

impl Serialize for ChannelTransport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.serialize_str(self.scheme());
        }
        let number: u8 = match self {
            Self::Local => 0,
            Self::Tcp => 1,
            Self::Tls => 2,
            Self::Unix => 3,
        };
        number.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ChannelTransport {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return text(deserializer, "the name of a transport");
        }
        match u8::deserialize(deserializer)? {
            0 => Ok(Self::Local),
            1 => Ok(Self::Tcp),
            2 => Ok(Self::Tls),
            3 => Ok(Self::Unix),
            other => Err(de::Error::custom(format_args!(
                "unknown transport {other}: expected 0 to 3"
            ))),
        }
    }
}

/// The body of the fuzz target for the compact form: the first byte says of which type. What decodes is a value like any
/// other, and encodes to bytes that decode to it.
#[cfg(any(feature = "fuzzing", test))]
pub fn fuzz_compact(data: &[u8]) -> crate::fuzzing::Seen {
    use crate::fuzzing::{NOTHING, Seen, Text, check_value};

    fn check<T: Text + Serialize + de::DeserializeOwned>(number: u64, bytes: &[u8]) -> Seen {
        let Ok(value) = postcard::from_bytes::<T>(bytes) else {
            return Seen(2 << 32 | number << 8 | bytes.len().min(32) as u64);
        };
        check_value(&value);
        match postcard::to_allocvec(&value).map(|bytes| postcard::from_bytes::<T>(&bytes)) {
            Ok(Ok(again)) => assert_eq!(again, value, "another value came back"),
            other => panic!("{value:?} does not come back: {other:?}"),
        }
        Seen(1 << 32 | number << 8 | bytes.len().min(32) as u64)
    }

    match data.split_first() {
        Some((0, bytes)) => check::<ChannelAddr>(0, bytes),
        Some((1, bytes)) => check::<BindSpec>(1, bytes),
        Some((2, bytes)) => check::<ProcId>(2, bytes),
        Some((3, bytes)) => check::<ActorId>(3, bytes),
        Some((4, bytes)) => check::<PortId>(4, bytes),
        Some((5, bytes)) => check::<Reference>(5, bytes),
        Some((6, bytes)) => check::<ChannelTransport>(6, bytes),
        Some((_, bytes)) => check::<Incarnation>(7, bytes),
        None => NOTHING,
    }
}
