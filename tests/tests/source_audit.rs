//! The house rules, on the sources of this repository. Each rule is tried on planted violations where it is written.

#![expect(clippy::unwrap_used, reason = "a failed audit ends with its findings")]

use std::collections::BTreeSet;

use lapwing_tests::audit::{File, Finding, Source, Tree, labels, layers, report, rules};

/// Fewer files than this means that the audit looked in the wrong place.
const FEWEST_FILES: usize = 10;

fn tree() -> Tree {
    let tree = Tree::of_this_repository().unwrap();
    assert!(tree.rust().count() >= FEWEST_FILES, "no sources below {}", tree.root().display());
    tree
}

fn must_be_empty(findings: &[Finding]) {
    assert!(findings.is_empty(), "{} finding(s):\n{}", findings.len(), report(findings));
}

/// Production code: no test files, no items for tests, only packages that reach a user.
fn production(tree: &Tree) -> impl Iterator<Item = (&File, Source)> {
    tree.rust()
        .filter(|file| !file.serves_tests() && file.path.contains("/src/"))
        .map(|file| (file, Source::parse(&file.text).without_tests()))
}

#[test]
fn no_log_call_can_identify_a_person() {
    let tree = tree();
    let findings: Vec<_> =
        production(&tree).flat_map(|(file, source)| rules::log_calls(&file.path, &source)).collect();
    must_be_empty(&findings);
}

#[test]
fn no_layer_names_what_lies_above_it() {
    let tree = tree();
    let findings: Vec<_> = production(&tree)
        .flat_map(|(file, source)| layers::imports(&file.path, &source, layers::LAYERS))
        .collect();
    must_be_empty(&findings);
}

#[test]
fn every_layer_has_sources_that_were_looked_at() {
    let tree = tree();
    let looked_at: BTreeSet<_> = layers::LAYERS
        .iter()
        .map(|layer| layer.folder)
        .filter(|folder| production(&tree).any(|(file, _)| file.path.starts_with(folder)))
        .collect();
    let wanted: BTreeSet<_> = layers::LAYERS.iter().map(|layer| layer.folder).collect();
    assert_eq!(looked_at, wanted, "a folder of the layer table has no sources");
}

#[test]
fn no_source_tells_one_kind_of_compartment_from_another() {
    let tree = tree();
    let findings: Vec<_> =
        tree.rust().flat_map(|file| rules::roles(&file.path, &Source::parse(&file.text))).collect();
    must_be_empty(&findings);
}

#[test]
fn no_text_of_a_program_tells_them_apart() {
    let tree = tree();
    let findings: Vec<_> =
        production(&tree).flat_map(|(file, source)| rules::role_texts(&file.path, &source)).collect();
    must_be_empty(&findings);
}

#[test]
fn no_source_is_unfinished() {
    let tree = tree();
    let findings: Vec<_> =
        tree.rust().flat_map(|file| rules::unfinished(&file.path, &Source::parse(&file.text))).collect();
    must_be_empty(&findings);
}

#[test]
fn no_source_file_is_too_long() {
    let tree = tree();
    let findings: Vec<_> =
        tree.rust().flat_map(|file| rules::length(&file.path, &file.text, rules::LONG_FILES)).collect();
    must_be_empty(&findings);
    for (path, reason) in rules::LONG_FILES {
        assert!(
            tree.file(path).is_some() && !reason.is_empty(),
            "{path} is allowed to be long but is not there"
        );
    }
}

#[test]
fn every_domain_label_is_written_once() {
    let tree = tree();
    let all: Vec<_> =
        production(&tree).flat_map(|(file, source)| labels::labels(&file.path, &source)).collect();
    assert!(!all.is_empty(), "no label was found: the prefix has changed");
    must_be_empty(&labels::conflicts(&all, labels::package_of));
}
