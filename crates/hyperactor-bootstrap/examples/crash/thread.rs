//! The thread that started a child ends. The child lives on: it belongs to its host, not to a thread of it.

use std::time::Duration;

use hyperactor_host::{EndedBy, RoutePolicy};

use crate::actors::CountDescriptors;
use crate::report::{Context, Result};
use crate::world::World;
use hyperactor_testkit::SuiteReport;

/// How many children are started by a thread that ends.
const CHILDREN: u64 = 20;
/// How long they are looked at after that.
const LOOKED_AT: Duration = Duration::from_secs(1);

pub(crate) async fn run(context: &Context, report: &mut SuiteReport) -> Result {
    let world = World::new().await?;
    let runtime = tokio::runtime::Handle::current();
    let mut procs = Vec::new();
    for number in 0..context.scaled(CHILDREN) {
        let (world, runtime) = (&world, &runtime);
        // Driven by that thread: the fork happens in it.
        let spawned = std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                let name = format!("child-{number}");
                let spawn = world.spawn(&name, RoutePolicy::Auto);
                runtime.block_on(spawn).map_err(|error| error.to_string())
            });
            thread.join().unwrap()
        });
        procs.push(spawned?);
    }
    tokio::time::sleep(LOOKED_AT).await;
    for proc in &procs {
        let alive = proc.exited().borrow().is_none() && proc.ended_by() == EndedBy::Itself;
        report.check("the child lives", alive, proc.name());
        let sender = world.sender(proc).await?;
        let answer = sender.ask(&world.client, CountDescriptors).await;
        report.check("the child answers", answer.is_ok(), format!("{answer:?}"));
    }
    report.figure("children whose thread ended", procs.len());
    let end = world.end().await;
    report.check("nothing is left", end.is_ok(), format!("{end:?}"));
    Ok(())
}
