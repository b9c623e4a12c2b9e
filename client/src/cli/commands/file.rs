//! `send --attach`, `chat fetch`.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use lapwing_protocol::attachment::{Attachment, FileName, MAX_FILE_NAME};
use lapwing_wire::frame::Refusal;
use rand_core::RngCore as _;
use serde::Serialize;

use super::message;
use crate::{
    attach::{Prepared, SourceError, Target, TargetError},
    cli::{
        args::{AttachArgs, SendArgs},
        exit::Exit,
        output::{Output, Record},
        progress::Progress,
        shell::Shell,
        size,
    },
    client::{Client, generator},
    driver::{FetchError, UploadReport},
    engine::{
        Command, Reply,
        files::{self, MAX_FILES, NewFile},
        view::{self, FileView, MessageView, Span},
    },
    error::{Error, Retry},
    signals::Stop,
    store::{MessageState, Order},
    untrusted::Printable,
};

/// A file as `read` and `send` tell of it.
#[derive(Serialize)]
pub(super) struct File {
    name: String,
    bytes: u64,
    media_type: Option<String>,
    fetched: bool,
    /// Of one that is on its way: how much of it a relay has, in hundredths.
    percent: Option<u64>,
}

impl File {
    pub(super) fn of(view: &FileView) -> Self {
        Self {
            name: view.name.line().to_string(),
            bytes: view.size,
            media_type: view.media.clone(),
            fetched: view.fetched,
            percent: view.leaving.map(|(percent, _)| percent),
        }
    }

    /// One line for people; `number` is that of its message, where it came from somebody else.
    pub(super) fn words(&self, number: Option<Order>) -> String {
        let Self { name, bytes, media_type: _, fetched, percent } = self;
        let size = size::words(*bytes);
        match (percent, number, fetched) {
            (Some(percent), _, _) => format!("[file {name}, {size}, {percent} % at the relay]"),
            (None, _, true) => format!("[file {name}, {size}, fetched]"),
            (None, Some(number), false) => format!("[file {name}, {size}; number {number} for chat fetch]"),
            (None, None, false) => format!("[file {name}, {size}]"),
        }
    }
}

/// What is wrong with a file that was to be sent.
fn unusable(path: &Path, error: SourceError) -> Error {
    let path = path.display().to_string();
    let message = format!("{}: {error}", Printable::line(&path));
    match error {
        SourceError::Missing => Error::refused(message, "look for a slip in the name; nothing was sent"),
        SourceError::NotAFile => {
            Error::refused(message, "put a folder into an archive first; nothing was sent")
        }
        SourceError::TooLarge => {
            Error::refused(message, "make it smaller or send it in parts; nothing was sent")
                .with_code("too_large")
        }
        SourceError::KeepsMetadata(_) => Error::refused(
            message,
            "send a JPEG, PNG or WebP picture or a plain text instead; --keep-metadata sends it as it is",
        )
        .with_code("keeps_metadata"),
        SourceError::DamagedPicture(_) => {
            Error::refused(message, "save it anew with another program; --keep-metadata sends it as it is")
                .with_code("keeps_metadata")
        }
        _ => Error::refused(message, "check its permissions and the disk; nothing was sent"),
    }
}

/// What the others are told that a file is called.
fn told_name(prepared: &Prepared, name: Option<&str>) -> FileName {
    match name {
        Some(name) => FileName::of(name),
        None => FileName::neutral(&prepared.own_name().to_string_lossy()),
    }
}

fn prepare(output: &Output, args: &AttachArgs) -> Result<Vec<NewFile>, Error> {
    if args.attach.len() > MAX_FILES {
        return Err(Error::usage("more than ten files at once", "send the others with another command"));
    }
    if args.attach.len() > 1 && args.name.is_some() {
        return Err(Error::usage("one name for several files", "send them one by one, each with its --name"));
    }
    if args.attach.iter().any(|path| path.as_os_str() == "-") {
        return Err(Error::usage(
            "a file cannot come from standard input: it is read again when a connection breaks",
            "give its path; a file that is called so is ./-",
        ));
    }
    let mut all = Vec::with_capacity(args.attach.len());
    for path in &args.attach {
        let bar = Progress::bar(output, "reading", 100);
        let prepared = Prepared::of(path, args.keep_metadata, &mut generator(), &mut |done, count| {
            bar.set(done * 100 / count.max(1));
        })
        .map_err(|error| unusable(path, error))?;
        drop(bar);
        let name = told_name(&prepared, args.name.as_deref());
        all.push(NewFile { prepared, name });
    }
    Ok(all)
}

#[derive(Serialize)]
struct SentFiles {
    chat: String,
    state: &'static str,
    files: Vec<SentFile>,
}

#[derive(Serialize)]
struct SentFile {
    order: Order,
    state: &'static str,
    name: String,
    bytes: u64,
    /// Bytes that were left out of it.
    left_out: u64,
    #[serde(skip)]
    words: String,
}

impl Record for SentFiles {
    const TYPE: &'static str = "sent";
    fn human(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, file) in self.files.iter().enumerate() {
            let SentFile { order, state, name, bytes, left_out, words } = file;
            let size = size::words(*bytes);
            if number > 0 {
                writeln!(f)?;
            }
            match *state {
                "sent" => write!(f, "sent {name} ({size}) to {}", self.chat)?,
                "failed" => write!(f, "{name} ({size}) was not sent to {}", self.chat)?,
                _ => write!(f, "kept for {}: {name} ({size}), number {order}{words}", self.chat)?,
            }
            if *left_out > 0 {
                write!(f, "; left out {} of what it said beside the picture", size::words(*left_out))?;
            }
        }
        Ok(())
    }
}

pub(super) async fn send(shell: &mut Shell, args: &SendArgs) -> Result<Exit, Error> {
    let text = args.text.as_deref().map(|text| shell.argument(text)).transpose()?.unwrap_or_default();
    // Before anything is unlocked: a slip in a name costs nothing.
    let prepared = prepare(&shell.output, &args.files)?;
    let left_out: Vec<u64> = prepared.iter().map(|file| file.prepared.left_out).collect();
    let mut client = shell.unlock().await?;
    let number = client.compartment_of_chat(shell.compartment.as_deref(), &args.chat)?;
    client.read(number, |unit| view::chat(unit, &args.chat))?;
    let writable = client.read(number, |unit| files::require_writable(unit, &args.chat));
    if writable.is_err_and(|error| error.retry() == Retry::Later) {
        // What is missing may lie at the relay already: the group's history, the other side's answer.
        shell.settle(&mut client).await;
    }
    let command = Command::SendFiles { chat: args.chat.clone(), text, files: prepared };
    let Reply::Messages { chat, orders } = client.command(number, command)? else {
        return Err(Error::bug("another reply was expected"));
    };
    shell.settle(&mut client).await;
    let _ = upload(shell, &mut client).await;
    let mut all = Vec::with_capacity(orders.len());
    let mut refusal = None;
    for (order, left_out) in orders.into_iter().zip(left_out) {
        let shown = client.read(number, |unit| view::messages(unit, &chat, Span::One(order)))?;
        let Some(shown) = shown.first() else { continue };
        let Some(file) = &shown.file else { continue };
        refusal = refusal.or(file.leaving.and_then(|(_, refusal)| refusal));
        all.push(sent_file(shown, file, left_out));
    }
    shell.close(client).await;
    let worst = ["failed", "waiting", "sent"].into_iter().find(|state| all.iter().any(|f| f.state == *state));
    let failed = worst == Some("failed");
    let state = worst.unwrap_or("failed");
    let kept = if state == "sent" { MessageState::Sent } else { MessageState::Waiting };
    let sent = shell.output.emit(&SentFiles { chat: args.chat.clone(), state, files: all });
    sent.map_err(|error| message::untold(error, if failed { MessageState::Failed } else { kept }))?;
    match refusal {
        Some(Refusal::NoAccess) => Err(Error::refused(
            "the relay does not take the file: your access ticket has no room for it there, or has ended",
            "it is kept: ask the operator for room, then: lapwing sync; or give it up: lapwing chat erase",
        )
        .with_code("no_room")),
        _ if failed => Err(Error::refused("a file was not sent", "see why with: lapwing read CHAT")),
        _ => Ok(Exit::Done),
    }
}

fn sent_file(shown: &MessageView, file: &FileView, left_out: u64) -> SentFile {
    let words = match file.leaving {
        Some((percent, _)) => format!(", {percent} % at the relay; leave it where it is until it is sent"),
        None => String::new(),
    };
    SentFile {
        order: shown.order,
        state: message::state_word(match shown.state {
            // Every relay that matters has it, and the message waits for its own.
            MessageState::Received => MessageState::Waiting,
            state => state,
        }),
        name: file.name.line().to_string(),
        bytes: file.size,
        left_out,
        words,
    }
}

/// Sends the files that wait, with a bar, and then the messages that they belong to.
///
/// # Errors
/// The person said stop: what the relay has by then it keeps.
pub(super) async fn upload(shell: &mut Shell, client: &mut Client) -> Result<UploadReport, Error> {
    if shell.world.offline || !client.has_uploads() {
        return Ok(UploadReport::default());
    }
    let mut bar: Option<(Order, Progress)> = None;
    let output = &shell.output;
    let mut each = |upload: &files::Upload, done, total| {
        let order = upload.place.1;
        if bar.as_ref().is_none_or(|(of, _)| *of != order) {
            bar = Some((order, Progress::bar(output, "sending", total)));
        }
        if let Some((_, bar)) = &bar {
            bar.set(done);
        }
    };
    let mut stop = Stop::listen();
    let report = tokio::select! {
        report = client.upload(&mut each) => report,
        () = stop.asked() => return Err(Error::interrupted()),
    };
    drop(bar);
    for trouble in &report.trouble {
        shell.output.warn(format_args!("{}: {}", trouble.relay, trouble.error));
    }
    for (path, error) in &report.unread {
        let path = path.display().to_string();
        shell.output.warn(format_args!(
            "a file that is to be sent cannot be read: {}: {error}; put it back, or give it up with: lapwing chat erase",
            Printable::line(&path)
        ));
    }
    if report.ended {
        shell.output.talk("Another command needed the vault; the rest of the file is sent by: lapwing sync");
    }
    if report.changed {
        shell.settle(client).await;
    }
    Ok(report)
}

#[derive(Serialize)]
struct Fetched {
    chat: String,
    order: Order,
    path: String,
    bytes: u64,
    media_type: Option<String>,
}

impl Record for Fetched {
    const TYPE: &'static str = "fetched";
    fn human(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.path, size::words(self.bytes))
    }
}

fn unwritable(error: TargetError) -> Error {
    let message = error.to_string();
    match error {
        TargetError::Exists => {
            Error::refused(message, "choose another name with --out FILE; nothing is overwritten")
                .with_code("exists")
        }
        TargetError::NoFolder => Error::refused(message, "say where with --out FILE or --out FOLDER"),
        TargetError::Full => {
            Error::refused(message, "make room, or use --out on another disk; nothing is left")
        }
        _ => Error::refused(message, "use --out FILE in a folder of yours; nothing is left"),
    }
}

/// Where a file goes: into a folder under its own name, or to a path.
fn place(out: Option<&Path>, name: &FileName) -> PathBuf {
    match out {
        Some(out) if out.is_dir() => out.join(name.as_str()),
        Some(out) => out.to_owned(),
        None => PathBuf::from(name.as_str()),
    }
}

pub(super) async fn fetch(
    shell: &mut Shell,
    chat: &str,
    order: Order,
    out: Option<&Path>,
    other_relay: bool,
) -> Result<Exit, Error> {
    if shell.world.offline {
        return Err(Error::usage("a file cannot be fetched with --offline", "leave --offline out"));
    }
    let mut client = shell.unlock().await?;
    let number = client.compartment_of_chat(shell.compartment.as_deref(), chat)?;
    let id = client.read(number, |unit| view::chat(unit, chat))?.id;
    let attachment = client.read(number, |unit| files::file(unit, id, order))?;
    let path = place(out, &attachment.name);
    let mut random = [0; 8];
    generator().fill_bytes(&mut random);
    let mut target = Target::create(&path, random).map_err(unwritable)?;
    let known = client.read(number, |unit| files::is_known_relay(unit, id, &attachment.relay))?;
    if !known && !other_relay {
        return Err(Error::refused(
            format!(
                "the file lies at a relay that this vault does not use: {}; whoever runs it would see your address",
                attachment.relay
            ),
            "if you trust the sender in this: --other-relay",
        )
        .with_code("other_relay"));
    }
    shell.settle(&mut client).await;
    fetch_into(shell, &mut client, &attachment, &mut target).await?;
    target.finish().map_err(unwritable)?;
    client.command(number, Command::Fetched { chat: id, order })?;
    shell.close(client).await;
    let media_type = attachment.media.as_ref().map(|media| media.as_str().to_owned());
    let shown = path.display().to_string();
    let record = Fetched {
        chat: chat.to_owned(),
        order,
        path: Printable::line(&shown).to_string(),
        bytes: attachment.size,
        media_type,
    };
    shell.output.emit(&record)?;
    shell.output.talk("It lies outside the vault now: whoever searches this computer can read it.");
    Ok(Exit::Done)
}

/// Whatever ends it, the file that is not complete goes with its `Target`.
async fn fetch_into(
    shell: &Shell,
    client: &mut Client,
    attachment: &Attachment,
    target: &mut Target,
) -> Result<(), Error> {
    let bar = Progress::bar(&shell.output, "fetching", 100);
    let mut take = |bytes: &[u8], done: u64, count: u64| {
        bar.set(done * 100 / count.max(1));
        target.write(bytes)
    };
    let mut stop = Stop::listen();
    let fetched = tokio::select! {
        fetched = client.fetch(attachment, &mut take) => fetched,
        () = stop.asked() => return Err(Error::interrupted()),
    };
    fetched.map_err(|error| match error {
        FetchError::Connect(error) => error.into(),
        FetchError::Taker(error) => unwritable(error),
        FetchError::Busy => Error::unreachable(
            "the relay does not give this file now",
            "nothing of it was kept; try later; if that goes on, ask the relay's operator",
        )
        .with_retry(Retry::Later),
        FetchError::Gone => Error::negative(
            "the relay does not have this file any more",
            "relays keep files for some weeks only: ask for it to be sent anew",
        )
        .with_code("file_gone"),
        FetchError::NotGenuine => Error::refused(
            "what the relay gave is not the file that was sent: it was changed, cut or mixed up",
            "nothing of it was kept; ask for it to be sent anew, over another relay if you can",
        )
        .with_code("not_genuine"),
    })
}

const _: () = assert!(MAX_FILE_NAME < 255, "a name with what is appended fits a folder");
