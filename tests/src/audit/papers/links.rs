//! Relative links.

use std::path::{Component, Path, PathBuf};

use super::super::{File, Finding, Tree};
use super::{prose, without_code_spans};

/// Relative links of every Markdown file that lead to no file, or to no heading of one.
pub fn broken(tree: &Tree) -> Vec<Finding> {
    let exists = |path: &str| tree.root().join(path).exists();
    let text = |path: &str| tree.file(path).map(|file| file.text.clone());
    tree.markdown().flat_map(|file| broken_in(file, exists, text)).collect()
}

/// As [`broken`], for one file over any idea of which files exist and what they hold.
pub fn broken_in(
    file: &File,
    exists: impl Fn(&str) -> bool,
    text: impl Fn(&str) -> Option<String>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, link) in links(&file.text) {
        let (target, heading) = link.split_once('#').map_or((link.as_str(), None), |(a, b)| (a, Some(b)));
        let path = if target.is_empty() { Some(file.path.clone()) } else { resolve(&file.path, target) };
        let Some(path) = path.filter(|path| exists(path)) else {
            findings.push(Finding::new(&file.path, line, format!("link to {link:?} leads to no file here")));
            continue;
        };
        let Some(heading) = heading else { continue };
        let known = text(&path).is_some_and(|text| anchors(&text).iter().any(|anchor| anchor == heading));
        if !known {
            findings.push(Finding::new(
                &file.path,
                line,
                format!("link to {link:?} leads to no heading of {path}"),
            ));
        }
    }
    findings
}

/// Relative targets with the line they stand on; links with a scheme are not followed.
fn links(markdown: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(markdown) {
        let line = without_code_spans(line);
        let inline =
            line.match_indices("](").filter_map(|(at, open)| line[at + open.len()..].split(')').next());
        let reference =
            line.strip_prefix('[').and_then(|rest| rest.split_once("]: ")).map(|(_, target)| target);
        for target in inline.chain(reference) {
            // A title may follow the target; angle brackets may hold it.
            let target = target.split_whitespace().next().unwrap_or_default().trim_matches(['<', '>']);
            let has_scheme = target.split_once(':').is_some_and(|(scheme, _)| !scheme.contains(['/', '#']));
            if !has_scheme {
                found.push((number, target.to_owned()));
            }
        }
    }
    found
}

/// The path from the top of the repository, or `None` if the link leaves it.
fn resolve(from: &str, target: &str) -> Option<String> {
    let mut path = PathBuf::new();
    let folder = Path::new(from).parent()?;
    for part in folder.join(target).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            Component::ParentDir if path.pop() => {}
            _ => return None,
        }
    }
    Some(path.to_string_lossy().into_owned())
}

/// The names under which headings are reached: lower case, spaces to dashes, punctuation dropped.
fn anchors(markdown: &str) -> Vec<String> {
    prose(markdown)
        .filter(|(_, line)| line.starts_with('#'))
        .map(|(_, heading)| {
            heading
                .trim_start_matches('#')
                .trim()
                .to_lowercase()
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken_links(text: &str) -> Vec<usize> {
        let file = File { path: "docs/a.md".to_owned(), text: text.to_owned() };
        let exists = |path: &str| ["docs/a.md", "docs/b.md", "README.md", "docs"].contains(&path);
        let content = |path: &str| (path == "docs/b.md").then(|| "# B\n## The wire, in bytes\n".to_owned());
        broken_in(&file, exists, content).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn planted_broken_links_are_found() {
        assert_eq!(
            broken_links("[a](missing.md)\n[b](b.md#nowhere)\n[c](../../x)\n[d]: gone.md\n[e]()[f](#x)"),
            [1, 2, 3, 4, 5]
        );
    }

    #[test]
    fn good_links_pass() {
        let text = "[a](b.md) [b](../README.md) [c](./b.md#the-wire-in-bytes) [d](https://example.org/x.md)\n\
            `[e](missing.md)`\n```\n[f](missing.md)\n```\n[g](mailto:a@b.c) [h](../docs)";
        assert!(broken_links(text).is_empty(), "{:?}", broken_links(text));
    }
}
