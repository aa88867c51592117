#![doc = include_str!("../README.md")]
//!
//! # Map
//!
//! Sending: [`dial`], [`ChannelTx`], or [`dial_with`] and [`Outbound`] with a [`Completion`] for each message.
//! Receiving: [`serve`], [`ChannelRx`], or [`serve_with`] with [`Accept`] and [`Deliver`]. Both over one connection:
//! [`dial_duplex`], [`serve_duplex`], or [`dial_duplex_with`] and [`Accept::open`]. What became of a message:
//! [`Outcome`], [`Failure`], [`Reason`]. Below: [`transport`], byte streams by address; [`spin`], what
//! spares a hot conversation its wake-ups. Bounds: [`limits`].

pub mod limits;
pub mod spin;
pub mod transport;

mod backoff;
mod clock;
mod codec;
mod codes;
mod completion;
mod dial;
mod inbound;
mod listener;
mod local;
mod net;
mod options;
mod outbound;
mod outcome;
mod rx;
mod serve;
mod serve_error;
mod slots;
mod tx;

pub use codec::{Codec, DecodeError, EncodeError, Names, NoName, Postcard, Raw};
pub use codes::REFUSAL_RESERVED_FROM;
pub use completion::{Completion, Ignore};
pub use dial::{dial, dial_duplex, dial_duplex_with, dial_tx, dial_with};
pub use hyperactor_protocol::{Refusal, SharedParts, Verdict};
pub use inbound::{Accept, Deliver, Inbound, Parcel, Peer, Ticket};
pub use listener::{AcceptedPair, ChannelListener, serve_duplex};
pub use options::{DialOptions, ServeOptions, process_incarnation};
pub use outbound::{Capacity, Labelled, Outbound, Passed, Passing, Rejected, Status};
pub use outcome::{Failure, FlushError, Outcome, Reason};
pub use rx::{ChannelRx, Rx};
pub use serve::{ServerHandle, serve, serve_queue, serve_with};
pub use serve_error::ServeError;
pub use spin::Spin;
pub use tx::{BoxFuture, ChannelTx, Tx};
