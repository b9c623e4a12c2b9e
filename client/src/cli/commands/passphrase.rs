//! `passphrase change|add|list|remove|compare|suggest`.

use std::fmt;

use serde::Serialize;

use super::done::Done;
use crate::{
    cli::{
        alike::too_close,
        args::{NewPassphraseArgs, PassphraseCommand},
        exit::Exit,
        output::Record,
        shell::Shell,
        table::Table,
    },
    client::{generator, require_distinct},
    error::Error,
    words::{Language, Suggestion},
};

pub(super) async fn run(shell: &mut Shell, command: PassphraseCommand) -> Result<Exit, Error> {
    match command {
        PassphraseCommand::Change { new } => change(shell, new).await,
        PassphraseCommand::Add { name, show, new } => add(shell, name.as_deref(), &show, new).await,
        PassphraseCommand::List => list(shell).await,
        PassphraseCommand::Remove { name } => {
            let mut client = shell.unlock().await?;
            client.remove_passphrase(&name)?;
            shell.close(client).await;
            let name = name.trim();
            shell.output.emit(&Done::new(format!("{name} is removed; it opens nothing any more")))?;
            shell.output.talk(COPIES);
            Ok(Exit::Done)
        }
        PassphraseCommand::Compare => compare(shell),
        PassphraseCommand::Suggest { words, language } => suggest(shell, language, words),
    }
}

const COPIES: &str = "Copies of the file from before still open with the old one.";

const UNCOMPARED: &str = "\
There are passphrases here that open something else, and lapwing cannot know them. Make sure that a slip of the finger
does not turn the new one into one of them: lapwing passphrase compare";

async fn change(shell: &mut Shell, args: NewPassphraseArgs) -> Result<Exit, Error> {
    let (mut client, old) = shell.unlock_with().await?;
    let new = shell.set_passphrase("new passphrase", args)?;
    if new.expose() == old.expose() {
        return Err(Error::refused(
            "that is the passphrase you have",
            "choose another one; nothing was changed",
        ));
    }
    // Both open nothing but this: being alike is only unwise where one of them does something else.
    let alike = require_distinct(&old, &new).is_err();
    client.change_passphrase(&new)?;
    let others = client.knows_other_passphrases();
    shell.close(client).await;
    shell.output.emit(&Done::new("the passphrase is changed; the old one opens nothing any more"))?;
    if alike {
        shell.output.talk("It is much like the old one: whoever knew that may guess it.");
    }
    shell.output.talk(COPIES);
    if others {
        shell.output.talk(UNCOMPARED);
    }
    Ok(Exit::Done)
}

async fn add(
    shell: &mut Shell,
    name: Option<&str>,
    show: &[String],
    args: NewPassphraseArgs,
) -> Result<Exit, Error> {
    let (mut client, typed) = shell.unlock_with().await?;
    let all = client.compartments().len();
    let mut shows: Vec<usize> = if show.is_empty() {
        (0..all).collect()
    } else {
        show.iter().map(|name| client.compartment(Some(name))).collect::<Result<_, _>>()?
    };
    shows.sort_unstable();
    shows.dedup();
    // Refused before anything is typed.
    client.require_showable(&shows)?;
    let name = client.new_name(name)?;
    let names: Vec<&str> = shows.iter().map(|n| client.compartments()[*n].name.as_str()).collect();
    shell.output.talk(format_args!(
        "The passphrase you set next opens {}, and hides and alerts nothing. Forgotten, it is lost; the others stay.",
        names.join(", ")
    ));
    if shows.len() < all {
        shell.output.talk(
            "What it does not open stays unseen in the file. What is created with it cannot know of that and may take\n\
             its room: make no compartment and no passphrase with it unless you accept to lose something.",
        );
    }
    let new = shell.set_passphrase("new passphrase", args)?;
    let distinct = require_distinct(&typed, &new);
    if shows.len() < all {
        // One does something else than the other.
        distinct?;
    } else if distinct.is_err() && new.expose() != typed.expose() {
        shell.output.talk("It is much like the one you typed: whoever knows that may guess it.");
    }
    let others = client.knows_other_passphrases();
    client.add_passphrase(Some(&name), &shows, &new)?;
    shell.close(client).await;
    shell.output.emit(&Done::new(format!("{name} is added")))?;
    if others {
        shell.output.talk(UNCOMPARED);
    }
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Passphrases {
    passphrases: Vec<One>,
}

#[derive(Serialize)]
struct One {
    /// Null: the one that was typed.
    name: Option<String>,
    opens: Vec<String>,
    /// It goes with the plan of its name.
    plan: bool,
}

impl Record for Passphrases {
    const TYPE: &'static str = "passphrases";
    fn human(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&["passphrase", "opens", "set up by"]);
        for one in &self.passphrases {
            table.row([
                one.name.as_deref().unwrap_or("(the one you typed)"),
                &one.opens.join(", "),
                match (&one.name, one.plan) {
                    (None, _) => "",
                    (Some(_), true) => "sos add",
                    (Some(_), false) => "passphrase add",
                },
            ]);
        }
        write!(f, "{table}")
    }
}

async fn list(shell: &mut Shell) -> Result<Exit, Error> {
    let client = shell.unlock().await?;
    let passphrases = client
        .passphrases()?
        .into_iter()
        .map(|one| One { name: one.name, opens: one.opens, plan: one.planned })
        .collect();
    shell.close(client).await;
    shell.output.emit(&Passphrases { passphrases })?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Comparison {
    alike: bool,
}

impl Record for Comparison {
    const TYPE: &'static str = "comparison";
    fn human(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.alike {
            "too much alike: a slip of the finger, or stopping early, would turn one into the other"
        } else {
            "different enough: more than three slips apart, and neither begins the other"
        })
    }
}

/// Opens nothing, so that any two can be compared, at any time, without setting anything off.
fn compare(shell: &mut Shell) -> Result<Exit, Error> {
    let one = shell.prompt.passphrase("one passphrase")?;
    let other = shell.prompt.passphrase("the other passphrase")?;
    let alike = too_close(one.expose(), other.expose());
    shell.output.emit(&Comparison { alike })?;
    Ok(if alike { Exit::Negative } else { Exit::Done })
}

#[derive(Serialize)]
struct Suggested<'a> {
    passphrase: &'a str,
    bits: usize,
}

impl Record for Suggested<'_> {
    const TYPE: &'static str = "suggestion";
    fn human(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.passphrase)
    }
}

fn suggest(shell: &mut Shell, language: Language, words: usize) -> Result<Exit, Error> {
    let drawn = Suggestion::draw(language, words, &mut generator());
    shell.output.emit(&Suggested { passphrase: drawn.expose(), bits: drawn.bits() })?;
    shell.output.talk(format_args!(
        "{} bits: it holds, also against who knows the list and the number of words. Spaces count. Clear the screen when\n\
         you know it.",
        drawn.bits()
    ));
    Ok(Exit::Done)
}
