//! Before the first grant is known a window is assumed: what was counted with it is counted again with the real one.

use hyperactor_protocol::{Config, Session};

use crate::common::{ACCEPTOR, DIALER, ID, Pair, at};
use crate::labels::{forward, label, push_to, window};

/// S-30.
#[test]
fn what_was_posted_before_the_window_was_known_takes_no_more_than_its_share_of_it() {
    let mut dialer = Session::dialer(Config::default(), ID, DIALER, at(0));
    let stuck = [label(&mut dialer, "stuck"), label(&mut dialer, "stuck too")];
    for each in stuck {
        for _ in 0..100 {
            push_to(&mut dialer, each, b"nobody takes it");
        }
    }
    let hello = dialer.hello(at(0));
    let mut acceptor = Session::acceptor(window(64), ACCEPTOR, &hello, at(0));
    acceptor.on_hello(&hello, at(0)).expect("the first hello");
    dialer
        .on_hello(&acceptor.hello(at(0)), at(0))
        .expect("the answer");
    let mut pair = Pair {
        dialer,
        acceptor,
        now: at(0),
    };
    let came = forward(&mut pair);
    for each in stuck {
        let took = came.iter().filter(|(to, ..)| *to == each).count();
        assert!((1..=25).contains(&took), "{took} of a window of 64");
    }
    let other = label(&mut pair.dialer, "other");
    push_to(&mut pair.dialer, other, b"passes");
    let came = forward(&mut pair);
    assert_eq!(came.iter().filter(|(to, ..)| *to == other).count(), 1);
}
