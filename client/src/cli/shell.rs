//! What every command works with: the vault's path, the output, the questions, the world.

use std::{
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    args::NewPassphraseArgs,
    output::Output,
    progress::Progress,
    prompt::{Prompt, TypedPassphrase, standard_input},
    strength::{Level, Strength},
};
use crate::{
    client::{Client, World, refused_by_engine},
    driver::Report,
    engine::{self, Effect, Fault, view},
    error::Error,
    store::{StoreError, TrustSide},
    words::{DEFAULT_WORDS, Suggestion},
};

/// How long a command sends and fetches before it answers. What is not done by then is kept.
pub const SETTLE: Duration = Duration::from_secs(12);

/// Longest text that is read from standard input: a message, a ticket.
const MAX_INPUT: u64 = 64 << 10;

/// What a command works with.
pub struct Shell {
    /// The only way out.
    pub output: Output,
    /// The only way to ask.
    pub prompt: Box<dyn Prompt>,
    /// Network, clock, cost of the derivation.
    pub world: World,
    /// The vault's file.
    pub vault: PathBuf,
    /// The compartment that was named.
    pub compartment: Option<String>,
}

impl Shell {
    /// Asks for the passphrase and opens the vault.
    ///
    /// # Errors
    /// Nothing is opened; nobody can be asked; the file is no vault.
    pub async fn unlock(&mut self) -> Result<Client, Error> {
        self.unlock_with().await.map(|(client, _)| client)
    }

    /// As [`Shell::unlock`], and keeps the passphrase: to compare a new one with it.
    ///
    /// # Errors
    /// As [`Shell::unlock`].
    pub async fn unlock_with(&mut self) -> Result<(Client, TypedPassphrase), Error> {
        require_file(&self.vault)?;
        let passphrase = self.prompt.passphrase("passphrase")?;
        let spinner = Progress::spinner(&self.output, "unlocking");
        let client = Client::unlock(&self.world, &self.vault, &passphrase).await?;
        drop(spinner);
        if client.damaged() > 0 {
            self.output.warn(
                "a compartment of this vault cannot be opened any more: it was overwritten or damaged; the others are whole",
            );
        }
        if let Some(fault) = client.unfinished_move() {
            self.output.warn(format_args!("{fault}; {}", fault.hint()));
        }
        for (name, _) in client.damaged_keys() {
            self.output.warn(format_args!(
                "some keys of {name} do not open any more, nor do the texts under them; the rest is whole; before you erase anything, run: lapwing doctor"
            ));
        }
        for (name, fault) in client.unerased() {
            self.output.warn(format_args!("{name}: {fault}; {}", fault.hint()));
        }
        for (name, percent) in client.crowded() {
            self.output.warn(format_args!(
                "{name} is {percent} % full: delete what is not needed, or: lapwing grow"
            ));
        }
        Ok((client, passphrase))
    }

    /// Ends a command's work with the vault. ERA-07: what could not be overwritten is told.
    pub async fn close(&self, client: Client) {
        if let Err(fault) = client.close().await {
            self.output.warn(format_args!("{fault}; {}", fault.hint()));
        }
    }

    /// As [`Shell::close`], for a command that erases: it has not done so while something is left.
    ///
    /// # Errors
    /// [`Fault::NotErased`].
    pub async fn close_erased(&self, client: Client) -> Result<(), Error> {
        client.close().await.map_err(|fault| refused_by_engine(&fault))
    }

    /// As [`Shell::new_passphrase`], after showing one drawn at random where that was asked for.
    ///
    /// # Errors
    /// As [`Shell::new_passphrase`].
    pub fn set_passphrase(&mut self, what: &str, args: NewPassphraseArgs) -> Result<TypedPassphrase, Error> {
        let NewPassphraseArgs { weak, suggest } = args;
        if let Some(language) = suggest {
            let drawn = Suggestion::draw(language, DEFAULT_WORDS, &mut crate::client::generator());
            self.output.warn(format_args!(
                "drawn just now, for you alone: {}\n({} bits; write it nowhere that is searched, and clear this screen)",
                drawn.expose(),
                drawn.bits()
            ));
        }
        self.new_passphrase(what, weak)
    }

    /// Asks for a passphrase that is to be set, and refuses a weak one unless that is accepted.
    ///
    /// # Errors
    /// It is too easy to guess; nobody can be asked.
    pub fn new_passphrase(&mut self, what: &str, weak: bool) -> Result<TypedPassphrase, Error> {
        let passphrase = self.prompt.new_passphrase(what)?;
        let strength = Strength::of(passphrase.expose());
        if strength.level() == Level::TooWeak && !weak {
            return Err(Error::refused(
                "the passphrase is too easy to guess",
                strength.advice().map_or_else(
                    || "use five or more random words; --weak accepts it all the same".to_owned(),
                    |advice| format!("{advice}; --weak accepts it all the same"),
                ),
            ));
        }
        Ok(passphrase)
    }

    /// Sends what waits and takes what came, unless that is switched off, and tells what cannot wait.
    pub async fn settle(&mut self, client: &mut Client) -> Report {
        self.settle_for(client, SETTLE).await
    }

    /// As [`Shell::settle`], for another time.
    pub async fn settle_for(&mut self, client: &mut Client, budget: Duration) -> Report {
        if self.world.offline {
            return Report::default();
        }
        let report = client.settle(budget).await;
        self.announce(client, &report.effects);
        self.repeat_alerts(client, &report.effects);
        self.warn(&report);
        self.warn_of_busy(client);
        report
    }

    /// As [`Shell::settle`], for a command that shows the alerts itself: none is told beside.
    pub async fn settle_for_alerts(&mut self, client: &mut Client) -> Report {
        if self.world.offline {
            return Report::default();
        }
        let report = client.settle(SETTLE).await;
        let (_, others): (Vec<_>, Vec<_>) =
            report.effects.iter().partition(|(_, effect)| matches!(effect, Effect::Alert { .. }));
        for (compartment, effect) in others {
            self.announce_one(client, *compartment, effect);
        }
        self.warn(&report);
        self.warn_of_busy(client);
        report
    }

    /// What went wrong while settling.
    pub fn warn(&self, report: &Report) {
        for trouble in &report.trouble {
            self.output.warn(format_args!("{}: {}", trouble.relay, trouble.error));
        }
        for relay in &report.unread {
            self.output.warn(format_args!(
                "not all that came to {relay} could be fetched: something may be missing; try later: lapwing sync"
            ));
        }
        let full = |fault: &Fault| matches!(fault, Fault::Store(StoreError::Full));
        if report.faults.iter().any(full) {
            self.output.warn(
                "a compartment is full: what comes for it stays at the relay, as long as that keeps it",
            );
        }
        let unerased = |fault: &Fault| matches!(fault, Fault::NotErased(_));
        if let Some(fault) = report.faults.iter().find(|fault| unerased(fault)) {
            self.output.warn(format_args!("{fault}; {}", fault.hint()));
        }
        if !report.faults.iter().all(|fault| full(fault) || unerased(fault)) {
            self.output.warn("something could not be taken in; run: lapwing doctor");
        }
    }

    /// A relay that takes nothing new answers, so nothing else says that something waits.
    fn warn_of_busy(&self, client: &Client) {
        for number in 0..client.compartments().len() {
            for relay in client.read(number, engine::busy_relays).unwrap_or_default() {
                self.output.warn(format_args!(
                    "{relay} takes nothing new now: what waits for it is kept; try later: lapwing sync"
                ));
            }
        }
    }

    /// Tells what must not be missed, whatever the command is about.
    pub fn announce(&self, client: &Client, effects: &[(usize, Effect)]) {
        for (compartment, effect) in effects {
            self.announce_one(client, *compartment, effect);
        }
    }

    fn announce_one(&self, client: &Client, compartment: usize, effect: &Effect) {
        match effect {
            Effect::Alert { alert } => self.alarm(client, compartment, alert),
            Effect::Inconsistent | Effect::Copied => {
                self.output.warn(warning(effect).unwrap_or_default());
            }
            Effect::Contact { chat } => {
                let name = client.read(compartment, |unit| view::chat_name(unit, chat)).unwrap_or_default();
                let state = client.read(compartment, |unit| view::chat(unit, &name)).map(|chat| chat.state);
                match state {
                    Ok(view::ChatState::Open) => self.output.talk(format_args!("{name} is a contact now")),
                    Ok(view::ChatState::Failed) => self.output.warn(format_args!(
                        "{name} came to nothing: the ticket was used by somebody else, withdrawn or has expired"
                    )),
                    _ => {}
                }
            }
            Effect::Trust { .. } => {
                for trust in client.read(compartment, view::trusts).unwrap_or_default() {
                    if trust.side == TrustSide::Theirs && !trust.accepted {
                        let chat = trust.chat;
                        self.output.talk(format_args!(
                            "{chat} asks you to be a trusted contact; agree with: lapwing trust accept {chat}"
                        ));
                    }
                }
            }
            Effect::Voices => self.tell_too_few(client, compartment),
            Effect::Invitation { invitation } => {
                let waiting = client.read(compartment, view::invitations).unwrap_or_default();
                if let Some(found) = waiting.iter().find(|waits| waits.id == *invitation) {
                    let (group, through) = (found.group.line(), &found.through);
                    let what = if found.ours { "asks to be let into" } else { "invites you to" };
                    self.output.talk(format_args!(
                        "{through} {what} the group {group}; answer with: lapwing group approve {through}"
                    ));
                }
            }
            _ => {}
        }
    }

    /// AFR-03: says which plans have too few contacts left to be set off from afar.
    pub fn tell_too_few(&self, client: &Client, compartment: usize) {
        for plan in client.read(compartment, view::plans).unwrap_or_default() {
            if plan.remote.is_some_and(|remote| remote.of == 0) {
                self.output.warn(format_args!(
                    "too few trusted contacts are left to set off {} from afar; see: lapwing sos list",
                    plan.name
                ));
            }
        }
    }

    /// An alert repeats until it is acknowledged.
    fn repeat_alerts(&self, client: &Client, told: &[(usize, Effect)]) {
        for compartment in 0..client.compartments().len() {
            for alert in client.read(compartment, view::alerts).unwrap_or_default() {
                let new = told
                    .iter()
                    .any(|(_, effect)| matches!(effect, Effect::Alert { alert: id } if *id == alert.id));
                if alert.acknowledged.is_none() && !new {
                    self.alarm(client, compartment, &alert.id);
                }
            }
        }
    }

    fn alarm(&self, client: &Client, compartment: usize, id: &[u8; 16]) {
        let alerts = client.read(compartment, view::alerts).unwrap_or_default();
        if let Some(alert) = alerts.into_iter().find(|alert| alert.id == *id) {
            self.output.bell();
            let who = alert.chat.as_deref().unwrap_or("a contact");
            self.output.warn(format_args!("ALERT from {who}: {}", alert.text.line()));
            self.output.warn("see it with: lapwing alert list");
        }
    }

    /// The argument itself, or standard input for `-`: all of it, or with `--passphrase-fd 0` all but its first line.
    ///
    /// # Errors
    /// Standard input is no text or too long; its first line was to be the passphrase and is not.
    pub fn argument(&mut self, argument: &str) -> Result<String, Error> {
        if argument != "-" {
            return Ok(argument.to_owned());
        }
        self.prompt.before_input()?;
        let mut text = Vec::new();
        standard_input()
            .and_then(|input| input.take(MAX_INPUT + 1).read_to_end(&mut text))
            .map_err(|_| Error::usage("standard input cannot be read", "pipe the text into the command"))?;
        if u64::try_from(text.len()).unwrap_or(u64::MAX) > MAX_INPUT {
            return Err(Error::usage("what came on standard input is too long", "is it the right file?"));
        }
        String::from_utf8(text)
            .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
            .map_err(|_| Error::usage("what came on standard input is not text", "use UTF-8"))
    }
}

/// Says that there is no vault before a passphrase is asked for.
fn require_file(path: &Path) -> Result<(), Error> {
    if path.try_exists().unwrap_or(true) {
        return Ok(());
    }
    Err(Error::refused(
        "there is no file at this path",
        "make a vault with: lapwing init; or say where it is with --vault PATH",
    ))
}

/// What must not be missed whatever a command is about, and needs nothing but its words.
pub fn warning(effect: &Effect) -> Option<&'static str> {
    match effect {
        Effect::Inconsistent => Some(
            "a relay lost or changed something that it had stored; messages may be missing; see: lapwing status",
        ),
        Effect::Copied => Some(
            "this vault was used in another place too: a copy of its file, or an older state of it. Two copies break each other's sessions and lose messages; use only one of them, and there run: lapwing chat renew --all",
        ),
        _ => None,
    }
}
