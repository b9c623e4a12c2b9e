//! Domain-separation labels: two uses of one label would let a value made for one purpose pass for another.

use std::collections::BTreeMap;

use super::{Finding, Source};

/// What every label of this project begins with.
const NAME: &str = "lapwing";

/// One label in one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// The label as written.
    pub text: String,
    /// The file that writes it.
    pub file: String,
    /// Where.
    pub line: usize,
}

/// The labels in the production code of one file. The prefix and version alone are a protocol's name, no label.
pub fn labels(file: &str, source: &Source) -> Vec<Label> {
    source
        .literals()
        .iter()
        .filter(|literal| is_label(&literal.value))
        .map(|literal| Label { text: literal.value.clone(), file: file.to_owned(), line: literal.line })
        .collect()
}

/// `lapwing/1 purpose` or `lapwing part 1 purpose`: the name, at most one part, a version, and what it is for.
fn is_label(text: &str) -> bool {
    let mut words = text.split(['/', ' ']);
    if words.next() != Some(NAME) {
        return false;
    }
    let is_version = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_digit());
    let versioned = words.next().is_some_and(is_version) || words.next().is_some_and(is_version);
    versioned && words.next().is_some_and(|purpose| !purpose.is_empty())
}

/// Labels written more than once, and packages that keep labels in more than one file.
///
/// `package` tells the folder of the package that a file belongs to.
pub fn conflicts(labels: &[Label], package: impl Fn(&str) -> String) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut first: BTreeMap<&str, &Label> = BTreeMap::new();
    let mut owner: BTreeMap<String, &str> = BTreeMap::new();
    for label in labels {
        if let Some(earlier) = first.get(label.text.as_str()) {
            let what = format!("label {:?} stands also in {}:{}", label.text, earlier.file, earlier.line);
            findings.push(Finding::new(&label.file, label.line, what));
        } else {
            first.insert(&label.text, label);
        }
        let owner = owner.entry(package(&label.file)).or_insert(&label.file);
        if *owner != label.file {
            let what =
                format!("label {:?} belongs in {owner}, where this package keeps its labels", label.text);
            findings.push(Finding::new(&label.file, label.line, what));
        }
    }
    findings
}

/// The package folder of a file: what stands before `/src/`.
pub fn package_of(file: &str) -> String {
    file.split_once("/src/").map_or(file, |(folder, _)| folder).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(files: &[(&str, &str)]) -> Vec<Finding> {
        let all: Vec<_> = files.iter().flat_map(|(file, text)| labels(file, &Source::parse(text))).collect();
        conflicts(&all, package_of)
    }

    #[test]
    fn a_label_written_twice_is_found() {
        let found = of(&[
            ("a/src/labels.rs", "const A: &[u8] = b\"lapwing/1 seal\";"),
            ("b/src/labels.rs", "const B: &str = \"lapwing/1 seal\";"),
        ]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].file, "b/src/labels.rs");
    }

    #[test]
    fn a_second_file_with_labels_is_found() {
        let found =
            of(&[("a/src/labels.rs", "b\"lapwing/1 seal\""), ("a/src/other.rs", "b\"lapwing/1 open\"")]);
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn labels_of_a_part_are_labels_and_talk_is_none() {
        assert!(is_label("lapwing vault 1 slot") && is_label("lapwing/1 slot") && is_label("lapwing/1/slot"));
        for text in [
            "lapwing/1",
            "lapwing vault",
            "lapwing demo",
            "lapwing vault 1",
            "the lapwing/1 slot",
            "lapwing/a",
        ] {
            assert!(!is_label(text), "{text}");
        }
    }

    #[test]
    fn distinct_labels_in_one_file_a_package_pass() {
        let found = of(&[
            ("a/src/labels.rs", "b\"lapwing/1 seal\"; b\"lapwing/1 open\"; // lapwing/1 seal"),
            ("b/src/labels.rs", "b\"lapwing/1 wrap\""),
            ("b/src/alpn.rs", "b\"lapwing/1\""),
        ]);
        assert!(found.is_empty(), "{found:?}");
    }
}
