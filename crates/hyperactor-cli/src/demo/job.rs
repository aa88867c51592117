//! The job itself, over actors wherever they are: introduces readers and owners, deals out the parts, and collects.
//! Starts and ends no process.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hyperactor::prelude::*;

use crate::demo::collect::Collector;
use crate::demo::messages::{Event, Finish, Meet, Read, TellTally};
use crate::demo::owner::Owner;
use crate::demo::reader::Reader;
use crate::limits;
use crate::parts::Plan;
use crate::progress::{self, Progress};
use crate::routes::Tally;

/// The actors of one job, both kinds in the order of their procs.
pub(crate) struct Cast {
    pub(crate) readers: Vec<ActorRef<Reader>>,
    pub(crate) owners: Vec<ActorRef<Owner>>,
}

/// What a job gave.
pub(crate) struct Done {
    pub(crate) collector: Collector,
    /// From the first part dealt to the last result.
    pub(crate) time: Duration,
    /// The figures of each proc; `undeliverable` is of all its actors.
    pub(crate) tallies: Vec<Tally>,
    /// Messages of the host itself that came back.
    pub(crate) undeliverable: u64,
}

/// Counts the words of `plan`.
///
/// # Errors
///
/// The first failure of an actor, a message of the host that came back, or no progress for [`limits::STALL`].
///
/// # Cancel safety
///
/// Dropping the future leaves the actors in the middle of their work: end their procs.
pub(crate) async fn run(
    client: &Client,
    cast: &Cast,
    plan: Plan,
    events: &mut PortReceiver<Event>,
    progress: &mut Progress,
) -> anyhow::Result<Done> {
    let mut collector = Collector::new(cast.readers.len());
    progress.phase("introducing readers and owners");
    for reader in &cast.readers {
        let owners = cast.owners.clone();
        reader.feed(client, Meet { owners }).await;
    }
    while !collector.is_connected() {
        step(client, events, &mut collector).await?;
    }

    progress.phase(&format!("dealing out {} parts of text", plan.parts));
    let whole = plan.bytes;
    let started = Instant::now();
    let deal = deal(client, cast, plan);
    tokio::pin!(deal);
    let mut is_dealt = false;
    while !collector.is_complete() {
        tokio::select! {
            () = &mut deal, if !is_dealt => is_dealt = true,
            taken = step(client, events, &mut collector) => taken?,
        }
        progress.tick(|| {
            let percent = progress::percent(collector.bytes_read, whole);
            format!("counting: {percent} % of {whole} bytes")
        });
    }
    let time = started.elapsed();
    let tallies = tallies(client, cast).await?;
    Ok(Done {
        collector,
        time,
        tallies,
        undeliverable: count_returned(client),
    })
}

/// Takes one event, or finds out that none will come.
async fn step(
    client: &Client,
    events: &mut PortReceiver<Event>,
    collector: &mut Collector,
) -> anyhow::Result<()> {
    tokio::select! {
        event = events.recv() => match event {
            Some(event) => collector.take(event).map_err(anyhow::Error::msg),
            None => bail!("the host's own mailbox was closed"),
        },
        report = client.next_undeliverable() => bail!("undeliverable: {report}"),
        () = tokio::time::sleep(limits::STALL) => bail!(
            "nothing happened for {} s; a process hangs, and no message about it came back",
            limits::STALL.as_secs()
        ),
    }
}

/// Hands every reader its parts, in turns, as fast as their mailboxes take them.
async fn deal(client: &Client, cast: &Cast, plan: Plan) {
    let mut shares: Vec<_> = plan.shares.into_iter().map(Vec::into_iter).collect();
    loop {
        let mut is_over = true;
        for (reader, share) in cast.readers.iter().zip(&mut shares) {
            let parts: Vec<_> = share.by_ref().take(limits::PARTS_PER_MESSAGE).collect();
            if !parts.is_empty() {
                is_over = false;
                reader.feed(client, Read { parts }).await;
            }
        }
        if is_over {
            break;
        }
    }
    for reader in &cast.readers {
        reader.feed(client, Finish).await;
    }
}

async fn tallies(client: &Client, cast: &Cast) -> anyhow::Result<Vec<Tally>> {
    let mut tallies = Vec::with_capacity(cast.readers.len());
    for (index, (reader, owner)) in cast.readers.iter().zip(&cast.owners).enumerate() {
        let lost = reader
            .ask(client, |reply| TellTally { reply })
            .await
            .with_context(|| format!("reader {index} does not tell its figures"))?;
        let mut tally = owner
            .ask(client, |reply| TellTally { reply })
            .await
            .with_context(|| format!("owner {index} does not tell its figures"))?;
        tally.undeliverable += lost.undeliverable;
        tallies.push(tally);
    }
    Ok(tallies)
}

fn count_returned(client: &Client) -> u64 {
    let mut count = 0;
    while client.try_next_undeliverable().is_some() {
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use std::fs;

    use hyperactor::channel::ServeOptions;
    use hyperactor::router::{DialMailboxRouter, MailboxServer};

    use super::*;
    use crate::demo::messages::{OwnerParams, ReaderParams};
    use crate::input::Input;
    use crate::parts;

    /// All actors in one proc: everything but the processes is real.
    fn cast(proc: &Proc, count: u32, host: &PortRef<Event>) -> Cast {
        let owner = |index| {
            let params = OwnerParams {
                index,
                readers: count,
                host: host.clone(),
            };
            let owner = Owner::create(params).unwrap();
            proc.spawn(&format!("owner{index}"), owner).unwrap().bind()
        };
        let reader = |index| {
            let params = ReaderParams {
                index,
                host: host.clone(),
            };
            let reader = Reader::create(params).unwrap();
            proc.spawn(&format!("reader{index}"), reader)
                .unwrap()
                .bind()
        };
        Cast {
            owners: (0..count).map(owner).collect(),
            readers: (0..count).map(reader).collect(),
        }
    }

    fn many_words() -> (tempfile::TempDir, Input) {
        let folder = tempfile::tempdir().unwrap();
        for file in 0..5 {
            let text: String = (0..4_000)
                .map(|n| format!("w{} ", (n * (file + 1)) % 700))
                .collect();
            fs::write(folder.path().join(format!("{file}.txt")), text).unwrap();
        }
        let input = Input::find(&[folder.path().to_path_buf()]).unwrap();
        (folder, input)
    }

    #[tokio::test]
    async fn the_actors_count_what_a_single_process_counts() {
        let (_folder, mut input) = many_words();
        let plan = Plan::new(&mut input, 3).unwrap();
        let proc = Proc::isolated("job");
        let client = proc.client("host").unwrap();
        let (port, mut events) = client.mailbox().open_port::<Event>();
        let cast = cast(&proc, 3, &port.bind());
        let done = run(&client, &cast, plan, &mut events, &mut Progress::new())
            .await
            .unwrap();
        assert_eq!(done.collector.words, 20_000);
        assert_eq!(done.collector.imbalances(), [""; 0]);
        let alone = parts::count_alone(&input).unwrap();
        assert_eq!(done.collector.difference(&alone), None);
        let messages = done.tallies[0].in_process;
        assert!(
            messages >= 20_000 / limits::BATCH_WORDS as u64,
            "{messages}"
        );
        assert_eq!(done.undeliverable, 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn procs_on_sockets_count_the_same() {
        let (_folder, mut input) = many_words();
        let plan = Plan::new(&mut input, 3).unwrap();
        let routers = [(); 3].map(|()| DialMailboxRouter::new());
        let mut procs = Vec::new();
        let mut servers = Vec::new();
        for (index, router) in routers.iter().enumerate() {
            let id = format!("unix:@a-host-nobody-serves,p{index}")
                .parse()
                .unwrap();
            let proc = Proc::new(id, router.boxed());
            let options = ServeOptions::default();
            let server = MailboxServer::serve(ChannelTransport::Unix, proc.clone(), options).await;
            servers.push(server.unwrap());
            procs.push(proc);
        }
        for router in &routers {
            for (proc, server) in procs.iter().zip(&servers) {
                router
                    .bind(proc.proc_id().clone(), server.addr().clone())
                    .unwrap();
            }
        }
        let client = procs[0].client("host").unwrap();
        let (port, mut events) = client.mailbox().open_port::<Event>();
        let mut spread = Cast {
            owners: Vec::new(),
            readers: Vec::new(),
        };
        for (index, proc) in procs.iter().enumerate() {
            let mut all = cast(proc, 3, &port.bind());
            spread.owners.push(all.owners.swap_remove(index));
            spread.readers.push(all.readers.swap_remove(index));
        }
        let done = run(&client, &spread, plan, &mut events, &mut Progress::new())
            .await
            .unwrap();
        assert_eq!(done.collector.imbalances(), [""; 0]);
        let alone = parts::count_alone(&input).unwrap();
        assert_eq!(done.collector.difference(&alone), None);
        for server in servers {
            server.stop().await;
        }
    }

    #[tokio::test]
    async fn a_file_that_is_gone_breaks_the_job_by_its_name() {
        let (folder, mut input) = many_words();
        let plan = Plan::new(&mut input, 2).unwrap();
        fs::remove_file(folder.path().join("3.txt")).unwrap();
        let proc = Proc::isolated("job");
        let client = proc.client("host").unwrap();
        let (port, mut events) = client.mailbox().open_port::<Event>();
        let cast = cast(&proc, 2, &port.bind());
        let error = run(&client, &cast, plan, &mut events, &mut Progress::new())
            .await
            .err()
            .unwrap();
        assert!(error.to_string().contains("3.txt"), "{error:#}");
    }

    #[tokio::test]
    async fn an_owner_that_is_gone_breaks_the_job_at_once() {
        let (_folder, mut input) = many_words();
        let plan = Plan::new(&mut input, 2).unwrap();
        let proc = Proc::isolated("job");
        let client = proc.client("host").unwrap();
        let (port, mut events) = client.mailbox().open_port::<Event>();
        let mut cast = cast(&proc, 2, &port.bind());
        cast.owners[1] = ActorRef::attest(proc.actor_id("nobody"));
        let error = run(&client, &cast, plan, &mut events, &mut Progress::new())
            .await
            .err()
            .unwrap();
        assert!(error.to_string().contains("nobody"), "{error:#}");
    }
}
