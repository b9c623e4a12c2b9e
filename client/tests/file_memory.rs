//! The largest file, sent and fetched, in little memory.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs::{self, File},
    io::Read as _,
    path::Path,
};

use lapwing::attach::{Prepared, Source, Target};
use lapwing_protocol::attachment::{CHUNK, Chunks, MAX_FILE};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

/// More memory than this, beyond what the process had before, is too much.
const BOUND_KIB: u64 = 16 << 10;

/// The most memory that this process ever had, in KiB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn equal(one: &Path, other: &Path) -> bool {
    let (mut one, mut other) = (File::open(one).unwrap(), File::open(other).unwrap());
    let (mut a, mut b) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let count = one.read(&mut a).unwrap();
        if count == 0 {
            return other.read(&mut b).unwrap() == 0;
        }
        other.read_exact(&mut b[..count]).unwrap();
        if a[..count] != b[..count] {
            return false;
        }
    }
}

#[test]
fn the_largest_file_takes_little_memory_on_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("film"), folder.path().join("fetched"));
    // Holes, which cost the test no disk; a few bytes that are none.
    let file = File::options().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
    file.set_len(MAX_FILE).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"the end", MAX_FILE - 7).unwrap();
    let before = peak();

    let prepared = Prepared::of(&path, true, &mut ChaCha20Rng::from_seed([1; 32]), &mut |_, _| {}).unwrap();
    let source = Source::open(&path, true).unwrap();
    let chunks = Chunks::new(&prepared.key, prepared.size).unwrap();
    let mut target = Target::create(&out, [1; 8]).unwrap();
    let mut sealed = Vec::new();
    for index in 0..chunks.count() {
        source.seal(&chunks, index, &mut sealed).unwrap();
        assert_eq!(sealed.len(), CHUNK);
        target.write(chunks.open(index, &mut sealed).unwrap()).unwrap();
    }
    target.finish().unwrap();

    let grown = peak() - before;
    assert!(grown < BOUND_KIB, "{grown} KiB for a file of {} KiB", MAX_FILE >> 10);
    assert!(equal(&path, &out));
}
