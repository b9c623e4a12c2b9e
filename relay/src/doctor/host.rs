//! The machine: clock, swap, open files.

use super::Finding;
use crate::clock::{Clock, Kept, SystemClock, kept};

/// 2026-01-01: no relay of this version ran before.
const EARLIEST_MS: u64 = 1_767_225_600_000;
/// Files that the relay has open at most, about: the store's, and some sockets.
const FILES: u64 = 1024;

pub(super) fn examine() -> Vec<Finding> {
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    vec![clock(SystemClock.now().as_millis(), kept()), swap(&swaps), files()]
}

fn clock(now_ms: u64, kept: Option<Kept>) -> Finding {
    let advice =
        "set the clock, and let a program keep it: `timedatectl set-ntp true`, or chrony with `rtcsync`";
    if now_ms < EARLIEST_MS {
        return Finding::care(
            "clock",
            "the clock stands years back: access tickets do not end when they should",
            advice,
        );
    }
    match kept {
        Some(Kept { is_synchronised: true, error_us }) => {
            Finding::fine("clock", format!("it is kept, within {} ms", error_us.div_ceil(1000)))
        }
        Some(Kept { is_synchronised: false, error_us: _ }) => Finding::note(
            "clock",
            "its date is plausible; the kernel knows of no program that keeps it, as where the host of a virtual machine does",
            advice,
        ),
        None => {
            Finding::note("clock", "its date is plausible; the system does not tell who keeps it", advice)
        }
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
        let [yes, no] = [true, false].map(|is_synchronised| Some(Kept { is_synchronised, error_us: 1500 }));
        assert_eq!(clock(0, yes).level, Level::Care);
        let kept = clock(EARLIEST_MS, yes);
        assert!(kept.level == Level::Fine && kept.message.contains("2 ms"), "{}", kept.message);
        let alone = clock(EARLIEST_MS, no);
        assert!(alone.level == Level::Note && alone.message.contains("no program"), "{}", alone.message);
        let unknown = clock(EARLIEST_MS, None);
        assert!(unknown.level == Level::Note && unknown.message.contains("does not tell"));
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
