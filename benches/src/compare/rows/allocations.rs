//! Allocations a message, counted by a program of its own, since its allocator counts: `compare-allocations`.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::compare::row::{Arm, Figures, Line, Metric, Row};
use crate::compare::rows::{Setting, beside};

/// The arms, as the counting program names them.
const ARMS: [&str; 5] = [
    "handle",
    "reference",
    "direct, one by one",
    "direct, in batches",
    "ask",
];

pub(crate) fn each(setting: &Setting) -> Result<Row> {
    let Some(program) = beside("compare-allocations")? else {
        bail!("no program `compare-allocations` beside this one");
    };
    let messages = if setting.is_quick { "1000" } else { "20000" };
    let output = Command::new(&program)
        .arg(messages)
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    ensure!(
        output.status.success(),
        "{} failed: {}",
        program.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    let counts: BTreeMap<String, f64> =
        serde_json::from_slice(&output.stdout).context("counts of allocations")?;
    let arms = ARMS.iter().map(|name| {
        let found = counts.get(*name).copied();
        let value = found.with_context(|| format!("no count of `{name}`"))?;
        Ok(Arm::new(name, (1, 1), move |_| Ok(Figures::value(value))))
    });
    // A count of many messages has the few allocations of tables that grow in it.
    const GROWTH: f64 = 0.02;
    let line = |what, arm, most: f64| Line::value(what, Metric::Count, arm).at_most(most + GROWTH);
    Ok(Row {
        arms: arms.collect::<Result<_>>()?,
        lines: vec![
            line("same proc, handle", "handle", 1.0),
            line("same proc, reference", "reference", 1.0),
            line("direct, whole way, one by one", "direct, one by one", 2.0),
            line("direct, whole way, in batches", "direct, in batches", 2.0),
            Line::value("same proc, ask and reply", Metric::Count, "ask"),
        ],
        placement: "one thread",
        is_counted: true,
    })
}
