//! A larger container takes the place of a smaller one.
//!
//! ```text
//! vault.growing    the copy that is being made
//! vault.outgrown   a second name of the old container, to be erased
//! ```
//!
//! Invariants: the file at the vault's own path counts, always; the other two are never opened (VLT-72). What is left of
//! them after a crash is known by its first block, which is the vault's own, and erased by the next command that unlocks
//! the vault. The copy has no name before that block is on the disk (VLT-74), and has one before there is anything else
//! in it: blocks without a name could not be erased by anybody. Besides that only a file of such a name is removed that is
//! no longer than the first block and holds nothing but zeros, or a sector of that block in its place. Whatever else has
//! such a name is somebody else's, and is never touched.
//!
//! Known gaps: where a file may have no second name, a crash between the change of places and the erasing
//! leaves the old container's bytes on the disk without a name. There, and where no file can be without a name, a power cut
//! before the copy's first block was synced may leave a file in which no sector of it is whole: at most one block, which
//! a person has to move away before the vault can grow.

use std::{
    ffi::OsString,
    fmt, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rand_core::CryptoRng;

use super::{
    Backend, FileBackend, Placement,
    file::{is_at, link_at},
    links::{Links, are_forbidden, is_late_name_forbidden},
    sync_folder_of,
};
use crate::{
    error::CreateError,
    geometry::SALT_BLOCK_LEN,
    session::{erase_all_but_salt, erase_header},
};

/// The files that take part when the container at a path is replaced.
pub struct Replacement {
    path: PathBuf,
    new: PathBuf,
    old: PathBuf,
    links: Links,
}

impl Replacement {
    /// Of the container at `path`.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        let beside = |ending: &str| {
            let mut name = OsString::from(path);
            name.push(ending);
            PathBuf::from(name)
        };
        Self {
            path: path.to_owned(),
            new: beside(".growing"),
            old: beside(".outgrown"),
            links: Links::AsTheSystemSays,
        }
    }

    /// As it is where a policy forbids second names.
    #[doc(hidden)]
    #[must_use]
    pub fn refusing_links(self) -> Self {
        Self { links: Links::Refused, ..self }
    }

    /// Creates the file of the copy, which gets its name when it is announced, or has it from the start where it could not
    /// get one later. Nothing of it stays when it is dropped before it is complete.
    ///
    /// # Errors
    ///
    /// [`CreateError::Exists`] if there is such a file, or one where the old container will lie,
    /// [`CreateError::NameTooLong`] if a name beside the container's is too long, else the system's error.
    pub fn create(&self) -> Result<FileBackend, CreateError> {
        // Known before the work is done, not after it.
        match fs::symlink_metadata(&self.old) {
            Ok(_) => return Err(CreateError::Exists),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        if self.can_be_named_later()? {
            FileBackend::create(&self.new)
        } else {
            FileBackend::create_with_a_name(&self.new)
        }
    }

    /// VLT-74: tries it with an empty file. What a kill leaves of that is known like a copy that was only begun.
    fn can_be_named_later(&self) -> Result<bool, CreateError> {
        let Some(empty) = FileBackend::nameless(&self.new)? else { return Ok(false) };
        // Like every file that gets a name: a power cut must not find anything else in it.
        empty.sync()?;
        let file = empty.second_handle()?;
        match self.links.make(|| link_at(&file, &self.new)) {
            Ok(()) => {
                if is_at(&file, &self.new)? {
                    fs::remove_file(&self.new)?;
                }
                Ok(true)
            }
            Err(error) if is_late_name_forbidden(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the copy lies beside the container still: it has not taken its place.
    #[must_use]
    pub fn has_copy(&self) -> bool {
        fs::symlink_metadata(&self.new).is_ok()
    }

    /// Lets the finished copy take the container's place, at once, and keeps the old one under its other name.
    ///
    /// # Errors
    ///
    /// The system's error; then the old container is in its place.
    pub fn put(&self) -> io::Result<()> {
        match self.links.make(|| fs::hard_link(&self.path, &self.old)) {
            Ok(()) => sync_folder_of(&self.path)?,
            // See the head of this file.
            Err(error) if are_forbidden(&error) => {}
            Err(error) => return Err(error),
        }
        fs::rename(&self.new, &self.path)?;
        sync_folder_of(&self.path)
    }

    /// Removes the old container's name, after it was erased.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub fn finish(&self) -> io::Result<()> {
        match fs::remove_file(&self.old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => sync_folder_of(&self.path),
        }
    }

    /// Removes what a crash left of an earlier replacement, and tells whether there was anything. Only with the lock of
    /// the container at the path, whose first block is `salt_block`.
    ///
    /// # Errors
    ///
    /// The system's error; the next call tries again.
    pub(crate) fn clear(
        &self,
        salt_block: &[u8; SALT_BLOCK_LEN],
        rng: &mut dyn CryptoRng,
    ) -> io::Result<bool> {
        let found = self.leftovers(salt_block)?;
        for Leftover { path, backend } in &found {
            if let Some(backend) = backend {
                erase_all_but_salt(backend, rng)?;
            }
            fs::remove_file(path)?;
        }
        if !found.is_empty() {
            sync_folder_of(&self.path)?;
        }
        Ok(!found.is_empty())
    }

    /// Makes what a crash left of an earlier replacement open for nobody, which takes two short writes; the rest is
    /// left to [`clear`](Self::clear). Only with the lock, like that.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub(crate) fn close(&self, salt_block: &[u8; SALT_BLOCK_LEN], rng: &mut dyn CryptoRng) -> io::Result<()> {
        let found = self.leftovers(salt_block)?;
        found.iter().filter_map(|found| found.backend.as_ref()).try_for_each(|file| erase_header(file, rng))
    }

    /// What is left of an earlier replacement. Which name leads to which file is on the disk when this returns.
    fn leftovers(&self, salt_block: &[u8; SALT_BLOCK_LEN]) -> io::Result<Vec<Leftover>> {
        let mut all = Vec::new();
        for path in [&self.new, &self.old] {
            let Ok(found) = fs::symlink_metadata(path) else { continue };
            if !found.is_file() {
                continue;
            }
            let vault = fs::symlink_metadata(&self.path)?;
            if (found.dev(), found.ino()) == (vault.dev(), vault.ino()) {
                all.push(Leftover { path: path.clone(), backend: None });
                continue;
            }
            let Ok(backend) = FileBackend::open(path) else { continue };
            match first_block(&backend, salt_block)? {
                First::Begun => all.push(Leftover { path: path.clone(), backend: None }),
                First::Ours => all.push(Leftover { path: path.clone(), backend: Some(backend) }),
                First::Foreign => {}
            }
        }
        // Of a container that got its name when the power failed, where it had another before.
        let other = Placement::other_name(&self.path);
        if let (Ok(found), Ok(vault)) = (fs::symlink_metadata(&other), fs::symlink_metadata(&self.path))
            && (found.dev(), found.ino()) == (vault.dev(), vault.ino())
        {
            all.push(Leftover { path: other, backend: None });
        }
        if !all.is_empty() {
            // A change of places that a power cut could still undo would bring back what is about to be erased.
            sync_folder_of(&self.path)?;
        }
        Ok(all)
    }
}

impl fmt::Debug for Replacement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Replacement(..)")
    }
}

/// A file of an earlier replacement; its backend if it is a container of its own.
struct Leftover {
    path: PathBuf,
    backend: Option<FileBackend>,
}

/// How a file begins.
enum First {
    /// As one that was made, and whose first block did not reach the disk whole. There is no more in it.
    Begun,
    /// With the container's salt block.
    Ours,
    Foreign,
}

/// What a disk writes whole or not at all. So many random bytes are in no other file's same place by chance.
const SECTOR: usize = 512;

fn first_block(backend: &FileBackend, salt_block: &[u8; SALT_BLOCK_LEN]) -> io::Result<First> {
    let mut block = [0; SALT_BLOCK_LEN];
    let len = backend.len()?;
    let within = usize::try_from(len).unwrap_or(SALT_BLOCK_LEN).min(SALT_BLOCK_LEN);
    backend.read_at(0, &mut block[..within])?;
    if block == *salt_block {
        return Ok(First::Ours);
    }
    // VLT-72: longer files had a whole first block before they became so long.
    let short = len <= SALT_BLOCK_LEN as u64;
    let mut sectors = block[..within].chunks_exact(SECTOR).zip(salt_block.chunks_exact(SECTOR));
    let begun = block.iter().all(|byte| *byte == 0) || sectors.any(|(found, ours)| found == ours);
    Ok(if short && begun { First::Begun } else { First::Foreign })
}
