//! A fuzzer for stable toolchains: it changes inputs of a corpus and keeps those in which a target saw something new.
//! What a target says it saw stands in for coverage. It opens no file and starts no thread; its caller does.

use std::collections::HashSet;
use std::hash::BuildHasherDefault;
use std::panic::{self, AssertUnwindSafe};

use super::mutate::{Random, mutate};
use super::{Seen, Target};
use crate::id::IdHasher;

/// The most inputs that a stream keeps for a target; beyond it, a new one takes the place of an old one.
const MAX_POOL: usize = 1024;

/// The most tries to make the input of a finding smaller.
const MAX_SHRINKS: usize = 20_000;

/// One sequence of inputs, all drawn from one seed: equal seeds and corpora give equal sequences.
pub struct Stream {
    random: Random,
    pools: Vec<Pool>,
    pieces: Vec<&'static [u8]>,
    execs: u64,
}

struct Pool {
    target: Target,
    inputs: Vec<Vec<u8>>,
    seen: HashSet<Seen, BuildHasherDefault<IdHasher>>,
}

/// An input on which a target panicked.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The target.
    pub target: &'static str,
    /// The input, made as small as it could be.
    pub input: Vec<u8>,
    /// What the panic said.
    pub message: String,
}

impl Stream {
    /// A stream over `targets`, which begin from `corpus`.
    pub fn new(targets: &[Target], corpus: &[Vec<u8>], seed: u64) -> Self {
        let pools = targets.iter().map(|target| Pool {
            target: *target,
            inputs: if corpus.is_empty() {
                vec![Vec::new()]
            } else {
                corpus.to_vec()
            },
            seen: HashSet::default(),
        });
        Self {
            random: Random::new(seed),
            pools: pools.collect(),
            pieces: Vec::new(),
            execs: 0,
        }
    }

    /// The same with pieces that mean something to the targets.
    #[must_use]
    pub fn with_pieces(mut self, pieces: &[&'static [u8]]) -> Self {
        self.pieces = pieces.to_vec();
        self
    }

    /// Runs the corpus as it is, once through every target.
    ///
    /// # Errors
    ///
    /// The first finding.
    pub fn replay(&mut self) -> Result<(), Finding> {
        for pool in &mut self.pools {
            for input in &pool.inputs {
                pool.seen.insert(run(pool.target, input)?);
                self.execs += 1;
            }
        }
        Ok(())
    }

    /// Makes and runs `count` inputs.
    ///
    /// # Errors
    ///
    /// The first finding. The stream can go on behind it.
    pub fn run(&mut self, count: u64) -> Result<(), Finding> {
        for _ in 0..count {
            self.execs += 1;
            let at = self.random.below(self.pools.len());
            let other = self.random.below(self.pools.len());
            let lender = &self.pools[other].inputs;
            let lent = lender[self.random.below(lender.len())].clone();
            let pool = &mut self.pools[at];
            let mut input = pool.inputs[self.random.below(pool.inputs.len())].clone();
            mutate(&mut input, &lent, &self.pieces, &mut self.random);
            let seen = run(pool.target, &input)?;
            if pool.seen.insert(seen) {
                if pool.inputs.len() < MAX_POOL {
                    pool.inputs.push(input);
                } else {
                    let place = self.random.below(MAX_POOL);
                    pool.inputs[place] = input;
                }
            }
        }
        Ok(())
    }

    /// How many inputs were run.
    pub fn execs(&self) -> u64 {
        self.execs
    }

    /// For each target, how many different things it saw.
    pub fn seen(&self) -> Vec<(&'static str, usize)> {
        self.pools
            .iter()
            .map(|pool| (pool.target.0, pool.seen.len()))
            .collect()
    }

    /// The inputs that are kept.
    pub fn inputs(&self) -> impl Iterator<Item = &[u8]> {
        self.pools
            .iter()
            .flat_map(|pool| pool.inputs.iter().map(Vec::as_slice))
    }
}

/// Runs one input; a panic becomes a finding, made small.
fn run(target: Target, input: &[u8]) -> Result<Seen, Finding> {
    let (name, body) = target;
    attempt(body, input).map_err(|message| {
        let (input, message) = shrink(body, input.to_vec(), message);
        Finding {
            target: name,
            input,
            message,
        }
    })
}

/// What the body says, or what its panic said.
fn attempt(body: fn(&[u8]) -> Seen, input: &[u8]) -> Result<Seen, String> {
    panic::catch_unwind(AssertUnwindSafe(|| body(input))).map_err(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        text.or_else(|| {
            payload
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
        })
        .unwrap_or_else(|| "a panic without a text".to_owned())
    })
}

/// Takes parts away for as long as the target still panics: halves first, then quarters, down to single bytes.
fn shrink(body: fn(&[u8]) -> Seen, mut input: Vec<u8>, mut message: String) -> (Vec<u8>, String) {
    let mut tries = 0;
    let mut len = input.len() / 2;
    while len > 0 {
        let mut at = 0;
        let mut is_smaller = false;
        while at < input.len() && tries < MAX_SHRINKS {
            tries += 1;
            let mut candidate = input.clone();
            candidate.drain(at..(at + len).min(input.len()));
            match attempt(body, &candidate) {
                Ok(_) => at += len,
                Err(text) => {
                    (input, message) = (candidate, text);
                    is_smaller = true;
                }
            }
        }
        if !is_smaller || len > 1 {
            len /= 2;
        }
    }
    (input, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ProcId;
    use crate::fuzzing::{NOTHING, TARGETS, address_pieces, fuzz_proc_id};

    /// A fault as a parser may have it: it forgets to escape one character of a name behind another.
    fn canary(data: &[u8]) -> Seen {
        let text = std::str::from_utf8(data).unwrap_or_default();
        if let Ok(proc) = text.parse::<ProcId>() {
            assert!(
                !(proc.name().contains(',') && proc.name().contains('%')),
                "the canary died"
            );
        }
        fuzz_proc_id(data)
    }

    #[test]
    fn a_fault_is_found_and_made_small() {
        let mut stream = Stream::new(&[("canary", canary)], &[b"local:1,a".to_vec()], 1)
            .with_pieces(&address_pieces());
        let finding = stream.run(100_000).unwrap_err();
        assert_eq!(
            (finding.target, finding.message.as_str()),
            ("canary", "the canary died")
        );
        let text = String::from_utf8(finding.input.clone()).unwrap();
        let proc: ProcId = text.parse().unwrap();
        assert!(proc.name().len() <= 4, "{text} could be smaller");
        assert!(stream.execs() > 0);
    }

    #[test]
    fn equal_seeds_make_equal_streams() {
        let inputs = |seed| {
            let mut stream =
                Stream::new(TARGETS, &[b"local:1,a".to_vec()], seed).with_pieces(&address_pieces());
            stream.run(20_000).unwrap();
            stream.inputs().map(<[u8]>::to_vec).collect::<Vec<_>>()
        };
        assert_eq!(inputs(7), inputs(7));
        assert_ne!(inputs(7), inputs(8));
    }

    #[test]
    fn nothing_new_is_seen_in_nothing() {
        let mut stream = Stream::new(&[("nothing", |_| NOTHING)], &[], 1);
        stream.run(1000).unwrap();
        assert_eq!(stream.seen(), [("nothing", 1)]);
        assert_eq!(stream.inputs().count(), 2);
    }

    #[test]
    fn the_committed_corpus_breaks_nothing() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/refs");
        let files = std::fs::read_dir(folder).unwrap();
        let corpus: Vec<_> = files
            .map(|file| std::fs::read(file.unwrap().path()).unwrap())
            .collect();
        assert!(
            corpus.len() > 100,
            "the corpus has only {} inputs",
            corpus.len()
        );
        let mut stream = Stream::new(TARGETS, &corpus, 1);
        stream.replay().unwrap();
        // Every target has more than one thing to say about it.
        assert!(
            stream.seen().iter().all(|(_, seen)| *seen > 1),
            "{:?}",
            stream.seen()
        );
    }
}
