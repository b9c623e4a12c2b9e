//! Logs of writes, as files: what `lapwing-examiner record` makes and `lapwing-examiner examine` reads.
//!
//! ```text
//! log = "lapwing write log 1\n" | { offset 8 | length 8 | bytes }*      (little-endian; offset 2^64 - 1: a sync)
//! ```

use std::{
    io::{self, Read},
    path::Path,
};

use crate::trace::Write;

const HEAD: &[u8] = b"lapwing write log 1\n";
const SYNC: u64 = u64::MAX;

/// Most bytes of one write that a log may claim: larger than any that the program makes.
const LONGEST: u64 = 1 << 30;

/// Adds the writes of one run to a log.
///
/// # Errors
/// The system's error.
pub fn append(log: &mut impl io::Write, begins: bool, writes: &[Write]) -> io::Result<()> {
    if begins {
        log.write_all(HEAD)?;
    }
    for write in writes {
        log.write_all(&write.offset.unwrap_or(SYNC).to_le_bytes())?;
        log.write_all(&(write.bytes.len() as u64).to_le_bytes())?;
        log.write_all(&write.bytes)?;
    }
    Ok(())
}

/// Reads a log whole. `file` is what the writes are said to have gone to.
///
/// # Errors
/// The system's error; `InvalidData` if it is no log or was cut.
pub fn read(log: &mut impl Read, file: &Path) -> io::Result<Vec<Write>> {
    let invalid =
        || io::Error::new(io::ErrorKind::InvalidData, "this is no log of writes, or its end is missing");
    let mut head = [0; HEAD.len()];
    log.read_exact(&mut head).map_err(|_| invalid())?;
    if head != HEAD {
        return Err(invalid());
    }
    let mut writes = Vec::new();
    loop {
        let mut offset = [0; 8];
        if log.read(&mut offset[..1])? == 0 {
            return Ok(writes);
        }
        log.read_exact(&mut offset[1..]).map_err(|_| invalid())?;
        let mut length = [0; 8];
        log.read_exact(&mut length).map_err(|_| invalid())?;
        let (offset, length) = (u64::from_le_bytes(offset), u64::from_le_bytes(length));
        if length > LONGEST {
            return Err(invalid());
        }
        let mut bytes = Vec::new();
        log.take(length).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != length {
            return Err(invalid());
        }
        let call = writes.len();
        writes.push(Write { file: file.to_owned(), offset: (offset != SYNC).then_some(offset), bytes, call });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_comes_back_and_a_cut_or_foreign_one_is_refused() {
        let file = Path::new("vault");
        let writes = [
            Write { file: file.to_owned(), offset: Some(4096), bytes: vec![7; 300], call: 0 },
            Write { file: file.to_owned(), offset: None, bytes: Vec::new(), call: 1 },
        ];
        let mut log = Vec::new();
        append(&mut log, true, &writes[..1]).unwrap();
        append(&mut log, false, &writes[1..]).unwrap();
        assert_eq!(read(&mut log.as_slice(), file).unwrap(), writes);
        for cut in (1..log.len()).filter(|cut| ![HEAD.len(), HEAD.len() + 316].contains(cut)) {
            assert!(read(&mut &log[..cut], file).is_err(), "{cut}");
        }
        assert!(read(&mut [0; 64].as_slice(), file).is_err());
    }
}
