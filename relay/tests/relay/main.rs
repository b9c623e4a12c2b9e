//! The relay from outside: real QUIC on loopback, real processes, hostile clients.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(clippy::disallowed_methods, reason = "tests write configuration files as an operator does")]
#![allow(unreachable_pub, missing_docs, reason = "support for the tests of this binary")]

mod anchor;
mod anchor_crash;
mod blob;
mod causes;
mod churn;
mod commands;
mod crash;
mod crowd;
mod erasure;
mod flood;
mod hostile;
mod local;
mod memory;
mod operator;
mod owner;
mod quic;
mod quota;
mod restart;
mod soak;
mod stall;
mod streams;
mod support;
mod tripwire;
mod unit;
mod watch;
mod wipe;
mod withdrawn;
