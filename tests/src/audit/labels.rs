//! Domain-separation labels: two uses of one label would let a value made for one purpose pass for another.

use std::collections::BTreeMap;

use super::{Finding, Source};

/// What every label of this project begins with; a version and the purpose follow.
const PREFIX: &str = "lapwing/";

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
        .filter(|literal| {
            literal
                .value
                .strip_prefix(PREFIX)
                .is_some_and(|rest| !rest.trim_start_matches(|c: char| c.is_ascii_digit()).is_empty())
        })
        .map(|literal| Label { text: literal.value.clone(), file: file.to_owned(), line: literal.line })
        .collect()
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
    fn distinct_labels_in_one_file_a_package_pass() {
        let found = of(&[
            ("a/src/labels.rs", "b\"lapwing/1 seal\"; b\"lapwing/1 open\"; // lapwing/1 seal"),
            ("b/src/labels.rs", "b\"lapwing/1 wrap\""),
            ("b/src/alpn.rs", "b\"lapwing/1\""),
        ]);
        assert!(found.is_empty(), "{found:?}");
    }
}
