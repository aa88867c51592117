#![doc = include_str!("../README.md")]

pub mod limits;

mod addr;
#[cfg(any(feature = "fuzzing", test))]
#[doc(hidden)]
pub mod fuzzing;
mod id;
mod prefix_map;
#[cfg(test)]
mod properties;
#[cfg(any(feature = "proptest", test))]
pub mod strategies;
mod text;
#[cfg(feature = "serde")]
mod wire;

pub use addr::{
    AddrError, BindSpec, ChannelAddr, ChannelTransport, Host, HostName, HostPort, Locality,
    ScopedV6, UnixAddr, WildcardPort, Zone, ZoneName,
};
pub use id::{
    ActorId, BuildIdHasher, IdHasher, Incarnation, NameError, PortId, ProcId, Reference, check_name,
};
pub use prefix_map::PrefixMap;
pub use text::error::{ParseError, ParseErrorKind};
