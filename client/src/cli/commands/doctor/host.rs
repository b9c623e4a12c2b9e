//! What the checks read of the computer.

use std::{
    fs::{self, File},
    io::Read,
    path::Path,
};

/// Most of a file that is looked at: the end of a history, the whole of everything else.
const MOST: u64 = 1 << 20;

/// Reads. What cannot be read is not there.
pub(super) trait Host {
    /// The text of a file, the last [`MOST`] bytes of it; bytes that are no text are replaced.
    fn text(&self, path: &str) -> Option<String>;

    /// Names in a folder.
    fn names(&self, folder: &str) -> Vec<String>;

    /// Whether something is there.
    fn exists(&self, path: &str) -> bool;

    /// Where a path leads once links are followed.
    fn real(&self, path: &str) -> Option<String>;

    /// A variable of the environment.
    fn variable(&self, name: &str) -> Option<String>;

    /// Names of all variables.
    fn variables(&self) -> Vec<String>;
}

/// This computer.
pub(super) struct System;

impl Host for System {
    fn text(&self, path: &str) -> Option<String> {
        // Looked at before it is opened: a pipe would keep us.
        let length = fs::metadata(path).ok().filter(fs::Metadata::is_file)?.len();
        let mut file = File::open(path).ok()?;
        if length > MOST {
            std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(length - MOST)).ok()?;
        }
        let mut bytes = Vec::new();
        file.take(MOST).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
    }

    fn exists(&self, path: &str) -> bool {
        Path::new(path).exists()
    }

    fn real(&self, path: &str) -> Option<String> {
        fs::canonicalize(path).ok()?.into_os_string().into_string().ok()
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn variables(&self) -> Vec<String> {
        std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect()
    }
}

/// The file systems that are mounted.
pub(super) struct Mounts(Vec<Mount>);

/// One of them.
pub(super) struct Mount {
    /// Where.
    pub(super) point: String,
    /// Its type: `ext4`, `fuse.sshfs`.
    pub(super) kind: String,
    /// What is mounted: a device, a server.
    pub(super) source: String,
}

impl Mounts {
    /// Reads `/proc/self/mountinfo` (proc(5)).
    pub(super) fn of(host: &dyn Host) -> Self {
        let text = host.text("/proc/self/mountinfo").unwrap_or_default();
        Self(text.lines().filter_map(mount).collect())
    }

    /// The one that a path lies on: the last of those with the longest mount point.
    pub(super) fn over(&self, path: &str) -> Option<&Mount> {
        let covers = |mount: &&Mount| Path::new(path).starts_with(&mount.point);
        self.0.iter().filter(covers).max_by_key(|mount| mount.point.len())
    }
}

fn mount(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let point = left.split(' ').nth(4)?.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\");
    let mut rest = right.split(' ');
    Some(Mount { point, kind: rest.next()?.to_owned(), source: rest.next()?.to_owned() })
}

/// Whether a block device is encrypted by the kernel: a device mapper target whose id says so, possibly below others.
pub(super) fn is_encrypted(host: &dyn Host, device: &str) -> bool {
    let Some(real) = host.real(device) else { return false };
    encrypted_below(host, real.trim_start_matches("/dev/"), 4)
}

/// A volume on an encrypted one is encrypted too; `depth` bounds what a broken system may pretend.
fn encrypted_below(host: &dyn Host, name: &str, depth: u8) -> bool {
    let block = format!("/sys/class/block/{name}");
    let id = host.text(&format!("{block}/dm/uuid")).unwrap_or_default();
    if id.starts_with("CRYPT-") {
        return true;
    }
    let below = host.names(&format!("{block}/slaves"));
    depth > 0 && !below.is_empty() && below.iter().all(|name| encrypted_below(host, name, depth - 1))
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A computer that is not there.
    #[derive(Default)]
    pub(in super::super) struct Pretend {
        files: BTreeMap<String, String>,
        links: BTreeMap<String, String>,
        variables: BTreeMap<String, String>,
    }

    impl Pretend {
        pub(in super::super) fn file(mut self, path: &str, text: &str) -> Self {
            self.files.insert(path.to_owned(), text.to_owned());
            self
        }

        pub(in super::super) fn link(mut self, path: &str, to: &str) -> Self {
            self.links.insert(path.to_owned(), to.to_owned());
            self
        }

        pub(in super::super) fn variable(mut self, name: &str, value: &str) -> Self {
            self.variables.insert(name.to_owned(), value.to_owned());
            self
        }
    }

    impl Host for Pretend {
        fn text(&self, path: &str) -> Option<String> {
            self.files.get(path).cloned()
        }

        fn names(&self, folder: &str) -> Vec<String> {
            let inside = |path: &String| {
                path.strip_prefix(&format!("{folder}/"))
                    .map(|rest| rest.split('/').next().unwrap_or(rest).to_owned())
            };
            let mut names: Vec<String> = self.files.keys().filter_map(inside).collect();
            names.dedup();
            names
        }

        fn exists(&self, path: &str) -> bool {
            let below = format!("{path}/");
            self.files.keys().any(|file| file == path || file.starts_with(&below))
        }

        fn real(&self, path: &str) -> Option<String> {
            Some(self.links.get(path).cloned().unwrap_or_else(|| path.to_owned()))
        }

        fn variable(&self, name: &str) -> Option<String> {
            self.variables.get(name).cloned()
        }

        fn variables(&self) -> Vec<String> {
            self.variables.keys().cloned().collect()
        }
    }

    const MOUNTS: &str = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:26 / /home rw - btrfs /dev/mapper/home rw
31 30 0:50 / /home/ana/my\\040cloud rw - fuse.rclone remote: rw
a line that is none
";

    #[test]
    fn the_longest_mount_point_counts() {
        let host = Pretend::default().file("/proc/self/mountinfo", MOUNTS);
        let mounts = Mounts::of(&host);
        let kind = |path: &str| mounts.over(path).map(|mount| mount.kind.clone()).unwrap_or_default();
        assert_eq!(kind("/var/vault"), "ext4");
        assert_eq!(kind("/home/ana/vault"), "btrfs");
        assert_eq!(kind("/homes/vault"), "ext4");
        assert_eq!(kind("/home/ana/my cloud/vault"), "fuse.rclone");
        assert!(Mounts::of(&Pretend::default()).over("/x").is_none());
    }

    #[test]
    fn a_volume_on_an_encrypted_device_is_encrypted() {
        let host = Pretend::default()
            .link("/dev/mapper/swap", "/dev/dm-1")
            .file("/sys/class/block/dm-0/dm/uuid", "CRYPT-LUKS2-0123")
            .file("/sys/class/block/dm-1/dm/uuid", "LVM-abc")
            .file("/sys/class/block/dm-1/slaves/dm-0", "")
            .file("/sys/class/block/dm-2/dm/uuid", "LVM-def")
            .file("/sys/class/block/dm-2/slaves/sda2", "");
        for (device, encrypted) in
            [("/dev/dm-0", true), ("/dev/mapper/swap", true), ("/dev/dm-2", false), ("/dev/sda2", false)]
        {
            assert_eq!(is_encrypted(&host, device), encrypted, "{device}");
        }
    }

    #[test]
    fn this_computer_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("long");
        let bytes = [vec![b'a'; 10], vec![b'b'; 1 << 20]].concat();
        let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&path).unwrap();
        std::io::Write::write_all(&mut file, &bytes).unwrap();
        let path = path.to_str().unwrap();
        assert_eq!(System.text(path).unwrap(), "b".repeat(1 << 20));
        assert!(System.exists(path) && System.names(folder.path().to_str().unwrap()) == ["long"]);
        assert!(System.text(folder.path().to_str().unwrap()).is_none());
        assert!(System.variable("PATH").is_some() && System.variables().contains(&"PATH".to_owned()));
    }
}
