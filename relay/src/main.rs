//! `lapwing-relay`: see [`lapwing_relay::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    lapwing_relay::cli::main(std::env::args_os())
}
