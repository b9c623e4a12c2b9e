//! What the papers promise: links, rule numbers, names of tests, commands.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed audit ends with its findings")]

mod typed;

use lapwing_tests::audit::papers::commands::{Command, commands, spoken, unmarked};
use lapwing_tests::audit::papers::{citations, links};
use lapwing_tests::audit::{File, Finding, Tree, report};
use typed::{PACKAGES, complaint, help, not_executable};

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

/// Programs of users and operators: also in the running text a paper names no command that they do not have.
const OURS: &[&str] = &["lapwing", "lapwing-relay"];

/// Programs whose commands stand in marked blocks only.
const MARKED: &[&str] = &["lapwing", "lapwing-relay", "lapwing-examiner", "cargo", "just", "runuser"];

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
    .map(|path| paper(&tree, path));
    let sources = tree.rust().filter(|file| !file.path.starts_with("tests/src/audit/"));
    must_be_empty(&citations::rules(sources, papers.into_iter()));
}

#[test]
fn every_test_that_the_threat_model_names_exists() {
    let tree = tree();
    must_be_empty(&citations::missing_tests(paper(&tree, "docs/threat-model.md"), tree.rust()));
}

#[test]
fn every_command_that_a_paper_says_exists() {
    let tree = tree();
    let readme = commands(&paper(&tree, "README.md").text);
    let types = |program: &str, argument: &str| {
        readme.iter().any(|command| {
            command.program() == program && command.arguments().iter().any(|given| given == argument)
        })
    };
    assert!(types("lapwing", "demo"), "the README does not say how to run the demonstration");
    assert!(
        readme.iter().any(|command| command.words == ["./tests/run"]),
        "the README does not say ./tests/run"
    );

    // The control: what no program offers must be found.
    for wrong in
        ["lapwing no-such-command", "lapwing-relay serve --no-such-flag", "lapwing-relay access forge"]
    {
        let words = wrong.split(' ').map(str::to_owned).collect();
        assert!(complaint(&tree, &Command { line: 1, words }).is_some(), "the check accepts {wrong}");
    }
    let mut findings = Vec::new();
    let mut checked = 0;
    for paper in tree.markdown() {
        for command in unmarked(&paper.text, MARKED) {
            let what = "a block of commands is marked `sh`, so that they are checked".to_owned();
            findings.push(Finding::new(&paper.path, command.line, what));
        }
        let typed = commands(&paper.text).into_iter().chain(spoken(&paper.text, OURS));
        for command in typed.map(Command::for_somebody) {
            checked += 1;
            if let Some(what) = complaint(&tree, &command) {
                let what = format!("`{}`: {what}", command.words.join(" "));
                findings.push(Finding::new(&paper.path, command.line, what));
            }
        }
    }
    must_be_empty(&findings);
    assert!(checked > 150, "only {checked} commands were found in all papers");
}

/// Every row of the operator's table is a command of the program with all that is special about it, and none is left out.
#[test]
fn the_operators_table_names_every_command_and_every_option() {
    let tree = tree();
    let page = paper(&tree, "docs/relay-operation.md");
    let (_, behind) = page.text.split_once("\n## Commands\n").unwrap();
    let (section, _) = behind.split_once("\n#").unwrap();
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    for row in section.lines().filter_map(|line| line.strip_prefix("| `")) {
        let span = row.split('`').next().unwrap();
        let words: Vec<_> =
            span.split([' ', '[', ']', '\\', '|', '"']).filter(|word| !word.is_empty()).collect();
        let is_name = |word: &&&str| word.chars().all(|c| c == '-' || c.is_ascii_lowercase());
        let name: Vec<_> =
            words.iter().take_while(is_name).filter(|word| !word.starts_with("--")).copied().collect();
        rows.push((name.join(" "), options(words.into_iter())));
    }

    let everywhere = ["--dir", "--json", "--help", "--version"];
    let mut found = Vec::new();
    let mut groups = vec![String::new()];
    while let Some(group) = groups.pop() {
        let text =
            help("LAPWING_RELAY_BIN", &group.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
                .unwrap();
        let Some((_, list)) = text.split_once("Commands:\n") else {
            let all = options(
                text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with("--"))),
            );
            let own = all.into_iter().filter(|option| !everywhere.contains(&option.as_str())).collect();
            found.push((group.trim().to_owned(), own));
            continue;
        };
        let names = list.lines().take_while(|line| !line.is_empty());
        let names = names.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        let names = names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
        groups.extend(names.map(|name| format!("{group} {name}")));
    }
    rows.sort();
    found.sort();
    assert_eq!(rows, found, "the page on the left, the program on the right");
    assert!(found.len() >= 10);
}

fn options<'a>(words: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut options: Vec<_> = words.filter(|word| word.starts_with("--")).map(str::to_owned).collect();
    options.sort();
    options.dedup();
    options
}

#[test]
fn every_package_of_the_design_is_there() {
    let tree = tree();
    let missing: Vec<_> = PACKAGES.iter().filter(|path| tree.file(path).is_none()).collect();
    assert!(missing.is_empty(), "missing: {missing:?}");
}

#[test]
fn scripts_and_tests_that_the_papers_name_can_be_run() {
    let tree = tree();
    for script in ["./tests/run", "./.ci/run"] {
        assert_eq!(not_executable(&tree, script), None);
    }
    assert!(not_executable(&tree, "./LICENSE").is_some(), "the check accepts what cannot be run");
    for wrong in [
        "cargo test -p lapwing-nowhere",
        "just nothing",
        "cargo nextest run -p lapwing-relay no_test_is_called_so",
        "cargo nextest run -p lapwing-relay --test nowhere",
        "cargo bench -p lapwing --bench nowhere",
    ] {
        let words = wrong.split(' ').map(str::to_owned).collect();
        assert!(complaint(&tree, &Command { line: 1, words }).is_some(), "the check accepts {wrong}");
    }
}

fn paper<'a>(tree: &'a Tree, path: &str) -> &'a File {
    tree.file(path).unwrap_or_else(|| panic!("{path} is missing"))
}
