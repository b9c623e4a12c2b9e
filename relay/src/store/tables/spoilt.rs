//! What a batch does with what is sealed, and with mailboxes of which the disk has spoilt a part.

use lapwing_wire::{frame::Seq, ids::MailboxId};
use zeroize::Zeroizing;

use super::{
    super::{
        Born, Mailbox, StoreError,
        damage::{self, scan_around},
        keys::Slot,
        record::{self, Placed, SEAL_HEAD, Seal, UNSEALED, decode_envelope, envelope_length, key},
    },
    Batch, Scan, Space, Tables, load_written,
};

/// Goes on over the envelopes that were stored since the moving part was written, as far as they can be read.
pub(super) fn pass_readable(tables: &impl Tables, mailbox: &mut Mailbox) -> Result<(), StoreError> {
    let (first, last) =
        (key::envelope(mailbox.born, mailbox.newest.next()), key::envelope(mailbox.born, Seq::new(u64::MAX)));
    let around =
        scan_around(tables, Space::Bulk, &first, &last, &mut |key, value| match mailbox.pass(key, value) {
            Ok(()) | Err(StoreError::Damaged) => Ok(Scan::More),
            Err(failure) => Err(failure),
        });
    around.map(drop)
}

impl<T: Tables> Batch<'_, T> {
    /// A value of which everything is sealed, opened; its head is left away.
    ///
    /// One whose sector cannot be read is damaged: the disk that holds everybody else's is not gone.
    pub(crate) fn load_sealed(&self, key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let there = match self.load(Space::Bulk, key) {
            Err(StoreError::Disk) => return Err(StoreError::Damaged),
            there => there?.map(Zeroizing::new),
        };
        let Some(mut value) = there else { return Ok(None) };
        let seal = Seal::of(key, &value)?;
        value.drain(..SEAL_HEAD);
        if seal.nonce == UNSEALED || self.tables.unseal(&seal, &mut value)? {
            return Ok(Some(value));
        }
        Err(StoreError::Damaged)
    }

    /// Puts a value that is forgotten by itself: it has a slot of its own.
    pub(crate) fn put_alone(&mut self, key: Vec<u8>, bytes: &[u8]) -> Result<(), StoreError> {
        let slot = self.allocate()?;
        self.put(Space::Bulk, key, record::encode_part(slot, bytes));
        Ok(())
    }

    /// Deletes such a value, and forgets what opens it: of what cannot be found on the disk the keys stay, and nothing else waits for it.
    pub(crate) fn drop_alone(&mut self, key: Vec<u8>) -> Result<(), StoreError> {
        // Its head is enough: what the disk has spoilt can be deleted.
        let mut slot = None;
        let found = self.scan(Space::Bulk, &key, &key, &mut |_, value| {
            slot = Some(record::slot_in(value.head())?);
            Ok(Scan::Stop)
        });
        match found {
            Err(StoreError::Damaged) => {
                damage::found();
                self.delete(Space::Bulk, key);
            }
            found => {
                found?;
                if let Some(slot) = slot {
                    self.forget_keys(slot, u64::MAX);
                    self.delete(Space::Bulk, key);
                }
            }
        }
        Ok(())
    }

    /// Whether something can be sealed in a slot under a number. What is staged for one that cannot makes its whole batch void.
    pub(crate) fn has_keys(&self, slot: Slot, number: u64) -> bool {
        let is_kept =
            |chain: Option<super::super::keys::Chain>| chain.is_some_and(|chain| chain.at() <= number);
        self.fresh.contains(&slot) || self.tables.keys().is_none_or(|keys| keys.load(slot).is_ok_and(is_kept))
    }

    /// Makes a mailbox a sink of which only the fixed part can be read. What it holds lies under keys that all go, so it gets others.
    pub(crate) fn sink_unreadable_mailbox(
        &mut self,
        id: MailboxId,
        fixed: &[u8],
    ) -> Result<Born, StoreError> {
        let mut mailbox = self.gather(fixed)?;
        let (born, slot) = (mailbox.born, mailbox.slot);
        mailbox.sink = true;
        mailbox.slot = self.allocate()?;
        self.forget_keys(slot, u64::MAX);
        self.cache.mailboxes.insert(id, Some(mailbox));
        self.dirty_fixed.insert(id);
        self.dirty_moving.insert(id);
        self.put(Space::State, key::sink(born), id.as_bytes().to_vec());
        Ok(born)
    }

    /// What can be told of a mailbox that cannot be read, for its end.
    pub(crate) fn unreadable_mailbox(&self, id: &MailboxId) -> Result<Option<Mailbox>, StoreError> {
        let fixed = self.load(Space::State, &key::mailbox(id))?;
        fixed.map(|fixed| self.gather(&fixed)).transpose()
    }

    /// Goes on with a mailbox of which only newer envelopes cannot be read: behind the highest number that one of them may have.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] where its moving part cannot be read either: then numbers could come again.
    pub(crate) fn mend_mailbox(&mut self, id: &MailboxId) -> Result<(), StoreError> {
        let Some(fixed) = self.load(Space::State, &key::mailbox(id))? else { return Ok(()) };
        load_written(self.tables, &fixed)?;
        let mailbox = self.gather(&fixed)?;
        self.cache.mailboxes.insert(*id, Some(mailbox));
        self.dirty_moving.insert(*id);
        Ok(())
    }

    /// A mailbox, by what its envelopes and places tell where its moving part cannot be read, or not all that was stored since that was
    /// written. No envelope has a higher number than its newest, as far as any of that is there.
    fn gather(&self, fixed: &[u8]) -> Result<Mailbox, StoreError> {
        let mut mailbox = match load_written(self.tables, fixed) {
            Err(StoreError::Damaged) => Mailbox::of_fixed(fixed)?,
            written => written?,
        };
        let (born, mut is_damaged) = (mailbox.born, false);
        let (first, last) =
            (key::envelope(born, mailbox.newest.next()), key::envelope(born, Seq::new(u64::MAX)));
        let around = self.scan_around(Space::Bulk, &first, &last, &mut |name, value| {
            let (Some(seq), Ok((_, hash, _))) = (key::seq_in(name), decode_envelope(value.head())) else {
                is_damaged = true;
                return Ok(Scan::More);
            };
            (mailbox.newest, mailbox.hash) = (seq, hash);
            mailbox.bytes = mailbox.bytes.saturating_add(envelope_length(value.length()));
            Ok(Scan::More)
        })?;
        is_damaged |= around.is_damaged;
        // Of what was taken since, only its place is left.
        let (first, last) = key::places(born, &[]);
        let around = self.scan_around(Space::State, &first, &last, &mut |_, value| {
            match Placed::decode(&value.whole()?) {
                Ok(Placed { place, .. }) if place.seq > mailbox.newest => {
                    (mailbox.newest, mailbox.hash) = (place.seq, place.hash);
                }
                Ok(_) => {}
                Err(_) => is_damaged = true,
            }
            Ok(Scan::More)
        })?;
        if is_damaged || around.is_damaged || mailbox.newest == Seq::START {
            mailbox.pass_all_unwritten();
        }
        Ok(mailbox)
    }
}
