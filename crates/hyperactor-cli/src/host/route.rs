//! `hyperactor route A B`: which way A's messages to B go, and every reason against a faster one.

use std::fmt;

use hyperactor::bootstrap::{ExplainRoute, RouteAgent, RouteReport};
use serde::Serialize;

use super::tool::Tool;
use super::{Shows, address};
use crate::args::RouteArgs;
use crate::failure::Failure;

#[derive(Serialize)]
struct Explained {
    from: String,
    #[serde(flatten)]
    report: RouteReport,
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from {}\n{}", self.from, self.report)
    }
}

pub(super) async fn run(tool: &Tool, args: &RouteArgs) -> Result<Shows, Failure> {
    let from = address::proc(&args.from, &tool.host)?;
    let to = address::proc(&args.to, &tool.host)?;
    let agent = RouteAgent::at(&from);
    let report = tool
        .ask(&agent, |reply| ExplainRoute { to, reply })
        .await
        .map_err(|error| {
            Failure::Unreachable(format!(
                "{from} does not say which routes it takes: {error}"
            ))
        })?;
    let explained = Explained {
        from: from.to_string(),
        report,
    };
    Shows::new(&explained, args.target.json)
}
