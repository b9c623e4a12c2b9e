//! What a Lapwing relay and its clients share: identifiers, capabilities, frames and limits.
//!
//! Nothing here performs input or output, reads a clock or decrypts a message. The byte formats are those of
//! `docs/protocol-wire.md`; each rule there has a number that the code repeats (`FRM-03`, `CAP-02`, ...).
//!
//! | module | what |
//! | --- | --- |
//! | [`address`] | where a relay is and which key it must show |
//! | [`anchor`] | the relay-held part of a vault's keys |
//! | [`armor`] | bytes as text that survives copying by hand: base32 with a checksum |
//! | [`capability`] | Ed25519 rights on one mailbox, bound to one connection |
//! | [`codec`] | bounded CBOR |
//! | [`frame`] | requests, responses, notices |
//! | [`ids`] | names of mailboxes, envelopes, blobs, tripwires |
//! | [`labels`] | every domain-separation label of relay and client |
//! | [`limits`] | every bound that both sides rely on |
//! | [`oprf`] | evaluating a passphrase that the relay does not see (RFC 9497) |
//! | [`padding`] | the four envelope sizes |
//! | [`sharing`] | a key among n voices, of which k suffice |
//! | [`succession`] | how a relay's key changes |
//! | [`time`] | a point in time as an argument |
//! | [`tripwire`] | tokens, their sealed records, action lists |
//!
//! ```
//! use lapwing_wire::{capability::{SecretKey, Write}, ids::MailboxId};
//! let admin = SecretKey::from_seed([7; 32]);
//! let id = MailboxId::of_admin(&admin.public());
//! let writer: SecretKey<Write> = SecretKey::from_seed([8; 32]);
//! assert_ne!(id.as_bytes(), writer.public().as_bytes());
//! ```

pub mod address;
pub mod anchor;
pub mod armor;
pub mod capability;
pub mod codec;
pub mod frame;
pub mod ids;
pub mod labels;
pub mod limits;
pub mod oprf;
pub mod padding;
mod random;
pub mod sharing;
pub mod succession;
pub mod time;
pub mod tripwire;
