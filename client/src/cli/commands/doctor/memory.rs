//! Where the process's memory may end up, and who may look at it.

use lapwing_vault::lock_memory;

use super::{
    Finding,
    host::{Host, Mounts, is_encrypted},
};

/// What this process is allowed and asked for.
pub(super) struct Process {
    /// Its number.
    pub(super) id: u32,
    /// It runs as the superuser.
    root: bool,
    /// The system took all of its memory into locked pages.
    locked: bool,
    /// Bytes that it may lock; `None` if that is not limited.
    lockable: Option<u64>,
    /// Its memory cannot be dumped or traced.
    closed: bool,
}

impl Process {
    /// This one.
    pub(super) fn this() -> Self {
        use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
        let lockable = getrlimit(Resource::RLIMIT_MEMLOCK).map_or(0, |(soft, _)| soft);
        let dumps = getrlimit(Resource::RLIMIT_CORE).map_or(1, |(soft, _)| soft);
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let dumpable = nix::sys::prctl::get_dumpable().unwrap_or(true);
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let dumpable = false;
        Self {
            id: std::process::id(),
            root: nix::unistd::geteuid().is_root(),
            locked: lock_memory().is_ok(),
            lockable: (lockable != RLIM_INFINITY).then_some(lockable),
            closed: dumps == 0 && !dumpable,
        }
    }
}

pub(super) fn checks(host: &dyn Host, process: &Process) -> Vec<Finding> {
    vec![
        swap(host),
        hibernation(host),
        core_dumps(host, process),
        locked_memory(process),
        tracing(host, process),
        superuser(process),
    ]
}

/// Swap that is not encrypted may hold what was on the screen, and whatever was not locked.
fn swap(host: &dyn Host) -> Finding {
    let text = host.text("/proc/swaps").unwrap_or_default();
    let mounts = Mounts::of(host);
    let is_open = |line: &&str| {
        let mut words = line.split_whitespace();
        let (Some(name), Some(kind)) = (words.next(), words.next()) else { return false };
        if name.starts_with("/dev/zram") {
            // Compressed memory, unless it writes what is old to a disk.
            let disk =
                host.text(&format!("/sys/class/block/{}/backing_dev", name.trim_start_matches("/dev/")));
            return disk.is_some_and(|disk| {
                let disk = disk.trim();
                !disk.is_empty() && disk != "none" && !is_encrypted(host, disk)
            });
        }
        let device =
            if kind == "file" { mounts.over(name).map(|mount| mount.source.as_str()) } else { Some(name) };
        !device.is_some_and(|device| is_encrypted(host, device))
    };
    let open: Vec<&str> =
        text.lines().skip(1).filter(is_open).filter_map(|line| line.split_whitespace().next()).collect();
    if open.is_empty() {
        return Finding::well("swap", "no unencrypted swap");
    }
    Finding::care(
        "swap",
        format!("swap that is not encrypted: {}", open.join(", ")),
        "switch it off (swapoff, and its line in /etc/fstab), or encrypt it; zram needs no disk",
    )
}

/// A hibernating computer writes all of its memory to a disk.
fn hibernation(host: &dyn Host) -> Finding {
    let possible =
        host.text("/sys/power/state").unwrap_or_default().split_whitespace().any(|way| way == "disk");
    let locked = host.text("/sys/power/disk").is_some_and(|ways| ways.contains("[disabled]"));
    let resume = host.text("/sys/power/resume").unwrap_or_default();
    let resume = resume.trim();
    if !possible || locked || resume.is_empty() || resume == "0:0" {
        return Finding::well("hibernation", "the computer is not set up to hibernate");
    }
    let device = host.real(&format!("/sys/dev/block/{resume}")).unwrap_or_default();
    let name = device.rsplit('/').next().unwrap_or_default();
    if is_encrypted(host, &format!("/dev/{name}")) {
        return Finding::well("hibernation", "hibernating writes memory to an encrypted device");
    }
    Finding::care(
        "hibernation",
        "hibernating writes all memory, keys included, to a disk that is not encrypted",
        "switch it off: systemctl mask hibernate.target hybrid-sleep.target suspend-then-hibernate.target",
    )
}

fn core_dumps(host: &dyn Host, process: &Process) -> Finding {
    if !process.closed {
        return Finding::care(
            "core dumps",
            "this system does not let lapwing forbid dumps of its memory",
            "set the limit yourself: ulimit -c 0; and ask why: a container or a debugger may be in the way",
        );
    }
    let pattern = host.text("/proc/sys/kernel/core_pattern").unwrap_or_default();
    Finding::well(
        "core dumps",
        if pattern.starts_with('|') {
            "core dumps of other programs go to a collector; lapwing makes none"
        } else {
            "lapwing makes no core dumps"
        },
    )
}

fn locked_memory(process: &Process) -> Finding {
    if process.locked {
        return Finding::well("locked memory", "memory can be kept out of swap");
    }
    let limit =
        process.lockable.map_or_else(String::new, |bytes| format!(" ({})", crate::cli::size::words(bytes)));
    Finding::care(
        "locked memory",
        format!("the limit for locked memory{limit} is too low to keep all of lapwing out of swap"),
        "raise it to 256 MiB: ulimit -l 262144, or memlock in /etc/security/limits.conf; or use no swap",
    )
}

/// Who reads the memory of others needs no file.
fn tracing(host: &dyn Host, process: &Process) -> Finding {
    let status = host.text("/proc/self/status").unwrap_or_default();
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:")).map_or("0", str::trim);
    if tracer != "0" {
        return Finding::care(
            "debugger",
            format!("process {tracer} is attached to lapwing and reads its memory"),
            "find out what it is (ps -p), end it, and change your passphrase on a computer that you trust",
        );
    }
    let scope = host.text("/proc/sys/kernel/yama/ptrace_scope");
    match scope.as_deref().map(str::trim) {
        Some("0") => Finding::care(
            "debugger",
            "programs may read the memory of others of the same user: not lapwing's, but your terminal's",
            "run: sysctl kernel.yama.ptrace_scope=1, and set it in /etc/sysctl.d",
        ),
        _ if process.closed => {
            Finding::well("debugger", "no debugger is attached to lapwing, and none may be")
        }
        _ => Finding::well("debugger", "no debugger is attached to lapwing"),
    }
}

fn superuser(process: &Process) -> Finding {
    if process.root {
        return Finding::care(
            "superuser",
            "lapwing runs as root: a mistake in it, or in what it calls, has the whole computer",
            "run it as an ordinary user; chown the vault's file to that user",
        );
    }
    Finding::well("superuser", "lapwing runs as an ordinary user")
}

#[cfg(test)]
mod tests {
    use super::{super::host::tests::Pretend, *};

    const HEAD: &str = "Filename\t\t\tType\t\tSize\tUsed\tPriority\n";

    const SAFE: Process = Process { id: 1, root: false, locked: true, lockable: None, closed: true };

    #[test]
    fn a_computer_that_says_nothing_is_no_reason_to_worry() {
        assert!(
            checks(&Pretend::default(), &SAFE).iter().all(|finding| finding.ok && finding.hint.is_empty())
        );
        let unsafe_one = Process { id: 1, root: true, locked: false, lockable: Some(8 << 20), closed: false };
        let care: Vec<_> =
            checks(&Pretend::default(), &unsafe_one).into_iter().filter(|finding| !finding.ok).collect();
        let names: Vec<_> = care.iter().map(|finding| finding.check).collect();
        assert_eq!(names, ["core dumps", "locked memory", "superuser"]);
        assert!(care[1].message.contains("8.0 MiB"), "{}", care[1].message);
        assert!(care.iter().all(|finding| !finding.hint.is_empty()));
    }

    #[test]
    fn swap_is_told_from_swap() {
        let with = |line: &str| {
            Pretend::default()
                .file("/proc/swaps", &format!("{HEAD}{line}\n"))
                .file(
                    "/proc/self/mountinfo",
                    "1 1 8:1 / / rw - ext4 /dev/mapper/root rw\n2 1 8:2 / /srv rw - ext4 /dev/sdb1 rw",
                )
                .link("/dev/mapper/root", "/dev/dm-0")
                .file("/sys/class/block/dm-0/dm/uuid", "CRYPT-LUKS2-x")
        };
        for (line, ok) in [
            ("", true),
            ("/dev/sda2 partition 1 0 -2", false),
            ("/dev/dm-0 partition 1 0 -2", true),
            ("/dev/dm-7 partition 1 0 -2", false),
            ("/swapfile file 1 0 -2", true),
            ("/srv/swapfile file 1 0 -2", false),
            ("/dev/zram0 partition 1 0 100", true),
        ] {
            assert_eq!(swap(&with(line)).ok, ok, "{line}");
        }
        let spilled = |disk: &str| {
            with("/dev/zram0 partition 1 0 100").file("/sys/class/block/zram0/backing_dev", disk)
        };
        assert!(
            swap(&spilled("none\n")).ok
                && !swap(&spilled("/dev/sda3\n")).ok
                && swap(&spilled("/dev/dm-0\n")).ok
        );
    }

    #[test]
    fn hibernation_is_told_where_it_would_write() {
        let with = |state: &str, resume: &str| {
            Pretend::default()
                .file("/sys/power/state", state)
                .file("/sys/power/resume", resume)
                .link("/sys/dev/block/8:2", "/sys/devices/x/block/sda/sda2")
                .link("/sys/dev/block/254:0", "/sys/devices/virtual/block/dm-0")
                .file("/sys/class/block/dm-0/dm/uuid", "CRYPT-LUKS2-x")
        };
        for (state, resume, ok) in [
            ("freeze mem", "8:2", true),
            ("freeze mem disk", "0:0", true),
            ("freeze mem disk", "8:2\n", false),
            ("freeze mem disk", "254:0\n", true),
        ] {
            assert_eq!(hibernation(&with(state, resume)).ok, ok, "{state} {resume}");
        }
        assert!(hibernation(&with("mem disk", "8:2").file("/sys/power/disk", "[disabled]")).ok);
    }

    #[test]
    fn a_debugger_is_found() {
        let traced = Pretend::default().file("/proc/self/status", "Name:\tx\nTracerPid:\t41\nUid:\t0\n");
        assert!(!tracing(&traced, &SAFE).ok && tracing(&traced, &SAFE).message.contains("41"));
        let scope = |scope: &str| Pretend::default().file("/proc/sys/kernel/yama/ptrace_scope", scope);
        assert!(!tracing(&scope("0\n"), &SAFE).ok && tracing(&scope("1\n"), &SAFE).ok);
    }
}
