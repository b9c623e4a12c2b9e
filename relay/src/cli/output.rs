//! The only door to the terminal.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use serde_json::{Map, Value};

use super::CliError;

/// Version of the JSON lines.
const VERSION: u64 = 1;

/// Results on standard output, talk on standard error.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    is_json: bool,
}

impl Output {
    pub(super) const fn new(is_json: bool) -> Self {
        Self { is_json }
    }

    pub(super) const fn is_json(self) -> bool {
        self.is_json
    }

    /// One result: as a JSON line, or as text.
    pub(super) fn result(self, kind: &str, json: Value, text: &str) {
        if self.is_json { self.line(kind, json) } else { print(text) }
    }

    /// Something to read while working.
    pub(super) fn talk(self, text: &str) {
        let mut err = io::stderr().lock();
        writeln!(err, "{text}").ok();
    }

    pub(super) fn fail(self, error: &CliError) -> ExitCode {
        let (message, hint) = (printable(&error.to_string()), error.hint());
        if self.is_json {
            let json = serde_json::json!({ "code": error.code(), "message": message, "hint": hint });
            self.line("error", json);
        } else {
            self.talk(&format!("error: {message}\nhint: {hint}"));
        }
        ExitCode::from(error.exit())
    }

    fn line(self, kind: &str, json: Value) {
        let mut line = Map::new();
        line.insert("v".into(), VERSION.into());
        line.insert("type".into(), kind.into());
        if let Value::Object(fields) = json {
            line.extend(fields);
        }
        print(&Value::Object(line).to_string());
    }
}

/// A reader that has gone away is no failure of the command.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).ok();
}

/// Paths and system messages on one line, without control characters.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
