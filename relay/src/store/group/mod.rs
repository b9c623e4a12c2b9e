//! A store on disk: group commit over any engine.
//!
//! The queue is drained without any artificial wait into one commit, bounded by count and bytes; nobody is answered
//! before it is durable (measured; `docs/performance.md`). While one group is on its way to the disk the next is staged
//! and sealed by a second thread (`queue`, `writer`).
//!
//! A full disk is not the end: what waits is refused with [`StoreError::Full`], reading goes on, and the writer looks
//! from time to time whether there is room again; then it opens the engine anew, because an engine that failed in
//! the middle of a commit takes no other.

mod due;
mod pending;
mod queue;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use lapwing_wire::{
    capability::{Access, PublicKey},
    frame::{BlobPart, Window},
    ids::{BlobHash, MailboxId},
    time::Timestamp,
};
use tokio::sync::oneshot;

use super::{
    Change, Health, KeptStore, Mailbox, MailboxStore, Outcome, Pressure, StoreError, Ticket, Totals,
    WindowQuery,
    engine::{Engine, StoreOptions, create_folder, folder_bytes, free_bytes},
    export::{self, TakeRow},
    keys::KeyFile,
    reads,
    sealing::{Opened, forget_unused, still_due},
};
use due::Due;
use pending::{Pending, Shown};
use queue::{Job, Pace, Queue};
use writer::{Desk, Writer};

/// How often, and after which time, a store that is locked is opened again.
const TRIES: usize = 10;
const MOMENT: Duration = Duration::from_millis(20);

/// Times `forget_after` (9 s): how long it is remembered what part of the keys the disk could not read, about ten minutes. Who wants it
/// meanwhile hears so at once, and the disk is not held up by it.
const REMEMBERED: u32 = 64;

#[cfg(not(test))]
const PACE: Pace = Pace::MEASURED;
#[cfg(test)]
const PACE: Pace = Pace::EAGER;

/// A store on disk.
pub struct GroupCommit<E> {
    path: PathBuf,
    keys: Arc<KeyFile>,
    engine: Arc<RwLock<Option<E>>>,
    queue: Arc<Queue>,
    pending: Arc<Pending>,
    writers: Mutex<Vec<JoinHandle<()>>>,
    shared: Arc<Shared>,
}

struct Shared {
    started: Instant,
    reserve: AtomicU64,
    /// Bytes that the engine needed when the room was last looked at.
    needs: AtomicU64,
    pressure: Mutex<Pressure>,
    has_failed: AtomicBool,
    is_full: AtomicBool,
    slow_commits: AtomicU64,
    /// Milliseconds of the slowest commit.
    slowest: AtomicU64,
    /// When the disk was given what it works on now, in milliseconds after `started` and one; 0 while it has nothing to do.
    begun: AtomicU64,
    /// The same of an engine that is given what is durable, to show it. The disk may have something else to do meanwhile, but not for
    /// long: the third group waits.
    settling: AtomicU64,
    /// Those who read what is being deleted meanwhile.
    readings: AtomicUsize,
    /// Groups that were staged on one that was not durable.
    overlaps: AtomicU64,
    /// Groups under which another failed while they were staged or waited for the disk; they were done again.
    redone: AtomicU64,
}

/// As long as it lives, everybody waits for the disk. There is one at a time: the writer's that may commit.
struct OnDisk<'a> {
    shared: &'a Shared,
    since: Instant,
}

impl Drop for OnDisk<'_> {
    fn drop(&mut self) {
        self.shared.begun.store(0, Ordering::Release);
    }
}

/// As long as it lives, a group is being settled. There is one at a time.
struct Settling<'a>(&'a AtomicU64);

impl Drop for Settling<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Release);
    }
}

/// As long as it lives, no keys are forgotten.
struct Reading<'a>(&'a AtomicUsize);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Opens what this process may have closed a moment ago: threads of an engine hold its lock a little longer than it lives.
fn unlocked<E>(open: impl Fn() -> Result<E, StoreError>) -> Result<E, StoreError> {
    for _ in 0..TRIES {
        match open() {
            Err(StoreError::Locked) => std::thread::sleep(MOMENT),
            done => return done,
        }
    }
    open()
}

#[expect(
    private_bounds,
    reason = "the engines are this crate's; outside, the stores have names of their own"
)]
impl<E: Engine> GroupCommit<E> {
    /// Opens the store, or creates it. Replays what the last process had not flushed.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::Version`], [`StoreError::Engine`], [`StoreError::Full`],
    /// [`StoreError::Disk`], [`StoreError::Damaged`].
    pub fn open(options: &StoreOptions) -> Result<Self, StoreError> {
        create_folder(&options.path)?;
        let opened = unlocked(|| E::open(&options.path, options.memory / 2))?;
        let remembered = options.forget_after.saturating_mul(REMEMBERED);
        // After the engine, whose lock keeps other processes away.
        let keys = Arc::new(KeyFile::open(&options.path)?.remembering(remembered));
        let due = still_due(&opened.direct())?;
        forget_unused(&opened.direct(), &keys)?;
        let opened_needs = opened.needs();
        let engine = Arc::new(RwLock::new(Some(opened)));
        let shared = Arc::new(Shared::new(options.reserve));
        shared.look_for_room(&options.path, opened_needs);
        let forget_at = (!due.is_empty()).then(now);
        let queue = Arc::new(Queue::new(E::WRITERS, forget_at, PACE));
        let pending = Arc::new(Pending::default());
        let writer = Arc::new(Writer {
            engine: Arc::clone(&engine),
            pending: Arc::clone(&pending),
            keys: Arc::clone(&keys),
            queue: Arc::clone(&queue),
            desk: Mutex::new(Desk::new(options.memory)),
            due: Mutex::new(Due::of(due)),
            forget_after: options.forget_after,
            path: options.path.clone(),
            cache: options.memory / 2,
            extra_flush: options.extra_flush,
            shared: Arc::clone(&shared),
        });
        let store = Self {
            path: options.path.clone(),
            keys,
            engine,
            queue,
            pending,
            writers: Mutex::default(),
            shared,
        };
        for _ in 0..E::WRITERS {
            let writer = Arc::clone(&writer);
            let thread = std::thread::Builder::new()
                .name("store-writer".into())
                .spawn(move || writer.run())
                .map_err(|_| StoreError::Disk)?;
            store.writers().push(thread);
        }
        Ok(store)
    }

    async fn query<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Opened<Shown<E::View>>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        if self.queue.is_closed() {
            return Err(StoreError::Closed);
        }
        let (engine, keys) = (Arc::clone(&self.engine), Arc::clone(&self.keys));
        let pending = Arc::clone(&self.pending);
        let answer = tokio::task::spawn_blocking(move || {
            // Held while it reads: an engine is closed only when nobody looks at it.
            let engine = engine.read().unwrap_or_else(PoisonError::into_inner);
            read(&Opened::new(pending.view(engine.as_ref().ok_or(StoreError::Full)?), keys))
        });
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Groups that were staged on one that was not durable.
    #[cfg(test)]
    pub(super) fn overlaps(&self) -> u64 {
        self.shared.overlaps.load(Ordering::Relaxed)
    }

    /// Whether the engine shows everything that was answered.
    #[cfg(test)]
    pub(super) fn is_settled(&self) -> bool {
        self.pending.is_empty()
    }

    /// Groups under which another failed while they were staged or waited for the disk; they were done again.
    #[cfg(test)]
    pub(super) fn redone(&self) -> u64 {
        self.shared.redone.load(Ordering::Relaxed)
    }

    fn writers(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.writers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writers finish what was begun.
impl<E> Drop for GroupCommit<E> {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl<E: Engine> KeptStore for GroupCommit<E> {
    fn set_reserve(&self, reserve: u64) {
        self.shared.reserve.store(reserve, Ordering::Relaxed);
        self.shared.look_for_room(&self.path, self.shared.needs.load(Ordering::Relaxed));
    }

    fn health(&self) -> Health {
        let Shared {
            started: _,
            reserve: _,
            needs: _,
            pressure,
            has_failed,
            is_full,
            slow_commits,
            slowest,
            begun,
            settling,
            readings: _,
            overlaps: _,
            redone: _,
        } = &*self.shared;
        let begun = [begun, settling].map(|begun| begun.load(Ordering::Acquire));
        let begun = begun.into_iter().filter(|begun| *begun > 0).min();
        Health {
            has_failed: has_failed.load(Ordering::Acquire),
            is_full: is_full.load(Ordering::Acquire),
            pressure: *pressure.lock().unwrap_or_else(PoisonError::into_inner),
            slow_commits: slow_commits.load(Ordering::Relaxed),
            slowest_commit: Duration::from_millis(slowest.load(Ordering::Relaxed)),
            running_commit: begun
                .map(|begun| Duration::from_millis(self.shared.elapsed().saturating_sub(begun))),
        }
    }

    fn rows(&self, take: &mut TakeRow<'_>) -> Result<(), StoreError> {
        let _reading = self.shared.keep_keys();
        // Held while it reads: an engine is closed only when nobody looks at it.
        let engine = self.engine.read().unwrap_or_else(PoisonError::into_inner);
        let view = self.pending.view(engine.as_ref().ok_or(StoreError::Full)?);
        let opened = Opened::new(view, Arc::clone(&self.keys));
        export::rows(&opened, &mut |row| {
            // A full disk needs the engine for itself.
            if self.shared.is_full.load(Ordering::Acquire) {
                return Err(StoreError::Full);
            }
            take(row)
        })
    }

    fn disk_bytes(&self) -> Result<u64, StoreError> {
        folder_bytes(&self.path)
    }
}

impl<E> std::fmt::Debug for GroupCommit<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GroupCommit(..)")
    }
}

#[async_trait]
impl<E: Engine> MailboxStore for GroupCommit<E> {
    async fn apply(&self, change: Change) -> Result<Outcome, StoreError> {
        let (answer, outcome) = oneshot::channel();
        self.queue.send(Job { change, answer })?;
        outcome.await.map_err(|_| StoreError::Closed)?
    }

    async fn mailbox(&self, id: MailboxId) -> Result<Option<Mailbox>, StoreError> {
        self.query(move |view| reads::mailbox(view, &id)).await
    }

    async fn window(&self, query: WindowQuery) -> Result<Option<Window>, StoreError> {
        self.query(move |view| reads::window(view, &query)).await
    }

    async fn blob_part(&self, hash: BlobHash, offset: u64) -> Result<Option<BlobPart>, StoreError> {
        self.query(move |view| reads::blob_part(view, &hash, offset)).await
    }

    async fn blob_digest(&self, hash: BlobHash) -> Result<Option<BlobHash>, StoreError> {
        self.query(move |view| reads::blob_digest(view, &hash)).await
    }

    async fn ticket(&self, key: PublicKey<Access>) -> Result<Option<Ticket>, StoreError> {
        self.query(move |view| reads::ticket(view, &key)).await
    }

    async fn tickets(&self) -> Result<Vec<Ticket>, StoreError> {
        self.query(reads::tickets).await
    }

    async fn totals(&self, now: Timestamp) -> Result<Totals, StoreError> {
        self.query(move |view| reads::totals(view, now)).await
    }

    async fn close(&self) {
        self.queue.close();
        let writers = std::mem::take(&mut *self.writers());
        // They end once the queue is empty and everybody who was let in has finished.
        let ended = move || writers.into_iter().map(JoinHandle::join).filter(Result::is_ok).count();
        tokio::task::spawn_blocking(ended).await.ok();
    }
}

impl Shared {
    fn new(reserve: u64) -> Self {
        Self {
            started: now(),
            reserve: AtomicU64::new(reserve),
            needs: AtomicU64::new(0),
            pressure: Mutex::default(),
            has_failed: AtomicBool::new(false),
            is_full: AtomicBool::new(false),
            slow_commits: AtomicU64::new(0),
            slowest: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            settling: AtomicU64::new(0),
            readings: AtomicUsize::new(0),
            overlaps: AtomicU64::new(0),
            redone: AtomicU64::new(0),
        }
    }

    /// How short of room the disk is now. What the engine needs for a time is not there for others.
    fn look_for_room(&self, path: &Path, needs: u64) -> Pressure {
        let free = free_bytes(path);
        let mut pressure = self.pressure.lock().unwrap_or_else(PoisonError::into_inner);
        // With the lock: a reserve that is set meanwhile is looked at by whoever set it, after this.
        let reserve = self.reserve.load(Ordering::Relaxed);
        *pressure = match free.map(|free| free.saturating_sub(needs)) {
            _ if reserve == 0 => Pressure::None,
            Ok(free) if free < reserve => Pressure::NothingNew,
            Ok(free) if free < reserve.saturating_mul(2) => Pressure::NothingBegins,
            Ok(_) => Pressure::None,
            // Nobody knows; it is as it was.
            Err(_) => *pressure,
        };
        self.needs.store(needs, Ordering::Relaxed);
        *pressure
    }

    fn on_disk(&self) -> OnDisk<'_> {
        self.begun.store(self.elapsed(), Ordering::Release);
        OnDisk { shared: self, since: now() }
    }

    fn settle(&self) -> Settling<'_> {
        self.settling.store(self.elapsed(), Ordering::Release);
        Settling(&self.settling)
    }

    fn keep_keys(&self) -> Reading<'_> {
        self.readings.fetch_add(1, Ordering::AcqRel);
        Reading(&self.readings)
    }

    /// Milliseconds since the store was opened, and one.
    fn elapsed(&self) -> u64 {
        millis(self.started.elapsed()).saturating_add(1)
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[expect(clippy::disallowed_methods, reason = "the watch on slow commits measures this thread's own work")]
fn now() -> Instant {
    Instant::now()
}
