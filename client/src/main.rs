//! The program: everything it does is done by the library, see [`lapwing::cli::process`].

use std::process::ExitCode;

use lapwing::cli::process;
use lapwing_vault::{Cost, WipingAllocator};

/// Everything that is freed is wiped: libsignal and the database leave secrets behind otherwise.
#[global_allocator]
static ALLOCATOR: WipingAllocator = WipingAllocator;

fn main() -> ExitCode {
    process::run(Cost::FORMAT_1)
}
