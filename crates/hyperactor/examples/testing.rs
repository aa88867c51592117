//! How to test an actor: a proc without a network, a probe for what it sends, time that does not pass by itself, and a
//! network that fails when it is told to.
//!
//! Its last line: `one pulse a minute; of 4 that came back the network refused 2`.

use std::num::NonZero;
use std::time::Duration;

use hyperactor::mailbox::UnroutableMailboxSender;
use hyperactor::prelude::*;
use hyperactor::proc::testing::{FailingSender, TestProbe};
use tokio::time::Instant;

/// Sends its pulse to a port, once a minute, and counts what comes back.
#[derive(Actor)]
#[actor(hooks)]
struct Heart {
    pulse: PortRef<u32>,
    beats: u32,
    lost: u32,
}

#[actor]
impl Heart {
    async fn lost(&mut self, _cx: &Context<Self>) -> u32 {
        self.lost
    }
}

#[derive(Clone)]
struct Beat;

impl Actor for Heart {
    async fn init(&mut self, cx: &Context<Self>) -> ActorResult {
        cx.post_every(Duration::from_secs(60), Beat)?;
        Ok(())
    }

    async fn on_undeliverable(
        &mut self,
        _cx: &Context<Self>,
        _report: Undeliverable,
    ) -> ActorResult {
        self.lost += 1;
        Ok(())
    }
}

impl Handler<Beat> for Heart {
    async fn handle(&mut self, cx: &Context<Self>, Beat: Beat) -> ActorResult {
        self.beats += 1;
        self.pulse.post(cx, self.beats);
        Ok(())
    }
}

// As `#[tokio::test(start_paused = true)]` does for a test.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tokio::time::pause();
    let began = Instant::now();

    // What it sends arrives at a probe; an hour of waiting takes no time.
    let proc = Proc::isolated("hospital");
    let mut probe = TestProbe::<u32>::new(&proc, "probe")?;
    let heart = |pulse| Heart {
        pulse,
        beats: 0,
        lost: 0,
    };
    proc.spawn("heart", heart(probe.port()))?;
    assert_eq!(probe.expect_within(Duration::from_secs(61)).await, 1);
    assert_eq!(probe.expect_within(Duration::from_secs(61)).await, 2);
    probe.expect_none_within(Duration::from_secs(30)).await;
    assert!(began.elapsed() >= Duration::from_secs(150));

    // Elsewhere there is nobody, and every second time not even a way.
    let elsewhere = UnroutableMailboxSender::new("there is nobody else in this test");
    let every_second = NonZero::new(2).ok_or("two is not nought")?;
    let network = FailingSender::new(elsewhere, every_second);
    let here = ProcId::direct("unix:@hospital".parse()?, "ward")?;
    let ward = Proc::new(here, network.clone().boxed());
    let doctor = ProcId::direct("unix:@practice".parse()?, "doctor")?;
    let far = PortRef::attest(PortId::new(ActorId::root(doctor, "phone"), 1));
    let heart = ward.spawn("heart", heart(far))?;
    let client = ward.client("nurse")?;
    tokio::time::sleep(Duration::from_secs(250)).await;
    let lost = heart.lost(&client).await?;
    let refused = network.failed();
    println!("one pulse a minute; of {lost} that came back the network refused {refused}");
    Ok(())
}
