//! Procs that are joined over real Unix sockets: each has a server of its own and dials the others.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyperactor::channel::ServeOptions;
use hyperactor::prelude::*;
use hyperactor::router::{DialMailboxRouter, MailboxServer, MailboxServerHandle};

/// How long anything may take before a test has failed; an ask's own deadline is shorter.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What counts as at once on a busy machine; well below the deadline that would else end a wait.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(5);

/// A proc with its socket.
pub(crate) struct Joined {
    pub(crate) proc: Proc,
    server: Option<MailboxServerHandle>,
}

impl Joined {
    /// A proc that every other can reach by its id alone.
    pub(crate) async fn new(name: &str) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let addr: ChannelAddr = format!("unix:@joined-{}-{number}", std::process::id())
            .parse()
            .unwrap();
        let proc_id = ProcId::Direct(addr.clone(), name.to_owned());
        let proc = Proc::new(proc_id, DialMailboxRouter::new().boxed());
        let server = MailboxServer::serve(addr, proc.clone(), ServeOptions::default())
            .await
            .unwrap();
        Self {
            proc,
            server: Some(server),
        }
    }

    /// As many as are asked for.
    #[allow(dead_code, reason = "one of the suites joins more than two")]
    pub(crate) async fn many(count: usize) -> Vec<Self> {
        let mut all = Vec::new();
        for at in 0..count {
            all.push(Self::new(&format!("p{at}")).await);
        }
        all
    }

    /// Takes the proc off the net, as if its process had ended.
    #[allow(dead_code, reason = "one of the suites ends procs")]
    pub(crate) async fn vanish(mut self) {
        if let Some(server) = self.server.take() {
            server.stop().await;
        }
    }
}

/// Bounds a wait.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it takes too long")
}
