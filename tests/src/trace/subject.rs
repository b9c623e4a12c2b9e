//! Somebody with a vault whose commands are traced.

use std::path::{Path, PathBuf};

use super::{Plan, Trace, TraceError, run};

/// A vault, the passphrase that is typed at it, and the program that opens it.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The program.
    pub program: PathBuf,
    /// The vault's file.
    pub vault: PathBuf,
    /// What is typed at the prompt.
    pub passphrase: String,
}

impl Subject {
    /// Somebody who uses `program` on the vault at `vault`.
    #[must_use]
    pub fn new(program: &Path, vault: &Path, passphrase: &str) -> Self {
        Self { program: program.to_owned(), vault: vault.to_owned(), passphrase: passphrase.to_owned() }
    }

    /// The same with another passphrase.
    #[must_use]
    pub fn typing(&self, passphrase: &str) -> Self {
        Self { passphrase: passphrase.to_owned(), ..self.clone() }
    }

    /// The same at another vault.
    #[must_use]
    pub fn at(&self, vault: &Path) -> Self {
        Self { vault: vault.to_owned(), ..self.clone() }
    }

    /// What a command would be; what is written to the vault is kept. `more` follows the passphrase on standard input.
    #[must_use]
    pub fn plan(&self, words: &[&str], more: &str) -> Plan {
        let vault = self.vault.to_str().expect("a path of a test is text");
        let mut arguments = vec!["--vault", vault];
        arguments.extend_from_slice(words);
        let input = match words.first() {
            Some(&"init") => {
                arguments.extend(["--new-passphrase-fd", "0"]);
                format!("{}\n", self.passphrase)
            }
            _ => {
                arguments.extend(["--passphrase-fd", "0"]);
                format!("{}\n{more}", self.passphrase)
            }
        };
        Plan::new(self.program.clone(), &arguments, input.as_bytes()).watching(self.vault.clone())
    }

    /// Runs a command under the tracer.
    ///
    /// # Errors
    /// See [`TraceError`].
    pub fn trace(&self, words: &[&str]) -> Result<Trace, TraceError> {
        run(&self.plan(words, ""))
    }

    /// Runs a command that must succeed, with more on standard input; of its calls those are seen that change a file.
    ///
    /// # Panics
    /// It fails, or cannot be traced.
    pub fn does(&self, words: &[&str], more: &str) -> Trace {
        let trace =
            run(&self.plan(words, more).changes_only()).unwrap_or_else(|error| panic!("{words:?}: {error}"));
        assert!(trace.succeeded(), "{words:?}: {:?} {}", trace.end, trace.told());
        trace
    }
}
