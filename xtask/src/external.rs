//! Rules about crates that are not ours: what must not be in the lock file, how many there may be, and
//! what a layer must not know.

use std::collections::BTreeSet;

use anyhow::{Context, Result};

use crate::layers::is_ours;
use crate::workspace::{Kind, Package, Workspace, root};

/// Crates that must not appear in the lock file, and what to use instead.
const FORBIDDEN: &[(&str, &str)] = &[
    (
        "backoff",
        "unmaintained; the waits of this project are a few lines of its own",
    ),
    ("bincode", "unmaintained; postcard is the encoding here"),
    ("derivative", "unmaintained; write the implementation"),
    ("libp2p", "far too much for sockets and frames"),
    ("paste", "unmaintained; a macro here needs no joined names"),
    ("rustls-pemfile", "unmaintained; rustls-pki-types reads PEM"),
];

/// The most foreign packages that the lock file may hold, those of tests, benchmarks and other systems
/// included. Raising it is a decision: say in the commit what the new ones are worth.
const BUDGET: usize = 156;

/// Programs may answer with any error; libraries have typed ones.
const MAY_USE_ANYHOW: &[&str] = &["hyperactor-cli", "hyperactor-benches", "xtask"];

/// Crates that a layer's own code must not use, since its purity is its point.
const ABSENT: &[(&str, &[&str], &str)] = &[
    (
        "hyperactor-refs",
        &["tokio", "rustix", "socket2", "getrandom", "tracing"],
        "ids are values: no I/O, no randomness",
    ),
    (
        "hyperactor-protocol",
        &[
            "tokio",
            "rustix",
            "socket2",
            "getrandom",
            "parking_lot",
            "tracing",
        ],
        "the session has no I/O, no clock, no runtime, no randomness",
    ),
    (
        "hyperactor-mailbox",
        &["rustix", "socket2"],
        "mailboxes work without any network",
    ),
    (
        "hyperactor-proc",
        &["rustix", "socket2"],
        "a proc has no transport",
    ),
];

/// The features of tokio that a layer may ask for, where that is its border.
const TOKIO_FEATURES: &[(&str, &[&str])] = &[
    ("hyperactor-mailbox", &["sync"]),
    // `block_in_place` is only there with `rt-multi-thread`.
    (
        "hyperactor-proc",
        &["macros", "rt", "rt-multi-thread", "sync", "time"],
    ),
    ("hyperactor-host", &["macros", "rt", "sync", "time"]),
    ("hyperactor-router", &["macros", "rt", "sync", "time"]),
];

/// Every breach of these rules.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let path = root().join("Cargo.lock");
    let lock = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let mut breaches = lock_breaches(&lock);
    for package in &workspace.packages {
        breaches.extend(package_breaches(package));
    }
    Ok(breaches)
}

fn lock_breaches(lock: &str) -> Vec<String> {
    let locked = locked(lock);
    let mut breaches: Vec<String> = FORBIDDEN
        .iter()
        .filter(|(name, _)| locked.contains(&(*name).to_owned()))
        .map(|(name, instead)| {
            format!("`{name}` is in Cargo.lock: {instead} (`cargo tree -i {name}` shows who asks for it)")
        })
        .collect();
    let foreign = locked.iter().filter(|name| !is_ours(name)).count();
    if foreign > BUDGET {
        breaches.push(format!(
            "Cargo.lock holds {foreign} foreign packages, the budget is {BUDGET} (xtask/src/external.rs)"
        ));
    }
    breaches
}

/// The names in a lock file; a package that is there in two versions counts twice.
fn locked(lock: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut in_package = false;
    for line in lock.lines() {
        if line.starts_with('[') {
            in_package = line == "[[package]]";
        } else if in_package && let Some(name) = line.strip_prefix("name = ") {
            names.push(name.trim_matches('"').to_owned());
        }
    }
    names
}

fn package_breaches(package: &Package) -> Vec<String> {
    let own: BTreeSet<&str> = package
        .dependencies
        .iter()
        .filter(|edge| edge.kind != Kind::Dev)
        .map(|edge| edge.name.as_str())
        .collect();
    let name = package.name.as_str();
    let mut breaches = Vec::new();
    if own.contains("anyhow") && !MAY_USE_ANYHOW.contains(&name) {
        breaches.push(format!("{name} → anyhow: libraries have typed errors"));
    }
    for (layer, absent, because) in ABSENT.iter().filter(|(layer, _, _)| *layer == name) {
        for foreign in absent.iter().filter(|foreign| own.contains(**foreign)) {
            breaches.push(format!("{layer} → {foreign}: {because}"));
        }
    }
    for (layer, allowed) in TOKIO_FEATURES.iter().filter(|(layer, _)| *layer == name) {
        let asked = package
            .dependencies
            .iter()
            .filter(|edge| edge.kind != Kind::Dev && edge.name == "tokio")
            .flat_map(|edge| &edge.features);
        for feature in asked.filter(|feature| !allowed.contains(&feature.as_str())) {
            breaches.push(format!(
                "{layer} → tokio/{feature}: this layer may only ask for {}",
                allowed.join(", ")
            ));
        }
    }
    breaches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependencies: &str) -> Package {
        let text = format!(
            r#"{{"packages":[{{"name":"{name}","manifest_path":"","targets":[],"dependencies":[{dependencies}]}}]}}"#
        );
        Workspace::parse(&text).unwrap().packages.remove(0)
    }

    #[test]
    fn a_forbidden_crate_is_found_with_its_remedy() {
        let lock = "[[package]]\nname = \"bincode\"\nversion = \"1.0.0\"\n\n[[package]]\nname = \"serde\"\n";
        let breaches = lock_breaches(lock);
        assert_eq!(breaches.len(), 1);
        assert!(breaches[0].contains("postcard") && breaches[0].contains("cargo tree -i bincode"));
    }

    #[test]
    fn a_name_within_another_is_not_found() {
        let lock = "[[package]]\nname = \"pastey\"\ndependencies = [\n \"paste\",\n]\n";
        assert_eq!(lock_breaches(lock), Vec::<String>::new());
    }

    #[test]
    fn the_budget_counts_foreign_packages_only() {
        let many = (0..=BUDGET).fold(String::new(), |text, index| {
            text + &format!("[[package]]\nname = \"foreign{index}\"\n\n")
        });
        assert!(lock_breaches(&many)[0].contains("budget"));
        let ours = many.replace("foreign", "hyperactor-");
        assert_eq!(lock_breaches(&ours), Vec::<String>::new());
    }

    #[test]
    fn anyhow_is_for_programs() {
        let edge = r#"{"name":"anyhow","kind":null}"#;
        assert_eq!(package_breaches(&package("hyperactor-host", edge)).len(), 1);
        assert_eq!(
            package_breaches(&package("hyperactor-cli", edge)),
            Vec::<String>::new()
        );
        let dev = r#"{"name":"anyhow","kind":"dev"}"#;
        assert_eq!(
            package_breaches(&package("hyperactor-host", dev)),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_pure_layer_stays_pure() {
        let tokio = r#"{"name":"tokio","kind":null,"features":["sync"]}"#;
        assert!(package_breaches(&package("hyperactor-protocol", tokio))[0].contains("no clock"));
        assert_eq!(
            package_breaches(&package("hyperactor-mailbox", tokio)),
            Vec::<String>::new()
        );
        let net = r#"{"name":"tokio","kind":null,"features":["sync","net"]}"#;
        assert!(package_breaches(&package("hyperactor-mailbox", net))[0].contains("tokio/net"));
    }
}
