//! `hyperactor stop` and `hyperactor kill`: the end of a proc, or of the host.

use std::fmt;

use hyperactor::host::{DescribeHost, End, EndProc, StopHost};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::Shows;
use super::tool::Tool;
use crate::args::{KillArgs, StopArgs};
use crate::failure::Failure;
use crate::limits;

/// How a proc, or the host, ended.
#[derive(Serialize)]
struct EndLine {
    what: String,
    exit: String,
    orderly: bool,
}

impl fmt::Display for EndLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.what, self.exit)
    }
}

pub(super) async fn stop(tool: &Tool, args: &StopArgs) -> Result<Shows, Failure> {
    let deadline = args.deadline.into();
    match &args.name {
        Some(name) => end(tool, name, End::Drain { deadline }, args.target.json).await,
        None => {
            tool.ask_host(limits::TOOL_DEADLINE, |reply| StopHost { deadline, reply })
                .await?;
            let patience = deadline * 2 + limits::STOP_MARGIN;
            gone(tool, patience).await?;
            let line = EndLine {
                what: format!("the host {}", tool.host),
                exit: "has ended".to_owned(),
                orderly: true,
            };
            Shows::new(&line, args.target.json)
        }
    }
}

pub(super) async fn kill(tool: &Tool, args: &KillArgs) -> Result<Shows, Failure> {
    end(tool, &args.name, End::Kill, args.target.json).await
}

async fn end(tool: &Tool, name: &str, how: End, json: bool) -> Result<Shows, Failure> {
    let patience = match how {
        End::Drain { deadline } => deadline + limits::STOP_MARGIN,
        _ => limits::STOP_MARGIN,
    };
    let name = name.to_owned();
    let ended = tool
        .ask_host(patience, |reply| EndProc {
            name: name.clone(),
            how,
            reply,
        })
        .await?;
    let certificate = ended.certificate;
    let line = EndLine {
        what: certificate.proc_id.to_string(),
        exit: certificate.exit.to_string(),
        orderly: certificate.exit.is_orderly(),
    };
    Shows::new(&line, json)
}

/// Waits until the host answers no more.
async fn gone(tool: &Tool, patience: std::time::Duration) -> Result<(), Failure> {
    let end = Instant::now() + patience;
    loop {
        let answer = tool
            .ask_host(limits::TOOL_DEADLINE, |reply| DescribeHost { reply })
            .await;
        if answer.is_err() {
            return Ok(());
        }
        if Instant::now() >= end {
            return Err(Failure::Result(format!(
                "the host {} still answers after {patience:?}",
                tool.host
            )));
        }
        sleep(limits::GONE_POLL).await;
    }
}
