//! `backup create|restore`.

use std::{fmt, path::Path};

use lapwing_vault::ContainerSize;
use serde::Serialize;

use super::vault::make_folder;
use crate::{
    cli::{args::BackupCommand, exit::Exit, output::Record, progress::Progress, shell::Shell, size},
    client::{Client, RestoreTarget, Summary},
    engine::renewal,
    error::Error,
};

pub(super) async fn run(shell: &mut Shell, command: BackupCommand) -> Result<Exit, Error> {
    match command {
        BackupCommand::Create { file, weak } => create(shell, &file, weak).await,
        BackupCommand::Restore { file, size, weak } => restore(shell, &file, size, weak).await,
    }
}

#[derive(Serialize)]
struct Written {
    path: String,
    compartments: u64,
    chats: u64,
    messages: u64,
    closed: u64,
    bytes: u64,
}

impl Record for Written {
    const TYPE: &'static str = "backup";
    fn human(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, compartments, chats, messages, closed, bytes } = self;
        write!(f, "wrote {path} ({}): ", size::words(*bytes))?;
        write!(f, "{compartments} compartment(s), {chats} chat(s), {messages} message(s)")?;
        if *closed > 0 {
            write!(f, "\nnot in it: {closed} text(s) that cannot be opened any more; see: lapwing doctor")?;
        }
        Ok(())
    }
}

async fn create(shell: &mut Shell, file: &Path, weak: bool) -> Result<Exit, Error> {
    if file.symlink_metadata().is_ok() {
        return Err(Error::refused(
            "something exists at this path already",
            "choose another name for the backup; nothing was changed",
        ));
    }
    let mut client = shell.unlock().await?;
    let all: Vec<usize> = match shell.compartment.as_deref() {
        Some(name) => vec![client.compartment(Some(name))?],
        None => (0..client.compartments().len()).collect(),
    };
    // Tickets for the day of the restoration are exchanged first, and what came is in the backup.
    shell.settle(&mut client).await;
    for number in &all {
        client.require_settled(*number)?;
    }
    shell.output.talk(
        "A backup has a passphrase of its own. Whoever has both can read everything in it\nand speak in your name.",
    );
    let passphrase = shell.new_passphrase("new passphrase of the backup", weak)?;
    let bar = Progress::spinner(&shell.output, "writing the backup");
    let summary = client.create_backup(&shell.world, file, &passphrase, &all, &mut |_| {})?;
    drop(bar);
    shell.close(client).await;
    let Summary { compartments, chats, messages, closed, bytes } = summary;
    let path = file.display().to_string();
    shell.output.emit(&Written { path, compartments, chats, messages, closed, bytes })?;
    shell
        .output
        .talk("Not in it: sessions, plans of SOS passphrases, keys of groups, what disappears by a timer.");
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Restored {
    path: String,
    compartments: u64,
    chats: u64,
    messages: u64,
    waiting: Vec<String>,
}

impl Record for Restored {
    const TYPE: &'static str = "restored";
    fn human(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, compartments, chats, messages, waiting } = self;
        write!(f, "restored to {path}: ")?;
        write!(f, "{compartments} compartment(s), {chats} chat(s), {messages} message(s)")?;
        if !waiting.is_empty() {
            write!(f, "\nnot answered yet: {}", waiting.join(", "))?;
        }
        Ok(())
    }
}

async fn restore(shell: &mut Shell, file: &Path, size: u64, weak: bool) -> Result<Exit, Error> {
    let size = ContainerSize::new(size)
        .map_err(|error| Error::usage(error.to_string(), "try: lapwing backup restore FILE --size 256MiB"))?;
    if shell.vault.symlink_metadata().is_ok() {
        return Err(Error::refused(
            "something exists at the vault's path already",
            "say where the new vault goes with --vault; nothing was changed",
        ));
    }
    let old = shell.prompt.passphrase("passphrase of the backup")?;
    let passphrase = shell.new_passphrase("new passphrase of the vault", weak)?;
    if let Some(folder) = shell.vault.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        make_folder(folder)?;
    }
    let bar = Progress::bar(&shell.output, "restoring", 2 * size.bytes());
    let target = RestoreTarget { path: &shell.vault, size, passphrase: &passphrase };
    let (mut client, summary) =
        Client::restore_backup(&shell.world, file, &old, &target, &mut |done, all| {
            bar.set(2 * size.bytes() / all.max(1) * done);
        })?;
    drop(bar);
    shell.settle(&mut client).await;
    let mut waiting = Vec::new();
    for number in 0..client.compartments().len() {
        waiting.extend(client.read(number, renewal::renewals)?.into_iter().map(|view| view.name));
    }
    shell.close(client).await;
    let Summary { compartments, chats, messages, closed: _, bytes: _ } = summary;
    let path = shell.vault.display().to_string();
    shell.output.emit(&Restored { path, compartments, chats, messages, waiting })?;
    shell.output.talk(
        "Each contact is renewed when the other side is next online; see: lapwing status.\nTo be set up again: SOS \
         passphrases and their plans (lapwing sos add); what the old\nvault armed stays armed at its relays. Groups: ask \
         an admin to remove you and to invite you again.\nDo not use the old vault or this backup again: make a new backup.",
    );
    Ok(Exit::Done)
}
