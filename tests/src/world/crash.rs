//! Records in memory that crash at a chosen commit, or behave as a full or failing disk does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lapwing::store::{Base, BodyKeyName, Changes, MemoryBase, StoreError, Visitor};
use zeroize::Zeroizing;

/// When the process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crash {
    /// At which commit, counted from 1.
    pub at: u64,
    /// Whether that commit is still on the disk afterwards.
    pub kept: bool,
}

#[derive(Default)]
struct State {
    commits: u64,
    visits: u64,
    crash: Option<Crash>,
    is_dead: bool,
    is_full: bool,
    /// Keys that can still be made.
    key_room: Option<usize>,
}

/// A process's view of records that outlive it.
pub struct CrashBase {
    disk: Arc<MemoryBase>,
    state: Mutex<State>,
}

impl CrashBase {
    /// Over what is on the disk.
    #[must_use]
    pub fn over(disk: Arc<MemoryBase>) -> Self {
        Self { disk, state: Mutex::default() }
    }

    /// What outlives the process.
    #[must_use]
    pub fn disk(&self) -> Arc<MemoryBase> {
        Arc::clone(&self.disk)
    }

    /// Dies there.
    pub fn crash_at(&self, crash: Crash) {
        self.state().crash = Some(crash);
    }

    /// Every commit fails for want of room from now on, or works again.
    pub fn set_full(&self, is_full: bool) {
        self.state().is_full = is_full;
    }

    /// So many more keys for bodies can be made.
    pub fn set_key_room(&self, keys: usize) {
        self.state().key_room = Some(keys);
    }

    /// Whether the process has died: from then on everything fails.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.state().is_dead
    }

    /// Commits so far.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.state().commits
    }

    /// How often several records were looked through so far.
    #[must_use]
    pub fn visits(&self) -> u64 {
        self.state().visits
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alive(&self) -> Result<&MemoryBase, StoreError> {
        if self.is_dead() { Err(dead()) } else { Ok(&self.disk) }
    }
}

fn dead() -> StoreError {
    StoreError::Vault("the process has died".to_owned())
}

impl Base for CrashBase {
    fn get(&self, key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        self.alive()?.get(key)
    }

    fn visit(
        &self,
        from: &[u8],
        to: &[u8],
        backwards: bool,
        see: &mut Visitor<'_>,
    ) -> Result<(), StoreError> {
        self.state().visits += 1;
        self.alive()?.visit(from, to, backwards, see)
    }

    fn body_key(&self, name: &BodyKeyName) -> Result<Option<Zeroizing<[u8; 32]>>, StoreError> {
        self.alive()?.body_key(name)
    }

    fn make_body_key(&self, name: &BodyKeyName) -> Result<Zeroizing<[u8; 32]>, StoreError> {
        let disk = self.alive()?;
        let mut state = self.state();
        if disk.body_key(name)?.is_none() {
            match &mut state.key_room {
                Some(0) => return Err(StoreError::Full),
                Some(room) => *room -= 1,
                None => {}
            }
        }
        disk.make_body_key(name)
    }

    fn destroy_body_keys(&self, names: &[BodyKeyName]) -> Result<(), StoreError> {
        self.alive()?.destroy_body_keys(names)
    }

    fn commit(&self, changes: Changes) -> Result<(), StoreError> {
        let mut state = self.state();
        if state.is_dead {
            return Err(dead());
        }
        if state.is_full {
            return Err(StoreError::Full);
        }
        state.commits += 1;
        let crash = state.crash.filter(|crash| crash.at == state.commits);
        if crash.is_some() {
            state.is_dead = true;
        }
        if crash.is_none_or(|crash| crash.kept) {
            self.disk.commit(changes)?;
        }
        if crash.is_some() { Err(dead()) } else { Ok(()) }
    }
}
