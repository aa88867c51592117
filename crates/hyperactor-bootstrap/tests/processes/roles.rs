//! What the test binary does when it is started to play a role: hosts to be killed, and programs that make the mistakes
//! that people make.

use std::time::Duration;

use hyperactor_bootstrap::{ProcessManager, SocketDir};
use hyperactor_host::RoutePolicy;
use tokio::signal::unix::{SignalKind, signal};

use crate::world::{TestResult, World};

/// Roles that are played without the bootstrap call.
pub(crate) fn before_boot(role: &str) {
    match role {
        // Forgets the call, and goes on as a program would that has one host.
        "forgets" => match ProcessManager::new() {
            Ok(_) => println!("MANAGER made"),
            Err(error) => println!("MANAGER {}: {error}", error.code()),
        },
        // Says where a host would put its sockets.
        "where" => match SocketDir::create() {
            Ok(dir) => println!("DIR {}", dir.path().display()),
            Err(error) => println!("NONE {error}"),
        },
        // Forgets the call, and ends.
        "ends" => {}
        "ends-badly" => std::process::exit(3),
        // Forgets the call, and does something else for a long time.
        "wanders" => std::thread::sleep(Duration::from_secs(60)),
        // Makes the call when it has a second thread.
        "late" => {
            let (send, receive) = std::sync::mpsc::channel::<()>();
            let thread = std::thread::spawn(move || receive.recv());
            hyperactor_bootstrap::boot(crate::actors::registry());
            drop(send);
            drop(thread.join());
        }
        _ => return,
    }
    std::process::exit(0);
}

/// Ends this process when the test that plays with it is gone, however that went.
fn end_with_the_test() {
    std::thread::spawn(|| {
        // Nothing is ever written there: this returns at the end of the test.
        drop(std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
        std::process::exit(1);
    });
}

/// Roles that are played after the bootstrap call.
pub(crate) fn after_boot(role: &str) -> TestResult {
    end_with_the_test();
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let world = World::new().await?;
        let pair = world.pair(RoutePolicy::Auto).await?;
        let pids = [&pair.a, &pair.b].map(|hosted| hosted.info().pid.unwrap_or_default());
        println!("DIR {}", world.dir.display());
        println!("PIDS {} {}", pids[0], pids[1]);
        match role {
            // Keeps its children busy until it is killed.
            "busy-host" => {
                let mut first = 0;
                loop {
                    world.flood(&pair.source, &pair.sink, first, 500).await?;
                    first += 500;
                    if first == 500 {
                        println!("BUSY");
                    }
                }
            }
            // Ends in order on Ctrl-C.
            "polite-host" => {
                // Caught before the test is told that it may send it.
                let mut interrupt = signal(SignalKind::interrupt())?;
                println!("BUSY");
                interrupt.recv().await;
                let alive = pids.map(crate::world::is_alive);
                println!("ALIVE {alive:?}");
                world.end().await?;
                println!("ENDED");
                Ok(())
            }
            // Leaves its main function without stopping anything.
            "careless-host" => {
                println!("BUSY");
                drop(world);
                Ok(())
            }
            other => Err(format!("no such role: {other}").into()),
        }
    })
}
