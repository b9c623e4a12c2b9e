//! `send`, `read`, `sync`.

use std::{collections::BTreeSet, fmt, time::Duration};

use lapwing_wire::frame::Refusal;
use serde::Serialize;

use super::file::{self, File};
use crate::{
    cli::{
        args::{ReadArgs, SendArgs, SyncArgs},
        exit::Exit,
        output::{Output, OutputError, Record},
        shell::{Shell, warning},
    },
    client::{Client, Ended, generator},
    clock::{self, Zone},
    driver::{Compartment, Next, Report},
    engine::{
        self, Command, Effect, Reply,
        view::{self, MessageView, Span, WriterView},
    },
    error::{Error, Retry},
    net::ConnectError,
    store::{ChatId, MessageState, Order, Unit},
};

/// Messages shown when nothing is new.
const FEW: usize = 10;

#[derive(Serialize)]
struct Sent {
    chat: String,
    state: &'static str,
    /// Why it waits, where a relay said so.
    why: Option<&'static str>,
}

/// Why a relay does not take what it was offered, where waiting may help.
const fn why(refusal: Refusal) -> Option<&'static str> {
    match refusal {
        Refusal::Full => Some("mailbox_full"),
        Refusal::Busy => Some("relay_busy"),
        _ => None,
    }
}

/// The same for people.
fn reason(why: &str, chat: &str) -> String {
    match why {
        "mailbox_full" => format!(
            "the mailbox of {chat} is full: it is sent when there is room, once what lies there is fetched"
        ),
        _ => format!("the relay of {chat} takes nothing new now: it is sent when it does again"),
    }
}

impl Record for Sent {
    const TYPE: &'static str = "sent";
    fn human(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.state {
            "waiting" if self.why.is_some() => {
                write!(f, "kept for {0}; {1}", self.chat, reason(self.why.unwrap_or_default(), &self.chat))
            }
            "sent" => write!(f, "sent to {}", self.chat),
            "failed" => write!(f, "{} does not receive here any more", self.chat),
            _ => write!(f, "kept for {}; it is sent when the relay answers", self.chat),
        }
    }
}

pub(super) const fn state_word(state: MessageState) -> &'static str {
    match state {
        MessageState::Received => "received",
        MessageState::Waiting => "waiting",
        MessageState::Sent => "sent",
        MessageState::Failed => "failed",
    }
}

pub(super) async fn send(shell: &mut Shell, args: &SendArgs) -> Result<Exit, Error> {
    if !args.files.attach.is_empty() {
        return file::send(shell, args).await;
    }
    let text = args.text.as_deref().map(|text| shell.argument(text)).transpose()?;
    let mut client = shell.unlock().await?;
    let number = client.compartment_of_chat(shell.compartment.as_deref(), &args.chat)?;
    let command = || match &text {
        Some(text) => Command::Send { chat: args.chat.clone(), text: text.clone() },
        None => Command::SendDraft { chat: args.chat.clone() },
    };
    let replied = match client.command(number, command()) {
        // What is missing may lie at the relay already: the group's history, the other side's answer.
        Err(error) if error.retry() == Retry::Later => {
            shell.settle(&mut client).await;
            client.command(number, command())
        }
        replied => replied,
    };
    let Reply::Message { chat, order } = replied? else {
        return Err(Error::bug("another reply was expected"));
    };
    shell.settle(&mut client).await;
    let shown = client.read(number, |unit| view::messages(unit, &chat, Span::One(order)))?;
    let waiting = client.read(number, |unit| view::chat(unit, &args.chat))?.waiting;
    let refusal = client.read(number, engine::held_up)?.get(&args.chat).copied();
    shell.close(client).await;
    let state = shown.first().map_or(MessageState::Waiting, |message| message.state);
    let why = refusal.filter(|_| state == MessageState::Waiting).and_then(why);
    let sent = shell.output.emit(&Sent { chat: args.chat.clone(), state: state_word(state), why });
    sent.map_err(|error| untold(error, state))?;
    if waiting > 1 {
        shell.output.talk(format_args!("{waiting} messages to {} wait for the relay.", args.chat));
    }
    if state == MessageState::Failed {
        return Err(Error::refused(
            "the message will not be delivered: the other side does not receive here any more",
            "reach them another way and make a new contact: lapwing invite NAME",
        ));
    }
    Ok(Exit::Done)
}

/// What was to be told could not be. A script that takes this for a failure would send the message twice.
pub(super) fn untold(error: OutputError, state: MessageState) -> Error {
    let kept = match state {
        MessageState::Waiting => "it is kept and will be sent",
        MessageState::Failed => "it will not be delivered",
        MessageState::Sent | MessageState::Received => "it was sent",
    };
    match error {
        OutputError::Failed => Error::refused(
            format!("the output cannot be written; the message is in the vault, and {kept}"),
            "do not send it again; see: lapwing read CHAT",
        )
        .with_code("untold"),
        other => other.into(),
    }
}

/// A message as `read` and `search` show it.
#[derive(Serialize)]
pub(super) struct Message {
    chat: String,
    /// Place in the chat.
    order: Order,
    from: String,
    sent: String,
    received: String,
    state: &'static str,
    /// When it disappears, as far as is known.
    disappears: Option<String>,
    text: Option<String>,
    /// What belongs to it.
    file: Option<File>,
    #[serde(skip)]
    time: String,
    #[serde(skip)]
    numbered: bool,
}

impl Message {
    /// Name of the chat.
    pub(super) fn chat(&self) -> &str {
        &self.chat
    }

    pub(super) fn of(chat: &str, view: &MessageView, zone: &Zone) -> Self {
        Self {
            chat: chat.to_owned(),
            order: view.order,
            from: match &view.writer {
                WriterView::Me => "me".to_owned(),
                WriterView::Peer => chat.to_owned(),
                WriterView::Member(name) => name.line().to_string(),
                WriterView::Program => "lapwing".to_owned(),
            },
            sent: clock::rfc3339(view.sent),
            received: clock::rfc3339(view.stored),
            state: state_word(view.state),
            disappears: view.until.map(clock::rfc3339),
            text: view.text.as_ref().map(|text| text.block().to_string()),
            file: view.file.as_ref().map(File::of),
            time: zone.short(view.stored, clock::now()),
            numbered: false,
        }
    }

    /// Shown with its number.
    fn numbered(mut self, numbered: bool) -> Self {
        self.numbered = numbered;
        self
    }
}

impl Record for Message {
    const TYPE: &'static str = "message";
    fn human(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What was erased has no line: of what is here and does not open, the key is lost (VLT-64).
        let text = self.text.as_deref().unwrap_or("(key damaged)");
        // A second line of a message must not look like another message.
        let text = text.replace('\n', "\n    ");
        if self.numbered {
            write!(f, "{:>5}  ", self.order)?;
        }
        write!(f, "{}  {}:", self.time, self.from)?;
        if !text.is_empty() {
            write!(f, " {text}")?;
        }
        if let Some(file) = &self.file {
            write!(f, " {}", file.words((self.from != "me").then_some(self.order)))?;
        }
        match self.state {
            "waiting" => write!(f, "  [not at the relay yet]"),
            "failed" => write!(f, "  [not delivered]"),
            _ => Ok(()),
        }
    }
}

pub(super) async fn read(shell: &mut Shell, args: &ReadArgs) -> Result<Exit, Error> {
    let mut client = shell.unlock().await?;
    let number = client.compartment_of_chat(shell.compartment.as_deref(), &args.chat)?;
    let chat = client.read(number, |unit| view::chat(unit, &args.chat))?.id;
    shell.settle(&mut client).await;
    let zone = Zone::of_system();
    let mut shown = match args.last {
        Some(count) => client.read(number, |unit| view::messages(unit, &chat, Span::Last(count)))?,
        None => client.read(number, |unit| view::messages(unit, &chat, Span::Unread))?,
    };
    if args.last.is_none() && shown.len() < FEW {
        shown = client.read(number, |unit| view::messages(unit, &chat, Span::Last(FEW)))?;
    }
    let now = (shell.world.clock)();
    for message in shown.iter().filter(|message| message.is_there(now)) {
        shell.output.emit(&Message::of(&args.chat, message, &zone).numbered(args.numbers))?;
    }
    // What nobody can have seen is not marked: the time of a message that disappears would run.
    let is_seen = shell.output.goes_somewhere();
    if !is_seen {
        shell.output.talk("Standard output goes nowhere: nothing is marked as seen.");
    } else if let Some(last) = shown.last() {
        client.command(number, Command::MarkRead { chat, order: last.order })?;
    }
    if args.follow && !shell.world.offline {
        follow(shell, &mut client, number, chat, args).await?;
    }
    shell.close(client).await;
    Ok(Exit::Done)
}

/// From here on Ctrl-C ends the command in order.
const WAITING: &str = "Waiting for messages; Ctrl-C ends it.";

async fn follow(
    shell: &mut Shell,
    client: &mut Client,
    number: usize,
    chat: ChatId,
    args: &ReadArgs,
) -> Result<(), Error> {
    shell.output.talk(WAITING);
    let zone = Zone::of_system();
    let (mut failed, mut warned) = (None, BTreeSet::new());
    let is_seen = shell.output.goes_somewhere();
    let (output, now) = (&shell.output, &shell.world.clock);
    let mut decide = |compartments: &[Compartment], effects: &[(usize, Effect)]| {
        let mut last = None;
        for (compartment, effect) in effects {
            if let Err(error) = told(output, &mut warned, compartments, (*compartment, effect)) {
                failed = Some(error);
                return Next::End;
            }
            let Effect::Message { chat: of, order } = effect else { continue };
            if *compartment != number || *of != chat {
                continue;
            }
            let unit = Unit::new(&*compartments[number].base);
            let Ok(messages) = view::messages(&unit, &chat, Span::One(*order)) else { continue };
            for message in messages.iter().filter(|message| message.is_there(now())) {
                let shown = Message::of(&args.chat, message, &zone).numbered(args.numbers);
                if let Err(error) = output.emit(&shown) {
                    failed = Some(error.into());
                    return Next::End;
                }
                last = last.max(Some(message.order));
            }
        }
        if let Some(order) = last.filter(|_| is_seen) {
            // TMR-04: the time of what was shown runs now, not from the end of following. A vault that takes no more is
            // told by what cannot be taken in.
            let _ = compartments[number].mark_read(chat, order, now(), &mut generator());
        }
        Next::On
    };
    let ended = client.follow(&mut decide).await;
    if let Some(error) = failed {
        return Err(error);
    }
    match ended {
        Ended::Asked(report) => {
            shell.warn(&report);
            shell.output.talk("Another command needed the vault; this one has ended.");
        }
        Ended::Replaced => return Err(replaced()),
        Ended::Decided(report) => shell.warn(&report),
        Ended::Interrupted => {}
    }
    Ok(())
}

/// What came until then was shown, and lies in the file that was there.
fn replaced() -> Error {
    Error::refused(
        "the file of the vault is not at its path any more: it was moved or deleted, or another one took its place",
        "nothing more was fetched; see what lies at the path now: two copies of a vault break each other's sessions",
    )
    .with_code("vault_replaced")
}

/// Tells what must not be missed while following.
fn told(
    output: &Output,
    warned: &mut BTreeSet<&'static str>,
    compartments: &[Compartment],
    (number, effect): (usize, &Effect),
) -> Result<(), Error> {
    // Once: a relay may contradict itself with everything that it says.
    if let Some(text) = warning(effect)
        && warned.insert(text)
    {
        output.warn(text);
    }
    let Effect::Alert { alert } = effect else { return Ok(()) };
    let Some(compartment) = compartments.get(number) else { return Ok(()) };
    let alerts = view::alerts(&Unit::new(&*compartment.base)).unwrap_or_default();
    if let Some(alert) = alerts.iter().find(|view| view.id == *alert) {
        output.bell();
        output.emit(&super::alert::AlertRecord::of(alert))?;
    }
    Ok(())
}

#[derive(Serialize)]
struct Synced {
    messages: usize,
    alerts: usize,
    delivered: usize,
    waiting: usize,
    unreachable: Vec<String>,
    /// Relays that answered, and of which not all was fetched.
    unread: Vec<String>,
}

impl Record for Synced {
    const TYPE: &'static str = "synced";
    fn human(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} new, {} sent, {} waiting", self.messages, self.delivered, self.waiting)
    }
}

#[derive(Default)]
struct Counts {
    messages: usize,
    alerts: usize,
    delivered: usize,
}

impl Counts {
    fn add(&mut self, effect: &Effect) {
        match effect {
            Effect::Message { .. } => self.messages += 1,
            Effect::Alert { .. } => self.alerts += 1,
            Effect::Delivered { .. } => self.delivered += 1,
            _ => {}
        }
    }
}

pub(super) async fn sync(shell: &mut Shell, args: &SyncArgs) -> Result<Exit, Error> {
    let mut client = shell.unlock().await?;
    let mut counts = Counts::default();
    let mut report = shell.settle(&mut client).await;
    let uploaded = file::upload(shell, &mut client).await?;
    report.effects.iter().for_each(|(_, effect)| counts.add(effect));
    if let Some(seconds) = args.wait {
        let end = tokio::time::Instant::now() + Duration::from_secs(seconds);
        let output = &shell.output;
        let (mut failed, mut warned) = (None, BTreeSet::new());
        let mut waits = false;
        let mut decide = |compartments: &[Compartment], effects: &[(usize, Effect)]| {
            if !std::mem::replace(&mut waits, true) {
                output.talk(WAITING);
            }
            for (number, effect) in effects {
                counts.add(effect);
                if let Err(error) = told(output, &mut warned, compartments, (*number, effect)) {
                    failed = Some(error);
                    return Next::End;
                }
            }
            if tokio::time::Instant::now() >= end { Next::End } else { Next::On }
        };
        report = match client.follow(&mut decide).await {
            Ended::Decided(report) => report,
            Ended::Asked(report) => {
                shell.output.talk("Another command needed the vault; this one has ended.");
                report
            }
            Ended::Interrupted => Report::default(),
            Ended::Replaced => return Err(replaced()),
        };
        if let Some(error) = failed {
            return Err(error);
        }
        shell.warn(&report);
    }
    let mut waiting = 0;
    for number in 0..client.compartments().len() {
        // Messages, and what else waits: a mailbox to be made, a member's removal.
        let messages: usize = client.read(number, view::chats)?.iter().map(|chat| chat.waiting).sum();
        waiting += messages.max(client.read(number, view::waiting)?.len());
        for (chat, refusal) in client.read(number, engine::held_up)? {
            if let Some(why) = why(refusal) {
                shell.output.talk(format_args!("What waits for {chat}: {}.", reason(why, &chat)));
            }
        }
    }
    shell.close(client).await;
    let unreachable: Vec<String> = report.trouble.iter().map(|trouble| trouble.relay.to_string()).collect();
    let unread: Vec<String> = report.unread.iter().map(ToString::to_string).collect();
    let is_whole = unread.is_empty();
    // Somebody in between is worth more words than a relay that sleeps.
    let is_away = |error: &ConnectError| matches!(error, ConnectError::Unreachable | ConnectError::Slow);
    let impostor = report.trouble.iter().map(|trouble| trouble.error).find(|error| !is_away(error));
    let Counts { messages, alerts, delivered } = counts;
    shell.output.emit(&Synced { messages, alerts, delivered, waiting, unreachable, unread })?;
    if let Some(error) = impostor {
        return Err(error.into());
    }
    if !report.trouble.is_empty() || !uploaded.trouble.is_empty() {
        return Err(Error::unreachable(
            "a relay cannot be reached, or not in time",
            "what waits is kept and sent when it answers; see: lapwing relay list",
        )
        .with_retry(Retry::Later));
    }
    if !is_whole {
        return Err(Error::unreachable(
            "not all that came to a relay could be fetched",
            "it is asked again by the next: lapwing sync; if that goes on, ask its operator",
        )
        .with_retry(Retry::Later));
    }
    Ok(Exit::Done)
}
