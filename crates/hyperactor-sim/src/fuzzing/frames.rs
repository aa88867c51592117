//! Bytes as frames and hellos: the same however they are cut, in memory that follows what has come, and written back as
//! they were read.

use bytes::{Bytes, BytesMut};
use hyperactor_protocol::{
    Config, DataFlags, Frame, FrameDecoder, Goodbye, Hello, HelloError, Incarnation, Label,
    Refusal, Released, Seq, Session, SessionId, Time, Verdict, Violation, limits,
};

use super::{Bytewise, seen, size};

/// Inputs up to this long are cut at every boundary, longer ones at as many, evenly.
const CUTS: usize = 96;

/// What came of a stream: the frames, and what ended it.
type Read = (Vec<Frame>, Option<Violation>);

/// Any bytes as a stream of frames. The first byte chooses the frame limit.
pub fn fuzz_frames(data: &[u8]) -> u64 {
    let mut data = Bytewise(data);
    let max = [4096, 64 * 1024, limits::FRAME_MAX_DEFAULT][usize::from(data.below(3))];
    let stream = data.0;
    let whole = read(max, [stream]);
    assert_eq!(read(max, stream.chunks(1)), whole, "one byte at a time");
    for cut in cuts(stream.len()) {
        let (front, back) = stream.split_at(cut);
        assert_eq!(read(max, [front, back]), whole, "cut at {cut}");
    }
    let (frames, violation) = whole;
    let mut written = BytesMut::new();
    for frame in &frames {
        frame.encode(&mut written);
    }
    assert!(stream.starts_with(&written), "not written as it was read");
    let kinds = frames
        .iter()
        .fold(0, |kinds: u64, frame| kinds | kind(frame));
    let code = violation.map_or(0, |violation| u64::from(violation.code() & 0xff));
    seen(&[kinds & 0xff, kinds >> 8, code, size(frames.len() as u64)])
}

fn cuts(length: usize) -> impl Iterator<Item = usize> {
    let step = length.div_ceil(CUTS).max(1);
    (0..=length).step_by(step)
}

fn read<'a>(max: u32, chunks: impl IntoIterator<Item = &'a [u8]>) -> Read {
    let mut decoder = FrameDecoder::new(max);
    let mut frames = Vec::new();
    let mut came = 0;
    for chunk in chunks {
        came += chunk.len();
        decoder.buffer().extend_from_slice(chunk);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(violation) => {
                    assert_eq!(decoder.next_frame(), Err(violation), "said twice");
                    return (frames, Some(violation));
                }
            }
        }
        // W-06: as much again as is there, and a step.
        let most = 2 * (came + limits::READ_STEP_BYTES);
        assert!(decoder.capacity_bytes() <= most, "more memory than bytes");
        assert!(decoder.pending_bytes() <= came);
    }
    (frames, None)
}

fn kind(frame: &Frame) -> u64 {
    1 << match frame {
        Frame::Data { flags, .. } if *flags == DataFlags::NONE => 0,
        Frame::Data { .. } => 1,
        Frame::Ack { .. } => 2,
        Frame::Settle { .. } => 3,
        Frame::Credit { .. } => 4,
        Frame::Name { .. } => 5,
        Frame::Released { .. } => 6,
        Frame::Resolved { .. } => 7,
        Frame::Ping { .. } | Frame::Pong { .. } => 8,
        _ => 9,
    }
}

/// Any bytes as a hello, for the decoder and for both ends of a session.
pub fn fuzz_hello(data: &[u8]) -> u64 {
    let whole = read_hello([data]);
    assert_eq!(read_hello(data.chunks(1)), whole, "one byte at a time");
    for cut in cuts(data.len()) {
        let (front, back) = data.split_at(cut);
        assert_eq!(read_hello([front, back]), whole, "cut at {cut}");
    }
    let hello = match whole {
        Ok(Some((hello, rest))) => {
            let said = hello.to_bytes();
            assert_eq!(read_hello([&said[..]]), Ok(Some((hello.clone(), 0))));
            assert!(said.len() + rest == data.len());
            hello
        }
        Ok(None) => return seen(&[1, size(data.len() as u64)]),
        Err(error) => return seen(&[2, error.to_string().len() as u64]),
    };
    let mut acceptor =
        Session::acceptor(Config::default(), Incarnation::new(2), &hello, Time::ZERO);
    let opened = judge(&mut acceptor, &hello);
    let mut dialer = dialer();
    let asked = dialer.hello(Time::ZERO);
    // Most would fail for the id alone.
    let mut answer = hello;
    answer.session = asked.session;
    answer.epoch = asked.epoch;
    seen(&[3, opened, judge(&mut dialer, &answer)])
}

fn read_hello<'a>(
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Option<(Hello, usize)>, HelloError> {
    let mut buffer = BytesMut::new();
    let mut found = None;
    for chunk in chunks {
        buffer.extend_from_slice(chunk);
        if found.is_none() {
            found = Hello::decode(&mut buffer)?;
        }
    }
    Ok(found.map(|hello| (hello, buffer.len())))
}

fn judge(session: &mut Session, hello: &Hello) -> u64 {
    let judged = session.on_hello(hello, Time::ZERO);
    while session.poll_event().is_some() {}
    session.check();
    match judged {
        Ok(established) => u64::from(established.resumed),
        Err(error) => 2 + error.to_string().len() as u64,
    }
}

fn dialer() -> Session {
    let id = SessionId(0xf022);
    Session::dialer(Config::default(), id, Incarnation::new(1), Time::ZERO)
}

/// Numbers as control frames: each reads back as itself, and none does harm to a session.
pub fn fuzz_control(data: &[u8]) -> u64 {
    let mut data = Bytewise(data);
    let mut session = connected(data.byte());
    let mut facts = Vec::new();
    while !data.0.is_empty() && facts.len() < 6 {
        let frame = frame(&mut data);
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        let (read, violation) = read(limits::FRAME_MAX_DEFAULT, [&bytes[..]]);
        let epoch = session.epoch();
        let said = match violation {
            // W-02, W-04: a field out of its range, a length that cannot be.
            Some(violation) => {
                session.violated(epoch, violation, Time::ZERO);
                u64::from(violation.code() & 0xff)
            }
            None => {
                assert_eq!(
                    read[..],
                    *std::slice::from_ref(&frame),
                    "reads back as something else"
                );
                match session.on_frame(epoch, frame, Time::ZERO) {
                    Ok(_) => 0,
                    Err(violation) => u64::from(violation.code() & 0xff),
                }
            }
        };
        session.check();
        while session.transmit(epoch, Time::ZERO, 4096).is_some() {}
        while session.poll_event().is_some() {}
        session.check();
        assert!(said == 0 || session.is_closed(), "a violation ends it");
        facts.push(if session.is_closed() { 255 } else { said });
        if said != 0 {
            facts.push(said);
            break;
        }
        if session.is_closed() {
            break;
        }
    }
    seen(&facts)
}

/// An accepting end with a few messages both ways.
fn connected(shape: u8) -> Session {
    let (sent, came) = (shape % 8, shape / 8 % 8);
    let hello = dialer().hello(Time::ZERO);
    let mut session = Session::acceptor(Config::default(), Incarnation::new(2), &hello, Time::ZERO);
    let label = session.add_label(Bytes::from_static(b"there"));
    session
        .on_hello(&hello, Time::ZERO)
        .expect("a lawful hello");
    let _the_peer_is_the_input = session.hello(Time::ZERO);
    for at in 0..sent {
        let outgoing = hyperactor_protocol::Outgoing {
            to: if at % 2 == 0 {
                Label::NONE
            } else {
                label.unwrap_or_default()
            },
            ..Default::default()
        };
        let pushed = session.push(outgoing, |out| {
            out.extend_from_slice(&[at; 5]);
            Ok::<(), ()>(())
        });
        pushed.expect("there is room");
    }
    let epoch = session.epoch();
    while session.transmit(epoch, Time::ZERO, 4096).is_some() {}
    for at in 0..came {
        let frame = Frame::Data {
            seq: Seq(at.into()),
            flags: DataFlags::NONE,
            to: Label::NONE,
            from: Label::NONE,
            body: Bytes::from_static(b"hello"),
        };
        let taken = session.on_frame(epoch, frame, Time::ZERO);
        taken.expect("a lawful message");
        if at % 3 != 2 {
            let _nothing_to_write = session.settle(Seq(at.into()), Verdict::Delivered);
            let _nothing_to_write = session.release(Label::NONE, 5);
        }
    }
    session
}

fn frame(data: &mut Bytewise<'_>) -> Frame {
    let verdict = |data: &mut Bytewise<'_>| {
        let refusal = Refusal::new(data.number() as u16).with_detail(vec![7; data.below(9).into()]);
        match data.below(3) {
            0 => Verdict::Delivered,
            1 => Verdict::NotDelivered(refusal),
            _ => Verdict::Unknown(refusal),
        }
    };
    match data.below(11) {
        0 => Frame::Ack {
            received: Seq(data.number()),
            settled: Seq(data.number()),
        },
        1 => Frame::Settle {
            first: Seq(data.number()),
            // None at all is nothing that an encoder is given.
            count: (data.number() as u32).max(1),
            verdict: verdict(data),
        },
        2 => Frame::Credit {
            messages: data.number(),
            bytes: data.number(),
            large: data.number(),
        },
        3 => Frame::Resolved {
            below: Seq(data.number()),
        },
        4 => Frame::Ping {
            nonce: data.number(),
        },
        5 => Frame::Pong {
            nonce: data.number(),
        },
        6 => Frame::Goodbye(Goodbye {
            received: Seq(data.number()),
            code: data.number() as u16,
            detail: vec![7; data.below(9).into()].into(),
        }),
        7 => Frame::Name {
            label: Label::new(data.number() as u32),
            name: vec![7; 1 + usize::from(data.below(9))].into(),
        },
        8 => Frame::Released {
            entries: (0..=data.below(3))
                .map(|_| Released {
                    label: Label::new(data.number() as u32),
                    messages: data.number(),
                    bytes: data.number(),
                })
                .collect(),
        },
        _ => {
            let place = [
                DataFlags::NONE,
                DataFlags::ACK_NOW,
                DataFlags::VOID,
                DataFlags::FIRST,
                DataFlags::MORE,
                DataFlags::LAST,
            ][usize::from(data.below(6))];
            let mut body = BytesMut::new();
            if place == DataFlags::FIRST {
                body.extend_from_slice(&data.number().to_le_bytes());
            }
            if place != DataFlags::VOID {
                body.extend_from_slice(&vec![7; 1 + usize::from(data.below(9))]);
            }
            Frame::Data {
                seq: Seq(data.number()),
                flags: place,
                to: Label::new(data.number() as u32),
                from: Label::new(data.number() as u32),
                body: body.freeze(),
            }
        }
    }
}

/// Inputs to begin from: each kind of frame, and both kinds of hello.
pub fn wire_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for shape in 0..=255_u8 {
        let input = [shape % 11, shape, 1, 2, 3, 250, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        let mut bytes = BytesMut::from(&[shape][..]);
        frame(&mut Bytewise(&input)).encode(&mut bytes);
        seeds.push(bytes.to_vec());
    }
    let hello = dialer().hello(Time::ZERO);
    let mut acceptor =
        Session::acceptor(Config::default(), Incarnation::new(2), &hello, Time::ZERO);
    let accepted = acceptor
        .on_hello(&hello, Time::ZERO)
        .map(|_| acceptor.hello(Time::ZERO));
    seeds.push(hello.to_bytes().to_vec());
    seeds.extend(accepted.map(|answer| answer.to_bytes().to_vec()));
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_break_nothing_and_differ() {
        let mut all = std::collections::BTreeSet::new();
        for seed in wire_seeds() {
            all.insert((fuzz_frames(&seed), fuzz_hello(&seed), fuzz_control(&seed)));
        }
        assert!(all.len() > 20, "only {} kinds of outcome", all.len());
    }
}
