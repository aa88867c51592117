//! Dialling an address: [`dial`] and [`dial_with`] to send, [`dial_duplex`] and [`dial_duplex_with`] to receive as well.
//! None of them fails or waits: what goes wrong shows as the outcome of messages. What moves them is in `local` and `net`.

use std::sync::Arc;

use hyperactor_refs::ChannelAddr;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::local::link::LocalLink;
use crate::net::link::NetLink;
use crate::rx::Feed;
use crate::{
    ChannelRx, ChannelTx, Codec, Completion, Deliver, DialOptions, Inbound, Outbound, Postcard,
};

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
            Outbound::new(Arc::new(LocalLink::dial(addr, number, options, codec)))
        }
        _ => Outbound::new(Arc::new(NetLink::dial(addr, &options, codec))),
    }
}

/// Dials an address whose server sends messages back: one connection, both directions.
///
/// It connects at once, and stays connected as long as either end is there. Dropping both ends, or closing one, closes
/// the session; dropping the receiver alone refuses what still comes in. When the session has ended, messages fail and the
/// receiver ends: dial anew then. That happens when the server stops in order, when nobody answers for the time that
/// [`DialOptions`] give, and on faults that another try would not mend; a server that restarts meanwhile is found again.
///
/// The other side is [`serve_duplex`](crate::serve_duplex), or any [`Accept`](crate::Accept).
pub fn dial_duplex<M: Send + 'static>(
    addr: ChannelAddr,
    options: DialOptions,
    codec: impl Codec<M>,
) -> (ChannelTx<M>, ChannelRx<M>) {
    let feed = Feed::new();
    let outbound = dial_duplex_with(addr, options, codec, |inbound| feed.session(inbound));
    let rx = feed.into_session_rx(outbound.clone());
    (ChannelTx::new(outbound), rx)
}

/// As [`dial_duplex`], with completions of the caller's own type, and with what takes the messages that come back: made
/// from the [`Inbound`] that settles them, told [`Deliver::closed`] when the channel has ended. It outlives connections
/// and lives of the server.
pub fn dial_duplex_with<M, C, K, D>(
    addr: ChannelAddr,
    options: DialOptions,
    codec: C,
    receive: impl FnOnce(Inbound) -> D,
) -> Outbound<M, K>
where
    M: Send + 'static,
    C: Codec<M>,
    K: Completion<M>,
    D: Deliver<M>,
{
    match &addr {
        ChannelAddr::Local(number) => {
            let number = number.get();
            let link = LocalLink::dial_duplex(addr, number, options, codec, receive);
            Outbound::new(Arc::new(link))
        }
        _ => Outbound::new(Arc::new(NetLink::dial_duplex(
            addr, &options, codec, receive,
        ))),
    }
}
