//! What the papers promise: links, rule numbers, names of tests, commands.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed audit ends with its findings")]

use std::io::Read as _;
use std::process::{Command as Process, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use lapwing_tests::audit::papers::commands::{Command, commands};
use lapwing_tests::audit::papers::{citations, links};
use lapwing_tests::audit::{File, Finding, Tree, report};

/// Papers that the design names. A missing one is a promise not kept.
const PAPERS: &[&str] = &[
    "README.md",
    "SECURITY.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/architecture.md",
    "docs/protocol.md",
    "docs/vault-format.md",
    "docs/threat-model.md",
    "docs/relay-operation.md",
    "docs/performance.md",
    "docs/glossary.md",
    "docs/decisions/README.md",
    "docs/decisions/0001-libsignal-publication.md",
    "docs/decisions/0002-relay-store.md",
];

/// Programs that a paper may name without the project having to provide them.
const KNOWN_PROGRAMS: &[&str] = &[
    "cat", "cd", "chmod", "cp", "curl", "echo", "export", "git", "ls", "mkdir", "printf", "rustup", "sudo",
    "tail",
];

/// Long enough for a debug build on a busy machine to print its help.
const HELP_PATIENCE: Duration = Duration::from_secs(30);

fn tree() -> Tree {
    Tree::of_this_repository().unwrap()
}

fn must_be_empty(findings: &[Finding]) {
    assert!(findings.is_empty(), "{} finding(s):\n{}", findings.len(), report(findings));
}

#[test]
fn every_paper_of_the_design_is_there() {
    let tree = tree();
    let missing: Vec<_> = PAPERS.iter().filter(|path| tree.file(path).is_none()).collect();
    assert!(missing.is_empty(), "missing: {missing:?}");
    let licence = std::fs::read_to_string(tree.root().join("LICENSE")).unwrap();
    assert!(licence.contains("GNU AFFERO GENERAL PUBLIC LICENSE"));
}

#[test]
fn every_relative_link_resolves() {
    must_be_empty(&links::broken(&tree()));
}

#[test]
fn every_rule_number_is_defined_and_cited() {
    let tree = tree();
    let papers = [
        "docs/protocol.md",
        "docs/protocol-client.md",
        "docs/protocol-envelopes.md",
        "docs/protocol-groups.md",
        "docs/protocol-renewal.md",
        "docs/protocol-anchor.md",
        "docs/protocol-wire.md",
        "docs/records-format.md",
        "docs/vault-format.md",
    ]
    .map(|path| tree.file(path).unwrap_or_else(|| panic!("{path} is missing")));
    let sources = tree.rust().filter(|file| !file.path.starts_with("tests/src/audit/"));
    must_be_empty(&citations::rules(sources, papers.into_iter()));
}

#[test]
fn every_test_that_the_threat_model_names_exists() {
    let tree = tree();
    let paper =
        tree.file("docs/threat-model.md").unwrap_or_else(|| panic!("docs/threat-model.md is missing"));
    must_be_empty(&citations::missing_tests(paper, tree.rust()));
}

#[test]
fn every_command_of_the_readme_exists() {
    let tree = tree();
    let readme = tree.file("README.md").unwrap_or_else(|| panic!("README.md is missing"));
    let commands = commands(&readme.text);
    let types = |program: &str, argument: Option<&str>| {
        commands.iter().any(|command| {
            command.program() == program
                && argument.is_none_or(|argument| command.arguments().iter().any(|given| given == argument))
        })
    };
    assert!(types("lapwing", Some("demo")), "the README does not say how to run the demonstration");
    assert!(
        commands.iter().any(|command| command.words == ["./tests/run"]),
        "the README does not say ./tests/run"
    );

    // The control: what no program offers must be found.
    for words in [["lapwing", "no-such-command"], ["lapwing-relay", "serve --no-such-flag"]] {
        let words = words.iter().flat_map(|part| part.split(' ')).map(str::to_owned).collect();
        assert!(complaint(&tree, &Command { line: 1, words }).is_some(), "the check accepts any command");
    }
    let findings: Vec<_> = commands
        .iter()
        .filter_map(|command| {
            let what = complaint(&tree, command)?;
            Some(Finding::new(&readme.path, command.line, format!("`{}`: {what}", command.words.join(" "))))
        })
        .collect();
    must_be_empty(&findings);
}

/// Why a reader who types this command would be disappointed.
fn complaint(tree: &Tree, command: &Command) -> Option<String> {
    let first = command.words.first()?;
    match command.program() {
        "lapwing" => help_fails("LAPWING_BIN", command.arguments()),
        "lapwing-relay" => help_fails("LAPWING_RELAY_BIN", command.arguments()),
        "cargo" => unknown_package(tree, command),
        "just" => unknown_recipe(tree, command),
        _ if first.contains('/') => not_executable(tree, first),
        known if KNOWN_PROGRAMS.contains(&known) => None,
        other => Some(format!("`{other}` is not a program of this project")),
    }
}

/// Runs the command with `--help` behind it: the parser then checks every word before it and does nothing.
fn help_fails(variable: &str, arguments: &[String]) -> Option<String> {
    let program = std::env::var_os(variable)
        .unwrap_or_else(|| panic!("{variable} is not set; run the tests with `tests/run`"));
    let home = tempfile::tempdir().unwrap();
    let mut child = Process::new(program)
        .args(arguments)
        .arg("--help")
        .current_dir(home.path())
        .env("HOME", home.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that waits for something instead of printing its help must not hold up the tests.
    let mut errors = child.stderr.take().unwrap();
    let (done, waits) = mpsc::sync_channel(1);
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        let read = errors.read_to_string(&mut text);
        let _ = done.send(());
        read.map(|_| text)
    });
    if waits.recv_timeout(HELP_PATIENCE).is_err() {
        child.kill().unwrap();
    }
    let status = child.wait().unwrap();
    let text = reader.join().unwrap().unwrap();
    (!status.success()).then(|| format!("{status}: {}", text.trim()))
}

fn unknown_package(tree: &Tree, command: &Command) -> Option<String> {
    let members: Vec<&File> = PACKAGES.iter().filter_map(|path| tree.file(path)).collect();
    let known = |name: &str| members.iter().any(|file| file.text.contains(&format!("name = \"{name}\"")));
    let named = command.values("-p", "--package").into_iter().chain(command.values("--bin", "--bin"));
    let unknown: Vec<_> = named.filter(|name| !known(name)).collect();
    (!unknown.is_empty()).then(|| format!("the workspace has no package {unknown:?}"))
}

/// Manifests of the packages of the design's section 2.
const PACKAGES: &[&str] = &[
    "protocol/wire/Cargo.toml",
    "protocol/Cargo.toml",
    "protocol/prost-build/Cargo.toml",
    "client/vault/Cargo.toml",
    "client/Cargo.toml",
    "relay/Cargo.toml",
    "tests/Cargo.toml",
];

#[test]
fn every_package_of_the_design_is_there() {
    let tree = tree();
    let missing: Vec<_> = PACKAGES.iter().filter(|path| tree.file(path).is_none()).collect();
    assert!(missing.is_empty(), "missing: {missing:?}");
}

fn unknown_recipe(tree: &Tree, command: &Command) -> Option<String> {
    let justfile = std::fs::read_to_string(tree.root().join("justfile")).unwrap();
    let recipe = command.arguments().first()?;
    let known = justfile.lines().any(|line| {
        line.strip_prefix(recipe.as_str())
            .is_some_and(|rest| rest.starts_with([' ', ':']) && rest.contains(':'))
    });
    (!known).then(|| format!("the justfile has no recipe {recipe}"))
}

fn not_executable(tree: &Tree, path: &str) -> Option<String> {
    use std::os::unix::fs::PermissionsExt as _;
    let found =
        std::fs::metadata(tree.root().join(path)).is_ok_and(|is| is.permissions().mode() & 0o111 != 0);
    (!found).then(|| format!("{path} is no program in this repository"))
}

#[test]
fn scripts_that_the_papers_name_can_be_run() {
    let tree = tree();
    for script in ["./tests/run", "./.ci/run"] {
        assert_eq!(not_executable(&tree, script), None);
    }
    assert!(not_executable(&tree, "./LICENSE").is_some(), "the check accepts what cannot be run");
    let missing =
        Command { line: 1, words: ["cargo", "test", "-p", "lapwing-nowhere"].map(String::from).to_vec() };
    assert!(complaint(&tree, &missing).is_some(), "the check accepts a package that is not there");
    let missing = Command { line: 1, words: ["just", "nothing"].map(String::from).to_vec() };
    assert!(complaint(&tree, &missing).is_some(), "the check accepts a recipe that is not there");
}
