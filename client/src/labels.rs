//! Every domain-separation label of the client's own records.

/// Seals message bodies.
pub(crate) const MESSAGE_BODY: &[u8] = b"lapwing/1 message body";
/// Seals what names and opens the file of a message.
pub(crate) const MESSAGE_FILE: &[u8] = b"lapwing/1 file of a message";
/// Names the mark of a message that was erased, in case it is sent again.
pub(crate) const ERASED_MESSAGE: &[u8] = b"lapwing/1 erased message";
/// Tells whether a plan has to be armed anew.
pub(crate) const PLAN_DIGEST: &[u8] = b"lapwing/1 plan digest";
/// Tells whether a trusted contact has to be told anew what he can set off.
pub(crate) const VOICES_DIGEST: &[u8] = b"lapwing/1 voices digest";
/// Names the record of an alert that came.
pub(crate) const ALERT_RECORD: &[u8] = b"lapwing/1 alert record";
/// Derives the key of a backup from its passphrase.
pub(crate) const BACKUP_KEY: &[u8] = b"lapwing/1 backup key";
/// Associated data of a backup's segments.
pub(crate) const BACKUP_SEGMENT: &[u8] = b"lapwing/1 backup segment";
/// Tells the other end of a moving where it is open.
pub(crate) const MOVE_END: &[u8] = b"lapwing/1 end of a moving";
