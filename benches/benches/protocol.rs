//! A session's two state machines without sockets: messages pushed at one end, taken as bytes, cut into frames, accepted,
//! settled and released at the other, and acknowledged back. Beside it the same bytes copied once.

use std::convert::Infallible;
use std::hint::black_box;

use criterion::{Criterion, Throughput};
use hyperactor_benches::{SIZES, criterion, payload};
use hyperactor_protocol::{
    Accept, Config, ConnectionEpoch, DataFlags, Event, FrameDecoder, Incarnation, Session,
    SessionId, Time, Verdict,
};

/// Messages between two acknowledgements, of those that are not large.
const BATCH: usize = 64;

/// What one call of `transmit` may give.
const WRITE_BYTES: usize = 256 * 1024;

/// Two sessions that are connected.
struct Duo {
    dialer: Session,
    acceptor: Session,
    epoch: ConnectionEpoch,
    there: FrameDecoder,
    back: FrameDecoder,
}

impl Duo {
    fn new() -> Self {
        let now = Time::ZERO;
        let config = Config::default();
        let mut dialer = Session::dialer(config.clone(), SessionId(7), Incarnation::new(1), now);
        let hello = dialer.hello(now);
        let mut acceptor = Session::acceptor(config.clone(), Incarnation::new(2), &hello, now);
        let connection = expect(acceptor.on_hello(&hello, now));
        expect(dialer.on_hello(&acceptor.hello(now), now));
        Self {
            dialer,
            acceptor,
            epoch: connection.epoch,
            there: FrameDecoder::new(config.max_frame),
            back: FrameDecoder::new(config.max_frame),
        }
    }

    fn there_and_back(&mut self, body: &[u8], messages: usize) {
        let now = Time::ZERO;
        for number in 1..=messages {
            let flags = if number == messages {
                DataFlags::ACK_NOW
            } else {
                DataFlags::default()
            };
            expect(self.dialer.push_with(flags, |out| {
                out.extend_from_slice(body);
                Ok::<(), Infallible>(())
            }));
        }
        let mut resolved = 0;
        while resolved < messages as u64 {
            move_bytes(&mut self.dialer, self.epoch, &mut self.there);
            while let Some(frame) = expect(self.there.next_frame()) {
                let accepted = expect(self.acceptor.on_frame(self.epoch, frame, now));
                if let Accept::Deliver {
                    seq,
                    to,
                    body,
                    size,
                    ..
                } = accepted
                {
                    black_box(&body);
                    let _wake = self.acceptor.settle(seq, Verdict::Delivered);
                    let _wake = self.acceptor.release(to, size);
                }
            }
            move_bytes(&mut self.acceptor, self.epoch, &mut self.back);
            while let Some(frame) = expect(self.back.next_frame()) {
                expect(self.dialer.on_frame(self.epoch, frame, now));
            }
            while let Some(event) = self.dialer.poll_event() {
                if let Event::Resolved { count, .. } = event {
                    resolved += count;
                }
            }
        }
        while self.acceptor.poll_event().is_some() {}
    }
}

fn move_bytes(from: &mut Session, epoch: ConnectionEpoch, to: &mut FrameDecoder) {
    while let Some(part) = from.transmit(epoch, Time::ZERO, WRITE_BYTES) {
        to.buffer().extend_from_slice(&part.bytes);
    }
}

fn expect<T, E: std::fmt::Debug>(result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{error:?}"),
    }
}

fn there_and_back(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("protocol/there and back");
    for size in SIZES {
        let body = payload(size);
        let messages = (BATCH * 1024 / size).clamp(1, BATCH);
        group.throughput(Throughput::Elements(messages as u64));
        let mut duo = Duo::new();
        group.bench_function(size.to_string(), |bencher| {
            bencher.iter(|| duo.there_and_back(&body, messages));
        });
        let mut copy = Vec::with_capacity(size * messages);
        group.bench_function(format!("{size}, copied once"), |bencher| {
            bencher.iter(|| {
                copy.clear();
                for _ in 0..messages {
                    copy.extend_from_slice(black_box(&body));
                }
                black_box(&copy);
            });
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = criterion();
    there_and_back(&mut criterion);
    criterion.final_summary();
}
