//! Where the two binaries are. Without them a scenario fails: a skipped one would prove nothing and look green.

use std::path::PathBuf;

/// The program `lapwing`, named by `LAPWING_BIN`.
#[must_use]
pub fn lapwing() -> PathBuf {
    program("LAPWING_BIN")
}

/// The program `lapwing-relay`, named by `LAPWING_RELAY_BIN`.
#[must_use]
pub fn lapwing_relay() -> PathBuf {
    program("LAPWING_RELAY_BIN")
}

fn program(variable: &str) -> PathBuf {
    let Some(path) = std::env::var_os(variable).map(PathBuf::from) else {
        panic!("{variable} names no program; run ./tests/run, which builds both and sets it");
    };
    assert!(path.is_file(), "{variable} is {}, which is no file; run ./tests/run", path.display());
    path
}
