//! `chat list|rename|timer|block|unblock`; what erases is in `erase`.

use std::fmt;

use lapwing_protocol::timer::Lifetime;
use serde::Serialize;

use super::{done::Done, erase, file, renew};
use crate::{
    cli::{args::ChatCommand, exit::Exit, output::Record, shell::Shell, table::Table},
    clock,
    engine::{
        Command,
        view::{self, ChatState, ChatView, TimerView},
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
    /// How long messages are kept once they were shown, in seconds.
    timer: Option<u32>,
    /// A text was kept that is not sent.
    draft: bool,
    #[serde(skip)]
    last_words: String,
    #[serde(skip)]
    timer_words: String,
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
        let mut table =
            Table::new(&["chat", "kind", "state", "unread", "waiting", "timer", "last", "compartment"]);
        for chat in &self.chats {
            let mut state = chat.state.to_owned();
            for (mark, word) in [(chat.verified, ", verified"), (chat.draft, ", draft")] {
                if mark {
                    state.push_str(word);
                }
            }
            table.row([
                chat.name.as_str(),
                chat.kind,
                &state,
                &chat.unread.to_string(),
                &chat.waiting.to_string(),
                &chat.timer_words,
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
        ChatCommand::Move { chat, to, name } => relocate(shell, &chat, &to, name.as_deref()).await,
        ChatCommand::Timer { chat, span } => timer(shell, &chat, span.as_deref()).await,
        ChatCommand::Erase { chat, numbers } => erase::messages(shell, chat, numbers).await,
        ChatCommand::Clear { chat, before, yes } => erase::clear(shell, chat, before.as_deref(), yes).await,
        ChatCommand::Delete { chat, leave, yes } => erase::chat(shell, &chat, leave, yes).await,
        ChatCommand::Block { chat } => {
            let what = format!("{chat} is blocked: nothing is taken or sent any more");
            change(shell, &chat.clone(), Command::Block { chat, blocked: true }, what).await
        }
        ChatCommand::Unblock { chat } => {
            let what = format!("{chat} is not blocked any more");
            change(shell, &chat.clone(), Command::Block { chat, blocked: false }, what).await
        }
        ChatCommand::Fetch { chat, number, out, other_relay } => {
            file::fetch(shell, &chat, number, out.as_deref(), other_relay).await
        }
        ChatCommand::Renew { chat, all: _ } => renew::renew(shell, chat.as_deref()).await,
    }
}

async fn change(shell: &mut Shell, chat: &str, command: Command, what: String) -> Result<Exit, Error> {
    let mut client = shell.unlock().await?;
    let number = client.compartment_of_chat(shell.compartment.as_deref(), chat)?;
    client.command(number, command)?;
    shell.settle(&mut client).await;
    shell.close(client).await;
    shell.output.emit(&Done::new(what))?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Moved {
    chat: String,
    compartment: String,
    /// The other side has not answered yet.
    waiting: bool,
}

impl Record for Moved {
    const TYPE: &'static str = "moved";
    fn human(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is in {} now", self.chat, self.compartment)?;
        if self.waiting {
            f.write_str("; the other side has not answered yet, and messages go both ways meanwhile")?;
        }
        Ok(())
    }
}

async fn relocate(shell: &mut Shell, chat: &str, to: &str, name: Option<&str>) -> Result<Exit, Error> {
    let mut client = shell.unlock().await?;
    let number = client.compartment_of_chat(shell.compartment.as_deref(), chat)?;
    client.move_chat(number, chat, to, name)?;
    shell.settle(&mut client).await;
    let number = client.compartment(Some(to))?;
    let shown = client.read(number, |unit| view::chat(unit, name.unwrap_or(chat)))?;
    let waiting = shown.state == ChatState::Renewing;
    shell.close(client).await;
    shell.output.emit(&Moved { chat: shown.name, compartment: to.trim().to_owned(), waiting })?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct TimerRecord {
    chat: String,
    seconds: Option<u32>,
    ours: Option<u32>,
    theirs: Option<u32>,
    #[serde(skip)]
    view: TimerView,
}

impl Record for TimerRecord {
    const TYPE: &'static str = "timer";
    fn human(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = |lifetime: Option<Lifetime>| {
            lifetime.map_or_else(|| "none".to_owned(), |lifetime| clock::span_words(lifetime.span()))
        };
        match self.view.counts {
            Some(counts) => {
                let span = clock::span_words(counts.span());
                write!(f, "{}: messages disappear {span} after they were read", self.chat)?;
            }
            None => write!(f, "{}: messages are kept", self.chat)?,
        }
        if self.view.ours != self.view.theirs && (self.view.ours.is_some() || self.view.theirs.is_some()) {
            write!(f, " (set here: {}, over there: {})", words(self.view.ours), words(self.view.theirs))?;
        }
        Ok(())
    }
}

/// `off`, or a span that a timer may have.
fn lifetime(text: &str) -> Result<Option<Lifetime>, Error> {
    const HINT: &str = "write it like 30m, 12h, 7d or 4w, from 5m to 365d; or: off";
    if text.trim() == "off" {
        return Ok(None);
    }
    let span = clock::parse_span(text).map_err(|error| Error::usage(error.to_string(), HINT))?;
    let lifetime =
        Lifetime::of(span).ok_or_else(|| Error::usage("a timer runs from five minutes to a year", HINT))?;
    Ok(Some(lifetime))
}

async fn timer(shell: &mut Shell, chat: &str, span: Option<&str>) -> Result<Exit, Error> {
    let wanted = span.map(lifetime).transpose()?;
    let mut client = shell.unlock().await?;
    let number = client.compartment_of_chat(shell.compartment.as_deref(), chat)?;
    if let Some(lifetime) = wanted {
        client.command(number, Command::SetTimer { chat: chat.to_owned(), lifetime })?;
    }
    shell.settle(&mut client).await;
    let id = client.read(number, |unit| view::chat(unit, chat))?.id;
    let view = client.read(number, |unit| view::timer(unit, &id))?;
    shell.close(client).await;
    let record = TimerRecord {
        chat: chat.to_owned(),
        seconds: view.counts.map(Lifetime::as_secs),
        ours: view.ours.map(Lifetime::as_secs),
        theirs: view.theirs.map(Lifetime::as_secs),
        view,
    };
    shell.output.emit(&record)?;
    if wanted.is_some() {
        shell.output.talk("What is here already keeps its time; this is for messages from now on.");
    }
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
        for view in client.read(number, |unit| view::chats_at(unit, now))? {
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
                timer: view.timer.map(Lifetime::as_secs),
                draft: view.draft,
                timer_words: view.timer.map(|timer| clock::span_words(timer.span())).unwrap_or_default(),
                last: view.last.map(clock::rfc3339),
                last_words: view.last.map(|last| zone.short(last, now)).unwrap_or_default(),
            });
        }
    }
    shell.close(client).await;
    shell.output.emit(&Chats { chats })?;
    Ok(Exit::Done)
}
