//! What sessions carry, through the public interface and with real sessions. Test names carry the number of the rule
//! in `docs/protocol-envelopes.md` and `docs/protocol-groups.md`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "tests fail by panicking, and the bodies of the fuzz targets are shared"
)]

mod corpus;
mod group;
