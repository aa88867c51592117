//! The progress line on standard error: rewritten in place on a terminal, a line a second elsewhere.

use std::io::{self, IsTerminal, Stderr, Write};
use std::time::{Duration, Instant};

use crate::limits;

/// Shows how far a job is. Errors of the stream are swallowed: progress is a courtesy, never a reason to fail.
pub(crate) struct Progress<W: Write = Stderr> {
    out: W,
    is_terminal: bool,
    shown_at: Option<Instant>,
    is_line_open: bool,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let out = io::stderr();
        let is_terminal = out.is_terminal();
        Self::on(out, is_terminal)
    }
}

impl<W: Write> Progress<W> {
    fn on(out: W, is_terminal: bool) -> Self {
        Self {
            out,
            is_terminal,
            shown_at: None,
            is_line_open: false,
        }
    }

    /// A new phase of the job: always shown.
    pub(crate) fn phase(&mut self, text: &str) {
        self.show(text);
    }

    /// A number grew: shown when enough time passed since the last line.
    pub(crate) fn tick(&mut self, text: impl FnOnce() -> String) {
        let every = if self.is_terminal {
            limits::PROGRESS_EVERY
        } else {
            limits::PROGRESS_LINE_EVERY
        };
        if self.shown_at.is_none_or(|at| at.elapsed() >= every) {
            self.show(&text());
        }
    }

    /// Clears the line of a terminal, so that what is printed next stands alone.
    pub(crate) fn done(&mut self) {
        if std::mem::take(&mut self.is_line_open) {
            self.write("\r\x1b[2K");
        }
    }

    fn show(&mut self, text: &str) {
        if self.is_terminal {
            self.write(&format!("\r\x1b[2K{text}"));
            self.is_line_open = true;
        } else {
            self.write(&format!("{text}\n"));
        }
        self.shown_at = Some(Instant::now());
    }

    fn write(&mut self, text: &str) {
        let written = self.out.write_all(text.as_bytes());
        if written.and_then(|()| self.out.flush()).is_err() {
            // Nobody reads standard error any more; there is nobody to tell.
            self.is_line_open = false;
        }
    }
}

impl<W: Write> Drop for Progress<W> {
    fn drop(&mut self) {
        self.done();
    }
}

/// `part` of `whole` in percent, never over 100, and 100 of nothing.
pub(crate) fn percent(part: u64, whole: u64) -> u64 {
    match whole {
        0 => 100,
        _ => (u128::from(part) * 100 / u128::from(whole)).min(100) as u64,
    }
}

/// The rate of `count` in `time`, 0 when no time passed.
pub(crate) fn rate(count: u64, time: Duration) -> f64 {
    let seconds = time.as_secs_f64();
    if seconds > 0.0 {
        count as f64 / seconds
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(is_terminal: bool, play: impl FnOnce(&mut Progress<&mut Vec<u8>>)) -> String {
        let mut out = Vec::new();
        play(&mut Progress::on(&mut out, is_terminal));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn without_a_terminal_phases_are_lines_and_ticks_are_rare() {
        let text = shown(false, |progress| {
            progress.phase("starting");
            for n in 0..100 {
                progress.tick(|| format!("{n} %"));
            }
            progress.phase("checking");
        });
        assert_eq!(text, "starting\nchecking\n");
    }

    #[test]
    fn the_first_tick_is_shown_at_once() {
        assert_eq!(
            shown(false, |progress| progress.tick(|| "0 %".into())),
            "0 %\n"
        );
    }

    #[test]
    fn on_a_terminal_the_line_is_rewritten_and_cleared_at_the_end() {
        let text = shown(true, |progress| progress.phase("starting"));
        assert_eq!(text, "\r\x1b[2Kstarting\r\x1b[2K");
    }

    #[test]
    fn percentages_stay_between_zero_and_a_hundred() {
        assert_eq!(percent(0, 0), 100);
        assert_eq!(percent(1, 3), 33);
        assert_eq!(percent(7, 3), 100);
        assert_eq!(percent(u64::MAX, u64::MAX), 100);
        assert_eq!(rate(10, Duration::ZERO), 0.0);
        assert_eq!(rate(10, Duration::from_secs(2)), 5.0);
    }
}
