//! `doctor`: what is unsafe about this computer and this vault, and what to do about it.

use std::{fmt, fs, os::unix::fs::PermissionsExt, path::Path};

use serde::Serialize;

use crate::{
    cli::{exit::Exit, output::Record, shell::Shell},
    engine::view,
    error::Error,
};

/// One thing that was looked at.
#[derive(Serialize)]
struct Finding {
    check: &'static str,
    ok: bool,
    message: String,
    hint: &'static str,
}

impl Record for Finding {
    const TYPE: &'static str = "finding";
    fn human(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ok {
            return write!(f, "ok    {}", self.message);
        }
        write!(f, "CARE  {}\n      hint: {}", self.message, self.hint)
    }
}

pub(super) async fn doctor(shell: &mut Shell) -> Result<Exit, Error> {
    let mut findings = vec![swap(), core_dumps(), memory_limit()];
    findings.extend(file(&shell.vault));
    for finding in &findings {
        shell.output.emit(finding)?;
    }
    let mut all_well = findings.iter().all(|finding| finding.ok);
    if !shell.offline {
        all_well &= relays(shell).await?;
    }
    Ok(if all_well { Exit::Done } else { Exit::Negative })
}

async fn relays(shell: &mut Shell) -> Result<bool, Error> {
    let mut client = shell.unlock().await?;
    let report = client.settle(crate::cli::shell::SETTLE).await;
    shell.announce(&client, &report.effects);
    let mut well = true;
    for number in 0..client.compartments().len() {
        for relay in client.read(number, view::relays)? {
            let trouble = report.trouble.iter().find(|trouble| trouble.relay == relay.address);
            let finding = match (trouble, relay.refused, relay.inconsistent) {
                (Some(trouble), _, _) => Finding {
                    check: "relay",
                    ok: false,
                    message: format!("{}: {}", relay.address, trouble.error),
                    hint: "check the network; ask the relay's operator; what waits is kept",
                },
                (None, Some(_), _) => Finding {
                    check: "relay",
                    ok: false,
                    message: format!("{} does not accept the access ticket", relay.address),
                    hint: "ask its operator for a new one and run: lapwing relay add -",
                },
                (None, None, true) => Finding {
                    check: "relay",
                    ok: false,
                    message: format!("{} lost or changed something that it had stored", relay.address),
                    hint: "ask its operator what happened; ask your contacts whether messages are missing",
                },
                _ => Finding {
                    check: "relay",
                    ok: true,
                    message: format!("{} answers", relay.address),
                    hint: "",
                },
            };
            well &= finding.ok;
            shell.output.emit(&finding)?;
        }
        let (used, limit) = client.space(number)?;
        if used.saturating_mul(10) > limit.saturating_mul(8) {
            well = false;
            shell.output.emit(&Finding {
                check: "space",
                ok: false,
                message: format!("{} is nearly full", client.compartments()[number].name),
                hint: "what is there can still be read; for more room make a larger vault: lapwing init --size SIZE --vault OTHER",
            })?;
        }
    }
    for fault in &report.faults {
        well = false;
        shell.output.emit(&Finding {
            check: "records",
            ok: false,
            message: format!("something could not be taken in: {fault}"),
            hint: "please report this; nothing was lost: it is tried again",
        })?;
    }
    client.close().await;
    Ok(well)
}

/// Swap that is not encrypted may hold what was on the screen. The kernel does not say whether a swap device is
/// encrypted, except by its name.
fn swap() -> Finding {
    let text = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let open: Vec<&str> = text
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next())
        .filter(|device| !device.starts_with("/dev/zram") && !device.contains("crypt"))
        .collect();
    Finding {
        check: "swap",
        ok: open.is_empty(),
        message: if open.is_empty() {
            "no unencrypted swap".to_owned()
        } else {
            format!("swap that may not be encrypted: {}", open.join(", "))
        },
        hint: "switch it off with swapoff, or encrypt it",
    }
}

fn core_dumps() -> Finding {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    let piped = pattern.starts_with('|');
    Finding {
        check: "core dumps",
        // This process forbids its own dumps; a pipe would get them all the same from other programs.
        ok: true,
        message: if piped {
            "core dumps of other programs go to a collector; lapwing makes none".to_owned()
        } else {
            "lapwing makes no core dumps".to_owned()
        },
        hint: "",
    }
}

fn memory_limit() -> Finding {
    let locked = lapwing_vault::lock_memory().is_ok();
    Finding {
        check: "locked memory",
        ok: locked,
        message: if locked {
            "memory can be kept out of swap".to_owned()
        } else {
            "the limit for locked memory is too low to keep all of lapwing out of swap".to_owned()
        },
        hint: "raise it (ulimit -l), or use no swap",
    }
}

fn file(path: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Ok(metadata) = fs::metadata(path) else {
        return vec![Finding {
            check: "vault",
            ok: false,
            message: "there is no vault at this path".to_owned(),
            hint: "make one with: lapwing init; or say where it is with --vault PATH",
        }];
    };
    let open = metadata.permissions().mode() & 0o077 != 0;
    findings.push(Finding {
        check: "permissions",
        ok: !open,
        message: if open {
            "others on this computer may read the vault's file"
        } else {
            "only you may read the vault's file"
        }
        .to_owned(),
        hint: "run: chmod 600 on the vault's file",
    });
    let system = nix::sys::statfs::statfs(path).map(|found| found.filesystem_type()).ok();
    let copies = system.is_some_and(|kind| {
        kind == nix::sys::statfs::BTRFS_SUPER_MAGIC
            || kind.0 == ZFS_SUPER_MAGIC
            || kind == nix::sys::statfs::OVERLAYFS_SUPER_MAGIC
    });
    findings.push(Finding {
        check: "file system",
        ok: !copies,
        message: if copies {
            "the file system keeps old versions of what is written (copy on write, snapshots)"
        } else {
            "the file system writes in place"
        }
        .to_owned(),
        hint: "move the vault to another file system, or switch copy-on-write off for its folder (chattr +C) and make no snapshots",
    });
    let full = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let synced = full.ancestors().skip(1).any(is_synced);
    findings.push(Finding {
        check: "sync folder",
        ok: !synced,
        message: if synced {
            "the vault lies in a folder that is copied elsewhere"
        } else {
            "the vault lies in no known sync folder"
        }
        .to_owned(),
        hint: "move it: copies elsewhere outlive every destruction here, and two copies break conversations",
    });
    findings
}

/// ZFS has no constant in the kernel's headers: it is not part of the kernel.
const ZFS_SUPER_MAGIC: i64 = 0x2fc1_2fc1;

fn is_synced(folder: &Path) -> bool {
    const MARKS: [&str; 5] =
        [".stfolder", ".dropbox", ".dropbox.cache", ".owncloudsync.log", ".nextcloudsync.log"];
    const NAMES: [&str; 6] = ["Dropbox", "OneDrive", "Google Drive", "iCloud Drive", "Nextcloud", "ownCloud"];
    let named = folder.file_name().is_some_and(|name| NAMES.iter().any(|known| name == *known));
    named || MARKS.iter().any(|mark| folder.join(mark).exists())
}
