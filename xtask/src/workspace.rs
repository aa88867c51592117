//! What cargo says about this workspace: its packages, their targets and the edges between them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::shell;

/// The folder that holds the root manifest.
pub(crate) fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_path_buf()
}

/// The members of the workspace, as `cargo metadata` lists them.
#[derive(Debug, Deserialize)]
pub(crate) struct Workspace {
    pub(crate) packages: Vec<Package>,
    /// Where cargo builds.
    #[serde(default)]
    pub(crate) target_directory: PathBuf,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) manifest_path: PathBuf,
    pub(crate) targets: Vec<Target>,
    pub(crate) dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) kind: Vec<String>,
    /// Features without which it is not built.
    #[serde(default, rename = "required-features")]
    pub(crate) required_features: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// Absent for a normal dependency.
    #[serde(default)]
    pub(crate) kind: Kind,
    #[serde(default)]
    pub(crate) features: Vec<String>,
}

/// Which of a package's builds a dependency belongs to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    #[default]
    Normal,
    Build,
    Dev,
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // Cargo writes `null` for a normal dependency.
        match Option::<String>::deserialize(from)?.as_deref() {
            None | Some("normal") => Ok(Self::Normal),
            Some("build") => Ok(Self::Build),
            Some("dev") => Ok(Self::Dev),
            Some(other) => Err(serde::de::Error::custom(format!(
                "unknown kind of dependency `{other}`"
            ))),
        }
    }
}

impl Workspace {
    /// Asks cargo. Needs no network: what lies outside the workspace is left out.
    pub(crate) fn load() -> Result<Self> {
        let text = shell::capture(shell::cargo().args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
        ]))?;
        Self::parse(&text)
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text).context("`cargo metadata` printed what this program cannot read")
    }

    /// The names of all targets of one kind (`test`, `bench`, `example`), in order, each once.
    pub(crate) fn targets(&self, kind: &str) -> Vec<&str> {
        let mut names: Vec<&str> = self
            .packages
            .iter()
            .flat_map(|package| &package.targets)
            .filter(|target| target.kind.iter().any(|has| has == kind))
            .map(|target| target.name.as_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// One target of one member.
    pub(crate) fn target(&self, package: &str, kind: &str, name: &str) -> Option<&Target> {
        self.packages
            .iter()
            .filter(|candidate| candidate.name == package)
            .flat_map(|candidate| &candidate.targets)
            .find(|target| target.name == name && target.kind.iter().any(|has| has == kind))
    }

    pub(crate) fn has_target(&self, package: &str, kind: &str, name: &str) -> bool {
        self.target(package, kind, name).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = r#"{"packages":[{"name":"a","manifest_path":"/x/a/Cargo.toml","targets":[
        {"name":"a","kind":["lib"]},{"name":"it_b","kind":["test"]},{"name":"it_a","kind":["test"]}],
        "dependencies":[{"name":"b","kind":null,"features":["x"]},{"name":"c","kind":"dev"},{"name":"d","kind":"build"}]}]}"#;

    #[test]
    fn kinds_and_targets_are_read() {
        let workspace = Workspace::parse(SAMPLE).unwrap();
        let kinds: Vec<Kind> = workspace.packages[0]
            .dependencies
            .iter()
            .map(|edge| edge.kind)
            .collect();
        assert_eq!(kinds, [Kind::Normal, Kind::Dev, Kind::Build]);
        assert_eq!(workspace.targets("test"), ["it_a", "it_b"]);
        assert!(workspace.has_target("a", "test", "it_a"));
        assert!(!workspace.has_target("b", "test", "it_a"));
    }

    #[test]
    fn the_root_holds_the_workspace_manifest() {
        let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[workspace]"));
    }
}
