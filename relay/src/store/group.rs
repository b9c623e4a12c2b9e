//! A store on disk: one writer thread and group commit over any engine.
//!
//! The queue is drained without any artificial wait into one commit, bounded by count and bytes; nobody is answered
//! before it is durable (measured; `docs/performance.md`).
//!
//! A full disk is not the end: what waits is refused with [`StoreError::Full`], reading goes on, and the writer looks
//! from time to time whether there is room again; then it opens the engine anew, because an engine that failed in
//! the middle of a commit takes no other.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
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
use tokio::sync::{mpsc, oneshot};

use super::{
    Change, Health, KeptStore, Mailbox, MailboxStore, Mutation, Outcome, Pressure, StoreError, Ticket,
    Totals, WindowQuery,
    engine::{Engine, StoreOptions, create_folder, folder_bytes, free_bytes},
    export::{self, TakeRow},
    keys::{KeyFile, Slot},
    reads, room, rules,
    sealing::{Opened, Sealer, still_due},
    tables::{Batch, Cache, Staged},
};

/// Changes that wait for the writer. At it `apply` waits. With the largest envelopes 64 MiB.
const QUEUE: usize = 1024;
/// Changes in one commit: bounds what one flush may delay.
const MAX_BATCH: usize = 1024;
/// Bytes of envelopes in one commit, about; measured best.
const MAX_BATCH_BYTES: usize = 1 << 20;
/// A commit slower than this is reported: the disk or a compaction holds everybody up.
const SLOW_COMMIT: Duration = Duration::from_millis(500);
/// How often a full disk is looked at again.
const RETRY: Duration = Duration::from_secs(1);

/// Slots whose keys are forgotten at a time: bounds how long others wait.
const MAX_FORGOTTEN: usize = 1024;

/// A store on disk.
pub struct GroupCommit<E> {
    path: PathBuf,
    keys: Arc<KeyFile>,
    engine: Arc<RwLock<Option<E>>>,
    queue: Mutex<Option<mpsc::Sender<Job>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    shared: Arc<Shared>,
}

struct Shared {
    started: Instant,
    reserve: AtomicU64,
    has_failed: AtomicBool,
    is_full: AtomicBool,
    slow_commits: AtomicU64,
    /// Milliseconds of the slowest commit.
    slowest: AtomicU64,
    /// When the commit that runs began, in milliseconds after `started` and one; 0 while none runs.
    begun: AtomicU64,
    /// Those who read what is being deleted meanwhile.
    readings: AtomicUsize,
}

/// As long as it lives, no keys are forgotten.
struct Reading<'a>(&'a AtomicUsize);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

struct Job {
    change: Change,
    answer: oneshot::Sender<Result<Outcome, StoreError>>,
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
        let opened = E::open(&options.path)?;
        // After the engine, whose lock keeps other processes away.
        let keys = Arc::new(KeyFile::open(&options.path)?);
        let due = still_due(&opened.direct())?;
        let engine = Arc::new(RwLock::new(Some(opened)));
        let shared = Arc::new(Shared::new(options.reserve));
        let (queue, jobs) = mpsc::channel(QUEUE);
        let writer = Writer {
            engine: Arc::clone(&engine),
            keys: Arc::clone(&keys),
            sealer: Sealer::new(),
            forget_at: (!due.is_empty()).then(now),
            due,
            forget_after: options.forget_after,
            timer: tokio::runtime::Handle::try_current().ok(),
            cache: Cache::default(),
            path: options.path.clone(),
            extra_flush: options.extra_flush,
            shared: Arc::clone(&shared),
            looked: None,
        };
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run(jobs))
            .map_err(|_| StoreError::Disk)?;
        Ok(Self {
            path: options.path.clone(),
            keys,
            engine,
            queue: Mutex::new(Some(queue)),
            writer: Mutex::new(Some(thread)),
            shared,
        })
    }

    async fn query<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Opened<E::View>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        if self.sender().is_none() {
            return Err(StoreError::Closed);
        }
        let (engine, keys) = (Arc::clone(&self.engine), Arc::clone(&self.keys));
        let answer = tokio::task::spawn_blocking(move || {
            // Held while it reads: an engine is closed only when nobody looks at it.
            let engine = engine.read().unwrap_or_else(PoisonError::into_inner);
            read(&Opened::new(engine.as_ref().ok_or(StoreError::Full)?.view(), keys))
        });
        answer.await.map_err(|_| StoreError::Closed)?
    }

    fn sender(&self) -> Option<mpsc::Sender<Job>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<E: Engine> KeptStore for GroupCommit<E> {
    fn set_reserve(&self, reserve: u64) {
        self.shared.reserve.store(reserve, Ordering::Relaxed);
    }

    fn health(&self) -> Health {
        let Shared { started: _, reserve: _, has_failed, is_full, slow_commits, slowest, begun, readings: _ } =
            &*self.shared;
        let begun = begun.load(Ordering::Acquire);
        Health {
            has_failed: has_failed.load(Ordering::Acquire),
            is_full: is_full.load(Ordering::Acquire),
            slow_commits: slow_commits.load(Ordering::Relaxed),
            slowest_commit: Duration::from_millis(slowest.load(Ordering::Relaxed)),
            running_commit: (begun > 0)
                .then(|| Duration::from_millis(self.shared.elapsed().saturating_sub(begun))),
        }
    }

    fn rows(&self, take: &mut TakeRow<'_>) -> Result<(), StoreError> {
        let _reading = self.shared.keep_keys();
        // Held while it reads: an engine is closed only when nobody looks at it.
        let engine = self.engine.read().unwrap_or_else(PoisonError::into_inner);
        let view = engine.as_ref().ok_or(StoreError::Full)?.view();
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
        let queue = self.sender().ok_or(StoreError::Closed)?;
        queue.send(Job { change, answer }).await.map_err(|_| StoreError::Closed)?;
        drop(queue);
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
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(queue);
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            // The writer ends once the queue is empty and every caller that had a sender has finished.
            tokio::task::spawn_blocking(move || writer.join().is_ok()).await.ok();
        }
    }
}

impl Shared {
    fn new(reserve: u64) -> Self {
        Self {
            started: now(),
            reserve: AtomicU64::new(reserve),
            has_failed: AtomicBool::new(false),
            is_full: AtomicBool::new(false),
            slow_commits: AtomicU64::new(0),
            slowest: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            readings: AtomicUsize::new(0),
        }
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

/// The one thread that writes.
struct Writer<E> {
    engine: Arc<RwLock<Option<E>>>,
    keys: Arc<KeyFile>,
    sealer: Sealer,
    /// What is to be forgotten, and when.
    due: BTreeMap<Slot, u64>,
    forget_at: Option<Instant>,
    forget_after: Duration,
    /// Wakes this thread when that time has come and nobody else does.
    timer: Option<tokio::runtime::Handle>,
    cache: Cache,
    path: PathBuf,
    extra_flush: Duration,
    shared: Arc<Shared>,
    /// When a full disk was last looked at.
    looked: Option<Instant>,
}

/// A writer that ends by a defect must not leave a relay behind that looks alive.
impl<E> Drop for Writer<E> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.has_failed.store(true, Ordering::Release);
        }
    }
}

impl<E: Engine> Writer<E> {
    fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut batch = Vec::with_capacity(MAX_BATCH);
        while let Some(next) = self.next(&mut jobs) {
            if self.forget_at.is_some_and(|at| at <= now()) {
                self.forget_due();
            }
            let Some(first) = next else { continue };
            let mut bytes = weight(&first);
            batch.push(first);
            while batch.len() < MAX_BATCH && bytes < MAX_BATCH_BYTES {
                let Ok(job) = jobs.try_recv() else { break };
                bytes += weight(&job);
                batch.push(job);
            }
            self.work(&mut batch);
        }
        self.forget_due();
    }

    /// The next job; none in it if it is time to forget; none at all at the end.
    fn next(&self, jobs: &mut mpsc::Receiver<Job>) -> Option<Option<Job>> {
        let (Some(at), Some(timer)) = (self.forget_at, &self.timer) else {
            return jobs.blocking_recv().map(Some);
        };
        let left = at.saturating_duration_since(now());
        match timer.block_on(async { tokio::time::timeout(left, jobs.recv()).await }) {
            Ok(job) => job.map(Some),
            Err(_) => Some(None),
        }
    }

    /// Overwrites keys that nobody needs. What fails is tried again.
    fn forget_due(&mut self) {
        if self.shared.has_failed.load(Ordering::Acquire) || self.shared.is_full.load(Ordering::Acquire) {
            self.forget_at = self.forget_at.map(|_| now() + self.forget_after);
            return;
        }
        // A backup reads what is deleted meanwhile. Of anchors it reads nothing, and theirs go at once.
        let mut kept = BTreeMap::new();
        if self.shared.readings.load(Ordering::Acquire) > 0 {
            (self.due, kept) =
                std::mem::take(&mut self.due).into_iter().partition(|(slot, _)| slot.is_of_anchor());
        }
        while !self.due.is_empty() {
            let later = self.due.keys().nth(MAX_FORGOTTEN).copied();
            let rest = later.map_or_else(BTreeMap::new, |later| self.due.split_off(&later));
            let due = std::mem::replace(&mut self.due, rest);
            if self.forget(&due).is_err() {
                tracing::error!("keys of deleted envelopes could not be overwritten; it is tried again");
                self.cache.forget();
                self.due.extend(due);
                self.due.append(&mut kept);
                self.forget_at = Some(now() + self.forget_after);
                return;
            }
        }
        self.forget_at = (!kept.is_empty()).then(|| now() + self.forget_after);
        self.due = kept;
    }

    fn forget(&mut self, due: &BTreeMap<Slot, u64>) -> Result<(), StoreError> {
        self.sealer.forget(&self.keys, due)?;
        let engine = self.engine.read().unwrap_or_else(PoisonError::into_inner);
        let engine = engine.as_ref().ok_or(StoreError::Full)?;
        let tables = engine.direct();
        let mut batch = Batch::new(&tables, &mut self.cache);
        for (slot, before) in due {
            batch.forgot_keys(*slot, *before)?;
        }
        let Staged { bulk, state, fresh: _, due: _ } = batch.into_staged();
        engine.commit(bulk, state)
    }

    /// Commits a batch and answers all of it.
    fn work(&mut self, batch: &mut Vec<Job>) {
        let begun = now();
        self.shared.begun.store(self.shared.elapsed(), Ordering::Release);
        let done = self.attempt(batch.iter().map(|job| &job.change));
        self.shared.begun.store(0, Ordering::Release);
        self.watch(begun.elapsed());
        match done {
            Ok(outcomes) => {
                for (job, outcome) in batch.drain(..).zip(outcomes) {
                    // A caller that no longer waits asks again.
                    job.answer.send(Ok(outcome)).ok();
                }
            }
            // One damaged record must not fail the others of its batch.
            Err(StoreError::Damaged) if batch.len() > 1 => {
                for job in batch.drain(..) {
                    let outcome = self.attempt(std::iter::once(&job.change));
                    let outcome = outcome.and_then(|mut all| all.pop().ok_or(StoreError::Damaged));
                    job.answer.send(outcome).ok();
                }
            }
            Err(failure) => {
                for job in batch.drain(..) {
                    job.answer.send(Err(failure)).ok();
                }
            }
        }
    }

    fn watch(&self, took: Duration) {
        self.shared.slowest.fetch_max(millis(took), Ordering::Relaxed);
        if took > SLOW_COMMIT {
            self.shared.slow_commits.fetch_add(1, Ordering::Relaxed);
            tracing::warn!("a commit took more than half a second: the disk is slow");
        }
    }

    fn attempt<'c>(&mut self, changes: impl Iterator<Item = &'c Change>) -> Result<Vec<Outcome>, StoreError> {
        if self.shared.has_failed.load(Ordering::Acquire) {
            return Err(StoreError::Disk);
        }
        if self.shared.is_full.load(Ordering::Acquire) {
            self.recover()?;
        }
        let done = self.stage_and_commit(changes);
        if let Err(failure) = &done {
            self.cache.forget();
            self.sealer.reset();
            let is_full =
                *failure == StoreError::Full || (*failure == StoreError::Disk && room::is_full(&self.path));
            if is_full {
                self.shared.is_full.store(true, Ordering::Release);
                self.looked = Some(now());
                tracing::error!("the disk is full; nothing is taken until there is room again");
                return Err(StoreError::Full);
            }
            if *failure == StoreError::Disk {
                self.shared.has_failed.store(true, Ordering::Release);
                tracing::error!("the disk refused to read or write; the store takes no more changes");
            }
        }
        done
    }

    fn stage_and_commit<'c>(
        &mut self,
        changes: impl Iterator<Item = &'c Change>,
    ) -> Result<Vec<Outcome>, StoreError> {
        let pressure = self.pressure();
        let engine = self.engine.read().unwrap_or_else(PoisonError::into_inner);
        let engine = engine.as_ref().ok_or(StoreError::Full)?;
        // Nothing is written but by this thread, between two views.
        let tables = Opened::new(engine.direct(), Arc::clone(&self.keys));
        let mut batch = Batch::new(&tables, &mut self.cache);
        let outcomes: Vec<Outcome> =
            changes.map(|change| rules::stage(&mut batch, change, pressure)).collect::<Result<_, _>>()?;
        let Staged { mut bulk, state, fresh, due } = batch.into_staged();
        if bulk.is_empty() && state.is_empty() {
            return Ok(outcomes);
        }
        self.sealer.begin(&self.keys, &fresh)?;
        self.sealer.seal(&self.keys, &mut bulk)?;
        engine.commit(bulk, state)?;
        if !due.is_empty() {
            self.forget_at.get_or_insert_with(|| now() + self.forget_after);
            self.due.extend(due);
        }
        if !self.extra_flush.is_zero() {
            std::thread::sleep(self.extra_flush);
        }
        Ok(outcomes)
    }

    /// Opens the engine anew if the disk has room again.
    fn recover(&mut self) -> Result<(), StoreError> {
        if self.looked.is_some_and(|looked| looked.elapsed() < RETRY) {
            return Err(StoreError::Full);
        }
        self.looked = Some(now());
        if !room::is_there(&self.path) {
            return Err(StoreError::Full);
        }
        // Waits for those who read now; whoever comes meanwhile waits for it.
        let mut engine = self.engine.write().unwrap_or_else(PoisonError::into_inner);
        drop(engine.take());
        match E::open(&self.path) {
            Ok(opened) => {
                *engine = Some(opened);
                self.shared.is_full.store(false, Ordering::Release);
                tracing::warn!("the disk has room again");
                Ok(())
            }
            Err(StoreError::Full) => Err(StoreError::Full),
            // The process ends and opens the store from the beginning.
            Err(failure) => {
                self.shared.has_failed.store(true, Ordering::Release);
                tracing::error!("the store could not be opened again after the disk was full");
                Err(failure)
            }
        }
    }

    fn pressure(&self) -> Pressure {
        let reserve = self.shared.reserve.load(Ordering::Relaxed);
        match free_bytes(&self.path) {
            Ok(free) if reserve > 0 && free < reserve => Pressure::NothingNew,
            Ok(free) if reserve > 0 && free < reserve.saturating_mul(2) => Pressure::NothingBegins,
            _ => Pressure::None,
        }
    }
}

fn weight(job: &Job) -> usize {
    match &job.change.mutation {
        Mutation::Append { envelope, .. } => envelope.len(),
        Mutation::BlobPut { bytes, .. } => bytes.len(),
        // With its other lists, which lie in the same frame.
        Mutation::Arm { list, causes, .. } if causes.is_empty() => list.as_bytes().len(),
        Mutation::Arm { .. } => lapwing_wire::limits::MAX_FRAME,
        _ => 0,
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[expect(clippy::disallowed_methods, reason = "the watch on slow commits measures this thread's own work")]
fn now() -> Instant {
    Instant::now()
}
