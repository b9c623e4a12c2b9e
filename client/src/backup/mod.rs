//! A backup: history, identities and what renews sessions, in one file that is random bytes to whoever has no passphrase.
//!
//! ```text
//! file    = head 4,096 | segment 65,536 ...            as many that the file has 4,096 bytes and whole MiB
//! head    = salt 32 | random
//! key     = HKDF-SHA-256( Argon2id( passphrase, salt, the cost of containers ), "lapwing/1 backup key" )
//! segment = XChaCha20-Poly1305, 65,520 bytes and tag 16; nonce = last 01, else 00 | 15 zeros | number, 8, big endian;
//!           associated data "lapwing/1 backup segment"
//! content = version 01 | ( length 4, big endian | CBOR of an item )... | 00 00 00 00 | zeros
//! ```
//!
//! Rules (docs/backup-format.md): BAK-01 no byte is anything but random without the passphrase, and the length tells
//! whole MiB; BAK-02 nothing is read before its segment is authentic, and nothing is used before all are; BAK-03 the
//! version lies inside; BAK-04 whatever exists is never overwritten, and what is not finished is removed; BAK-05 no
//! ratchet state; BAK-06 unknown kinds of items are refused by name, unknown fields ignored.
//!
//! | module | what |
//! | --- | --- |
//! | `seal` | segments: written and read as a stream |
//! | `items` | what the content consists of |

mod items;
mod seal;

pub use items::{Item, ItemError};
pub use seal::{ReadFailure, Reader, SEGMENT, Writer};

/// Longest encoded item: the chain of a group with 500 members.
pub const MAX_ITEM: usize = 9 << 20;
