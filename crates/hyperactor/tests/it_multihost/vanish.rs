//! A machine that is gone from one moment to the next, and comes back under its address with nothing of its former life.

use std::time::{Duration, Instant};

use hyperactor_testkit::Class;

use crate::actors::Watch;
use crate::lab::{HEALED_WITHIN, Lab, soon};
use crate::streams::Stream;
use crate::talk::watchers;

/// How long the machine is away. Its procs end in that time: they have lost their host.
const AWAY: Duration = Duration::from_secs(8);

pub(crate) async fn play() {
    let mut lab = Lab::new("vanish", 2).await;
    let one = lab.spawn_proc(1, "p1").await;
    let two = lab.spawn_proc(2, "p2").await;
    let watcher = lab.node(&one.proc_id, "node").await;
    let watched = lab.node(&two.proc_id, "node").await;
    let asked = watcher.ask(&lab.client, |reply| {
        Watch(watched.actor_id().clone(), reply)
    });
    soon(asked).await.unwrap();
    soon(watchers(&lab, &watched, 1)).await;
    let former = Stream::new(&lab, 1, &one.proc_id, &two.proc_id).await;
    former
        .begin(&lab, Duration::from_millis(20), u64::MAX)
        .await;
    former.flows(&lab).await;

    let life = lab.watch_host(2).await;
    lab.machine(2).vanish();
    lab.say("vanished");
    let vanished = Instant::now();
    tokio::time::sleep(AWAY).await;

    let folder = lab.folder().to_owned();
    let machine = lab.machine(2);
    machine.link(true);
    machine.start(&folder);
    let back = Instant::now();
    lab.say("back");
    let told = lab.told(HEALED_WITHIN).await;
    lab.say(format_args!(
        "told {:?} after it vanished, {:?} after it came back: {}",
        vanished.elapsed(),
        back.elapsed(),
        told.text
    ));
    assert_eq!(told.of, *watched.actor_id());

    // Who lives there now is another one of the same name.
    let lost = tokio::time::timeout(HEALED_WITHIN, life.lost()).await;
    lab.say(lost.expect("the loss of the host is known here, too"));
    let again = lab.spawn_proc(2, "p2").await;
    assert_eq!(again.proc_id, two.proc_id);
    assert_ne!(again.incarnation, two.incarnation);
    let later = Stream::new(&lab, 2, &one.proc_id, &again.proc_id).await;
    later.begin(&lab, Duration::from_millis(20), u64::MAX).await;
    let flows = later.flows(&lab).await;
    lab.say(format_args!("flows after {flows:?}"));
    assert!(flows < HEALED_WITHIN, "{flows:?}");

    let (verdict, given) = former.end(&lab).await;
    verdict.assert_clean();
    let lost = verdict.count(Class::Unknown) + verdict.count(Class::Recovered);
    let returned = verdict.count(Class::Returned);
    assert!(lost + returned > 0, "{given:?}");
    lab.say(given.failures.join("; "));
    let (verdict, given) = later.end(&lab).await;
    verdict.assert_clean();
    assert_eq!(
        verdict.count(Class::Delivered),
        given.outcomes.len(),
        "{given:?}"
    );
    lab.end().await;
}
