//! `init`, `grow`, `passphrase`.

use clap::{Args, Subcommand};

use crate::words::{DEFAULT_WORDS, FEWEST_WORDS, Language, MOST_WORDS};

/// Arguments of `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Size of the vault, 8MiB to 16GiB; it can only be made larger, later
    #[arg(long, default_value = "256MiB", value_name = "SIZE", value_parser = crate::cli::size::parse)]
    pub size: u64,
    /// What applies to every new passphrase
    #[command(flatten)]
    pub new: NewPassphraseArgs,
}

/// Arguments of `grow`.
#[derive(Debug, Args)]
pub struct GrowArgs {
    /// The new size, larger than now, up to 16GiB
    #[arg(long, value_name = "SIZE", value_parser = crate::cli::size::parse)]
    pub size: u64,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// What applies to every new passphrase.
#[derive(Debug, Clone, Copy, Args)]
pub struct NewPassphraseArgs {
    /// Accept a passphrase that is easy to guess
    #[arg(long)]
    pub weak: bool,
    /// Draw six random words, show them, and ask for them
    #[arg(
        long,
        value_name = "LANGUAGE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "english"
    )]
    pub suggest: Option<Language>,
}

/// `passphrase`.
#[derive(Debug, Subcommand)]
pub enum PassphraseCommand {
    /// Replace the passphrase that you just used by another
    Change {
        /// What applies to every new passphrase
        #[command(flatten)]
        new: NewPassphraseArgs,
    },
    /// Add another passphrase, for everything or for some compartments
    Add {
        /// A name for it, which only the list shows [default: a number]
        #[arg(long)]
        name: Option<String>,
        /// A compartment that it opens; may be given several times [default: all]
        #[arg(long, value_name = "COMPARTMENT")]
        show: Vec<String>,
        /// What applies to every new passphrase
        #[command(flatten)]
        new: NewPassphraseArgs,
    },
    /// List the passphrases that are known to the one you use
    List,
    /// Remove a passphrase; what it opens stays
    Remove {
        /// Its name, as the list shows it
        name: String,
    },
    /// Tell whether a slip of the finger could turn one passphrase into another; nothing is opened or kept
    Compare,
    /// Draw a passphrase of random words
    Suggest {
        /// How many words, 4 to 24; each adds eleven bits
        #[arg(long, value_name = "N", default_value_t = DEFAULT_WORDS, value_parser = word_count)]
        words: usize,
        /// From which list
        #[arg(long, default_value = "english")]
        language: Language,
    },
}

fn word_count(text: &str) -> Result<usize, String> {
    let count = text.parse::<usize>().ok().filter(|count| (FEWEST_WORDS..=MOST_WORDS).contains(count));
    count.ok_or_else(|| format!("a number from {FEWEST_WORDS} to {MOST_WORDS} was expected"))
}
