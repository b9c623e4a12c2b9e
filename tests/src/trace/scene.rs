//! A vault in a folder of its own, to which commands are swept, and the people that some commands need.

use std::path::Path;

use super::{
    Places, Subject, Sweep,
    sweep::{Beside, Leaves, Swept},
};
use crate::scenario::{Folder, Relay, wait::timed};

/// The owner's passphrase.
pub const REAL: &str = "heron orbit velvet candle of bo";
/// One that opens nothing yet.
pub const OTHER: &str = "orchid lantern gravel prism tide";
/// One that hides.
pub const HIDE: &str = "seven quiet penguins ride north";
/// One that destroys.
pub const DESTROY: &str = "granny bakes plum cake in april";

/// A command that tells which compartments there are.
pub const COMPARTMENTS: &[&str] = &["--json", "--offline", "compartment", "list"];
/// A command that tells which chats there are.
pub const CHATS: &[&str] = &["--json", "--offline", "chat", "list"];

/// Which places are tried where not all are, unless `LAPWING_SEED` says otherwise.
const SEED: u64 = 6;

/// A vault in a folder of its own.
pub struct Scene {
    /// Whose it is.
    pub subject: Subject,
    folder: Folder,
}

/// A command to be swept.
#[derive(Clone, Copy)]
pub struct Killed<'a> {
    /// What is typed at the prompt.
    pub typing: &'a str,
    /// The command.
    pub words: &'a [&'a str],
    /// What follows the passphrase.
    pub more: &'a str,
    /// See [`Sweep::probes`].
    pub probes: &'a [(&'a str, &'a [&'a str])],
    /// See [`Sweep::beside`].
    pub beside: Option<&'a Beside<'a>>,
    /// See [`Sweep::power`].
    pub power: bool,
    /// See [`Sweep::leaves`].
    pub leaves: Leaves,
    /// See [`Sweep::tells_when_done`].
    pub tells_when_done: bool,
    /// See [`Sweep::again`].
    pub again: bool,
    /// See [`Sweep::places`].
    pub places: Places,
}

impl<'a> Killed<'a> {
    /// The owner's command.
    #[must_use]
    pub fn new(words: &'a [&'a str], probes: &'a [(&'a str, &'a [&'a str])]) -> Self {
        Self {
            typing: REAL,
            words,
            more: "",
            probes,
            beside: None,
            power: true,
            leaves: Leaves::Nothing,
            tells_when_done: true,
            again: false,
            places: Places::default(),
        }
    }
}

impl Scene {
    /// Without a vault.
    #[must_use]
    pub fn empty(program: &Path) -> Self {
        let folder = Folder::new();
        Self { subject: Subject::new(program, &folder.join("vault"), REAL), folder }
    }

    /// With a vault.
    #[must_use]
    pub fn made(program: &Path) -> Self {
        let scene = Self::empty(program);
        scene.subject.does(&["init", "--size", "8MiB"], "");
        scene
    }

    /// With two compartments and both kinds of SOS passphrases.
    #[must_use]
    pub fn with_plans(program: &Path) -> Self {
        let scene = Self::made(program);
        scene.plans();
        scene
    }

    /// With a chat called `ana`, in which these messages wait. Answers the relay and ana's vault too, which are kept as
    /// long as they are used.
    #[must_use]
    pub fn with_messages(program: &Path, messages: &[&str]) -> (Self, Relay, Self) {
        let (scene, ana) = (Self::made(program), Self::made(program));
        let relay = Relay::start(&ana.folder.join("relay"));
        scene.meets(&ana, &relay.access);
        for message in messages {
            scene.subject.does(&["--offline", "send", "ana", "-"], message);
        }
        (scene, relay, ana)
    }

    /// Gets a chat called `ana` with somebody who gets one called `bo`, over the relay to which this ticket admits.
    ///
    /// # Panics
    /// A command fails.
    pub fn meets(&self, ana: &Self, access: &str) {
        for one in [self, ana] {
            one.subject.does(&["relay", "add", access], "");
        }
        let made = self.subject.does(&["--json", "invite", "ana"], "").told();
        let ticket = made.lines().find_map(|line| {
            let record: serde_json::Value = serde_json::from_str(line).ok()?;
            Some(record["ticket"].as_str()?.to_owned())
        });
        ana.subject.does(&["join", &ticket.expect("a ticket"), "--name", "bo"], "");
        self.subject.does(&["sync"], "");
    }

    /// Sets up the compartments and SOS passphrases.
    pub fn plans(&self) {
        self.subject.does(&["compartment", "rename", "main", "private"], "");
        self.subject.does(&["compartment", "create", "main"], "");
        for (name, action, passphrase) in [("border", "hide", HIDE), ("arrest", "destroy", DESTROY)] {
            self.subject.does(&plan_words(name, action), &format!("{passphrase}\n"));
        }
    }

    /// The vault's bytes, if there is one.
    #[must_use]
    pub fn image(&self) -> Option<Vec<u8>> {
        std::fs::read(&self.subject.vault).ok()
    }

    /// Kills the command at its places, and says what came of it.
    ///
    /// # Panics
    /// See [`Sweep::sweep`].
    pub fn killed(&self, what: &Killed<'_>) -> Swept {
        let Killed { typing, words, more, probes, beside, power, leaves, tells_when_done, again, places } =
            *what;
        let subject = self.subject.typing(typing);
        let seed = std::env::var("LAPWING_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(SEED);
        let before = self.image();
        let sweep = Sweep {
            subject: &subject,
            before,
            words,
            more,
            probes,
            beside,
            power,
            leaves,
            tells_when_done,
            again,
            places,
            seed,
        };
        let (took, swept) = timed(|| sweep.sweep());
        let Swept { changes, killed, cuts, ended, .. } = &swept;
        println!(
            "{words:?}: {changes} changing calls; {places} places; killed at {killed}: {} before, {} after; {cuts} power \
             cuts; {} s",
            ended.0,
            ended.1,
            took.as_secs()
        );
        assert!(ended.0 > 0, "{words:?}: no kill came before it was done");
        assert!(ended.1 > 0, "{words:?}: after the last call it is done");
        swept
    }
}

/// Sets up an SOS passphrase, which is read from standard input, that shows `main`.
#[must_use]
pub fn plan_words<'a>(name: &'a str, action: &'a str) -> Vec<&'a str> {
    let words = ["sos", "add", "--name", name, "--show", "main", "--do", action];
    [&words[..], &["--no-alert", "--yes", "--new-passphrase-fd", "0"]].concat()
}
