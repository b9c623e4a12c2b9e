//! What the examiner tells: to a person, and to a program.

use std::fmt;

use serde::Serialize;

use super::payload::PayloadShown;

/// Where a canary was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Found {
    /// Which.
    pub canary: String,
    /// In which writing: plain, UTF-16, hexadecimal, base64.
    pub form: String,
    /// In which block, file or range of memory.
    pub place: String,
}

/// Something that was searched as it is, without a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Searched {
    /// What.
    pub what: String,
    /// Bytes of it.
    pub bytes: u64,
}

/// What an examination came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Images taken in.
    pub images: usize,
    /// Writes taken in.
    pub writes: usize,
    /// Different versions of blocks.
    pub blocks: usize,
    /// Passphrases tried.
    pub passphrases: usize,
    /// Versions of headers whose slots were laid bare.
    pub headers: usize,
    /// Versions of payloads that opened.
    pub payloads: Vec<PayloadShown>,
    /// Volumes that opened.
    pub volumes: usize,
    /// Versions of pages that opened.
    pub pages: usize,
    /// Sealed texts that were tried in them.
    pub texts: usize,
    /// Bytes that were opened and searched.
    pub opened_bytes: u64,
    /// What was searched besides.
    pub searched: Vec<Searched>,
    /// Canaries that were looked for.
    pub canaries: usize,
    /// Canaries that were found.
    pub found: Vec<Found>,
}

impl Report {
    /// Names of the canaries that were found, each once.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.found.iter().map(|found| found.canary.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// For somebody who knows neither the format nor the program.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "WHAT THE EXAMINER HAD")?;
        writeln!(
            f,
            "  {} image(s) of the container and {} recorded write(s): {} different versions of its blocks.",
            self.images, self.writes, self.blocks
        )?;
        writeln!(
            f,
            "  {} passphrase(s), the source of the program, and all the time it wanted.",
            self.passphrases
        )?;
        for one in &self.searched {
            writeln!(f, "  Also searched: {} ({} bytes).", one.what, one.bytes)?;
        }
        writeln!(f, "\nWHAT IT OPENED")?;
        if self.payloads.is_empty() {
            writeln!(f, "  Nothing: to these passphrases the container is random bytes.")?;
        } else {
            writeln!(
                f,
                "  {} version(s) of {} payload(s): {} compartment(s), {} page(s) of records, old and deleted ones\n  \
                 included, and {} piece(s) that may be sealed texts. {} bytes in all.",
                self.payloads.len(),
                self.distinct(),
                self.volumes,
                self.pages,
                self.texts,
                self.opened_bytes
            )?;
            writeln!(
                f,
                "  In {} version(s) of the header it took the outer layer off all 16 slots. Slots that these\n  \
                 passphrases do not open are random bytes: used, empty and destroyed ones alike.",
                self.headers
            )?;
        }
        writeln!(
            f,
            "\nWHAT IT LOOKED FOR\n  {} planted word(s) or key(s), in plain text, in other case, in UTF-16,",
            self.canaries
        )?;
        writeln!(f, "  in hexadecimal and in base64, in everything above.")?;
        writeln!(f, "\nWHAT IT FOUND")?;
        if self.found.is_empty() {
            return writeln!(f, "  None of them.");
        }
        for name in self.names() {
            let places: Vec<&Found> = self.found.iter().filter(|found| found.canary == name).collect();
            writeln!(
                f,
                "  {name:?}: in {} place(s), the first: {} ({})",
                places.len(),
                places[0].place,
                places[0].form
            )?;
        }
        Ok(())
    }
}

impl Report {
    /// Payloads that lie in different slots.
    fn distinct(&self) -> usize {
        let mut slots: Vec<[u8; 2]> = self.payloads.iter().map(|payload| payload.slots).collect();
        slots.sort_unstable();
        slots.dedup();
        slots.len()
    }
}
