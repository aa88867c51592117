//! Looks are counted, not timed: who waits for nothing is not looked for, and never do more threads look than there are
//! processors to spare.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::*;
use crate::limits::SPIN_WARM_UP;

const STUCK: Duration = Duration::from_secs(20);

fn looks_of(spinner: &Spinner) -> u64 {
    let spot = spinner.spot.as_ref();
    spot.map_or(0, |spot| spot.looks.load(Ordering::Relaxed))
}

/// Sleeps after having sent, until the connection was looked for or the patience is over.
fn sleep_hot(spinner: &mut Spinner, socket: &UnixStream, patience: Duration) {
    let began = Instant::now();
    while looks_of(spinner) == 0 && began.elapsed() < patience {
        spinner.note_sent();
        spinner.rest(true, Some(socket.as_fd()));
        before_park();
    }
}

#[test]
fn a_hot_connection_is_looked_for_and_its_input_is_found() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(b"x").unwrap();
    let mut spinner = Spinner::on(Spin::Adaptive, 2);
    for _ in 1..SPIN_WARM_UP {
        spinner.note_sent();
        spinner.rest(true, Some(ours.as_fd()));
        before_park();
    }
    assert_eq!(
        looks_of(&spinner),
        0,
        "an exchange of a few messages is no conversation"
    );
    sleep_hot(&mut spinner, &ours, STUCK);
    if cost::cores().count == 1 {
        return assert_eq!(looks_of(&spinner), 0);
    }
    assert_ne!(looks_of(&spinner), 0);
    let watch = spinner.watch.unwrap();
    assert_eq!(look_until(&watch, STUCK).0, Looked::Hit);
}

#[test]
fn an_answer_that_comes_by_another_connection_is_found() {
    let ((ours, _theirs), (back, mut theirs_back)) =
        (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
    let (mut there, mut here) = (
        Spinner::on(Spin::Adaptive, 2),
        Spinner::on(Spin::Adaptive, 2),
    );
    let began = Instant::now();
    while !here.is_watched && began.elapsed() < STUCK && cost::cores().count > 1 {
        // The answer comes by one, and is answered by the other before the thread has nothing to do.
        here.note_received();
        here.rest(false, Some(back.as_fd()));
        there.note_sent();
        there.rest(true, Some(ours.as_fd()));
        before_park();
    }
    assert_eq!(looks_of(&here), 0, "the other one was served last");
    if cost::cores().count == 1 {
        return assert!(!here.is_watched);
    }
    assert!(here.is_watched && there.is_watched);
    theirs_back.write_all(b"x").unwrap();
    let watch = there.watch.unwrap();
    assert_eq!(look_until(&watch, STUCK).0, Looked::Hit);
}

#[test]
fn what_neither_sent_nor_received_a_message_is_not_looked_for() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let mut spinner = Spinner::on(Spin::Adaptive, 2);
    for _ in 0..10 * SPIN_WARM_UP {
        spinner.rest(true, Some(ours.as_fd()));
        before_park();
        // Acknowledgements alone.
        spinner.note_sent();
        spinner.rest(false, Some(ours.as_fd()));
        before_park();
    }
    assert!(spinner.rests == 0 && !spinner.is_watched);
}

#[test]
fn a_sleep_for_another_reason_does_not_look() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let mut spinner = Spinner::on(Spin::Adaptive, 2);
    sleep_hot(&mut spinner, &ours, STUCK);
    let looks = looks_of(&spinner);
    for _ in 0..10 * SPIN_WARM_UP {
        before_park();
    }
    assert_eq!(looks_of(&spinner), looks);
}

#[test]
fn with_one_processor_or_where_it_is_not_wanted_nobody_looks() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    for mut spinner in [Spinner::on(Spin::Adaptive, 1), Spinner::on(Spin::Never, 8)] {
        sleep_hot(&mut spinner, &ours, Duration::from_millis(20));
        assert_eq!(looks_of(&spinner), 0);
        assert!(!spinner.is_watched && WAITING.with(|waiting| waiting.borrow().is_none()));
    }
}

#[test]
fn what_connections_are_watched_by_goes_with_the_last_of_them() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let mut spinner = Spinner::on(Spin::Adaptive, 2);
    let other = Spinner::on(Spin::Adaptive, 2);
    let watch = Arc::downgrade(spinner.watch.as_ref().unwrap());
    spinner.note_sent();
    // The thread remembers it, and never sleeps.
    spinner.rest(true, Some(ours.as_fd()));
    drop(spinner);
    assert!(Weak::ptr_eq(
        &watch,
        &Arc::downgrade(other.watch.as_ref().unwrap())
    ));
    drop(other);
    // Those of other tests may share it.
    assert!(watch.upgrade().is_none() || Arc::strong_count(&watch.upgrade().unwrap()) > 1);
}

#[test]
fn no_more_threads_look_than_there_are_processors_to_spare() {
    let turns = AtomicUsize::new(0);
    let most = AtomicUsize::new(0);
    let taken = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    if let Some(turn) = Turn::take(&turns, 3) {
                        most.fetch_max(turns.load(Ordering::Relaxed), Ordering::Relaxed);
                        taken.fetch_add(1, Ordering::Relaxed);
                        std::thread::yield_now();
                        drop(turn);
                    }
                }
            });
        }
    });
    assert!((1..=3).contains(&most.into_inner()) && taken.into_inner() != 0);
    assert_eq!(turns.into_inner(), 0);
    assert!(Turn::take(&AtomicUsize::new(0), 0).is_none());
}
