//! Root in a folder of somebody else: what it makes there must be readable for whom the folder belongs to.
//!
//! The process acts as that user, so the system itself gives every file its owner, those of the store's engine too, at once and also
//! if it is killed; and a folder that somebody else can change leads root nowhere. What it has to read or write elsewhere it opens
//! before.

use std::os::unix::fs::MetadataExt;

use nix::unistd::{Gid, Uid, setegid, seteuid};

use super::{Place, PlaceError};

/// As long as it lives, the process acts as the owner of the relay's folder. Then as root again.
#[derive(Debug)]
#[must_use]
pub struct AsOwner(());

impl Place {
    /// Acts as the owner of the folder, if this is root and the folder is there and somebody else's; otherwise `None`.
    ///
    /// The whole process changes: nobody else may be working in it for root.
    ///
    /// # Errors
    /// [`PlaceError::Owner`] where root may not become others.
    pub fn act_as_owner(&self) -> Result<Option<AsOwner>, PlaceError> {
        let Ok(found) = self.dir().metadata() else { return Ok(None) };
        if !Uid::effective().is_root() || found.uid() == 0 {
            return Ok(None);
        }
        let (user, group) = (Uid::from_raw(found.uid()), Gid::from_raw(found.gid()));
        let refused = |_| PlaceError::Owner(self.dir().to_path_buf());
        #[cfg(target_os = "linux")]
        nix::unistd::setgroups(&[group]).map_err(refused)?;
        setegid(group).map_err(refused)?;
        // Ends it as well if only half of it is done.
        let acting = AsOwner(());
        seteuid(user).map_err(refused)?;
        Ok(Some(acting))
    }
}

impl Drop for AsOwner {
    fn drop(&mut self) {
        // The kernel keeps the saved ids for this. What fails leaves less rights, not more.
        let root = seteuid(Uid::from_raw(0)).and_then(|()| setegid(Gid::from_raw(0)));
        debug_assert!(root.is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What changes the whole process is tried on processes of their own (`tests/relay/owner.rs`).
    #[test]
    fn in_a_folder_of_its_own_and_where_there_is_none_nobody_changes() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path().to_path_buf(), dir.path().join("absent")] {
            assert!(Place::new(Some(path)).act_as_owner().unwrap().is_none());
        }
    }
}
