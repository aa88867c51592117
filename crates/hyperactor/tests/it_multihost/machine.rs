//! What runs on a machine: one host with its frontend at the machine's address, and procs as processes.

use std::io::Write;

use hyperactor::channel::ServeOptions;
use hyperactor::prelude::*;
use hyperactor::refs::BindSpec;

/// Says that the host can be reached.
pub(crate) const READY: &str = "READY";

/// Plain text goes over links that only the test has.
pub(crate) fn in_the_open() -> ServeOptions {
    ServeOptions {
        danger_plaintext_beyond_loopback: true,
        ..ServeOptions::default()
    }
}

/// Serves a host at an address until it is asked to stop.
pub(crate) async fn serve(addr: &str) {
    let bind: BindSpec = addr.parse().unwrap();
    let host = Host::builder()
        .serve_options(in_the_open())
        .start(ProcessManager::new().unwrap(), bind)
        .await
        .unwrap();
    let mut out = std::io::stdout();
    writeln!(out, "{READY}").unwrap();
    out.flush().unwrap();
    let deadline = host.stop_wanted().await;
    let report = host.stop(deadline).await;
    assert!(report.left_behind.is_empty(), "{report:?}");
}
