//! The only door to the terminal.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use serde_json::{Map, Value};

use super::{
    CliError,
    log::{Form, Weight},
};
use crate::clock::{Clock, SystemClock};

/// Version of the JSON lines.
pub(super) const VERSION: u64 = 1;

/// Results on standard output, talk on standard error.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    is_json: bool,
    /// What is read while working is a log.
    log: Option<Form>,
}

impl Output {
    pub(super) const fn new(is_json: bool) -> Self {
        Self { is_json, log: None }
    }

    /// The same, of a command that keeps a log on standard error.
    pub(super) const fn logging(self) -> Self {
        Self { log: Some(self.form()), ..self }
    }

    /// How lines of a log look.
    pub(super) const fn form(self) -> Form {
        if self.is_json { Form::Json } else { Form::Text }
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
        match self.log {
            Some(form) => write_error(&form.line(SystemClock.now(), Weight::Info, text)),
            None => write_error(text),
        }
    }

    /// Something that is wrong, and does not end the command.
    pub(super) fn warn(self, text: &str) {
        match self.log {
            Some(form) => write_error(&form.line(SystemClock.now(), Weight::Warn, text)),
            None => write_error(&format!("warning: {text}")),
        }
    }

    pub(super) fn fail(self, error: &CliError) -> ExitCode {
        let (message, hint) = (printable(&error.to_string()), error.hint());
        if self.is_json {
            let json = serde_json::json!({ "code": error.code(), "message": message, "hint": hint });
            self.line("error", json);
        } else {
            write_error(&format!("error: {message}\nhint: {hint}"));
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

fn write_error(text: &str) {
    let mut err = io::stderr().lock();
    writeln!(err, "{text}").ok();
}

/// A reader that has gone away is no failure of the command.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).ok();
}

/// Paths and system messages on one line, without control characters.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
