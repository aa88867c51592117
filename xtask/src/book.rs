//! The book's pages are held to what they say: every test that a page names as the proof of a sentence exists.

use std::fs;
use std::path::Path;

/// The tests that a page links to, as (file, name), with the line.
fn proofs(page: &str) -> Vec<(usize, &str, &str)> {
    let mut found = Vec::new();
    for (number, line) in page.lines().enumerate() {
        for link in line.split("](../../").skip(1) {
            let Some((target, _)) = link.split_once(')') else {
                continue;
            };
            if let Some((file, name)) = target.split_once('#') {
                found.push((number + 1, file, name));
            }
        }
    }
    found
}

/// The sentences of a page that name no proof.
fn unshown(page: &str) -> Vec<usize> {
    let sentences = page.lines().enumerate();
    let bare = sentences.filter(|(_, line)| line.starts_with("* ") && !line.contains("[shown]("));
    bare.map(|(number, _)| number + 1).collect()
}

/// Whether a source file has a test, or a named trial, of this name.
fn has_test(source: &str, name: &str) -> bool {
    source.contains(&format!("fn {name}(")) || source.contains(&format!("\"{name}\""))
}

#[test]
fn every_sentence_of_the_semantics_is_shown_by_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("docs/book/semantics.md")).expect("the page is there");
    assert_eq!(
        unshown(&page),
        Vec::<usize>::new(),
        "sentences without a proof, by line"
    );
    let proofs = proofs(&page);
    assert!(
        proofs.len() > 100,
        "the page has only {} proofs",
        proofs.len()
    );
    let missing: Vec<String> = proofs
        .iter()
        .filter(|(_, file, name)| {
            let source = fs::read_to_string(root.join(file));
            !source.is_ok_and(|source| has_test(&source, name))
        })
        .map(|(line, file, name)| format!("line {line}: {file} has no test `{name}`"))
        .collect();
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn a_sentence_without_proof_and_a_proof_without_test_are_found() {
    let page = "# T\n* bare.\n* shown. [shown](../../a.rs#b) [shown](../../c.rs#d)\n";
    assert_eq!(unshown(page), [2]);
    assert_eq!(proofs(page), [(3, "a.rs", "b"), (3, "c.rs", "d")]);
    assert!(has_test("async fn b() {", "b") && has_test("trial(\"b\", x)", "b"));
    assert!(!has_test("fn bc()", "b"));
}
