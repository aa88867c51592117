//! What a host tells a child before it starts: one JSON text in the environment. What it tells it later goes over the
//! control stream.

use std::path::PathBuf;

use hyperactor_host::ProcSpec;
use serde::{Deserialize, Serialize};

use crate::error::BootError;
use crate::limits;

/// Version of the instructions. Host and child are the same executable, so a difference means that the variable came
/// from somewhere else.
const VERSION: u32 = 1;

/// Everything a child has to know to start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Instructions {
    version: u32,
    pub(crate) spec: ProcSpec,
    pub(crate) socket_dir: PathBuf,
}

impl Instructions {
    pub(crate) fn new(spec: ProcSpec, socket_dir: PathBuf) -> Self {
        Self {
            version: VERSION,
            spec,
            socket_dir,
        }
    }

    /// Reads instructions from whatever the environment holds.
    pub(crate) fn parse(text: &str) -> Result<Self, BootError> {
        let refuse = |reason: String| BootError::Instructions { reason };
        if text.len() > limits::INSTRUCTIONS_BYTES_MAX {
            let (length, limit) = (text.len(), limits::INSTRUCTIONS_BYTES_MAX);
            return Err(refuse(format!(
                "they are {length} bytes long, more than {limit}"
            )));
        }
        let this: Self = serde_json::from_str(text)
            .map_err(|error| refuse(format!("{error} in {text:.60?}")))?;
        if this.version != VERSION {
            return Err(refuse(format!(
                "they have version {}, not {VERSION}",
                this.version
            )));
        }
        Ok(this)
    }

    /// Writes the instructions for the environment.
    pub(crate) fn to_text(&self) -> Result<String, String> {
        let text = serde_json::to_string(self).map_err(|error| error.to_string())?;
        if text.len() > limits::INSTRUCTIONS_BYTES_MAX {
            let limit = limits::INSTRUCTIONS_BYTES_MAX;
            return Err(format!(
                "they are {} bytes long, more than {limit}",
                text.len()
            ));
        }
        Ok(text)
    }
}
