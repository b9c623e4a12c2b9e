//! One system call, and what it was about.

use std::{fmt, path::PathBuf};

/// What a descriptor or path of a call stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// The call is about no file.
    Nothing,
    /// Standard input, output or error.
    Standard(u8),
    /// A file, by the path by which it was opened.
    File(PathBuf),
    /// A socket.
    Socket,
    /// Another descriptor: a pipe, an event, a timer.
    Other,
}

/// A system call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Which thread made it: 0 is the first, others in the order in which they were begun.
    pub thread: usize,
    /// The kernel's name for it; `call 123` for one that is not in the table.
    pub name: String,
    /// What it was about.
    pub target: Target,
    /// Where a rename or link leads.
    pub second: Option<PathBuf>,
    /// The offset in the file, for calls that have one.
    pub offset: Option<u64>,
    /// Bytes asked for: to read, to write, to send, to map.
    pub length: Option<u64>,
    /// Flags, protections, commands: what else has the same meaning in every run.
    pub flags: Option<u64>,
    /// What it returned: a negative error number on failure, 0 for every address and descriptor.
    pub result: i64,
    /// Whether it changes a file: decided when it was made.
    pub(super) changes: bool,
}

impl Call {
    /// Whether it writes to a file, syncs it, or changes which files there are.
    #[must_use]
    pub fn changes_a_file(&self) -> bool {
        self.changes
    }

    /// The file it is about.
    #[must_use]
    pub fn file(&self) -> Option<&PathBuf> {
        match &self.target {
            Target::File(path) => Some(path),
            _ => None,
        }
    }
}

/// One line: everything that is the same in every run.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.thread, self.name)?;
        match &self.target {
            Target::Nothing => {}
            Target::Standard(number) => write!(f, " std{number}")?,
            Target::File(path) => write!(f, " {}", path.display())?,
            Target::Socket => f.write_str(" socket")?,
            Target::Other => f.write_str(" other")?,
        }
        if let Some(second) = &self.second {
            write!(f, " to {}", second.display())?;
        }
        if let Some(offset) = self.offset {
            write!(f, " at {offset}")?;
        }
        if let Some(length) = self.length {
            write!(f, " len {length}")?;
        }
        if let Some(flags) = self.flags {
            write!(f, " flags {flags:#x}")?;
        }
        write!(f, " = {}", self.result)
    }
}

/// Bytes that were written to a watched file, or the moment at which it was synced.
#[derive(Clone, PartialEq, Eq)]
pub struct Write {
    /// The file.
    pub file: PathBuf,
    /// Where. `None`: a sync; everything before it is on the disk.
    pub offset: Option<u64>,
    /// What; empty for a sync.
    pub bytes: Vec<u8>,
    /// The number of the call in its trace.
    pub call: usize,
}

impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.offset {
            Some(offset) => write!(f, "write {} at {offset}", self.bytes.len()),
            None => f.write_str("sync"),
        }
    }
}
