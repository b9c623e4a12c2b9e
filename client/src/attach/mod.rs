//! Files that are sent and fetched: what is read of one, what is left out of it, and how one appears on the disk.
//!
//! | module | what |
//! | --- | --- |
//! | `kind` | what sort of file it is, told by its bytes |
//! | `picture` | pictures without what they say beside what is seen |
//! | `layout` | a file as parts of another |
//! | `source` | a file to be sent |
//! | `target` | a file that was fetched |
//!
//! Invariants: nothing here holds more than a few chunks in memory, whatever the size of a file; a picture's layout is a
//! function of its bytes, so that what was cut off is sealed again to the same bytes (ATT-04); a fetched file appears
//! whole or not at all (ATT-08).

mod kind;
mod layout;
mod picture;
mod source;
mod target;

pub use kind::Kind;
pub use source::{Prepared, Source, SourceError};
pub use target::{Target, TargetError};
