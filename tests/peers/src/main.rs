//! Lapwing beside programs that people know, in one run, on one machine. Ratios, not absolutes.
//!
//! ```text
//! cargo run --release --manifest-path tests/peers/Cargo.toml -- vault
//! ```
//! Every round asserts what it timed; the exit code says whether all that must hold does.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]

mod corpus;
mod flush;
mod ours;
mod rounds;
mod sqlcipher;
mod vault;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// As the program: what it frees is wiped.
#[global_allocator]
static ALLOCATOR: lapwing_vault::WipingAllocator = lapwing_vault::WipingAllocator;

#[derive(Parser)]
#[command(about = "Lapwing beside programs that people know, in one run")]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// The vault against SQLCipher
    Vault(vault::Options),
    /// Make a vault with messages that the program itself can open, to try commands on
    Populate {
        /// The file; there must be none
        path: PathBuf,
        /// Messages
        #[arg(long, default_value_t = 100_000)]
        messages: u64,
        /// Size in MiB
        #[arg(long, default_value_t = 512)]
        mebibytes: u64,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().bench {
        Bench::Vault(options) => vault::run(&options),
        Bench::Populate { path, messages, mebibytes } => {
            vault::populate(&path, messages, mebibytes << 20);
            ExitCode::SUCCESS
        }
    }
}
