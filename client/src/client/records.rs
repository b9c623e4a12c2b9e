//! What a compartment has recorded of what lies outside it: keys of volumes and passphrases in its allocation units, plans
//! in its pages. Old blocks of a disk hold that though it is gone, for whoever has the compartment's key.
//!
//! Invariant: no session takes a record away before the compartment remembers it. What is recorded now is remembered by
//! the session that records it, and by every session when it opens: a record outlives a crash, so it is not missed.

use serde_bytes::ByteBuf;

use super::Client;
use crate::{
    engine::{Command, view},
    error::Error,
    store::RecordsRow,
};

/// Volumes that are remembered one by one; of more it is only remembered that there were.
const MAX_LED: usize = 32;

impl Client {
    /// What a compartment has recorded, by its number, now or ever.
    fn records(&self, number: usize) -> Result<RecordsRow, Error> {
        let mut row = self.read(number, view::records)?;
        let Some((id, _)) = self.volumes.get(number) else { return Ok(row) };
        for led in self.session.recorded_volumes(*id) {
            if !row.led.iter().any(|known| known.as_slice() == led.as_bytes()) {
                row.led.push(ByteBuf::from(led.as_bytes().to_vec()));
            }
        }
        row.held |= self.session.records_payloads(*id)
            || row.led.len() > MAX_LED
            || !self.read(number, view::plans)?.is_empty();
        row.led.truncate(MAX_LED);
        Ok(row)
    }

    /// Lets each compartment remember what is recorded beside it now.
    ///
    /// # Errors
    /// The records cannot be read or written.
    pub(super) fn remember_records(&mut self) -> Result<(), Error> {
        for number in 0..self.compartments.len() {
            let row = self.records(number)?;
            if row != self.read(number, view::records)? {
                self.command(number, Command::KeepRecords(row))?;
            }
        }
        Ok(())
    }

    /// Whether a compartment has recorded something that whoever opens only these, by number, must not know.
    pub(super) fn has_led_outside(&self, number: usize, shows: &[usize]) -> Result<bool, Error> {
        let row = self.records(number)?;
        let shown: Vec<&[u8]> = shows
            .iter()
            .filter_map(|n| self.volumes.get(*n).map(|(id, _)| id.as_bytes().as_slice()))
            .collect();
        Ok(row.held || row.led.iter().any(|led| !shown.contains(&led.as_slice())))
    }
}
