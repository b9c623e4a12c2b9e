//! What a Rust file of this project must not contain. Each rule takes a file apart as [`Source`] and reports places.

use super::source::is_word;
use super::{Finding, Source};

/// Past this length a file is split by noun.
pub const LONGEST_FILE: usize = 600;

/// Files allowed to be longer, each with its reason. Empty, and meant to stay so.
pub const LONG_FILES: &[(&str, &str)] = &[];

/// Macros whose arguments reach a log.
const LOG_MACROS: &[&str] = &[
    "trace",
    "debug",
    "info",
    "warn",
    "error",
    "event",
    "span",
    "trace_span",
    "debug_span",
    "info_span",
    "warn_span",
    "error_span",
    "log",
];

/// Words that, in the name of a logged value, mean that the value may say something about a person: ids, addresses,
/// names, paths, sizes, secrets, what was unlocked, what is planned.
const PRIVATE_WORDS: &[&str] = &[
    "addr",
    "addrs",
    "address",
    "addresses",
    "alert",
    "anchor",
    "body",
    "bytes",
    "capability",
    "chat",
    "ciphertext",
    "circle",
    "compartment",
    "contact",
    "content",
    "cover",
    "dir",
    "duress",
    "envelope",
    "envelopes",
    "file",
    "group",
    "host",
    "id",
    "identity",
    "ids",
    "ip",
    "key",
    "keys",
    "len",
    "mailbox",
    "mailboxes",
    "member",
    "name",
    "nickname",
    "passphrase",
    "passphrases",
    "password",
    "path",
    "payload",
    "peer",
    "plaintext",
    "plan",
    "remote",
    "secret",
    "secrets",
    "size",
    "slot",
    "slots",
    "text",
    "ticket",
    "tickets",
    "timestamp",
    "token",
    "tokens",
    "tripwire",
    "uuid",
    "volume",
];

/// Names under which errors are usually bound. An error's text may quote what it met; its kind cannot.
const ERROR_NAMES: &[&str] = &["err", "error", "e", "cause"];

/// Parts of identifiers that would tell one kind of compartment from another.
const ROLE_WORDS: &[&str] = &["decoy", "is_duress", "fake"];

/// Words that no conditional compilation may depend on: every build treats every passphrase alike.
const ROLE_SWITCHES: &[&str] = &["decoy", "duress", "cover", "sos", "destroy", "hide", "fake"];

/// Marks of unfinished work in comments.
const UNFINISHED: &[&str] =
    &["TODO", "FIXME", "XXX", "HACK", "for now", "in a real implementation", "in a real system"];

/// Log calls that name a private value, print a whole error, or record all arguments of a function.
pub fn log_calls(file: &str, source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let identifiers = source.identifiers();
    for (position, name) in &identifiers {
        if name == "instrument" {
            let what = "`instrument` records every argument of the function";
            findings.push(Finding::new(file, source.line(*position), what));
        }
        let Some((open, close)) = macro_call(source, *position, name, LOG_MACROS) else { continue };
        for (inner, used) in identifiers.iter().filter(|(at, _)| (open..close).contains(at)) {
            if let Some(why) = unfit_for_a_log(used, source, *inner) {
                findings.push(Finding::new(file, source.line(*inner), why));
            }
        }
        for literal in source.literals().iter().filter(|text| (open..close).contains(&text.start)) {
            for used in placeholders(&literal.value) {
                let error = ERROR_NAMES.contains(&used.as_str());
                if let Some(word) = private_word(&used) {
                    let what = format!("log call prints `{used}`: `{word}` may identify a person");
                    findings.push(Finding::new(file, literal.line, what));
                } else if error {
                    let what = format!("log call prints the error `{used}`; log its kind() instead");
                    findings.push(Finding::new(file, literal.line, what));
                }
            }
        }
    }
    findings
}

/// Identifiers that tell one kind of compartment from another, and builds that would.
pub fn roles(file: &str, source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (position, name) in source.identifiers() {
        let lower = name.to_lowercase();
        if let Some(word) = ROLE_WORDS.iter().find(|word| lower.contains(*word)) {
            let what = format!("identifier `{name}` contains `{word}`: the container knows no roles");
            findings.push(Finding::new(file, source.line(position), what));
        }
        if matches!(name.as_str(), "cfg" | "cfg_attr") {
            findings.extend(role_switches(file, source, position + name.chars().count()));
        }
    }
    findings
}

/// Texts of a program that would show its user, or whoever searches it, that some compartments are less real.
pub fn role_texts(file: &str, source: &Source) -> Vec<Finding> {
    source
        .literals()
        .iter()
        .filter(|literal| literal.value.to_lowercase().contains("decoy"))
        .map(|literal| Finding::new(file, literal.line, "text says `decoy`: every compartment is a real one"))
        .collect()
}

/// Work that is marked as unfinished, by macro or by comment.
pub fn unfinished(file: &str, source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (position, name) in source.identifiers() {
        if macro_call(source, position, &name, &["todo", "unimplemented"]).is_some() {
            findings.push(Finding::new(file, source.line(position), format!("`{name}!` is unfinished work")));
        }
    }
    for comment in source.comments() {
        for mark in UNFINISHED {
            if contains_words(&comment.value, mark) {
                findings.push(Finding::new(file, comment.line, format!("comment says \"{mark}\"")));
            }
        }
    }
    findings
}

/// A file longer than [`LONGEST_FILE`] lines without a place in `allowed`.
pub fn length(file: &str, text: &str, allowed: &[(&str, &str)]) -> Vec<Finding> {
    let lines = text.lines().count();
    if lines <= LONGEST_FILE || allowed.iter().any(|(path, _)| *path == file) {
        return Vec::new();
    }
    vec![Finding::new(file, 0, format!("{lines} lines; split it by noun at {LONGEST_FILE}"))]
}

/// The range of the arguments, brackets included, if a macro of `names` is called at `position`.
fn macro_call(source: &Source, position: usize, name: &str, names: &[&str]) -> Option<(usize, usize)> {
    if !names.contains(&name) {
        return None;
    }
    let mark = source.skip_space(position + name.chars().count());
    if source.at(mark)? != '!' {
        return None;
    }
    let open = source.skip_space(mark + 1);
    matches!(source.at(open)?, '(' | '[' | '{').then(|| (open, source.closing(open)))
}

/// Why the identifier at `position`, inside a log call, must not be there.
fn unfit_for_a_log(name: &str, source: &Source, position: usize) -> Option<String> {
    if let Some(word) = private_word(name) {
        return Some(format!("log call uses `{name}`: `{word}` may identify a person"));
    }
    if !ERROR_NAMES.contains(&name) {
        return None;
    }
    let after = source.skip_space(position + name.chars().count());
    let rest: String = source.code().iter().skip(after).take(".kind(".len()).collect();
    // `error = ...` names a field, `Level::ERROR` is another identifier, `err.kind()` is what a log may have.
    let harmless = rest.starts_with(".kind(") || (rest.starts_with('=') && !rest.starts_with("=="));
    (!harmless).then(|| format!("log call prints the error `{name}`; log its kind() instead"))
}

/// The first part of a snake_case or CamelCase name that is a private word.
fn private_word(name: &str) -> Option<&'static str> {
    let mut words = vec![String::new()];
    let mut before = '_';
    for c in name.chars() {
        if c == '_' || (c.is_uppercase() && !before.is_uppercase()) {
            words.push(String::new());
        }
        if c != '_'
            && let Some(word) = words.last_mut()
        {
            word.extend(c.to_lowercase());
        }
        before = c;
    }
    PRIVATE_WORDS.iter().find(|private| words.iter().any(|word| word == *private)).copied()
}

/// Names between braces of a format string: `{name}`, `{name:?}`.
fn placeholders(format: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = format;
    while let Some(open) = rest.find('{') {
        rest = &rest[open + 1..];
        if let Some(after) = rest.strip_prefix('{') {
            rest = after;
            continue;
        }
        let name: String = rest.chars().take_while(|c| is_word(*c)).collect();
        if name.starts_with(|c: char| c == '_' || c.is_alphabetic()) {
            found.push(name);
        }
    }
    found
}

/// Words inside the parentheses of a `cfg` that begin after `from`.
fn role_switches(file: &str, source: &Source, from: usize) -> Vec<Finding> {
    let mut open = source.skip_space(from);
    if source.at(open) == Some('!') {
        open = source.skip_space(open + 1);
    }
    if source.at(open) != Some('(') {
        return Vec::new();
    }
    let inside = open..source.closing(open);
    let names = source.identifiers().into_iter().filter(|(at, _)| inside.contains(at)).map(|(_, name)| name);
    let texts =
        source.literals().iter().filter(|text| inside.contains(&text.start)).map(|text| text.value.clone());
    names
        .chain(texts)
        .filter_map(|text| {
            let lower = text.to_lowercase();
            let word =
                ROLE_SWITCHES.iter().find(|word| lower.split(['_', '-']).any(|part| part == **word))?;
            let what = format!("build depends on `{text}`: `{word}` must not be decided by the compiler");
            Some(Finding::new(file, source.line(open), what))
        })
        .collect()
}

/// Whether `text` holds `words` with no letter directly before or after; capitals count only if `words` has some.
fn contains_words(text: &str, words: &str) -> bool {
    let lowered;
    let text = if words.chars().any(char::is_uppercase) {
        text
    } else {
        lowered = text.to_lowercase();
        &lowered
    };
    text.match_indices(words).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + words.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(rule: fn(&str, &Source) -> Vec<Finding>, text: &str) -> usize {
        rule("x.rs", &Source::parse(text)).len()
    }

    #[test]
    fn log_calls_that_may_identify_somebody_are_found() {
        for planted in [
            "info!(\"opened {mailbox_id}\")",
            "tracing::debug!(peer = %remote, \"connected\");",
            "warn!(\"failed: {}\", err)",
            "error!(\"failed: {err:?}\")",
            "info!(?connection.address)",
            "info!(\n  key = key_bytes,\n  \"x\")",
            "tracing::event!(Level::INFO, \"{passphrase}\")",
            "info!(\"{0}\", MailboxId::from(x))",
            "#[instrument] fn f(a: u8) {}",
            "span!(Level::INFO, \"x\", size = n)",
        ] {
            assert!(findings(log_calls, planted) > 0, "{planted}");
        }
    }

    #[test]
    fn harmless_log_calls_pass() {
        for good in [
            "info!(\"the mailbox store is open\")",
            "warn!(kind = ?err.kind(), \"a request was refused\")",
            "warn!(error = %e.kind(), \"refused\")",
            "info!(expired = count, \"{{mailbox}} expiry ran\")",
            "return Err(error);",
            "let id = mailbox.id();",
            "println!(\"{id}\")",
        ] {
            assert_eq!(findings(log_calls, good), 0, "{good}");
        }
    }

    #[test]
    fn words_for_roles_are_found() {
        for planted in [
            "fn open_decoy() {}",
            "struct DecoyVolume;",
            "let is_duress = true;",
            "let fake_mailbox = 1;",
            "#[cfg(feature = \"duress\")] fn f() {}",
            "if cfg!(sos_plan) {}",
        ] {
            assert!(findings(roles, planted) > 0, "{planted}");
        }
        for good in
            ["// a decoy is what this is not", "#[cfg(test)] mod tests {}", "let cover = 1;", "tempfile::x()"]
        {
            assert_eq!(findings(roles, good), 0, "{good}");
        }
    }

    #[test]
    fn texts_for_roles_are_found() {
        assert_eq!(findings(role_texts, "print(\"this is the Decoy\"); // decoy"), 1);
        assert_eq!(findings(role_texts, "print(\"this is the cover\")"), 0);
    }

    #[test]
    fn unfinished_work_is_found() {
        for planted in ["todo!()", "unimplemented!{}", "// TODO: later", "/// Enough for now.", "/* FIXME */"]
        {
            assert!(findings(unfinished, planted) > 0, "{planted}");
        }
        for good in ["let todo = 1;", "// mastodon", "\"TODO\"", "// waits for nowhere"] {
            assert_eq!(findings(unfinished, good), 0, "{good}");
        }
    }

    #[test]
    fn a_long_file_is_found_unless_it_is_allowed() {
        let text = "x\n".repeat(LONGEST_FILE);
        assert!(length("a.rs", &text, &[]).is_empty());
        let text = "x\n".repeat(LONGEST_FILE + 1);
        assert_eq!(length("a.rs", &text, &[]).len(), 1);
        assert!(length("a.rs", &text, &[("a.rs", "one table")]).is_empty());
    }
}
