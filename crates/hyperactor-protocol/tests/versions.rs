//! Every row of `docs/spec/versions.md` is a test: which hello gets which answer, and what a dialer makes of it.

use std::fs;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use hyperactor_protocol::{
    Cause, Config, Event, Hello, HelloCode, HelloError, Incarnation, Life, Session, SessionId,
    Time, VERSION_MAX, VERSION_MIN, limits,
};

/// Where these fields of a hello stand.
const VERSIONS: usize = 8;
const FLAGS: usize = 12;
const CODE: usize = 16;
const RESERVED: usize = 18;
const EXT_LEN: usize = 120;

/// The rows of the table whose header begins with these columns.
fn rows(columns: &[&str]) -> Vec<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/spec/versions.md");
    let page = fs::read_to_string(path).expect("the page exists");
    let header = format!("| {} |", columns.join(" | "));
    let table: Vec<Vec<String>> = page
        .lines()
        .skip_while(|line| *line != header)
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells = line.trim_matches('|').split('|');
            cells.map(|cell| cell.trim().to_string()).collect()
        })
        .collect();
    assert!(!table.is_empty(), "no table {header}");
    assert!(table.iter().all(|row| row.len() == columns.len()));
    table
}

fn put(bytes: &mut BytesMut, at: usize, field: &[u8]) {
    bytes[at..at + field.len()].copy_from_slice(field);
}

fn hex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex");
    (0..text.len()).step_by(2).map(byte).collect()
}

/// Writes the fields that both tables name into a lawful hello.
fn bend(hello: &Hello, versions: &str, flags: &str, extensions: &str) -> BytesMut {
    let mut bytes = BytesMut::from(&hello.to_bytes()[..]);
    let (min, max) = versions.split_once(" to ").expect("a range");
    for (at, number) in [(VERSIONS, min), (VERSIONS + 2, max)] {
        let number: u16 = number.parse().expect("a version");
        put(&mut bytes, at, &number.to_le_bytes());
    }
    put(&mut bytes, FLAGS, &hex(flags));
    // In place of those that the session says.
    let extensions = match extensions {
        "none" => Vec::new(),
        extensions => hex(extensions),
    };
    let length = (extensions.len() as u16).to_le_bytes();
    put(&mut bytes, EXT_LEN, &length);
    bytes.truncate(limits::HELLO_FIXED_BYTES);
    bytes.extend_from_slice(&extensions);
    bytes
}

fn dialer() -> Session {
    let id = SessionId(0x5eed);
    Session::dialer(Config::default(), id, Incarnation::new(1), Time::ZERO)
}

/// Bytes that cannot be taken for a hello, in the words of the page.
fn no_answer(error: &HelloError) -> String {
    match error {
        HelloError::NotHello => "none: no hello".to_string(),
        HelloError::Malformed { field } => format!("none: {field}"),
        other => panic!("reading a hello has no other error: {other}"),
    }
}

fn answer(mut bytes: BytesMut) -> String {
    let hello = match Hello::decode(&mut bytes) {
        Ok(Some(hello)) => hello,
        Ok(None) => return "waits".to_string(),
        Err(error) => return no_answer(&error),
    };
    let local = Incarnation::new(2);
    let mut session = Session::acceptor(Config::default(), local, &hello, Time::ZERO);
    match session.on_hello(&hello, Time::ZERO) {
        Ok(_) => {
            let version = hello.common_version().expect("it was accepted");
            assert_eq!(session.life(), Life::Connected);
            format!("accepts, version {version}")
        }
        Err(error) => {
            assert_eq!(session.life(), Life::Detached, "a refusal leaves no trace");
            let refusal = Hello::refusal(&hello, local, error.code());
            // What is said is what the other side reads.
            let mut said = BytesMut::from(&refusal.to_bytes()[..]);
            let read = Hello::decode(&mut said)
                .expect("a hello")
                .expect("a whole one");
            assert_eq!(read, refusal);
            let (min, max) = (read.version_min, read.version_max);
            assert_eq!((min, max), (VERSION_MIN, VERSION_MAX));
            format!(
                "refuses with {}, says {min} to {max}",
                error.code().number()
            )
        }
    }
}

#[test]
fn every_hello_gets_the_answer_on_the_page() {
    for row in rows(&[
        "magic",
        "arrives",
        "versions",
        "flags",
        "reserved",
        "extensions",
        "answer",
    ]) {
        let hello = dialer().hello(Time::ZERO);
        let mut bytes = bend(&hello, &row[2], &row[3], &row[5]);
        if let Some(at) = row[0].strip_prefix("byte ") {
            let at: usize = at.parse().expect("a place");
            bytes[at] ^= 1;
        }
        put(&mut bytes, RESERVED, &hex(&row[4]));
        if row[1] != "all" {
            bytes.truncate(row[1].parse().expect("a count"));
        }
        assert_eq!(answer(bytes), row[6], "{row:?}");
    }
}

/// What a dialer with one message makes of an answer.
fn reaction(hello: &Hello, bytes: &Bytes, mut session: Session) -> String {
    let mut bytes = BytesMut::from(&bytes[..]);
    let read = match Hello::decode(&mut bytes) {
        Ok(Some(read)) => read,
        Ok(None) => panic!("a whole answer"),
        Err(error) => return no_answer(&error),
    };
    assert_eq!(read.epoch, hello.epoch);
    let judged = session.on_hello(&read, Time::ZERO);
    let events: Vec<Event> = std::iter::from_fn(|| session.poll_event()).collect();
    let failed =
        |event: &Event| matches!(event, Event::Failed { failure, .. } if failure.is_certain());
    match (judged, session.life()) {
        (Ok(_), Life::Connected) => {
            let version = read.common_version().expect("it was accepted");
            format!("talks, version {version}")
        }
        (Err(error), Life::Detached) => {
            assert!(
                error.is_retryable() && events.is_empty(),
                "{error}: {events:?}"
            );
            "tries again".to_string()
        }
        (Err(error), Life::Closed) => {
            assert!(!error.is_retryable() && !error.code().is_retryable());
            assert!(events.iter().any(failed), "nothing was sent: {events:?}");
            let code = error.code();
            let cause = Cause::HelloRefused(code);
            assert_eq!(events.last(), Some(&Event::Closed(cause)), "{error}");
            format!("ends: {}", code.number())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_answer_has_the_effect_on_the_page() {
    for row in rows(&["versions", "flags", "code", "extensions", "the dialer"]) {
        let mut session = dialer();
        let encode = |out: &mut BytesMut| {
            out.extend_from_slice(b"a message");
            Ok::<(), ()>(())
        };
        session
            .push_with(hyperactor_protocol::DataFlags::NONE, encode)
            .expect("there is room");
        let hello = session.hello(Time::ZERO);
        let local = Incarnation::new(2);
        let mut acceptor = Session::acceptor(Config::default(), local, &hello, Time::ZERO);
        acceptor
            .on_hello(&hello, Time::ZERO)
            .expect("a lawful hello");
        let answer = acceptor.hello(Time::ZERO);
        let mut bytes = bend(&answer, &row[0], &row[1], &row[3]);
        let code: u16 = row[2].parse().expect("a code");
        put(&mut bytes, CODE, &code.to_le_bytes());
        assert_eq!(
            reaction(&hello, &bytes.freeze(), session),
            row[4],
            "{row:?}"
        );
    }
}

#[test]
fn the_page_has_a_row_for_every_code_of_a_refusal() {
    let told: Vec<String> = rows(&["versions", "flags", "code", "extensions", "the dialer"])
        .into_iter()
        .map(|row| row[2].clone())
        .collect();
    let known = (1..).map_while(|number| match HelloCode::from_number(number) {
        HelloCode::Other(_) => None,
        code => Some(code.number().to_string()),
    });
    for code in known {
        assert!(told.contains(&code), "no row for code {code}");
    }
}
