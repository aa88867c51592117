//! Flame graphs: a command is sampled by `perf`, and what it saw becomes a picture of stacks, as wide as they were frequent.
//! The picture is an SVG without a script: a frame's full name and share appear under the pointer.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell;

/// Samples a second and process: no divisor of what clocks in programs do.
const FREQUENCY: &str = "499";
/// Bytes of the stack that are kept for each sample: its frames are found by the debug information. The most that perf takes,
/// since the frames of futures that poll futures are large, and a stack that is cut off has no beginning.
const STACK: &str = "dwarf,32768";
/// Frames of fewer samples than one in so many are left out.
const SHARE_MIN: u64 = 400;

const WIDTH: f64 = 1200.0;
const ROW: f64 = 17.0;
const MARGIN: f64 = 10.0;
/// Room above the frames: the title, and what the colours mean.
const HEAD: f64 = 52.0;
/// The width of a letter, on the average.
const LETTER: f64 = 6.3;

/// What a frame's name begins with, and its colour; the first that fits.
const COLOURS: &[(&str, &str, &[&str])] = &[
    (
        "allocator",
        "#e4705c",
        &[
            "malloc",
            "_int_",
            "cfree",
            "free",
            "realloc",
            "calloc",
            "__rust",
            "__libc_",
            "unlink_chunk",
            "tcache",
        ],
    ),
    (
        "encoding",
        "#8cc665",
        &["postcard", "serde", "hyperactor_mailbox::encoding"],
    ),
    ("hyperactor", "#f2b04f", &["hyperactor", "compare"]),
    ("tokio", "#79a9d9", &["tokio", "mio"]),
    ("the rest", "#cfc6b4", &[""]),
];

/// Runs a command under `perf`, its children too, and draws where their own code spent its time.
pub(crate) fn record(command: &Command, folder: &Path, title: &str, svg: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let data = folder.join("perf.data");
    // Without it the processes have the program at different addresses, and perf finds the frames of one of them only.
    let mut record = Command::new("setarch");
    record.args(["--addr-no-randomize", "perf"]);
    record.args([
        "record", "--quiet", "--event", "cycles:u", "--freq", FREQUENCY,
    ]);
    record
        .args(["--call-graph", STACK])
        .arg("--output")
        .arg(&data);
    record
        .arg("--")
        .arg(command.get_program())
        .args(command.get_args());
    shell::run(&mut record)?;
    let mut script = Command::new("perf");
    script.args([
        "script",
        "--no-inline",
        "--fields",
        "comm,ip,sym",
        "--input",
    ]);
    let stacks = fold(&shell::capture(script.arg(&data))?);
    let samples: u64 = stacks.values().sum();
    if samples == 0 {
        bail!("perf saw nothing");
    }
    let picture = draw(&stacks, title);
    std::fs::write(svg, picture).with_context(|| format!("cannot write {}", svg.display()))?;
    println!("{}: {samples} samples", svg.display());
    Ok(())
}

/// Stacks, outermost frame first, and how often each was seen.
type Stacks = BTreeMap<Vec<String>, u64>;

/// Reads what `perf script` prints: for each sample a line that is not indented, then its frames, the innermost first, then an
/// empty line.
fn fold(text: &str) -> Stacks {
    let mut stacks = Stacks::new();
    let mut frames = Vec::new();
    for line in text.lines().chain([""]) {
        if line.trim().is_empty() {
            if !frames.is_empty() {
                frames.reverse();
                *stacks.entry(std::mem::take(&mut frames)).or_default() += 1;
            }
        } else if line.starts_with(char::is_whitespace)
            && let Some((_, symbol)) = line.trim().split_once(' ')
            && let Some(name) = name(symbol)
        {
            frames.push(name);
        }
    }
    stacks
}

/// A frame's name as a reader wants it: without the hash of the compiler's, without what only says that it is a future or a
/// closure, and without types in angle brackets. Code without a name says nothing.
fn name(symbol: &str) -> Option<String> {
    let symbol = symbol.split("+0x").next().unwrap_or(symbol).trim();
    if symbol.is_empty() || symbol == "[unknown]" {
        return None;
    }
    let bare = match symbol.rsplit_once("::h") {
        Some((bare, hash))
            if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) =>
        {
            bare
        }
        _ => symbol,
    };
    let bare = bare
        .replace("::{{closure}}", "")
        .replace("{{closure}}", "closure");
    Some(without_parameters(&bare))
}

/// `<a::B as c::D<E>>::f::<G>` as `a::B::f`; what implements is kept, for what and with what is not.
fn without_parameters(name: &str) -> String {
    let mut text = String::new();
    let mut rest = name;
    if let Some(inner) = name.strip_prefix('<') {
        let end = closing(inner);
        let of = inner[..end].split(" as ").next().unwrap_or_default();
        text.push_str(&without_parameters(of.trim_start_matches('&')));
        rest = inner.get(end + 1..).unwrap_or_default();
    }
    let mut depth = 0_usize;
    let mut before = ' ';
    for letter in rest.chars() {
        match letter {
            '<' => depth += 1,
            '>' if before != '-' => depth = depth.saturating_sub(1),
            _ if depth == 0 => text.push(letter),
            _ => {}
        }
        before = letter;
    }
    text.replace("::::", "::").trim_end_matches("::").to_owned()
}

/// Where the bracket that was opened before this text is closed.
fn closing(text: &str) -> usize {
    let mut depth = 1;
    let mut before = ' ';
    for (at, letter) in text.char_indices() {
        match letter {
            '<' => depth += 1,
            '>' if before != '-' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
        before = letter;
    }
    text.len()
}

/// A frame and those that it called.
#[derive(Default)]
struct Frame {
    samples: u64,
    called: BTreeMap<String, Frame>,
}

impl Frame {
    fn of(stacks: &Stacks) -> Self {
        let mut root = Self::default();
        for (stack, samples) in stacks {
            root.samples += samples;
            let mut frame = &mut root;
            let mut last = None;
            for name in stack {
                // A future that polls the next of its kind, a closure in its function: one frame.
                if last == Some(name) {
                    continue;
                }
                frame = frame.called.entry(name.clone()).or_default();
                frame.samples += samples;
                last = Some(name);
            }
        }
        root
    }

    fn depth(&self, least: u64) -> usize {
        let called = self.called.values().filter(|frame| frame.samples >= least);
        1 + called.map(|frame| frame.depth(least)).max().unwrap_or(0)
    }
}

fn draw(stacks: &Stacks, title: &str) -> String {
    let root = Frame::of(stacks);
    let least = (root.samples / SHARE_MIN).max(1);
    let height = HEAD + root.depth(least) as f64 * ROW + MARGIN;
    let mut svg = String::new();
    let mut put = |text: String| svg.push_str(&(text + "\n"));
    put(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"monospace\" font-size=\"10.5\">"
    ));
    put(format!(
        "<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n<text x=\"{MARGIN}\" y=\"20\" font-size=\"14\">{}</text>",
        escaped(title)
    ));
    let mut x = MARGIN;
    for (kind, colour, _) in COLOURS {
        put(format!(
            "<rect x=\"{x}\" y=\"30\" width=\"11\" height=\"11\" fill=\"{colour}\"/><text x=\"{}\" y=\"39\">{kind}</text>",
            x + 15.0
        ));
        x += 35.0 + kind.len() as f64 * LETTER;
    }
    let scale = (WIDTH - 2.0 * MARGIN) / root.samples as f64;
    let whole = root.samples;
    let mut lay = vec![("all", &root, MARGIN, height - MARGIN - ROW)];
    while let Some((name, frame, x, y)) = lay.pop() {
        put(rect(name, frame.samples, whole, x, y, scale));
        let mut next = x;
        for (name, called) in &frame.called {
            if called.samples >= least {
                lay.push((name, called, next, y - ROW));
                next += called.samples as f64 * scale;
            }
        }
    }
    svg + "</svg>\n"
}

fn rect(name: &str, samples: u64, whole: u64, x: f64, y: f64, scale: f64) -> String {
    let width = samples as f64 * scale;
    let colour = COLOURS
        .iter()
        .find(|(_, _, begins)| begins.iter().any(|begin| name.starts_with(begin)))
        .map_or("#ccc", |(_, colour, _)| colour);
    let share = samples as f64 * 100.0 / whole as f64;
    let room = ((width - 4.0) / LETTER).max(0.0) as usize;
    let label = label(name, room);
    let mut text = format!(
        "<g><title>{} {share:.1} %</title><rect x=\"{x:.1}\" y=\"{y:.0}\" width=\"{width:.1}\" height=\"{:.0}\" fill=\"{colour}\" stroke=\"#fff\" stroke-width=\"0.5\"/>",
        escaped(name),
        ROW - 1.0,
    );
    if !label.is_empty() {
        // Writing to a string does not fail.
        let _infallible = write!(
            text,
            "<text x=\"{:.1}\" y=\"{:.0}\">{}</text>",
            x + 2.0,
            y + 12.0,
            escaped(&label)
        );
    }
    text + "</g>"
}

/// As much of a name as there is room for: its end, which tells more than the crate it begins with.
fn label(name: &str, room: usize) -> String {
    if name.chars().count() <= room {
        return name.to_owned();
    }
    let mut parts: Vec<&str> = name.split("::").collect();
    while parts.len() > 1 {
        parts.remove(0);
        let short = parts.join("::");
        if short.chars().count() <= room {
            return short;
        }
    }
    if room < 4 {
        return String::new();
    }
    let last = parts.last().copied().unwrap_or_default();
    last.chars().take(room - 1).chain(['…']).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "\
compare
\t    55d0 postcard::ser::to_slice::h0123456789abcdef
\t    55d1 hyperactor_proc::near::post::<demo::Small>::{{closure}}
\t    55d2 hyperactor_proc::near::post
\t    7f00 [unknown]

compare
\t    55d2 hyperactor_proc::near::post

tokio-rt-worker
\t    7f00 [unknown]
";

    #[test]
    fn samples_are_folded_outermost_first_and_counted() {
        let stacks = fold(SCRIPT);
        let post = "hyperactor_proc::near::post".to_owned();
        let deep = vec![
            post.clone(),
            post.clone(),
            "postcard::ser::to_slice".to_owned(),
        ];
        assert_eq!(stacks, Stacks::from([(deep, 1), (vec![post.clone()], 1)]));
        let root = Frame::of(&stacks);
        assert_eq!((root.samples, root.called[&post].samples), (2, 2));
        assert_eq!(root.depth(1), 3);
        assert_eq!(root.depth(2), 2);
    }

    #[test]
    fn names_lose_what_tells_a_reader_nothing() {
        for (symbol, name_of_it) in [
            ("<a::B<C> as d::E<F>>::g::h0011223344556677", "a::B::g"),
            ("<&a::B as d::E>::g", "a::B::g"),
            (
                "core::ptr::drop_in_place::<a::B<C, D>>",
                "core::ptr::drop_in_place",
            ),
            ("a::b::{{closure}}::{{closure}}", "a::b"),
            (
                "<fn(A) -> B as core::ops::FnOnce<(A,)>>::call_once",
                "fn(A) -> B::call_once",
            ),
            ("malloc+0x1f", "malloc"),
        ] {
            assert_eq!(name(symbol).as_deref(), Some(name_of_it), "{symbol}");
        }
        assert_eq!(name("[unknown]"), None);
    }

    #[test]
    fn a_label_keeps_the_end_of_a_name_within_its_room() {
        assert_eq!(label("a::b::run", 20), "a::b::run");
        assert_eq!(label("hyperactor_proc::near::post", 12), "near::post");
        assert_eq!(label("a::a_long_function", 8), "a_long_…");
        assert_eq!(label("a::a_long_function", 2), "");
    }

    #[test]
    fn the_picture_holds_every_frame_that_is_wide_enough() {
        let mut stacks = fold(SCRIPT);
        stacks.insert(vec!["rare<T>".to_owned()], 1);
        stacks.insert(vec!["often".to_owned()], 2 * SHARE_MIN);
        let svg = draw(&stacks, "one & two");
        assert!(
            svg.starts_with("<svg") && svg.ends_with("</svg>\n"),
            "{svg}"
        );
        assert!(svg.contains("one &amp; two"), "{svg}");
        assert!(svg.contains("often 99."), "{svg}");
        assert!(!svg.contains("rare"), "{svg}");
    }
}
