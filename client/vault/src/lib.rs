//! Deniable storage: one file of fixed size, indistinguishable from random bytes, in which a passphrase opens
//! some volumes and says nothing about others.
//!
//! What is promised, and by which test, is in `docs/vault-format.md` with the byte tables; its rules (VLT-01
//! and so on) are cited where the code keeps them. In short: whoever has no passphrase sees random bytes; who
//! has one learns nothing about what others open; every unlock does the same work and the same writes; a
//! power cut at any moment leaves the state before or after; a destroyed slot stays destroyed.
//!
//! Not promised: anything while the container is unlocked on a compromised machine; anything against who has
//! an image from before a destruction *and* the passphrase that opened it then; hiding from who compares two
//! images which parts of the file changed.
//!
//! | module | |
//! | --- | --- |
//! | `container` | creating, unlocking |
//! | `session` | what an unlocked container can do: volumes, passphrases |
//! | `header`, `slot`, `payload` | two header copies of sixteen two-layer slots, and what a slot holds |
//! | `allocation` | what a volume's sessions allocated |
//! | `volume`, `units`, `superblock` | redb on sealed units |
//! | `btree`, `pageset` | which units the database's trees lead to |
//! | `keytable` | keys that can be destroyed one by one |
//! | `kdf`, `xchacha`, `sector`, `map`, `labels`, `geometry`, `generation` | keys, sealing, encoding, labels, offsets, which copy is newer |
//! | `memory` | [`Secret`], the wiping allocator, hardening of the process |
//! | `backend` | file and memory |
//!
//! ```
//! use lapwing_vault::{Container, ContainerSize, Cost, MemoryBackend, Passphrase, redb::TableDefinition};
//! use std::time::Duration;
//!
//! const NOTES: TableDefinition<u64, &str> = TableDefinition::new("notes");
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };
//! # let mut rng = rand_chacha::ChaCha20Rng::from_os_rng();
//! # use rand_chacha::rand_core::SeedableRng;
//! let backend = MemoryBackend::new();
//! let file = backend.another_handle();
//! let real = Passphrase::new("lapwing nest reed marsh");
//! let session = Container::create(backend, ContainerSize::MIN, &real, cost, &mut rng, &mut |_, _| {})?;
//! let volume = session.open_volume(session.volumes()[0], &mut rng)?;
//! let write = volume.begin_write()?;
//! write.open_table(NOTES)?.insert(1, "meet at the ford")?;
//! write.commit()?;
//! drop((volume, session));
//!
//! let locked = Container::open(file)?;
//! let session = locked.unlock(&real, cost, &mut rng, Duration::from_secs(5))?;
//! let volume = session.open_volume(session.volumes()[0], &mut rng)?;
//! let read = volume.begin_read()?;
//! assert_eq!(read.open_table(NOTES)?.get(1)?.unwrap().value(), "meet at the ford");
//! # Ok(())
//! # }
//! ```

mod allocation;
mod backend;
mod btree;
mod container;
mod error;
mod generation;
mod geometry;
mod header;
mod kdf;
mod keytable;
mod labels;
mod map;
mod memory;
mod pageset;
mod payload;
mod sector;
mod session;
mod slot;
mod superblock;
mod units;
mod volume;
mod work;
mod xchacha;

#[doc(hidden)]
pub mod primitives;
#[doc(hidden)]
pub mod testing;

pub use redb;

pub use crate::{
    allocation::LABEL_MAX,
    backend::{Backend, FileBackend, MemoryBackend, Placement, Replacement, sync_folder_of},
    container::{Container, Locked},
    error::{
        ChangeError, CreateError, DerivationError, GrowError, HeldField, OpenError, SizeError, UnlockError,
        VolumeError,
    },
    geometry::ContainerSize,
    kdf::{Cost, Passphrase, stretch},
    keytable::{KeyName, KeyTable},
    memory::{Secret, WipingAllocator, harden_process, lock_memory, wipe_stack},
    payload::{APPLICATION_MAX, Others, PayloadId, VolumeId},
    session::{Entry, Session, Spec},
    volume::{ReadTransaction, Usage, Volume, WriteTransaction},
    xchacha::{NONCE_LEN, TAG_LEN, XChaCha},
};
