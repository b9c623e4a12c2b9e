//! What the system tells of this process's signals.

use nix::sys::signal::Signal;

/// Whether a signal is in one of the masks of `/proc/self/status`, by its name there: `SigIgn`, `ShdPnd`. `false` where the
/// system does not tell.
pub(crate) fn is_in(mask: &str, signal: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let found = status.lines().find_map(|line| line.strip_prefix(mask)?.strip_prefix(':'));
    let mask = found.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal as i32 - 1) & 1 == 1
}
