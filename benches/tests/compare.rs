//! The comparison runs: every row, as little as shows that it works. What it finds is not looked at, since a program that is
//! not optimised, on a machine that runs other tests, finds nothing.

use std::process::Command;

use hyperactor_benches::compare::{Report, Verdict};

fn compare(arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_compare"))
        .args(arguments)
        .output()
        .expect("the program starts")
}

#[test]
fn every_row_runs_and_a_quick_run_proves_nothing() {
    // Built with this one, so that the row of allocations finds it.
    assert!(std::path::Path::new(env!("CARGO_BIN_EXE_compare-allocations")).is_file());
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("report.json");
    let output = compare(&["--quick", "--json", file.to_str().expect("a path of text")]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let text = std::fs::read_to_string(&file).expect("a report");
    let report: Report = serde_json::from_str(&text).expect("a report that reads back");
    let rows: Vec<&str> = report.rows.iter().map(|row| row.id.as_str()).collect();
    let expected = [
        "a1",
        "a2",
        "a3",
        "ask",
        "b1",
        "b2",
        "b3",
        "b4",
        "b5",
        "b7",
        "c1",
        "c2",
        "d1",
        "s1",
        "memory",
        "allocations",
    ];
    assert_eq!(rows, expected, "{said}");
    for row in &report.rows {
        for line in &row.lines {
            let verdict = line.verdict.unwrap_or(Verdict::Inconclusive);
            assert_eq!(verdict, Verdict::Inconclusive, "{}: {}", row.id, line.what);
            assert!(
                line.missing.is_some() || !line.values.is_empty(),
                "{}: {} measured nothing",
                row.id,
                line.what
            );
        }
    }
}

#[test]
fn an_unknown_row_is_refused_before_anything_is_measured() {
    let output = compare(&["z9"]);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no row `z9`"), "{said}");
}
