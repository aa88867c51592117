//! A server in a process of its own, for suites that must tell what it costs from what everybody else does: it is started
//! with its transport, says its address, answers questions line by line, and ends when nobody can ask any more.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use hyperactor_refs::ChannelAddr;
use tokio::sync::mpsc;

use super::net::Kind;
use super::process::child;

/// The server as its suite sees it. Dropping it kills it, should it still be there.
pub(crate) struct Served {
    process: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    pub(crate) addr: ChannelAddr,
}

impl Served {
    /// Starts this program's part of that name.
    pub(crate) fn start(name: &str, kind: Kind) -> Self {
        Self::with(name, &[kind.word()])
    }

    pub(crate) fn with(name: &str, arguments: &[&str]) -> Self {
        let mut process = child(name, arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let questions = process.stdin.take();
        let mut answers = BufReader::new(process.stdout.take().unwrap());
        let addr = line(&mut answers).parse().unwrap();
        Self {
            process,
            questions,
            answers,
            addr,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Asks, and waits for the answer.
    pub(crate) fn ask(&mut self, question: &str) -> String {
        let questions = self.questions.as_mut().unwrap();
        questions
            .write_all(format!("{question}\n").as_bytes())
            .unwrap();
        line(&mut self.answers)
    }

    /// Kills it and waits for its end.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Lets it end by itself; says whether it did so in order.
    pub(crate) fn end(mut self) -> bool {
        self.questions = None;
        self.process.wait().unwrap().success()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Where the suite panicked; one that has ended already is not there to be killed.
        let _ended_already = self.process.kill();
        let _reaped_already = self.process.wait();
    }
}

fn line(from: &mut impl BufRead) -> String {
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    line.trim().to_owned()
}

/// The questions that a server is asked; closed when its suite is gone.
pub(crate) fn questions() -> mpsc::Receiver<String> {
    let (tell, asked) = mpsc::channel(1);
    std::thread::spawn(move || {
        for question in std::io::stdin().lines() {
            let Ok(question) = question else { return };
            if tell.blocking_send(question).is_err() {
                return;
            }
        }
    });
    asked
}
