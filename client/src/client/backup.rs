//! Backups: written from an unlocked vault, and restored into a new one.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Seek},
    path::Path,
};

use lapwing_vault::{ContainerSize, Passphrase};

use super::{
    Client, FIRST_COMPARTMENT, World, fault, generator, new_file::NewFile, placing, refused_by_engine,
};
use crate::{
    backup::{Item, ReadFailure, Reader, Writer},
    cli::prompt::TypedPassphrase,
    engine::{Command, Fault, export},
    error::Error,
    store::Unit,
};

/// Items that are taken in with one commit.
const BATCH: usize = 256;

/// Bytes of items after which a commit ends early.
const BATCH_BYTES: usize = 1 << 20;

/// What a backup holds, or what came of restoring one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Compartments.
    pub compartments: u64,
    /// Chats.
    pub chats: u64,
    /// Messages.
    pub messages: u64,
    /// Messages and drafts that are not in it, because their keys do not open any more.
    pub closed: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

impl Summary {
    fn count(&mut self, item: &Item) {
        match item {
            Item::Compartment { .. } => self.compartments += 1,
            Item::Record { table, .. } if is_chat(*table) => self.chats += 1,
            Item::Text { .. } => self.messages += 1,
            _ => {}
        }
    }
}

fn is_chat(table: u8) -> bool {
    table == <crate::store::ChatRow as crate::store::Row>::TABLE
}

fn write_error(error: &io::Error) -> Error {
    if error.kind() == io::ErrorKind::AlreadyExists {
        return Error::refused(
            "something exists at this path already, or at its name with .writing behind it",
            "choose another name for the backup; nothing was changed",
        );
    }
    Error::refused(
        format!("the backup cannot be written: {}", error.kind()),
        "check that the folder exists, can be written and has room; nothing was left behind",
    )
}

/// What stops an export: the vault, or the file.
enum Stopped {
    Engine(Fault),
    File(io::Error),
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::File(error)
    }
}

impl From<Fault> for Stopped {
    fn from(fault: Fault) -> Self {
        Self::Engine(fault)
    }
}

impl Client {
    /// Writes a backup of compartments, by their numbers, to a new file. `progress` is told messages written.
    ///
    /// # Errors
    /// A chat is on its way from or to one of them, and would be left out; the passphrase opens this vault; the path is taken;
    /// the file cannot be written. Nothing is left behind.
    pub fn create_backup(
        &self,
        world: &World,
        path: &Path,
        passphrase: &TypedPassphrase,
        compartments: &[usize],
        progress: &mut dyn FnMut(u64),
    ) -> Result<Summary, Error> {
        for number in compartments {
            self.require_settled(*number)?;
        }
        let secret = Passphrase::new(passphrase.expose());
        if self.session.opens(&secret).map_err(|error| fault::change(&error))? {
            return Err(Error::refused(
                "this passphrase opens the vault itself",
                "choose another one for the backup: whoever gets the one must not get the other",
            ));
        }
        // BAK-04: at its path when it is whole.
        let made = NewFile::create(path).map_err(|error| write_error(&error))?;
        let mut summary = Summary::default();
        self.write_items(made.file(), &secret, world, compartments, &mut summary, progress).map_err(
            |stopped| match stopped {
                Stopped::Engine(fault) => refused_by_engine(&fault),
                Stopped::File(error) => write_error(&error),
            },
        )?;
        summary.bytes = made.finish().map_err(|error| write_error(&error))?;
        Ok(summary)
    }

    fn write_items(
        &self,
        file: &File,
        secret: &Passphrase,
        world: &World,
        compartments: &[usize],
        summary: &mut Summary,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), Stopped> {
        let mut writer = Writer::begin(BufWriter::new(file), secret, world.cost, &mut generator())?;
        writer.add(&Item::Backup { made: (world.clock)() })?;
        let wanted = self.compartments.iter().enumerate();
        for (_, compartment) in wanted.filter(|(number, _)| compartments.contains(number)) {
            let unit = Unit::new(&*compartment.base);
            summary.closed += export::export(&unit, &mut |item: Item| {
                writer.add(&item)?;
                summary.count(&item);
                progress(summary.messages);
                Ok::<(), Stopped>(())
            })?;
        }
        writer.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(())
    }

    /// Restores a backup into a new vault at `path`. Nobody is told anything before the next settling, which begins
    /// the sessions anew. `progress` is told parts done and parts in all.
    ///
    /// # Errors
    /// The file is no whole backup, or the passphrase does not open it; the vault cannot be made or has no room. Nothing
    /// is left behind.
    pub fn restore_backup(
        world: &World,
        file: &Path,
        old: &TypedPassphrase,
        target: &RestoreTarget<'_>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(Self, Summary), Error> {
        let opened = File::open(file).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                Error::refused("there is no such file", "check the path of the backup")
            }
            _ => read_error(ReadFailure::File(error)),
        })?;
        let length = opened.metadata().map_err(|error| read_error(error.into()))?;
        if !length.is_file() {
            return Err(read_error(ReadFailure::Length));
        }
        let again = opened.try_clone().map_err(|error| read_error(error.into()))?;
        let secret = Passphrase::new(old.expose());
        let mut reader =
            Reader::open(BufReader::new(opened), length.len(), &secret, world.cost).map_err(read_error)?;
        // BAK-02: all of it is authentic and understood before anything is made of it.
        let mut summary = Summary { bytes: length.len(), ..Summary::default() };
        check(&mut reader, &mut summary)?;
        let RestoreTarget { path, size, passphrase } = target;
        let mut reader = Some(reader);
        // BAK-04: whatever ends this process before all is taken, there is no vault at the path.
        let client = placing::placed(path, |backend| {
            let mut file = again.try_clone().map_err(|error| read_error(error.into()))?;
            file.rewind().map_err(|error| read_error(error.into()))?;
            let known = reader.take().ok_or_else(|| Error::bug("a backup without a reader"))?;
            let mut from_start = known.again(BufReader::new(file)).map_err(read_error)?;
            let made =
                Self::create_in(world, backend, *size, passphrase, &mut |done, all| progress(done, 2 * all));
            let client = made?.take_items(&mut from_start, size.bytes(), progress)?;
            reader = Some(from_start);
            Ok(client)
        })?;
        Ok((client, summary))
    }

    fn take_items(
        mut self,
        reader: &mut Reader<BufReader<File>>,
        bytes: u64,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, Error> {
        let mut number = None;
        let mut batch = Batch::default();
        while let Some(item) = reader.next_item().map_err(read_error)? {
            match &item {
                Item::Backup { .. } => {}
                Item::Compartment { name } => {
                    batch.commit(&mut self, number)?;
                    number = Some(self.compartment_named(number, name)?);
                }
                _ => batch.add(item, &mut self, number)?,
            }
            let (done, all) = reader.progress();
            progress(bytes + bytes * done / all.max(1), 2 * bytes);
        }
        batch.commit(&mut self, number)?;
        for number in 0..self.compartments.len() {
            self.command(number, Command::EndImport)?;
        }
        self.adopt_relays()?;
        Ok(self)
    }

    /// The compartment for what follows: the vault's first one, then new ones.
    fn compartment_named(&mut self, before: Option<usize>, name: &str) -> Result<usize, Error> {
        if before.is_none() {
            if name != FIRST_COMPARTMENT {
                self.rename_compartment(FIRST_COMPARTMENT, name)?;
            }
            return Ok(0);
        }
        self.create_compartment(name)?;
        Ok(self.compartments.len().saturating_sub(1))
    }
}

/// Where a backup is restored to.
pub struct RestoreTarget<'a> {
    /// The new vault's file.
    pub path: &'a Path,
    /// Its size.
    pub size: ContainerSize,
    /// Its passphrase.
    pub passphrase: &'a TypedPassphrase,
}

/// Items that are to be taken in together.
#[derive(Default)]
struct Batch {
    items: Vec<Item>,
    bytes: usize,
}

impl Batch {
    fn add(&mut self, item: Item, client: &mut Client, number: Option<usize>) -> Result<(), Error> {
        self.bytes += item.size();
        self.items.push(item);
        if self.items.len() >= BATCH || self.bytes >= BATCH_BYTES {
            self.commit(client, number)?;
        }
        Ok(())
    }

    fn commit(&mut self, client: &mut Client, number: Option<usize>) -> Result<(), Error> {
        let items = std::mem::take(&mut self.items);
        self.bytes = 0;
        if items.is_empty() {
            return Ok(());
        }
        let number = number.ok_or_else(|| read_error(ReadFailure::Content))?;
        client.command(number, Command::Import(items)).map(|_| ())
    }
}

fn check(reader: &mut Reader<BufReader<File>>, summary: &mut Summary) -> Result<(), Error> {
    if !matches!(reader.next_item().map_err(read_error)?, Some(Item::Backup { .. })) {
        return Err(read_error(ReadFailure::Content));
    }
    while let Some(item) = reader.next_item().map_err(read_error)? {
        summary.count(&item);
    }
    if summary.compartments == 0 {
        return Err(read_error(ReadFailure::Content));
    }
    Ok(())
}

fn read_error(failure: ReadFailure) -> Error {
    let message = failure.to_string();
    let (hint, code) = match failure {
        ReadFailure::Length => ("check the path; a backup is copied whole or not at all", "not_a_backup"),
        ReadFailure::Closed => ("check path and passphrase; nothing was made", "backup_closed"),
        ReadFailure::Damaged | ReadFailure::Content => {
            ("use another copy of the backup; nothing was made", "damaged_backup")
        }
        ReadFailure::Newer => ("update lapwing; nothing was made", "newer_backup"),
        ReadFailure::Derivation(_) => ("lapwing needs about 300 MiB of free memory to open it", "refused"),
        ReadFailure::File(_) => ("check the disk and who owns the file", "refused"),
    };
    Error::refused(message, hint).with_code(code)
}
