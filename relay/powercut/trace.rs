//! The trace that the shim writes and the model reads.
//!
//! ```text
//! record   kind u8 | file u64 | a u64 | b u64 | length u32 | bytes        little-endian
//!
//! kind       file   a            b       bytes
//! Open       yes    flags                path; flags: 1 made by this call, 2 a folder
//! Write      yes    offset               what was written
//! Resize     yes    new length
//! Reserve    yes    offset       length
//! SyncBegin  yes    number
//! SyncEnd    yes    number               file 0 is everything
//! Rename                                 old path | 0 | new path
//! Unlink                                 path
//! MakeFolder                             path
//! DropFolder                             path
//! Link                                   old path | 0 | new path
//! Unknown                                name of a call that the model cannot follow
//! ```
//! Paths are relative to the watched folder. A write is recorded when it has happened; a flush when it begins and when it
//! has succeeded: it covers what was recorded before it began. A flush that failed covers nothing.

/// What a record tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Open = 1,
    Write,
    Resize,
    Reserve,
    SyncBegin,
    SyncEnd,
    Rename,
    Unlink,
    MakeFolder,
    DropFolder,
    Link,
    Unknown,
}

/// Bytes before a record's own.
pub(crate) const HEAD: usize = 1 + 8 + 8 + 8 + 4;
/// Flag of `Open`: the file was made by this call.
pub(crate) const MADE: u64 = 1;
/// Flag of `Open`: it is a folder.
pub(crate) const FOLDER: u64 = 2;

/// Names the watched folder; absolute, without links.
pub(crate) const WATCHED: &str = "LAPWING_POWERCUT_FOLDER";
/// Names the file that takes the trace; outside the folder.
pub(crate) const TRACE: &str = "LAPWING_POWERCUT_TRACE";
/// Names a file: while it exists, the disk is full.
pub(crate) const FULL: &str = "LAPWING_POWERCUT_FULL";
/// Names a file: while it exists, flushes hang.
pub(crate) const HANG: &str = "LAPWING_POWERCUT_HANG";
/// Names a file: while it exists, what lies under the path in it, relative to the folder, cannot be read.
#[allow(dead_code, reason = "the model, which includes this file too, plays no such disk")]
pub(crate) const BLIND: &str = "LAPWING_POWERCUT_BLIND";
/// Names a file: while it exists, writes wait.
pub(crate) const HOLD: &str = "LAPWING_POWERCUT_HOLD";
/// Names a file: the next write fails with the error whose number is its only byte, and the file is gone. With `OF_FLUSH`
/// added to the number it is the next flush.
pub(crate) const FAIL: &str = "LAPWING_POWERCUT_FAIL";
/// Greater than the numbers of errors that are used.
pub(crate) const OF_FLUSH: u8 = 0x80;
