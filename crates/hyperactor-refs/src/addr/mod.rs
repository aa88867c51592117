//! Addresses of channels: where something can be dialled ([`ChannelAddr`]) and where it can be bound ([`BindSpec`]).

mod bind;
mod channel;
mod error;
mod host;
mod host_port;
mod ipv4;
mod locality;
mod parse;
mod transport;
mod unix;

pub use bind::{BindSpec, WildcardPort};
pub use channel::ChannelAddr;
pub(crate) use channel::parse_channel_addr;
pub use error::AddrError;
pub use host::{Host, HostName, ScopedV6, Zone, ZoneName};
pub use host_port::HostPort;
pub use locality::Locality;
pub use transport::ChannelTransport;
pub use unix::UnixAddr;

#[cfg(any(feature = "fuzzing", test))]
pub use {
    bind::fuzz_bind_spec, channel::fuzz_channel_addr, host::fuzz_host, locality::fuzz_locality,
    transport::fuzz_transport, unix::fuzz_parts,
};
