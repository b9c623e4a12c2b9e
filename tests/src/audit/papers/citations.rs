//! Rule numbers (`ENV-07`) and names of tests: what the papers cite must exist, what the code cites must be written.

use std::collections::{BTreeMap, BTreeSet};

use super::super::source::is_word;
use super::super::{File, Finding, Source};
use super::{code_spans, prose};

/// The shape of a rule number: three capitals, a dash, two digits.
const RULE_LENGTH: usize = 6;

/// Rules that code or tests cite and no paper defines, and rules of the papers that no code or test cites.
///
/// `sources` are Rust files, where comments and names of tests count (`ENV-07`, `env_07_...`); `papers` are
/// Markdown files.
pub fn rules<'a>(
    sources: impl Iterator<Item = &'a File>,
    papers: impl Iterator<Item = &'a File>,
) -> Vec<Finding> {
    let mut cited = BTreeMap::new();
    for file in sources {
        let source = Source::parse(&file.text);
        for comment in source.comments() {
            for (line, text) in comment.value.lines().enumerate() {
                for rule in rule_numbers(text) {
                    cited.entry(rule).or_insert((file.path.clone(), comment.line + line));
                }
            }
        }
        for (position, name) in source.identifiers() {
            if let Some(rule) = rule_in_name(&name) {
                cited.entry(rule).or_insert_with(|| (file.path.clone(), source.line(position)));
            }
        }
    }
    let mut written = BTreeMap::new();
    for file in papers {
        for (line, text) in prose(&file.text) {
            for rule in rule_numbers(text) {
                written.entry(rule).or_insert((file.path.clone(), line));
            }
        }
    }
    let missing = |from: &BTreeMap<String, (String, usize)>, other: &BTreeMap<String, _>, what: &str| {
        from.iter()
            .filter(|(rule, _)| !other.contains_key(*rule))
            .map(|(rule, (file, line))| Finding::new(file, *line, format!("{rule} {what}")))
            .collect::<Vec<_>>()
    };
    let families: BTreeSet<_> = written.keys().map(|rule| family(rule)).collect();
    let mut findings = missing(&written, &cited, "is cited by no check and no test");
    let unwritten = missing(&cited, &written, "is defined in no paper");
    // `SHA-25` or `UTF-16` in a comment is no rule: only families that the papers use are.
    findings.extend(unwritten.into_iter().filter(|finding| families.contains(family(&finding.what))));
    findings
}

/// Names of tests, in backticks, that `paper` names and no Rust file defines.
pub fn missing_tests<'a>(paper: &File, sources: impl Iterator<Item = &'a File>) -> Vec<Finding> {
    let mut defined = BTreeSet::new();
    for file in sources {
        let identifiers = Source::parse(&file.text).identifiers();
        for pair in identifiers.windows(2) {
            if pair[0].1 == "fn" {
                defined.insert(pair[1].1.clone());
            }
        }
    }
    let mut findings = Vec::new();
    for (line, text) in prose(&paper.text) {
        for span in code_spans(text) {
            let name = span.rsplit("::").next().unwrap_or(span);
            if is_sentence(name) && !defined.contains(name) {
                findings.push(Finding::new(
                    &paper.path,
                    line,
                    format!("no test or function is called `{name}`"),
                ));
            }
        }
    }
    findings
}

/// Tests have sentences as names: at least four lower-case words joined by underscores.
fn is_sentence(name: &str) -> bool {
    name.split('_').count() >= 4
        && name.chars().all(|c| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
}

fn rule_numbers(text: &str) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    let mut found = Vec::new();
    for (start, window) in characters.windows(RULE_LENGTH).enumerate() {
        let shaped = window[..3].iter().all(char::is_ascii_uppercase)
            && window[3] == '-'
            && window[4..].iter().all(char::is_ascii_digit);
        let before = start.checked_sub(1).and_then(|at| characters.get(at));
        let after = characters.get(start + RULE_LENGTH);
        let alone = [before, after].into_iter().flatten().all(|c| !is_word(*c) && *c != '-');
        if shaped && alone {
            found.push(window.iter().collect());
        }
    }
    found
}

/// `env_07_other_mailbox_is_refused` cites `ENV-07`.
fn rule_in_name(name: &str) -> Option<String> {
    let mut parts = name.split('_');
    let (family, number) = (parts.next()?, parts.next()?);
    parts.next()?;
    let shaped = family.len() == 3
        && family.chars().all(|c| c.is_ascii_lowercase())
        && number.len() == 2
        && number.chars().all(|c| c.is_ascii_digit());
    shaped.then(|| format!("{}-{number}", family.to_uppercase()))
}

fn family(rule: &str) -> &str {
    rule.split('-').next().unwrap_or(rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn rules_without_their_other_half_are_found() {
        let code =
            [file("a.rs", "// ENV-07: other mailbox\n// ENV-08, SHA-25\nfn env_09_is_kept() {}\n\"ENV-10\"")];
        let papers = [file("a.md", "- **ENV-07** text\n- **ENV-09** text\n- **ENV-10** text")];
        let found: Vec<_> =
            rules(code.iter(), papers.iter()).into_iter().map(|finding| finding.what).collect();
        assert_eq!(found, ["ENV-10 is cited by no check and no test", "ENV-08 is defined in no paper"]);
    }

    #[test]
    fn only_whole_numbers_are_rules() {
        assert_eq!(rule_numbers("(ENV-07) XENV-08 ENV-099 ENV-1 ENV-11."), ["ENV-07", "ENV-11"]);
    }

    #[test]
    fn a_test_that_does_not_exist_is_found() {
        let paper =
            file("t.md", "`replayed_envelope_is_refused` and `wire::gone_with_the_wind` and `snake_case`");
        let code = [file("a.rs", "#[test]\nfn replayed_envelope_is_refused() {}")];
        let found = missing_tests(&paper, code.iter());
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].what.contains("gone_with_the_wind"));
    }
}
