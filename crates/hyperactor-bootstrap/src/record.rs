//! What is written down of a proc that is to outlive its host: enough for the next host to know it, to own it, and to start it
//! again. Where the record lies and who holds it is in `socket_dir`.

use std::time::{Duration, SystemTime};

use hyperactor_host::ProcSpec;
use serde::{Deserialize, Serialize};

/// Version of the records. A record of another version is of another build of the program.
const VERSION: u32 = 1;

/// What is known of a proc without asking it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    version: u32,
    pub(crate) spec: ProcSpec,
    since: SystemTime,
}

impl Record {
    pub(crate) fn new(spec: ProcSpec) -> Self {
        Self {
            version: VERSION,
            spec,
            since: SystemTime::now(),
        }
    }

    pub(crate) fn to_text(&self) -> Result<String, String> {
        serde_json::to_string(self).map_err(|error| error.to_string())
    }

    /// Reads a record. Whatever else a file holds is an error in words.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let record: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if record.version != VERSION {
            return Err(format!("it has version {}, not {VERSION}", record.version));
        }
        Ok(record)
    }

    /// How long ago the proc started, by the system's clock; nothing when that was set back.
    pub(crate) fn age(&self) -> Duration {
        self.since.elapsed().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hyperactor_host::{OnHostLoss, ProcConfig};
    use hyperactor_refs::{Incarnation, ProcId};

    use super::*;

    fn record() -> Record {
        let frontend: hyperactor_refs::ChannelAddr = "unix:@h".parse().unwrap();
        Record::new(ProcSpec {
            proc_id: Arc::new(ProcId::Direct(frontend.clone(), "a \"b\"".to_owned())),
            incarnation: Incarnation::new(7),
            frontend: frontend.clone(),
            aliases: Vec::new(),
            backend: frontend,
            config: ProcConfig::new().with_on_host_loss(OnHostLoss::Stay),
        })
    }

    #[test]
    fn a_record_comes_out_as_it_went_in() {
        let text = record().to_text().unwrap();
        let read = Record::parse(&text).unwrap();
        assert_eq!(read.spec, record().spec);
        assert!(read.age() < Duration::from_secs(60));
    }

    #[test]
    fn whatever_else_a_file_holds_is_an_error() {
        let good = record().to_text().unwrap();
        let mut bad = vec![
            good.replace("\"version\":1", "\"version\":2"),
            good.replace("unix:@h", "unix:"),
            "null".to_owned(),
        ];
        bad.extend((0..good.len()).filter_map(|end| good.get(..end).map(str::to_owned)));
        for text in bad {
            assert!(Record::parse(&text).is_err(), "{text}");
        }
    }
}
