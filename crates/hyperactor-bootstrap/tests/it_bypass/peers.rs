//! Sockets at a sibling's place that are not the sibling's.

use std::fs::Permissions;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hyperactor_bootstrap::socket_name;
use hyperactor_host::{HostedProc, RoutePolicy};
use hyperactor_proc::ActorRef;
use hyperactor_testkit::eventually;
use libtest_mimic::Trial;

use crate::events::Events;
use crate::keeper::Keeper;
use crate::needs::{self, STRANGER};
use crate::rig::Rig;
use crate::trial;
use crate::world::{LONG, ROLE, TestResult};

/// The variable that tells a stranger where to listen.
const PLACE: &str = "HYPERACTOR_TEST_PLACE";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        needs::another_user(trial(
            "a_socket_of_another_user_is_refused_unread_with_an_event_and_no_message_is_lost",
            another_user,
        )),
        trial(
            "a_socket_of_another_life_is_refused_and_its_proc_gets_nothing",
            another_life,
        ),
    ]
}

/// The role of a stranger: listens, and says how much it hears on each connection.
pub(crate) fn listen() -> TestResult {
    let place = std::env::var(PLACE)?;
    let listener = UnixListener::bind(&place)?;
    println!("LISTENS");
    for stream in listener.incoming() {
        let mut heard = Vec::new();
        // An end that is no end in order has been heard, too.
        drop(stream?.read_to_end(&mut heard));
        println!("HEARD {}", heard.len());
    }
    Ok(())
}

/// A process of another user that listens.
struct Stranger {
    process: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Stranger {
    fn listening_at(place: &Path) -> TestResult<Self> {
        // By descriptor: the user may not be let into the folder of the program.
        let program = std::fs::File::open(std::env::current_exe()?)?;
        let mut process = Command::new("setpriv")
            .args(["--reuid", needs::NOBODY, "--regid", needs::NOBODY])
            .args(["--clear-groups", "--", "/proc/self/fd/0"])
            .env(ROLE, STRANGER)
            .env(PLACE, place)
            .stdin(Stdio::from(program))
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = process.stdout.take().ok_or("no standard output")?;
        let mut stranger = Self {
            process,
            lines: BufReader::new(stdout).lines(),
        };
        assert_eq!(stranger.next()?, "LISTENS");
        Ok(stranger)
    }

    fn next(&mut self) -> TestResult<String> {
        Ok(self.lines.next().ok_or("the stranger has ended")??)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Two children, and the socket of the one put in the other's place.
struct Swapped {
    rig: Rig,
    b: HostedProc,
    keeper: ActorRef<Keeper>,
}

impl Swapped {
    async fn new() -> TestResult<Self> {
        let rig = Rig::new().await?;
        let (b, keeper) = rig.keeper("b").await?;
        Ok(Self { rig, b, keeper })
    }

    /// Every message takes the long way while the socket is another's.
    async fn goes_round(&self) {
        let (direct, _) = self.rig.counts("b");
        self.rig.post(&self.keeper, 500);
        self.rig.posts.all_told(LONG).await;
        assert_eq!(self.rig.counts("b").0, direct);
    }

    async fn heals(self) -> TestResult {
        let within = Duration::from_secs(5);
        self.rig.post_until_straight(&self.keeper, within).await;
        let posted = self.rig.posts.count();
        assert_eq!(self.rig.read(&self.keeper, 1).await?, posted);
        self.rig.end().await
    }
}

async fn another_user() -> TestResult {
    let events = Events::watch();
    let folder = tempfile::tempdir()?;
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o777))?;
    let theirs = folder.path().join("theirs.sock");
    let mut stranger = Stranger::listening_at(&theirs)?;
    let swapped = Swapped::new().await?;
    let rig = &swapped.rig;
    let about = swapped.b.proc_id().to_string();
    let ours = rig.world.dir.join(socket_name("b"));
    let aside = rig.world.dir.join("aside");
    std::fs::rename(&ours, &aside)?;
    std::fs::rename(&theirs, &ours)?;

    // Looked for, as nobody has announced it.
    swapped.goes_round().await;
    let refused = || events.named("route.stranger", &about);
    eventually(LONG, || !refused().is_empty()).await;
    assert_eq!(stranger.next()?, "HEARD 0");
    assert_eq!(refused().len(), 1, "{:?}", refused());
    assert!(refused()[0].text.contains(needs::NOBODY), "{:?}", refused());

    // Dialled, as it was announced.
    rig.announce(&swapped.b);
    swapped.goes_round().await;
    assert_eq!(stranger.next()?, "HEARD 0");
    let lost = events.named("route.lost", &about);
    assert!(
        !lost.is_empty() && lost[0].text.contains(needs::NOBODY),
        "{lost:?}"
    );

    // No way round for whoever insists on the straight one.
    let direct = rig.dialer_with(|dialer| dialer.with_policy(RoutePolicy::Direct));
    let from = rig.posts.count();
    rig.posts.of(2).post(&direct, &swapped.keeper);
    rig.posts.all_told(LONG).await;
    let fate = &rig.posts.fates(from)[0];
    assert!(
        fate.code == "connect" && fate.text.contains("uid"),
        "{fate:?}"
    );
    assert_eq!(stranger.next()?, "HEARD 0");

    std::fs::rename(&aside, &ours)?;
    let Swapped { rig, keeper, .. } = swapped;
    rig.post_until_straight(&keeper, Duration::from_secs(5))
        .await;
    assert_eq!(rig.read(&keeper, 1).await?, rig.posts.count() - 1);
    rig.end().await
}

async fn another_life() -> TestResult {
    let events = Events::watch();
    let swapped = Swapped::new().await?;
    let rig = &swapped.rig;
    let (_c, other) = rig.keeper("c").await?;
    let dir = &rig.world.dir;
    let (ours, theirs) = (dir.join(socket_name("b")), dir.join(socket_name("c")));
    let aside = dir.join("aside");
    std::fs::rename(&ours, &aside)?;
    std::fs::hard_link(&theirs, &ours)?;
    rig.announce(&swapped.b);
    swapped.goes_round().await;
    let about = swapped.b.proc_id().to_string();
    let lost = events.named("route.lost", &about);
    assert!(
        !lost.is_empty() && lost[0].text.contains("proc-gone"),
        "{lost:?}"
    );
    assert_eq!(rig.read(&other, 1).await?, 0, "a stranger got a message");

    std::fs::remove_file(&ours)?;
    std::fs::rename(&aside, &ours)?;
    swapped.heals().await
}
