//! What the scenario tests and audits of Lapwing share. Never published, linked by no program.
//!
//! - [`audit`]: reads the project's own sources, papers, manifests and dependency graph and reports what breaks
//!   a rule of the house. Every rule is a pure function, tried on planted violations before it judges the tree.
//! - [`images`]: vaults of released formats, kept for ever.
//! - [`reader`]: what a stranger can open with the documents alone, in Python.
//! - [`trace`]: a program under ptrace: every system call, every byte it writes, what it leaves in memory.
//! - [`examiner`]: what somebody finds who has every version of every block, and some passphrase.
//! - [`scenario`]: the two programs as real processes, on loopback.
//! - [`transcript`]: commands run inside a test, and what is seen of them.
//! - [`world`]: many clients, relays in process, one manual clock and a network that misbehaves on demand.

pub mod audit;
pub mod examiner;
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

#[expect(clippy::expect_used, clippy::panic, reason = "code of tests only")]
pub mod trace;

/// The cost of a key derivation in tests that unlock hundreds of times: the least that Argon2 accepts.
pub const CHEAP: lapwing_vault::Cost = lapwing_vault::Cost { memory_kib: 8, passes: 1, lanes: 1 };
