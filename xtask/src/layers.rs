//! The layers: which crate may use which, as data, and the check that reads them back from cargo.
//!
//! A new edge edits [`LAYERS`] and `docs/architecture.md` in the same commit. What concerns crates that
//! are not ours is in `external.rs`; the text of the repository is `tidy.rs`.

use std::path::Path;

use anyhow::{Result, bail};

use crate::workspace::{Kind, Package, Workspace};
use crate::{external, tidy};

/// One member of the workspace and what it may know.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) name: &'static str,
    /// Members that its normal and build dependencies may name.
    pub(crate) uses: &'static [&'static str],
    /// Members that its tests may name beyond `uses`.
    pub(crate) tests_use: &'static [&'static str],
    pub(crate) role: Role,
    /// Why the border stands where it does: printed with a breach.
    pub(crate) because: &'static str,
}

/// Who may use a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Users depend on it.
    Library,
    /// Only tests depend on it.
    TestOnly,
    /// Nobody depends on it.
    Program,
}

const TESTKIT: &str = "hyperactor-testkit";

const EVERYTHING: &[&str] = &[
    "hyperactor",
    "hyperactor-bootstrap",
    "hyperactor-channel",
    "hyperactor-decode",
    "hyperactor-host",
    "hyperactor-macros",
    "hyperactor-mailbox",
    "hyperactor-proc",
    "hyperactor-protocol",
    "hyperactor-refs",
    "hyperactor-router",
    TESTKIT,
];

/// The whole map, lowest layer first.
pub(crate) const LAYERS: &[Layer] = &[
    Layer {
        name: "hyperactor-refs",
        uses: &[],
        tests_use: &[TESTKIT],
        role: Role::Library,
        because: "ids and addresses are values: whoever names an actor needs nothing else of ours",
    },
    Layer {
        name: "hyperactor-decode",
        uses: &[],
        tests_use: &[],
        role: Role::Library,
        because: "bytes of strangers are read in one way, whether they came in an envelope or not",
    },
    Layer {
        name: "hyperactor-protocol",
        uses: &["hyperactor-refs"],
        tests_use: &[TESTKIT],
        role: Role::Library,
        because: "the session is a state machine without I/O, clock or runtime",
    },
    Layer {
        name: "hyperactor-channel",
        uses: &[
            "hyperactor-decode",
            "hyperactor-protocol",
            "hyperactor-refs",
        ],
        tests_use: &[TESTKIT],
        role: Role::Library,
        because: "channels carry anything and know nothing of actors",
    },
    Layer {
        name: "hyperactor-mailbox",
        uses: &["hyperactor-decode", "hyperactor-refs"],
        tests_use: &["hyperactor-macros", TESTKIT],
        role: Role::Library,
        because: "envelopes and mailboxes work without any network",
    },
    Layer {
        name: "hyperactor-router",
        uses: &[
            "hyperactor-channel",
            "hyperactor-mailbox",
            "hyperactor-refs",
        ],
        tests_use: &["hyperactor-macros", TESTKIT],
        role: Role::Library,
        because: "the router joins envelopes and channels and knows nothing of actors' lives",
    },
    Layer {
        name: "hyperactor-macros",
        uses: &[],
        tests_use: &["hyperactor-mailbox", "hyperactor-proc", "hyperactor-refs"],
        role: Role::Library,
        because: "the derives only write code; what they name is found in the user's crate",
    },
    Layer {
        name: "hyperactor-proc",
        uses: &["hyperactor-macros", "hyperactor-mailbox", "hyperactor-refs"],
        tests_use: &[TESTKIT],
        role: Role::Library,
        because: "a proc hands what is not its own to its forwarder and has no transport",
    },
    Layer {
        name: "hyperactor-host",
        uses: &[
            "hyperactor-channel",
            "hyperactor-mailbox",
            "hyperactor-proc",
            "hyperactor-refs",
            "hyperactor-router",
        ],
        tests_use: &["hyperactor-macros", TESTKIT],
        role: Role::Library,
        because: "the host leaves to a proc manager what makes a proc real",
    },
    Layer {
        name: "hyperactor-bootstrap",
        uses: &[
            "hyperactor-channel",
            "hyperactor-host",
            "hyperactor-mailbox",
            "hyperactor-proc",
            "hyperactor-refs",
            "hyperactor-router",
        ],
        tests_use: &["hyperactor-macros", TESTKIT],
        role: Role::Library,
        because: "operating-system processes are one way to make procs real, and the outermost",
    },
    Layer {
        name: "hyperactor",
        uses: &[
            "hyperactor-bootstrap",
            "hyperactor-channel",
            "hyperactor-host",
            "hyperactor-macros",
            "hyperactor-mailbox",
            "hyperactor-proc",
            "hyperactor-protocol",
            "hyperactor-refs",
            "hyperactor-router",
        ],
        tests_use: &[TESTKIT],
        role: Role::Library,
        because: "the facade re-exports the layers and adds none",
    },
    Layer {
        name: "hyperactor-cli",
        uses: &["hyperactor"],
        tests_use: &[TESTKIT],
        role: Role::Program,
        because: "the program uses what any user uses: the facade",
    },
    Layer {
        name: TESTKIT,
        uses: &[],
        tests_use: &[],
        role: Role::TestOnly,
        because: "a test's tools must not depend on what they test",
    },
    Layer {
        name: "hyperactor-sim",
        uses: &["hyperactor-protocol", "hyperactor-refs"],
        // Its fuzz program reads envelopes as well as frames.
        tests_use: &["hyperactor-mailbox"],
        role: Role::TestOnly,
        because: "the simulator runs the pure core and nothing above it",
    },
    Layer {
        name: "hyperactor-benches",
        uses: &["hyperactor"],
        tests_use: EVERYTHING,
        role: Role::Program,
        because: "the comparison uses what any user uses, the facade; only the layers' own benchmarks look below it",
    },
    Layer {
        name: "property-test-a-router",
        uses: &["hyperactor-refs"],
        tests_use: &[],
        role: Role::Program,
        because: "an example of refs on its own, as a user has it",
    },
    Layer {
        name: "xtask",
        uses: &[],
        tests_use: &[],
        role: Role::Program,
        because: "the automation must build when the workspace does not",
    },
];

/// Packages under `examples/` are programs that a user might write: any library, and the testkit for tests.
const EXAMPLE: Layer = Layer {
    name: "an example",
    uses: EVERYTHING,
    tests_use: &[],
    role: Role::Program,
    because: "an example uses what its users can use",
};

/// Checks edges, foreign crates and the repository's text; prints every breach, then fails.
pub(crate) fn run() -> Result<()> {
    let workspace = Workspace::load()?;
    let mut breaches = edges(&workspace, LAYERS);
    breaches.extend(external::check(&workspace)?);
    breaches.extend(tidy::check(&workspace)?);
    for breach in &breaches {
        eprintln!("layers: {breach}");
    }
    if !breaches.is_empty() {
        bail!("{} rules of the workspace are broken", breaches.len());
    }
    let count: usize = workspace
        .packages
        .iter()
        .map(|package| ours(package).count())
        .sum();
    println!(
        "layers: {} members, {count} edges, all allowed",
        workspace.packages.len()
    );
    Ok(())
}

/// Every edge between members that the table does not have, and every member it does not know.
pub(crate) fn edges(workspace: &Workspace, layers: &[Layer]) -> Vec<String> {
    let mut breaches = Vec::new();
    for package in &workspace.packages {
        let known = layers.iter().find(|layer| layer.name == package.name);
        let Some(layer) = known.or_else(|| is_example(package).then_some(&EXAMPLE)) else {
            breaches.push(format!(
                "`{}` is not in the table of layers (xtask/src/layers.rs)",
                package.name
            ));
            continue;
        };
        for (to, kind) in ours(package) {
            if let Some(reason) = refusal(layer, to, kind, layers) {
                let kind = match kind {
                    Kind::Normal => "",
                    Kind::Build => " (build)",
                    Kind::Dev => " (dev)",
                };
                breaches.push(format!("{} → {to}{kind}: {reason}", package.name));
            }
        }
    }
    for layer in layers {
        if workspace
            .packages
            .iter()
            .all(|package| package.name != layer.name)
        {
            breaches.push(format!(
                "`{}` is in the table of layers but not in cargo's",
                layer.name
            ));
        }
    }
    breaches
}

/// Why an edge is not allowed, or nothing if it is.
fn refusal(layer: &Layer, to: &str, kind: Kind, layers: &[Layer]) -> Option<String> {
    let role = layers
        .iter()
        .find(|candidate| candidate.name == to)
        .map(|target| target.role);
    match (role, kind) {
        (Some(Role::Program), _) => return Some(format!("nothing may depend on `{to}`")),
        (Some(Role::TestOnly), Kind::Normal | Kind::Build) => {
            return Some(format!("`{to}` is for tests: make it a dev-dependency"));
        }
        _ => {}
    }
    let in_tests = kind == Kind::Dev && layer.tests_use.contains(&to);
    (!layer.uses.contains(&to) && !in_tests).then(|| layer.because.to_owned())
}

/// The dependencies of a package on members of this workspace, itself left out.
fn ours(package: &Package) -> impl Iterator<Item = (&str, Kind)> {
    package
        .dependencies
        .iter()
        .filter(|edge| is_ours(&edge.name) && edge.name != package.name)
        .map(|edge| (edge.name.as_str(), edge.kind))
}

/// Whether a package stands in the folder of examples.
fn is_example(package: &Package) -> bool {
    let folder = package.manifest_path.parent().and_then(Path::parent);
    folder.is_some_and(|folder| folder.ends_with("examples"))
}

/// All of our names, and no other's, begin so.
pub(crate) fn is_ours(name: &str) -> bool {
    name == "xtask" || name == "hyperactor" || name.starts_with("hyperactor-")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Layer] = &[
        Layer {
            name: "hyperactor-low",
            uses: &[],
            tests_use: &["hyperactor-kit"],
            role: Role::Library,
            because: "low stands alone",
        },
        Layer {
            name: "hyperactor-high",
            uses: &["hyperactor-low"],
            tests_use: &[],
            role: Role::Library,
            because: "high knows low",
        },
        Layer {
            name: "hyperactor-kit",
            uses: &[],
            tests_use: &[],
            role: Role::TestOnly,
            because: "a kit",
        },
        Layer {
            name: "hyperactor-tool",
            uses: &[],
            tests_use: &["hyperactor-low"],
            role: Role::Program,
            because: "a tool",
        },
    ];

    /// Builds a workspace of the table's members with these edges and checks it.
    fn check(extra: &[(&str, &str, &str)]) -> Vec<String> {
        let packages: Vec<String> = TABLE
            .iter()
            .map(|layer| {
                let edges: Vec<String> = extra
                    .iter()
                    .filter(|(from, _, _)| *from == layer.name)
                    .map(|(_, to, kind)| format!(r#"{{"name":"{to}","kind":{kind}}}"#))
                    .collect();
                format!(
                    r#"{{"name":"{}","manifest_path":"Cargo.toml","targets":[],"dependencies":[{}]}}"#,
                    layer.name,
                    edges.join(",")
                )
            })
            .collect();
        let text = format!(r#"{{"packages":[{}]}}"#, packages.join(","));
        edges(&Workspace::parse(&text).unwrap(), TABLE)
    }

    #[test]
    fn allowed_edges_pass() {
        let edges = [
            ("hyperactor-high", "hyperactor-low", "null"),
            ("hyperactor-low", "hyperactor-kit", r#""dev""#),
            ("hyperactor-tool", "hyperactor-low", r#""dev""#),
            ("hyperactor-low", "serde", "null"),
        ];
        assert_eq!(check(&edges), Vec::<String>::new());
    }

    #[test]
    fn an_upward_edge_is_named_with_its_reason() {
        for kind in ["null", r#""build""#, r#""dev""#] {
            let breaches = check(&[("hyperactor-low", "hyperactor-high", kind)]);
            assert_eq!(breaches.len(), 1, "{kind}");
            assert!(
                breaches[0].starts_with("hyperactor-low → hyperactor-high")
                    && breaches[0].ends_with("low stands alone"),
                "{breaches:?}"
            );
        }
    }

    #[test]
    fn a_tests_edge_does_not_serve_a_build() {
        let breaches = check(&[("hyperactor-tool", "hyperactor-low", "null")]);
        assert_eq!(breaches, ["hyperactor-tool → hyperactor-low: a tool"]);
    }

    #[test]
    fn the_kit_is_for_tests_only() {
        let breaches = check(&[("hyperactor-low", "hyperactor-kit", "null")]);
        assert!(
            breaches[0].contains("make it a dev-dependency"),
            "{breaches:?}"
        );
    }

    #[test]
    fn nothing_depends_on_a_program() {
        let breaches = check(&[("hyperactor-high", "hyperactor-tool", r#""dev""#)]);
        assert!(breaches[0].contains("nothing may depend"), "{breaches:?}");
    }

    #[test]
    fn an_example_may_use_libraries_but_no_program() {
        let text = r#"{"packages":[{"name":"try-it","manifest_path":"x/examples/try-it/Cargo.toml","targets":[],
            "dependencies":[{"name":"hyperactor-refs","kind":null},{"name":"hyperactor-cli","kind":null}]}]}"#;
        let breaches = edges(&Workspace::parse(text).unwrap(), LAYERS);
        let own: Vec<_> = breaches
            .iter()
            .filter(|breach| breach.contains("try-it"))
            .collect();
        assert_eq!(
            own,
            ["try-it → hyperactor-cli: nothing may depend on `hyperactor-cli`"]
        );
    }

    #[test]
    fn members_missing_on_either_side_are_breaches() {
        let unknown = Workspace::parse(
            r#"{"packages":[{"name":"hyperactor-new","manifest_path":"","targets":[],"dependencies":[]}]}"#,
        )
        .unwrap();
        let breaches = edges(&unknown, TABLE);
        assert!(
            breaches[0].contains("`hyperactor-new` is not in the table"),
            "{breaches:?}"
        );
        assert_eq!(breaches.len(), 1 + TABLE.len());
    }

    #[test]
    fn the_table_only_points_down() {
        for (index, layer) in LAYERS.iter().enumerate() {
            let lower = &LAYERS[..index];
            for used in layer.uses {
                assert!(
                    lower.iter().any(|below| below.name == *used),
                    "{} → {used}",
                    layer.name
                );
            }
        }
    }
}
