//! Dialling an address: [`dial`] and [`dial_with`]. Both are lazy and cannot fail: what goes wrong shows as the outcome of
//! messages. What moves them is in `local` and `net`.

use std::sync::Arc;

use hyperactor_refs::ChannelAddr;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::local::link::LocalLink;
use crate::net::link::NetLink;
use crate::{ChannelTx, Codec, Completion, DialOptions, Outbound, Postcard};

/// Dials an address with the default options and codec. It connects when the first message is posted.
///
/// Call it inside a tokio runtime, which then drives the channel. Outside of one, every message fails with
/// [`Reason::NoRuntime`](crate::Reason::NoRuntime).
pub fn dial<M>(addr: ChannelAddr) -> ChannelTx<M>
where
    M: Serialize + DeserializeOwned + Send + 'static,
{
    ChannelTx::new(dial_with(addr, DialOptions::default(), Postcard))
}

/// As [`dial`], with options and a codec.
pub fn dial_tx<M: Send + 'static>(
    addr: ChannelAddr,
    options: DialOptions,
    codec: impl Codec<M>,
) -> ChannelTx<M> {
    ChannelTx::new(dial_with(addr, options, codec))
}

/// Dials an address, with options, a codec, and completions of the caller's own type.
pub fn dial_with<M, C, K>(addr: ChannelAddr, options: DialOptions, codec: C) -> Outbound<M, K>
where
    M: Send + 'static,
    C: Codec<M>,
    K: Completion<M>,
{
    match &addr {
        ChannelAddr::Local(number) => {
            let number = number.get();
            Outbound::new(Arc::new(LocalLink::new(addr, number, options)))
        }
        _ => Outbound::new(Arc::new(NetLink::new(addr, options, codec))),
    }
}
