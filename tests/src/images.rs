//! Vaults of released formats, kept for ever: `tests/images`.
//!
//! A container is 8 MiB, most of it random bytes that nobody owns or sealed zeros. Kept are the parts that are in use;
//! the rest is filled with seeded random bytes when the image is wanted. To whoever opens it, it is the same vault.

use std::path::{Path, PathBuf};

use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use rand_core::RngCore;
use serde::{Deserialize, Serialize};

/// What is kept of an image, and what must be found in it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// Bytes of the vault.
    pub size: usize,
    /// Where the filling comes from.
    pub seed: u64,
    /// Offset and length of each part that is kept, in the order in which they follow each other in `kept.bin`.
    pub ranges: Vec<(usize, usize)>,
    /// What each passphrase opens.
    pub opens: Vec<Opens>,
}

/// What a passphrase opens.
#[derive(Debug, Serialize, Deserialize)]
pub struct Opens {
    /// The passphrase.
    pub passphrase: String,
    /// Whether opening with it destroys what it does not open.
    pub destroys: bool,
    /// Names of the compartments, sorted.
    pub compartments: Vec<String>,
    /// The chats.
    pub chats: Vec<Chat>,
}

/// A chat and what was said in it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Chat {
    /// Its compartment.
    pub compartment: String,
    /// Its name.
    pub name: String,
    /// Its messages in order: who wrote (as `read --json` tells it), and the text.
    pub messages: Vec<(String, String)>,
}

/// The folder of a format.
#[must_use]
pub fn folder(format: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("images").join(format)
}

/// The kept parts of a vault.
///
/// # Panics
/// A range lies outside.
#[must_use]
pub fn kept(vault: &[u8], ranges: &[(usize, usize)]) -> Vec<u8> {
    ranges.iter().flat_map(|(offset, length)| vault[*offset..offset + length].iter().copied()).collect()
}

/// Ranges in order, without overlaps.
#[must_use]
pub fn merged(mut ranges: Vec<(usize, usize)>) -> Vec<(usize, usize)> {
    ranges.sort_unstable();
    let mut out: Vec<(usize, usize)> = Vec::new();
    for (offset, length) in ranges {
        match out.last_mut() {
            Some(last) if last.0 + last.1 >= offset => last.1 = last.1.max(offset + length - last.0),
            _ => out.push((offset, length)),
        }
    }
    out
}

/// The manifest and the vault of a format.
///
/// # Panics
/// A file of it is missing or damaged.
#[must_use]
pub fn vault(format: &str) -> (Manifest, Vec<u8>) {
    let folder = folder(format);
    let manifest = std::fs::read(folder.join("manifest.json")).expect("a manifest");
    let manifest: Manifest = serde_json::from_slice(&manifest).expect("a manifest in JSON");
    let parts = std::fs::read(folder.join("kept.bin")).expect("the kept parts");
    let mut bytes = vec![0; manifest.size];
    ChaCha20Rng::seed_from_u64(manifest.seed).fill_bytes(&mut bytes);
    let mut rest = parts.as_slice();
    for (offset, length) in &manifest.ranges {
        let (part, behind) = rest.split_at(*length);
        bytes[*offset..offset + length].copy_from_slice(part);
        rest = behind;
    }
    assert!(rest.is_empty(), "parts that no range names");
    (manifest, bytes)
}
