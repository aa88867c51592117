//! What the test binary does when it is started to play a role: hosts to be killed, and programs that make the mistakes
//! that people make.

use std::process::Child;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hyperactor_bootstrap::{LaunchOrder, Launcher, ProcessManager, SocketDir};
use hyperactor_host::{Host, ProcConfig, RoutePolicy};
use hyperactor_refs::ChannelTransport;
use tokio::signal::unix::{SignalKind, signal};

use crate::world::{TestResult, World};

/// The variable that tells a sleepy child whose death it waits for.
const PARENT: &str = "HYPERACTOR_TEST_PARENT";

/// How long a slow child takes before it boots.
pub(crate) const SLOW_START: Duration = Duration::from_millis(500);

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
        // Takes longer to come to the call than its host lives.
        "sleepy" => return wait_for_another_parent(),
        "slow" => return std::thread::sleep(SLOW_START),
        _ => return,
    }
    std::process::exit(0);
}

/// Returns when the parent is dead, and the process was given to another.
fn wait_for_another_parent() {
    // Told by the parent: it may be dead before this process can ask.
    let parent = std::env::var(PARENT).unwrap_or_default();
    let is_parent = |pid: rustix::process::Pid| pid.to_string() == parent;
    while rustix::process::getppid().is_some_and(is_parent) {
        std::thread::sleep(Duration::from_millis(1));
    }
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
    let runtime = tokio::runtime::Runtime::new()?;
    if role == "keeper" {
        // It reads its orders itself.
        return runtime.block_on(crate::keeps::keep());
    }
    end_with_the_test();
    if role == "halting-host" {
        return halting_host();
    }
    runtime.block_on(async {
        if role == "impatient-host" {
            return impatient_host().await;
        }
        let world = World::new().await?;
        if role == "printing-host" {
            return crate::deaths::printing_host(world).await;
        }
        if role == "fertile-host" {
            return crate::groups::fertile_host(world).await;
        }
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
                let alive = pids.map(hyperactor_testkit::is_alive);
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

/// Starts a child that never gets to its boot while this host lives.
async fn impatient_host() -> TestResult {
    let manager = ProcessManager::new()?
        .with_env(crate::world::ROLE, "sleepy")
        .with_env(PARENT, std::process::id().to_string());
    println!("DIR {}", manager.socket_dir().display());
    let host = Host::new(manager, ChannelTransport::Unix).await?;
    println!("BUSY");
    host.spawn("late", ProcConfig::new()).await?;
    Err("a child that sleeps was ready".into())
}

/// Starts a child that is stopped before it becomes the program. On a runtime with one thread: when it is said that there is a
/// child, the host has done for it whatever it does before it waits for it.
fn halting_host() -> TestResult {
    static CHILD: AtomicU32 = AtomicU32::new(0);

    struct Halting;

    impl Launcher for Halting {
        fn launch(&self, order: LaunchOrder) -> std::io::Result<Child> {
            // Not the order's program, which leads through the host.
            let program = std::env::current_exe()?;
            let mut command = order.into_command("sh");
            command.args(["-c", "kill -STOP $$; exec \"$0\""]);
            let child = command.arg(program).spawn()?;
            CHILD.store(child.id(), Ordering::Relaxed);
            Ok(child)
        }
    }

    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build()?.block_on(async {
        let manager = ProcessManager::new()?
            .with_launcher(Halting)
            // As a child it plays no role.
            .with_env(crate::world::ROLE, "");
        println!("DIR {}", manager.socket_dir().display());
        let host = Host::new(manager, ChannelTransport::Unix).await?;
        let spawn = host.spawn("late", ProcConfig::new());
        let tell = async {
            while CHILD.load(Ordering::Relaxed) == 0 {
                tokio::task::yield_now().await;
            }
            println!("PIDS {}", CHILD.load(Ordering::Relaxed));
            println!("BUSY");
        };
        tokio::join!(spawn, tell).0?;
        Err("a child that stands still was ready".into())
    })
}
