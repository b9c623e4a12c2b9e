//! `draft`.

use std::fmt;

use serde::Serialize;

use super::done::Done;
use crate::{
    cli::{args::DraftArgs, exit::Exit, output::Record, shell::Shell},
    clock,
    engine::{Command, view},
    error::Error,
};

#[derive(Serialize)]
struct Draft {
    chat: String,
    saved: String,
    text: String,
}

impl Record for Draft {
    const TYPE: &'static str = "draft";
    fn human(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

pub(super) async fn draft(shell: &mut Shell, args: &DraftArgs) -> Result<Exit, Error> {
    let text = args.text.as_deref().map(|text| shell.argument(text)).transpose()?;
    let mut client = shell.unlock().await?;
    let number = client.compartment_of_chat(shell.compartment.as_deref(), &args.chat)?;
    let chat = args.chat.clone();
    if let Some(text) = text {
        client.command(number, Command::Draft { chat, text })?;
        shell.close(client).await;
        shell
            .output
            .emit(&Done::new(format!("kept for {0}; send it with: lapwing send {0} --draft", args.chat)))?;
        return Ok(Exit::Done);
    }
    if args.delete {
        client.command(number, Command::DeleteDraft { chat })?;
        shell.close_erased(client).await?;
        shell.output.emit(&Done::new(format!("the draft for {} is erased", args.chat)))?;
        return Ok(Exit::Done);
    }
    let id = client.read(number, |unit| view::chat(unit, &args.chat))?.id;
    let draft = client.read(number, |unit| view::draft(unit, &id))?;
    shell.close(client).await;
    shell.output.emit(&Draft {
        chat: args.chat.clone(),
        saved: clock::rfc3339(draft.saved),
        text: draft.text.block().to_string(),
    })?;
    Ok(Exit::Done)
}
