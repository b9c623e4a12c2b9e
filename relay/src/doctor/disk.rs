//! The disk: every answer waits for one flush of it.

use std::{
    fs::OpenOptions,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    time::Duration,
};

use tokio::time::Instant;

use super::Finding;
use crate::{
    config::{Config, Size},
    operator::Status,
    place::Place,
    store::{fjall::kept_for_merging, free_bytes},
};

/// Flushes that are timed.
const FLUSHES: usize = 64;
/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Median above which people feel it: 40 flushes a second.
const SLOW: Duration = Duration::from_millis(25);
/// Median below which no disk has done it, not even one with a protected cache: a disk in memory, or one that lies.
const INCREDIBLE: Duration = Duration::from_micros(5);
const NAME: &str = "doctor.probe";

pub(super) fn examine(place: &Place, config: &Config, status: Option<&Status>) -> Vec<Finding> {
    let mut found =
        vec![flushing(place.dir()), file_system(place.dir()), space(place, config.storage.reserve.0)];
    if let Some(status) = status {
        found.push(commits(status));
    }
    found
}

fn flushing(folder: &Path) -> Finding {
    let spans = time_flushes(folder);
    let Some(median) = spans.as_ref().ok().and_then(|spans| spans.get(spans.len() / 2)).copied() else {
        return Finding::care(
            "disk",
            "nothing can be written to the relay's folder",
            "check free space, the mount (read-only?) and the owner of the folder",
        );
    };
    let rate = 1_000_000 / median.as_micros().max(1);
    let message =
        format!("a flush takes {:.2} ms: {rate} a second one after the other", median.as_secs_f64() * 1e3);
    if median > SLOW {
        let advice =
            "expect some dozen answers a second for one person; use an SSD, or another provider's disk";
        return Finding::care("disk", message, advice);
    }
    if median < INCREDIBLE {
        let advice = "this is memory, or a disk that reports what it has not done: a power cut may lose what was acknowledged";
        return Finding::note("disk", message, advice);
    }
    Finding::fine("disk", message)
}

/// In ascending order; at least one.
fn time_flushes(folder: &Path) -> std::io::Result<Vec<Duration>> {
    let path = folder.join(NAME);
    let mut spans = Vec::new();
    let measured = (|| {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        let begun = Instant::now();
        for number in 0..FLUSHES {
            let one = Instant::now();
            // Other bytes each time: some devices do nothing for the same ones.
            file.write_all_at(&[u8::try_from(number).unwrap_or(0); 4096], 0)?;
            file.sync_data()?;
            spans.push(one.elapsed());
            if begun.elapsed() > PATIENCE {
                break;
            }
        }
        Ok(())
    })();
    std::fs::remove_file(&path).ok();
    measured.map(|()| {
        spans.sort_unstable();
        spans
    })
}

/// What a file system means for a relay: its number in `statfs`, its name, and what is wrong with it.
const KINDS: [(i64, &str, Kind); 10] = [
    (0x0102_1994, "tmpfs", Kind::Memory),
    (0x8584_58f6, "ramfs", Kind::Memory),
    (0x794c_7630, "overlay", Kind::Copies),
    (0x9123_683e, "btrfs", Kind::Copies),
    (0x2fc1_2fc1, "zfs", Kind::Copies),
    (0xca45_1a4e, "bcachefs", Kind::Copies),
    (0x6969, "nfs", Kind::Remote),
    (0xff53_4d42, "cifs", Kind::Remote),
    (0x6573_5546, "fuse", Kind::Remote),
    (0x0102_1997, "9p", Kind::Remote),
];

#[derive(Clone, Copy)]
enum Kind {
    Memory,
    Copies,
    Remote,
}

fn file_system(folder: &Path) -> Finding {
    let Ok(found) = nix::sys::statfs::statfs(folder) else {
        return Finding::note(
            "file_system",
            "its kind could not be found out",
            "see the limits in docs/relay-operation.md",
        );
    };
    #[allow(clippy::useless_conversion, reason = "the number is narrower on other systems")]
    let number = i64::from(found.filesystem_type().0);
    judge(number)
}

fn judge(number: i64) -> Finding {
    match KINDS.iter().find(|(known, ..)| *known == number) {
        None => Finding::fine("file_system", "it writes in place, as far as is known"),
        Some((_, name, Kind::Memory)) => Finding::care(
            "file_system",
            format!("{name} lies in memory: everything is lost at the next start of the machine"),
            "put the folder on a disk: --dir",
        ),
        Some((_, name, Kind::Copies)) => Finding::note(
            "file_system",
            format!("{name} never writes in place: keys that are overwritten stay on the disk for a while"),
            "where secure deletion matters, put the folder on ext4 or xfs on an encrypted disk, without snapshots",
        ),
        Some((_, name, Kind::Remote)) => Finding::note(
            "file_system",
            format!(
                "{name} lies on another machine, or behind another program: whether a flush reaches a disk is theirs to say"
            ),
            "put the folder on a disk of this machine",
        ),
    }
}

fn space(place: &Place, reserve: u64) -> Finding {
    let Ok(free) = free_bytes(place.dir()) else {
        return Finding::care("space", "free space could not be found out", "check the mount of the folder");
    };
    judge_space(free, reserve, kept_for_merging(&place.store()))
}

/// As the store does: what its engine needs for a time is not there for others.
fn judge_space(free: u64, reserve: u64, merging: u64) -> Finding {
    let kept = Size(reserve.saturating_add(merging)).rounded();
    let message = format!("{} free, {kept} are kept free", Size(free).rounded());
    let free = free.saturating_sub(merging);
    let advice = "make room, or lower storage.reserve in relay.toml and send SIGHUP";
    if free < reserve {
        Finding::care("space", format!("{message}: nothing new is taken"), advice)
    } else if free < reserve.saturating_mul(2) {
        Finding::care("space", format!("{message}: no new mailboxes and attachments are taken"), advice)
    } else {
        Finding::fine("space", message)
    }
}

fn commits(status: &Status) -> Finding {
    let Status { slow_commits, slowest_commit_ms, running_commit_ms, is_full, .. } = status;
    if *is_full {
        return Finding::care(
            "commits",
            "the disk was full: nothing is taken",
            "make room; the relay goes on by itself",
        );
    }
    if let Some(running) = running_commit_ms.filter(|running| *running > 3000) {
        return Finding::care(
            "commits",
            format!("a commit has been waiting for the disk for {running} ms"),
            "the disk or its controller hangs; see the system's own log",
        );
    }
    let message = format!(
        "{slow_commits} slower than half a second since the start, the slowest took {slowest_commit_ms} ms"
    );
    if *slow_commits > 0 {
        return Finding::note("commits", message, "other programs use the disk too, or it is too slow");
    }
    Finding::fine("commits", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn a_folder_that_can_be_flushed_is_measured_and_left_clean() {
        let dir = tempfile::tempdir().unwrap();
        let spans = time_flushes(dir.path()).unwrap();
        assert!(!spans.is_empty() && spans.is_sorted());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(flushing(&dir.path().join("absent")).level, Level::Care);
    }

    #[test]
    fn room_and_file_systems_are_judged() {
        let gib = 1 << 30;
        for merging in [0, gib / 2] {
            assert_eq!(judge_space(gib + merging - 1, gib, merging).level, Level::Care);
            assert_eq!(judge_space(2 * gib + merging - 1, gib, merging).level, Level::Care);
            assert_eq!(judge_space(2 * gib + merging, gib, merging).level, Level::Fine);
        }
        assert_eq!(judge(0x0102_1994).level, Level::Care);
        assert_eq!(judge(0x9123_683e).level, Level::Note);
        assert_eq!(judge(0xef53).level, Level::Fine);
    }
}
