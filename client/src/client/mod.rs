//! An unlocked vault: its compartments, its relays, its passphrases.
//!
//! There is one way in, [`Client::unlock`], for every passphrase: the same derivation, the same header writes, the
//! same exchange with every relay of the payload (design 5.2). Nothing here knows what a passphrase is for.

mod backup;
mod checkins;
mod compartments;
mod fault;
mod files;
mod following;
mod growth;
mod moving;
mod new_file;
mod passphrases;
mod placing;
mod plans;
mod records;
mod tokens;
mod unfinished;

use std::{path::Path, sync::Arc, time::Duration};

use lapwing_vault::{
    Container, ContainerSize, Cost, FileBackend, HeldField, Passphrase, Replacement, Session, UnlockError,
    Volume, VolumeError, VolumeId, lock_memory,
};
use lapwing_wire::{
    address::{RelayAddress, RelayKey},
    tripwire::{Status, Token},
};
use rand_core::{OsRng, TryRngCore, UnwrapErr};

pub use backup::{RestoreTarget, Summary};
pub use checkins::{CheckinRequest, Heard};
pub use fault::refused_by_engine;
pub use following::{Decide, Ended};
pub use passphrases::{KnownPassphrase, require_distinct};
pub use plans::PlanRequest;
pub use tokens::PayloadRelays;

use crate::{
    cli::prompt::TypedPassphrase,
    driver::{Clock, Compartment, Driver, Report},
    engine::{
        Command, Fault, Reply,
        search::{self, Hit, Query},
        view,
    },
    error::Error,
    net::Transport,
    store::{RelayRow, Unit, VolumeBase},
};

/// Name of the compartment that every vault begins with.
pub const FIRST_COMPARTMENT: &str = "main";

/// How long the answer to an unlock's tokens is waited for before the first output; without network the tokens stay
/// due and leave with the next connection.
pub const TOKEN_WAIT: Duration = Duration::from_secs(4);

/// How long a command waits for another one before it presents its tokens without holding the vault.
const FIRST_LOCK_WAIT: Duration = Duration::from_secs(2);

/// How long a command waits for another one on the same vault.
pub const LOCK_WAIT: Duration = Duration::from_secs(20);

/// What a client needs of the world around it.
#[derive(Clone)]
pub struct World {
    /// Cost of the key derivation: [`Cost::FORMAT_1`] in the program, less in tests.
    pub cost: Cost,
    /// The network.
    pub transport: Arc<dyn Transport>,
    /// The clock.
    pub clock: Clock,
    /// Neither send nor fetch: nothing but the tokens of an unlock.
    pub offline: bool,
}

/// The generator: the operating system's.
pub(crate) fn generator() -> UnwrapErr<OsRng> {
    OsRng.unwrap_err()
}

/// An unlocked vault. Dropping it locks the vault; secrets in memory are wiped as they are freed.
pub struct Client {
    session: Session,
    compartments: Vec<Compartment>,
    volumes: Vec<(VolumeId, Arc<VolumeBase>)>,
    driver: Driver,
    relays: PayloadRelays,
    /// Tokens that no relay has answered yet. The next unlock presents all of them again; until then this process does.
    due: Vec<(RelayAddress, Token)>,
    /// Answers that came before the volumes were open.
    answers: Vec<(RelayKey, Status)>,
    damaged: usize,
    /// Why a chat that was moved is not in its place yet.
    unfinished_move: Option<Fault>,
    /// By the names of compartments: units of their tables of keys that did not open at the unlock.
    damaged_keys: Vec<(String, usize)>,
    /// By the names of compartments: what kept the unlock from erasing what was due.
    unerased: Vec<(String, Fault)>,
}

enum UnlockFailure {
    Busy(HeldField),
    /// The passphrase was right, and the disk refused.
    Refused(HeldField, Error),
    Other(Error),
}

impl UnlockFailure {
    fn into_error(self) -> Error {
        match self {
            Self::Busy(application) => fault::unlock(UnlockError::Busy { application }),
            Self::Refused(_, error) | Self::Other(error) => error,
        }
    }
}

impl Client {
    /// Makes a vault at `path`. `progress` is told bytes done and bytes in all.
    ///
    /// # Errors
    /// The path is taken, the disk is full, or the file cannot be written. Nothing is left behind.
    pub fn create(
        world: &World,
        path: &Path,
        size: ContainerSize,
        passphrase: &TypedPassphrase,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, Error> {
        placing::placed(path, |backend| Self::create_in(world, backend, size, passphrase, progress))
    }

    /// Makes a vault in an empty file.
    fn create_in(
        world: &World,
        backend: FileBackend,
        size: ContainerSize,
        passphrase: &TypedPassphrase,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, Error> {
        let made = Container::create(
            backend,
            size,
            &Passphrase::new(passphrase.expose()),
            world.cost,
            &mut generator(),
            progress,
        );
        let session = made.map_err(fault::create)?;
        let mut client = Self::open(world, session)?;
        let name = Command::Name { name: FIRST_COMPARTMENT.to_owned() };
        client.command(0, name)?;
        client.name_compartments()?;
        Ok(client)
    }

    /// Opens the vault at `path` and tells every relay of its payload, before anything else is done or shown.
    ///
    /// # Errors
    /// Nothing is opened by this passphrase; the file is no vault; another command holds it.
    pub async fn unlock(world: &World, path: &Path, passphrase: &TypedPassphrase) -> Result<Self, Error> {
        let session = match Self::session(world, path, passphrase, FIRST_LOCK_WAIT) {
            Err(UnlockFailure::Busy(field)) => {
                // Whoever holds the vault may be hung: the word leaves without waiting for it.
                tokens::present_held(world, &field).await;
                Self::session(world, path, passphrase, LOCK_WAIT)
            }
            other => other,
        };
        if let Err(UnlockFailure::Refused(field, _)) = &session {
            // A disk that fails keeps nobody from being told.
            tokens::present_held(world, field).await;
        }
        let session = session.map_err(UnlockFailure::into_error)?;
        // After the derivation, whose memory must not be counted; where the limit is too low, `doctor` says so.
        let _ = lock_memory();
        let mut client = Self::closed(world, session)?;
        // Before any volume is opened: nothing that may be wrong with one keeps the word from leaving.
        client.present_tokens().await;
        client.end_telling(world.offline).await;
        client.clear_leftovers(path);
        client.open_volumes()?;
        client.distrust_earlier_keys();
        client.name_compartments()?;
        // Before anything is erased: that overwrites them (VLT-64).
        client.damaged_keys = client.look_at_keys();
        // TMR-05: what fell due while the vault was locked is gone before anything is shown, searched or counted.
        client.sweep();
        client.take_answers();
        // Before anything is sent or taken. What fails is told, and tried again; nothing is at work at two ends (MOV-01).
        client.finish_moves();
        // What fails here is tried again by the next command.
        let _ = client.reconcile();
        Ok(client)
    }

    fn session(
        world: &World,
        path: &Path,
        passphrase: &TypedPassphrase,
        wait: Duration,
    ) -> Result<Session, UnlockFailure> {
        let backend = FileBackend::open(path).map_err(|e| UnlockFailure::Other(fault::open(e)))?;
        let locked = Container::open(backend).map_err(|e| UnlockFailure::Other(fault::open(e)))?;
        let locked = locked.closing_leftovers_of(Replacement::of(path));
        let passphrase = Passphrase::new(passphrase.expose());
        locked.unlock(&passphrase, world.cost, &mut generator(), wait).map_err(|error| match error {
            UnlockError::Busy { application } => UnlockFailure::Busy(application),
            UnlockError::Refused { error, application } => {
                UnlockFailure::Refused(application, fault::unlock(UnlockError::Io(error)))
            }
            other => UnlockFailure::Other(fault::unlock(other)),
        })
    }

    fn open(world: &World, session: Session) -> Result<Self, Error> {
        let mut client = Self::closed(world, session)?;
        client.open_volumes()?;
        Ok(client)
    }

    /// A client whose volumes are not open yet.
    fn closed(world: &World, session: Session) -> Result<Self, Error> {
        Ok(Self {
            relays: PayloadRelays::decode(session.application())?,
            driver: Driver::new(
                Arc::clone(&world.transport),
                Arc::clone(&world.clock),
                Box::new(generator()),
            ),
            compartments: Vec::new(),
            volumes: Vec::new(),
            session,
            due: Vec::new(),
            answers: Vec::new(),
            damaged: 0,
            unfinished_move: None,
            damaged_keys: Vec::new(),
            unerased: Vec::new(),
        })
    }

    /// Opens every volume of the session. One that is damaged is left out: it must not close the others.
    fn open_volumes(&mut self) -> Result<(), Error> {
        let (mut ids, found) = (self.session.volumes(), self.session.found_volumes());
        ids.extend(&found);
        for id in ids {
            match self.session.open_volume(id, &mut generator()) {
                Ok(volume) => self.hold(id, volume),
                // Made or deleted by a command that was killed in the middle. What rots is kept: a part of it may be
                // read elsewhere, or again (VLT-48).
                Err(VolumeError::Damaged)
                    if found.contains(&id)
                        && self.session.is_remnant(id).unwrap_or(false)
                        && self.session.delete_volume(id, &mut generator()).is_ok() => {}
                Err(VolumeError::Damaged) => self.damaged += 1,
                Err(error) => return Err(fault::volume(error)),
            }
        }
        if self.compartments.is_empty() {
            return Err(fault::volume(VolumeError::Damaged));
        }
        Ok(())
    }

    /// Compartments that cannot be opened any more: overwritten by what was made inside a cover, or damaged.
    #[must_use]
    pub const fn damaged(&self) -> usize {
        self.damaged
    }

    /// Why a chat that was moved is not in its place yet, if one is not.
    #[must_use]
    pub const fn unfinished_move(&self) -> Option<&Fault> {
        self.unfinished_move.as_ref()
    }

    fn open_volume(&mut self, id: VolumeId) -> Result<(), Error> {
        let volume = self.session.open_volume(id, &mut generator()).map_err(fault::volume)?;
        self.hold(id, volume);
        Ok(())
    }

    fn hold(&mut self, id: VolumeId, volume: Volume) {
        let base = Arc::new(VolumeBase::new(volume));
        self.compartments.push(Compartment {
            name: String::new(),
            place: *id.as_bytes(),
            base: Arc::clone(&base) as _,
        });
        self.volumes.push((id, base));
    }

    fn name_compartments(&mut self) -> Result<(), Error> {
        for (number, compartment) in self.compartments.iter_mut().enumerate() {
            let name = view::name(&Unit::new(&*compartment.base)).map_err(|f| refused_by_engine(&f))?;
            // Named in the same command that made it, unless that command was killed.
            compartment.name = name.unwrap_or_else(|| format!("compartment {}", number + 1));
        }
        Ok(())
    }

    /// What an earlier command left half done is finished or undone.
    fn reconcile(&mut self) -> Result<(), Error> {
        // First: what follows may take records away. A full compartment must not keep the rest from being done.
        let remembered = self.remember_records();
        self.settle_compartments()?;
        self.settle_plans()?;
        self.settle_checkins()?;
        self.adopt_relays()?;
        self.adopt_heirs()?;
        self.finish_deletions()?;
        remembered
    }

    /// The compartments, in the order of the payload.
    #[must_use]
    pub fn compartments(&self) -> &[Compartment] {
        &self.compartments
    }

    /// Number of the compartment with this name; of the first one without a name.
    ///
    /// # Errors
    /// There is no such compartment.
    pub fn compartment(&self, name: Option<&str>) -> Result<usize, Error> {
        let Some(name) = name else { return Ok(0) };
        self.compartments.iter().position(|compartment| compartment.name == name.trim()).ok_or_else(|| {
            Error::negative("there is no compartment of that name", "see: lapwing compartment list")
                .with_code("unknown_compartment")
        })
    }

    /// Number of the compartment that holds a chat of this name, looking in all where none is named.
    ///
    /// # Errors
    /// There is no such chat, or two compartments have one.
    pub fn compartment_of_chat(&self, name: Option<&str>, chat: &str) -> Result<usize, Error> {
        if name.is_some() {
            return self.compartment(name);
        }
        let mut found = Vec::new();
        for (number, compartment) in self.compartments.iter().enumerate() {
            if view::chat(&Unit::new(&*compartment.base), chat).is_ok() {
                found.push(number);
            }
        }
        match found.as_slice() {
            [one] => Ok(*one),
            // The first compartment's own answer says that there is no such chat.
            [] => Ok(0),
            _ => Err(Error::refused(
                "several compartments have a chat of that name",
                "say which with --compartment NAME",
            )),
        }
    }

    /// Reads a compartment.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn read<T>(
        &self,
        compartment: usize,
        read: impl FnOnce(&Unit<'_>) -> Result<T, crate::engine::Fault>,
    ) -> Result<T, Error> {
        let compartment =
            self.compartments.get(compartment).ok_or_else(|| Error::bug("no such compartment"))?;
        read(&Unit::new(&*compartment.base)).map_err(|fault| refused_by_engine(&fault))
    }

    /// The newest `last` messages of a compartment, or of one of its chats, that contain a text; newest first.
    ///
    /// # Errors
    /// There is no such chat; the compartment cannot be read.
    pub fn search(
        &self,
        compartment: usize,
        query: &Query,
        chat: Option<&str>,
        last: usize,
        workers: usize,
    ) -> Result<Vec<Hit>, Error> {
        let chat = chat.map(|name| self.read(compartment, |unit| view::chat(unit, name))).transpose()?;
        let compartment =
            self.compartments.get(compartment).ok_or_else(|| Error::bug("no such compartment"))?;
        search::search(&*compartment.base, query, chat.map(|chat| chat.id).as_ref(), last, workers)
            .map_err(|fault| refused_by_engine(&fault))
    }

    /// Gives a command to a compartment and commits what it changed.
    ///
    /// # Errors
    /// It was refused; nothing was changed.
    pub fn command(&mut self, compartment: usize, command: Command) -> Result<Reply, Error> {
        let compartment =
            self.compartments.get(compartment).ok_or_else(|| Error::bug("no such compartment"))?;
        self.driver.command(compartment, command).map_err(|fault| refused_by_engine(&fault))
    }

    /// Erases what is due, and what a killed command had left to erase.
    fn sweep(&mut self) {
        for compartment in &self.compartments {
            // What fails here is tried again by the next settling, and by the next command. ERA-07: people are told.
            if let Err(fault) = self.driver.sweep(compartment) {
                self.unerased.push((compartment.name.clone(), fault));
            }
        }
    }

    fn look_at_keys(&self) -> Vec<(String, usize)> {
        let names = self.compartments.iter().map(|compartment| compartment.name.clone());
        names
            .zip(&self.volumes)
            // A disk that cannot be read is told of by whoever asks for a key.
            .map(|(name, (_, base))| (name, base.volume().keys().damaged_units().unwrap_or(0)))
            .filter(|(_, damaged)| *damaged > 0)
            .collect()
    }

    /// Names of compartments whose tables of keys were damaged when the vault was unlocked, and how many units of each did
    /// not open. Texts whose keys lay there open for nobody any more (VLT-64).
    #[must_use]
    pub fn damaged_keys(&self) -> &[(String, usize)] {
        &self.damaged_keys
    }

    /// Names of compartments in which the unlock could not erase what was due, and why (ERA-07).
    #[must_use]
    pub fn unerased(&self) -> &[(String, Fault)] {
        &self.unerased
    }

    /// Deletes a chat with all that it holds. Plans that would have ended its mailboxes forget them.
    ///
    /// # Errors
    /// It was refused; nothing was changed.
    pub fn delete_chat(&mut self, compartment: usize, chat: &str, leave: bool) -> Result<(), Error> {
        let deleted = self.command(compartment, Command::Delete { chat: chat.to_owned(), leave });
        // Also where it is decided, and not all is gone from the file yet.
        let refreshed = self.refresh_plans().map_err(|fault| refused_by_engine(&fault));
        deleted?;
        refreshed
    }

    /// Sends what waits and takes what came, for at most `budget`.
    pub async fn settle(&mut self, budget: Duration) -> Report {
        if self.unfinished_move.is_some() {
            self.finish_moves();
        }
        let refreshed = self.refresh_plans();
        let mut report = self.driver.settle(&self.compartments, budget).await;
        if let Err(fault) = refreshed {
            report.faults.push(fault);
        }
        // What fails is tried again by the next unlock.
        let _ = self.adopt_heirs();
        self.retry_tokens().await;
        report
    }

    /// Adds a relay to a compartment, and to what every unlock tells.
    ///
    /// # Errors
    /// The ticket is damaged; there is no room for another relay.
    pub fn add_relay(
        &mut self,
        compartment: usize,
        ticket: &str,
    ) -> Result<lapwing_wire::address::RelayAddress, Error> {
        let Reply::Relay(relay) =
            self.command(compartment, Command::AddRelay { ticket: ticket.to_owned() })?
        else {
            return Err(Error::bug("another reply was expected"));
        };
        self.adopt_relays()?;
        Ok(relay)
    }

    /// Space used and allowed in a compartment, in bytes.
    ///
    /// # Errors
    /// The volume cannot be read.
    pub fn space(&self, compartment: usize) -> Result<(u64, u64), Error> {
        let (_, base) = self.volumes.get(compartment).ok_or_else(|| Error::bug("no such compartment"))?;
        let usage = base.volume().usage().map_err(fault::volume)?;
        Ok((usage.used, usage.limit))
    }

    /// A volume of this session that no known passphrase but our own opens: where records about other passphrases may
    /// lie. The first volume if there is none.
    fn private_volume(&self) -> VolumeId {
        let shown: Vec<VolumeId> =
            self.session.entries().iter().flat_map(lapwing_vault::Entry::volumes).collect();
        let all = self.session.volumes();
        let first = all.first().copied();
        all.into_iter().find(|volume| !shown.contains(volume)).or(first).unwrap_or_else(|| self.volumes[0].0)
    }

    /// The relays that a compartment uses.
    fn relay_rows(&self, compartment: usize) -> Result<Vec<RelayRow>, Error> {
        self.read(compartment, |unit| {
            Ok(unit.scan::<RelayRow>(&[])?.into_iter().map(|(_, row)| row).collect())
        })
    }

    /// Overwrites what was deleted or replaced since the vault was opened, so that it cannot be brought back from the
    /// file, not even with the passphrase. Closing does so too; this is for a session that goes on, and for a deletion
    /// that a person asked for. Where nothing was written it costs nothing.
    ///
    /// # Errors
    /// [`Fault::NotErased`]: the file cannot be written, or a compartment has no room to write its tables anew (REC-03).
    /// Nothing is lost, and the next session tries again.
    pub fn scrub(&self) -> Result<(), Fault> {
        let scrubbed: Vec<_> = self.volumes.iter().map(|(_, base)| base.scrub()).collect();
        scrubbed.into_iter().collect::<Result<_, _>>().map_err(|error| Fault::NotErased(error.to_string()))
    }

    /// Overwrites what was deleted, and ends the connections. What was sent has left.
    ///
    /// # Errors
    /// As [`Client::scrub`]; the vault is closed all the same. A client that is dropped without this is scrubbed as its
    /// volumes are, and nobody is told.
    pub async fn close(mut self) -> Result<(), Fault> {
        // First: ending the connections waits for others.
        let scrubbed = self.scrub();
        // What fails here is made up for by the next unlock.
        let _ = self.session.complete_records(&mut generator());
        self.driver.close().await;
        scrubbed
    }
}
