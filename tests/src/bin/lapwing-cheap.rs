//! The program `lapwing` with a key derivation that costs nothing: for tests that run it hundreds of times.
//!
//! Everything else is the program itself: the same function, the same allocator. A vault that this made opens with no
//! released program, and the reverse. Never installed, never published.

use std::process::ExitCode;

use lapwing::cli::process;
use lapwing_vault::WipingAllocator;

#[global_allocator]
static ALLOCATOR: WipingAllocator = WipingAllocator;

fn main() -> ExitCode {
    process::run(lapwing_tests::CHEAP)
}
