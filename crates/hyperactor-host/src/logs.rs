//! The last lines that a proc's process wrote: [`LogTail`] keeps them within a bound, [`ProcLogs`] is a look at them. Who
//! reads the process's output, and where else it goes, is decided by the proc's manager.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use hyperactor_proc::Message;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::limits;

/// Where a process wrote a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line that a process wrote, without its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Where it was written.
    pub stream: OutputStream,
    /// What was written. Bytes that are no UTF-8 stand as `�`.
    pub text: String,
}

/// The last lines that a process wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Message)]
#[non_exhaustive]
pub struct ProcLogs {
    /// The lines, in the order in which they were read: within one stream the order in which they were written.
    pub lines: Vec<LogLine>,
    /// How many earlier lines are not kept any more.
    pub dropped: u64,
}

impl ProcLogs {
    /// The texts of the lines of one stream.
    pub fn of(&self, stream: OutputStream) -> impl DoubleEndedIterator<Item = &str> {
        self.lines
            .iter()
            .filter(move |line| line.stream == stream)
            .map(|line| line.text.as_str())
    }
}

/// Keeps the last lines of one process. A clone is another handle of the same tail.
///
/// # Bounds
/// At most [`limits::LOG_BYTES`], counting [`limits::LOG_LINE_OVERHEAD`] for each line; the oldest lines go.
#[derive(Clone, Default)]
pub struct LogTail {
    tail: Arc<Mutex<Tail>>,
}

#[derive(Default)]
struct Tail {
    lines: VecDeque<LogLine>,
    bytes: usize,
    dropped: u64,
}

impl LogTail {
    /// An empty tail.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a line.
    pub fn push(&self, line: LogLine) {
        let mut tail = self.tail.lock();
        tail.bytes += cost(&line);
        tail.lines.push_back(line);
        while tail.bytes > limits::LOG_BYTES {
            let Some(oldest) = tail.lines.pop_front() else {
                break;
            };
            tail.bytes -= cost(&oldest);
            tail.dropped += 1;
        }
    }

    /// A copy of what is kept.
    #[must_use]
    pub fn look(&self) -> ProcLogs {
        let tail = self.tail.lock();
        ProcLogs {
            lines: tail.lines.iter().cloned().collect(),
            dropped: tail.dropped,
        }
    }
}

fn cost(line: &LogLine) -> usize {
    line.text.len() + limits::LOG_LINE_OVERHEAD
}

impl fmt::Debug for LogTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tail = self.tail.lock();
        // Sizes, not what a program printed.
        f.debug_struct("LogTail")
            .field("lines", &tail.lines.len())
            .field("bytes", &tail.bytes)
            .field("dropped", &tail.dropped)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: impl Into<String>) -> LogLine {
        LogLine {
            stream: OutputStream::Stderr,
            text: text.into(),
        }
    }

    #[test]
    fn lines_are_kept_in_order_and_told_apart_by_stream() {
        let tail = LogTail::new();
        tail.push(line("one"));
        tail.push(LogLine {
            stream: OutputStream::Stdout,
            text: "two".to_owned(),
        });
        tail.push(line("three"));
        let logs = tail.look();
        assert_eq!(
            logs.of(OutputStream::Stderr).collect::<Vec<_>>(),
            ["one", "three"]
        );
        assert_eq!(logs.of(OutputStream::Stdout).collect::<Vec<_>>(), ["two"]);
        assert_eq!(logs.dropped, 0);
    }

    #[test]
    fn however_much_is_written_the_tail_stays_small_and_is_the_end() {
        let tail = LogTail::new();
        let count = 100_000;
        for number in 0..count {
            tail.push(line(if number % 2 == 0 {
                number.to_string()
            } else {
                String::new()
            }));
        }
        let logs = tail.look();
        assert!(logs.lines.len() < limits::LOG_BYTES / limits::LOG_LINE_OVERHEAD);
        assert_eq!(logs.dropped + logs.lines.len() as u64, count);
        assert_eq!(
            logs.lines[logs.lines.len() - 2].text,
            (count - 2).to_string()
        );
    }
}
