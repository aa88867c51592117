//! Names that would lead elsewhere if they were file names.

use std::collections::HashSet;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::PathBuf;

use hyperactor_bootstrap::{SOCKET_NAME_BYTES, SocketDir, socket_name};
use hyperactor_host::ProcConfig;
use hyperactor_proc::ActorRef;
use hyperactor_refs::{ActorId, ProcId};
use libtest_mimic::Trial;

use crate::keeper::Keeper;
use crate::rig::Rig;
use crate::trial;
use crate::world::{LONG, TestResult};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "hostile_names_lead_to_their_own_procs_and_never_out_of_the_directory",
            hostile_names,
        ),
        trial(
            "names_that_no_proc_can_have_come_back_and_dial_nothing",
            impossible_names,
        ),
        trial("a_million_names_do_not_clash", a_million_names),
    ]
}

/// Sockets at the places to which names would lead if they were paths. Nobody may come there.
struct Traps {
    folder: tempfile::TempDir,
    listeners: Vec<(String, UnixListener)>,
}

impl Traps {
    fn set(rig: &Rig) -> TestResult<Self> {
        let mut traps = Self {
            folder: tempfile::tempdir()?,
            listeners: Vec::new(),
        };
        let folder = traps.folder.path().to_path_buf();
        let absolute = folder.join("trap.sock");
        let up = "../".repeat(rig.world.dir.components().count());
        let relative = format!("{up}{}", folder.join("up.sock").display());
        traps.listen(absolute.display().to_string(), &absolute)?;
        traps.listen(relative, &folder.join("up.sock"))?;
        traps.listen("plain.sock".to_owned(), &rig.world.dir.join("plain.sock"))?;
        let name = format!("hyperactor-trap-{}", std::process::id());
        let addr = SocketAddr::from_abstract_name(&name)?;
        let listener = UnixListener::bind_addr(&addr)?;
        listener.set_nonblocking(true)?;
        traps.listeners.push((format!("@{name}"), listener));
        Ok(traps)
    }

    fn listen(&mut self, name: String, at: &PathBuf) -> TestResult {
        let listener = UnixListener::bind(at)?;
        listener.set_nonblocking(true)?;
        self.listeners.push((name, listener));
        Ok(())
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.listeners.iter().map(|(name, _)| name.as_str())
    }

    fn assert_untouched(&self) {
        for (name, listener) in &self.listeners {
            let came = listener.accept();
            assert!(came.is_err(), "somebody dialled the socket of {name:?}");
        }
    }
}

async fn hostile_names() -> TestResult {
    let rig = Rig::new().await?;
    let traps = Traps::set(&rig)?;
    let long = "x".repeat(200);
    let names = [
        "..",
        ".",
        "/",
        "a/../../b",
        "@abstract",
        "名前",
        "e\u{301}",
        &long,
    ];
    let names: Vec<&str> = names.into_iter().chain(traps.names()).collect();
    let around = std::fs::read_dir("/")?.count();
    for name in &names {
        let (hosted, keeper) = rig.keeper(name).await?;
        rig.announce(&hosted);
        rig.post(&keeper, 10);
        rig.posts.all_told(LONG).await;
        assert_eq!(rig.counts(name), (10, 0), "{name:?}");
        assert_eq!(rig.read(&keeper, 1).await?, 10, "{name:?}");
    }
    assert_eq!(rig.backend.count(), 0);
    traps.assert_untouched();
    let mut sockets = SocketDir::open(&rig.world.dir)?.sockets()?;
    sockets.retain(|socket| socket != "backend.sock" && socket != "plain.sock");
    let expected: HashSet<String> = names.iter().map(|name| socket_name(name)).collect();
    assert_eq!(sockets.into_iter().collect::<HashSet<_>>(), expected);
    assert_eq!(expected.len(), names.len());
    assert!(expected.iter().all(|name| name.len() == SOCKET_NAME_BYTES));
    assert_eq!(std::fs::read_dir("/")?.count(), around);
    std::fs::remove_file(rig.world.dir.join("plain.sock"))?;
    rig.end().await
}

async fn impossible_names() -> TestResult {
    let rig = Rig::new().await?;
    let traps = Traps::set(&rig)?;
    let nul = format!("{}\0", rig.world.dir.join("plain.sock").display());
    let endless = "x".repeat(70_000);
    let unknown = ["", "nul\0nul", "line\nfeed", &nul].map(|name| (name, "unknown-proc"));
    // Longer than a name in a message may be: it does not leave this process.
    for (name, code) in unknown.into_iter().chain([(&*endless, "encode")]) {
        let error = rig.world.host.spawn(name, ProcConfig::new()).await;
        let error = error.expect_err("it was started");
        assert_eq!(error.code(), "name", "{name:.20?}: {error}");
        // An id that nobody checked, as a peer may send one.
        let addr = rig.world.host.addr().clone();
        let proc_id = ProcId::Direct(addr, name.to_owned());
        let nobody: ActorRef<Keeper> = ActorRef::attest(ActorId::root(proc_id, "keeper"));
        let from = rig.posts.count();
        rig.post(&nobody, 3);
        rig.posts.all_told(LONG).await;
        for fate in rig.posts.fates(from) {
            assert_eq!(fate.code, code, "{name:.20?}: {:.200}", fate.text);
        }
        assert_eq!(rig.counts(name), (0, 3), "{name:.20?}");
    }
    traps.assert_untouched();
    let reserved = rig.world.host.spawn("service", ProcConfig::new()).await;
    assert_eq!(reserved.expect_err("it was started").code(), "reserved");
    std::fs::remove_file(rig.world.dir.join("plain.sock"))?;
    rig.end().await
}

async fn a_million_names() -> TestResult {
    const NAMES: u64 = 1_000_000;
    const PARTS: u64 = 4;
    let part = |part| (part..NAMES).step_by(PARTS as usize);
    let names = std::thread::scope(|scope| {
        let parts: Vec<_> = (0..PARTS)
            .map(|number| {
                let hash = move |number| socket_name(&format!("worker-{number}"));
                scope.spawn(move || part(number).map(hash).collect::<Vec<_>>())
            })
            .collect();
        let joined = parts.into_iter().map(|part| part.join());
        joined.collect::<Result<Vec<_>, _>>()
    });
    let names = names.map_err(|_| "a thread panicked")?;
    let names: HashSet<String> = names.into_iter().flatten().collect();
    assert_eq!(names.len() as u64, NAMES);
    Ok(())
}
