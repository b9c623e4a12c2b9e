//! The two threads that write.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{
    super::{
        Change, Outcome, StoreError,
        cache::{self, Cache},
        engine::Engine,
        keys::{KeyFile, Slot},
        layered::{Layer, Layered},
        room, rules,
        sealing::{Opened, Sealer, Still, due_still, forget_unused, still_due},
        tables::{Batch, Staged},
    },
    OnDisk, Shared,
    due::Due,
    millis, now,
    pending::Pending,
    queue::{Call, Ground, Job, Jobs, Queue, Turn},
    unlocked,
};

/// A commit slower than this is reported: the disk or a compaction holds everybody up.
const SLOW_COMMIT: Duration = Duration::from_millis(500);
/// How often a full disk is looked at again.
const RETRY: Duration = Duration::from_secs(1);

/// What the engine gets to end when it is opened anew.
const CLOSING: Duration = Duration::from_millis(20);

/// Between two steps that give room back: whoever waits comes first.
const PAUSE: Duration = Duration::from_millis(10);

/// Slots whose keys are forgotten at a time: bounds how long others wait.
const MAX_FORGOTTEN: usize = 1024;

/// What the writers share.
pub(super) struct Writer<E> {
    pub(super) engine: Arc<RwLock<Option<E>>>,
    pub(super) keys: Arc<KeyFile>,
    pub(super) queue: Arc<Queue>,
    pub(super) pending: Arc<Pending>,
    /// The one's that stages.
    pub(super) desk: Mutex<Desk>,
    /// What is to be forgotten.
    pub(super) due: Mutex<Due>,
    pub(super) forget_after: Duration,
    pub(super) path: PathBuf,
    /// The engine's, in bytes.
    pub(super) cache: u64,
    pub(super) extra_flush: Duration,
    pub(super) shared: Arc<Shared>,
}

/// What staging works with.
pub(super) struct Desk {
    cache: Cache,
    sealer: Sealer,
    /// Commits that had failed when the cache was filled.
    failures: u64,
    /// When a full disk was last looked at.
    looked: Option<Instant>,
}

impl Desk {
    /// See [`StoreOptions::memory`](crate::store::StoreOptions).
    pub(super) fn new(memory: u64) -> Self {
        let generation = cache::generation(memory);
        Self { cache: Cache::new(generation), sealer: Sealer::new(generation), failures: 0, looked: None }
    }

    /// After a commit that failed what is remembered of it is wrong, and its numbers come again.
    fn forget(&mut self) {
        self.cache.forget();
        self.sealer.reset();
    }
}

/// A group that is ready for the disk.
struct Ready<'a, G> {
    outcomes: Vec<Outcome>,
    /// Of a group whose keys had to be on the disk first.
    on_disk: Option<OnDisk<'a>>,
    /// Nothing, if it changes nothing.
    group: Option<(G, Arc<Layer>)>,
    due: BTreeMap<Slot, u64>,
}

/// Why a group is not ready.
enum Unready {
    /// It must be tried by itself, with nothing else under way.
    Alone {
        /// Whether the disk is the caller's already.
        has_disk: bool,
    },
    /// The other writer ended by a defect.
    Broken,
}

/// A writer that ends by a defect must not leave a relay behind that looks alive.
struct Watched<'a, E>(&'a Writer<E>);

impl<E> Drop for Watched<'_, E> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.shared.has_failed.store(true, Ordering::Release);
            self.0.queue.break_off();
            self.0.pending.break_off();
        }
    }
}

impl<E: Engine> Writer<E> {
    pub(super) fn run(&self) {
        let watched = Watched(self);
        loop {
            match self.queue.next() {
                Call::Stage => self.work(),
                Call::End { is_last } => {
                    if is_last {
                        self.forget_due(&mut self.desk());
                        self.rest();
                    }
                    break;
                }
            }
        }
        drop(watched);
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn due(&self) -> MutexGuard<'_, Due> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stages a group, lets go of the staging, commits it and answers all of it.
    fn work(&self) {
        let mut desk = self.desk();
        let (must_forget, must_tidy) = (self.queue.must_forget(), self.queue.must_tidy());
        if must_forget || must_tidy {
            if !self.queue.begin_commit() {
                return;
            }
            self.pending.wait();
            if must_forget {
                self.forget_due(&mut desk);
                self.rest();
            }
            self.tidy();
            self.queue.end_commit(None, true, None);
        }
        let mut jobs = Jobs::default();
        match self.group(&mut desk, &mut jobs) {
            Ok(ready) => {
                drop(desk);
                self.commit(ready, jobs);
            }
            Err(Unready::Alone { has_disk: _ }) => {
                desk.forget();
                self.work_alone(&mut desk, &mut jobs);
                desk.failures = self.queue.ground().failures;
                drop(desk);
                self.queue.end_all();
            }
            Err(Unready::Broken) => {}
        }
    }

    /// Stages what comes until the disk is ready; then the commit is the caller's.
    fn group(&self, desk: &mut Desk, jobs: &mut Jobs) -> Result<Ready<'_, E::Group>, Unready> {
        let Ground { over, failures } = self.queue.ground();
        if desk.failures != failures {
            // What failed stood on what may not be settled yet.
            self.pending.wait();
            desk.forget();
            desk.failures = failures;
        }
        let alone = Err(Unready::Alone { has_disk: true });
        let done = if self.is_able() {
            self.stage(desk, jobs, over)
        } else {
            Err(Unready::Alone { has_disk: false })
        };
        let has_fallen = self.queue.ground().failures != failures;
        self.shared.redone.fetch_add(u64::from(has_fallen), Ordering::Relaxed);
        match done {
            // What it stands on is on the disk.
            Ok(ready) if !has_fallen && self.is_able() => Ok(ready),
            Ok(_) | Err(Unready::Alone { has_disk: true }) => alone,
            Err(Unready::Alone { has_disk: false }) if self.queue.begin_commit() => {
                self.queue.take(jobs);
                alone
            }
            Err(Unready::Alone { has_disk: false } | Unready::Broken) => Err(Unready::Broken),
        }
    }

    fn is_able(&self) -> bool {
        !self.shared.has_failed.load(Ordering::Acquire) && !self.shared.is_full.load(Ordering::Acquire)
    }

    fn stage(
        &self,
        desk: &mut Desk,
        jobs: &mut Jobs,
        over: Option<Arc<Layer>>,
    ) -> Result<Ready<'_, E::Group>, Unready> {
        self.shared.overlaps.fetch_add(u64::from(over.is_some()), Ordering::Relaxed);
        let Desk { cache, sealer, failures: _, looked: _ } = desk;
        let engine = self.engine.read().unwrap_or_else(PoisonError::into_inner);
        let engine = engine.as_ref().ok_or(Unready::Alone { has_disk: false })?;
        let pressure = self.shared.look_for_room(&self.path, engine.needs());
        let tables = Opened::new(Layered::new(engine.direct(), over), Arc::clone(&self.keys));
        let mut batch = Batch::new(&tables, cache);
        let mut outcomes = Vec::new();
        let mut turn = Turn::More;
        loop {
            self.queue.take(jobs);
            let has_disk = turn == Turn::Commit;
            let alone = |_: StoreError| Unready::Alone { has_disk };
            for job in jobs.all.iter().skip(outcomes.len()) {
                outcomes.push(rules::stage(&mut batch, &job.change, pressure).map_err(alone)?);
            }
            if has_disk {
                break;
            }
            if let Some(bulk) = batch.sealable() {
                sealer.seal(&self.keys, bulk).map_err(alone)?;
            }
            turn = self.queue.turn(jobs);
            if turn == Turn::Broken {
                return Err(Unready::Broken);
            }
        }
        let Staged { mut bulk, state, fresh, due } = batch.into_staged();
        let on_disk = (!fresh.is_empty()).then(|| self.shared.on_disk());
        let group = if bulk.is_empty() && state.is_empty() {
            None
        } else {
            sealer
                .begin(&self.keys, &fresh)
                .and_then(|()| sealer.seal(&self.keys, &mut bulk))
                .map_err(|_| Unready::Alone { has_disk: true })?;
            let group = engine.prepare(&bulk, &state).map_err(|_| Unready::Alone { has_disk: true })?;
            Some((group, Arc::new(Layer { bulk, state })))
        };
        Ok(Ready { outcomes, on_disk, group, due })
    }

    /// Writes a group, answers it and lets the engine show it: the last two while the other writer goes on with the disk.
    fn commit(&self, ready: Ready<'_, E::Group>, jobs: Jobs) {
        let Ready { outcomes, on_disk, group, due } = ready;
        let Some((group, layer)) = group else {
            self.queue.end_nothing();
            return answer(jobs, Ok(outcomes));
        };
        self.queue.set_out(Arc::clone(&layer));
        let begun = now();
        let on_disk = on_disk.unwrap_or_else(|| self.shared.on_disk());
        let done = {
            let engine = self.engine.read().unwrap_or_else(PoisonError::into_inner);
            engine.as_ref().ok_or(StoreError::Full).and_then(|engine| engine.commit(&group))
        };
        if done.is_ok() && !self.extra_flush.is_zero() {
            std::thread::sleep(self.extra_flush);
        }
        let took = begun.elapsed();
        self.watch(on_disk);
        let done = done.map_err(|failure| self.failed(failure));
        let forget_at = (done.is_ok() && !due.is_empty()).then(|| begun + self.forget_after);
        if forget_at.is_some() {
            self.due().add(due);
        }
        if done.is_ok() {
            self.pending.add(Arc::clone(&layer));
        }
        self.queue.end_commit(Some(took), done.is_ok(), forget_at);
        let is_durable = done.is_ok();
        answer(jobs, done.map(|()| outcomes));
        if is_durable && self.pending.settle(&layer, || self.settle(group)) {
            self.queue.end_settling(&layer);
        }
    }

    fn settle(&self, group: E::Group) -> bool {
        let _settling = self.shared.settle();
        let engine = self.engine.read().unwrap_or_else(PoisonError::into_inner);
        let done = engine.as_ref().ok_or(StoreError::Full).and_then(|engine| engine.settle(group));
        // Whatever it was: what is durable is not shown any more.
        done.map_err(|failure| {
            self.failed(if failure == StoreError::Full { failure } else { StoreError::Disk })
        })
        .is_ok()
    }

    /// Gives room back, a step of it.
    fn tidy(&self) {
        if self.with_engine(E::tidy) == Some(true) {
            self.queue.tidy_by(now() + PAUSE);
        }
    }

    /// Leaves nothing of what is forgotten to be read in what the engine wrote.
    fn rest(&self) {
        self.with_engine(E::rest);
    }

    /// Has the engine do something while nothing else is under way; nothing, if it cannot.
    fn with_engine<R>(&self, act: impl FnOnce(&E) -> Result<R, StoreError>) -> Option<R> {
        if !self.is_able() {
            return None;
        }
        let on_disk = self.shared.on_disk();
        let engine = self.engine.read().unwrap_or_else(PoisonError::into_inner);
        let done = engine.as_ref().ok_or(StoreError::Full).and_then(act);
        drop(engine);
        self.watch(on_disk);
        done.map_err(|failure| self.failed(failure)).ok()
    }

    /// What a commit's failure means for all that comes.
    fn failed(&self, failure: StoreError) -> StoreError {
        let is_full =
            failure == StoreError::Full || (failure == StoreError::Disk && room::is_full(&self.path));
        if is_full {
            self.shared.is_full.store(true, Ordering::Release);
            tracing::error!("the disk is full; nothing is taken until there is room again");
            return StoreError::Full;
        }
        if failure == StoreError::Disk {
            self.shared.has_failed.store(true, Ordering::Release);
            tracing::error!("the disk refused to read or write; the store takes no more changes");
        }
        failure
    }

    /// Overwrites keys that nobody needs. What fails is tried again.
    fn forget_due(&self, desk: &mut Desk) {
        if !self.is_able() {
            return self.forget_later();
        }
        let begun = now();
        let mut all = self.due().take(begun);
        // A backup reads what is deleted meanwhile. Of anchors it reads nothing, and theirs go at once.
        if self.shared.readings.load(Ordering::Acquire) > 0 {
            let (anchors, others) = all.into_iter().partition(|(slot, _)| slot.is_of_anchor());
            self.due().add(others);
            all = anchors;
        }
        while !all.is_empty() {
            let later = all.keys().nth(MAX_FORGOTTEN).copied();
            let rest = later.map_or_else(BTreeMap::new, |later| all.split_off(&later));
            let due = std::mem::replace(&mut all, rest);
            let on_disk = self.shared.on_disk();
            let done = self.forget(desk, &due);
            self.watch(on_disk);
            match done {
                Ok(left) => self.due().tried(&due, &left, self.forget_after, now()),
                Err(failure) => {
                    let failure = self.failed(failure);
                    tracing::error!("keys of deleted envelopes could not be overwritten; it is tried again");
                    desk.cache.forget();
                    self.due().add(due);
                    // What is damaged holds nobody else up.
                    if failure != StoreError::Damaged {
                        break;
                    }
                }
            }
        }
        self.due().add(all);
        self.forget_later();
    }

    fn forget_later(&self) {
        let at = self.due().next_at(self.forget_after, now());
        self.queue.set_forget_at(at);
    }

    /// Returns what is still to be forgotten of it, because the disk cannot read it.
    fn forget(&self, desk: &mut Desk, due: &BTreeMap<Slot, u64>) -> Result<BTreeMap<Slot, u64>, StoreError> {
        let Desk { cache, sealer, failures: _, looked: _ } = desk;
        let engine = self.engine.read().unwrap_or_else(PoisonError::into_inner);
        let engine = engine.as_ref().ok_or(StoreError::Full)?;
        let tables = engine.direct();
        let Still { due, unknown } = due_still(&tables, due)?;
        let left = sealer.forget(&self.keys, &due)?;
        let (mut left, forgotten): (BTreeMap<_, _>, BTreeMap<_, _>) =
            due.into_iter().partition(|(slot, _)| left.contains(slot));
        let mut batch = Batch::new(&tables, cache);
        for (slot, before) in &forgotten {
            batch.forgot_keys(*slot, *before)?;
        }
        let Staged { bulk, state, fresh: _, due: _ } = batch.into_staged();
        if !state.is_empty() {
            engine.write(&bulk, &state)?;
        }
        left.extend(unknown);
        Ok(left)
    }

    /// Commits a group with nothing else under way, and answers all of it.
    fn work_alone(&self, desk: &mut Desk, jobs: &mut Jobs) {
        self.pending.wait();
        let on_disk = self.shared.on_disk();
        let done = self.attempt(desk, jobs.all.iter().map(|job| &job.change));
        self.watch(on_disk);
        match done {
            // One damaged record must not fail the others of its batch.
            Err(StoreError::Damaged) if jobs.all.len() > 1 => {
                for job in jobs.all.drain(..) {
                    let on_disk = self.shared.on_disk();
                    let outcome = self.attempt(desk, std::iter::once(&job.change));
                    self.watch(on_disk);
                    let outcome = outcome.and_then(|mut all| all.pop().ok_or(StoreError::Damaged));
                    job.answer.send(outcome).ok();
                }
            }
            done => answer(std::mem::take(jobs), done),
        }
    }

    /// The disk is done.
    fn watch(&self, on_disk: OnDisk<'_>) {
        let took = on_disk.since.elapsed();
        drop(on_disk);
        self.shared.slowest.fetch_max(millis(took), Ordering::Relaxed);
        if took > SLOW_COMMIT {
            self.shared.slow_commits.fetch_add(1, Ordering::Relaxed);
            tracing::warn!("a commit took more than half a second: the disk is slow");
        }
    }

    fn attempt<'c>(
        &self,
        desk: &mut Desk,
        changes: impl Iterator<Item = &'c Change>,
    ) -> Result<Vec<Outcome>, StoreError> {
        if self.shared.has_failed.load(Ordering::Acquire) {
            return Err(StoreError::Disk);
        }
        if self.shared.is_full.load(Ordering::Acquire) {
            self.recover(desk)?;
        }
        let done = self.stage_and_commit(desk, changes);
        done.map_err(|failure| {
            desk.forget();
            let failure = self.failed(failure);
            if failure == StoreError::Full {
                desk.looked = Some(now());
            }
            failure
        })
    }

    fn stage_and_commit<'c>(
        &self,
        desk: &mut Desk,
        changes: impl Iterator<Item = &'c Change>,
    ) -> Result<Vec<Outcome>, StoreError> {
        let Desk { cache, sealer, failures: _, looked: _ } = desk;
        let engine = self.engine.read().unwrap_or_else(PoisonError::into_inner);
        let engine = engine.as_ref().ok_or(StoreError::Full)?;
        let pressure = self.shared.look_for_room(&self.path, engine.needs());
        let tables = Opened::new(engine.direct(), Arc::clone(&self.keys));
        let mut batch = Batch::new(&tables, cache);
        let outcomes: Vec<Outcome> =
            changes.map(|change| rules::stage(&mut batch, change, pressure)).collect::<Result<_, _>>()?;
        let Staged { mut bulk, state, fresh, due } = batch.into_staged();
        if bulk.is_empty() && state.is_empty() {
            return Ok(outcomes);
        }
        sealer.begin(&self.keys, &fresh)?;
        sealer.seal(&self.keys, &mut bulk)?;
        engine.write(&bulk, &state)?;
        if !due.is_empty() {
            self.queue.forget_by(now() + self.forget_after);
            self.due().add(due);
        }
        if !self.extra_flush.is_zero() {
            std::thread::sleep(self.extra_flush);
        }
        Ok(outcomes)
    }

    /// Opens the engine anew if the disk has room again.
    fn recover(&self, desk: &mut Desk) -> Result<(), StoreError> {
        if desk.looked.is_some_and(|looked| looked.elapsed() < RETRY) {
            return Err(StoreError::Full);
        }
        desk.looked = Some(now());
        if !room::is_there(&self.path) {
            return Err(StoreError::Full);
        }
        // Waits for those who read now. Whoever comes meanwhile waits for it, and with it for what the old engine's own threads have
        // begun: an engine locks its folder until they are done, so the new one cannot be there before the old one is gone.
        let mut engine = self.engine.write().unwrap_or_else(PoisonError::into_inner);
        drop(engine.take());
        // Threads of the engine may still be closing their files.
        std::thread::sleep(CLOSING);
        let opened = unlocked(|| E::open(&self.path, self.cache)).and_then(|opened| {
            let due = still_due(&opened.direct())?;
            forget_unused(&opened.direct(), &self.keys)?;
            Ok((opened, due))
        });
        match opened {
            Ok((opened, due)) => {
                // A commit that failed may be in the journal after all: then its keys are to be thrown away.
                if !due.is_empty() {
                    self.queue.forget_by(now() + self.forget_after);
                    self.due().add(due);
                }
                *engine = Some(opened);
                self.pending.clear();
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
}

fn answer(jobs: Jobs, done: Result<Vec<Outcome>, StoreError>) {
    match done {
        Ok(outcomes) => {
            for (Job { change, answer }, outcome) in jobs.all.into_iter().zip(outcomes) {
                // Whoever is answered is the only one then who has the envelope.
                drop(change);
                // A caller that no longer waits asks again.
                answer.send(Ok(outcome)).ok();
            }
        }
        Err(failure) => {
            for job in jobs.all {
                job.answer.send(Err(failure)).ok();
            }
        }
    }
}
