//! The default store: `fjall`, one writer thread, group commit.
//!
//! Why these settings (measured; `docs/performance.md`): one batch per flush with `SyncData` reaches nearly the rate
//! of the disk, the queue is drained without any artificial wait, two keyspaces only (upstream issue 257), no
//! compression (ciphertext does not compress), memtables of 64 MiB (smaller ones halve the rate).

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use async_trait::async_trait;
use fjall::{
    CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot,
    config::CompressionPolicy,
};
use lapwing_wire::{
    capability::{Access, PublicKey},
    frame::{BlobPart, Window},
    ids::{BlobHash, MailboxId},
    time::Timestamp,
};
use tokio::sync::{mpsc, oneshot};

use super::{
    Change, Mailbox, MailboxStore, Mutation, Outcome, StoreError, Ticket, Totals, WindowQuery, reads,
    record::{VERSION, key},
    rules,
    tables::{Batch, Cache, Entry, Scan, Space, Tables, Visit, Writes},
};

/// Changes that wait for the writer. At it `apply` waits. With the largest envelopes 64 MiB.
const QUEUE: usize = 1024;
/// Changes in one commit: bounds what one flush may delay.
const MAX_BATCH: usize = 1024;
/// Bytes of envelopes in one commit, about; measured best.
const MAX_BATCH_BYTES: usize = 1 << 20;
const MEMTABLE: u64 = 64 << 20;
const CACHE: u64 = 64 << 20;
/// Journals on disk before memtables are flushed to make room. Below 64 MiB the engine panics.
const JOURNALS: u64 = 256 << 20;
/// A commit slower than this is reported: the disk or a compaction holds everybody up.
const SLOW_COMMIT: Duration = Duration::from_millis(500);

/// How to open a store.
#[derive(Clone, Debug)]
pub struct FjallOptions {
    /// Folder; created with mode 0700 if absent.
    pub path: PathBuf,
    /// Bytes that stay free on the file system: below, everything new is refused with `busy`. 0 switches it off.
    pub reserve: u64,
    /// Slept after each flush, to model slower disks in measurements. Zero in service.
    pub extra_flush: Duration,
}

impl FjallOptions {
    /// The store at `path`, without a reserve.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), reserve: 0, extra_flush: Duration::ZERO }
    }
}

/// A store on disk.
pub struct FjallStore {
    files: Files,
    queue: Mutex<Option<mpsc::Sender<Job>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    shared: Arc<Shared>,
}

struct Shared {
    reserve: AtomicU64,
    has_failed: AtomicBool,
    slow_commits: AtomicU64,
}

#[derive(Clone)]
struct Files {
    db: Database,
    bulk: Keyspace,
    state: Keyspace,
}

struct Job {
    change: Change,
    answer: oneshot::Sender<Result<Outcome, StoreError>>,
}

impl FjallStore {
    /// Opens the store, or creates it. Replays what the last process had not flushed: up to some seconds.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::Version`], [`StoreError::Disk`].
    pub fn open(options: &FjallOptions) -> Result<Self, StoreError> {
        create_folder(&options.path)?;
        let files = Files::open(&options.path)?;
        let shared = Arc::new(Shared {
            reserve: AtomicU64::new(options.reserve),
            has_failed: AtomicBool::new(false),
            slow_commits: AtomicU64::new(0),
        });
        let (queue, jobs) = mpsc::channel(QUEUE);
        let writer = Writer {
            files: files.clone(),
            cache: Cache::default(),
            path: options.path.clone(),
            extra_flush: options.extra_flush,
            shared: Arc::clone(&shared),
        };
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run(jobs))
            .map_err(|_| StoreError::Disk)?;
        Ok(Self { files, queue: Mutex::new(Some(queue)), writer: Mutex::new(Some(thread)), shared })
    }

    /// Changes the bytes that stay free on the file system.
    pub fn set_reserve(&self, reserve: u64) {
        self.shared.reserve.store(reserve, Ordering::Relaxed);
    }

    /// Whether the disk failed: the store must be opened anew.
    pub fn has_failed(&self) -> bool {
        self.shared.has_failed.load(Ordering::Acquire)
    }

    /// Commits that took more than half a second since the store was opened.
    pub fn slow_commits(&self) -> u64 {
        self.shared.slow_commits.load(Ordering::Relaxed)
    }

    /// Bytes on disk.
    ///
    /// # Errors
    /// [`StoreError::Disk`].
    pub fn disk_bytes(&self) -> Result<u64, StoreError> {
        self.files.db.disk_space().map_err(error)
    }

    async fn query<T: Send + 'static>(
        &self,
        read: impl FnOnce(&View) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        if self.sender().is_none() {
            return Err(StoreError::Closed);
        }
        let files = self.files.clone();
        tokio::task::spawn_blocking(move || read(&files.view())).await.map_err(|_| StoreError::Closed)?
    }

    fn sender(&self) -> Option<mpsc::Sender<Job>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl std::fmt::Debug for FjallStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FjallStore(..)")
    }
}

#[async_trait]
impl MailboxStore for FjallStore {
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

impl Files {
    fn open(path: &Path) -> Result<Self, StoreError> {
        let db = Database::builder(path)
            .cache_size(CACHE)
            .max_journaling_size(JOURNALS)
            .journal_compression(CompressionType::None)
            .worker_threads(2)
            .open()
            .map_err(error)?;
        let bulk = db.keyspace("bulk", options).map_err(error)?;
        let state = db.keyspace("state", options).map_err(error)?;
        match state.get(key::VERSION).map_err(error)? {
            Some(found) if *found == *VERSION => {}
            Some(_) => return Err(StoreError::Version),
            None => {
                let mut batch = db.batch().durability(Some(PersistMode::SyncAll));
                batch.insert(&state, key::VERSION, VERSION);
                batch.commit().map_err(error)?;
            }
        }
        Ok(Self { db, bulk, state })
    }

    fn view(&self) -> View {
        View { snapshot: self.db.snapshot(), bulk: self.bulk.clone(), state: self.state.clone() }
    }

    fn commit(&self, bulk: Writes, state: Writes) -> Result<(), StoreError> {
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncData));
        for (keyspace, writes) in [(&self.bulk, bulk), (&self.state, state)] {
            for (key, value) in writes {
                match value {
                    Some(value) => batch.insert(keyspace, key, value),
                    None => batch.remove(keyspace, key),
                }
            }
        }
        batch.commit().map_err(error)
    }
}

fn options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(MEMTABLE)
        .data_block_compression_policy(CompressionPolicy::all(CompressionType::None))
}

/// The one thread that writes.
struct Writer {
    files: Files,
    cache: Cache,
    path: PathBuf,
    extra_flush: Duration,
    shared: Arc<Shared>,
}

/// A writer that ends by a defect must not leave a relay behind that looks alive.
impl Drop for Writer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.has_failed.store(true, Ordering::Release);
        }
    }
}

impl Writer {
    fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut batch = Vec::with_capacity(MAX_BATCH);
        while let Some(first) = jobs.blocking_recv() {
            let mut bytes = weight(&first);
            batch.push(first);
            while batch.len() < MAX_BATCH && bytes < MAX_BATCH_BYTES {
                let Ok(job) = jobs.try_recv() else { break };
                bytes += weight(&job);
                batch.push(job);
            }
            self.work(&mut batch);
        }
    }

    /// Commits a batch and answers all of it.
    fn work(&mut self, batch: &mut Vec<Job>) {
        let begun = now();
        match self.attempt(batch.iter().map(|job| &job.change)) {
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
        if begun.elapsed() > SLOW_COMMIT {
            self.shared.slow_commits.fetch_add(1, Ordering::Relaxed);
            tracing::warn!("a commit took more than half a second: the disk is slow");
        }
    }

    fn attempt<'c>(&mut self, changes: impl Iterator<Item = &'c Change>) -> Result<Vec<Outcome>, StoreError> {
        if self.shared.has_failed.load(Ordering::Acquire) {
            return Err(StoreError::Disk);
        }
        let done = self.stage_and_commit(changes);
        if let Err(failure) = &done {
            self.cache.forget();
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
        let pressed = self.is_pressed();
        // Nothing is written but by this thread, between two views.
        let tables = Direct(&self.files);
        let mut batch = Batch::new(&tables, &mut self.cache);
        let outcomes: Vec<Outcome> =
            changes.map(|change| rules::stage(&mut batch, change, pressed)).collect::<Result<_, _>>()?;
        let (bulk, state) = batch.into_writes();
        if bulk.is_empty() && state.is_empty() {
            return Ok(outcomes);
        }
        self.files.commit(bulk, state)?;
        if !self.extra_flush.is_zero() {
            std::thread::sleep(self.extra_flush);
        }
        Ok(outcomes)
    }

    fn is_pressed(&self) -> bool {
        let reserve = self.shared.reserve.load(Ordering::Relaxed);
        reserve > 0 && free_bytes(&self.path).is_ok_and(|free| free < reserve)
    }
}

fn weight(job: &Job) -> usize {
    match &job.change.mutation {
        Mutation::Append { envelope, .. } => envelope.len(),
        Mutation::BlobPut { bytes, .. } => bytes.len(),
        Mutation::Arm { list, .. } => list.as_bytes().len(),
        _ => 0,
    }
}

/// Bytes that an unprivileged process may still write to the file system of `path`.
///
/// # Errors
/// [`StoreError::Disk`].
pub fn free_bytes(path: &Path) -> Result<u64, StoreError> {
    let stat = nix::sys::statvfs::statvfs(path).map_err(|_| StoreError::Disk)?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

fn create_folder(path: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|_| StoreError::Disk)
}

#[expect(clippy::disallowed_methods, reason = "the watch on slow commits measures this thread's own work")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function in map_err")]
fn error(failure: fjall::Error) -> StoreError {
    match failure {
        fjall::Error::Locked => StoreError::Locked,
        fjall::Error::InvalidVersion(_) => StoreError::Version,
        fjall::Error::JournalRecovery(_)
        | fjall::Error::InvalidTrailer
        | fjall::Error::InvalidTag(_)
        | fjall::Error::Unrecoverable => StoreError::Damaged,
        _ => StoreError::Disk,
    }
}

/// What is on disk at one moment.
struct View {
    snapshot: Snapshot,
    bulk: Keyspace,
    state: Keyspace,
}

impl View {
    fn keyspace(&self, space: Space) -> &Keyspace {
        match space {
            Space::Bulk => &self.bulk,
            Space::State => &self.state,
        }
    }
}

impl Tables for View {
    fn load(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.snapshot.get(self.keyspace(space), key).map_err(error)?;
        Ok(found.map(|value| value.to_vec()))
    }

    fn scan(&self, space: Space, first: &[u8], last: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        walk(self.snapshot.range(self.keyspace(space), first..=last), visit)
    }

    fn last(&self, space: Space, first: &[u8], last: &[u8]) -> Result<Option<Entry>, StoreError> {
        greatest(self.snapshot.range(self.keyspace(space), first..=last))
    }
}

/// What is on disk now; consistent for the writer, because nobody else writes.
struct Direct<'a>(&'a Files);

impl Direct<'_> {
    fn keyspace(&self, space: Space) -> &Keyspace {
        match space {
            Space::Bulk => &self.0.bulk,
            Space::State => &self.0.state,
        }
    }
}

impl Tables for Direct<'_> {
    fn load(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.keyspace(space).get(key).map_err(error)?.map(|value| value.to_vec()))
    }

    fn scan(&self, space: Space, first: &[u8], last: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        walk(self.keyspace(space).range(first..=last), visit)
    }

    fn last(&self, space: Space, first: &[u8], last: &[u8]) -> Result<Option<Entry>, StoreError> {
        greatest(self.keyspace(space).range(first..=last))
    }
}

fn walk(rows: fjall::Iter, visit: &mut Visit<'_>) -> Result<(), StoreError> {
    for row in rows {
        let (key, value) = row.into_inner().map_err(error)?;
        if visit(&key, &value)? == Scan::Stop {
            break;
        }
    }
    Ok(())
}

fn greatest(mut rows: fjall::Iter) -> Result<Option<Entry>, StoreError> {
    let Some(row) = rows.next_back() else { return Ok(None) };
    let (key, value) = row.into_inner().map_err(error)?;
    Ok(Some((key.to_vec(), value.to_vec())))
}
