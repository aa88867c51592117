//! The simulator itself: repeatable, not vacuous, brief when something fails.

use hyperactor_sim::ledger::{Flaw, FlawKind};
use hyperactor_sim::{Batch, Scenario, judge, shrink};

#[test]
fn the_first_seeds_are_clean_and_the_same_when_run_again() {
    let mut batch = Batch::default();
    for seed in 0..200 {
        batch.add(seed, seed % 10 == 0);
    }
    assert_eq!(batch.failed, []);
    assert_eq!((batch.passed, batch.twice), (200, 20));
    assert!(batch.seen.resumed > 0 && batch.seen.fenced > 0 && batch.seen.session_lost > 0);
}

#[test]
fn a_run_that_sees_too_little_says_so() {
    let mut batch = Batch {
        passed: 10_000,
        ..Batch::default()
    };
    let missing = batch.unseen();
    assert!(
        missing
            .iter()
            .any(|(text, _, _)| *text == "older connection fenced")
    );
    batch.passed = 10;
    assert_eq!(
        batch.unseen(),
        [],
        "ten seeds prove nothing and claim nothing"
    );
}

#[test]
fn the_log_has_fixed_columns_and_is_the_same_for_the_same_seed() {
    let scenario = Scenario::draw(3);
    let (one, other) = (judge(&scenario, true), judge(&scenario, true));
    let text = one.text.expect("kept");
    assert_eq!(Some(&text), other.text.as_ref());
    assert_eq!(one.hash, other.hash);
    let widths: Vec<usize> = text.lines().map(str::len).collect();
    assert!(widths.len() > 100 && widths.iter().all(|width| *width == widths[0]));
}

#[test]
fn other_seeds_take_other_courses() {
    let hashes: std::collections::BTreeSet<u64> = (0..50)
        .map(|seed| judge(&Scenario::draw(seed), false).hash)
        .collect();
    assert_eq!(hashes.len(), 50);
}

/// Seeds of earlier versions of the simulator that showed real faults; what they drew was written down as tests of the
/// protocol. Here the shape of a report is held: whatever is left of a script, people read 20 lines.
#[test]
fn a_report_is_brief_even_when_nothing_can_be_left_out() {
    let scenario = (0..)
        .map(Scenario::draw)
        .find(|scenario| scenario.faults.len() > 50)
        .expect("seeds with many faults are common");
    let flaw = Flaw {
        kind: FlawKind::Lost,
        detail: "nothing shows this one".into(),
    };
    let shrunk = shrink(&scenario, &flaw);
    assert_eq!(shrunk.scenario.faults.len(), scenario.faults.len());
    let report = shrunk.report();
    assert!(report.lines().count() <= 20, "{report}");
    assert!(
        report.contains("more\n") && report.starts_with("seed "),
        "{report}"
    );
}
