//! `relay add|list|remove`.

use std::fmt;

use lapwing_wire::address::{AccessTicket, RelayAddress};
use serde::Serialize;

use super::done::Done;
use crate::{
    cli::{args::RelayCommand, exit::Exit, output::Record, shell::Shell, table::Table},
    engine::{Command, view},
    error::{Error, Retry},
    net::ConnectError,
};

pub(super) async fn run(shell: &mut Shell, command: RelayCommand) -> Result<Exit, Error> {
    match command {
        RelayCommand::Add { ticket } => add(shell, &ticket).await,
        RelayCommand::List => list(shell).await,
        RelayCommand::Remove { relay } => remove(shell, &relay).await,
    }
}

async fn add(shell: &mut Shell, ticket: &str) -> Result<Exit, Error> {
    let ticket = shell.argument(ticket)?;
    let mut client = shell.unlock().await?;
    let number = client.compartment(shell.compartment.as_deref())?;
    if !shell.world.offline {
        refuse_impostor(shell, &ticket).await?;
    }
    let relay = client.add_relay(number, &ticket)?;
    let report = shell.settle(&mut client).await;
    let refused = client
        .read(number, view::relays)?
        .into_iter()
        .find(|view| view.address.key() == relay.key())
        .and_then(|view| view.refused);
    shell.close(client).await;
    shell.output.emit(&Relay { address: relay.to_string(), state: state(refused.is_some()), waiting: 0 })?;
    if refused.is_some() {
        return Err(Error::refused(
            "the relay does not accept this access ticket",
            "ask its operator for a new one and run: lapwing relay add -",
        ));
    }
    if report.trouble.iter().any(|trouble| trouble.relay.key() == relay.key()) {
        return Err(Error::unreachable(
            "the relay is added, but cannot be reached now",
            "it will be used as soon as it answers; check with: lapwing sync",
        )
        .with_retry(Retry::Later));
    }
    Ok(Exit::Done)
}

/// A relay that is somebody else is not added: every later unlock would try it. One that sleeps is.
async fn refuse_impostor(shell: &Shell, ticket: &str) -> Result<(), Error> {
    // What is wrong with a ticket is told by whoever takes it in.
    let Ok(ticket) = AccessTicket::from_text(ticket) else { return Ok(()) };
    match shell.world.transport.connect(ticket.relay()).await {
        Ok(link) => {
            link.close();
            link.closed().await;
            Ok(())
        }
        Err(ConnectError::Unreachable) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn state(refused: bool) -> &'static str {
    if refused { "refused" } else { "ok" }
}

#[derive(Serialize)]
struct Relay {
    address: String,
    state: &'static str,
    waiting: usize,
}

impl Record for Relay {
    const TYPE: &'static str = "relay";
    fn human(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "added {}", self.address)
    }
}

#[derive(Serialize)]
struct Relays {
    relays: Vec<Relay>,
}

impl Record for Relays {
    const TYPE: &'static str = "relays";
    fn human(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.relays.is_empty() {
            return f.write_str("no relay yet; add one with: lapwing relay add -");
        }
        let mut table = Table::new(&["relay", "access", "waiting"]);
        for relay in &self.relays {
            table.row([relay.address.as_str(), relay.state, &relay.waiting.to_string()]);
        }
        write!(f, "{table}")
    }
}

async fn list(shell: &mut Shell) -> Result<Exit, Error> {
    let client = shell.unlock().await?;
    let number = client.compartment(shell.compartment.as_deref())?;
    let relays = client
        .read(number, view::relays)?
        .into_iter()
        .map(|view| Relay {
            address: view.shown.to_string(),
            state: if view.inconsistent { "contradicted itself" } else { state(view.refused.is_some()) },
            waiting: view.waiting,
        })
        .collect();
    shell.close(client).await;
    shell.output.emit(&Relays { relays })?;
    Ok(Exit::Done)
}

async fn remove(shell: &mut Shell, text: &str) -> Result<Exit, Error> {
    let address: RelayAddress =
        text.parse().map_err(|error| Error::usage(format!("{error}"), "copy it from: lapwing relay list"))?;
    let mut client = shell.unlock().await?;
    let number = client.compartment(shell.compartment.as_deref())?;
    client.command(number, Command::RemoveRelay { relay: *address.key() })?;
    shell.close(client).await;
    shell.output.emit(&Done::new(format!("removed {address}")))?;
    Ok(Exit::Done)
}
