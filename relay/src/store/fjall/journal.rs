//! The end of a journal of the engine that a power cut left with holes.
//!
//! The engine's journal is flushed with a checkpoint only. What came later may be there in part, sector by sector. The engine
//! (3.1) drops a batch that ends early, but refuses to open when one has its end and a wrong sum within (`ChecksumMismatch`,
//! `InsufficientLength`): found by the power-cut model. The log has everything after the checkpoint, so what lies behind the
//! first batch that is not whole may go.
//!
//! Invariant: nothing but the newest journal is changed; the others were flushed when they were ended. If what is dropped had been
//! flushed with a checkpoint, the index has less than the log says, and the store is not opened.
//!
//! ```text
//! start   1 | items u32 | number u64
//! item    2 | kind u8 | compression u8 | keyspace u64 | key length u16 | length u32 | stored length u32 | key | value
//! end     3 | XXH3 of the items u64 | "FJL" 3
//! clear   4 | keyspace u64                                         all integers little-endian
//! ```

use std::{
    fs::{File, OpenOptions},
    io::{BufReader, ErrorKind, Read},
    path::{Path, PathBuf},
};

use xxhash_rust::xxh3::Xxh3;

use super::{StoreError, engine};

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const TRAILER: [u8; 4] = *b"FJL\x03";

/// Cuts the newest journal in a store's folder behind its last whole batch; `false` if all of it is whole, or if what is whole ends
/// before the group that the log calls durable in the index.
pub(super) fn drop_torn_end(folder: &Path, durable: u64) -> Result<bool, StoreError> {
    let found = newest(folder).and_then(|path| path.map(|path| cut(&path, durable)).transpose());
    found.map(|done| done == Some(true)).map_err(|error| engine::io(&error))
}

fn newest(folder: &Path) -> std::io::Result<Option<PathBuf>> {
    let mut found: Option<(u64, PathBuf)> = None;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let is_journal = path.extension().is_some_and(|extension| extension == "jnl");
        let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        if let Some(number) = number.filter(|_| is_journal)
            && found.as_ref().is_none_or(|(newest, _)| number > *newest)
        {
            found = Some((number, path));
        }
    }
    Ok(found.map(|(_, path)| path))
}

fn cut(path: &Path, durable: u64) -> std::io::Result<bool> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let (whole, serial) = whole_batches(&mut BufReader::new(file))?;
    // A journal that says nothing of serials has nothing that was flushed, or its first batch is spoilt: then the index has less than the
    // log says, and that is told. What lies behind is not looked at: in it are bytes that clients choose, and a whole batch is soon made of
    // them.
    if whole == length || serial.is_some_and(|serial| serial < durable) {
        return Ok(false);
    }
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(whole)?;
    file.sync_all()?;
    Ok(true)
}

/// Where the last of the whole batches at the beginning ends, and the last serial in them.
fn whole_batches(journal: &mut impl Read) -> std::io::Result<(u64, Option<u64>)> {
    let (mut end, mut last) = (0, None);
    loop {
        match batch(journal) {
            Ok(Some((length, serial))) => (end, last) = (end + length, serial.or(last)),
            Ok(None) => return Ok((end, last)),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok((end, last)),
            Err(error) => return Err(error),
        }
    }
}

/// Reads a batch, and says how long it was and which serial it gives to the index; nothing, if it is not whole.
fn batch(journal: &mut impl Read) -> std::io::Result<Option<(u64, Option<u64>)>> {
    if byte(journal)? != START {
        return Ok(None);
    }
    let [a, b, c, d, ..] = take::<12>(journal)?;
    let items = u32::from_le_bytes([a, b, c, d]);
    let (mut length, mut count, mut sum, mut serial) = (13, 0u32, Xxh3::new(), None);
    loop {
        let tag = byte(journal)?;
        let head = match tag {
            ITEM => take::<20>(journal)?.to_vec(),
            CLEAR => take::<8>(journal)?.to_vec(),
            END => {
                let told = u64::from_le_bytes(take(journal)?);
                let is_whole = take::<4>(journal)? == TRAILER && told == sum.digest() && count == items;
                return Ok(is_whole.then_some((length + 13, serial)));
            }
            _ => return Ok(None),
        };
        sum.update(&[tag]);
        sum.update(&head);
        length += 1 + head.len() as u64;
        count = count.saturating_add(1);
        if let [_, _, _, _, _, _, _, _, _, _, k, l, _, _, _, _, m, n, o, p] = head.as_slice() {
            let rest =
                u64::from(u16::from_le_bytes([*k, *l])) + u64::from(u32::from_le_bytes([*m, *n, *o, *p]));
            let mut left = rest;
            let mut buffer = [0; 4096];
            while left > 0 {
                let most = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
                let bytes = buffer.get_mut(..most).unwrap_or_default();
                journal.read_exact(bytes)?;
                sum.update(bytes);
                // A key of one byte and a value of eight.
                if let Some(value) = bytes.strip_prefix(super::SERIAL).filter(|_| (*k, rest) == (1, 9)) {
                    serial = value.try_into().ok().map(u64::from_be_bytes);
                }
                left -= bytes.len() as u64;
            }
            length += rest;
        }
    }
}

fn byte(journal: &mut impl Read) -> std::io::Result<u8> {
    take::<1>(journal).map(|[byte]| byte)
}

fn take<const N: usize>(journal: &mut impl Read) -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    journal.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(value: &[u8]) -> Vec<u8> {
        let mut item = vec![ITEM, 0, 0];
        item.extend_from_slice(&[0; 8]);
        item.extend_from_slice(&1u16.to_le_bytes());
        for _ in 0..2 {
            item.extend_from_slice(&u32::try_from(value.len()).unwrap().to_le_bytes());
        }
        item.push(b'k');
        item.extend_from_slice(value);
        let mut sum = Xxh3::new();
        sum.update(&item);
        let mut bytes = vec![START, 1, 0, 0, 0];
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&item);
        bytes.push(END);
        bytes.extend_from_slice(&sum.digest().to_le_bytes());
        bytes.extend_from_slice(&TRAILER);
        bytes
    }

    #[test]
    fn whole_batches_are_kept_up_to_the_first_that_is_not() {
        let (first, second) = (one(&[START; 40]), one(&[0; 9000]));
        let whole = |bytes: &[u8]| usize::try_from(whole_batches(&mut &*bytes).unwrap().0).unwrap();
        let both = [&first[..], &second].concat();
        assert_eq!(whole(&both), both.len());
        assert_eq!(whole(&[&both[..], &[0; 5000]].concat()), both.len());
        assert_eq!(whole(&both[..both.len() - 1]), first.len());
        assert_eq!(whole(&[0; 100]), 0);
        assert_eq!(whole(&[]), 0);
        for at in [0, 3, 20, 50, second.len() - 1] {
            let mut torn = second.clone();
            torn[at] ^= 1;
            let bytes = [&first[..], &torn, &second].concat();
            assert_eq!(whole(&bytes), first.len(), "{at}");
        }
    }

    /// What the engine itself writes is read as whole.
    #[test]
    fn a_journal_of_the_engine_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        {
            let db = super::super::database(dir.path(), 16 << 20).unwrap();
            let keyspace = db.keyspace("bulk", super::super::options).unwrap();
            for n in 0..100u32 {
                let mut batch = db.batch();
                batch.insert(&keyspace, n.to_be_bytes(), vec![7; 3000]);
                batch.remove(&keyspace, [1]);
                batch.insert(&keyspace, super::super::SERIAL, u64::from(n).to_be_bytes());
                batch.commit().unwrap();
            }
            db.persist(fjall::PersistMode::SyncAll).unwrap();
        }
        let path = newest(dir.path()).unwrap().unwrap();
        let bytes = std::fs::read(path).unwrap();
        let (end, serial) = whole_batches(&mut &*bytes).unwrap();
        let end = usize::try_from(end).unwrap();
        assert_eq!(serial, Some(99));
        assert!(end > 300_000);
        assert!(bytes[end..].iter().all(|byte| *byte == 0));
    }
}
