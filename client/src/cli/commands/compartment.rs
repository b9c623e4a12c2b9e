//! `compartment create|list`.

use std::fmt;

use serde::Serialize;

use super::done::Done;
use crate::{
    cli::{args::CompartmentCommand, exit::Exit, output::Record, shell::Shell, size, table::Table},
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
            client.close().await;
            shell.output.emit(&Done::new(format!("made the compartment {name}")))?;
            shell.output.talk(format_args!(
                "Work in it with --compartment {name}. It needs a relay of its own: lapwing relay add - --compartment {name}"
            ));
        }
        CompartmentCommand::Rename { compartment, name } => {
            client.rename_compartment(&compartment, &name)?;
            client.close().await;
            shell.output.emit(&Done::new(format!("{compartment} is called {name} now")))?;
        }
        CompartmentCommand::List => {
            let mut compartments = Vec::new();
            for (number, compartment) in client.compartments().iter().enumerate() {
                let (used_bytes, limit_bytes) = client.space(number)?;
                let chats = client.read(number, view::chats)?.len();
                compartments.push(One { name: compartment.name.clone(), chats, used_bytes, limit_bytes });
            }
            client.close().await;
            shell.output.emit(&Compartments { compartments })?;
        }
    }
    Ok(Exit::Done)
}
