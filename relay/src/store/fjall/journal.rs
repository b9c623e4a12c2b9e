//! The torn end of a journal.
//!
//! The power may fail while a commit is being written; then some sectors of the journal's last batch are there and others
//! are not. The engine drops such a batch if it ends early, but if it has its end and only a checksum within is wrong, the
//! engine (3.1) refuses to open (`ChecksumMismatch`, `InsufficientLength`): found by the power-cut model. Nobody was
//! answered about that batch, so this module drops it.
//!
//! Invariant: only the last batch of the newest journal is dropped, and only if nothing but zeros follows it. A batch that
//! is damaged and has others behind it was durable once: then the store is damaged, and nothing is changed.
//!
//! ```text
//! start   1 | items u32 | number u64
//! item    2 | kind u8 | compression u8 | keyspace u64 | key length u16 | length u32 | stored length u32 | key | value
//! end     3 | checksum u64 | "FJL" 3
//! clear   4 | keyspace u64                                         all integers little-endian
//! ```

use std::{
    fs::{File, OpenOptions},
    io::{BufReader, ErrorKind, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use super::{StoreError, engine};

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const TRAILER: [u8; 4] = *b"FJL\x03";

/// Drops the last batch of the newest journal in a store's folder; `false` if it is not certain to be a torn one.
pub(super) fn drop_torn_end(folder: &Path) -> Result<bool, StoreError> {
    let found = newest(folder).and_then(|path| path.map(|path| cut(&path)).transpose());
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

fn cut(path: &Path) -> std::io::Result<bool> {
    let Some(last) = last_batch(&mut BufReader::new(File::open(path)?))? else { return Ok(false) };
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(last)?;
    file.sync_all()?;
    Ok(true)
}

/// Where the last batch begins, if it has its end and nothing but zeros follows.
fn last_batch(journal: &mut (impl Read + Seek)) -> std::io::Result<Option<u64>> {
    let mut last = None;
    loop {
        let begin = journal.stream_position()?;
        match batch(journal) {
            Ok(true) => last = Some(begin),
            Ok(false) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(error),
        }
        if last != Some(begin) {
            journal.seek(SeekFrom::Start(begin))?;
            return Ok(last.filter(|_| is_zero(journal).unwrap_or(false)));
        }
    }
}

/// Reads a batch; `false` if there is none.
fn batch(journal: &mut (impl Read + Seek)) -> std::io::Result<bool> {
    if byte(journal)? != START {
        return Ok(false);
    }
    take::<12>(journal)?;
    loop {
        match byte(journal)? {
            ITEM => {
                let head = take::<20>(journal)?;
                let key = i64::from(u16::from_le_bytes([head[10], head[11]]));
                let value = i64::from(u32::from_le_bytes([head[16], head[17], head[18], head[19]]));
                journal.seek_relative(key + value)?;
            }
            CLEAR => {
                take::<8>(journal)?;
            }
            END => {
                take::<8>(journal)?;
                return Ok(take::<4>(journal)? == TRAILER);
            }
            _ => return Ok(false),
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

fn is_zero(rest: &mut impl Read) -> std::io::Result<bool> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match rest.read(&mut buffer)? {
            0 => return Ok(true),
            count if buffer.iter().take(count).all(|byte| *byte == 0) => {}
            _ => return Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn one(value: &[u8]) -> Vec<u8> {
        let mut bytes = vec![START, 1, 0, 0, 0];
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&[ITEM, 0, 0]);
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&1u16.to_le_bytes());
        for _ in 0..2 {
            bytes.extend_from_slice(&u32::try_from(value.len()).unwrap().to_le_bytes());
        }
        bytes.push(b'k');
        bytes.extend_from_slice(value);
        bytes.push(END);
        bytes.extend_from_slice(&[7; 8]);
        bytes.extend_from_slice(&TRAILER);
        bytes
    }

    #[test]
    fn only_the_last_whole_batch_before_zeros_is_dropped() {
        let (first, second) = (one(&[START; 40]), one(&[0; 3000]));
        let at = u64::try_from(first.len()).unwrap();
        let find = |bytes: Vec<u8>| last_batch(&mut Cursor::new(bytes)).unwrap();
        assert_eq!(find([&first[..], &second].concat()), Some(at));
        assert_eq!(find([&first[..], &second, &[0; 5000]].concat()), Some(at));
        assert_eq!(find([&first[..], &second, &[0; 5000], &[1]].concat()), None);
        assert_eq!(find([&first[..], &second[..second.len() - 1]].concat()), None);
        assert_eq!(find(vec![0; 100]), None);
        assert_eq!(find(Vec::new()), None);
    }
}
