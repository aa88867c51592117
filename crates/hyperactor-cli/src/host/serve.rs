//! `hyperactor host serve`: a host in the foreground, until a signal or another process ends it.

use std::fmt;
use std::io::{self, Write};

use anyhow::Context as _;
use hyperactor::channel::ServeOptions;
use hyperactor::prelude::*;
use hyperactor::refs::BindSpec;
use serde::Serialize;

use super::{Shows, address};
use crate::args::ServeArgs;
use crate::failure::Failure;
use crate::limits;
use crate::signals::Signals;

/// Said when the host can be reached.
#[derive(Serialize)]
struct Serving {
    addr: String,
    aliases: Vec<String>,
    backend: String,
    pid: u32,
}

/// Said when the host has ended.
#[derive(Serialize)]
struct Ended {
    procs: usize,
    orderly: bool,
    left_behind: Vec<String>,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.orderly {
            "in order"
        } else {
            "not all in order"
        };
        write!(f, "the host has ended, with {} procs, {how}", self.procs)?;
        for left in &self.left_behind {
            write!(f, "\nleft behind: {left}")?;
        }
        Ok(())
    }
}

pub(super) async fn run(args: &ServeArgs, signals: &mut Signals) -> Result<Shows, Failure> {
    let default = address::default_host();
    let text = args.addr.as_deref().unwrap_or(&default);
    let bind = bind_spec(text)?;
    let manager = manager(args)?;
    let serve = ServeOptions {
        danger_plaintext_beyond_loopback: args.danger_plaintext,
        ..ServeOptions::default()
    };
    let mut builder = Host::builder().serve_options(serve);
    for also in &args.also {
        builder = builder.also_serve(bind_spec(also)?);
    }
    for alias in &args.alias {
        builder = builder.alias(address::host(Some(alias))?);
    }
    if let Some(addr) = &args.advertise {
        builder = builder.advertise(address::host(Some(addr))?);
    }
    if let Some(addr) = &args.behind {
        builder = builder.behind(address::host(Some(addr))?);
    }
    let host = builder
        .start(manager, bind)
        .await
        .with_context(|| format!("cannot serve a host at {text}"))?;
    announce(&host, args.json)?;
    let deadline = tokio::select! {
        signal = signals.next() => {
            tracing::info!(?signal, "the host ends");
            limits::STOP_DEADLINE
        }
        deadline = host.stop_wanted() => deadline,
    };
    // A second signal is from somebody who does not want to wait: what is dropped is killed.
    let report = tokio::select! {
        report = host.stop(deadline) => report,
        signal = signals.next() => return Err(Failure::Interrupted(signal)),
    };
    let orderly = report.is_clean();
    let ended = Ended {
        procs: report.procs.len(),
        orderly,
        left_behind: report.left_behind,
    };
    let failure = (!ended.left_behind.is_empty()).then(|| {
        Failure::Result(format!(
            "{} things were left behind",
            ended.left_behind.len()
        ))
    });
    Ok(Shows::new(&ended, args.json)?.with_failure(failure))
}

fn bind_spec(text: &str) -> Result<BindSpec, Failure> {
    text.parse()
        .map_err(|error| Failure::Input(format!("`{text}` cannot be served: {error}")))
}

fn manager(args: &ServeArgs) -> Result<ProcessManager, Failure> {
    let manager = match &args.keep {
        Some(dir) => {
            let dir = std::path::absolute(dir).context("the directory to keep")?;
            ProcessManager::surviving(dir, args.grace.into())
        }
        None => ProcessManager::new(),
    };
    Ok(manager.context("cannot start processes")?)
}

/// Whoever started the program waits for this line.
fn announce(host: &Host, json: bool) -> Result<(), Failure> {
    let serving = Serving {
        addr: host.addr().to_string(),
        aliases: host
            .addrs()
            .others()
            .iter()
            .map(ToString::to_string)
            .collect(),
        backend: host.backend_addr().to_string(),
        pid: std::process::id(),
    };
    let line = if json {
        serde_json::to_string(&serving).context("cannot write the address")?
    } else {
        let also = match serving.aliases.as_slice() {
            [] => String::new(),
            aliases => format!(", also {}", aliases.join(", ")),
        };
        format!("serving {}{also} (process {})", serving.addr, serving.pid)
    };
    let mut out = io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Job(
            anyhow::Error::new(error).context("cannot write to standard output"),
        )),
        _ => Ok(()),
    }
}
