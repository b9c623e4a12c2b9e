//! Bounds that relay and client both rely on. Each has a unit, a reason, and what happens at it.

use std::time::Duration;

/// Longest frame in bytes, without its length prefix. Three of the largest envelopes fit into one answer;
/// a longer claim ends the connection before anything is read.
pub const MAX_FRAME: usize = 256 << 10;

/// Bytes of the length prefix of a frame.
pub const FRAME_PREFIX: usize = 4;

/// Room that an answer's CBOR needs around one envelope.
pub const ENVELOPE_OVERHEAD: usize = 160;

/// Most envelopes in one answer or notice.
pub const MAX_WINDOW: usize = 128;

/// Most bytes of envelopes in one answer or notice; one envelope is always returned.
pub const MAX_WINDOW_BYTES: usize = 128 << 10;

/// Most sequence numbers in a selective acknowledgement; more are sent in the next one.
pub const MAX_SELECTIVE: usize = 256;

/// How far beyond the first envelope that waits a selective acknowledgement reaches, in numbers: whoever reads a mailbox, or takes from
/// it, walks over what was taken out of order, which must not cost more than a millisecond or so of the relay's one writer. Beyond it
/// the relay answers `too_large`, and what waits first is to be taken first.
pub const MAX_SELECTIVE_REACH: u64 = 4096;

/// Largest part of a blob in one frame.
pub const MAX_BLOB_PART: usize = 64 << 10;

/// Smallest part of a blob but its last: bounds how many records a blob becomes. Below it the relay answers
/// `too_large` (not of an allowed size).
pub const MIN_BLOB_PART: usize = 16 << 10;

/// Largest blob. Above it the relay answers `too_large`.
pub const MAX_BLOB: u64 = 100 << 20;

/// Most sealed records that one tripwire may leave: eight passphrases, with room for replacing them.
pub const MAX_TOKEN_RECORDS: usize = 32;

/// Longest sealed action list in bytes: some 40 alerts of the medium size.
pub const MAX_ACTION_LIST: usize = 192 << 10;

/// Most actions in one list.
pub const MAX_ACTIONS: usize = 256;

/// Shortest deadline, and shortest time between the two: below it a relay that is restarted could not be renewed in time.
pub const MIN_DEADLINE: Duration = Duration::from_secs(600);

/// Longest deadline.
pub const MAX_DEADLINE: Duration = Duration::from_secs(400 * 24 * 3600);

/// Most trusted contacts who may set off one tripwire, or thaw one anchor.
pub const MAX_VOICES: usize = 8;

/// Fewest voices that may destroy anything.
pub const MIN_DESTROYING_VOICES: u8 = 2;

/// For how many days of the relay a trusted contact's voice counts; then it has to be raised again.
pub const VOICE_DAYS: u32 = 7;

/// Entries of every anchor: one for each passphrase that a vault can have, used or not.
pub const ANCHOR_ENTRIES: usize = 8;

/// Evaluations of an anchor without a right proof, at which it freezes; one is forgotten a day.
pub const MAX_FAILURES: u8 = 10;

/// How long the relay keeps an envelope unless its operator says otherwise.
pub const DEFAULT_RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);

/// How many bytes the relay keeps in one mailbox unless its operator says otherwise.
pub const DEFAULT_MAILBOX_BYTES: u64 = 64 << 20;

/// Most changes of a relay's key that clients follow, some 140 bytes each: a key a month for more than a year. A relay
/// that has reached it changes its key no more.
pub const MAX_LINEAGE: usize = 16;

/// Requests that one connection may have unanswered; the relay stops reading at it.
pub const MAX_IN_FLIGHT: usize = 256;
