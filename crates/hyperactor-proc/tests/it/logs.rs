//! What is logged, and what never is.

use std::io::Write;
use std::sync::{Arc, Mutex};

use hyperactor_proc::{Actor, ActorRef, ActorResult, Context, Handler, Message, Proc};
use serde::{Deserialize, Serialize};
use tracing_subscriber::fmt::MakeWriter;

use crate::common::{Add, Counter, Total, soon};

/// Collects what a subscriber of this thread writes.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn start(&self) -> tracing::subscriber::DefaultGuard {
        let subscriber = tracing_subscriber::fmt()
            .with_writer(self.clone())
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .finish();
        tracing::subscriber::set_default(subscriber)
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn line(&self, level: &str, part: &str) -> String {
        let text = self.text();
        text.lines()
            .find(|line| line.contains(level) && line.contains(part))
            .unwrap_or_else(|| panic!("no {level} with {part:?} in:\n{text}"))
            .to_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[derive(Message, Serialize, Deserialize)]
struct Secret(String);

/// Passes a secret on to nobody, and then fails.
#[derive(Actor)]
struct Careless(ActorRef<Vault>);

#[derive(Actor)]
#[actor(messages(Secret))]
struct Vault;

impl Handler<Secret> for Vault {
    async fn handle(&mut self, _cx: &Context<Self>, _: Secret) -> ActorResult {
        Ok(())
    }
}

impl Handler<u8> for Careless {
    async fn handle(&mut self, cx: &Context<Self>, _: u8) -> ActorResult {
        self.0.post(cx, Secret("hunter2".to_owned()));
        Ok(())
    }
}

impl Handler<u16> for Careless {
    async fn handle(&mut self, _cx: &Context<Self>, _: u16) -> ActorResult {
        Err("no more".into())
    }
}

#[tokio::test]
async fn an_undeliverable_and_a_failure_are_logged_with_ids_and_reason_and_without_content() {
    let log = Log::default();
    let _guard = log.start();
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let vault = ActorRef::attest(proc.actor_id("vault"));
    let careless = proc.spawn("careless", Careless(vault)).unwrap();
    careless.post(&main, 1_u8).unwrap();
    careless.post(&main, 2_u16).unwrap();
    soon(careless.join()).await;

    let warning = log.line("WARN", "vault[0]");
    assert!(warning.contains("careless[0]"), "{warning}");
    assert!(warning.contains("unknown-actor"), "{warning}");
    let error = log.line("ERROR", "careless[0]");
    assert!(error.contains("failed: no more"), "{error}");
    assert!(!log.text().contains("hunter2"));
}

#[tokio::test]
async fn a_client_that_does_not_listen_still_leaves_a_line() {
    let log = Log::default();
    let _guard = log.start();
    let proc = Proc::isolated("p");
    let main = proc.client("main").unwrap();
    let nobody = ActorRef::<Counter>::attest(proc.actor_id("nobody"));
    nobody.post(&main, Add(1));
    let line = log.line("WARN", "nobody[0]");
    assert!(line.contains("main[0]"), "{line}");
    assert!(nobody.ask(&main, Total).await.is_err());
}
