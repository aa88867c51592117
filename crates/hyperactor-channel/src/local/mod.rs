//! In-process channels: values are handed over, never encoded.

mod home;
mod lanes;
pub(crate) mod link;
mod session;
mod state;
pub(crate) mod table;
