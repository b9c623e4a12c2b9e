//! Encrypted sessions: libsignal behind one narrow door.
//!
//! | module | what |
//! | --- | --- |
//! | `guard` | everything checked before libsignal sees a byte from outside |
//! | `contain` | a panic of libsignal ends one unit of work and nothing else |
//! | `store` | the records of one operation, as libsignal's stores |
//! | `binding` | a plaintext belongs to two identities and one context |
//! | `local` | our identity, its pre-keys, its signatures |
//! | `prekeys` | bundles |
//! | `pairwise` | sessions between two identities |
//! | `state` | their stored form |
//! | `sender` | sender keys for groups |
//! | `safety_number` | what two people compare |
//! | `error` | what can go wrong, by remedy |
//!
//! The rules are numbered `SES-01` to `SES-14` in `docs/protocol.md`.

mod binding;
mod contain;
mod error;
mod guard;
mod local;
mod pairwise;
mod prekeys;
mod safety_number;
mod sender;
mod state;
mod store;

pub use binding::Context;
pub use error::SessionError;
pub use guard::{MAX_COUNTER_AHEAD, MAX_MESSAGE};
pub use local::{BundleUse, LocalIdentity, MAX_BUNDLE_USES, MAX_LOCAL_STATE, MAX_OPEN_BUNDLES};
pub use pairwise::{
    Accepted, Ciphertext, Handshake, MAX_PLAINTEXT, Session, accept_first, carries_handshake,
    claimed_handshake, claimed_sender,
};
pub use prekeys::{Bundle, BundleIn, MAX_BUNDLE};
pub use safety_number::SafetyNumber;
pub use sender::{
    DistributionId, MAX_DISTRIBUTION, MAX_SENDER_KEY_MESSAGES, MAX_SENDER_STATE, OwnSenderKey, PeerSenderKey,
    distribution_of,
};
pub use state::MAX_SESSION_STATE;
