//! A vault on a disk, people around it, and somebody who types at its prompt.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use clap::Parser;
use lapwing::{
    cli::{
        self,
        args::{self, Cli},
        exit::Exit,
        output::{Captured, Format, Output},
        prompt::{Answer, Prompt, PromptError, Question, Scripted, TypedPassphrase},
        shell::Shell,
    },
    client::{self, Client},
    net::Transport,
};
use lapwing_vault::Cost;
use zeroize::Zeroizing;

use super::masked::masked;
use crate::{
    scenario::Folder,
    world::{Person, RelayNumber, World, calm},
};

/// A derivation that costs nothing: what is compared does not depend on it.
const CHEAP: Cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };

/// One command as it was seen, with what is random masked.
#[derive(Clone, PartialEq, Eq)]
pub struct Played {
    /// As it was typed.
    pub command: String,
    /// What was asked.
    pub asked: Vec<String>,
    /// What it told the shell.
    pub code: u8,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl fmt::Display for Played {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { command, asked, code, stdout, stderr } = self;
        write!(f, "$ {command}  (exit {code}, asked {asked:?})\n{stdout}")?;
        if !stderr.is_empty() {
            write!(f, "[stderr]\n{stderr}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Played {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A vault, its relays, the people whom its owner knows, and what was seen of it.
pub struct Stage {
    /// Relays, clock, network.
    pub world: World,
    /// The relay of everybody.
    pub relay: RelayNumber,
    /// A contact: a client of its own.
    pub ana: Person,
    /// Another one.
    pub bo: Person,
    /// What is typed at the prompt.
    pub passphrase: String,
    /// What was seen so far.
    pub transcript: Vec<Played>,
    vault: PathBuf,
    transport: Arc<dyn Transport>,
    _folder: Folder,
}

impl Stage {
    /// A stage on which nothing has happened. Stages with one seed have the same relays, people and times.
    pub async fn new(seed: u64) -> Self {
        let mut world = World::new(seed);
        let relay = world.relay().await;
        let ana = world.person("ana", &[relay]);
        let bo = world.person("bo", &[relay]);
        let (_, transport) = world.net.client();
        let folder = Folder::new();
        Self {
            vault: folder.join("vault"),
            passphrase: "heron orbit velvet candle morning".to_owned(),
            transcript: Vec::new(),
            world,
            relay,
            ana,
            bo,
            transport,
            _folder: folder,
        }
    }

    /// The access ticket of the relay.
    #[must_use]
    pub fn access(&self) -> String {
        self.world.net.with_relay(self.relay, |relay| relay.access_ticket())
    }

    /// A file beside the vault, with this ending.
    #[must_use]
    pub fn beside(&self, ending: &str) -> String {
        format!("{}{ending}", self.vault.display())
    }

    /// From here on somebody types this passphrase.
    #[must_use]
    pub fn typing(mut self, passphrase: &str) -> Self {
        passphrase.clone_into(&mut self.passphrase);
        self
    }

    /// Forgets what was seen so far: from here on it is compared.
    pub fn curtain(&mut self) {
        self.transcript.clear();
    }

    /// Types a command and the passphrase.
    pub async fn types(&mut self, words: &[&str]) -> Played {
        self.answers(words, []).await
    }

    /// As [`Stage::types`], with answers to what is asked after the passphrase.
    pub async fn answers(&mut self, words: &[&str], answers: impl IntoIterator<Item = Answer>) -> Played {
        let mut all = vec![Answer::passphrase(&self.passphrase)];
        all.extend(answers);
        let played = self.run(words, all).await;
        self.transcript.push(played.clone());
        played
    }

    /// As [`Stage::types`], and it must succeed.
    pub async fn must(&mut self, words: &[&str]) -> Played {
        let played = self.types(words).await;
        assert_eq!(played.code, 0, "{played}");
        played
    }

    /// As [`Stage::answers`], with a passphrase that is set, and it must succeed.
    pub async fn must_set(&mut self, new: &str, words: &[&str]) -> Played {
        let played = self.answers(words, [Answer::passphrase(new)]).await;
        assert_eq!(played.code, 0, "{played}");
        played
    }

    /// The vault's owner and a person become contacts through a ticket of the owner's, in this compartment.
    pub async fn meets(&mut self, who: fn(&mut Self) -> &mut Person, compartment: &str) {
        let name = who(self).name.clone();
        let words = ["--json", "invite", &name, "--compartment", compartment];
        let all = vec![Answer::passphrase(&self.passphrase)];
        let (played, captured) = self.run_raw(&words, all).await;
        self.transcript.push(played);
        let stdout = captured.stdout();
        let ticket =
            stdout.split('"').find(|word| word.starts_with("lapwing:")).expect("a ticket").to_owned();
        who(self).join(&ticket, "owner");
        self.settles(who).await;
        self.must(&["sync"]).await;
        self.settles(who).await;
    }

    /// The vault, unlocked, for what no command does.
    ///
    /// # Panics
    /// It does not open.
    pub async fn unlocks(&self) -> Client {
        let passphrase = TypedPassphrase::new(Zeroizing::new(self.passphrase.clone())).expect("a passphrase");
        Client::unlock(&self.client_world(), &self.vault, &passphrase).await.expect("an unlocked vault")
    }

    fn client_world(&self) -> client::World {
        let clock = self.world.clock.clone();
        client::World {
            cost: CHEAP,
            transport: Arc::clone(&self.transport),
            clock: Arc::new(move || clock.now()),
            offline: false,
        }
    }

    /// A person sends and takes until nothing is left to do.
    pub async fn settles(&mut self, who: fn(&mut Self) -> &mut Person) {
        calm(&mut [who(self)]).await;
    }

    async fn run(&mut self, words: &[&str], answers: Vec<Answer>) -> Played {
        self.run_raw(words, answers).await.0
    }

    async fn run_raw(&mut self, words: &[&str], answers: Vec<Answer>) -> (Played, Captured) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let typed = ["lapwing"].iter().chain(words).copied();
        let json = words.contains(&"--json");
        let (output, captured) =
            Output::captured(if json { Format::Json } else { Format::Human }, words.contains(&"-q"));
        let code = match Cli::try_parse_from(typed) {
            Ok(cli) => {
                let mut shell = Shell {
                    output,
                    prompt: Box::new(Listening { script: Scripted::new(answers), asked: Arc::clone(&asked) }),
                    world: client::World { offline: cli.global.offline, ..self.client_world() },
                    vault: self.vault.clone(),
                    compartment: cli.global.compartment,
                };
                match cli::run(&mut shell, cli.command).await {
                    Ok(exit) => exit,
                    Err(error) => {
                        shell.output.fail(&error);
                        Exit::from(&error)
                    }
                }
            }
            Err(error) => {
                output.fail(&args::misused(&error));
                Exit::Usage
            }
        };
        let vault = self.vault.display().to_string();
        let seen = |text: String| masked(&text.replace(&vault, "VAULT"));
        let played = Played {
            command: seen(words.join(" ")),
            asked: asked.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            code: code.code(),
            stdout: seen(captured.stdout()),
            stderr: seen(captured.stderr()),
        };
        (played, captured)
    }
}

/// Answers by script and keeps the questions, with their options.
struct Listening {
    script: Scripted,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Listening {
    fn hear(&self, question: String) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(question);
    }
}

impl Prompt for Listening {
    fn passphrase(&mut self, what: &str) -> Result<TypedPassphrase, PromptError> {
        self.hear(what.to_owned());
        self.script.passphrase(what)
    }

    fn new_passphrase(&mut self, what: &str) -> Result<TypedPassphrase, PromptError> {
        self.hear(what.to_owned());
        self.script.new_passphrase(what)
    }

    fn confirm(&mut self, question: Question<'_>) -> Result<bool, PromptError> {
        self.hear(question.text().to_owned());
        self.script.confirm(question)
    }

    fn choose(&mut self, question: Question<'_>, options: &[&str]) -> Result<usize, PromptError> {
        self.hear(format!("{} {options:?}", question.text()));
        self.script.choose(question, options)
    }

    fn text(&mut self, question: Question<'_>) -> Result<String, PromptError> {
        self.hear(question.text().to_owned());
        self.script.text(question)
    }
}
