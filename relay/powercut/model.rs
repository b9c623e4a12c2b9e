//! What a power cut leaves, found from a trace.
//!
//! The model replays a trace (`trace.rs`) to any of its records and asks: what would be on the disk if the power failed
//! here? What was flushed is there. Of what was not, by a seed: nothing, everything, or for each sector of 512 bytes any
//! of its versions since the last flush, or a torn mixture of two; a length that it had at some time since; of
//! names that were made, moved or removed, a beginning of what was done since their folder was flushed. A file whose name was
//! never flushed is not there, however much of it was.
//!
//! A model that does not see a call would pass a store that loses data, so [`Model::check_against`] compares what it
//! believes to be there with what is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::OpenOptions,
    io::Read,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::trace::{FOLDER, HEAD, Kind, MADE};

const SECTOR: usize = 512;
/// The file in the watched folder whose writes are the program's own marks, and no part of the disk.
const MARKS: &[u8] = b"marks";

/// One record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'t> {
    pub(crate) kind: Kind,
    pub(crate) file: u64,
    pub(crate) a: u64,
    pub(crate) b: u64,
    pub(crate) bytes: &'t [u8],
}

/// The records of a trace; one that was cut short by the end of its process is left out.
pub(crate) fn records(mut trace: &[u8]) -> Vec<Record<'_>> {
    let mut found = Vec::new();
    while let Some((head, rest)) = trace.split_at_checked(HEAD) {
        let number = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap());
        let length = usize::try_from(u32::from_le_bytes(head[25..29].try_into().unwrap())).unwrap();
        let Some((bytes, rest)) = rest.split_at_checked(length) else { break };
        found.push(Record { kind: kind(head[0]), file: number(1), a: number(9), b: number(17), bytes });
        trace = rest;
    }
    found
}

fn kind(byte: u8) -> Kind {
    use Kind::*;
    let all = [
        Open, Write, Resize, Reserve, SyncBegin, SyncEnd, Rename, Unlink, MakeFolder, DropFolder, Link,
        Unknown,
    ];
    *all.iter().find(|kind| **kind as u8 == byte).expect("a kind")
}

/// The bytes of a file; sectors that are not there are zero.
#[derive(Clone, Default)]
struct Content {
    sectors: BTreeMap<u64, Box<[u8; SECTOR]>>,
    length: u64,
}

#[derive(Clone, Copy)]
enum Change<'t> {
    Write(u64, &'t [u8]),
    Resize(u64),
}

impl Content {
    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let within = usize::try_from(at % SECTOR as u64).unwrap();
            let (part, more) = rest.split_at(rest.len().min(SECTOR - within));
            let sector = self.sectors.entry(at / SECTOR as u64).or_insert_with(|| Box::new([0; SECTOR]));
            sector[within..within + part.len()].copy_from_slice(part);
            at += part.len() as u64;
            rest = more;
        }
        self.length = self.length.max(at);
    }

    fn resize(&mut self, length: u64) {
        if length < self.length {
            let within = usize::try_from(length % SECTOR as u64).unwrap();
            self.sectors.split_off(&length.div_ceil(SECTOR as u64));
            if within > 0
                && let Some(last) = self.sectors.get_mut(&(length / SECTOR as u64))
            {
                last[within..].fill(0);
            }
        }
        self.length = length;
    }

    fn apply(&mut self, change: Change<'_>) {
        match change {
            Change::Write(offset, bytes) => self.write(offset, bytes),
            Change::Resize(length) => self.resize(length),
        }
    }

    fn read(path: &Path) -> Self {
        let mut content = Self::default();
        let mut file = std::fs::File::open(path).unwrap();
        let length = file.metadata().unwrap().len();
        let mut buffer = vec![0; 1 << 20];
        let mut start = 0;
        while start < length {
            let filled = usize::try_from(length - start).unwrap().min(buffer.len());
            file.read_exact(&mut buffer[..filled]).unwrap();
            for (index, sector) in buffer[..filled].chunks(SECTOR).enumerate() {
                if sector.iter().any(|byte| *byte != 0) {
                    content.write(start + (index * SECTOR) as u64, sector);
                }
            }
            start += filled as u64;
        }
        content.length = length;
        content
    }

    fn store(&self, path: &Path) {
        let file = OpenOptions::new().write(true).create_new(true).open(path).unwrap();
        file.set_len(self.length).unwrap();
        for (index, sector) in &self.sectors {
            let start = index * SECTOR as u64;
            let length = usize::try_from(self.length.saturating_sub(start)).unwrap().min(SECTOR);
            file.write_all_at(&sector[..length], start).unwrap();
        }
    }

    fn is_alike(&self, other: &Self) -> bool {
        let keys: BTreeSet<_> = self.sectors.keys().chain(other.sectors.keys()).collect();
        self.length == other.length
            && keys.into_iter().all(|key| {
                let zero = Box::new([0; SECTOR]);
                self.sectors.get(key).unwrap_or(&zero) == other.sectors.get(key).unwrap_or(&zero)
            })
    }
}

#[derive(Default)]
struct File<'t> {
    now: Content,
    kept: Content,
    /// Where in the trace, and what.
    pending: Vec<(usize, Change<'t>)>,
}

impl<'t> File<'t> {
    fn change(&mut self, at: usize, change: Change<'t>) {
        self.now.apply(change);
        self.pending.push((at, change));
    }

    /// Everything before `at` is durable.
    fn flush(&mut self, at: usize) {
        let later = self.pending.partition_point(|(place, _)| *place < at);
        for (_, change) in self.pending.drain(..later) {
            self.kept.apply(change);
        }
    }

    fn cut(&self, rng: &mut StdRng) -> Content {
        match rng.random_range(0..4) {
            _ if self.pending.is_empty() => self.kept.clone(),
            0 => self.kept.clone(),
            1 => self.now.clone(),
            _ => self.mixed(rng),
        }
    }

    fn mixed(&self, rng: &mut StdRng) -> Content {
        let mut scratch = self.kept.clone();
        let mut lengths = vec![scratch.length];
        let mut versions: BTreeMap<u64, Vec<[u8; SECTOR]>> = BTreeMap::new();
        for (_, change) in &self.pending {
            let touched = match change {
                Change::Write(offset, bytes) => {
                    let end = offset + bytes.len() as u64;
                    offset / SECTOR as u64..end.div_ceil(SECTOR as u64)
                }
                Change::Resize(_) => 0..0,
            };
            for sector in touched.clone() {
                let before = scratch.sectors.get(&sector).map_or([0; SECTOR], |bytes| **bytes);
                versions.entry(sector).or_insert_with(|| vec![before]);
            }
            scratch.apply(*change);
            for sector in touched {
                let after = scratch.sectors.get(&sector).map_or([0; SECTOR], |bytes| **bytes);
                versions.get_mut(&sector).unwrap().push(after);
            }
            lengths.push(scratch.length);
        }
        let length = lengths[rng.random_range(0..lengths.len())];
        let mut left = self.kept.clone();
        for (sector, versions) in versions {
            let mut bytes = versions[rng.random_range(0..versions.len())];
            if rng.random_ratio(1, 8) {
                let torn = rng.random_range(0..SECTOR);
                bytes[torn..].copy_from_slice(&versions[rng.random_range(0..versions.len())][torn..]);
            }
            left.sectors.insert(sector, Box::new(bytes));
        }
        left.length = u64::MAX;
        left.resize(length);
        left
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Node {
    Folder,
    File(usize),
}

type Names = BTreeMap<Vec<u8>, Node>;

/// One change of names: which folders it is in, and what it puts where.
struct NameChange {
    at: usize,
    folders: Vec<Vec<u8>>,
    puts: Vec<(Vec<u8>, Option<Node>)>,
}

/// A folder as a trace leaves it.
pub(crate) struct Model<'t> {
    files: Vec<File<'t>>,
    numbers: BTreeMap<u64, Node>,
    folders: BTreeMap<u64, Vec<u8>>,
    now: Names,
    kept: Names,
    pending: Vec<NameChange>,
    /// Where each flush that runs began.
    begun: BTreeMap<u64, usize>,
    at: usize,
    marks_file: Option<u64>,
    /// What the program has written as marks.
    pub(crate) marks: Vec<u8>,
}

impl<'t> Model<'t> {
    /// Begins with what is in a folder, if it is there; all of that is durable.
    pub(crate) fn begin(folder: &Path) -> Self {
        let mut model = Self {
            files: Vec::new(),
            numbers: BTreeMap::new(),
            folders: BTreeMap::new(),
            now: Names::from([(Vec::new(), Node::Folder)]),
            kept: Names::new(),
            pending: Vec::new(),
            begun: BTreeMap::new(),
            at: 0,
            marks_file: None,
            marks: Vec::new(),
        };
        let there = if folder.is_dir() { walk(folder) } else { Vec::new() };
        for (path, is_folder) in there {
            let node = if is_folder {
                Node::Folder
            } else {
                let content = Content::read(&folder.join(as_path(&path)));
                model.files.push(File { now: content.clone(), kept: content, pending: Vec::new() });
                Node::File(model.files.len() - 1)
            };
            model.now.insert(path, node);
        }
        model.kept = model.now.clone();
        model
    }

    /// Follows one record.
    ///
    /// # Panics
    /// If the program did what the model cannot follow.
    pub(crate) fn step(&mut self, record: Record<'t>) {
        let Record { kind, file, a, b, bytes } = record;
        self.at += 1;
        match kind {
            Kind::Unknown => panic!("the model cannot follow: {}", String::from_utf8_lossy(bytes)),
            Kind::Open if bytes == MARKS => self.marks_file = Some(file),
            Kind::Open => self.open(file, a, bytes),
            Kind::Write if self.marks_file == Some(file) => self.marks.extend_from_slice(bytes),
            _ if self.marks_file == Some(file) => {}
            Kind::Write => self.change(file, Change::Write(a, bytes)),
            Kind::Resize => self.change(file, Change::Resize(a)),
            Kind::Reserve => self.reserve(file, a.saturating_add(b)),
            Kind::SyncBegin => {
                self.begun.insert(a, self.at);
            }
            Kind::SyncEnd => {
                let begun = self.begun.remove(&a).expect("a flush ends that began");
                self.flush(file, begun);
            }
            Kind::Rename => {
                let (from, to) = pair(bytes);
                self.rename(from, to);
            }
            Kind::Unlink | Kind::DropFolder => self.put(vec![(bytes.to_vec(), None)]),
            Kind::MakeFolder => self.put(vec![(bytes.to_vec(), Some(Node::Folder))]),
            Kind::Link => {
                let (from, to) = pair(bytes);
                let node = self.now.get(from).copied();
                self.put(vec![(to.to_vec(), node)]);
            }
        }
    }

    fn open(&mut self, number: u64, flags: u64, path: &[u8]) {
        if flags & MADE != 0 {
            self.files.push(File::default());
            let node = Node::File(self.files.len() - 1);
            self.put(vec![(path.to_vec(), Some(node))]);
        }
        let node = *self.now.get(path).expect("a file that is opened is known");
        assert_eq!(node == Node::Folder, flags & FOLDER != 0, "a name leads to what it did");
        self.numbers.insert(number, node);
        if node == Node::Folder {
            self.folders.insert(number, path.to_vec());
        }
    }

    fn file(&mut self, number: u64) -> &mut File<'t> {
        let Some(Node::File(index)) = self.numbers.get(&number) else { panic!("a file is written") };
        &mut self.files[*index]
    }

    fn change(&mut self, number: u64, change: Change<'t>) {
        let at = self.at;
        self.file(number).change(at, change);
    }

    fn reserve(&mut self, number: u64, end: u64) {
        if self.file(number).now.length < end {
            self.change(number, Change::Resize(end));
        }
    }

    fn flush(&mut self, number: u64, begun: usize) {
        if number == 0 {
            self.files.iter_mut().for_each(|file| file.flush(begun));
            self.flush_names(begun, |_| true);
        } else if let Some(folder) = self.folders.get(&number).cloned() {
            self.flush_names(begun, |change| change.folders.contains(&folder));
        } else {
            self.file(number).flush(begun);
        }
    }

    fn flush_names(&mut self, begun: usize, is_meant: impl Fn(&NameChange) -> bool) {
        let (done, left) = self.pending.drain(..).partition(|change| change.at < begun && is_meant(change));
        self.pending = left;
        let done: Vec<NameChange> = done;
        done.iter().for_each(|change| apply(&mut self.kept, change));
    }

    fn put(&mut self, puts: Vec<(Vec<u8>, Option<Node>)>) {
        let folders = puts.iter().map(|(path, _)| parent(path).to_vec()).collect();
        let change = NameChange { at: self.at, folders, puts };
        apply(&mut self.now, &change);
        self.pending.push(change);
    }

    fn rename(&mut self, from: &[u8], to: &[u8]) {
        let mut puts = vec![(from.to_vec(), None), (to.to_vec(), self.now.get(from).copied())];
        let below = [from, b"/"].concat();
        for (path, node) in self.now.range(below.clone()..).take_while(|(path, _)| path.starts_with(&below)) {
            puts.push((path.clone(), None));
            puts.push(([to, b"/", &path[below.len()..]].concat(), Some(*node)));
        }
        self.put(puts);
    }

    /// Writes what a power cut here leaves to a folder that does not exist.
    pub(crate) fn cut(&self, seed: u64, folder: &Path) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut names = self.kept.clone();
        let done = match rng.random_range(0..4) {
            0 => 0,
            1 => self.pending.len(),
            _ => rng.random_range(0..=self.pending.len()),
        };
        self.pending[..done].iter().for_each(|change| apply(&mut names, change));
        for (path, node) in &names {
            let place = folder.join(as_path(path));
            // In the order of the names every folder comes before what is in it.
            if !path.is_empty() && names.get(parent(path)) != Some(&Node::Folder) {
                continue;
            }
            if place.parent().is_none_or(|parent| !path.is_empty() && !parent.is_dir()) {
                continue;
            }
            match node {
                Node::Folder => std::fs::create_dir(&place).unwrap(),
                Node::File(index) => self.files[*index].cut(&mut rng).store(&place),
            }
        }
    }

    /// Compares what the trace tells with what is on the disk.
    ///
    /// # Errors
    /// The first difference: something was written past the shim.
    pub(crate) fn check_against(&self, folder: &Path) -> Result<(), String> {
        let there: BTreeMap<Vec<u8>, bool> = walk(folder).into_iter().collect();
        for (path, node) in self.now.iter().filter(|(path, _)| !path.is_empty()) {
            let name = String::from_utf8_lossy(path);
            match (node, there.get(path)) {
                (Node::Folder, Some(true)) => {}
                (Node::File(index), Some(false)) => {
                    if !Content::read(&folder.join(as_path(path))).is_alike(&self.files[*index].now) {
                        return Err(format!("{name} has other bytes than were seen to be written"));
                    }
                }
                _ => return Err(format!("{name} is not on the disk")),
            }
        }
        let unseen = there.keys().find(|path| !self.now.contains_key(*path));
        unseen
            .map_or(Ok(()), |path| Err(format!("{} was not seen to be made", String::from_utf8_lossy(path))))
    }
}

fn apply(names: &mut Names, change: &NameChange) {
    for (path, node) in &change.puts {
        match node {
            Some(node) => names.insert(path.clone(), *node),
            None => names.remove(path),
        };
    }
}

fn pair(bytes: &[u8]) -> (&[u8], &[u8]) {
    let middle = bytes.iter().position(|byte| *byte == 0).expect("two paths");
    (&bytes[..middle], &bytes[middle + 1..])
}

fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').map_or(&[], |at| &path[..at])
}

fn as_path(path: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(std::ffi::OsStr::from_bytes(path))
}

/// Everything below a folder but the marks, relative to it; whether it is a folder.
fn walk(folder: &Path) -> Vec<(Vec<u8>, bool)> {
    use std::os::unix::ffi::OsStrExt;
    let mut found = Vec::new();
    let mut left = vec![folder.to_owned()];
    while let Some(next) = left.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let entry = entry.unwrap();
            let path = entry.path();
            let relative = path.strip_prefix(folder).unwrap().as_os_str().as_bytes().to_vec();
            let is_folder = entry.file_type().unwrap().is_dir();
            if relative == MARKS {
                continue;
            }
            if is_folder {
                left.push(path);
            }
            found.push((relative, is_folder));
        }
    }
    found
}
