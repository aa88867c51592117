//! The program that fuzzes on any toolchain: options, threads, the corpus on disk, what a run says at its end.
//!
//! `--execs N` is how many inputs, `--seed N` repeats a run, `--target NAME` chooses one target, `--save` writes what was seen
//! first into the corpus, and `--replay FILE` runs one file. It ends with 1 if there is a finding, whose input is written below
//! `fuzz/artifacts`, or into the folder that `--findings` names.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::{Finding, Stream, Target};

/// Streams of a run. It is a number of its own and not that of the processors, so that a seed gives one run everywhere.
const STREAMS: u64 = 16;

/// How many inputs a stream runs before it looks whether another one has a finding.
const BATCH: u64 = 20_000;

/// The largest input that `--save` writes.
const MAX_SAVED_BYTES: usize = 96;

/// The most new inputs that `--save` writes for a target: a corpus that people keep has to stay small.
const MAX_SAVED_PER_TARGET: usize = 24;

/// Targets that belong together: they share a corpus.
#[derive(Clone, Debug)]
pub struct Family {
    /// Its name: that of its folders.
    pub name: &'static str,
    /// The folder `fuzz` of the repository.
    pub folder: PathBuf,
    /// The targets.
    pub targets: Vec<Target>,
    /// Inputs to begin from besides the corpus.
    pub seeds: Vec<Vec<u8>>,
    /// Pieces that mean something to the targets.
    pub pieces: Vec<&'static [u8]>,
}

struct Options {
    execs: u64,
    seed: u64,
    targets: Vec<Target>,
    pieces: Vec<&'static [u8]>,
    save: bool,
    replay: Option<PathBuf>,
    findings: PathBuf,
}

/// Runs the targets of a family as the command line says.
pub fn run_program(family: &Family) -> ExitCode {
    match start(family) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("fuzz: {error}");
            ExitCode::from(2)
        }
    }
}

fn start(family: &Family) -> Result<ExitCode, Box<dyn Error>> {
    let options = options(family, std::env::args().skip(1))?;
    // A panic is a finding here, and shrinking makes thousands of them.
    std::panic::set_hook(Box::new(|_| ()));
    let folder = family.folder.join("corpus").join(family.name);
    let mut corpus = match &options.replay {
        Some(file) => vec![std::fs::read(file)?],
        None => read_corpus(&folder)?,
    };
    if options.replay.is_none() {
        corpus.extend(family.seeds.iter().cloned());
    }
    let start = Instant::now();
    println!(
        "fuzz: seed {}, {} inputs in the corpus",
        options.seed,
        corpus.len()
    );
    let outcome = if options.replay.is_some() {
        let mut stream = Stream::new(&options.targets, &corpus, options.seed);
        stream.replay().map(|()| vec![stream])
    } else {
        run(&options, &corpus)
    };
    match outcome {
        Ok(streams) => {
            report(&streams, start);
            if options.save {
                save(&folder, &options.targets, &streams)?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(finding) => {
            let file = write_finding(&options.findings, &finding)?;
            println!("fuzz: finding in {}: {}", finding.target, finding.message);
            println!("  input: {}", finding.input.escape_ascii());
            println!(
                "  repeat: --replay {} or --seed {}",
                file.display(),
                options.seed
            );
            println!("0 passed, 1 failed");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Runs all streams, on as many threads as there are processors; ends early at a finding.
fn run(options: &Options, corpus: &[Vec<u8>]) -> Result<Vec<Stream>, Finding> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let is_over = AtomicBool::new(false);
    let done: Mutex<Vec<Result<Stream, Finding>>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed) as u64;
                    if number >= STREAMS || is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    let result = run_stream(options, corpus, number, &is_over);
                    is_over.fetch_or(result.is_err(), Ordering::Relaxed);
                    done.lock()
                        .unwrap_or_else(|poison| poison.into_inner())
                        .push(result);
                }
            });
        }
    });
    done.into_inner()
        .unwrap_or_else(|poison| poison.into_inner())
        .into_iter()
        .collect()
}

fn run_stream(
    options: &Options,
    corpus: &[Vec<u8>],
    number: u64,
    is_over: &AtomicBool,
) -> Result<Stream, Finding> {
    let seed = options.seed ^ number.wrapping_mul(0xD6E8_FEB8_6659_FD93);
    let mut stream = Stream::new(&options.targets, corpus, seed).with_pieces(&options.pieces);
    stream.replay()?;
    // The first streams take what does not divide.
    let count = options.execs / STREAMS + u64::from(number < options.execs % STREAMS);
    let mut left = count;
    while left > 0 && !is_over.load(Ordering::Relaxed) {
        let batch = left.min(BATCH);
        stream.run(batch)?;
        left -= batch;
    }
    Ok(stream)
}

fn report(streams: &[Stream], start: Instant) {
    let execs: u64 = streams.iter().map(Stream::execs).sum();
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "fuzz: {execs} inputs in {seconds:.1} s ({:.0} a second), no finding",
        execs as f64 / seconds
    );
    for (at, (name, _)) in streams
        .first()
        .map(Stream::seen)
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        let most = streams
            .iter()
            .map(|stream| stream.seen()[at].1)
            .max()
            .unwrap_or(0);
        println!("  {name:<14} {most:>6} kinds of outcome");
    }
    println!(
        "{} passed, 0 failed",
        streams.first().map_or(0, |stream| stream.seen().len())
    );
}

fn read_corpus(folder: &Path) -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .map_err(|error| format!("cannot read the corpus {}: {error}", folder.display()))?
        .map(|file| file.map(|file| file.path()))
        .collect::<Result<_, _>>()?;
    // The order that the file system gives is not the same everywhere, and the run depends on it.
    files.sort();
    files.iter().map(|file| Ok(std::fs::read(file)?)).collect()
}

/// Writes the smallest input of each thing seen, over all streams, where the corpus has none for it.
fn save(folder: &Path, targets: &[Target], streams: &[Stream]) -> Result<(), Box<dyn Error>> {
    let mut inputs: Vec<&[u8]> = streams.iter().flat_map(Stream::inputs).collect();
    inputs.retain(|input| input.len() <= MAX_SAVED_BYTES);
    inputs.sort_by_key(|input| (input.len(), *input));
    inputs.dedup();
    let mut seen = std::collections::HashSet::new();
    for known in read_corpus(folder)? {
        seen.extend(targets.iter().map(|(name, body)| (*name, body(&known))));
    }
    let mut written = 0;
    let mut left = vec![MAX_SAVED_PER_TARGET; targets.len()];
    for input in inputs {
        let mut is_new = false;
        for ((name, body), left) in targets.iter().zip(&mut left) {
            if *left > 0 && seen.insert((*name, body(input))) {
                *left -= 1;
                is_new = true;
            }
        }
        if is_new {
            std::fs::write(folder.join(file_name(input)), input)?;
            written += 1;
        }
    }
    println!("fuzz: {written} inputs written to the corpus");
    Ok(())
}

fn write_finding(folder: &Path, finding: &Finding) -> Result<PathBuf, Box<dyn Error>> {
    std::fs::create_dir_all(folder)?;
    let file = folder.join(format!("{}-{}", finding.target, file_name(&finding.input)));
    std::fs::write(&file, &finding.input)?;
    Ok(file)
}

/// A name from the content: 64-bit FNV-1a, as hexadecimal.
fn file_name(input: &[u8]) -> String {
    let hash = input.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

fn options(
    family: &Family,
    mut arguments: impl Iterator<Item = String>,
) -> Result<Options, Box<dyn Error>> {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let mut options = Options {
        execs: 1_000_000,
        seed: clock.as_nanos() as u64,
        targets: family.targets.clone(),
        pieces: family.pieces.clone(),
        save: false,
        replay: None,
        findings: family.folder.join("artifacts").join(family.name),
    };
    while let Some(argument) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .ok_or_else(|| format!("{argument} needs a value"))
        };
        match argument.as_str() {
            "--execs" => options.execs = value()?.parse()?,
            "--seed" => options.seed = value()?.parse()?,
            "--save" => options.save = true,
            "--findings" => options.findings = value()?.into(),
            "--replay" => options.replay = Some(value()?.into()),
            "--target" => {
                let name = value()?;
                options.targets.retain(|(target, _)| *target == name);
                if options.targets.is_empty() {
                    let names: Vec<_> = family.targets.iter().map(|(target, _)| *target).collect();
                    return Err(
                        format!("no target `{name}`: there are {}", names.join(", ")).into(),
                    );
                }
            }
            other => return Err(format!("unknown argument `{other}`").into()),
        }
    }
    Ok(options)
}
