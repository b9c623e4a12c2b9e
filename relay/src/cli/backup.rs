//! `backup` and `restore`.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufReader, BufWriter, Read, Seek},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use lapwing_wire::address::RelayAddress;
use serde_bytes::ByteBuf;
use serde_json::json;
use zeroize::Zeroizing;

use super::{
    BackupArgs, CliError, RestoreArgs,
    access::unexpected,
    init::{hold, hold_relay, open_store},
    output::Output,
    serve::load,
};
use crate::{
    archive::{self, ArchiveError, ArchiveKey, Head, Reader, Writer},
    config::{Config, Size},
    key::RelaySecret,
    operator::{self, Ask, Reply, Rest},
    place::{Place, PlaceError},
    store::{self, MailboxStore, Row, StoreError, StoreOptions},
};

/// Longest text of a recovery key.
const MAX_KEY_TEXT: u64 = 4096;

/// As much of a file tells whether it is a backup.
const BEGIN: u64 = 64;

pub(super) async fn backup(args: &BackupArgs, place: &Place, output: &Output) -> Result<(), CliError> {
    let BackupArgs { file, key_file } = args;
    let (secret, config_text) = (place.secret()?, place.config_text()?);
    let config = load(place, output);
    let engine = match &config {
        Ok(config) => config.storage.engine,
        Err(_) => store::engine_of(&place.store()),
    };
    let (key, is_new) = match key_file {
        Some(path) => (read_key(path)?, false),
        None => (ArchiveKey::generate(&mut rand::rng()), true),
    };
    let head = Head {
        seed: ByteBuf::from(secret.expose().to_vec()),
        lineage: place.lineage()?,
        config: config_text,
        engine,
    };
    let unfinished = Unfinished::create(file)?;
    let mut writer = Writer::new(BufWriter::new(&unfinished.file), &key, &head, &mut rand::rng())?;
    let mut count = 0u64;
    let mut add = |rows: &[Row]| {
        count += u64::try_from(rows.len()).unwrap_or(u64::MAX);
        writer.rows(rows)
    };
    let acting = place.act_as_owner()?;
    match operator::ask(&place.control(), &Ask::Rows).await.map_err(CliError::Control)? {
        Some((Reply::Rows, rest)) => {
            // It runs with what it read before.
            if let Err(error) = &config {
                output.warn(&format!("relay.toml goes into the backup as it is: {error}"));
            }
            of_running(rest, &mut add).await?;
        }
        Some((other, _)) => return Err(unexpected(other)),
        None => of_store(place, &config?, &mut add).await?,
    }
    let written = writer.finish()?.into_inner().map_err(|error| ArchiveError::Io(error.into_error()))?;
    written.sync_all().map_err(ArchiveError::Io)?;
    let bytes = written.metadata().map_err(ArchiveError::Io)?.len();
    drop(acting);
    unfinished.complete(file)?;
    let key_text = is_new.then(|| key.to_text());
    let mut text = format!("{} in {}, {count} records", Size(bytes).rounded(), file.display());
    if let Some(key) = &key_text {
        text.push_str(&format!(
            "\n\nIts recovery key. Without it the file is noise; with it, it is your relay. It is not shown again:\n{}\n\n\
             Keep it away from the file, on paper if you can. To use it for the next backup too, put it into a file of\n\
             its own (mode 0600) and give that with --key-file",
            **key
        ));
    }
    let json = json!({
        "file": file.display().to_string(), "bytes": bytes, "records": count,
        "recovery_key": key_text.as_ref().map(|key| key.as_str()),
    });
    output.result("backup", json, &text);
    Ok(())
}

async fn of_running(
    mut rest: Rest,
    add: &mut dyn FnMut(&[Row]) -> Result<(), ArchiveError>,
) -> Result<(), CliError> {
    while let Some(rows) = rest.next().await.map_err(CliError::CutShort)? {
        add(&rows)?;
    }
    Ok(())
}

async fn of_store(
    place: &Place,
    config: &Config,
    add: &mut dyn FnMut(&[Row]) -> Result<(), ArchiveError>,
) -> Result<(), CliError> {
    hold_relay(place).await?;
    place.check_store()?;
    let store = open_store(place, config).await?;
    let (mut pieces, reading) = operator::rows(Arc::clone(&store));
    let mut added = Ok(());
    while let Some(rows) = pieces.recv().await {
        added = add(&rows);
        if added.is_err() {
            break;
        }
    }
    drop(pieces);
    let read = reading.await.unwrap_or(Err(StoreError::Closed));
    MailboxStore::close(&*store).await;
    added?;
    Ok(read?)
}

pub(super) async fn restore(args: &RestoreArgs, place: &Place, output: &Output) -> Result<(), CliError> {
    let RestoreArgs { file, key_file } = args;
    if !place.is_empty()? {
        return Err(PlaceError::Exists(place.dir().to_path_buf()).into());
    }
    place.check_kinds()?;
    // Whatever lies there is not this command's: it must not go if this fails.
    if place.store().exists() {
        return Err(StoreError::Exists.into());
    }
    let from = File::open(file).map_err(ArchiveError::Io)?;
    let key = match key_file {
        Some(path) => read_key(path)?,
        None => {
            output.talk("Type or paste the recovery key of this backup, then Enter:");
            let mut text = Zeroizing::new(String::new());
            let mut input = io::stdin().lock().take(MAX_KEY_TEXT);
            io::BufRead::read_line(&mut input, &mut text).map_err(ArchiveError::Io)?;
            ArchiveKey::from_text(&text)?
        }
    };
    let _acting = place.act_as_owner()?;
    let (reader, head) = Reader::new(BufReader::new(from), &key)?;
    let secret = RelaySecret::from_bytes(&head.seed)?;
    // A relay that ran with another one before it was changed: better with a mistake in it than not at all.
    let host_and_port = match Config::parse(&head.config) {
        Ok((config, _)) => Some((config.network.host, config.network.port)),
        Err(error) => {
            output.warn(&format!("correct relay.toml before you start the relay: {error}"));
            None
        }
    };
    let is_made = !place.dir().exists();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(place.dir())
        .map_err(|reason| PlaceError::Io { path: place.dir().to_path_buf(), reason })?;
    hold(place).await?;
    // Since it was looked at somebody may have made one, which is not this command's to remove.
    if !place.is_empty()? {
        return Err(PlaceError::Exists(place.dir().to_path_buf()).into());
    }
    if place.store().exists() {
        return Err(StoreError::Exists.into());
    }
    let filled = fill(reader, head.engine, place.store()).await;
    let made = filled.and_then(|count| {
        place.create(&secret, &head.config, &head.lineage)?;
        Ok(count)
    });
    let count = match made {
        Ok(count) => count,
        Err(error) => {
            // Only what this command made: the folder had no relay, and `create` writes its key last.
            fs::remove_dir_all(place.store()).ok();
            fs::remove_file(place.config()).ok();
            if is_made {
                place.remove_lock();
                fs::remove_dir(place.dir()).ok();
            }
            return Err(error);
        }
    };
    let address = match &host_and_port {
        None | Some((_, 0)) => None,
        Some((host, port)) => Some(RelayAddress::new(secret.public()?, host, *port)?.to_string()),
    };
    let dir = place.dir().display().to_string();
    let next = super::init::next(place);
    let text = format!(
        "The relay is in {dir}, {count} records.\n{}\n\
         Tripwires are not in a backup: people's programs arm them anew when their owners next unlock. Until then no alert\n\
         leaves from this relay: tell your people. What was taken since the backup was made comes again, and is shown to\n\
         nobody twice.\n\n\
         If its place has moved, change network.host in relay.toml or the name's address. Never run two copies of it.\n\
         Next: {next}",
        address.as_ref().map_or_else(String::new, |address| format!("\nIts address:\n{address}\n")),
    );
    output.result("restored", json!({ "dir": dir, "address": address, "records": count }), &text);
    Ok(())
}

async fn fill(
    mut reader: Reader<BufReader<File>>,
    engine: crate::store::EngineName,
    path: PathBuf,
) -> Result<u64, CliError> {
    let work = move || {
        let (mut rows, mut count, mut failure) = (Vec::new().into_iter(), 0u64, None);
        let filled = engine.fill(&StoreOptions::at(path), &mut || loop {
            if let Some(row) = rows.next() {
                count += 1;
                return Ok(Some(row));
            }
            match reader.rows() {
                Ok(Some(next)) => rows = next.into_iter(),
                Ok(None) => return Ok(None),
                Err(error) => {
                    failure = Some(error);
                    return Err(StoreError::Damaged);
                }
            }
        });
        match (failure, filled) {
            (Some(error), _) => Err(CliError::Archive(error)),
            (None, Err(error)) => Err(error.into()),
            (None, Ok(())) => Ok(count),
        }
    };
    tokio::task::spawn_blocking(work).await.map_err(|_| StoreError::Closed)?
}

/// The recovery key in a file that only its owner can read.
fn read_key(path: &Path) -> Result<ArchiveKey, CliError> {
    let unread = |reason| CliError::KeyFile { path: path.to_path_buf(), reason };
    let file = File::open(path).map_err(unread)?;
    if file.metadata().map_err(unread)?.mode() & 0o077 != 0 {
        return Err(CliError::OpenKey(path.to_path_buf()));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_KEY_TEXT).read_to_string(&mut text).map_err(unread)?;
    Ok(ArchiveKey::from_text(&text)?)
}

/// A file that gets its name when it is whole, and goes otherwise.
struct Unfinished {
    path: PathBuf,
    file: File,
}

impl Unfinished {
    /// Takes over what a backup left that was cut off: a timer that makes one each night would be stopped by it for good.
    fn create(target: &Path) -> Result<Self, CliError> {
        if target.exists() {
            return Err(CliError::FileExists(target.to_path_buf()));
        }
        let mut name = target.as_os_str().to_owned();
        name.push(".part");
        let path = PathBuf::from(name);
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        match options.clone().create_new(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => {
                let file = made.map_err(ArchiveError::Io)?;
                // Who looks at it between these two takes it for a left-over, and this fails. Some file systems have no locks.
                return match file.try_lock() {
                    Err(TryLockError::WouldBlock) => Err(CliError::BackupRuns(path)),
                    _ => Ok(Self { path, file }),
                };
            }
        }
        let foreign = || CliError::FileExists(path.clone());
        let file = options.custom_flags(nix::libc::O_NOFOLLOW).open(&path).map_err(|_| foreign())?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(CliError::BackupRuns(path)),
            locked => locked.map_err(|_| foreign())?,
        }
        // Before it was locked it may have been finished, and be a backup of another name by now.
        if !has_name(&file, &path) || !is_left_over(&file).map_err(ArchiveError::Io)? {
            return Err(foreign());
        }
        file.set_len(0).map_err(ArchiveError::Io)?;
        Ok(Self { path, file })
    }

    fn complete(self, target: &Path) -> Result<(), CliError> {
        // A link, not a rename: what came to that name meanwhile is not replaced. Some file systems have no links.
        if fs::hard_link(&self.path, target).is_err() {
            if target.exists() {
                return Err(CliError::FileExists(target.to_path_buf()));
            }
            fs::rename(&self.path, target).map_err(ArchiveError::Io)?;
        }
        let folder =
            target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(ArchiveError::Io)?;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if has_name(&self.file, &self.path) {
            fs::remove_file(&self.path).ok();
        }
    }
}

/// Whether a path leads to an open file.
fn has_name(file: &File, path: &Path) -> bool {
    let same =
        |found: &fs::Metadata, there: &fs::Metadata| (found.dev(), found.ino()) == (there.dev(), there.ino());
    file.metadata().is_ok_and(|found| path.symlink_metadata().is_ok_and(|there| same(&found, &there)))
}

/// Whether a file is this user's beginning of a backup, or empty, and has no other name: a whole one may have both for a moment.
fn is_left_over(file: &File) -> io::Result<bool> {
    let found = file.metadata()?;
    let is_own = found.uid() == nix::unistd::Uid::effective().as_raw() && found.mode() & 0o077 == 0;
    if !found.is_file() || !is_own || found.nlink() != 1 {
        return Ok(false);
    }
    let mut begin = Vec::new();
    file.take(BEGIN).read_to_end(&mut begin)?;
    (&mut &*file).rewind()?;
    Ok(begin.is_empty() || archive::is_begun(&begin))
}
