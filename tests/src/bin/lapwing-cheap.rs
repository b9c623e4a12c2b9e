//! The program `lapwing` with a key derivation that costs nothing: for tests that run it hundreds of times.
//!
//! Everything else is the program itself: the same function, the same allocator. With `LAPWING_SECONDS_AHEAD` its clock
//! shows a later time: what happens after hours happens at once. A vault that this made opens with no
//! released program, and the reverse. Never installed, never published.

use std::{process::ExitCode, sync::Arc, time::Duration};

use lapwing::{cli::process, clock};
use lapwing_vault::WipingAllocator;

#[global_allocator]
static ALLOCATOR: WipingAllocator = WipingAllocator;

fn main() -> ExitCode {
    let ahead = std::env::var("LAPWING_SECONDS_AHEAD").ok().and_then(|seconds| seconds.parse().ok());
    let ahead = Duration::from_secs(ahead.unwrap_or_default());
    process::run_at(lapwing_tests::CHEAP, Arc::new(move || clock::now().plus(ahead)))
}
