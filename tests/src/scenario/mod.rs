//! The real programs, as real processes: a relay on a loopback port, people with vaults, a folder that goes away.
//!
//! Nothing here is simulated: each command is a process with a full key derivation, each relay a process with a store
//! on disk. A scenario is therefore written with few commands. Every wait is bounded ([`wait`]) and polls for what it
//! waits for; nothing is proved by sleeping. Whatever a scenario started is ended and reaped when it is dropped.
//!
//! | module | what |
//! | --- | --- |
//! | [`folder`] | a folder of a scenario's own |
//! | [`outcome`] | what a command printed and how it ended |
//! | [`person`] | a vault, its passphrase, commands on it |
//! | [`programs`] | where the two binaries are |
//! | [`relay`] | a relay that can be killed, frozen, stopped and started again |
//! | [`running`] | a command that goes on while the scenario does other things |
//! | [`wait`] | bounded waiting |

pub mod folder;
pub mod outcome;
pub mod person;
pub mod programs;
pub mod relay;
pub mod running;
pub mod wait;

pub use folder::Folder;
pub use outcome::Outcome;
pub use person::{Pair, Person};
pub use relay::Relay;
pub use running::Running;
