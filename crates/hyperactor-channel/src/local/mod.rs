//! In-process channels: values are handed over, never encoded.

pub(crate) mod link;
mod state;
pub(crate) mod table;
