//! What a command printed and how it ended.

use serde_json::Value;

/// A command that has ended.
#[derive(Debug)]
pub struct Outcome {
    /// What was asked, for messages.
    pub command: String,
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Outcome {
    /// The lines of `--json`. Every line of standard output has to be one, of version 1 and with a type.
    #[must_use]
    pub fn records(&self) -> Vec<Value> {
        let record = |line: &str| {
            let value: Value =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?} of {self:?}"));
            assert_eq!(value["v"], 1, "{self:?}");
            assert!(value["type"].is_string(), "{self:?}");
            value
        };
        self.stdout.lines().map(record).collect()
    }

    /// The records of one type.
    #[must_use]
    pub fn of(&self, kind: &str) -> Vec<Value> {
        self.records().into_iter().filter(|record| record["type"] == kind).collect()
    }

    /// The only record of a type.
    #[must_use]
    pub fn one(&self, kind: &str) -> Value {
        let mut found = self.of(kind);
        assert_eq!(found.len(), 1, "one {kind} was expected of {self:?}");
        found.remove(0)
    }

    /// A text of the only record of a type.
    #[must_use]
    pub fn text(&self, kind: &str, key: &str) -> String {
        let record = self.one(kind);
        record[key].as_str().unwrap_or_else(|| panic!("no {key} in {record}")).to_owned()
    }

    /// Texts of the messages from somebody, in their order.
    #[must_use]
    pub fn messages_from(&self, from: &str) -> Vec<String> {
        let theirs = self.of("message").into_iter().filter(|message| message["from"] == from);
        theirs.map(|message| message["text"].as_str().expect("a text").to_owned()).collect()
    }

    /// It succeeded.
    #[must_use]
    pub fn done(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// It failed as documented: this exit code, and with `--json` exactly one record of type `error`, the last line,
    /// whose message and hint are one line each. Answers its code for scripts.
    pub fn failed(&self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        let error = self.one("error");
        assert_eq!(self.records().last(), Some(&error), "the failure comes last: {self:?}");
        for key in ["code", "message", "hint"] {
            let text = error[key].as_str().unwrap_or_default();
            assert!(!text.trim().is_empty() && !text.contains('\n'), "{key} of {self:?}");
        }
        let message = error["message"].as_str().unwrap_or_default();
        assert!(!message.ends_with('.') && !message.starts_with(char::is_uppercase), "{message:?}");
        error["code"].as_str().unwrap_or_default().to_owned()
    }

    /// It failed for a person: this exit code, nothing on standard output, and two lines, `error:` and `hint:`.
    pub fn failed_for_a_person(&self, code: i32) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        let lines: Vec<&str> = self.stderr.lines().collect();
        let [error, hint] = lines.as_slice() else { panic!("not two lines: {self:?}") };
        assert!(error.starts_with("error: ") && hint.starts_with("hint: "), "{self:?}");
    }
}
