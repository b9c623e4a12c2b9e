//! The result of commands that have none but that they were carried out.

use std::fmt;

use serde::Serialize;

use crate::cli::output::Record;

/// Something was done.
#[derive(Debug, Serialize)]
pub(super) struct Done {
    /// What, in words.
    pub(super) what: String,
}

impl Done {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into() }
    }
}

impl Record for Done {
    const TYPE: &'static str = "done";
    fn human(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}
