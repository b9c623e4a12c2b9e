//! The relay beside servers that people know, as real processes on this machine. Ratios, not absolutes.
//!
//! ```text
//! tests/benches/relay-peers
//! ```
//! gets the peers, builds what is needed, and runs all. Every round asserts what it timed; the exit code says whether
//! all that must hold does.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench that cannot go on has failed")]

mod appends;
mod bare;
mod delivery;
mod drain;
mod handshakes;
mod idle;
mod link;
mod lossy;
mod process;
mod ratios;
mod servers;
mod stored;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};

use process::Disk;

#[derive(Parser)]
#[command(about = "The relay beside servers that people know, in one run")]
struct Arguments {
    #[command(flatten)]
    programs: servers::Programs,
    /// Rounds, in each of which every arm has its turn
    #[arg(long, default_value_t = 5, global = true)]
    rounds: usize,
    /// Folder on a file system in memory
    #[arg(long, default_value = "/dev/shm", global = true)]
    memory: PathBuf,
    /// Folder on the disk
    #[arg(long, default_value = "/var/tmp", global = true)]
    disk: PathBuf,
    /// The library that makes flushes longer
    #[arg(long, global = true)]
    flush: Option<PathBuf>,
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Durable appends a second against redis, NATS, mosquitto
    Appends {
        #[command(flatten)]
        load: appends::Load,
        /// Where files lie and what a flush takes: `disk`, or microseconds longer than none, on a file system in memory
        #[arg(long, default_values = ["0", "100", "1000"])]
        on: Vec<String>,
        /// Only our relay, for a profiler
        #[arg(long)]
        ours: bool,
        /// Only the QUIC server that keeps nothing, for a profiler
        #[arg(long, conflicts_with = "ours")]
        bare: bool,
    },
    /// From an append to a subscriber, against redis, NATS, mosquitto
    Delivery {
        #[command(flatten)]
        rate: delivery::Rate,
        /// As for `appends`
        #[arg(long, default_values = ["0", "100"])]
        on: Vec<String>,
        /// Only our relay, for a profiler
        #[arg(long)]
        ours: bool,
        /// Only the QUIC server that keeps nothing, for a profiler
        #[arg(long, conflicts_with = "ours")]
        bare: bool,
    },
    /// Memory for each idle subscriber
    Idle {
        /// Subscribers
        #[arg(long, default_values = ["2000", "5000"])]
        count: Vec<usize>,
    },
    /// Handshakes a second against a plain QUIC server
    Handshakes {
        /// Seconds of a round
        #[arg(long, default_value_t = 3)]
        seconds: u64,
    },
    /// Taking 128 envelopes over a line with delay and loss
    Drain,
    /// What an envelope costs where much is stored, or for many
    Stored {
        /// Marks in GiB at which it is measured; the disk needs half more than the last
        #[arg(long, default_values = ["1", "10", "30"])]
        gib: Vec<u64>,
        /// Numbers of mailboxes
        #[arg(long, default_values = ["100", "10000", "1000000"])]
        mailboxes: Vec<u64>,
        /// `storage.memory` in MiB, for each number of mailboxes
        #[arg(long, default_values = ["128", "1024"])]
        memory_mib: Vec<u64>,
    },
    /// A QUIC server that only answers, for `handshakes`
    #[command(hide = true)]
    Echo {
        #[arg(long)]
        port: u16,
        /// X25519 alone
        #[arg(long)]
        classical: bool,
    },
    /// A QUIC server that keeps and checks nothing, for `appends` and `delivery`
    #[command(hide = true)]
    Bare {
        #[arg(long)]
        port: u16,
        /// Writes what it takes to a file there, and flushes it
        #[arg(long)]
        file_in: Option<PathBuf>,
    },
    /// A server that answers datagrams, for `appends`
    #[command(hide = true)]
    Datagrams {
        #[arg(long)]
        port: u16,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { programs, rounds, memory, disk, flush, bench } = Arguments::parse();
    let in_memory = Disk { folder: memory.clone(), longer: None };
    let on = |name: &str| match name {
        "disk" => Disk { folder: disk.clone(), longer: None },
        "0" => in_memory.clone(),
        micros => {
            let library = flush.clone().expect("--flush names the library that makes flushes longer");
            let micros = micros.parse().expect("`disk`, or microseconds");
            Disk { folder: memory.clone(), longer: Some((library.canonicalize().unwrap(), micros)) }
        }
    };
    process::allow_files();
    let mut missed = Vec::new();
    match bench {
        Bench::Appends { load, on: places, ours, bare } => {
            for place in places {
                if ours {
                    appends::ours(&programs, &load, &on(&place), rounds).await;
                } else if bare {
                    appends::bare(&load, &on(&place), rounds).await;
                } else {
                    missed.extend(appends::compare(&programs, &load, &on(&place), rounds).await);
                }
            }
        }
        Bench::Delivery { rate, on: places, ours, bare } => {
            for place in places {
                if ours {
                    delivery::ours(&programs, &rate, &on(&place), rounds).await;
                } else if bare {
                    delivery::bare(&rate, &on(&place), rounds).await;
                } else {
                    missed.extend(delivery::compare(&programs, &rate, &on(&place), rounds).await);
                }
            }
        }
        Bench::Idle { count } => missed.extend(idle::compare(&programs, &count, &in_memory, rounds).await),
        Bench::Handshakes { seconds } => {
            let length = Duration::from_secs(seconds);
            missed.extend(handshakes::compare(&programs, length, &in_memory, rounds).await);
        }
        Bench::Drain => missed.extend(drain::measure(&programs, &in_memory, rounds).await),
        Bench::Stored { gib, mailboxes, memory_mib } => {
            for mib in memory_mib {
                missed.extend(stored::by_mailboxes(&memory, &mailboxes, mib).await);
            }
            missed.extend(stored::by_size(&disk, &gib).await);
        }
        Bench::Echo { port, classical } => handshakes::echo(port, classical).await,
        Bench::Bare { port, file_in } => bare::serve(port, file_in).await,
        Bench::Datagrams { port } => bare::serve_datagrams(port).await,
    }
    for missed in &missed {
        println!("MISSED {missed}");
    }
    if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
