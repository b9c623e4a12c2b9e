//! The machine: clock, swap, open files.

use std::path::Path;

use super::Finding;
use crate::clock::{Clock, SystemClock};

/// 2026-01-01: no relay of this version ran before.
const EARLIEST_MS: u64 = 1_767_225_600_000;
/// Files that the relay has open at most, about: the store's, and some sockets.
const FILES: u64 = 1024;

pub(super) fn examine() -> Vec<Finding> {
    let sync = Path::new("/run/systemd/timesync");
    let synced = sync.exists().then(|| sync.join("synchronized").exists());
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    vec![clock(SystemClock.now().as_millis(), synced), swap(&swaps), files()]
}

fn clock(now_ms: u64, synced: Option<bool>) -> Finding {
    let advice = "set the clock, and let the system keep it: `timedatectl set-ntp true`";
    if now_ms < EARLIEST_MS {
        return Finding::care(
            "clock",
            "the clock stands years back: access tickets do not end when they should",
            advice,
        );
    }
    match synced {
        Some(true) => Finding::fine("clock", "it is kept by the system"),
        Some(false) => Finding::note("clock", "it is not kept by the system yet", advice),
        None => Finding::note("clock", "its date is plausible; who keeps it could not be found out", advice),
    }
}

/// The first line of `/proc/swaps` is a heading.
fn swap(swaps: &str) -> Finding {
    let used: Vec<_> = swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    if used.is_empty() {
        return Finding::fine("swap", "there is none");
    }
    Finding::note(
        "swap",
        format!(
            "this machine swaps to {}: what passes through the relay's memory may reach that disk",
            used.join(", ")
        ),
        "run it under the systemd unit that comes with it (it has no swap), or encrypt the swap",
    )
}

fn files() -> Finding {
    use nix::sys::resource::{Resource, getrlimit};
    let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return Finding::note("open_files", "the limit could not be found out", "`ulimit -n` shows it");
    };
    if soft < FILES {
        let advice = format!("raise it: `ulimit -n {}`, or LimitNOFILE= in the unit", 16 * FILES);
        return Finding::care("open_files", format!("this user may open {soft} files"), advice);
    }
    Finding::fine("open_files", format!("this user may open {soft}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn a_clock_of_1970_and_one_that_nobody_keeps_are_told() {
        assert_eq!(clock(0, Some(true)).level, Level::Care);
        assert_eq!(clock(EARLIEST_MS, Some(true)).level, Level::Fine);
        assert_eq!(clock(EARLIEST_MS, Some(false)).level, Level::Note);
        assert_eq!(clock(EARLIEST_MS, None).level, Level::Note);
    }

    #[test]
    fn swap_is_named() {
        let heading = "Filename\tType\tSize\tUsed\tPriority\n";
        assert_eq!(swap(heading).level, Level::Fine);
        assert_eq!(swap("").level, Level::Fine);
        let found = swap(&format!("{heading}/dev/sda2 partition 1 0 -2\n"));
        assert!(found.level == Level::Note && found.message.contains("/dev/sda2"));
    }
}
