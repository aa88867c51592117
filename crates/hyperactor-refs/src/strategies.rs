//! Strategies for [proptest](https://docs.rs/proptest): any value of each type, and texts that are hard on parsers.
//!
//! Every strategy shrinks towards the simplest form: an address to `local:1`, a name to `a`, an index to 0. Each type
//! is [`Arbitrary`] with the strategy that is named for it, so `any::<ProcId>()` is [`any_proc_id`].
//!
//! ```
//! use hyperactor_refs::{PortId, strategies};
//! use proptest::prelude::*;
//!
//! proptest!(|(port in strategies::any_port_id())| {
//!     prop_assert_eq!(port.to_string().parse::<PortId>()?, port);
//! });
//! ```

use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::addr::{
    BindSpec, ChannelAddr, ChannelTransport, Host, HostName, HostPort, UnixAddr, Zone,
};
use crate::id::{ActorId, Incarnation, PortId, ProcId, Reference};
use crate::limits::{MAX_UNIX_ABSTRACT_BYTES, MAX_UNIX_PATH_BYTES};

mod text;

pub use text::{
    any_name, hostile_name, nearly_a_reference, nearly_an_address, ordinary_name, spelling_of,
};

/// Any address that can be dialled. Simplest: `local:1`.
pub fn any_channel_addr() -> BoxedStrategy<ChannelAddr> {
    prop_oneof![local_addr(), unix_addr(), tcp_addr(), tls_addr()].boxed()
}

/// An address within a process. Simplest: `local:1`.
pub fn local_addr() -> BoxedStrategy<ChannelAddr> {
    // Small numbers are what programs use; the large ones are for the parser.
    prop_oneof![1..=100u64, 1..=u64::MAX]
        .prop_map(|number| built(ChannelAddr::local(number)))
        .boxed()
}

/// A TCP address. Simplest: `tcp:127.0.0.1:1`.
pub fn tcp_addr() -> BoxedStrategy<ChannelAddr> {
    any_host_port().prop_map(ChannelAddr::Tcp).boxed()
}

/// A TLS address. Simplest: `tls:127.0.0.1:1`.
pub fn tls_addr() -> BoxedStrategy<ChannelAddr> {
    any_host_port().prop_map(ChannelAddr::Tls).boxed()
}

/// The address of a Unix socket, at a path or abstract, with bytes that need escapes. Simplest: `unix:a`.
pub fn unix_addr() -> BoxedStrategy<ChannelAddr> {
    any_unix_addr().prop_map(ChannelAddr::Unix).boxed()
}

/// The place of a Unix socket: as [`unix_addr`].
pub fn any_unix_addr() -> BoxedStrategy<UnixAddr> {
    let byte =
        || prop_oneof![4 => b'a'..=b'z', 1 => select(b"/.@,%-[]: ".to_vec()), 1 => 1..=255u8];
    let path = vec(byte(), 1..=MAX_UNIX_PATH_BYTES)
        .prop_map(|bytes| UnixAddr::path_bytes(&bytes).or_else(|_| UnixAddr::path_bytes(b"a")));
    let absolute = vec(byte(), 1..MAX_UNIX_PATH_BYTES).prop_map(|bytes| {
        let path = [b"/".as_slice(), &bytes].concat();
        UnixAddr::path_bytes(&path).or_else(|_| UnixAddr::path_bytes(b"/a"))
    });
    let name = prop_oneof![3 => byte(), 1 => Just(0)];
    let name = vec(name, 1..=MAX_UNIX_ABSTRACT_BYTES).prop_map(UnixAddr::abstract_name);
    prop_oneof![path, absolute, name].prop_map(built).boxed()
}

/// A host and a port that can be dialled. Simplest: `127.0.0.1:1`.
pub fn any_host_port() -> BoxedStrategy<HostPort> {
    (any_host(), 1..=u16::MAX)
        .prop_map(|(host, port)| {
            let host = if host.is_unspecified() {
                Host::V4(Ipv4Addr::LOCALHOST)
            } else {
                host
            };
            built(HostPort::new(host, port))
        })
        .boxed()
}

/// Any host: an address of either family, with and without a zone, or a name. Simplest: `127.0.0.1`.
pub fn any_host() -> BoxedStrategy<Host> {
    prop_oneof![
        Just(Host::V4(Ipv4Addr::LOCALHOST)),
        any_host_name().prop_map(Host::Name),
        any::<u32>().prop_map(|bits| Host::V4(Ipv4Addr::from_bits(bits))),
        any_ipv6(),
    ]
    .boxed()
}

fn any_ipv6() -> impl Strategy<Value = Host> {
    let groups = prop_oneof![2 => Just(0u16), 1 => any::<u16>()];
    let anywhere = proptest::array::uniform8(groups);
    let link_local =
        any::<u64>().prop_map(|low| Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(low)));
    prop_oneof![
        Just(Host::v6(Ipv6Addr::LOCALHOST, None)),
        anywhere.prop_map(|groups| Host::v6(Ipv6Addr::from(groups), None)),
        (link_local, proptest::option::of(any_zone()))
            .prop_map(|(addr, zone)| Host::v6(addr, zone)),
    ]
}

/// The zone of a link-local address. Simplest: 1.
pub fn any_zone() -> BoxedStrategy<Zone> {
    let index = (1..=u32::MAX)
        .prop_map(|index| NonZeroU32::new(index).map_or_else(first_zone, Zone::Index));
    let name = (
        proptest::char::range('a', 'z'),
        vec(select(b"abcdefgh0123456789.-_".to_vec()), 0..15),
    );
    let name = name.prop_map(|(first, rest)| {
        built(Zone::new(
            &std::iter::once(first)
                .chain(rest.into_iter().map(char::from))
                .collect::<String>(),
        ))
    });
    prop_oneof![index, name].boxed()
}

fn first_zone() -> Zone {
    Zone::Index(NonZeroU32::MIN)
}

/// A host name: `localhost`, or labels of letters, digits, `-` and `_`, perhaps with a dot at the end.
/// Simplest: `localhost`.
pub fn any_host_name() -> BoxedStrategy<HostName> {
    let inner = select(b"abcdefghijklmnopqrstuvwxyz0123456789_-".to_vec());
    let label = (proptest::char::range('a', 'z'), vec(inner, 0..12)).prop_map(|(first, rest)| {
        let label: String = std::iter::once(first)
            .chain(rest.into_iter().map(char::from))
            .collect();
        label.trim_end_matches('-').to_owned()
    });
    let dotted = (vec(label, 1..4), any::<bool>())
        .prop_map(|(labels, dot)| format!("{}{}", labels.join("."), if dot { "." } else { "" }));
    prop_oneof![Just("localhost".to_owned()), dotted]
        .prop_map(|name| built(HostName::new(&name)))
        .boxed()
}

/// Any transport. Simplest: `local`.
pub fn any_transport() -> BoxedStrategy<ChannelTransport> {
    select(ChannelTransport::ALL.to_vec()).boxed()
}

/// Any bind specification. Simplest: `local:`.
pub fn any_bind_spec() -> BoxedStrategy<BindSpec> {
    let open_host = prop_oneof![
        Just(Host::V4(Ipv4Addr::UNSPECIFIED)),
        Just(Host::v6(Ipv6Addr::UNSPECIFIED, None)),
        any_host(),
    ];
    let open_port = prop_oneof![Just(0), any::<u16>()];
    let open = (any::<bool>(), open_host, open_port).prop_map(|(tls, host, port)| {
        if tls {
            BindSpec::tls_host(host, port)
        } else {
            BindSpec::tcp_host(host, port)
        }
    });
    prop_oneof![
        any_transport().prop_map(BindSpec::Any),
        any_channel_addr().prop_map(BindSpec::Addr),
        open,
    ]
    .boxed()
}

/// Any proc id, hostile names included. Simplest: `local:1,a`.
pub fn any_proc_id() -> BoxedStrategy<ProcId> {
    (any_channel_addr(), any_name())
        .prop_map(|(addr, name)| ProcId::Direct(addr, name))
        .boxed()
}

/// Any actor id, hostile names included. Simplest: `local:1,a,a[0]`.
pub fn any_actor_id() -> BoxedStrategy<ActorId> {
    (any_proc_id(), any_name(), any_index())
        .prop_map(|(proc, name, index)| ActorId::new(proc, name, index))
        .boxed()
}

/// Any port id, hostile names included. Simplest: `local:1,a,a[0][0]`.
pub fn any_port_id() -> BoxedStrategy<PortId> {
    (any_actor_id(), any_index())
        .prop_map(|(actor, index)| PortId::new(actor, index))
        .boxed()
}

/// Any reference. Simplest: `local:1,a`.
pub fn any_reference() -> BoxedStrategy<Reference> {
    prop_oneof![
        any_proc_id().prop_map(Reference::from),
        any_actor_id().prop_map(Reference::from),
        any_port_id().prop_map(Reference::from),
    ]
    .boxed()
}

/// Any incarnation. Simplest: `0000000000000000`.
pub fn any_incarnation() -> BoxedStrategy<Incarnation> {
    any::<u64>().prop_map(Incarnation::new).boxed()
}

fn any_index() -> impl Strategy<Value = u64> {
    prop_oneof![0..=9u64, any::<u64>()]
}

/// What the strategies make is valid; a fault of theirs has to show at once, and in the test that uses them.
fn built<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("a strategy made parts that do not fit: {error}"))
}

macro_rules! arbitrary {
    ($($type:ty => $strategy:path),* $(,)?) => {$(
        impl Arbitrary for $type {
            type Parameters = ();
            type Strategy = BoxedStrategy<Self>;

            fn arbitrary_with((): ()) -> Self::Strategy {
                $strategy()
            }
        }
    )*};
}

arbitrary! {
    ChannelAddr => any_channel_addr,
    ChannelTransport => any_transport,
    BindSpec => any_bind_spec,
    UnixAddr => any_unix_addr,
    HostPort => any_host_port,
    Host => any_host,
    HostName => any_host_name,
    Zone => any_zone,
    ProcId => any_proc_id,
    ActorId => any_actor_id,
    PortId => any_port_id,
    Reference => any_reference,
    Incarnation => any_incarnation,
}
