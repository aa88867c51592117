//! Links that are cut in the middle, so that no end sees anything, under steady streams in both directions.

use std::time::{Duration, Instant};

use hyperactor::prelude::*;
use hyperactor_testkit::Class;

use crate::actors::Watch;
use crate::lab::{HEALED_WITHIN, Lab, PATIENCE, soon};
use crate::streams::Stream;
use crate::talk::watchers;

/// Cuts that everything survives. By its own pauses between two tries, TCP would come back after the first one in time, and
/// more than ten seconds late after the second one.
const SHORT: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(14)];

/// A cut that is longer than messages may be under way.
const LONG: Duration = Duration::from_secs(34);

/// How long messages may be under way: less what passed between the last word that was heard and the cut, and with what may be
/// added on a busy machine until somebody is told.
const TOLD_BETWEEN: [Duration; 2] = [Duration::from_secs(29), Duration::from_secs(33)];

/// Two procs on two machines, and a stream in each direction.
struct Pair {
    places: [ProcId; 2],
    streams: [Stream; 2],
}

impl Pair {
    async fn new(lab: &Lab, every: Duration) -> Self {
        let one = lab.spawn_proc(1, "p1").await;
        let two = lab.spawn_proc(2, "p2").await;
        let places = [one, two].map(|proc| (*proc.proc_id).clone());
        let streams = [
            Stream::new(lab, 1, &places[0], &places[1]).await,
            Stream::new(lab, 2, &places[1], &places[0]).await,
        ];
        for stream in &streams {
            stream.begin(lab, every, u64::MAX).await;
            stream.flows(lab).await;
        }
        Self { places, streams }
    }

    async fn taken(&self, lab: &Lab) -> [u64; 2] {
        [
            self.streams[0].taken(lab).await,
            self.streams[1].taken(lab).await,
        ]
    }

    /// Cuts the link for a while. Nothing may come through in that time, or it is no cut.
    async fn cut_for(&self, lab: &Lab, time: Duration) {
        lab.partition(true);
        let start = Instant::now();
        // What was under way between the cut and the look.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let before = self.taken(lab).await;
        tokio::time::sleep(time.saturating_sub(start.elapsed())).await;
        assert_eq!(self.taken(lab).await, before, "the cut lets through");
    }

    /// Heals the link, and waits until messages posted after that have arrived in both directions.
    async fn heal(&self, lab: &Lab) {
        lab.partition(false);
        let [one, two] = &self.streams;
        let (one, two) = tokio::join!(one.flows(lab), two.flows(lab));
        lab.say(format_args!("flows after {one:?} and {two:?}"));
        assert!(one < HEALED_WITHIN && two < HEALED_WITHIN);
    }
}

/// A cut that is shorter than messages may be under way delays them, and nothing else. Nobody is declared dead.
pub(crate) async fn short() {
    let mut lab = Lab::new("short-partition", 2).await;
    let pair = Pair::new(&lab, Duration::from_millis(20)).await;
    watch(&lab, &pair).await;
    for time in SHORT {
        pair.cut_for(&lab, time).await;
        pair.heal(&lab).await;
    }
    assert_eq!(lab.told_so_far(), None, "nobody died");
    for stream in pair.streams {
        let (verdict, given) = stream.end(&lab).await;
        verdict.assert_clean();
        assert_eq!(
            verdict.count(Class::Delivered),
            given.outcomes.len(),
            "{given:?}"
        );
    }
    lab.end().await;
}

/// A cut that is longer ends messages: truthfully, and no later ones.
pub(crate) async fn long() {
    let mut lab = Lab::new("long-partition", 2).await;
    let pair = Pair::new(&lab, Duration::from_millis(50)).await;
    watch(&lab, &pair).await;
    lab.partition(true);
    let cut = Instant::now();
    for _ in 0..2 {
        let told = lab.told(PATIENCE * 2).await;
        let after = cut.elapsed();
        lab.say(format_args!("told after {after:?}: {}", told.text));
        assert_eq!(told.code, "connection-lost", "{told:?}");
        assert!(
            after >= TOLD_BETWEEN[0] && after < TOLD_BETWEEN[1],
            "{after:?}"
        );
    }
    tokio::time::sleep(LONG.saturating_sub(cut.elapsed())).await;
    pair.heal(&lab).await;
    for stream in pair.streams {
        let (verdict, given) = stream.end(&lab).await;
        verdict.assert_clean();
        let failed = [Class::Returned, Class::Unknown, Class::Recovered]
            .map(|class| verdict.count(class))
            .iter()
            .sum::<usize>();
        assert!(failed > 0, "the cut was too short to end anything");
        lab.say(given.failures.join("; "));
    }
    lab.end().await;
}

/// A node of each machine watches one of the other.
async fn watch(lab: &Lab, pair: &Pair) {
    let one = lab.node(&pair.places[0], "node").await;
    let two = lab.node(&pair.places[1], "node").await;
    for (who, whom) in [(&one, &two), (&two, &one)] {
        let watched = who.ask(&lab.client, |reply| Watch(whom.actor_id().clone(), reply));
        soon(watched).await.unwrap();
        soon(watchers(lab, whom, 1)).await;
    }
}
