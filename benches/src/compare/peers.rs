//! Other libraries doing the same work: lines that set our arms against those of the program `peers`, where one is given.
//! Each arm of it is a process that does what it is told by lines of text, so that nothing of theirs is linked in here.

use std::borrow::Cow;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::compare::row::{Arm, Figures, Line, Metric, Row, Trips};

/// A line of a row that a peer's arm is the baseline of.
struct Peer {
    row: &'static str,
    /// The peer's name for itself.
    name: &'static str,
    order: &'static str,
    subject: &'static str,
    what: &'static str,
    metric: Metric,
    /// The ratio that is aimed at, for a rate.
    at_least: Option<f64>,
}

const CLUSTER: &str = "ractor_cluster";
const REMOTE: &str = "kameo remote";

/// Peers with a program of their own, which lies beside the others'.
const APART: &[(&str, &str)] = &[
    (CLUSTER, "hyperactor-peers-cluster"),
    (REMOTE, "hyperactor-peers-kameo-remote"),
];

/// Ahead of every peer by this much.
const AHEAD: f64 = 1.5;

const fn push(
    row: &'static str,
    name: &'static str,
    subject: &'static str,
    what: &'static str,
    at_least: Option<f64>,
) -> Peer {
    Peer {
        row,
        name,
        order: "push",
        subject,
        what,
        metric: Metric::Rate,
        at_least,
    }
}

const fn ask(
    row: &'static str,
    name: &'static str,
    subject: &'static str,
    what: &'static str,
) -> Peer {
    Peer {
        row,
        name,
        order: "ask",
        subject,
        what,
        metric: Metric::P50,
        at_least: None,
    }
}

const PEERS: &[Peer] = &[
    push(
        "a1",
        "ractor, one thread",
        "handle, one thread",
        "handle to ractor, one thread",
        Some(AHEAD),
    ),
    push(
        "a1",
        "kameo, one thread",
        "handle, one thread",
        "handle to kameo, one thread",
        Some(AHEAD),
    ),
    push(
        "a1",
        "xtra, one thread",
        "handle, one thread",
        "handle to xtra, one thread",
        Some(AHEAD),
    ),
    push(
        "a1",
        "actix",
        "handle, one thread",
        "handle to actix, one thread",
        Some(AHEAD),
    ),
    push(
        "a1",
        "ractor",
        "handle, threads",
        "handle to ractor, threads",
        Some(AHEAD),
    ),
    push(
        "a1",
        "kameo",
        "handle, threads",
        "handle to kameo, threads",
        Some(AHEAD),
    ),
    push(
        "a1",
        "xtra",
        "handle, threads",
        "handle to xtra, threads",
        Some(AHEAD),
    ),
    ask(
        "ask",
        "ractor, one thread",
        "ask, one thread",
        "ask to ractor's call, one thread",
    ),
    ask(
        "ask",
        "kameo, one thread",
        "ask, one thread",
        "ask to kameo's, one thread",
    ),
    ask(
        "ask",
        "xtra, one thread",
        "ask, one thread",
        "ask to xtra's send, one thread",
    ),
    ask(
        "ask",
        "actix",
        "ask, one thread",
        "ask to actix's send, one thread",
    ),
    // A stretch, not a promise.
    push(
        "b1",
        "tonic",
        "direct",
        "direct to tonic's client streaming",
        None,
    ),
    push(
        "b1",
        CLUSTER,
        "direct",
        "direct to ractor_cluster's cast",
        None,
    ),
    push(
        "b1",
        REMOTE,
        "direct",
        "direct to kameo's remote tell, encrypted",
        None,
    ),
    push("b2", "zeromq", "channel", "posts to zeromq's PUSH", None),
    ask(
        "b4",
        "tonic",
        "direct, free",
        "ask to tonic's unary call, free",
    ),
    ask(
        "b4",
        CLUSTER,
        "direct, free",
        "ask to ractor_cluster's call, free",
    ),
    ask(
        "b4",
        REMOTE,
        "direct, free",
        "ask to kameo's remote ask, encrypted, free",
    ),
    ask("b4", "zeromq", "direct, free", "ask to zeromq's REQ, free"),
];

/// Adds the peers of a row.
pub(crate) fn add(id: &str, row: &mut Row, program: &Path) -> Result<()> {
    for peer in PEERS.iter().filter(|peer| peer.row == id) {
        let apart = APART.iter().find(|(name, _)| *name == peer.name);
        let program = match apart {
            Some((_, file)) => Cow::Owned(program.with_file_name(file)),
            None => Cow::Borrowed(program),
        };
        let mut running = Running::start(&program, peer.name)?;
        let order = peer.order;
        let bounds = match peer.metric {
            Metric::Rate => (1_000, 10_000_000),
            _ => (100, 500_000),
        };
        row.arms.push(Arm::new(peer.name, bounds, move |count| {
            running.measure(order, count)
        }));
        let line = Line::ratio(peer.what, peer.metric, peer.subject, peer.name);
        row.lines.push(match peer.at_least {
            Some(least) => line.at_least(least),
            None => line,
        });
    }
    Ok(())
}

/// A process of the program `peers`, which ends when this is dropped.
struct Running {
    name: &'static str,
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// A line of its output, in nanoseconds.
#[derive(Debug, Deserialize)]
struct Found {
    elapsed: u64,
    count: u64,
    p50: u64,
    p99: u64,
    mean: u64,
}

impl Running {
    fn start(program: &Path, name: &'static str) -> Result<Self> {
        let mut child = Command::new(program)
            .arg(name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let orders = child.stdin.take();
        let answers = child.stdout.take().context("a peer without an output")?;
        Ok(Self {
            name,
            child,
            orders,
            answers: BufReader::new(answers),
        })
    }

    fn measure(&mut self, order: &str, count: u64) -> Result<Figures> {
        let orders = self.orders.as_mut().context("a peer without an input")?;
        writeln!(orders, "{order} {count}")?;
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            bail!("the peer {} ended", self.name);
        }
        let found: Found = serde_json::from_str(&line)
            .with_context(|| format!("the peer {} answered `{}`", self.name, line.trim()))?;
        Ok(Figures {
            elapsed: Duration::from_nanos(found.elapsed),
            count: found.count,
            trips: Trips {
                p50: found.p50,
                p99: found.p99,
                mean: found.mean,
            },
            value: 0.0,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Err(error) = self.child.wait() {
            eprintln!("compare: the peer {} did not end: {error}", self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::rows;

    #[test]
    fn every_peer_belongs_to_a_row() {
        for peer in PEERS {
            assert!(rows::choose(&[peer.row.to_owned()]).is_ok(), "{}", peer.row);
        }
    }

    #[test]
    fn a_program_apart_belongs_to_a_peer() {
        for (name, file) in APART {
            assert!(PEERS.iter().any(|peer| peer.name == *name), "{file}");
        }
    }

    #[test]
    fn a_peer_is_told_what_to_do_and_its_answer_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("hyperactor-peers");
        let script = "#!/bin/sh\nwhile read order count; do\n\
            echo \"{\\\"elapsed\\\":2000,\\\"count\\\":$count,\\\"p50\\\":1,\\\"p99\\\":2,\\\"mean\\\":1}\"\ndone\n";
        std::fs::write(&program, script).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&program, mode).unwrap();
        for (_, file) in APART {
            std::fs::copy(&program, program.with_file_name(file)).unwrap();
        }
        let mut row = Row::default();
        add("b1", &mut row, &program).unwrap();
        assert_eq!(row.arms.len(), 3);
        let found = (row.arms[1].measure)(500).unwrap();
        assert_eq!((found.count, found.elapsed.as_nanos()), (500, 2000));
        assert_eq!(found.trips.p99, 2);
        assert_eq!(row.lines[0].subject, "direct");
    }
}
