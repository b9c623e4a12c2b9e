//! Markdown that promises something which a machine can check.
//!
//! - [`links`]: relative links resolve, to files and to headings
//! - [`citations`]: rule numbers and test names exist on both sides
//! - [`commands`]: what a reader is told to type

pub mod citations;
pub mod commands;
pub mod links;

/// The lines of `markdown` outside fenced code, numbered from 1.
fn prose(markdown: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    markdown.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((index + 1, line))
    })
}

/// `line` with everything between backticks replaced by spaces.
fn without_code_spans(line: &str) -> String {
    let mut inside = false;
    line.chars()
        .map(|c| {
            inside ^= c == '`';
            if inside || c == '`' { ' ' } else { c }
        })
        .collect()
}

/// What stands between backticks in `line`.
fn code_spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}
