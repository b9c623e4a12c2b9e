//! Five hundred unlocks each with the real passphrase, one that hides and one that destroys: what the disk sees is the
//! same, and so is the work, counted.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod world;

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use lapwing_vault::{
    testing::{Call, Work, take_work},
    *,
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use world::*;

const ROUNDS: u64 = 500;

/// Calls in their order, and what was written, by offset.
type Seen = (Vec<String>, BTreeMap<u64, Vec<u8>>);

/// A container as it was made, whatever was written to copies of it before. Keeps the calls, and what was written.
#[derive(Clone)]
struct Fresh {
    made: Arc<Vec<u8>>,
    seen: Arc<Mutex<Seen>>,
}

impl Fresh {
    fn copy(made: &Arc<Vec<u8>>) -> Self {
        Self { made: Arc::clone(made), seen: Arc::default() }
    }

    fn calls(&self) -> Vec<String> {
        self.seen.lock().unwrap().0.clone()
    }
}

impl Backend for Fresh {
    fn len(&self) -> io::Result<u64> {
        Ok(self.made.len() as u64)
    }

    fn reserve(&self, _: u64) -> io::Result<()> {
        panic!("nothing is made here")
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (calls, written) = &mut *self.seen.lock().unwrap();
        calls.push(format!("{:?}", Call::Read { offset, len: out.len() }));
        match written.get(&offset) {
            Some(bytes) => out.copy_from_slice(bytes),
            None => {
                assert!(written.iter().all(|(at, bytes)| {
                    offset >= at + bytes.len() as u64 || offset + out.len() as u64 <= *at
                }));
                out.copy_from_slice(&self.made[usize::try_from(offset).unwrap()..][..out.len()]);
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let (calls, written) = &mut *self.seen.lock().unwrap();
        calls.push(format!("{:?}", Call::Write { offset, bytes: bytes.to_vec() }));
        written.insert(offset, bytes.to_vec());
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.seen.lock().unwrap().0.push("sync".to_owned());
        Ok(())
    }

    fn finish_creation(&self) -> io::Result<()> {
        panic!("nothing is made here")
    }

    fn lock(&self, _: Duration) -> io::Result<bool> {
        self.seen.lock().unwrap().0.push("lock".to_owned());
        Ok(true)
    }

    fn unlock(&self) {}

    fn lock_requested(&self) -> io::Result<bool> {
        Ok(false)
    }
}

/// An owner with two compartments and two covers, and with none of that an ordinary vault, to be opened again and again.
fn made(seed: u64, plans: bool) -> Arc<Vec<u8>> {
    let mut world = World::new(seed);
    let mut session = world.create("real");
    if plans {
        let family = session.volumes()[0];
        let private = session.create_volume(family, b"private", &mut world.rng).unwrap();
        for (name, others) in [("hide", Others::Keep), ("destroy", Others::Refresh)] {
            let spec = Spec {
                volumes: &[family],
                others,
                spare: &[],
                application: b"relays",
                label: name.as_bytes(),
                home: private,
            };
            session.add_passphrase(&Passphrase::new(name), &spec, &mut world.rng).unwrap();
        }
    }
    drop(session);
    Arc::new(world.backend.image())
}

/// Calls and work of one unlock.
fn seen(made: &Arc<Vec<u8>>, passphrase: &str, seed: u64) -> (bool, Vec<String>, Work) {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let disk = Fresh::copy(made);
    let _ = take_work();
    let session = unlock(disk.clone(), passphrase, &mut rng);
    let work = take_work();
    (session.is_ok(), disk.calls(), work)
}

/// What the owner's unlock opens beyond a cover's: both copies of the records of the second volume, and the payloads that they
/// name, in memory, after all reads. A few microseconds.
const MORE_OPENINGS: u64 = 4;

/// VLT-13, VLT-11: the same calls for all, in kind, size, offset and order. The same derivations, sealings and outer
/// layers for all; the same openings for both kinds of covers and for an ordinary vault.
#[test]
fn vlt_13_five_hundred_unlocks_of_each_kind_make_the_same_calls_and_do_the_same_work() {
    let (owned, plain) = (made(50, true), made(51, false));
    let first = seen(&plain, "real", 0);
    let (_, calls, ordinary) = &first;
    let of = |kind: &str| calls.iter().filter(|call| call.starts_with(kind)).count();
    assert_eq!((of("write 69632 at"), of("write"), of("sync"), of("lock")), (2, 2, 3, 1));
    assert_eq!(ordinary.derivations, 1);
    let real = seen(&owned, "real", 0).2;
    assert_eq!(real.openings, ordinary.openings + MORE_OPENINGS);
    for round in 0..ROUNDS {
        for (made, passphrase) in [(&owned, "hide"), (&owned, "destroy"), (&plain, "real")] {
            assert!(seen(made, passphrase, round) == first, "{passphrase}, round {round}");
        }
        let (opened, did, work) = seen(&owned, "real", round);
        assert!(opened && did == *calls && work == real, "the owner's, round {round}");
    }
    let (openings, opened_bytes) = (ordinary.openings, ordinary.opened_bytes);
    assert_eq!(Work { openings, opened_bytes, ..real }, *ordinary, "all but openings");
}

/// VLT-12: a wrong passphrase, also one of a slot that was destroyed: one derivation, no write, no lock.
#[test]
fn vlt_12_five_hundred_wrong_passphrases_write_nothing_and_do_the_same_work() {
    let owned = made(52, true);
    let destroyed = {
        let backend = MemoryBackend::with_image(owned.to_vec());
        drop(unlock(backend.another_handle(), "destroy", &mut ChaCha20Rng::seed_from_u64(1)).unwrap());
        Arc::new(backend.image())
    };
    let (_, calls, work) = seen(&owned, "wrong", 0);
    assert_eq!(calls, ["read 4096 at 0", "read 69632 at 4096", "read 69632 at 73728"]);
    assert_eq!((work.derivations, work.sealings), (1, 0));
    for round in 0..ROUNDS {
        let typo = format!("rea{round}");
        let of_destroyed = if round % 2 == 0 { "real" } else { "hide" };
        for (made, passphrase) in [(&owned, typo.as_str()), (&destroyed, of_destroyed)] {
            assert_eq!(seen(made, passphrase, round), (false, calls.clone(), work), "{passphrase}");
        }
    }
}
