//! The vault's file: who may read it, what it lies on, what makes copies of it.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use lapwing_wire::time::Timestamp;

use super::{
    Finding,
    host::{Host, Mounts},
};

/// The file from outside.
pub(super) struct File {
    /// Where it is once links are followed.
    path: PathBuf,
    /// What the system says of it; `None` if there is none.
    facts: Option<Facts>,
}

/// What the system says of a file.
#[derive(Clone, Copy)]
struct Facts {
    /// Others may read or write it.
    open: bool,
    /// It belongs to this user.
    own: bool,
    /// Names that it has.
    links: u64,
    /// Others may replace what is in its folder.
    folder_open: bool,
    /// When it was last written.
    written: Timestamp,
    /// Bytes that are free on its file system, and bytes in all.
    free: Option<(u64, u64)>,
}

impl File {
    /// Looks at it.
    #[allow(clippy::useless_conversion, reason = "block counts are narrower on other systems")]
    pub(super) fn of(path: &Path) -> Self {
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        let facts = fs::metadata(&path).ok().map(|metadata| {
            let folder = path.parent().and_then(|folder| fs::metadata(folder).ok());
            let written = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            let space = nix::sys::statvfs::statvfs(&path).ok();
            Facts {
                open: metadata.mode() & 0o077 != 0,
                own: metadata.uid() == nix::unistd::geteuid().as_raw(),
                links: metadata.nlink(),
                // Where the sticky bit is set only the owner replaces a file.
                folder_open: folder
                    .is_some_and(|folder| folder.mode() & 0o022 != 0 && folder.mode() & 0o1000 == 0),
                written: Timestamp::from_millis(
                    written.and_then(|since| u64::try_from(since.as_millis()).ok()).unwrap_or_default(),
                ),
                free: space.map(|space| {
                    let unit = u64::from(space.fragment_size());
                    (u64::from(space.blocks_available()) * unit, u64::from(space.blocks()) * unit)
                }),
            }
        });
        Self { path, facts }
    }
}

pub(super) fn file(host: &dyn Host, file: &File, now: Timestamp) -> Vec<Finding> {
    let Some(facts) = file.facts else {
        return vec![Finding::care(
            "vault",
            "there is no vault at this path",
            "make one with: lapwing init; or say where it is with --vault PATH",
        )];
    };
    let path = file.path.to_string_lossy();
    vec![
        permissions(&facts),
        names(&facts),
        system(host, &path),
        snapshots(host, &file.path),
        synced(host, &file.path),
        backups(host),
        space(&facts),
        clock(&facts, now),
        time_source(host),
    ]
}

fn permissions(facts: &Facts) -> Finding {
    if facts.open {
        return Finding::care(
            "permissions",
            "others on this computer may read the vault's file",
            "run: chmod 600 on the vault's file",
        );
    }
    if !facts.own {
        return Finding::care(
            "permissions",
            "the vault's file belongs to another user, who may read and replace it",
            "run: chown on the vault's file, or use a vault of your own",
        );
    }
    if facts.folder_open {
        return Finding::care(
            "permissions",
            "others on this computer may replace the vault's file: its folder is open to them",
            "run: chmod 700 on the folder",
        );
    }
    Finding::well("permissions", "only you may read the vault's file")
}

fn names(facts: &Facts) -> Finding {
    if facts.links > 1 {
        return Finding::care(
            "names",
            "the vault's file has another name somewhere (a hard link)",
            "find it with: find / -samefile VAULT; remove it",
        );
    }
    Finding::well("names", "the vault's file has one name")
}

/// File systems that keep old versions of what is written, or may.
const COPYING: [&str; 8] = ["btrfs", "zfs", "overlay", "bcachefs", "nilfs2", "f2fs", "aufs", "unionfs"];

/// File systems of other computers.
const REMOTE: [&str; 10] =
    ["nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "9p", "virtiofs", "glusterfs"];

fn system(host: &dyn Host, path: &str) -> Finding {
    let mounts = Mounts::of(host);
    let Some(mount) = mounts.over(path) else {
        return Finding::well("file system", "this system does not say what the vault lies on");
    };
    let kind = mount.kind.as_str();
    if COPYING.contains(&kind) {
        return Finding::care(
            "file system",
            format!(
                "the file system ({kind}) keeps old versions of what is written (copy on write, snapshots)"
            ),
            match kind {
                // Without checksums btrfs writes in place, but for what a snapshot holds.
                "btrfs" => {
                    "move the vault to ext4 or xfs; or make an empty folder, run chattr +C on it, copy the vault into it and \
                     overwrite the old one; take no snapshot of it"
                }
                _ => "move the vault to ext4 or xfs: what is destroyed in it stays in old blocks otherwise",
            },
        );
    }
    if REMOTE.contains(&kind) || kind.starts_with("fuse.") || kind == "fuse" {
        return Finding::care(
            "file system",
            format!(
                "the file system ({kind}) lies elsewhere or behind another program, which may keep copies"
            ),
            "move the vault to a disk of this computer",
        );
    }
    Finding::well("file system", format!("the file system ({kind}) writes in place"))
}

/// Things in a folder, or in one above it, that show that snapshots are made.
const SNAPSHOTS: [&str; 3] = [".snapshots", ".zfs/snapshot", "timeshift/snapshots"];

/// Programs that make them.
const SNAPSHOT_TOOLS: [(&str, &str); 3] = [
    ("/etc/snapper/configs", "snapper"),
    ("/etc/timeshift/timeshift.json", "timeshift"),
    ("/etc/sanoid/sanoid.conf", "sanoid"),
];

/// Endings of names that LVM gives to devices below one of which it keeps, or may keep, old versions (lvm2,
/// `lib/activate`).
const BELOW_SNAPSHOTS: [(&str, &str); 3] = [
    ("-real", "LVM keeps a snapshot of the disk that the vault lies on"),
    ("-cow", "the vault lies on a snapshot that LVM keeps"),
    ("-tpool", "the vault lies on a thin volume of LVM, of which snapshots take nothing to make"),
];

/// What LVM does with the disk that the vault lies on.
fn thin(host: &dyn Host, path: &Path) -> Option<&'static str> {
    let mounts = Mounts::of(host);
    let device = host.real(&mounts.over(&path.to_string_lossy())?.source)?;
    let below = ids_below(host, device.trim_start_matches("/dev/"), 4);
    let found = BELOW_SNAPSHOTS.iter().find(|(ending, _)| below.iter().any(|id| id.ends_with(ending)));
    found.map(|(_, what)| *what)
}

/// Names that the device mapper gives to what lies below a block device; `depth` bounds what a broken system may pretend.
fn ids_below(host: &dyn Host, name: &str, depth: u8) -> Vec<String> {
    let block = format!("/sys/class/block/{name}");
    let below = if depth > 0 { host.names(&format!("{block}/slaves")) } else { Vec::new() };
    let deeper = below.iter().flat_map(|name| ids_below(host, name, depth - 1));
    let own = host.text(&format!("{block}/dm/uuid")).map(|id| id.trim().to_owned());
    own.into_iter().chain(deeper).collect()
}

fn snapshots(host: &dyn Host, path: &Path) -> Finding {
    let hint = "exclude the vault's folder from them; a snapshot is an old copy, which opens with the passphrase of then";
    if let Some(what) = thin(host, path) {
        return Finding::care(
            "snapshots",
            what,
            "see what there is with: lvs; remove old ones with: lvremove; or move the vault to another disk",
        );
    }
    for folder in path.ancestors().skip(1) {
        let folder = folder.to_string_lossy();
        if let Some(mark) = SNAPSHOTS.iter().find(|mark| host.exists(&join(&folder, mark))) {
            return Finding::care(
                "snapshots",
                format!("snapshots are made where the vault lies ({mark})"),
                hint,
            );
        }
    }
    match SNAPSHOT_TOOLS.iter().find(|(file, _)| host.exists(file)) {
        Some((_, tool)) => {
            Finding::care("snapshots", format!("{tool} makes snapshots on this computer"), hint)
        }
        None => Finding::well("snapshots", "no known program makes snapshots here"),
    }
}

/// Names of folders that are copied elsewhere.
const SYNCED: [&str; 19] = [
    "Dropbox",
    "OneDrive",
    "Google Drive",
    "GoogleDrive",
    "My Drive",
    "iCloud Drive",
    "Mobile Documents",
    "CloudStorage",
    "Nextcloud",
    "ownCloud",
    "MEGA",
    "pCloudDrive",
    "Proton Drive",
    "Seafile",
    "Syncthing",
    "Yandex.Disk",
    "Box Sync",
    "Tresorit",
    "Insync",
];

/// Things in a folder that show that it, and what is below it, is copied elsewhere.
const SYNC_MARKS: [&str; 11] = [
    ".stfolder",
    ".stversions",
    ".dropbox",
    ".dropbox.cache",
    ".owncloudsync.log",
    ".nextcloudsync.log",
    ".sync_journal.db",
    ".SyncArchive",
    ".seafile-data",
    ".megaignore",
    ".git/annex",
];

fn synced(host: &dyn Host, path: &Path) -> Finding {
    for folder in path.ancestors().skip(1) {
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        // OneDrive appends the organisation's name.
        let named = SYNCED.iter().find(|known| name == **known || name.starts_with(&format!("{known} - ")));
        let folder = folder.to_string_lossy();
        let marked = || SYNC_MARKS.iter().find(|mark| host.exists(&join(&folder, mark)));
        if let Some(mark) = named.or_else(marked) {
            return Finding::care(
                "sync folder",
                format!("the vault lies in a folder that is copied elsewhere ({mark})"),
                "move it: copies elsewhere outlive every destruction here, and two copies break conversations",
            );
        }
    }
    Finding::well("sync folder", "the vault lies in no known sync folder")
}

/// Settings below the home folder, or anywhere, of programs that copy files regularly.
const BACKUPS: [(&str, &str); 11] = [
    ("~/.config/borg", "borg"),
    ("~/.config/borgmatic", "borgmatic"),
    ("/etc/borgmatic", "borgmatic"),
    ("~/.local/share/vorta", "vorta"),
    ("~/.cache/deja-dup", "deja-dup"),
    ("~/.cache/duplicity", "duplicity"),
    ("~/.cache/restic", "restic"),
    ("~/.config/backintime", "backintime"),
    ("~/.config/Duplicati", "duplicati"),
    ("~/.config/kopia", "kopia"),
    ("/etc/rsnapshot.conf", "rsnapshot"),
];

fn backups(host: &dyn Host) -> Finding {
    let home = host.variable("HOME").unwrap_or_default();
    let is_there = |path: &str| host.exists(&path.replacen('~', &home, 1));
    match BACKUPS.iter().find(|(path, _)| is_there(path)) {
        Some((_, tool)) => Finding::care(
            "backups",
            format!("{tool} makes backups on this computer; they may hold old copies of the vault"),
            "exclude the vault's folder from it, and delete the vault from what it has",
        ),
        None => Finding::well("backups", "no known backup program is set up"),
    }
}

/// Less than this is nearly full: other programs begin to fail, and none of them says so well.
const LITTLE_ROOM: u64 = 256 << 20;

fn space(facts: &Facts) -> Finding {
    match facts.free {
        Some((free, all)) if free < LITTLE_ROOM.min(all / 20) => Finding::care(
            "disk",
            format!("the disk is nearly full: {} are free", crate::cli::size::words(free)),
            "make room; the vault itself has all the room it will ever need",
        ),
        _ => Finding::well("disk", "there is room on the disk"),
    }
}

/// A clock may go wrong by so much between two commands.
const CLOCK_SLIP: Duration = Duration::from_secs(120);

/// Before this no version of the program existed: 2025-01-01.
const FIRST_YEAR: Timestamp = Timestamp::from_millis(1_735_689_600_000);

fn clock(facts: &Facts, now: Timestamp) -> Finding {
    let hint =
        "set it, and have it set from the network; tickets, timers and the order of messages depend on it";
    if now < FIRST_YEAR {
        return Finding::care("clock", "the computer's clock is wrong: it shows a year long ago", hint);
    }
    if facts.written > now.plus(CLOCK_SLIP) {
        return Finding::care(
            "clock",
            "the computer's clock went back: the vault was written at a time that has not come yet",
            hint,
        );
    }
    Finding::well("clock", "the clock is not behind the vault's last change")
}

/// Left by what sets the clock from the network, as soon as it has, or as long as it runs.
const TIME_SOURCES: [&str; 6] = [
    "/run/systemd/timesync/synchronized",
    "/run/chrony/chronyd.pid",
    "/run/chronyd.pid",
    "/run/ntpd.pid",
    "/run/openntpd.pid",
    "/run/ntpsec/ntpd.pid",
];

fn time_source(host: &dyn Host) -> Finding {
    if TIME_SOURCES.iter().any(|mark| host.exists(mark)) {
        return Finding::well("time source", "the clock is set from the network");
    }
    // Only where one would know: other systems keep no such marks.
    if host.exists("/run/systemd/system") {
        return Finding::care(
            "time source",
            "nothing sets the computer's clock from the network, or it has not succeeded yet",
            "run: timedatectl set-ntp true; timers erase by this clock, and tickets end by it",
        );
    }
    Finding::well("time source", "this system does not say what sets its clock")
}

fn join(folder: &str, name: &str) -> String {
    format!("{}/{name}", folder.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::{super::host::tests::Pretend, *};

    const NOW: Timestamp = Timestamp::from_millis(1_750_000_000_000);

    fn facts() -> Facts {
        let written = NOW;
        Facts {
            open: false,
            own: true,
            links: 1,
            folder_open: false,
            written,
            free: Some((1 << 40, 1 << 41)),
        }
    }

    fn at(path: &str, facts: Facts) -> File {
        File { path: path.into(), facts: Some(facts) }
    }

    /// The checks that found something.
    fn found(host: &Pretend, one: &File) -> Vec<&'static str> {
        let all = file(host, one, NOW);
        assert!(all.iter().all(|finding| finding.ok == finding.hint.is_empty()));
        all.into_iter().filter(|finding| !finding.ok).map(|finding| finding.check).collect()
    }

    #[test]
    fn a_good_place_is_no_reason_to_worry() {
        assert_eq!(found(&Pretend::default(), &at("/home/ana/vault", facts())), Vec::<&str>::new());
        let none = File { path: "/home/ana/vault".into(), facts: None };
        assert_eq!(found(&Pretend::default(), &none), ["vault"]);
    }

    #[test]
    fn what_others_may_do_with_the_file_is_found() {
        let host = Pretend::default();
        for (facts, check) in [
            (Facts { open: true, ..facts() }, "permissions"),
            (Facts { own: false, ..facts() }, "permissions"),
            (Facts { folder_open: true, ..facts() }, "permissions"),
            (Facts { links: 2, ..facts() }, "names"),
            (Facts { free: Some((1 << 20, 1 << 40)), ..facts() }, "disk"),
            (Facts { written: NOW.plus(Duration::from_secs(3600)), ..facts() }, "clock"),
        ] {
            assert_eq!(found(&host, &at("/v", facts)), [check]);
        }
        assert!(!clock(&facts(), Timestamp::from_millis(1000)).ok);
        // A small memory disk is not nearly full because it is small.
        assert!(space(&Facts { free: Some((60 << 20, 64 << 20)), ..facts() }).ok);
    }

    #[test]
    fn file_systems_are_told_apart() {
        for (kind, ok) in [
            ("ext4", true),
            ("xfs", true),
            ("tmpfs", true),
            ("btrfs", false),
            ("zfs", false),
            ("overlay", false),
            ("nfs4", false),
            ("cifs", false),
            ("fuse.sshfs", false),
            ("fuseblk", true),
        ] {
            let mounts = format!("1 1 8:1 / / rw - {kind} /dev/sda1 rw");
            let host = Pretend::default().file("/proc/self/mountinfo", &mounts);
            assert_eq!(system(&host, "/home/vault").ok, ok, "{kind}");
        }
    }

    #[test]
    fn volumes_that_keep_old_versions_are_told_apart() {
        let host = |below: &str| {
            Pretend::default()
                .file("/proc/self/mountinfo", "1 1 8:1 / / rw - ext4 /dev/mapper/vg-home rw")
                .link("/dev/mapper/vg-home", "/dev/dm-1")
                .file("/sys/class/block/dm-1/dm/uuid", "LVM-abc\n")
                .file("/sys/class/block/dm-1/slaves/dm-0/x", "")
                .file("/sys/class/block/dm-0/dm/uuid", below)
        };
        for (below, ok) in [
            ("LVM-abc-tpool\n", false),
            ("LVM-abc-real\n", false),
            ("LVM-abc-cow", false),
            ("CRYPT-LUKS2-x", true),
        ] {
            let found = snapshots(&host(below), Path::new("/home/ana/vault"));
            assert_eq!((found.ok, found.hint.contains("lvs")), (ok, !ok), "{below}");
        }
        let btrfs = Pretend::default().file("/proc/self/mountinfo", "1 1 0:1 / / rw - btrfs /dev/sda1 rw");
        assert!(system(&btrfs, "/home/vault").hint.contains("chattr +C"));
    }

    #[test]
    fn a_clock_that_nothing_sets_is_found() {
        let systemd = || Pretend::default().file("/run/systemd/system/x", "");
        assert!(time_source(&Pretend::default()).ok && !time_source(&systemd()).ok);
        for mark in TIME_SOURCES {
            assert!(time_source(&systemd().file(mark, "")).ok, "{mark}");
        }
    }

    #[test]
    fn what_makes_copies_is_found() {
        let vault = |path: &str| at(path, facts());
        let home = || Pretend::default().variable("HOME", "/home/ana");
        for (host, path, check) in [
            (home(), "/home/ana/Dropbox/x/vault", "sync folder"),
            (home(), "/home/ana/OneDrive - Work/vault", "sync folder"),
            (home().file("/home/ana/notes/.stfolder/x", ""), "/home/ana/notes/deep/vault", "sync folder"),
            (home().file("/home/.snapshots/1/info.xml", ""), "/home/ana/vault", "snapshots"),
            (home().file("/etc/timeshift/timeshift.json", "{}"), "/home/ana/vault", "snapshots"),
            (home().file("/home/ana/.cache/restic/x", ""), "/home/ana/vault", "backups"),
        ] {
            assert_eq!(found(&host, &vault(path)), [check], "{path}");
        }
        assert_eq!(found(&home(), &vault("/home/ana/Dropboxes/vault")), Vec::<&str>::new());
    }
}
