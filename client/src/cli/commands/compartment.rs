//! `compartment create|delete|rename|list`.

use std::fmt;

use serde::Serialize;

use super::done::Done;
use crate::{
    cli::{
        args::CompartmentCommand, exit::Exit, output::Record, prompt::Question, shell::Shell, size,
        table::Table,
    },
    client::Client,
    clock,
    engine::view,
    error::Error,
};

#[derive(Serialize)]
struct Compartments {
    compartments: Vec<One>,
}

#[derive(Serialize)]
struct One {
    name: String,
    chats: usize,
    used_bytes: u64,
    limit_bytes: u64,
}

impl Record for Compartments {
    const TYPE: &'static str = "compartments";
    fn human(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&["compartment", "chats", "used", "room"]);
        for one in &self.compartments {
            table.row([
                one.name.clone(),
                one.chats.to_string(),
                size::words(one.used_bytes),
                size::words(one.limit_bytes),
            ]);
        }
        write!(f, "{table}")
    }
}

pub(super) async fn run(shell: &mut Shell, command: CompartmentCommand) -> Result<Exit, Error> {
    let mut client = shell.unlock().await?;
    match command {
        CompartmentCommand::Create { name } => {
            client.create_compartment(&name)?;
            shell.close(client).await;
            shell.output.emit(&Done::new(format!("made the compartment {name}")))?;
            shell.output.talk(format_args!(
                "Work in it with --compartment {name}. It needs a relay of its own: lapwing relay add - --compartment {name}"
            ));
        }
        CompartmentCommand::Delete { compartment, yes } => {
            return delete(shell, client, &compartment, yes).await;
        }
        CompartmentCommand::Rename { compartment, name } => {
            client.rename_compartment(&compartment, &name)?;
            shell.close(client).await;
            shell.output.emit(&Done::new(format!("{compartment} is called {name} now")))?;
        }
        CompartmentCommand::List => {
            let mut compartments = Vec::new();
            for (number, compartment) in client.compartments().iter().enumerate() {
                let (used_bytes, limit_bytes) = client.space(number)?;
                let chats = client.read(number, view::chats)?.len();
                compartments.push(One { name: compartment.name.clone(), chats, used_bytes, limit_bytes });
            }
            shell.close(client).await;
            shell.output.emit(&Compartments { compartments })?;
        }
    }
    Ok(Exit::Done)
}

async fn delete(shell: &mut Shell, mut client: Client, name: &str, yes: bool) -> Result<Exit, Error> {
    let number = client.compartment(Some(name))?;
    // What waits is sent, and what came is seen, before the question is asked.
    shell.settle(&mut client).await;
    client.require_deletable(number)?;
    let name = client.compartments()[number].name.clone();
    let now = clock::now();
    let chats = client.read(number, |unit| view::chats_at(unit, now))?;
    let unsent: usize = chats.iter().map(|chat| chat.waiting).sum();
    let unread: usize = chats.iter().map(|chat| chat.unread).sum();
    shell.output.talk(format_args!(
        "Everything in {name} goes, for good: {} chats, {unread} unread messages, {unsent} that no relay has yet.\n\
         Whoever writes to one of its chats learns that nobody receives there any more.",
        chats.len()
    ));
    if !(yes || shell.prompt.confirm(Question::new("delete it", "--yes"))?) {
        return Err(Error::negative("nothing was deleted", "run it again whenever you like"));
    }
    client.vacate_compartment(number)?;
    shell.settle(&mut client).await;
    let waiting = client.delete_compartment(number)?;
    shell.close_erased(client).await?;
    shell.output.emit(&Done::new(format!("{name} is deleted")))?;
    if waiting > 0 {
        shell.output.warn(format_args!(
            "its relay could not be told everything ({waiting} left): mailboxes there stay until they expire"
        ));
    }
    Ok(Exit::Done)
}
