//! The commands of the program.

mod access;
mod backup;
mod doctor;
mod error;
mod init;
mod log;
mod output;
mod rotate;
mod serve;
mod wipe;

use std::{ffi::OsString, net::IpAddr, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand};

use crate::{
    config::{LEAST_TICKET, Size, Span},
    place::Place,
    store::EngineName,
};
pub use error::CliError;
use output::Output;

/// Stores and forwards ciphertext for Lapwing groups.
#[derive(Debug, Parser)]
#[command(name = "lapwing-relay", version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Args)]
struct Common {
    /// Folder of the relay. Default: $XDG_STATE_HOME/lapwing-relay, else ~/.local/state/lapwing-relay
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print JSON Lines on standard output; `serve` logs in JSON Lines on standard error too
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a relay: folder, key, configuration, first access ticket
    ///
    /// Example: lapwing-relay init --host relay.example.org --port 443
    Init(InitArgs),
    /// Run the relay until SIGTERM or SIGINT; SIGHUP reads the configuration's limits again
    Serve(ServeArgs),
    /// Show address, load and free space
    Status,
    /// Issue, list and revoke access tickets: the permission to create mailboxes here
    #[command(subcommand)]
    Access(AccessCommand),
    /// Give the relay another key; people's programs follow, because the old key vouches for the new one
    RotateKey,
    /// Write a sealed backup, also while the relay runs: key, tickets, mailboxes, what waits. No anchors, no tripwires
    ///
    /// Example: lapwing-relay backup /mnt/stick/relay.backup
    Backup(BackupArgs),
    /// Make a relay of a backup, where there is none
    ///
    /// Example: lapwing-relay restore /mnt/stick/relay.backup --dir /var/lib/lapwing-relay
    Restore(RestoreArgs),
    /// Look for what is wrong or risky, and say what to do
    Doctor,
    /// Destroy the relay: keys first, then everything else. Stops it if it runs, ends it if it does not stop. Asks first
    Wipe(WipeArgs),
}

#[derive(Debug, Args)]
struct BackupArgs {
    /// Where to; must not exist
    file: PathBuf,
    /// A file with the recovery key of an earlier backup, to use it again. Default: a new one, which is printed
    #[arg(long, value_name = "PATH")]
    key_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct RestoreArgs {
    /// The backup
    file: PathBuf,
    /// A file with its recovery key. Default: read from standard input
    #[arg(long, value_name = "PATH")]
    key_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct WipeArgs {
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
struct InitArgs {
    /// Name or IP address under which clients reach the relay
    #[arg(long)]
    host: String,
    /// UDP port; 0 takes a free one at each start
    #[arg(long, default_value_t = 4433)]
    port: u16,
    /// Local address to listen on; `::` is all, IPv4 included
    #[arg(long, default_value = "::")]
    listen: IpAddr,
    /// The embedded database that keeps the store; `sled` only in a program that was built with it
    #[arg(long, value_enum, default_value_t)]
    engine: EngineName,
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// Use this UDP port instead of the configured one
    #[arg(long)]
    port: Option<u16>,
}

#[derive(Debug, Subcommand)]
enum AccessCommand {
    /// Print a new access ticket
    ///
    /// Example: lapwing-relay access issue --size "200 MiB" --expires 90days
    Issue(IssueArgs),
    /// List access tickets with their quotas
    List,
    /// End an access ticket: nothing new is made with it. Mailboxes that were made with it go on until their owners close them
    Revoke {
        /// Name of the ticket, as listed
        name: String,
    },
}

#[derive(Debug, Args)]
struct IssueArgs {
    /// Bytes of everything at one time. Default: `access.size` of the configuration
    #[arg(long, value_parser = ticket_size)]
    size: Option<Size>,
    /// Mailboxes at one time. Default: `access.mailboxes` of the configuration
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    mailboxes: Option<u64>,
    /// How long the ticket may be used. Default: for ever
    #[arg(long, value_parser = ticket_span)]
    expires: Option<Span>,
}

/// A ticket that has no room for one envelope is a slip.
fn ticket_size(text: &str) -> Result<Size, String> {
    let size: Size = text.parse()?;
    if size < LEAST_TICKET {
        Err(format!("at least {LEAST_TICKET}: the smallest envelope takes as much"))
    } else {
        Ok(size)
    }
}

/// So is one that has ended before it is handed out.
fn ticket_span(text: &str) -> Result<Span, String> {
    let span: Span = text.parse()?;
    if span < LEAST_SPAN {
        Err(format!("at least {LEAST_SPAN}: the ticket has to be handed out"))
    } else {
        Ok(span)
    }
}

/// Shortest time for which a ticket may be used.
const LEAST_SPAN: Span = Span(Duration::from_secs(60));

/// Threads that read from the disk at most, 2 MiB of address space each; further reads wait. More make no disk faster, and
/// strangers could have hundreds run.
const READERS: usize = 64;

/// Runs the program.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are results, everything else is talk.
            let code = if error.use_stderr() { 2 } else { 0 };
            error.print().ok();
            return ExitCode::from(code);
        }
    };
    forbid_dumps();
    let Common { dir, json } = cli.common;
    let output = Output::new(json);
    let place = Place::new(dir);
    // `wipe` has to reach what root made there, and makes nothing; the other two open files elsewhere first.
    let acting = match cli.command {
        Command::Wipe(_) | Command::Backup(_) | Command::Restore(_) => Ok(None),
        _ => place.act_as_owner(),
    };
    let _acting = match acting {
        Ok(acting) => acting,
        Err(error) => return output.fail(&error.into()),
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(READERS).build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return output.fail(&CliError::System(error)),
    };
    let done = match cli.command {
        Command::Init(args) => runtime.block_on(init::run(&args, &place, &output)),
        Command::Serve(args) => runtime.block_on(serve::run(&args, &place, &output)),
        Command::Status => runtime.block_on(access::status(&place, &output)),
        Command::RotateKey => runtime.block_on(rotate::run(&place, &output)),
        Command::Backup(args) => runtime.block_on(backup::backup(&args, &place, &output)),
        Command::Restore(args) => runtime.block_on(backup::restore(&args, &place, &output)),
        Command::Doctor => runtime.block_on(doctor::run(&place, &output)),
        Command::Wipe(args) => runtime.block_on(wipe::run(&args, &place, &output)),
        Command::Access(command) => runtime.block_on(access::run(command, &place, &output)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output.fail(&error),
    }
}

/// What passes through the relay's memory, tokens and proofs above all, goes into no core dump, and is not for other
/// programs of the same user. A system that does not grant it still gets a relay: nothing it serves depends on it.
fn forbid_dumps() {
    use nix::sys::resource::{Resource, setrlimit};
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_dumpable(false);
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
