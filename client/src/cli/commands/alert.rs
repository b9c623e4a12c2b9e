//! `alert list|ack`.

use std::fmt;

use lapwing_protocol::alert::{Cause, Status};
use serde::Serialize;

use super::done::Done;
use crate::{
    cli::{args::AlertCommand, exit::Exit, output::Record, shell::Shell},
    clock::{self, Zone},
    engine::{
        Command,
        view::{self, AlertView},
    },
    error::Error,
};

/// An alert, as it is shown.
#[derive(Serialize)]
pub(super) struct AlertRecord {
    id: String,
    chat: Option<String>,
    status: &'static str,
    cause: &'static str,
    received: String,
    made_ready: String,
    text: String,
    place: Option<String>,
    instructions: Option<String>,
    acknowledged: Option<String>,
    groups: Vec<String>,
    #[serde(skip)]
    time: String,
}

impl AlertRecord {
    pub(super) fn of(view: &AlertView) -> Self {
        Self {
            id: id_text(&view.id),
            chat: view.chat.clone(),
            status: view.status.into(),
            cause: view.cause.into(),
            received: clock::rfc3339(view.received),
            made_ready: clock::rfc3339(view.made),
            text: view.text.block().to_string(),
            place: view.place.as_ref().map(|place| place.line().to_string()),
            instructions: view.instructions.as_ref().map(|text| text.block().to_string()),
            acknowledged: view.acknowledged.map(clock::rfc3339),
            groups: view.groups.clone(),
            time: Zone::of_system().short(view.received, clock::now()),
        }
    }
}

fn id_text(id: &[u8; 16]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Record for AlertRecord {
    const TYPE: &'static str = "alert";
    fn human(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = self.chat.as_deref().unwrap_or("a former contact");
        let drill: &'static str = Status::Exercise.into();
        let word = if self.status == drill { "EXERCISE" } else { "ALERT" };
        writeln!(f, "{word} from {who}, {}", self.time)?;
        writeln!(f, "    {}", self.text.replace('\n', "\n    "))?;
        let silence: &'static str = Cause::Deadline.into();
        if self.cause == silence {
            writeln!(f, "    sent because nothing was heard of them in time")?;
        }
        let agreed: &'static str = Cause::Quorum.into();
        if self.cause == agreed {
            writeln!(f, "    sent because enough of their trusted contacts gave their voices")?;
        }
        if let Some(place) = &self.place {
            writeln!(f, "    place: {place}")?;
        }
        if let Some(instructions) = &self.instructions {
            writeln!(f, "    asked of you: {}", instructions.replace('\n', "\n    "))?;
        }
        for group in &self.groups {
            writeln!(f, "    close the group to them: lapwing group remove {group} {who}")?;
        }
        if self.acknowledged.is_some() {
            write!(f, "    acknowledged")
        } else {
            write!(f, "    acknowledge with: lapwing alert ack {}", self.id.get(..8).unwrap_or_default())
        }
    }
}

pub(super) async fn run(shell: &mut Shell, command: AlertCommand) -> Result<Exit, Error> {
    let mut client = shell.unlock().await?;
    match command {
        AlertCommand::List => shell.settle_for_alerts(&mut client).await,
        AlertCommand::Ack { .. } => shell.settle(&mut client).await,
    };
    match command {
        AlertCommand::List => {
            let mut shown = 0;
            for number in 0..client.compartments().len() {
                for alert in client.read(number, view::alerts)? {
                    shell.output.emit(&AlertRecord::of(&alert))?;
                    shown += 1;
                }
            }
            shell.close(client).await;
            if shown == 0 {
                shell.output.talk("no alerts");
            }
        }
        AlertCommand::Ack { id } => {
            let wanted = id.unwrap_or_default().to_lowercase();
            let mut done = 0;
            for number in 0..client.compartments().len() {
                for alert in client.read(number, view::alerts)? {
                    if alert.acknowledged.is_none() && id_text(&alert.id).starts_with(&wanted) {
                        client.command(number, Command::AcknowledgeAlert { alert: alert.id })?;
                        done += 1;
                    }
                }
            }
            shell.settle(&mut client).await;
            shell.close(client).await;
            if done == 0 {
                return Err(Error::negative(
                    "there is no such alert to acknowledge",
                    "see: lapwing alert list",
                ));
            }
            shell.output.emit(&Done::new(format!("acknowledged {done}")))?;
        }
    }
    Ok(Exit::Done)
}
