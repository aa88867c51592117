//! What is run to count its allocations: messages without anything on the heap, within a proc and the whole direct way, and
//! large ones. All of it on one thread, both procs of the direct way included, so that a counter of that thread's allocations misses none.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use bytes::Bytes;
use hyperactor::bootstrap::SocketDir;
use hyperactor::bootstrap::mailbox::LocalProcDialer;
use hyperactor::host::{LocalProcManager, ProcSpec};
use hyperactor::prelude::*;
use hyperactor::proc::Registry;
use hyperactor::refs::BindSpec;
use hyperactor::router::MailboxClient;
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

/// Messages that were handled, in all procs of this process.
static HANDLED: AtomicU64 = AtomicU64::new(0);

/// Messages of a batch.
const BATCH: u64 = 100;

/// How long a giver may take.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Message, Serialize, Deserialize)]
struct Item([u64; 8]);

#[derive(Message, Serialize, Deserialize)]
struct Large(Part);

#[derive(Message, Serialize, Deserialize)]
struct Handled(OncePortRef<u64>);

#[derive(Default, Actor)]
#[actor(messages(Item, Large, Handled))]
struct Taker;

impl RemoteSpawn for Taker {
    type Params = ();

    fn create((): ()) -> Result<Self, ActorError> {
        Ok(Self)
    }
}

impl Handler<Item> for Taker {
    async fn handle(&mut self, _cx: &Context<Self>, item: Item) -> ActorResult {
        std::hint::black_box(&item);
        HANDLED.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl Handler<Large> for Taker {
    async fn handle(&mut self, _cx: &Context<Self>, large: Large) -> ActorResult {
        std::hint::black_box(large.0.bytes());
        drop(large);
        HANDLED.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl Handler<Handled> for Taker {
    async fn handle(&mut self, cx: &Context<Self>, Handled(reply): Handled) -> ActorResult {
        cx.reply(reply, HANDLED.load(Ordering::Relaxed));
        Ok(())
    }
}

/// To a giver: post so many messages, some at a time, and tell when they were handled.
#[derive(Message, Serialize, Deserialize)]
struct Give {
    to: ActorRef<Taker>,
    count: u64,
    batch: u64,
    done: OncePortRef<u64>,
}

/// The same with messages of so many bytes, one at a time.
#[derive(Message, Serialize, Deserialize)]
struct GiveLarge {
    to: ActorRef<Taker>,
    count: u64,
    size: usize,
    done: OncePortRef<u64>,
}

#[derive(Default, Actor)]
#[actor(messages(Give, GiveLarge))]
struct Giver {
    /// What is in large messages; made for the first of them.
    block: Bytes,
}

impl RemoteSpawn for Giver {
    type Params = ();

    fn create((): ()) -> Result<Self, ActorError> {
        Ok(Self::default())
    }
}

impl Handler<Give> for Giver {
    async fn handle(&mut self, cx: &Context<Self>, give: Give) -> ActorResult {
        let Give {
            to,
            count,
            batch,
            done,
        } = give;
        let before = HANDLED.load(Ordering::Relaxed);
        for round in 1..=count / batch {
            for number in 0..batch {
                to.post(cx, Item([number; 8]));
            }
            handled(before + round * batch).await;
        }
        cx.reply(done, HANDLED.load(Ordering::Relaxed) - before);
        Ok(())
    }
}

impl Handler<GiveLarge> for Giver {
    async fn handle(&mut self, cx: &Context<Self>, give: GiveLarge) -> ActorResult {
        let before = HANDLED.load(Ordering::Relaxed);
        if self.block.len() != give.size {
            self.block = Bytes::from(vec![0xa5; give.size]);
        }
        for number in 1..=give.count {
            give.to.post(cx, Large(Part::from(self.block.clone())));
            handled(before + number).await;
        }
        cx.reply(give.done, HANDLED.load(Ordering::Relaxed) - before);
        Ok(())
    }
}

async fn handled(total: u64) {
    while HANDLED.load(Ordering::Relaxed) < total {
        tokio::task::yield_now().await;
    }
}

/// Allocations a message by way. `counter` does what it is given and says how many allocations the calling thread made.
///
/// # Errors
///
/// What could not be started, or did not answer.
pub fn count_allocations(
    messages: u64,
    counter: impl Fn(&mut dyn FnMut()) -> u64,
) -> Result<BTreeMap<&'static str, f64>> {
    let runtime = one_thread()?;
    let messages = messages / BATCH * BATCH;
    ensure!(messages > 0, "a count needs at least {BATCH} messages");
    let mut found = BTreeMap::new();
    let mut count = |name, work: &mut dyn FnMut(u64) -> Result<()>| -> Result<()> {
        // The first time, tables and queues grow.
        work(messages)?;
        let mut done = Ok(());
        let total = counter(&mut || done = work(messages));
        done?;
        found.insert(name, total as f64 / messages as f64);
        Ok(())
    };
    let local = Local::new(&runtime)?;
    count("handle", &mut |messages| {
        runtime.block_on(local.in_batches(messages, |client, number| {
            let posted = local.taker.post(client, Item([number; 8]));
            posted.map_err(|error| anyhow!("{error}"))
        }))
    })?;
    let reference = local.taker.bind();
    count("reference", &mut |messages| {
        runtime.block_on(local.in_batches(messages, |client, number| {
            reference.post(client, Item([number; 8]));
            Ok(())
        }))
    })?;
    count("ask", &mut |messages| {
        runtime.block_on(async {
            for _ in 0..messages {
                reference.ask(&local.client, Handled).await?;
            }
            Ok(())
        })
    })?;
    let direct = runtime.block_on(Direct::new())?;
    for (name, batch) in [("direct, one by one", 1), ("direct, in batches", BATCH)] {
        count(name, &mut |messages| {
            runtime.block_on(direct.give(messages, batch))
        })?;
    }
    runtime.block_on(direct.host.stop(Duration::from_secs(5)));
    Ok(found)
}

/// What `counter` counts while so many messages of `size` bytes in a [`Part`] go the whole direct way, after as many that
/// warm it up.
///
/// # Errors
///
/// As [`count_allocations`].
pub fn count_large<T>(
    messages: u64,
    size: usize,
    counter: impl Fn(&mut dyn FnMut()) -> T,
) -> Result<T> {
    let runtime = one_thread()?;
    let direct = runtime.block_on(Direct::new())?;
    let mut done = runtime.block_on(direct.give_large(messages, size));
    let mut counted = None;
    if done.is_ok() {
        let mut work = || done = runtime.block_on(direct.give_large(messages, size));
        counted = Some(counter(&mut work));
    }
    runtime.block_on(direct.host.stop(Duration::from_secs(5)));
    done?;
    counted.ok_or_else(|| anyhow!("nothing was counted"))
}

fn one_thread() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

/// A proc on its own.
struct Local {
    client: Client,
    taker: ActorHandle<Taker>,
    _proc: Proc,
}

impl Local {
    fn new(runtime: &Runtime) -> Result<Self> {
        let _entered = runtime.enter();
        let proc = Proc::isolated("counted");
        Ok(Self {
            client: proc.client("client")?,
            taker: proc.spawn("taker", Taker)?,
            _proc: proc,
        })
    }

    async fn in_batches(
        &self,
        messages: u64,
        post: impl Fn(&Client, u64) -> Result<()>,
    ) -> Result<()> {
        let before = HANDLED.load(Ordering::Relaxed);
        for round in 1..=messages / BATCH {
            for number in 0..BATCH {
                post(&self.client, number)?;
            }
            handled(before + round * BATCH).await;
        }
        Ok(())
    }
}

/// Two procs of one host, with sockets and the direct route between them as two processes have.
struct Direct {
    host: Host,
    client: Client,
    giver: ActorRef<Giver>,
    taker: ActorRef<Taker>,
}

impl Direct {
    async fn new() -> Result<Self> {
        let dir = Arc::new(SocketDir::create()?);
        let (bind_dir, look_dir) = (Arc::clone(&dir), dir);
        let backend = ChannelAddr::unix_path(bind_dir.backend_path())?;
        let registry = Registry::new().with::<Giver>().with::<Taker>();
        let manager = LocalProcManager::new(registry)
            .with_backend(backend.clone())
            .with_bind(move |spec: &ProcSpec| {
                let path = bind_dir.socket_path(spec.proc_id.name());
                // The backend's address is refused as taken, which says what is wrong.
                BindSpec::from(ChannelAddr::unix_path(path).unwrap_or_else(|_| backend.clone()))
            })
            .with_forwarding(move |spec: &ProcSpec| {
                let backend = MailboxClient::dial(spec.backend.clone());
                LocalProcDialer::new(spec.frontend.clone(), look_dir.path(), backend)
                    .with_policy(RoutePolicy::Direct)
                    .boxed()
            });
        let host = Host::new(manager, ChannelTransport::Unix).await?;
        let client = host.service_proc().client("client")?;
        let giving = host.spawn_default("giving").await?;
        let taking = host.spawn_default("taking").await?;
        Ok(Self {
            giver: giving.spawn::<Giver>(&client, "giver", ()).await?,
            taker: taking.spawn::<Taker>(&client, "taker", ()).await?,
            host,
            client,
        })
    }

    async fn give(&self, count: u64, batch: u64) -> Result<()> {
        let to = self.taker.clone();
        let give = |done| Give {
            to,
            count,
            batch,
            done,
        };
        self.told(count, give).await
    }

    async fn give_large(&self, count: u64, size: usize) -> Result<()> {
        let to = self.taker.clone();
        let give = |done| GiveLarge {
            to,
            count,
            size,
            done,
        };
        self.told(count, give).await
    }

    async fn told<M>(&self, count: u64, give: impl FnOnce(OncePortRef<u64>) -> M) -> Result<()>
    where
        M: Message,
        Giver: Receives<M>,
    {
        let handled = self.giver.ask_within(&self.client, PATIENCE, give).await?;
        ensure!(
            handled == count,
            "{handled} of {count} messages were handled"
        );
        Ok(())
    }
}
