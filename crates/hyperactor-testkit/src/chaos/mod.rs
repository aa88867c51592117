//! A proxy between two ends of a byte stream that breaks it at an exact byte.
//!
//! It knows nothing of frames: it counts bytes. What it does is a script, printed so that a run can be
//! repeated; the script's choices come from a seed or from the test. Files: `endpoint.rs` (where to
//! listen and dial), `script.rs` (what to do), `proxy.rs` (doing it).

mod endpoint;
mod proxy;
mod script;

pub use endpoint::{Endpoint, EndpointError};
pub use proxy::{ChaosProxy, Report};
pub use script::{Act, Direction, Faults, Plan, Script, ScriptError, Step};
