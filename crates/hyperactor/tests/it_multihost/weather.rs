//! Links that lose, delay and disorder packets: TCP mends that, and nobody above may notice more than the time.

use std::time::Duration;

use hyperactor_testkit::Class;

use crate::lab::Lab;
use crate::streams::Stream;

const NETEM: &str = "delay 50ms 30ms loss 5% reorder 25% 50%";
const TIME: Duration = Duration::from_secs(5);

pub(crate) async fn play() {
    let mut lab = Lab::new("weather", 2).await;
    let one = lab.spawn_proc(1, "p1").await;
    let two = lab.spawn_proc(2, "p2").await;
    let streams = [
        Stream::new(&lab, 1, &one.proc_id, &two.proc_id).await,
        Stream::new(&lab, 2, &two.proc_id, &one.proc_id).await,
    ];
    for machine in 1..=2 {
        lab.machine(machine).weather(NETEM);
    }
    for stream in &streams {
        stream.begin(&lab, Duration::from_millis(5), u64::MAX).await;
    }
    tokio::time::sleep(TIME).await;
    for stream in streams {
        let (posted, _) = stream.given(&lab).await;
        stream.arrives(&lab, posted - 1).await;
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
