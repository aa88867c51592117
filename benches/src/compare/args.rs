//! The command line of the comparison.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::compare::run::Effort;
use crate::compare::stats::PAIRS_MIN;

/// Measures baseline and subject in turns, and says which targets are met.
#[derive(Debug, Parser)]
#[command(name = "compare", after_help = crate::compare::rows::help())]
pub(crate) struct Arguments {
    /// The rows to measure; all if left out.
    pub(crate) rows: Vec<String>,
    /// Pairs of a line; fewer than seven prove nothing.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) pairs: u16,
    /// Milliseconds that one measurement should take.
    #[arg(long, default_value_t = 150, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub(crate) sample_ms: u64,
    /// Writes all that was measured.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Writes the table.
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,
    /// Measures throughput and latency against the size of messages, too, and draws them.
    #[arg(long, value_name = "DIR")]
    pub(crate) svg: Option<PathBuf>,
    /// Measures as little as shows that everything works; proves nothing.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Another build of this program: what row b5 compares with (a build without spinning).
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) against: Option<PathBuf>,
    /// The program `peers`: other libraries, for the rows that are compared with them.
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) peers: Option<PathBuf>,
    /// The program `hyperactor`, whose idle proc the row `memory` looks at.
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) demo: Option<PathBuf>,
}

impl Arguments {
    pub(crate) fn effort(&self) -> Effort {
        if self.quick {
            return Effort {
                pairs: 2,
                sample: Duration::from_millis(2),
                is_quick: true,
            };
        }
        let pairs = usize::from(self.pairs);
        if pairs < PAIRS_MIN {
            eprintln!("compare: {pairs} pairs prove nothing; {PAIRS_MIN} are the least");
        }
        Effort {
            pairs,
            sample: Duration::from_millis(self.sample_ms),
            is_quick: false,
        }
    }
}
