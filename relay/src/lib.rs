//! Stores and forwards ciphertext.
//!
//! A relay answers `stored` when an envelope is on disk, not before; it cannot read what it carries, and it says the
//! same to those who may not ask as about what does not exist. It promises neither secrecy about who connects to it,
//! nor that deleted bytes leave the disk at once (`docs/threat-model.md`).
//!
//! | module | what |
//! | --- | --- |
//! | [`archive`] | a backup as a file |
//! | [`cli`] | the commands of the program |
//! | [`clock`] | the only look at the system's clock |
//! | [`config`] | the configuration file |
//! | [`doctor`] | what an operator should know |
//! | [`key`] | the relay's key and its TLS configuration |
//! | [`limits`] | what the operator allows |
//! | [`metrics`] | numbers for a monitoring program |
//! | [`operator`] | what the operator may ask of a relay, running or not |
//! | [`place`] | the relay's folder and the files in it |
//! | [`probe`] | one handshake with a relay |
//! | [`server`] | QUIC around the service |
//! | [`service`] | what each request does, without a network |
//! | [`store`] | what is kept, behind one trait |

pub mod archive;
pub mod cli;
pub mod clock;
pub mod config;
pub mod doctor;
pub mod key;
pub mod limits;
pub mod metrics;
pub mod operator;
pub mod place;
pub mod probe;
pub mod server;
pub mod service;
pub mod store;
