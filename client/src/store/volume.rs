//! Records of a compartment in a volume of the vault: one table of redb, body keys in the volume's key table.

use std::ops::ControlFlow;

use lapwing_vault::{
    KeyName, Volume, VolumeError,
    redb::{self, TableDefinition},
};
use zeroize::Zeroizing;

use super::{
    base::{Base, BodyKeyName, StoreError, Visitor},
    rows::MessageRow,
    unit::{Changes, Row},
};

/// Most bytes of a commit without messages that may go past the limit: a ratchet state and a few rows.
const SMALL_COMMIT: usize = 32 << 10;

const RECORDS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("records");

/// A volume as the base of a compartment.
pub struct VolumeBase {
    volume: Volume,
}

impl VolumeBase {
    /// Takes over an open volume.
    #[must_use]
    pub const fn new(volume: Volume) -> Self {
        Self { volume }
    }

    /// Closes the volume: see [`Volume::close`].
    ///
    /// # Errors
    ///
    /// The volume's error.
    pub fn close(self) -> Result<(), VolumeError> {
        self.volume.close()
    }

    /// The volume, for what concerns space and erasure.
    #[must_use]
    pub const fn volume(&self) -> &Volume {
        &self.volume
    }
}

fn of_volume(error: VolumeError) -> StoreError {
    match error {
        VolumeError::Full | VolumeError::KeyTableFull => StoreError::Full,
        other => StoreError::Vault(other.to_string()),
    }
}

fn of_redb(error: impl Into<redb::Error>) -> StoreError {
    StoreError::Vault(error.into().to_string())
}

type Found<'a> = (redb::AccessGuard<'a, &'static [u8]>, redb::AccessGuard<'a, &'static [u8]>);

fn lend<'a>(
    mut found: impl Iterator<Item = Result<Found<'a>, redb::StorageError>>,
    see: &mut Visitor<'_>,
) -> Result<(), StoreError> {
    let ended = found.try_for_each(|pair| match pair {
        Ok((key, value)) => see(key.value(), value.value()).map_break(Ok),
        Err(error) => ControlFlow::Break(Err(error)),
    });
    ended.break_value().unwrap_or(Ok(())).map_err(of_redb)
}

impl Base for VolumeBase {
    fn get(&self, key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let read = self.volume.begin_read().map_err(of_volume)?;
        let table = match read.open_table(RECORDS) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(of_redb(error)),
        };
        let value = table.get(key).map_err(of_redb)?;
        Ok(value.map(|value| Zeroizing::new(value.value().to_vec())))
    }

    fn visit(
        &self,
        from: &[u8],
        to: &[u8],
        backwards: bool,
        see: &mut Visitor<'_>,
    ) -> Result<(), StoreError> {
        let read = self.volume.begin_read().map_err(of_volume)?;
        let table = match read.open_table(RECORDS) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
            Err(error) => return Err(of_redb(error)),
        };
        let found = table.range(from..to).map_err(of_redb)?;
        if backwards { lend(found.rev(), see) } else { lend(found, see) }
    }

    fn body_key(&self, name: &BodyKeyName) -> Result<Option<Zeroizing<[u8; 32]>>, StoreError> {
        Ok(self.volume.keys().get(KeyName(*name)).map(|key| Zeroizing::new(*key.expose())))
    }

    fn make_body_key(&self, name: &BodyKeyName) -> Result<Zeroizing<[u8; 32]>, StoreError> {
        let key = self.volume.keys().get_or_create(KeyName(*name)).map_err(of_volume)?;
        Ok(Zeroizing::new(*key.expose()))
    }

    fn destroy_body_keys(&self, names: &[BodyKeyName]) -> Result<(), StoreError> {
        let names: Vec<KeyName> = names.iter().copied().map(KeyName).collect();
        self.volume.keys().destroy(&names).map_err(of_volume)
    }

    fn commit(&self, changes: Changes) -> Result<(), StoreError> {
        let mut removes = Vec::new();
        let mut puts = Vec::new();
        for (key, value) in changes.into_records() {
            match value {
                Some(value) => puts.push((key, value)),
                None => removes.push(key),
            }
        }
        // Deleting must work where there is no room for anything new, and so must what keeps a vault usable: marks, acknowledgements,
        // alerts. Only messages and what comes in bulk stop at the limit; the rest lives in the room beyond it. A line that
        // tells of messages which the same commit removes is no more than they were.
        let is_message = |key: &Vec<u8>| key.first() == Some(&MessageRow::TABLE);
        let more = puts.iter().filter(|(key, _)| is_message(key)).count();
        let fewer = removes.iter().filter(|key| is_message(key)).count();
        let small = puts.iter().map(|(_, value)| value.len()).sum::<usize>() <= SMALL_COMMIT && more <= fewer;
        let write = match self.volume.begin_write() {
            Err(VolumeError::Full) if small => self.volume.begin_cleanup(),
            other => other,
        };
        let write = write.map_err(of_volume)?;
        {
            let mut table = write.open_table(RECORDS).map_err(of_redb)?;
            for key in removes {
                table.remove(key.as_slice()).map_err(of_redb)?;
            }
            for (key, value) in puts {
                table.insert(key.as_slice(), value.as_slice()).map_err(of_redb)?;
            }
        }
        write.commit().map_err(of_volume)
    }
}
