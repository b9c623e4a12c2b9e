//! What somebody sees who works with a vault: every command's words, questions, answers and exit code.
//!
//! Commands run inside the test, over real vault files, the real engine and relays of a [`World`](crate::world::World),
//! with a small cost for the derivation: everything but the process is what a person uses. Two vaults that see the same
//! story must have the same transcript, once what is drawn at random is masked.
//!
//! | module | what |
//! | --- | --- |
//! | [`stage`] | a vault on a disk, people around it, somebody at its prompt |
//! | [`masked`] | what may differ: tickets, safety numbers, ids |

pub mod masked;
pub mod stage;

pub use stage::{Played, Stage};

use std::collections::BTreeSet;

use lapwing::cli::args::Cli;

/// The commands of the program, as they are typed, without their arguments: `chat list`.
#[must_use]
pub fn commands() -> BTreeSet<String> {
    use clap::CommandFactory;

    fn walk(command: &clap::Command, before: &str, into: &mut BTreeSet<String>) {
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            let name = format!("{before} {}", sub.get_name()).trim().to_owned();
            if sub.has_subcommands() {
                walk(sub, &name, into);
            } else {
                into.insert(name);
            }
        }
    }
    let mut all = BTreeSet::new();
    walk(&Cli::command(), "", &mut all);
    all
}

/// Where two transcripts differ first, told so that the leak can be found; `None` if nowhere.
#[must_use]
pub fn difference(one: &[Played], other: &[Played]) -> Option<String> {
    for (at, (a, b)) in one.iter().zip(other).enumerate() {
        if a != b {
            return Some(format!("command {at}:\n--- one\n{a}\n--- other\n{b}"));
        }
    }
    (one.len() != other.len()).then(|| format!("{} commands and {}", one.len(), other.len()))
}
