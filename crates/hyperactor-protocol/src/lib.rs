#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod assembly;
mod config;
mod decoder;
mod event;
mod frame;
mod hello;
mod ids;
mod inbox;
mod landing;
mod lanes;
mod life;
pub mod limits;
mod marks;
mod outbox;
mod pieces;
mod run;
mod session;
mod shares;
mod time;
mod verdict;
mod violation;

pub use hyperactor_refs::Incarnation;

pub use crate::config::Config;
pub use crate::decoder::FrameDecoder;
pub use crate::event::{Event, EventSink, Notice};
pub use crate::frame::{DataFlags, Frame, Goodbye, Released};
pub use crate::hello::{
    EXTENSION_RECEIVES, EXTENSION_SILENCE, Extensions, Hello, HelloCode, HelloError, HelloKind,
    MAGIC, VERSION_MAX, VERSION_MIN,
};
pub use crate::ids::{ConnectionEpoch, Label, PostId, Seq, SessionId};
pub use crate::landing::{Buffers, Landed, PartHead};
pub use crate::life::{EDGES, Life, Step};
pub use crate::pieces::SharedParts;
pub use crate::run::{Cut, Messages, Run};
pub use crate::session::{
    Accept, Dump, Established, Outgoing, PushError, Session, Timeout, Transmit, Wake,
};
pub use crate::time::{Clock, ManualClock, Time};
pub use crate::verdict::{Cause, Failure, Refusal, Verdict};
pub use crate::violation::Violation;
