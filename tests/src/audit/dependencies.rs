//! What is linked into what, and what the dependency policy says about it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use super::Finding;

/// Packages with the packages that they link or build with; development dependencies are left out.
#[derive(Debug, Default)]
pub struct Graph {
    names: BTreeMap<String, String>,
    needs: BTreeMap<String, Vec<String>>,
}

/// The graph or a policy file could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DependencyError {
    /// Cargo could not be started.
    #[error("cargo could not be started: {0}")]
    NotStarted(std::io::Error),
    /// Cargo refused, for example because the lock file is not up to date.
    #[error("cargo {command} failed: {message}")]
    Refused {
        /// The subcommand.
        command: &'static str,
        /// What cargo said.
        message: String,
    },
    /// The answer has another shape than expected.
    #[error("{what} could not be understood: {reason}")]
    NotUnderstood {
        /// What was being read.
        what: &'static str,
        /// Why it failed.
        reason: String,
    },
    /// The resolved graph has no package of this name.
    #[error("the graph has no package called {0}")]
    NoSuchPackage(String),
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Edge>,
}

#[derive(Deserialize)]
struct Edge {
    pkg: String,
    dep_kinds: Vec<EdgeKind>,
}

#[derive(Deserialize)]
struct EdgeKind {
    /// Absent for a normal dependency, else `build` or `dev`.
    kind: Option<String>,
}

impl Graph {
    /// Asks cargo for the graph of the workspace at `root`, for the machine this runs on, without the network.
    ///
    /// # Errors
    /// [`DependencyError`] says what cargo did not do.
    pub fn load(root: &Path) -> Result<Self, DependencyError> {
        let host = host_triple()?;
        let arguments = [
            "metadata",
            "--locked",
            "--offline",
            "--format-version",
            "1",
            "--filter-platform",
            host.as_str(),
        ];
        Self::parse(&cargo(root, "metadata", &arguments)?)
    }

    /// Reads the answer of `cargo metadata`.
    ///
    /// # Errors
    /// [`DependencyError::NotUnderstood`] if it is not one.
    pub fn parse(metadata: &str) -> Result<Self, DependencyError> {
        let metadata: Metadata = serde_json::from_str(metadata).map_err(|error| {
            DependencyError::NotUnderstood { what: "cargo metadata", reason: error.to_string() }
        })?;
        let names = metadata.packages.into_iter().map(|package| (package.id, package.name)).collect();
        let linked = |edge: &Edge| edge.dep_kinds.iter().any(|kind| kind.kind.as_deref() != Some("dev"));
        let needs = metadata
            .resolve
            .nodes
            .into_iter()
            .map(|node| (node.id, node.deps.into_iter().filter(linked).map(|edge| edge.pkg).collect()))
            .collect();
        Ok(Self { names, needs })
    }

    /// The names of all packages that `package` links or builds with, directly or not; itself left out.
    ///
    /// # Errors
    /// [`DependencyError::NoSuchPackage`]: a rule about a package that is not there must not pass.
    pub fn reach(&self, package: &str) -> Result<BTreeSet<&str>, DependencyError> {
        let start = self
            .names
            .iter()
            .find(|(_, name)| *name == package)
            .map(|(id, _)| id)
            .ok_or_else(|| DependencyError::NoSuchPackage(package.to_owned()))?;
        let mut seen = BTreeSet::from([start.as_str()]);
        let mut waiting = vec![start.as_str()];
        while let Some(id) = waiting.pop() {
            for next in self.needs.get(id).into_iter().flatten() {
                if seen.insert(next) {
                    waiting.push(next);
                }
            }
        }
        seen.remove(start.as_str());
        Ok(seen.into_iter().filter_map(|id| self.names.get(id)).map(String::as_str).collect())
    }
}

/// One entry of `[advisories] ignore` in `deny.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct IgnoredAdvisory {
    /// `RUSTSEC-2026-0074`.
    pub id: String,
    /// The crate's name, a colon, and why the advisory does not reach us.
    pub reason: String,
}

/// A reason shorter than this says nothing.
const SHORTEST_REASON: usize = 40;

/// Reads the ignored advisories of a `deny.toml`.
///
/// # Errors
/// [`DependencyError::NotUnderstood`] if it is not one, or if an entry is a bare id without a reason.
pub fn ignored_advisories(deny: &str) -> Result<Vec<IgnoredAdvisory>, DependencyError> {
    #[derive(Deserialize)]
    struct Deny {
        advisories: Advisories,
    }
    #[derive(Deserialize)]
    struct Advisories {
        ignore: Vec<IgnoredAdvisory>,
    }
    toml::from_str::<Deny>(deny)
        .map(|deny| deny.advisories.ignore)
        .map_err(|error| DependencyError::NotUnderstood { what: "deny.toml", reason: error.to_string() })
}

/// The names of all packages in a `Cargo.lock`.
///
/// # Errors
/// [`DependencyError::NotUnderstood`] if it is not one.
pub fn locked_packages(lock: &str) -> Result<BTreeSet<String>, DependencyError> {
    #[derive(Deserialize)]
    struct Lock {
        package: Vec<Locked>,
    }
    #[derive(Deserialize)]
    struct Locked {
        name: String,
    }
    toml::from_str::<Lock>(lock)
        .map(|lock| lock.package.into_iter().map(|package| package.name).collect())
        .map_err(|error| DependencyError::NotUnderstood { what: "Cargo.lock", reason: error.to_string() })
}

/// Entries that are no advisory, are listed twice, share a reason, give none worth the name, or speak of a crate
/// that is not in the lock file.
pub fn unfounded(ignored: &[IgnoredAdvisory], locked: &BTreeSet<String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut ids = BTreeSet::new();
    let mut reasons = BTreeSet::new();
    let mut report = |what: String| findings.push(Finding::new("deny.toml", 0, what));
    for entry in ignored {
        let IgnoredAdvisory { id, reason } = entry;
        let digits =
            |text: &str, count: usize| text.len() == count && text.chars().all(|c| c.is_ascii_digit());
        let numbered = id
            .strip_prefix("RUSTSEC-")
            .and_then(|rest| rest.split_once('-'))
            .is_some_and(|(year, number)| digits(year, 4) && digits(number, 4));
        if !numbered {
            report(format!("{id:?} is no advisory's id"));
        }
        if !ids.insert(id) {
            report(format!("{id} is listed twice"));
        }
        match reason.split_once(": ") {
            Some((name, why)) if locked.contains(name) && why.len() >= SHORTEST_REASON => {}
            Some((name, why)) if why.len() >= SHORTEST_REASON => {
                report(format!("{id} is ignored for {name}, which the lock file does not have"));
            }
            _ => report(format!("{id} needs a reason: the crate's name, a colon, why it does not reach us")),
        }
        if !reasons.insert(reason) {
            report(format!("{id} repeats the reason of another entry"));
        }
    }
    findings
}

fn host_triple() -> Result<String, DependencyError> {
    let answer = cargo(Path::new("."), "version", &["version", "--verbose"])?;
    answer.lines().find_map(|line| line.strip_prefix("host: ")).map(str::to_owned).ok_or_else(|| {
        DependencyError::NotUnderstood { what: "cargo version", reason: "it names no host".to_owned() }
    })
}

fn cargo(root: &Path, command: &'static str, arguments: &[&str]) -> Result<String, DependencyError> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(program)
        .args(arguments)
        .current_dir(root)
        .output()
        .map_err(DependencyError::NotStarted)?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(DependencyError::Refused { command, message });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRAPH: &str = r#"{
        "packages": [{"id":"1","name":"relay"},{"id":"2","name":"wire"},{"id":"3","name":"signal"},
                     {"id":"4","name":"client"},{"id":"5","name":"shim"}],
        "resolve": {"nodes": [
            {"id":"1","deps":[{"pkg":"2","dep_kinds":[{"kind":null}]},{"pkg":"4","dep_kinds":[{"kind":"dev"}]}]},
            {"id":"2","deps":[]},
            {"id":"3","deps":[{"pkg":"5","dep_kinds":[{"kind":"build"}]}]},
            {"id":"4","deps":[{"pkg":"3","dep_kinds":[{"kind":"dev"},{"kind":null}]},{"pkg":"2","dep_kinds":[{"kind":null}]}]},
            {"id":"5","deps":[]}]}}"#;

    #[test]
    fn what_is_linked_is_followed_and_development_is_not() {
        let graph = Graph::parse(GRAPH).unwrap();
        assert_eq!(graph.reach("relay").unwrap(), BTreeSet::from(["wire"]));
        assert_eq!(graph.reach("client").unwrap(), BTreeSet::from(["shim", "signal", "wire"]));
    }

    #[test]
    fn an_unknown_package_does_not_pass() {
        let graph = Graph::parse(GRAPH).unwrap();
        assert!(matches!(graph.reach("nobody"), Err(DependencyError::NoSuchPackage(_))));
        assert!(matches!(Graph::parse("{}"), Err(DependencyError::NotUnderstood { .. })));
    }

    #[test]
    fn a_bare_advisory_is_refused() {
        assert!(ignored_advisories("[advisories]\nignore = [\"RUSTSEC-2026-0074\"]").is_err());
        assert!(ignored_advisories("[advisories]\nignore = [{ id = \"RUSTSEC-2026-0074\" }]").is_err());
    }

    #[test]
    fn planted_bad_entries_are_found() {
        let locked = BTreeSet::from(["present".to_owned()]);
        let why = "a reason that is long enough to say why it does not matter";
        let entry = |id: &str, reason: String| IgnoredAdvisory { id: id.to_owned(), reason };
        let good = entry("RUSTSEC-2026-0001", format!("present: {why}"));
        assert!(unfounded(std::slice::from_ref(&good), &locked).is_empty());
        for bad in [
            entry("RUSTSEC-26-1", format!("present: {why} a")),
            entry("RUSTSEC-2026-0002", format!("absent: {why}")),
            entry("RUSTSEC-2026-0003", "present: fine".to_owned()),
            entry("RUSTSEC-2026-0004", why.to_owned()),
            entry("RUSTSEC-2026-0005", good.reason.clone()),
            entry("RUSTSEC-2026-0001", format!("present: {why} b")),
        ] {
            assert!(!unfounded(&[good.clone(), bad.clone()], &locked).is_empty(), "{bad:?}");
        }
    }
}
