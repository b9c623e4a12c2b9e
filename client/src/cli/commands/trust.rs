//! `trust add|accept|list|remove`.

use std::fmt;

use serde::Serialize;

use super::{done::Done, trigger::Voice};
use crate::{
    cli::{args::TrustCommand, exit::Exit, output::Record, shell::Shell, table::Table},
    engine::{Command, view},
    error::Error,
    store::TrustSide,
};

#[derive(Serialize)]
struct Trusts {
    trusts: Vec<Trust>,
}

#[derive(Serialize)]
struct Trust {
    chat: String,
    direction: &'static str,
    accepted: bool,
    voices: Vec<Voice>,
}

impl Record for Trusts {
    const TYPE: &'static str = "trusts";
    fn human(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.trusts.is_empty() {
            return f.write_str("nobody yet; ask a contact with: lapwing trust add CHAT");
        }
        let mut table = Table::new(&["chat", "what", "state"]);
        for trust in &self.trusts {
            let what = match trust.direction {
                "ours" => "gets your alerts",
                _ => "sends you alerts",
            };
            let state = match (trust.accepted, trust.direction) {
                (true, _) => "agreed",
                (false, "ours") => "has not answered yet",
                (false, _) => "asks you: lapwing trust accept CHAT",
            };
            table.row([trust.chat.as_str(), what, state]);
            for voice in &trust.voices {
                table.row([trust.chat.as_str(), "gave you a voice", &voice.to_string()]);
            }
        }
        write!(f, "{table}")
    }
}

pub(super) async fn run(shell: &mut Shell, command: TrustCommand) -> Result<Exit, Error> {
    let is_end = matches!(command, TrustCommand::Remove { .. });
    let (chat, command, what) = match command {
        TrustCommand::List => return list(shell).await,
        TrustCommand::Add { chat } => {
            let what = format!("asked {chat}; when they agree, plans can alert them");
            (chat.clone(), Command::TrustAdd { chat }, what)
        }
        TrustCommand::Accept { chat } => {
            let what = format!("you get the alerts of {chat} from now on");
            (chat.clone(), Command::TrustAccept { chat }, what)
        }
        TrustCommand::Remove { chat } => {
            let what = format!("{chat} and you do not alert each other any more");
            (chat.clone(), Command::TrustRemove { chat }, what)
        }
    };
    let mut client = shell.unlock().await?;
    let number = client.compartment_of_chat(shell.compartment.as_deref(), &chat)?;
    // A request may just be arriving.
    shell.settle(&mut client).await;
    client.command(number, command)?;
    if is_end {
        shell.tell_too_few(&client, number);
    }
    shell.settle(&mut client).await;
    shell.close(client).await;
    shell.output.emit(&Done::new(what))?;
    Ok(Exit::Done)
}

async fn list(shell: &mut Shell) -> Result<Exit, Error> {
    let mut client = shell.unlock().await?;
    shell.settle(&mut client).await;
    let now = (shell.world.clock)();
    let mut trusts = Vec::new();
    for number in 0..client.compartments().len() {
        for view in client.read(number, view::trusts)? {
            let direction = match view.side {
                TrustSide::Ours => "ours",
                TrustSide::Theirs => "theirs",
            };
            let voices = view.voices.iter().map(|voice| Voice::of(voice, now)).collect();
            trusts.push(Trust { chat: view.chat, direction, accepted: view.accepted, voices });
        }
    }
    shell.close(client).await;
    shell.output.emit(&Trusts { trusts })?;
    Ok(Exit::Done)
}
