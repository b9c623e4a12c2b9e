//! A file that is at its path when all of it is on the disk, and not before.
//!
//! Invariants: whatever is at the path is never replaced; what is not finished is never at the path. On Linux the file has
//! no name until it gets its own, so a kill leaves nothing. Where the file system cannot do that (FAT, network disks), or
//! a policy of the system forbids it, or elsewhere, it is written under another name, with `.writing` behind it, which a
//! kill leaves; such a file is never taken for ours: it may be somebody's.
//!
//! Known gaps: where there are neither nameless files nor second names, a crash in the change of names can leave an empty
//! file at the path.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Seek},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use lapwing_vault::sync_folder_of;

/// The file. Dropped before it is finished, nothing of it stays.
pub(super) struct NewFile {
    path: PathBuf,
    file: File,
    /// Its other name, where it has one.
    partial: Option<Partial>,
}

/// A name that is removed when this is dropped.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        // Only what this process made: `create_new` refuses an existing path.
        let _ = fs::remove_file(&self.0);
    }
}

impl NewFile {
    /// Begins a file with mode 0600.
    ///
    /// # Errors
    /// `AlreadyExists` if there is anything at the path, or at the other name where one is needed; else the system's.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        if path.symlink_metadata().is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        match nameless(path) {
            Some(file) => Ok(Self { path: path.to_owned(), file, partial: None }),
            None => Self::create_named(path),
        }
    }

    fn create_named(path: &Path) -> io::Result<Self> {
        let mut other = OsString::from(path);
        other.push(".writing");
        let other = PathBuf::from(other);
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&other)?;
        Ok(Self { path: path.to_owned(), file, partial: Some(Partial(other)) })
    }

    /// Where to write.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// All is written: made durable, then given its name, durably. Answers its length.
    ///
    /// # Errors
    /// `AlreadyExists` if something came to the path meanwhile, else the system's error. Nothing is left then.
    pub(super) fn finish(self) -> io::Result<u64> {
        self.finish_by(give_name)
    }

    fn finish_by(self, give_name: impl FnOnce(&File, &Path) -> io::Result<()>) -> io::Result<u64> {
        let Self { path, file, partial } = self;
        file.sync_all()?;
        let length = file.metadata()?.len();
        match &partial {
            None => match give_name(&file, &path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Self::copied(&file, &path);
                }
                named => named?,
            },
            Some(Partial(other)) => match fs::hard_link(other, &path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => replace_nothing(other, &path)?,
                linked => linked?,
            },
        }
        drop(partial);
        sync_folder_of(&path)?;
        Ok(length)
    }

    /// Where a policy of the system gives no name to a file that had none: all of it once more, under another name.
    fn copied(mut file: &File, path: &Path) -> io::Result<u64> {
        let named = Self::create_named(path)?;
        file.rewind()?;
        io::copy(&mut file, &mut named.file())?;
        named.finish()
    }
}

/// Renaming replaces what is there: so it has to be an empty file that this call made.
fn replace_nothing(other: &Path, path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    fs::rename(other, path).inspect_err(|_| {
        let _ = fs::remove_file(path);
    })
}

/// A file without a name in the folder of `path`; `None` where there is no such thing, or no way to name it later.
#[cfg(target_os = "linux")]
fn nameless(path: &Path) -> Option<File> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = nix::libc::O_TMPFILE | nix::libc::O_CLOEXEC;
    let file = OpenOptions::new().read(true).write(true).mode(0o600).custom_flags(flags).open(folder).ok()?;
    own_path(&file).symlink_metadata().is_ok().then_some(file)
}

#[cfg(not(target_os = "linux"))]
fn nameless(_path: &Path) -> Option<File> {
    None
}

/// Gives a nameless file its name. Never replaces what is there.
#[cfg(target_os = "linux")]
fn give_name(file: &File, path: &Path) -> io::Result<()> {
    use nix::{
        fcntl::{AT_FDCWD, AtFlags},
        unistd::linkat,
    };
    Ok(linkat(AT_FDCWD, &own_path(file), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW)?)
}

#[cfg(not(target_os = "linux"))]
fn give_name(_file: &File, _path: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The kernel's link to an open file.
#[cfg(target_os = "linux")]
fn own_path(file: &File) -> PathBuf {
    use std::os::fd::AsRawFd;
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files as somebody else left them")]
mod tests {
    use std::io::Write;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entry = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        fs::read_dir(folder).unwrap().map(entry).collect()
    }

    fn both(path: &Path) -> [NewFile; 2] {
        let named = NewFile::create_named(path).unwrap();
        [NewFile::create(path).unwrap(), named]
    }

    #[test]
    fn bak_04_a_file_has_its_name_when_it_is_whole_and_leaves_nothing_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        for (number, new) in both(&folder.path().join("kept")).into_iter().enumerate() {
            let path = new.path.clone();
            new.file().write_all(b"half").unwrap();
            assert!(!path.exists());
            if number == 0 {
                drop(new);
                continue;
            }
            assert_eq!(new.finish().unwrap(), 4);
            assert_eq!(fs::read(&path).unwrap(), b"half");
        }
        assert_eq!(names(folder.path()), ["kept"]);
        fs::remove_file(folder.path().join("kept")).unwrap();
        drop(both(&folder.path().join("kept")));
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }

    #[test]
    fn bak_04_what_came_to_the_path_meanwhile_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kept");
        for new in both(&path) {
            new.file().write_all(b"mine").unwrap();
            fs::write(&path, "somebody else's").unwrap();
            assert_eq!(new.finish().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(fs::read(&path).unwrap(), b"somebody else's");
        }
        assert_eq!(names(folder.path()), ["kept"]);
        assert_eq!(NewFile::create(&path).err().unwrap().kind(), io::ErrorKind::AlreadyExists);
        fs::remove_file(&path).unwrap();
        fs::write(folder.path().join("kept.writing"), "a letter").unwrap();
        assert_eq!(NewFile::create_named(&path).err().unwrap().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(folder.path().join("kept.writing")).unwrap(), b"a letter");
    }

    #[test]
    fn bak_04_where_a_file_may_not_be_named_late_it_is_written_once_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kept");
        let refuse = |_: &File, _: &Path| Err(io::ErrorKind::PermissionDenied.into());
        let new = NewFile::create(&path).unwrap();
        new.file().write_all(b"all of it").unwrap();
        assert_eq!(new.finish_by(refuse).unwrap(), 9);
        assert_eq!(fs::read(&path).unwrap(), b"all of it");
        assert_eq!(names(folder.path()), ["kept"]);
        let new = NewFile::create(&folder.path().join("other")).unwrap();
        fs::write(folder.path().join("other"), "a letter").unwrap();
        assert_eq!(new.finish_by(refuse).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(folder.path().join("other")).unwrap(), b"a letter");
        assert_eq!(names(folder.path()).len(), 2);
    }

    #[test]
    fn bak_04_without_second_names_it_takes_the_place_of_nothing_but_its_own_file() {
        let folder = tempfile::tempdir().unwrap();
        let (other, path) = (folder.path().join("kept.writing"), folder.path().join("kept"));
        fs::write(&other, "all of it").unwrap();
        replace_nothing(&other, &path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"all of it");
        fs::write(&other, "another").unwrap();
        assert_eq!(replace_nothing(&other, &path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"all of it");
    }
}
