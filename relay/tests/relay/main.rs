//! The relay from outside: real QUIC on loopback, real processes, hostile clients.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(unreachable_pub, missing_docs, reason = "support for the tests of this binary")]

mod hostile;
mod quic;
mod support;
mod tripwire;
