//! `chat list|rename|block|unblock`.

use std::fmt;

use serde::Serialize;

use super::{done::Done, renew};
use crate::{
    cli::{args::ChatCommand, exit::Exit, output::Record, shell::Shell, table::Table},
    clock,
    engine::{
        Command,
        view::{self, ChatState, ChatView},
    },
    error::Error,
    store::ChatKind,
};

#[derive(Serialize)]
struct Chats {
    chats: Vec<Chat>,
}

#[derive(Serialize)]
struct Chat {
    name: String,
    compartment: String,
    kind: &'static str,
    state: &'static str,
    verified: bool,
    unread: usize,
    waiting: usize,
    last: Option<String>,
    #[serde(skip)]
    last_words: String,
}

pub(super) const fn state_word(chat: &ChatView) -> &'static str {
    if chat.blocked {
        return "blocked";
    }
    match chat.state {
        ChatState::Invited => "invited",
        ChatState::Joining => "joining",
        ChatState::Open => "open",
        ChatState::Renewing => "renewing",
        ChatState::Failed => "failed",
        ChatState::Ended => "ended",
    }
}

impl Record for Chats {
    const TYPE: &'static str = "chats";
    fn human(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.chats.is_empty() {
            return f.write_str(
                "no chat yet; begin one with: lapwing invite NAME, or: lapwing join - --name NAME",
            );
        }
        let mut table = Table::new(&["chat", "kind", "state", "unread", "waiting", "last", "compartment"]);
        for chat in &self.chats {
            let state =
                if chat.verified { format!("{}, verified", chat.state) } else { chat.state.to_owned() };
            table.row([
                chat.name.as_str(),
                chat.kind,
                &state,
                &chat.unread.to_string(),
                &chat.waiting.to_string(),
                &chat.last_words,
                &chat.compartment,
            ]);
        }
        write!(f, "{table}")
    }
}

pub(super) async fn run(shell: &mut Shell, command: ChatCommand) -> Result<Exit, Error> {
    match command {
        ChatCommand::List => list(shell).await,
        ChatCommand::Rename { chat, name } => {
            let what = format!("{chat} is called {name} now");
            change(shell, &chat.clone(), Command::Rename { chat, name }, what).await
        }
        ChatCommand::Block { chat } => {
            let what = format!("{chat} is blocked: nothing is taken or sent any more");
            change(shell, &chat.clone(), Command::Block { chat, blocked: true }, what).await
        }
        ChatCommand::Unblock { chat } => {
            let what = format!("{chat} is not blocked any more");
            change(shell, &chat.clone(), Command::Block { chat, blocked: false }, what).await
        }
        ChatCommand::Renew { chat, all: _ } => renew::renew(shell, chat.as_deref()).await,
    }
}

async fn change(shell: &mut Shell, chat: &str, command: Command, what: String) -> Result<Exit, Error> {
    let mut client = shell.unlock().await?;
    let number = client.compartment_of_chat(shell.compartment.as_deref(), chat)?;
    client.command(number, command)?;
    shell.settle(&mut client).await;
    client.close().await;
    shell.output.emit(&Done::new(what))?;
    Ok(Exit::Done)
}

async fn list(shell: &mut Shell) -> Result<Exit, Error> {
    let mut client = shell.unlock().await?;
    shell.settle(&mut client).await;
    let zone = clock::Zone::of_system();
    let now = clock::now();
    let wanted = shell.compartment.as_deref().map(|name| client.compartment(Some(name))).transpose()?;
    let mut chats = Vec::new();
    for (number, compartment) in client.compartments().iter().enumerate() {
        if wanted.is_some_and(|wanted| wanted != number) {
            continue;
        }
        for view in client.read(number, view::chats)? {
            chats.push(Chat {
                state: state_word(&view),
                name: view.name,
                compartment: compartment.name.clone(),
                kind: match view.kind {
                    ChatKind::Direct => "direct",
                    ChatKind::Group => "group",
                },
                verified: view.verified,
                unread: view.unread,
                waiting: view.waiting,
                last: view.last.map(clock::rfc3339),
                last_words: view.last.map(|last| zone.short(last, now)).unwrap_or_default(),
            });
        }
    }
    client.close().await;
    shell.output.emit(&Chats { chats })?;
    Ok(Exit::Done)
}
