//! What a host tells a child before it starts: one JSON text in the environment. What it tells it later goes over the
//! control stream.

use std::path::PathBuf;
use std::time::Duration;

use hyperactor_host::ProcSpec;
use serde::{Deserialize, Serialize};

use crate::error::BootError;
use crate::limits;
use crate::pulse::PulsePlace;

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
    /// Whether the directory was chosen by its user, for one host after the other.
    pub(crate) is_kept: bool,
    /// How long the proc lives on without a host, if it does.
    pub(crate) grace: Option<Duration>,
    /// Where the child finds what tells the kernel that the host has ended.
    pub(crate) pulse: Option<PulsePlace>,
}

impl Instructions {
    pub(crate) fn new(spec: ProcSpec, socket_dir: PathBuf) -> Self {
        Self {
            version: VERSION,
            spec,
            socket_dir,
            is_kept: false,
            grace: None,
            pulse: None,
        }
    }

    /// The same, in a directory that its user chose, with the time that the proc lives on without a host, if it does.
    pub(crate) fn kept(mut self, grace: Option<Duration>) -> Self {
        self.is_kept = true;
        self.grace = grace;
        self
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hyperactor_host::{ProcConfig, RoutePolicy};
    use hyperactor_refs::{Incarnation, ProcId};

    use super::*;

    fn instructions(name: &str) -> Instructions {
        let frontend: hyperactor_refs::ChannelAddr = "tcp:127.0.0.1:4000".parse().unwrap();
        let spec = ProcSpec {
            proc_id: Arc::new(ProcId::Direct(frontend.clone(), name.to_owned())),
            incarnation: Incarnation::new(u64::MAX),
            frontend,
            aliases: vec!["unix:@also".parse().unwrap()],
            backend: "unix:/run/hyperactor/backend.sock".parse().unwrap(),
            config: ProcConfig::new().with_route(RoutePolicy::Relay),
        };
        Instructions::new(spec, PathBuf::from("/run/hyperactor"))
    }

    #[test]
    fn instructions_come_out_as_they_went_in() {
        for name in ["worker", "with \"quotes\", commas", "名前", "\\"] {
            let text = instructions(name).to_text().unwrap();
            assert_eq!(Instructions::parse(&text).unwrap(), instructions(name));
        }
    }

    #[test]
    fn whatever_else_the_environment_holds_is_an_error_that_names_the_variable() {
        let good = instructions("worker").to_text().unwrap();
        let long = "x".repeat(limits::INSTRUCTIONS_BYTES_MAX + 1);
        let mut bad = vec![
            String::new(),
            "yes".into(),
            "{}".into(),
            "[[[[".into(),
            long,
        ];
        bad.push(good.replace("\"version\":1", "\"version\":2"));
        bad.push(good.replace("\"version\":1", "\"version\":1,\"more\":true"));
        bad.push(good.replace("127.0.0.1", "127.0.0.256"));
        // Cut anywhere.
        bad.extend((0..good.len()).filter_map(|end| good.get(..end).map(str::to_owned)));
        for text in bad {
            let error = Instructions::parse(&text).unwrap_err();
            assert_eq!(error.code(), "instructions");
            assert!(
                error.to_string().contains("HYPERACTOR_BOOTSTRAP"),
                "{error}"
            );
        }
    }

    #[test]
    fn what_would_not_fit_is_refused_by_the_host() {
        let name = "x".repeat(limits::INSTRUCTIONS_BYTES_MAX);
        assert!(
            instructions(&name)
                .to_text()
                .unwrap_err()
                .contains("more than")
        );
    }
}
