//! A whole process of the program: parses the command line, builds the world, carries out one command.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use clap::Parser;
use lapwing_vault::{Cost, harden_process, wipe_stack};

use super::{
    args::{self, Cli},
    exit::Exit,
    output::{Format, Output},
    prompt::{Descriptors, FromDescriptors, Terminal},
    shell::Shell,
};
use crate::{
    client::World,
    clock,
    driver::Clock,
    error::Error,
    net::{Options, QuicTransport},
    signals,
};

/// Does what this process was started for. `cost` belongs to the vault's format: the program passes
/// [`Cost::FORMAT_1`], and a vault made with one cost opens with no other.
#[must_use]
pub fn run(cost: Cost) -> ExitCode {
    run_at(cost, Arc::new(clock::now))
}

/// As [`run`], at the time that this clock shows: for tests of what happens later.
#[must_use]
pub fn run_at(cost: Cost, clock: Clock) -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are results. A closed pipe is no failure.
            if !error.use_stderr() {
                let _ = error.print();
                return Exit::Done.into();
            }
            if std::env::args_os().any(|argument| argument == "--json") {
                Output::process(Format::Json, false).fail(&args::misused(&error));
            } else {
                let _ = error.print();
            }
            return Exit::Usage.into();
        }
    };
    let format = if cli.global.json { Format::Json } else { Format::Human };
    let output = Output::process(format, cli.global.quiet);
    // Before anything begins a thread.
    signals::take_over();
    if harden_process().is_err() {
        output.warn("this system does not let lapwing forbid memory dumps; run: lapwing doctor");
    }
    let exit = match carry_out(cli, output, cost, clock) {
        Ok(exit) => exit.into(),
        Err((output, error)) => {
            output.fail(&error);
            Exit::from(&error).into()
        }
    };
    // The vault is closed, and all that held secrets has returned.
    wipe_stack();
    exit
}

fn carry_out(cli: Cli, output: Output, cost: Cost, clock: Clock) -> Result<Exit, (Output, Error)> {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(_) => {
            return Err((
                output,
                Error::refused("this system has no resources left", "close other programs"),
            ));
        }
    };
    let Some(vault) = cli.global.vault.or_else(default_vault) else {
        return Err((
            output,
            Error::usage("there is no home folder", "say where the vault is with --vault PATH"),
        ));
    };
    let descriptors =
        Descriptors { passphrase: cli.global.passphrase_fd, new_passphrase: cli.global.new_passphrase_fd };
    let mut shell = Shell {
        output,
        prompt: Box::new(FromDescriptors::new(descriptors, Terminal::new())),
        world: World {
            cost,
            transport: Arc::new(QuicTransport::new(Options::default())),
            clock,
            offline: cli.global.offline,
        },
        vault,
        compartment: cli.global.compartment,
    };
    let done = runtime.block_on(super::run(&mut shell, cli.command));
    done.map_err(|error| (shell.output, error))
}

/// `lapwing/vault` in the user's data folder (XDG Base Directory Specification).
fn default_vault() -> Option<PathBuf> {
    let data = std::env::var_os("XDG_DATA_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let data = data.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/share")))?;
    Some(data.join("lapwing").join("vault"))
}
