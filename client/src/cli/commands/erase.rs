//! `chat erase|clear|delete`.

use std::fmt;

use serde::Serialize;

use super::done::Done;
use crate::{
    cli::{exit::Exit, output::Record, prompt::Question, shell::Shell},
    clock,
    engine::{Command, Reply, view},
    error::Error,
    store::{ChatKind, Order},
};

/// Said after every erasing.
const OTHERS: &str = "What has left stays with those who received it.";

#[derive(Serialize)]
struct Erased {
    chat: String,
    messages: usize,
    withdrawn: u64,
}

impl Record for Erased {
    const TYPE: &'static str = "erased";
    fn human(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.messages == 1 { "" } else { "s" };
        write!(f, "{} message{s} of {} erased", self.messages, self.chat)?;
        if self.withdrawn > 0 {
            write!(f, "; {} had not left and will not be sent", self.withdrawn)?;
        }
        Ok(())
    }
}

pub(super) async fn messages(
    shell: &mut Shell,
    chat: String,
    mut numbers: Vec<Order>,
) -> Result<Exit, Error> {
    numbers.sort_unstable();
    numbers.dedup();
    let mut client = shell.unlock().await?;
    let number = client.compartment_of_chat(shell.compartment.as_deref(), &chat)?;
    let messages = numbers.len();
    let command = Command::Erase { chat: chat.clone(), orders: numbers };
    let Reply::Erased { withdrawn } = client.command(number, command)? else {
        return Err(Error::bug("another reply was expected"));
    };
    shell.settle(&mut client).await;
    shell.close_erased(client).await?;
    shell.output.emit(&Erased { chat, messages, withdrawn })?;
    shell.output.talk(OTHERS);
    Ok(Exit::Done)
}

pub(super) async fn clear(
    shell: &mut Shell,
    chat: String,
    before: Option<&str>,
    yes: bool,
) -> Result<Exit, Error> {
    let older = before.map(clock::parse_span).transpose().map_err(|error| {
        Error::usage(error.to_string(), "write it like 12h, 3d or 2w: what came longer ago is erased")
    })?;
    let mut client = shell.unlock().await?;
    let number = client.compartment_of_chat(shell.compartment.as_deref(), &chat)?;
    client.read(number, |unit| view::chat(unit, &chat))?;
    match older {
        Some(older) => {
            let span = clock::span_words(older);
            shell
                .output
                .talk(format_args!("This erases what came to {chat} more than {span} ago, for good."));
        }
        None => shell.output.talk(format_args!(
            "This erases all messages of {chat} and its draft, for good. What had not left is not sent."
        )),
    }
    agreed(shell, yes, "erase them")?;
    client.command(number, Command::Clear { chat: chat.clone(), older })?;
    shell.settle(&mut client).await;
    shell.close_erased(client).await?;
    shell.output.emit(&Done::new(format!("what was to go of {chat} is erased")))?;
    shell.output.talk(OTHERS);
    Ok(Exit::Done)
}

pub(super) async fn chat(shell: &mut Shell, chat: &str, leave: bool, yes: bool) -> Result<Exit, Error> {
    let mut client = shell.unlock().await?;
    let number = client.compartment_of_chat(shell.compartment.as_deref(), chat)?;
    let shown = client.read(number, |unit| view::chat(unit, chat));
    // One that waits for room where it goes is shown nowhere.
    let waiting = match &shown {
        Ok(_) => None,
        Err(_) => client.waiting_arrival(shell.compartment.as_deref(), chat)?,
    };
    let kind = if waiting.is_some() { ChatKind::Direct } else { shown?.kind };
    shell.output.talk(match kind {
        ChatKind::Direct => format!(
            "This deletes {chat} for good: messages, draft, keys, your mailbox for it. The other side finds that you do not \
             receive there any more, and keeps what it has. To write to each other again you need a new ticket."
        ),
        ChatKind::Group => format!(
            "This deletes {chat} for good: messages, draft, keys. The others keep what they have."
        ),
    });
    agreed(shell, yes, "delete it")?;
    match waiting {
        Some((number, chat)) => client.delete_arrival(number, chat)?,
        None => client.delete_chat(number, chat, leave)?,
    }
    shell.settle(&mut client).await;
    shell.close_erased(client).await?;
    shell.output.emit(&Done::new(format!("{chat} is deleted")))?;
    Ok(Exit::Done)
}

fn agreed(shell: &mut Shell, yes: bool, question: &str) -> Result<(), Error> {
    if yes || shell.prompt.confirm(Question::new(question, "--yes"))? {
        Ok(())
    } else {
        Err(Error::negative("nothing was erased", "start again when you are sure"))
    }
}
