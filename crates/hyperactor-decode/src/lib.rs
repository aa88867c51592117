#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

mod error;
pub mod limits;
mod read;
mod stack;
mod value;

pub use error::DecodeError;
pub use read::from_bytes;
