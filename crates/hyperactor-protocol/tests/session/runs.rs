//! Messages that are taken in together have what each would have had alone.

use bytes::{Bytes, BytesMut};
use hyperactor_protocol::{
    Accept, Config, Cut, DataFlags, Frame, FrameDecoder, Label, Seq, Session, Verdict, Violation,
};

use crate::common::{Pair, Rng, events, written};

/// A message as its receiver gets it.
type Message = (Seq, Label, Label, Bytes);

/// What a session made of some bytes: the messages and names, and how it ended.
type Taken = (Vec<Result<Message, Label>>, Result<(), Violation>);

fn one_by_one(pair: &mut Pair, decoder: &mut FrameDecoder) -> Taken {
    let mut taken = Vec::new();
    while let Some(frame) = decoder.next_frame().expect("lawful bytes") {
        match pair.hand_acceptor(frame) {
            Ok(Accept::Deliver {
                seq,
                to,
                from,
                body,
                ..
            }) => taken.push(Ok((seq, to, from, body))),
            Ok(Accept::Named { label, .. }) => taken.push(Err(label)),
            Ok(_) => {}
            Err(violation) => return (taken, Err(violation)),
        }
    }
    (taken, Ok(()))
}

/// How many runs came, and how many of them were taken as such.
#[derive(Default)]
struct Runs {
    came: usize,
    stayed: usize,
}

fn together(pair: &mut Pair, decoder: &mut FrameDecoder, runs: &mut Runs) -> Taken {
    let count = |cuts: &[Cut]| cuts.iter().filter(|cut| matches!(cut, Cut::Run(_))).count();
    let mut cuts = Vec::new();
    while let Some(cut) = decoder.next_cut().expect("lawful bytes") {
        cuts.push(cut);
    }
    runs.came += count(&cuts);
    let epoch = pair.acceptor.epoch();
    let ended = pair.acceptor.on_frames(epoch, &mut cuts, pair.now);
    runs.stayed += count(&cuts);
    let mut taken = Vec::new();
    let frames = cuts.into_iter().flat_map(|cut| match cut {
        Cut::Frame(frame) => vec![frame],
        Cut::Run(run) => run.frames().collect(),
    });
    for frame in frames {
        match frame {
            Frame::Data {
                seq,
                to,
                from,
                body,
                ..
            } => taken.push(Ok((seq, to, from, body))),
            Frame::Name { label, .. } => taken.push(Err(label)),
            other => panic!("{} is nothing to act on", other.name()),
        }
    }
    (taken, ended)
}

fn name(number: u32) -> Frame {
    Frame::Name {
        label: Label::new(number),
        name: Bytes::from(vec![number as u8; 3]),
    }
}

/// What a sender that is not always lawful writes next.
fn write(rng: &mut Rng, next: &mut u64, out: &mut BytesMut) {
    let (to, from) = (
        Label::new(rng.below(3) as u32),
        Label::new(rng.below(2) as u32),
    );
    let size = rng.below(40) as usize;
    for _ in 0..=rng.below(12) {
        let (mut seq, mut flags, mut to) = (*next, DataFlags::NONE, to);
        match rng.below(150) {
            0..8 => flags = DataFlags::ACK_NOW,
            // Again, as after a connection that was lost.
            8..12 => seq = seq.saturating_sub(1 + rng.below(3)),
            12 => seq += 1,
            13 => to = Label::new(9),
            14 => flags = DataFlags::FIRST,
            15..20 => Frame::Pong { nonce: 0 }.encode(out),
            20 => name(2).encode(out),
            _ => {}
        }
        *next = (*next).max(seq + 1);
        let mut body = vec![seq as u8; size + rng.below(2) as usize];
        if flags == DataFlags::FIRST {
            body = [&100_u64.to_le_bytes()[..], &[1]].concat();
        }
        Frame::Data {
            seq: Seq(seq),
            flags,
            to,
            from,
            body: body.into(),
        }
        .encode(out);
    }
}

fn settle(session: &mut Session, taken: &[Result<Message, Label>], rng: &mut Rng) {
    for (seq, to, _, body) in taken.iter().flatten() {
        if !rng.chance(10) {
            let _ = session.settle(*seq, Verdict::Delivered);
            let _ = session.release(*to, body.len() as u32);
        }
    }
}

#[test]
fn a_run_is_taken_as_its_frames_would_be_one_by_one() {
    let config = Config {
        window_messages: 64,
        window_bytes: 1_024,
        ..Config::default()
    };
    let mut runs = Runs::default();
    let (mut ends, mut all) = (std::collections::BTreeSet::new(), 0);
    for seed in 0..400 {
        let mut pairs = [Pair::connected(&config), Pair::connected(&config)];
        let [alone, among] = &mut pairs;
        let mut decoders = [FrameDecoder::new(1 << 20), FrameDecoder::new(1 << 20)];
        let [first, second] = &mut decoders;
        let (mut rng, mut next) = (Rng::new(seed), 0);
        let mut out = BytesMut::new();
        (1..3).for_each(|number| name(number).encode(&mut out));
        for _ in 0..12 {
            write(&mut rng, &mut next, &mut out);
            let bytes = out.split_to(out.len() - rng.below(20).min(out.len() as u64) as usize);
            first.feed(&bytes);
            second.feed(&bytes);
            let expected = one_by_one(alone, first);
            let taken = together(among, second, &mut runs);
            assert_eq!(taken, expected, "seed {seed}");
            all += taken.0.len();
            let draws = rng.next();
            settle(&mut alone.acceptor, &taken.0, &mut Rng::new(draws));
            settle(&mut among.acceptor, &taken.0, &mut Rng::new(draws));
            for pair in [&mut *alone, &mut *among] {
                pair.acceptor.check();
            }
            let dumps = [&alone, &among].map(|pair| pair.acceptor.dump().to_string());
            assert_eq!(dumps[0], dumps[1], "seed {seed}");
            let now = alone.now;
            assert_eq!(
                written(&mut among.acceptor, now),
                written(&mut alone.acceptor, now),
                "seed {seed}"
            );
            assert_eq!(events(&mut among.acceptor), events(&mut alone.acceptor));
            if let Err(violation) = taken.1 {
                ends.insert(violation.code());
                break;
            }
        }
    }
    let split = runs.came - runs.stayed;
    assert!(
        runs.stayed > 1_000 && split > 100,
        "{} {split}",
        runs.stayed
    );
    assert!(ends.len() >= 3 && all > 10_000, "{ends:?} {all}");
}
