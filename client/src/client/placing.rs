//! A vault that is put in its place when it is complete.

use std::path::Path;

use lapwing_vault::{CreateError, FileBackend, Placement};

use super::fault;
use crate::error::Error;

/// Makes something in a file that is at `path` afterwards, or not at all (BAK-04, VLT-74). `make` is called again where a
/// file that was filled without a name may not have one: then it is filled under one.
pub(super) fn placed<T>(path: &Path, make: impl FnMut(FileBackend) -> Result<T, Error>) -> Result<T, Error> {
    placed_in([Placement::of(path), Placement::with_a_name(path)], make)
}

fn placed_in<T>(
    [files, with_a_name]: [Placement; 2],
    mut make: impl FnMut(FileBackend) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut attempt = |files: &Placement| {
        let backend = files.create().map_err(fault::create)?;
        let made = make(backend).inspect_err(|_| files.discard())?;
        match files.put() {
            Ok(()) => Ok(Some(made)),
            // The room that the first file takes is free again before the second one asks for it.
            Err(CreateError::NoLateName) => Ok(None),
            Err(error) => {
                files.discard();
                Err(fault::create(error))
            }
        }
    };
    let made = attempt(&files)?;
    drop(files);
    match made {
        Some(made) => Ok(made),
        None => attempt(&with_a_name)?.ok_or_else(|| fault::create(CreateError::NoLateName)),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io, time::Duration};

    use lapwing_vault::{Container, ContainerSize, Cost, Passphrase};
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    const TINY: Cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };

    fn names(folder: &Path) -> Vec<String> {
        let entry = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        fs::read_dir(folder).unwrap().map(entry).collect()
    }

    #[test]
    fn vlt_74_where_second_names_are_forbidden_a_vault_is_filled_again_under_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vault");
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let ways = || [Placement::of(&path).refusing_links(), Placement::with_a_name(&path).refusing_links()];
        let mut filled = 0;
        let passphrase = Passphrase::new("real");
        let session = placed_in(ways(), |backend| {
            filled += 1;
            Container::create(backend, ContainerSize::MIN, &passphrase, TINY, &mut rng, &mut |_, _| {})
                .map_err(fault::create)
        })
        .unwrap();
        assert_eq!((filled, names(folder.path())), (2, vec!["vault".to_owned()]));
        // It is the file at the path that is held.
        let open = || Container::open(FileBackend::open(&path).unwrap()).unwrap();
        let mut other = ChaCha20Rng::seed_from_u64(2);
        assert!(open().unlock(&passphrase, TINY, &mut other, Duration::ZERO).is_err());
        drop(session);
        assert!(open().unlock(&passphrase, TINY, &mut other, Duration::ZERO).is_ok());
        // What fails under the name leaves nothing either, and nothing is replaced.
        fs::remove_file(&path).unwrap();
        let mut filled = 0;
        let failed = placed_in(ways(), |backend| {
            filled += 1;
            if filled == 2 { Err(Error::bug("the second time")) } else { Ok(backend) }
        });
        assert!(failed.is_err());
        assert_eq!((filled, names(folder.path())), (2, Vec::new()));
    }
}
