//! The clauses of `docs/spec`, and where code and tests cite them. A clause that no code cites was never
//! built; one that no test cites was never shown; a citation of a clause that is not there misleads.
//!
//! Whether a test shows what its clause says is for people to judge. What has no number is not looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::layers::{LAYERS, Role};
use crate::tidy;
use crate::workspace::root;

/// Where the clauses stand.
const PAGES: &str = "docs/spec";

/// The digits of a clause's number.
const DIGITS: usize = 2;

/// A clause by its letter and number: `S-07`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Clause(char, String);

impl fmt::Display for Clause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

/// A place in a file of the repository.
type Place = (PathBuf, usize);

/// Who cites a clause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Citer {
    Code,
    Test,
    /// Prose: it proves nothing, but must not mislead.
    Prose,
}

/// What was found in the repository.
#[derive(Debug, Default)]
struct Findings {
    clauses: BTreeMap<Clause, Place>,
    in_code: BTreeSet<Clause>,
    in_tests: BTreeSet<Clause>,
    citations: Vec<(Clause, Place)>,
    breaches: Vec<String>,
}

/// Prints every clause and citation that has no counterpart; prints nothing when there is none.
pub(crate) fn run() -> Result<()> {
    let root = root();
    let mut texts = Vec::new();
    for path in tidy::files(&root)? {
        let ending = path.extension().and_then(|ending| ending.to_str());
        if matches!(ending, Some("rs" | "md")) && !path.starts_with("xtask") {
            let text = std::fs::read_to_string(root.join(&path))
                .with_context(|| format!("cannot read {}", path.display()))?;
            texts.push((path, text));
        }
    }
    let breaches = breaches(&texts);
    for breach in &breaches {
        println!("{breach}");
    }
    if !breaches.is_empty() {
        bail!("{} clauses or citations stand alone", breaches.len());
    }
    Ok(())
}

fn breaches(texts: &[(PathBuf, String)]) -> Vec<String> {
    let mut found = Findings::default();
    for (path, text) in texts.iter().filter(|(path, _)| path.starts_with(PAGES)) {
        found.read_page(path, text);
    }
    if found.clauses.is_empty() {
        return vec![format!("{PAGES} has no clauses")];
    }
    for (path, text) in texts {
        found.read_citations(path, text);
    }
    found.judge()
}

impl Findings {
    /// Takes the clauses of a page: items of a list that begin with their number.
    fn read_page(&mut self, path: &Path, text: &str) {
        for (line, text) in (1..).zip(text.lines()) {
            let Some(item) = text.strip_prefix("* ") else {
                continue;
            };
            let Some((clause, rest)) = take_clause(item) else {
                continue;
            };
            if !rest.starts_with(['.', ':']) {
                continue;
            }
            let place = (path.to_owned(), line);
            if let Some((before, first)) = self.clauses.get(&clause) {
                let (before, here) = (before.display(), path.display());
                self.breaches.push(format!(
                    "{here}:{line}: {clause} stands at {before}:{first} already"
                ));
            } else {
                self.clauses.insert(clause, place);
            }
        }
    }

    fn read_citations(&mut self, path: &Path, text: &str) {
        let letters: BTreeSet<char> = self.clauses.keys().map(|clause| clause.0).collect();
        let whole = citer(path);
        let mut in_tests = false;
        for (line, text) in (1..).zip(text.lines()) {
            // By habit a module of tests stands last in its file.
            in_tests |= text.trim_start().starts_with("#[cfg(test)]");
            for clause in citations(text).filter(|clause| letters.contains(&clause.0)) {
                match whole {
                    Citer::Code if in_tests => self.in_tests.insert(clause.clone()),
                    Citer::Code => self.in_code.insert(clause.clone()),
                    Citer::Test => self.in_tests.insert(clause.clone()),
                    Citer::Prose => false,
                };
                self.citations.push((clause, (path.to_owned(), line)));
            }
        }
    }

    fn judge(mut self) -> Vec<String> {
        for (clause, (path, line)) in &self.clauses {
            let path = path.display();
            for (who, cited) in [("code", &self.in_code), ("test", &self.in_tests)] {
                if !cited.contains(clause) {
                    let text = format!("{path}:{line}: {clause} is cited by no {who}");
                    self.breaches.push(text);
                }
            }
        }
        for (clause, (path, line)) in &self.citations {
            if !self.clauses.contains_key(clause) {
                let path = path.display();
                let text = format!("{path}:{line}: {clause} is no clause of {PAGES}");
                self.breaches.push(text);
            }
        }
        self.breaches
    }
}

/// What a file is, by its place: members that only tests use, folders of tests and of programs that test are tests.
fn citer(path: &Path) -> Citer {
    if path.extension().is_some_and(|ending| ending == "md") {
        return Citer::Prose;
    }
    let mut parts = path.iter().filter_map(|part| part.to_str());
    let member = match parts.next() {
        Some("crates") => parts.next().unwrap_or_default(),
        _ => return Citer::Test,
    };
    let is_for_tests = LAYERS
        .iter()
        .any(|layer| layer.name == member && layer.role == Role::TestOnly);
    let is_source = parts.next() == Some("src");
    let is_file_of_tests = path.file_stem().is_some_and(|name| name == "tests");
    if is_for_tests || !is_source || is_file_of_tests {
        Citer::Test
    } else {
        Citer::Code
    }
}

/// The clause that a text begins with, and what follows it.
fn take_clause(text: &str) -> Option<(Clause, &str)> {
    let mut chars = text.chars();
    let letter = chars.next().filter(char::is_ascii_uppercase)?;
    let rest = chars.as_str().strip_prefix('-')?;
    let number = rest.get(..DIGITS)?;
    let after = &rest[DIGITS..];
    let ends = !after.starts_with(|next: char| next.is_alphanumeric());
    let is_clause = ends && number.bytes().all(|digit| digit.is_ascii_digit());
    is_clause.then(|| (Clause(letter, number.to_owned()), after))
}

/// Everything in a line that has the shape of a clause and stands as a word of its own.
fn citations(line: &str) -> impl Iterator<Item = Clause> {
    line.match_indices('-').filter_map(|(dash, _)| {
        let start = dash
            .checked_sub(1)
            .filter(|start| line.is_char_boundary(*start))?;
        let before = line[..start].chars().next_back();
        if before.is_some_and(|before| before.is_alphanumeric() || before == '-') {
            return None;
        }
        take_clause(&line[start..]).map(|(clause, _)| clause)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(texts: &[(&str, &str)]) -> Vec<String> {
        let texts: Vec<_> = texts
            .iter()
            .map(|(path, text)| (PathBuf::from(path), (*text).to_owned()))
            .collect();
        breaches(&texts)
    }

    const PAGE: (&str, &str) = (
        "docs/spec/a.md",
        "# A\n\n* S-01. One.\n* S-02. Two, see S-01.\n",
    );
    const CODE: &str = "crates/hyperactor-protocol/src/a.rs";

    #[test]
    fn what_code_and_tests_both_cite_is_not_mentioned() {
        let code = "// S-01: so.\n//! S-02.\n#[cfg(test)]\nmod tests {\n    // S-01\n}\n";
        let test = (
            "crates/hyperactor-protocol/tests/b.rs",
            "/// S-02.\nfn t() {}\n",
        );
        assert_eq!(check(&[PAGE, (CODE, code), test]), [""; 0]);
    }

    #[test]
    fn a_clause_without_code_or_without_test_is_named_with_its_place() {
        let code = "// S-01 and S-02\n";
        let test = ("crates/hyperactor-sim/src/b.rs", "// S-01\n");
        assert_eq!(
            check(&[PAGE, (CODE, code), test]),
            ["docs/spec/a.md:4: S-02 is cited by no test"]
        );
        assert_eq!(check(&[PAGE]).len(), 4);
    }

    #[test]
    fn a_citation_of_nothing_is_named_wherever_it_stands() {
        let all = "// S-01, S-02\n#[cfg(test)]\n// S-01 S-02\n";
        let wrong = (
            "crates/hyperactor-channel/README.md",
            "By S-03.\n\nAnd S-01.\n",
        );
        assert_eq!(
            check(&[PAGE, (CODE, all), wrong]),
            ["crates/hyperactor-channel/README.md:1: S-03 is no clause of docs/spec"]
        );
    }

    #[test]
    fn a_number_given_twice_is_named() {
        let twice = ("docs/spec/b.md", "* S-01. Again.\n");
        let all = "// S-01, S-02\n#[cfg(test)]\n// S-01 S-02\n";
        assert_eq!(
            check(&[PAGE, twice, (CODE, all)]),
            ["docs/spec/b.md:1: S-01 stands at docs/spec/a.md:3 already"]
        );
    }

    #[test]
    fn only_words_of_this_shape_are_citations() {
        let found = |line: &str| {
            citations(line)
                .map(|each| each.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            found("S-01: (W-02) `S-03`, S-04/S-05."),
            ["S-01", "W-02", "S-03", "S-04", "S-05"]
        );
        assert_eq!(found("SS-01 S-1 S-001 s-01 S-01a X-S-01 é-01"), [""; 0]);
    }

    #[test]
    fn pages_without_clauses_are_a_breach() {
        assert_eq!(check(&[("docs/spec/a.md", "nothing\n")]).len(), 1);
    }
}
