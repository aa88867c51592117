//! Rules about the repository's own text: a README in each crate, no file too long to read, no path of
//! somebody's machine, no dead link, no unsafe code but in its place.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;
use crate::workspace::{Workspace, root};

/// The most lines a source file may have. 100 to 400 are the habit.
const MAX_LINES: usize = 700;

/// The only files that may lift the ban on unsafe code. Each says why at its top, and each use of it says
/// why it is sound.
const MAY_BE_UNSAFE: &[&str] = &["crates/hyperactor-bootstrap/src/startup.rs"];

/// Files that are not prose or code of ours.
const NOT_READ: &[&str] = &["Cargo.lock", "LICENSE-APACHE", "LICENSE-MIT"];

/// Folders that only exist on somebody's machine. Written in two halves, so that this file passes.
const MACHINE_FOLDERS: &[(&str, &str)] = &[
    ("/ho", "me/"),
    ("/ro", "ot/"),
    ("/Use", "rs/"),
    ("/wo", "rk/"),
    ("/wor", "kspace/"),
];

/// Every breach of these rules.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let mut breaches = Vec::new();
    for package in &workspace.packages {
        let folder = package.manifest_path.parent().unwrap_or(Path::new("."));
        let published = folder
            .parent()
            .is_some_and(|parent| parent.ends_with("crates"));
        if published && !folder.join("README.md").is_file() {
            breaches.push(format!("`{}` has no README.md", package.name));
        }
    }
    let root = root();
    let here = root.to_string_lossy().into_owned();
    for path in files(&root)? {
        let bytes = std::fs::read(root.join(&path))
            .with_context(|| format!("cannot read {}", path.display()))?;
        // What is not text holds no paths that a reader could follow.
        if let Ok(text) = String::from_utf8(bytes) {
            breaches.extend(file_breaches(&path, &text, &here));
            if path.extension().is_some_and(|ending| ending == "md") {
                let folder = root.join(path.parent().unwrap_or(Path::new("")));
                breaches.extend(dead_links(&path, &text, |target| {
                    folder.join(target).exists()
                }));
            }
        }
    }
    Ok(breaches)
}

/// The files of the repository: those that git knows or would add, and that are still there.
pub(crate) fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let listed = shell::capture(Command::new("git").current_dir(root).args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "-z",
    ]))?;
    Ok(listed
        .split('\0')
        .filter(|name| !name.is_empty() && !NOT_READ.contains(name))
        .map(PathBuf::from)
        .filter(|path| root.join(path).is_file())
        .collect())
}

fn file_breaches(path: &Path, text: &str, here: &str) -> Vec<String> {
    let mut breaches = Vec::new();
    let lines = text.lines().count();
    if path.extension().is_some_and(|ending| ending == "rs") && lines > MAX_LINES {
        breaches.push(format!(
            "{} has {lines} lines, more than {MAX_LINES}: split it by what its parts know",
            path.display()
        ));
    }
    for (index, line) in text.lines().enumerate() {
        let lifts = ["allow", "expect", "warn"].map(|level| format!("[{level}(unsafe_code"));
        if lifts.iter().any(|lift| line.contains(lift))
            && MAY_BE_UNSAFE
                .iter()
                .all(|allowed| path != Path::new(allowed))
        {
            breaches.push(format!(
                "{}:{} lifts the ban on unsafe code: a file that may is named in xtask/src/tidy.rs",
                path.display(),
                index + 1
            ));
        }
        if let Some(found) = machine_path(line, here) {
            breaches.push(format!(
                "{}:{} names a path of one machine: `{found}`",
                path.display(),
                index + 1
            ));
        }
    }
    breaches
}

/// The links of a page to files that are not there. Links to other sites are not followed.
fn dead_links(page: &Path, text: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let mut breaches = Vec::new();
    let mut in_code = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for after in line.split("](").skip(1) {
            let target = after.split([')', '#', ' ']).next().unwrap_or("");
            let elsewhere = target.is_empty() || target.contains("://") || target.contains("::");
            if !elsewhere && !exists(target) {
                let page = page.display();
                breaches.push(format!(
                    "{page}:{} links to `{target}`, which is not there",
                    index + 1
                ));
            }
        }
    }
    breaches
}

/// The first path in a line that only one machine has.
fn machine_path<'a>(line: &'a str, here: &str) -> Option<&'a str> {
    let folders = MACHINE_FOLDERS
        .iter()
        .map(|(first, second)| format!("{first}{second}"));
    folders
        .chain((here.len() > 1).then(|| here.to_owned()))
        .find_map(|needle| {
            line.match_indices(&needle)
                // `https://host/home/page` and `./work/file` are no paths from the root.
                .find(|(at, _)| {
                    !line[..*at].ends_with(|before: char| {
                        before.is_alphanumeric()
                            || matches!(before, '.' | '-' | '_' | '}' | '~' | '*')
                    })
                })
                .map(|(at, _)| {
                    let end = line[at..].find(|c: char| c.is_whitespace() || "`\"'),".contains(c));
                    &line[at..end.map_or(line.len(), |length| at + length)]
                })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, text: &str) -> Vec<String> {
        file_breaches(Path::new(name), text, "/srv/checkout")
    }

    #[test]
    fn a_path_of_a_machine_is_named_with_its_line() {
        let home = ["/ho", "me/ada/x.rs"].concat();
        assert_eq!(
            check("a.md", &format!("fine\nsee `{home}` there")),
            [format!("a.md:2 names a path of one machine: `{home}`")]
        );
        assert_eq!(check("a.md", "in /srv/checkout/target").len(), 1);
    }

    #[test]
    fn addresses_and_relative_paths_are_no_machine_paths() {
        let home = ["/ho", "me/page"].concat();
        let text = format!("https://example.org{home} ..{home} unix:/run/x /tmp/x");
        assert_eq!(check("a.md", &text), Vec::<String>::new());
    }

    #[test]
    fn a_dead_link_is_named_with_its_line() {
        let text = "[a](there.md#part) [b](gone.md)\n```text\n[c](code.md)\n```\n\
                    [d](https://example.org/x) [e](#here) [f](crate::Thing)";
        let found = dead_links(Path::new("docs/page.md"), text, |target| {
            target == "there.md"
        });
        assert_eq!(
            found,
            ["docs/page.md:1 links to `gone.md`, which is not there"]
        );
    }

    #[test]
    fn unsafe_code_stays_where_it_is_allowed() {
        let lift = ["#![allow(", "unsafe_code)]"].concat();
        assert_eq!(check(MAY_BE_UNSAFE[0], &lift), Vec::<String>::new());
        assert!(check("crates/other.rs", &lift)[0].contains("other.rs:1 lifts the ban"));
    }

    #[test]
    fn a_long_source_file_is_a_breach_and_a_long_page_is_not() {
        let long = "x\n".repeat(MAX_LINES + 1);
        assert_eq!(check("a.rs", &long).len(), 1);
        assert_eq!(check("a.md", &long), Vec::<String>::new());
        assert_eq!(
            check("a.rs", &"x\n".repeat(MAX_LINES)),
            Vec::<String>::new()
        );
    }
}
