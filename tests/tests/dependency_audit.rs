//! What is linked into what: the resolved graph, the built programs, and the policy for what others wrote.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed audit ends with its findings")]

use std::collections::BTreeSet;
use std::path::PathBuf;

use lapwing_tests::audit::dependencies::{Graph, ignored_advisories, locked_packages, unfounded};
use lapwing_tests::audit::{Tree, report};
use memchr::memmem;

/// Packages that can decrypt, or that only serve to build one that can.
const DECRYPTING: &[&str] = &[
    "libsignal-protocol-syft",
    "libsignal-core-syft",
    "signal-crypto-syft",
    "spqr-syft",
    "lapwing-protocol",
    "lapwing-vault",
    "prost-build",
];

/// Advisories that were looked at: those of the design's findings on libsignal, and two that come with sled. Each needs
/// an entry of its own.
const KNOWN_ADVISORIES: &[&str] = &[
    "RUSTSEC-2026-0074",
    "RUSTSEC-2026-0207",
    "RUSTSEC-2026-0208",
    "RUSTSEC-2026-0069",
    "RUSTSEC-2026-0070",
    "RUSTSEC-2026-0071",
    "RUSTSEC-2026-0212",
    "RUSTSEC-2024-0436",
    "RUSTSEC-2024-0370",
    "RUSTSEC-2026-0173",
    "RUSTSEC-2024-0384",
    "RUSTSEC-2025-0057",
];

fn tree() -> Tree {
    Tree::of_this_repository().unwrap()
}

fn graph() -> Graph {
    Graph::load(tree().root()).unwrap()
}

/// Fails if `package` reaches one of `banned`.
fn must_not_reach(graph: &Graph, package: &str, banned: &[&str]) {
    let reached = graph.reach(package).unwrap();
    let found: Vec<_> = banned.iter().filter(|name| reached.contains(**name)).collect();
    assert!(found.is_empty(), "{package} must not depend on {found:?}");
}

#[test]
fn relay_links_no_code_that_decrypts() {
    let graph = graph();
    must_not_reach(&graph, "lapwing-relay", DECRYPTING);
    must_not_reach(&graph, "lapwing-relay", &["lapwing"]);
    assert!(graph.reach("lapwing-relay").unwrap().contains("lapwing-wire"), "the relay speaks no protocol");

    // The control: the same question about the client finds every one of them.
    let client = graph.reach("lapwing").unwrap();
    let missed: Vec<_> = DECRYPTING.iter().filter(|name| !client.contains(**name)).collect();
    assert!(missed.is_empty(), "the audit no longer sees {missed:?} in the client");
}

#[test]
fn lower_layers_link_nothing_from_above() {
    let graph = graph();
    let network = ["quinn", "rustls", "tokio"];
    let ours = ["lapwing", "lapwing-relay", "lapwing-protocol", "lapwing-vault"];
    must_not_reach(
        &graph,
        "lapwing-wire",
        &[&network[..], &ours, &["libsignal-protocol-syft", "redb"]].concat(),
    );
    must_not_reach(
        &graph,
        "lapwing-vault",
        &[&network[..], &["lapwing", "lapwing-wire", "lapwing-protocol"]].concat(),
    );
    must_not_reach(&graph, "lapwing-vault", &["libsignal-protocol-syft"]);
    must_not_reach(
        &graph,
        "lapwing-protocol",
        &[&network[..], &["lapwing", "lapwing-relay", "lapwing-vault"]].concat(),
    );
    must_not_reach(&graph, "lapwing", &["lapwing-relay", "lapwing-tests"]);
    assert!(
        graph.reach("lapwing").unwrap().contains("quinn"),
        "the audit no longer sees quinn in the client"
    );
}

/// The program that an environment variable of `tests/run` names. Absent is a failure: the audit would prove nothing.
fn program(variable: &str) -> Vec<u8> {
    let path = std::env::var_os(variable).map(PathBuf::from);
    let path = path.unwrap_or_else(|| panic!("{variable} is not set; run the tests with `tests/run`"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{} could not be read: {error}", path.display()))
}

#[test]
fn relay_program_has_no_symbol_of_code_that_decrypts() {
    let crates = ["libsignal_protocol", "lapwing_protocol", "lapwing_vault"];
    let has = |program: &[u8], name: &str| memmem::find(program, name.as_bytes()).is_some();

    let client = program("LAPWING_BIN");
    let missed: Vec<_> = crates.iter().filter(|name| !has(&client, name)).collect();
    assert!(missed.is_empty(), "the control fails: the client's program shows no symbol of {missed:?}");

    let relay = program("LAPWING_RELAY_BIN");
    assert!(has(&relay, "lapwing_wire"), "the relay's program shows no symbols at all");
    let found: Vec<_> = crates.iter().filter(|name| has(&relay, name)).collect();
    assert!(found.is_empty(), "the relay's program contains symbols of {found:?}");
}

#[test]
fn every_ignored_advisory_has_its_own_reason() {
    let tree = tree();
    let ignored = ignored_advisories(&tree.file("deny.toml").unwrap().text).unwrap();
    let lock = std::fs::read_to_string(tree.root().join("Cargo.lock")).unwrap();
    let findings = unfounded(&ignored, &locked_packages(&lock).unwrap());
    assert!(findings.is_empty(), "{}", report(&findings));

    let listed: BTreeSet<_> = ignored.iter().map(|entry| entry.id.as_str()).collect();
    assert_eq!(
        listed,
        KNOWN_ADVISORIES.iter().copied().collect(),
        "deny.toml and the known advisories differ"
    );
}

/// Names of what a package links wherever it is built, by its manifest.
fn named_in(manifest: &toml::Table, workspace: &toml::Table) -> BTreeSet<String> {
    let own = manifest.get("dependencies").into_iter();
    let targets =
        manifest.get("target").and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::values);
    let all = own.chain(targets.filter_map(|target| target.get("dependencies")));
    let shared = &workspace["workspace"]["dependencies"];
    all.filter_map(toml::Value::as_table)
        .flatten()
        .filter(|(_, said)| said.get("optional").and_then(toml::Value::as_bool) != Some(true))
        .map(|(name, said)| {
            let called =
                |said: &toml::Value| said.get("package").and_then(toml::Value::as_str).map(str::to_owned);
            called(said).or_else(|| called(shared.get(name)?)).unwrap_or_else(|| name.clone())
        })
        .collect()
}

/// The comparisons with other programs are built with `--locked`, and in no test: a lock file of theirs that is behind would be
/// noticed by whoever wants to repeat a figure.
#[test]
fn the_lock_file_of_the_peers_names_what_our_packages_link() {
    let tree = tree();
    let read = |path: &str| -> toml::Table {
        toml::from_str(&std::fs::read_to_string(tree.root().join(path)).unwrap()).unwrap()
    };
    let (lock, workspace) = (read("tests/peers/Cargo.lock"), read("Cargo.toml"));
    for (package, folder) in [
        ("lapwing", "client"),
        ("lapwing-protocol", "protocol"),
        ("lapwing-relay", "relay"),
        ("lapwing-vault", "client/vault"),
        ("lapwing-wire", "protocol/wire"),
        ("lapwing-peers", "tests/peers"),
        ("lapwing-relay-peers", "tests/peers/relay"),
    ] {
        let locked = lock["package"].as_array().unwrap();
        let entry = locked.iter().find(|entry| entry["name"].as_str() == Some(package)).unwrap();
        let known: BTreeSet<_> = entry["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            .map(|known| known.as_str().unwrap().split(' ').next().unwrap().to_owned())
            .collect();
        let named = named_in(&read(&format!("{folder}/Cargo.toml")), &workspace);
        assert!(!named.is_empty());
        let missing: Vec<_> = named.difference(&known).collect();
        assert!(
            missing.is_empty(),
            "{package} links {missing:?}: `cargo update --workspace --manifest-path tests/peers/Cargo.toml`"
        );
    }
}

#[test]
fn no_second_tls_implementation_is_linked() {
    let graph = graph();
    for package in ["lapwing", "lapwing-relay"] {
        must_not_reach(&graph, package, &["openssl", "openssl-sys", "native-tls"]);
        assert!(
            graph.reach(package).unwrap().contains("aws-lc-rs"),
            "{package} links no TLS provider at all"
        );
    }
    // Cargo's metadata shows what quinn needs for WebAssembly on every platform, so ring is sought in the programs.
    for variable in ["LAPWING_BIN", "LAPWING_RELAY_BIN"] {
        let program = program(variable);
        assert!(
            memmem::find(&program, b"aws_lc_").is_some(),
            "{variable} shows no symbols of its TLS provider"
        );
        assert!(memmem::find(&program, b"ring_core_").is_none(), "{variable} contains ring");
    }
}
