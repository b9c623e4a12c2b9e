//! The session layer through its public interface. Test names carry the number of the rule in `docs/protocol.md`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    unreachable_pub,
    reason = "tests fail by panicking, and their helpers are shared by modules of one binary"
)]

mod bundles;
mod conversation;
mod corpus;
mod hostile;
mod mutated;
mod safety;
mod sender_keys;
mod support;
mod vectors;
