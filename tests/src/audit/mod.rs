//! Rules that the compiler cannot check, checked on the text of the project itself.
//!
//! - [`tree`](Tree): which files there are
//! - [`source`](Source): one Rust file split into code, literals and comments
//! - [`rules`]: what a Rust file must not contain
//! - [`layers`]: which package may name which module
//! - [`labels`]: domain-separation labels, each written once
//! - [`papers`]: links, rule numbers, test names and commands in Markdown
//! - [`dependencies`]: the resolved graph, the lock file and the dependency policy
//!
//! A rule returns [`Finding`]s; an empty list is a pass. Only [`Tree`] and [`dependencies::Graph::load`] touch the
//! disk or start a process.

pub mod dependencies;
pub mod labels;
pub mod layers;
pub mod papers;
pub mod rules;
mod source;
mod tree;

pub use source::{Source, Text};
pub use tree::{File, Tree, TreeError};

use std::fmt;

/// One place that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Path from the top of the repository, with `/`.
    pub file: String,
    /// First line is 1; 0 where the file as a whole is meant.
    pub line: usize,
    /// What is wrong, for the person who will mend it.
    pub what: String,
}

impl Finding {
    /// A finding in `file` at `line`.
    pub fn new(file: &str, line: usize, what: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

/// All findings as one text, a line each; empty if there are none.
pub fn report(findings: &[Finding]) -> String {
    findings.iter().map(|finding| format!("{finding}\n")).collect()
}
