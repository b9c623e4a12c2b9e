//! What the scenario tests and audits of Lapwing share. Never published, linked by no program.
//!
//! - [`audit`]: reads the project's own sources, papers, manifests and dependency graph and reports what breaks
//!   a rule of the house. Every rule is a pure function, tried on planted violations before it judges the tree.
//! - [`images`]: vaults of released formats, kept for ever.
//! - [`reader`]: what a stranger can open with the documents alone, in Python.
//! - [`scenario`]: the two programs as real processes, on loopback.
//! - [`transcript`]: commands run inside a test, and what is seen of them.
//! - [`world`]: many clients, relays in process, one manual clock and a network that misbehaves on demand.

pub mod audit;
#[expect(clippy::expect_used, reason = "code of tests only")]
pub mod images;
#[expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "code of tests only, which says what it leaves out"
)]
pub mod reader;
#[expect(clippy::expect_used, clippy::panic, reason = "code of tests only")]
pub mod scenario;
#[expect(clippy::expect_used, reason = "code of tests only")]
pub mod transcript;
#[expect(clippy::expect_used, clippy::panic, reason = "code of tests only")]
pub mod world;
