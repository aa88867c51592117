//! What the children write to standard output and standard error: cut into lines, the last of which are kept and, where
//! that was chosen, passed on to the host's own with the proc's name in front.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::time::Duration;

use hyperactor_host::{LogLine, LogTail, OutputPolicy, OutputStream};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::limits;

/// Cuts a stream of bytes into lines.
#[derive(Debug, Default)]
struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    /// Takes bytes and gives out the lines that they complete. A line longer than [`limits::OUTPUT_LINE_BYTES`] is given
    /// out in pieces.
    fn push(&mut self, mut bytes: &[u8], mut give: impl FnMut(String)) {
        while !bytes.is_empty() {
            let room = limits::OUTPUT_LINE_BYTES - self.pending.len();
            let end = bytes.iter().take(room + 1).position(|byte| *byte == b'\n');
            let taken = end.unwrap_or(room.min(bytes.len()));
            self.pending.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken + usize::from(end.is_some())..];
            if end.is_some() || self.pending.len() == limits::OUTPUT_LINE_BYTES {
                give(self.take());
            }
        }
    }

    /// Gives out what is left at the end of the stream.
    fn finish(&mut self) -> Option<String> {
        (!self.pending.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> String {
        let line = String::from_utf8_lossy(&self.pending);
        let line = line.strip_suffix('\r').unwrap_or(&line).to_owned();
        self.pending.clear();
        line
    }
}

/// The ends of the pipes for a process's output that are for it, and the tasks that read the others.
#[derive(Default)]
pub(super) struct Capture {
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
    pub(super) readers: Vec<JoinHandle<()>>,
}

/// Makes the pipes by which a process's output comes here, and the tasks that read them.
pub(super) fn capture(
    printer: &Printer,
    name: &str,
    policy: OutputPolicy,
    tail: &LogTail,
) -> io::Result<Capture> {
    let onward = match policy {
        OutputPolicy::Inherited => return Ok(Capture::default()),
        OutputPolicy::Kept => None,
        _ => printer.onward(name),
    };
    let mut capture = Capture::default();
    for (stream, end) in [
        (OutputStream::Stdout, &mut capture.stdout),
        (OutputStream::Stderr, &mut capture.stderr),
    ] {
        let (ours, theirs) = io::pipe()?;
        *end = Some(theirs.into());
        let reader = read(ours.into(), stream, tail.clone(), onward.clone())?;
        capture.readers.push(reader);
    }
    Ok(capture)
}

/// Reads one stream of one child until it ends: when the child, and whoever inherited the stream from it, is gone.
fn read(
    pipe: OwnedFd,
    stream: OutputStream,
    tail: LogTail,
    onward: Option<Onward>,
) -> io::Result<JoinHandle<()>> {
    let mut pipe = Receiver::from_owned_fd(pipe)?;
    Ok(tokio::spawn(async move {
        let mut lines = Lines::default();
        let mut bytes = vec![0u8; limits::OUTPUT_READ_BYTES];
        let mut given = Vec::new();
        loop {
            // A pipe of ours fails no read; an end is an end either way.
            let count = pipe.read(&mut bytes).await.unwrap_or(0);
            lines.push(&bytes[..count], |line| given.push(line));
            if count == 0 {
                given.extend(lines.finish());
            }
            for text in given.drain(..) {
                let printed = onward.as_ref().map(|onward| onward.print(stream, &text));
                tail.push(LogLine { stream, text });
                if let Some(printed) = printed {
                    printed.await;
                }
            }
            if count == 0 {
                return;
            }
        }
    }))
}

/// The thread that writes to the host's own standard output and standard error: a terminal or a pipe may not take what it is
/// given, and no worker of the runtime may wait for it.
#[derive(Debug, Default)]
pub(super) struct Printer {
    queue: OnceLock<mpsc::Sender<Print>>,
}

#[derive(Debug)]
enum Print {
    Line(OutputStream, Vec<u8>),
    /// Everything before this was written.
    Mark(oneshot::Sender<()>),
}

impl Printer {
    /// The way onward for one proc; `None` when the thread cannot be started.
    pub(super) fn onward(&self, name: &str) -> Option<Onward> {
        // Not `get_or_init`, which could not fail.
        if self.queue.get().is_none() {
            let (queue, prints) = mpsc::channel(limits::OUTPUT_QUEUE_LINES);
            let thread = std::thread::Builder::new().name("hyperactor-output".to_owned());
            match thread.spawn(move || print_all(prints)) {
                Ok(_) => drop(self.queue.set(queue)),
                Err(error) => {
                    tracing::warn!(target: "hyperactor::bootstrap", %error, "the output of procs is not passed on");
                }
            }
        }
        let queue = self.queue.get()?.clone();
        // No name may pretend to be another, nor move the cursor.
        let prefix = format!("[{}] ", name.escape_debug());
        Some(Onward { prefix, queue })
    }

    /// Waits until everything so far is written, or the time is over.
    pub(super) async fn flush(&self, timeout: Duration) {
        let Some(queue) = self.queue.get() else {
            return;
        };
        let (done, written) = oneshot::channel();
        let flushed = async {
            if queue.send(Print::Mark(done)).await.is_ok() {
                // An error means that the thread is gone, and with it what could be waited for.
                drop(written.await);
            }
        };
        if tokio::time::timeout(timeout, flushed).await.is_err() {
            tracing::debug!(target: "hyperactor::bootstrap", "nobody takes the output of this process");
        }
    }
}

/// Ends when the last way onward and the printer are gone.
fn print_all(mut prints: mpsc::Receiver<Print>) {
    while let Some(print) = prints.blocking_recv() {
        let written = match print {
            Print::Line(OutputStream::Stdout, line) => io::stdout().lock().write_all(&line),
            Print::Line(OutputStream::Stderr, line) => io::stderr().lock().write_all(&line),
            Print::Mark(done) => {
                if done.send(()).is_err() {
                    tracing::trace!(target: "hyperactor::bootstrap", "whoever waited for the output has given up");
                }
                Ok(())
            }
        };
        if let Err(error) = written {
            tracing::debug!(target: "hyperactor::bootstrap", %error, "a line of a proc's output could not be passed on");
        }
    }
}

/// The way of one proc's lines to the host's own output.
#[derive(Debug, Clone)]
pub(super) struct Onward {
    prefix: String,
    queue: mpsc::Sender<Print>,
}

impl Onward {
    /// Passes a line on. Waits while the queue is full, and with that the process that writes: as if it wrote there itself.
    fn print(&self, stream: OutputStream, text: &str) -> impl Future<Output = ()> + Send + use<> {
        let line = format!("{}{text}\n", self.prefix).into_bytes();
        let queue = self.queue.clone();
        async move {
            // An error means that the thread is gone.
            drop(queue.send(Print::Line(stream, line)).await);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(chunks: &[&[u8]]) -> Vec<String> {
        let mut lines = Lines::default();
        let mut given = Vec::new();
        for chunk in chunks {
            lines.push(chunk, |line| given.push(line));
        }
        given.extend(lines.finish());
        given
    }

    #[test]
    fn lines_come_out_however_the_stream_is_cut() {
        let text = b"one\n\ntwo\r\nthr\xffee\nrest";
        let expected = ["one", "", "two", "thr\u{fffd}ee", "rest"];
        for size in 1..=text.len() {
            let chunks: Vec<_> = text.chunks(size).collect();
            assert_eq!(cut(&chunks), expected, "cut into chunks of {size}");
        }
        assert_eq!(cut(&[b"ended\n"]), ["ended"]);
        assert_eq!(cut(&[]), Vec::<String>::new());
    }

    #[test]
    fn an_endless_line_is_given_out_in_pieces() {
        let endless = vec![b'x'; limits::OUTPUT_LINE_BYTES * 2 + 1];
        let lines = cut(&[&endless, b"\n"]);
        let lengths: Vec<_> = lines.iter().map(String::len).collect();
        let max = limits::OUTPUT_LINE_BYTES;
        assert_eq!(lengths, [max, max, 1]);
    }
}
