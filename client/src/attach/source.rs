//! A file to be sent: looked at, read in parts, sealed.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use lapwing_protocol::attachment::{AttachmentKey, Chunks, MAX_FILE, MAX_PLAIN};
use lapwing_wire::ids::{BlobHash, BlobHasher};
use rand_core::CryptoRng;

use super::{
    kind::Kind,
    layout::{Layout, Opened},
    picture,
};

/// Why a file is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// Nothing lies at the path.
    #[error("there is no file at this path")]
    Missing,
    /// A folder, a device, a pipe.
    #[error("that is not a file")]
    NotAFile,
    /// The system does not let us.
    #[error("you may not read this file")]
    Denied,
    /// The disk fails.
    #[error("the file cannot be read")]
    Unreadable,
    /// More than a blob holds.
    #[error("the file is larger than 99.9 MiB")]
    TooLarge,
    /// ATT-06: what it says beside its content stays in it.
    #[error("a {0} may say who made it, where, when and with what, and that cannot be taken out here")]
    KeepsMetadata(&'static str),
    /// ATT-06: a picture that cannot be read to its end.
    #[error("this {0} is damaged or of an unusual kind: what it says beside the picture cannot be taken out")]
    DamagedPicture(&'static str),
    /// Not the bytes that were looked at first.
    #[error("the file was changed since it was sent off")]
    Changed,
}

impl From<io::Error> for SourceError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            io::ErrorKind::PermissionDenied => Self::Denied,
            // It became shorter.
            io::ErrorKind::UnexpectedEof => Self::Changed,
            _ => Self::Unreadable,
        }
    }
}

/// An open file, and what of it is sent.
pub struct Source {
    opened: Opened,
    layout: Layout,
    kind: Kind,
}

impl Source {
    /// ATT-06: opens a file. With `whole` it is sent as it is; without, a picture loses what it says beside the picture, and
    /// a file of which nothing can be taken is refused.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn open(path: &Path, whole: bool) -> Result<Self, SourceError> {
        // Before it is opened: opening a pipe waits for who writes to it.
        if !fs::metadata(path)?.is_file() {
            return Err(SourceError::NotAFile);
        }
        let file = File::open(path)?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(SourceError::NotAFile);
        }
        let opened = Opened { file, size: found.len() };
        // What is taken out of a picture is little: the rest would not fit either.
        if opened.size > 2 * MAX_FILE || (whole && opened.size > MAX_FILE) {
            return Err(SourceError::TooLarge);
        }
        let kind = Kind::of(&opened)?;
        let layout = match kind {
            Kind::Text => Layout::whole(opened.size),
            _ if whole => Layout::whole(opened.size),
            Kind::Other(words, _) => return Err(SourceError::KeepsMetadata(words)),
            Kind::Jpeg | Kind::Png | Kind::WebP => {
                picture::strip(kind, &opened)?.ok_or(SourceError::DamagedPicture(kind.words()))?
            }
        };
        if layout.size() > MAX_FILE {
            return Err(SourceError::TooLarge);
        }
        Ok(Self { opened, layout, kind })
    }

    /// Bytes that are sent.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.layout.size()
    }

    /// Bytes of the file that are not sent.
    #[must_use]
    pub const fn left_out(&self) -> u64 {
        self.opened.size.saturating_sub(self.layout.size())
    }

    /// What it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Seals one chunk of what is sent into `out`.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn seal(&self, chunks: &Chunks, index: u32, out: &mut Vec<u8>) -> Result<(), SourceError> {
        let (start, length) = chunks.span(index).ok_or(SourceError::Changed)?;
        let mut plain = vec![0; length.min(MAX_PLAIN)];
        self.layout.fill(&self.opened, start, &mut plain)?;
        chunks.seal(index, &plain, out).map_err(|_| SourceError::Changed)
    }

    /// The name of the blob that it becomes: reads and seals all of it once.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn hash(&self, chunks: &Chunks, each: &mut dyn FnMut(u64)) -> Result<BlobHash, SourceError> {
        if chunks.size() != self.size() {
            return Err(SourceError::Changed);
        }
        let mut hasher = BlobHasher::new(chunks.total());
        let mut sealed = Vec::new();
        for index in 0..chunks.count() {
            self.seal(chunks, index, &mut sealed)?;
            hasher.update(&sealed);
            each(u64::from(index) + 1);
        }
        Ok(hasher.finish())
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { opened: _, layout: _, kind: _ } = self;
        f.write_str("Source(..)")
    }
}

/// A file that was looked at and can be sent.
pub struct Prepared {
    /// Where it lies, from the root.
    pub path: PathBuf,
    /// It is sent as it is.
    pub whole: bool,
    /// Fresh for this sending.
    pub key: AttachmentKey,
    /// The blob that it becomes.
    pub hash: BlobHash,
    /// Bytes that are sent.
    pub size: u64,
    /// Bytes of the file that are not sent.
    pub left_out: u64,
    /// What it is.
    pub kind: Kind,
}

impl Prepared {
    /// Looks at a file and seals it once under a new key. `each` is told the chunks that are done, and how many there are.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn of(
        path: &Path,
        whole: bool,
        rng: &mut (impl CryptoRng + ?Sized),
        each: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, SourceError> {
        let source = Source::open(path, whole)?;
        let key = AttachmentKey::generate(rng);
        let chunks = Chunks::new(&key, source.size()).ok_or(SourceError::TooLarge)?;
        let count = u64::from(chunks.count());
        let hash = source.hash(&chunks, &mut |done| each(done, count))?;
        Ok(Self {
            path: std::path::absolute(path)?,
            whole,
            key,
            hash,
            size: source.size(),
            left_out: source.left_out(),
            kind: source.kind(),
        })
    }

    /// What the file is called where it lies.
    #[must_use]
    pub fn own_name(&self) -> &OsStr {
        self.path.file_name().unwrap_or_default()
    }
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { path: _, whole: _, key: _, hash: _, size: _, left_out: _, kind: _ } = self;
        f.write_str("Prepared(..)")
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    use super::*;

    fn prepare(path: &Path, whole: bool) -> Result<Prepared, SourceError> {
        Prepared::of(path, whole, &mut ChaCha20Rng::from_seed([1; 32]), &mut |_, _| {})
    }

    fn put(path: &Path, bytes: &[u8]) {
        use std::io::Write as _;
        File::options().create(true).truncate(true).write(true).open(path).unwrap().write_all(bytes).unwrap();
    }

    #[test]
    fn att_06_what_cannot_be_stripped_is_refused_unless_it_is_wanted_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        put(&path, b"%PDF-1.7 /Author (ann)");
        assert_eq!(prepare(&path, false).unwrap_err(), SourceError::KeepsMetadata("PDF document"));
        assert_eq!(prepare(&path, true).unwrap().size, 22);
        put(&path, b"\xff\xd8\xff\xe1 cut");
        assert_eq!(prepare(&path, false).unwrap_err(), SourceError::DamagedPicture("JPEG picture"));
        assert!(prepare(&path, true).is_ok());
        put(&path, b"at the ford");
        assert_eq!(prepare(&path, false).unwrap().size, 11);
    }

    #[test]
    fn what_is_no_file_is_told_by_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(prepare(&folder.path().join("none"), true).unwrap_err(), SourceError::Missing);
        assert_eq!(prepare(folder.path(), true).unwrap_err(), SourceError::NotAFile);
        assert_eq!(prepare(Path::new("/dev/zero"), true).unwrap_err(), SourceError::NotAFile);
        let large = folder.path().join("large");
        let file = File::options().create(true).truncate(true).write(true).open(&large).unwrap();
        file.set_len(MAX_FILE + 1).unwrap();
        assert_eq!(prepare(&large, true).unwrap_err(), SourceError::TooLarge);
        file.set_len(u64::from(u32::MAX)).unwrap();
        assert_eq!(prepare(&large, false).unwrap_err(), SourceError::TooLarge);
    }

    #[test]
    fn att_04_a_file_that_changed_becomes_another_blob() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        put(&path, b"at the ford");
        let prepared = prepare(&path, false).unwrap();
        let chunks = Chunks::new(&prepared.key, prepared.size).unwrap();
        let again = || Source::open(&path, false)?.hash(&chunks, &mut |_| {});
        assert_eq!(again(), Ok(prepared.hash));
        put(&path, b"at the mill");
        assert!(again().is_ok_and(|hash| hash != prepared.hash));
        put(&path, b"at");
        assert_eq!(again(), Err(SourceError::Changed));
    }

    #[test]
    fn debug_shows_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        put(&path, b"x");
        assert_eq!(format!("{:?}", prepare(&path, false).unwrap()), "Prepared(..)");
        assert_eq!(format!("{:?}", Source::open(&path, false).unwrap()), "Source(..)");
    }
}
