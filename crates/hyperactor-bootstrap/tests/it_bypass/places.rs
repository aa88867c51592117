//! Directories that will not do: what is refused, what goes by the host meanwhile, and that this is said once.

use std::fs::{File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hyperactor_bootstrap::{SocketDir, socket_name};
use hyperactor_host::{ProcConfig, RoutePolicy};
use hyperactor_testkit::Outcome;
use libtest_mimic::Trial;

use crate::events::Events;
use crate::needs::{self, CROWDED};
use crate::rig::Rig;
use crate::trial;
use crate::world::{LONG, ROLE, TestResult, World};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "a_directory_that_will_not_do_stops_new_procs_with_a_reason_and_no_message",
            spoiled_directories,
        ),
        needs::another_user(trial(
            "a_directory_of_another_user_stops_new_procs_with_a_reason_and_no_message",
            directory_of_another,
        )),
        needs::mounts(trial(
            "a_full_disk_stops_new_procs_with_a_reason_and_no_message",
            full_disk,
        )),
        trial(
            "a_directory_too_deep_for_sockets_is_refused_and_a_dialer_there_goes_by_the_backend",
            too_deep,
        ),
        trial("a_lost_socket_file_only_changes_the_route", lost_socket),
    ]
}

/// What is done to a directory, and what puts it right again.
struct Spoil {
    what: &'static str,
    code: &'static str,
    spoil: fn(&Path) -> std::io::Result<()>,
    mend: fn(&Path) -> std::io::Result<()>,
    /// Whether the sockets in it can still be reached.
    goes_straight: bool,
}

fn aside(dir: &Path) -> PathBuf {
    dir.with_extension("aside")
}

async fn spoiled_directories() -> TestResult {
    for spoil in [
        Spoil {
            what: "missing",
            code: "io",
            spoil: |dir| std::fs::rename(dir, aside(dir)),
            mend: |dir| std::fs::rename(aside(dir), dir),
            goes_straight: false,
        },
        Spoil {
            what: "open to everybody",
            code: "exposed",
            spoil: |dir| std::fs::set_permissions(dir, Permissions::from_mode(0o777)),
            mend: |dir| std::fs::set_permissions(dir, Permissions::from_mode(0o700)),
            goes_straight: true,
        },
        Spoil {
            what: "a symbolic link",
            code: "not_a_directory",
            spoil: |dir| {
                std::fs::rename(dir, aside(dir))?;
                symlink(aside(dir), dir)
            },
            mend: |dir| {
                std::fs::remove_file(dir)?;
                std::fs::rename(aside(dir), dir)
            },
            goes_straight: true,
        },
        Spoil {
            what: "removed for good",
            code: "io",
            spoil: |dir| std::fs::remove_dir_all(dir),
            mend: |_| Ok(()),
            goes_straight: false,
        },
    ] {
        check(&spoil).await?;
    }
    Ok(())
}

async fn directory_of_another() -> TestResult {
    let nobody: u32 = needs::NOBODY.parse()?;
    assert_ne!(rustix::process::geteuid().as_raw(), nobody);
    check(&Spoil {
        what: "of another user",
        code: "not_ours",
        spoil: |dir| chown(dir, needs::NOBODY.parse().ok(), None),
        mend: |dir| chown(dir, Some(rustix::process::geteuid().as_raw()), None),
        goes_straight: true,
    })
    .await
}

/// New procs are refused with a reason, messages arrive, one line is written, and all is well once the directory is.
async fn check(case: &Spoil) -> TestResult {
    let what = case.what;
    let rig = Rig::new().await?;
    let (b, keeper) = rig.keeper("b").await?;
    rig.announce(&b);
    // The way by the host is open, as that of every child is that has answered its host once.
    rig.posts.of(2).post(&rig.backend, &keeper);
    rig.posts.all_told(LONG).await;
    let events = Events::watch();
    let dir = rig.world.dir.clone();
    (case.spoil)(&dir)?;

    let error = rig.world.host.spawn("c", ProcConfig::new()).await;
    let error = error.expect_err("it was started");
    let text = error.to_string();
    assert_eq!(error.code(), "refused", "{what}: {text}");
    assert!(text.contains(&dir.display().to_string()), "{what}: {text}");
    let opened = SocketDir::open(&dir).expect_err("it was opened");
    assert_eq!(opened.code(), case.code, "{what}: {opened}");

    for _ in 0..10 {
        rig.post(&keeper, 100);
        rig.posts.all_told(LONG).await;
    }
    let failed = |fate: &crate::rig::Fate| fate.outcome != Outcome::Delivered;
    assert!(!rig.posts.fates(0).iter().any(failed), "{what}");
    let (direct, relay) = rig.counts("b");
    let expected = if case.goes_straight {
        (1_000, 0)
    } else {
        (0, 1_000)
    };
    assert_eq!((direct, relay), expected, "{what}");
    let lines = events.lines(&b.proc_id().to_string());
    let said = usize::from(!case.goes_straight);
    assert_eq!(lines.len(), said, "{what}: {lines:?}");

    (case.mend)(&dir)?;
    if dir.exists() {
        rig.post_until_straight(&keeper, LONG).await;
        rig.world.spawn("c", RoutePolicy::Auto).await?;
    }
    rig.read(&keeper, 1).await?;
    rig.end().await
}

async fn lost_socket() -> TestResult {
    let rig = Rig::new().await?;
    let (b, keeper) = rig.keeper("b").await?;
    rig.announce(&b);
    let events = Events::watch();
    // Before anybody has dialled it, the socket goes; the host's own connection stays.
    std::fs::remove_file(rig.world.dir.join(socket_name("b")))?;
    rig.post(&keeper, 1_000);
    rig.posts.all_told(LONG).await;
    assert_eq!(rig.counts("b"), (0, 1_000));
    assert_eq!(rig.read(&keeper, 1).await?, 1_000);
    let lines = events.lines(&b.proc_id().to_string());
    assert_eq!(lines.len(), 1, "{lines:?}");
    rig.end().await
}

async fn too_deep() -> TestResult {
    let base = tempfile::tempdir()?;
    let deep = base.path().join("x".repeat(80));
    std::fs::create_dir(&deep)?;
    std::fs::set_permissions(&deep, Permissions::from_mode(0o700))?;
    let error = SocketDir::create_in(&deep).expect_err("it was made");
    assert_eq!(error.code(), "path_too_long", "{error}");
    assert!(error.to_string().contains("107"), "{error}");

    let mut world = World::new().await?;
    let real = std::mem::replace(&mut world.dir, deep);
    let mut rig = Rig::with(world, |dialer| dialer)?;
    rig.world.dir = real;
    for is_announced in [false, true] {
        let name = if is_announced { "known" } else { "unknown" };
        let (hosted, keeper) = rig.keeper(name).await?;
        if is_announced {
            rig.announce(&hosted);
        }
        let events = Events::watch();
        for _ in 0..10 {
            rig.post(&keeper, 100);
            rig.posts.all_told(LONG).await;
        }
        assert_eq!(rig.counts(name), (0, 1_000));
        assert_eq!(rig.read(&keeper, 1).await?, 1_000);
        let lines = events.lines(&hosted.proc_id().to_string());
        assert_eq!(lines.len(), 1, "{lines:?}");
    }
    rig.end().await
}

async fn full_disk() -> TestResult {
    let mount = needs::own_mounts().ok_or("no file systems of one's own")?;
    let place = tempfile::tempdir()?;
    // In a process with file systems of its own, so that nobody else's disk is full.
    let output = Command::new("unshare")
        .args(mount)
        .arg(std::env::current_exe()?)
        .env(ROLE, CROWDED)
        .env("XDG_RUNTIME_DIR", place.path())
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complaint}");
    assert!(said.contains("DONE"), "{said}");
    Ok(())
}

/// The role of a host whose sockets are on a disk without room.
pub(crate) async fn crowded_host() -> TestResult {
    let place = PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR").ok_or("no place")?);
    let mounted = Command::new("mount")
        .args([
            "-t",
            "tmpfs",
            "-o",
            "size=1m,nr_inodes=32,mode=0700",
            "tmpfs",
        ])
        .arg(&place)
        .status()?;
    assert!(mounted.success(), "{mounted}");
    let rig = Rig::new().await?;
    assert!(
        rig.world.dir.starts_with(&place),
        "{}",
        rig.world.dir.display()
    );
    let (b, keeper) = rig.keeper("b").await?;
    rig.announce(&b);
    let mut fillers = Vec::new();
    let full = loop {
        let path = place.join(format!("filler-{}", fillers.len()));
        match File::create(&path) {
            Ok(_) => fillers.push(path),
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull, "{full}");

    let error = rig.world.host.spawn("c", ProcConfig::new()).await;
    let error = error.expect_err("it was started");
    assert_eq!(error.code(), "refused");
    assert!(error.to_string().contains("No space left"), "{error}");
    rig.post(&keeper, 1_000);
    rig.posts.all_told(LONG).await;
    assert_eq!(rig.counts("b"), (1_000, 0));
    let full = SocketDir::create_in(&place).expect_err("there was room");
    assert_eq!(full.code(), "io", "{full}");

    for filler in fillers {
        std::fs::remove_file(filler)?;
    }
    rig.keeper("c").await?;
    assert_eq!(rig.read(&keeper, 1).await?, 1_000);
    rig.end().await?;
    println!("DONE");
    Ok(())
}
