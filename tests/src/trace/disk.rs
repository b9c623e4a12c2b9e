//! What a power cut would have left of the files of one folder: replayed from what a program did to them.
//!
//! The model: a file's bytes are certain from its next sync on; of each later sector there are the old bytes, the new
//! ones, or garbage, and the file has one of the lengths that it had since. Names (files that are made, linked, renamed,
//! removed) are certain from the next sync of the folder on; of later changes an arbitrary first part has happened, as a
//! journal keeps them in order. A file that was made without a name is not there before it is linked.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use lapwing_vault::testing;
use rand_core::RngCore;

use super::{Call, Trace, Write};

/// `O_CREAT` of Linux, on the processors on which the tracer runs.
const CREATE: u64 = 0o100;

/// `__O_TMPFILE` of Linux: a file without a name.
const NAMELESS: u64 = 0o20_000_000;

/// A file of a folder: all its names, of which there may be several, and its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its names; at least one.
    pub names: Vec<PathBuf>,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// What is in the folder after the power failed when the first `cut` calls of the trace had been made. Every file to
/// which the program writes has to be a watched one.
#[must_use]
pub fn power_cut(
    folder: &Path,
    before: &[File],
    trace: &Trace,
    cut: usize,
    rng: &mut impl RngCore,
) -> Vec<File> {
    let mut disk = Disk::new(before);
    let mut writes = trace.writes.iter().peekable();
    for (at, call) in trace.calls[..cut].iter().enumerate() {
        disk.takes(folder, call);
        while let Some(write) = writes.next_if(|write| write.call == at) {
            disk.is_written(write);
        }
    }
    disk.fails(rng)
}

/// One file, whatever it is called.
struct Inode {
    before: Vec<u8>,
    calls: Vec<testing::Call>,
    /// Its lengths since it was last synced; the last one counts.
    lengths: Vec<u64>,
}

impl Inode {
    fn new(before: Vec<u8>) -> Self {
        Self { lengths: vec![before.len() as u64], before, calls: Vec::new() }
    }

    fn length(&self) -> u64 {
        self.lengths.last().copied().unwrap_or_default()
    }

    fn fails(&self, rng: &mut impl RngCore) -> Vec<u8> {
        let mut bytes = testing::power_cut(&self.before, &self.calls, self.calls.len(), rng);
        let chosen = usize::try_from(rng.next_u64() % self.lengths.len() as u64).expect("an index");
        bytes.resize(usize::try_from(self.lengths[chosen]).expect("a length"), 0);
        bytes
    }
}

/// Which name leads to which file.
type Names = BTreeMap<PathBuf, usize>;

struct Disk {
    inodes: Vec<Inode>,
    /// The file that a program means when it uses a descriptor which it opened by this name.
    opened: HashMap<PathBuf, usize>,
    /// The last file that was made without a name.
    nameless: Option<usize>,
    /// As the running system sees them.
    names: Names,
    /// As they are on the disk for certain.
    certain: Names,
    /// As they may be, after each change since.
    possible: Vec<Names>,
}

impl Disk {
    fn new(before: &[File]) -> Self {
        let numbered = before.iter().zip(0..);
        let names: Names = numbered
            .flat_map(|(file, inode)| file.names.iter().cloned().map(move |name| (name, inode)))
            .collect();
        Self {
            inodes: before.iter().map(|file| Inode::new(file.bytes.clone())).collect(),
            opened: HashMap::new(),
            nameless: None,
            certain: names.clone(),
            names,
            possible: Vec::new(),
        }
    }

    fn takes(&mut self, folder: &Path, call: &Call) {
        let Some(path) = call.file().filter(|_| call.result >= 0) else { return };
        let beside = |path: &Path| path.parent() == Some(folder);
        match call.name.as_str() {
            // The tracer gives it the path that it will have.
            "openat" | "open" if beside(path) && call.flags.is_some_and(|flags| flags & NAMELESS != 0) => {
                self.nameless = Some(self.inodes.len());
                self.opened.insert(path.clone(), self.inodes.len());
                self.inodes.push(Inode::new(Vec::new()));
            }
            "openat" | "open" if beside(path) => {
                if call.flags.is_some_and(|flags| flags & CREATE != 0) && !self.names.contains_key(path) {
                    self.inodes.push(Inode::new(Vec::new()));
                    self.renamed(|names, new| {
                        names.insert(path.clone(), new);
                    });
                }
                if let Some(inode) = self.names.get(path) {
                    self.opened.insert(path.clone(), *inode);
                }
            }
            "rename" | "renameat" | "renameat2" | "link" | "linkat" => {
                let Some(to) = call.second.clone().filter(|to| beside(to)) else { return };
                let stays = call.name.starts_with("link");
                let nameless = self.nameless.filter(|_| path.starts_with("/proc"));
                self.renamed(|names, _| {
                    let named = if stays { names.get(path).copied() } else { names.remove(path) };
                    let inode = nameless.or(named);
                    if let Some(inode) = inode {
                        names.insert(to, inode);
                    }
                });
            }
            "unlink" | "unlinkat" => self.renamed(|names, _| {
                names.remove(path);
            }),
            "fsync" | "fdatasync" if path == folder => {
                self.certain = self.names.clone();
                self.possible.clear();
            }
            "ftruncate" | "fallocate" => {
                let (Some(length), Some(inode)) = (call.length, self.opened.get(path)) else { return };
                let inode = &mut self.inodes[*inode];
                if length > inode.length() {
                    inode.lengths.push(length);
                }
            }
            _ => {}
        }
    }

    fn renamed(&mut self, change: impl FnOnce(&mut Names, usize)) {
        let newest = self.inodes.len().saturating_sub(1);
        change(&mut self.names, newest);
        self.possible.push(self.names.clone());
    }

    fn is_written(&mut self, write: &Write) {
        let Some(inode) = self.opened.get(&write.file) else { return };
        let inode = &mut self.inodes[*inode];
        inode.calls.push(match write.offset {
            Some(offset) => {
                let end = offset + write.bytes.len() as u64;
                if end > inode.length() {
                    inode.lengths.push(end);
                }
                testing::Call::Write { offset, bytes: write.bytes.clone() }
            }
            None => {
                inode.lengths = vec![inode.length()];
                testing::Call::Sync
            }
        });
    }

    fn fails(self, rng: &mut impl RngCore) -> Vec<File> {
        let Self { inodes, opened: _, nameless: _, names: _, certain, possible } = self;
        let chosen = usize::try_from(rng.next_u64() % (possible.len() as u64 + 1)).expect("an index");
        let names = chosen.checked_sub(1).map_or(&certain, |at| &possible[at]);
        let left = inodes.iter().enumerate().filter_map(|(number, inode)| {
            let mine = names.iter().filter(|(_, inode)| **inode == number);
            let names: Vec<PathBuf> = mine.map(|(name, _)| name.clone()).collect();
            (!names.is_empty()).then(|| File { names, bytes: inode.fails(rng) })
        });
        left.collect()
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    use super::*;
    use crate::trace::{End, Target};

    fn call(name: &str, path: &str, second: Option<&str>) -> Call {
        Call {
            thread: 0,
            name: name.to_owned(),
            target: Target::File(path.into()),
            second: second.map(PathBuf::from),
            offset: None,
            length: None,
            flags: Some(CREATE),
            result: 0,
            changes: true,
        }
    }

    fn flagged(name: &str, path: &str, second: Option<&str>, flags: u64) -> Call {
        Call { flags: Some(flags), ..call(name, path, second) }
    }

    /// A file that was made without a name is not there before it got one, and then with what was synced.
    #[test]
    fn a_nameless_file_is_not_there_before_it_is_linked_and_only_what_was_synced_is_certain() {
        let (made, named) = ("/f/vault", "/proc/self/fd/5");
        let trace = |synced: bool| {
            let mut calls = vec![
                flagged("openat", made, None, NAMELESS | CREATE),
                call("pwrite", made, None),
                call("fsync", made, None),
                flagged("linkat", named, Some(made), 0),
                call("fsync", "/f", None),
            ];
            let mut writes =
                vec![Write { file: made.into(), offset: Some(0), bytes: vec![3; 8192], call: 1 }];
            if synced {
                writes.push(Write { file: made.into(), offset: None, bytes: Vec::new(), call: 2 });
            } else {
                calls[2].name = "close".to_owned();
            }
            let (stdout, stderr) = (Vec::new(), Vec::new());
            Trace { calls, writes, stdout, stderr, end: End::Exited(0), memory: None }
        };
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let mut after =
            |synced: bool, cut: usize| power_cut(Path::new("/f"), &[], &trace(synced), cut, &mut rng);
        let whole = vec![File { names: vec![made.into()], bytes: vec![3; 8192] }];
        assert!((0..4).all(|cut| after(true, cut).is_empty()), "it has no name");
        let between: Vec<_> = (0..32).map(|_| after(true, 4)).collect();
        assert!(between.contains(&Vec::new()) && between.contains(&whole));
        assert!(between.iter().all(|left| left.is_empty() || *left == whole));
        assert_eq!(after(true, 5), whole);
        assert!((0..32).any(|_| after(false, 5) != whole), "it was not synced");
    }

    /// A file that takes another's place: the old or the new one is there, whole, if what came before was synced.
    #[test]
    fn a_file_that_was_synced_takes_its_place_whole_or_not_and_one_that_was_not_may_be_torn() {
        let trace = |synced: bool| {
            let calls = vec![
                call("openat", "/f/new", None),
                call("pwrite", "/f/new", None),
                call("fdatasync", "/f/new", None),
                call("rename", "/f/new", Some("/f/vault")),
                call("fsync", "/f", None),
            ];
            let wrote = Write { file: "/f/new".into(), offset: Some(0), bytes: vec![2; 8192], call: 1 };
            let mut writes = vec![wrote];
            if synced {
                writes.push(Write { file: "/f/new".into(), offset: None, bytes: Vec::new(), call: 2 });
            }
            let (stdout, stderr) = (Vec::new(), Vec::new());
            Trace { calls, writes, stdout, stderr, end: End::Exited(0), memory: None }
        };
        let before = [File { names: vec!["/f/vault".into()], bytes: vec![1; 4096] }];
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut after = |synced: bool, cut: usize| {
            let files = power_cut(Path::new("/f"), &before, &trace(synced), cut, &mut rng);
            let named = |file: &&File| file.names.contains(&"/f/vault".into());
            files.iter().find(named).expect("it has its name, always").bytes.clone()
        };
        let (old, new) = (vec![1; 4096], vec![2; 8192]);
        assert!((0..4).all(|cut| after(true, cut) == old));
        let between: Vec<Vec<u8>> = (0..32).map(|_| after(true, 4)).collect();
        assert!(between.contains(&old) && between.contains(&new));
        assert!(between.iter().all(|bytes| [&old, &new].contains(&bytes)));
        assert_eq!(after(true, 5), new);
        assert!((0..32).any(|_| ![&old, &new].contains(&&after(false, 5))), "it was not synced");
    }
}
