//! People of the demo: each with a vault and passphrases, giving the commands that a person would type.

use std::{
    path::{Path, PathBuf},
    pin::Pin,
};

use clap::Parser;
use zeroize::Zeroizing;

use crate::{
    cli::{
        args::Cli,
        exit::Exit,
        output::{Format, Output},
        prompt::{Prompt, PromptError, Question, TypedPassphrase},
        shell::Shell,
    },
    client::World,
    error::Error,
};

/// A folder that is removed with everything in it.
pub(super) struct Folder {
    path: PathBuf,
    kept: std::cell::Cell<bool>,
}

impl Folder {
    pub(super) fn new() -> Result<Self, Error> {
        use std::os::unix::fs::DirBuilderExt;
        let mut name = [0u8; 8];
        rand_core::RngCore::fill_bytes(&mut crate::client::generator(), &mut name);
        let name: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = std::env::temp_dir().join(format!("lapwing-demo-{name}"));
        std::fs::DirBuilder::new().mode(0o700).create(&path).map_err(|error| {
            Error::refused(
                format!("no folder can be made for the demo: {}", error.kind()),
                "set TMPDIR to a folder that you may write to",
            )
        })?;
        Ok(Self { path, kept: std::cell::Cell::new(false) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn keep(&self) -> &Path {
        self.kept.set(true);
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.kept.get() {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Somebody at a keyboard.
pub(super) struct Person {
    /// Name, for the narration.
    pub(super) name: &'static str,
    /// The vault's file.
    pub(super) vault: PathBuf,
    passphrase: &'static str,
}

/// What a command printed and how it ended.
pub(super) struct Outcome {
    /// How it ended.
    pub(super) exit: Exit,
    /// The lines of `--json`.
    pub(super) records: Vec<serde_json::Value>,
}

impl Outcome {
    /// A text of the first line that has it.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        self.records.iter().find_map(|record| Some(record.get(key)?.as_str()?.to_owned()))
    }

    /// The texts of all messages.
    pub(super) fn messages(&self) -> Vec<String> {
        self.records.iter().filter_map(|record| Some(record.get("text")?.as_str()?.to_owned())).collect()
    }

    /// Everything that was printed.
    pub(super) fn all(&self) -> String {
        self.records.iter().map(ToString::to_string).collect()
    }
}

/// Types one passphrase at every prompt, another where one is set.
struct Typing {
    passphrase: &'static str,
    new: Option<&'static str>,
}

impl Prompt for Typing {
    fn passphrase(&mut self, _what: &str) -> Result<TypedPassphrase, PromptError> {
        Ok(TypedPassphrase::new(Zeroizing::new(self.passphrase.to_owned()))?)
    }

    fn new_passphrase(&mut self, _what: &str) -> Result<TypedPassphrase, PromptError> {
        Ok(TypedPassphrase::new(Zeroizing::new(self.new.unwrap_or(self.passphrase).to_owned()))?)
    }

    fn confirm(&mut self, question: Question<'_>) -> Result<bool, PromptError> {
        Err(PromptError::NoTerminal { flag: question.flag().to_owned() })
    }

    fn choose(&mut self, question: Question<'_>, _options: &[&str]) -> Result<usize, PromptError> {
        Err(PromptError::NoTerminal { flag: question.flag().to_owned() })
    }

    fn text(&mut self, question: Question<'_>) -> Result<String, PromptError> {
        Err(PromptError::NoTerminal { flag: question.flag().to_owned() })
    }
}

impl Person {
    pub(super) fn new(name: &'static str, folder: &Path, passphrase: &'static str) -> Self {
        Self { name, vault: folder.join(name), passphrase }
    }

    /// The same hands, another passphrase or another file.
    pub(super) fn with(&self, vault: &Path, passphrase: &'static str) -> Self {
        Self { name: self.name, vault: vault.to_path_buf(), passphrase }
    }

    /// Gives a command, exactly as the command line would take it.
    pub(super) async fn types(
        &self,
        world: &World,
        new: Option<&'static str>,
        words: &[&str],
    ) -> Result<Outcome, Error> {
        let line = std::iter::once("lapwing").chain(words.iter().copied());
        let cli = Cli::try_parse_from(line)
            .map_err(|_| Error::bug("the demo gave a command that does not exist"))?;
        let (output, captured) = Output::captured(Format::Json, true);
        let mut shell = Shell {
            output,
            prompt: Box::new(Typing { passphrase: self.passphrase, new }),
            world: World { offline: cli.global.offline, ..world.clone() },
            vault: self.vault.clone(),
            compartment: cli.global.compartment,
        };
        // A command of a command: the future is boxed because it contains itself.
        let carried: Pin<Box<dyn Future<Output = Result<Exit, Error>>>> =
            Box::pin(super::super::run(&mut shell, cli.command));
        let exit = match carried.await {
            Ok(exit) => exit,
            Err(error) => {
                shell.output.fail(&error);
                Exit::from(&error)
            }
        };
        Ok(Outcome { exit, records: captured.records() })
    }
}
