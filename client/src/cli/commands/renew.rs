//! `chat renew`.

use std::fmt;

use serde::Serialize;

use crate::{
    cli::{exit::Exit, output::Record, shell::Shell},
    engine::{
        Command,
        view::{self, ChatState},
    },
    error::Error,
    store::ChatKind,
};

/// What became of it.
#[derive(Serialize)]
struct Renewing {
    /// Begun now.
    chats: Vec<String>,
    /// Contacts that cannot be renewed, with `--all`.
    impossible: Vec<String>,
    /// Those of `chats` who have not answered yet.
    waiting: Vec<String>,
}

impl Record for Renewing {
    const TYPE: &'static str = "renewing";
    fn human(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.chats.as_slice() {
            [] => f.write_str("there is no contact whose session could be renewed")?,
            [one] => write!(f, "the session with {one} is begun anew")?,
            many => write!(f, "the sessions with {} are begun anew", many.join(", "))?,
        }
        if !self.waiting.is_empty() {
            write!(f, "\nnot answered yet: {}", self.waiting.join(", "))?;
        }
        if !self.impossible.is_empty() {
            write!(f, "\ncannot be renewed, invite them anew: {}", self.impossible.join(", "))?;
        }
        Ok(())
    }
}

pub(super) async fn renew(shell: &mut Shell, chat: Option<&str>) -> Result<Exit, Error> {
    let mut client = shell.unlock().await?;
    let (mut chats, mut impossible) = (Vec::new(), Vec::new());
    match chat {
        Some(chat) => {
            let number = client.compartment_of_chat(shell.compartment.as_deref(), chat)?;
            client.command(number, Command::Renew { chat: chat.to_owned() })?;
            chats.push((number, chat.trim().to_owned()));
        }
        None => {
            let wanted =
                shell.compartment.as_deref().map(|name| client.compartment(Some(name))).transpose()?;
            for number in 0..client.compartments().len() {
                if wanted.is_some_and(|wanted| wanted != number) {
                    continue;
                }
                for shown in client.read(number, view::chats)? {
                    if shown.kind != ChatKind::Direct || shown.blocked || shown.state != ChatState::Open {
                        continue;
                    }
                    match client.command(number, Command::Renew { chat: shown.name.clone() }) {
                        Ok(_) => chats.push((number, shown.name)),
                        Err(_) => impossible.push(shown.name),
                    }
                }
            }
        }
    }
    shell.settle(&mut client).await;
    let mut waiting = Vec::new();
    for (number, name) in &chats {
        if client.read(*number, |unit| view::chat(unit, name))?.state == ChatState::Renewing {
            waiting.push(name.clone());
        }
    }
    shell.close(client).await;
    let chats = chats.into_iter().map(|(_, name)| name).collect();
    shell.output.emit(&Renewing { chats, impossible, waiting })?;
    Ok(Exit::Done)
}
