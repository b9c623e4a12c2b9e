//! Lapwing: an end-to-end encrypted coordination messenger with duress features.
//!
//! The library holds everything that the program `lapwing` does, so that tests can do it without a process.
//!
//! | module | what |
//! | --- | --- |
//! | [`cli`] | commands, prompts, output |
//! | [`attach`] | files that are sent and fetched |
//! | [`backup`] | the bytes of a backup |
//! | [`client`] | an unlocked vault: its compartments, its relays, its passphrases |
//! | [`driver`] | the only place that awaits: between engine, store and relays |
//! | [`engine`] | the logic: events in, effects out, no input or output |
//! | [`store`] | the records of a compartment |
//! | [`net`] | connections to relays |
//! | `signals` | signals that ask this process to end, and who is told of them |
//! | [`words`] | passphrases drawn at random |
//! | [`clock`], [`untrusted`], [`error`] | the system's clock, peers' text, what went wrong |

pub mod attach;
pub mod backup;
pub mod cli;
pub mod client;
pub mod clock;
pub mod driver;
pub mod engine;
pub mod error;
mod labels;
pub mod net;
mod signals;
pub mod store;
pub mod untrusted;
pub mod words;
