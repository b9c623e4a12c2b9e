//! Somebody with a vault, who types commands.

use std::{
    io::PipeWriter,
    path::{Path, PathBuf},
    process::Command,
};

use super::{folder::Folder, outcome::Outcome, programs, relay::Relay, running::Running};

/// The vault of a scenario: the smallest, because it is written whole when it is made.
const SIZE: &str = "8MiB";

/// A person: a vault, the passphrase that is typed at it.
#[derive(Clone, Debug)]
pub struct Person {
    /// The vault's file.
    pub vault: PathBuf,
    /// What is typed at the prompt.
    pub passphrase: String,
}

impl Person {
    /// Somebody with a vault of this name in a folder; it is not made yet. Strong passphrase, one for each name.
    #[must_use]
    pub fn named(folder: &Folder, name: &str) -> Self {
        Self { vault: folder.join(name), passphrase: format!("heron orbit velvet candle of {name}") }
    }

    /// Makes the vault and adds the relay.
    #[must_use]
    pub fn at(folder: &Folder, name: &str, relay: &Relay) -> Self {
        let person = Self::named(folder, name);
        let _ = person.init().done();
        let _ = person.runs(&["relay", "add", &relay.access]).done();
        person
    }

    /// The same person with another passphrase, at the same vault.
    #[must_use]
    pub fn typing(&self, passphrase: &str) -> Self {
        Self { vault: self.vault.clone(), passphrase: passphrase.to_owned() }
    }

    /// Makes the vault.
    #[must_use]
    pub fn init(&self) -> Outcome {
        let words = self.words(true, &["init", "--size", SIZE, "--new-passphrase-fd", "0"]);
        start(&words, self.input("", b"")).end()
    }

    /// Runs a command with `--json`.
    #[must_use]
    pub fn runs(&self, words: &[&str]) -> Outcome {
        self.starts(words).end()
    }

    /// Starts a command with `--json`.
    #[must_use]
    pub fn starts(&self, words: &[&str]) -> Running {
        start(&self.unlocking(true, words), self.input("", b""))
    }

    /// Runs a command as a person does, without `--json`.
    #[must_use]
    pub fn reads(&self, words: &[&str]) -> Outcome {
        start(&self.unlocking(false, words), self.input("", b"")).end()
    }

    /// Runs a command that sets a passphrase.
    #[must_use]
    pub fn sets(&self, new: &str, words: &[&str]) -> Outcome {
        self.starts_setting(new, words).end()
    }

    /// Starts a command that sets a passphrase.
    #[must_use]
    pub fn starts_setting(&self, new: &str, words: &[&str]) -> Running {
        let mut all = self.unlocking(true, words);
        all.extend(["--new-passphrase-fd".to_owned(), "0".to_owned()]);
        start(&all, self.input(new, b""))
    }

    /// Runs a command that takes more from standard input, behind the line with the passphrase.
    #[must_use]
    pub fn pipes(&self, rest: &[u8], words: &[&str]) -> Outcome {
        start(&self.unlocking(true, words), self.input("", rest)).end()
    }

    /// Starts a command with `--json` whose output, errors included, goes into this pipe.
    #[must_use]
    pub fn starts_into(&self, pipe: PipeWriter, words: &[&str]) -> Running {
        let mut command = Command::new(programs::lapwing());
        command.args(self.unlocking(true, words));
        Running::into_pipe(&mut command, words.join(" "), self.input("", b""), pipe)
    }

    /// The vault, byte by byte.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.vault).expect("the vault's file")
    }

    /// The chats as `chat list` shows them.
    #[must_use]
    pub fn chats(&self) -> serde_json::Value {
        self.runs(&["chat", "list"]).done().one("chats")["chats"].clone()
    }

    fn unlocking(&self, json: bool, words: &[&str]) -> Vec<String> {
        let mut all = self.words(json, words);
        all.extend(["--passphrase-fd".to_owned(), "0".to_owned()]);
        all
    }

    fn words(&self, json: bool, words: &[&str]) -> Vec<String> {
        let vault = text(&self.vault);
        let global = ["--vault", vault].into_iter().chain(json.then_some("--json"));
        global.chain(words.iter().copied()).map(str::to_owned).collect()
    }

    fn input(&self, new: &str, rest: &[u8]) -> Vec<u8> {
        let mut input = format!("{}\n", self.passphrase).into_bytes();
        if !new.is_empty() {
            input.extend(format!("{new}\n").into_bytes());
        }
        input.extend(rest);
        input
    }
}

fn start(words: &[String], input: Vec<u8>) -> Running {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Running::start(&programs::lapwing(), &words, &input)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of a scenario is text")
}

/// A relay, and two people who are contacts of each other: `ana` knows `bo`, `bo` knows `ana`.
#[derive(Debug)]
pub struct Pair {
    /// Their relay.
    pub relay: Relay,
    /// The one who invited.
    pub ana: Person,
    /// The one who joined.
    pub bo: Person,
    /// Where everything lies. The last field, so that it goes when nothing uses it any more.
    pub folder: Folder,
}

impl Pair {
    /// Two people whose chat is open on both sides.
    #[must_use]
    pub fn meet() -> Self {
        let folder = Folder::new();
        let relay = Relay::start(&folder.join("relay"));
        let ana = Person::at(&folder, "ana", &relay);
        let bo = Person::at(&folder, "bo", &relay);
        introduce(&ana, "ana", &bo, "bo");
        Self { relay, ana, bo, folder }
    }
}

/// Makes two people contacts: `one` invites, `other` joins, and both have the other's first answer.
pub fn introduce(one: &Person, one_name: &str, other: &Person, other_name: &str) {
    let ticket = one.runs(&["invite", other_name]).done().text("ticket", "ticket");
    let _ = other.runs(&["join", &ticket, "--name", one_name]).done();
    let _ = one.runs(&["sync"]).done();
    let joined = other.chats();
    let found = joined.as_array().into_iter().flatten().find(|chat| chat["name"] == one_name);
    assert_eq!(found.map(|chat| chat["state"].clone()), Some("open".into()), "{joined}");
}
