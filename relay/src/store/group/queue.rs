//! What waits for the writers, and which of them does what.
//!
//! There are two writers and two tasks: to stage a group (its rules, its keys, its ciphers) and to commit one (the disk). Each
//! task has one writer at a time, so groups are staged one after the other and reach the disk in that order. While one
//! writer waits for the disk the other stages what comes meanwhile, and is ready when the disk is. Where little comes,
//! or the disk takes no time, one writer does both and the other sleeps.
//!
//! Invariant: who begins a commit has staged its group and lets go of the staging only then; so the group that is
//! staged stands on one group at most that is not durable (`over`).
//!
//! Invariant: no writer sleeps, uncalled, beyond the time at which there is work for it (`State::is_overslept`).
//!
//! FRM-05: a change has its place when `send` returns, whatever waits. A bound at which callers waited for room would let the later
//! of two of one stream in first, when room came between them; and it would bound nothing: who waits holds the change
//! too. What may be under way is bounded for each connection, and for each network (`server`).

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{
    super::{Change, Mutation, Outcome, StoreError, layered::Layer},
    now,
};

/// Changes for which the queue keeps its memory when nothing waits.
const QUEUE: usize = 1024;
/// Changes in one commit: bounds what one flush may delay.
const MAX_BATCH: usize = 1024;
/// Bytes of envelopes in one commit, about; measured best.
const MAX_BATCH_BYTES: usize = 1 << 20;
/// When the second writer is worth its waking while the first one waits for the disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// So many changes must wait: waking a writer for each would cost more than it saves.
    worth: usize,
    /// Commits that take less, as the last few did, are not worth it at all: groups would only become smaller.
    slow: Duration,
    /// What waits when a commit ends is left to who ended it for so long: he answers, settles and is back, mostly in far less, where
    /// the other would be woken at every commit of a fast disk. After it the engine holds him up, for seconds perhaps.
    late: Duration,
}

impl Pace {
    /// Measured with a disk that flushes in no time; one that flushes in 0.1 ms is beyond it.
    pub(super) const MEASURED: Self =
        Self { worth: 8, slow: Duration::from_micros(250), late: Duration::from_millis(5) };
    /// Tests of crashes, power cuts and full disks have few callers: two groups are to be under way in them too.
    #[cfg(test)]
    pub(super) const EAGER: Self = Self { worth: 1, slow: Duration::ZERO, late: Duration::ZERO };
}

/// A change and who waits for it.
pub(super) struct Job {
    pub(super) change: Change,
    pub(super) answer: oneshot::Sender<Result<Outcome, StoreError>>,
}

impl Job {
    fn weight(&self) -> usize {
        match &self.change.mutation {
            Mutation::Append { envelope, .. } => envelope.len(),
            Mutation::BlobPut { bytes, .. } => bytes.len(),
            // With its other lists, which lie in the same frame.
            Mutation::Arm { list, causes, .. } if causes.is_empty() => list.as_bytes().len(),
            Mutation::Arm { .. } => lapwing_wire::limits::MAX_FRAME,
            _ => 0,
        }
    }
}

/// The changes of one group.
#[derive(Default)]
pub(super) struct Jobs {
    pub(super) all: Vec<Job>,
    bytes: usize,
}

impl Jobs {
    fn has_room(&self) -> bool {
        self.all.len() < MAX_BATCH && self.bytes < MAX_BATCH_BYTES
    }
}

/// What a writer is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// It has the staging now.
    Stage,
    /// Nothing will come any more. `is_last` for the writer that ends last.
    End { is_last: bool },
}

/// What the writer that stages is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It has the commit now, too.
    Commit,
    /// More has come, and the disk is not ready yet.
    More,
    /// The other writer ended by a defect.
    Broken,
}

/// What a staged group stands on.
pub(super) struct Ground {
    /// The group that is on its way to the disk, or that the engine does not show yet.
    pub(super) over: Option<Arc<Layer>>,
    /// Commits that had failed.
    pub(super) failures: u64,
}

/// The queue.
pub(super) struct Queue {
    pace: Pace,
    state: Mutex<State>,
    /// For writers with nothing to do.
    idle: Condvar,
    /// For the writer that stages.
    staging: Condvar,
}

struct State {
    jobs: VecDeque<Job>,
    writers: usize,
    /// Writers with nothing to do: until when each sleeps if nobody calls.
    sleepers: Vec<Option<Instant>>,
    /// One of them was woken, and has not looked yet.
    is_called: bool,
    is_closed: bool,
    is_broken: bool,
    is_staging: bool,
    is_committing: bool,
    ground: Ground,
    forget_at: Option<Instant>,
    tidy_at: Option<Instant>,
    /// From when on a writer that slept may stage what waits while the disk does nothing.
    anybodys_at: Instant,
    /// Before everything.
    long_ago: Instant,
    /// What a commit takes, about: the last counts for a quarter.
    commit_time: Duration,
}

impl State {
    /// When something is to be done that nobody waits for.
    fn chore_at(&self) -> Option<Instant> {
        self.forget_at.into_iter().chain(self.tidy_at).min()
    }

    /// From when on there is something to do for a writer that does nothing.
    fn due_at(&self, pace: Pace) -> Option<Instant> {
        if self.is_staging {
            return None;
        }
        let is_worth = self.commit_time >= pace.slow && self.jobs.len() >= pace.worth;
        let stage_at = match (self.jobs.is_empty(), self.is_committing) {
            (true, _) => None,
            _ if is_worth => Some(self.long_ago),
            (_, true) => None,
            (_, false) => Some(self.anybodys_at),
        };
        stage_at.into_iter().chain(self.chore_at()).min()
    }

    /// Never true when nobody holds the lock.
    fn is_overslept(&self, pace: Pace) -> bool {
        let wakes_by = |at| self.sleepers.iter().flatten().any(|until| *until <= at);
        !self.sleepers.is_empty() && !self.is_called && self.due_at(pace).is_some_and(|at| !wakes_by(at))
    }
}

impl Queue {
    /// For so many writers.
    pub(super) fn new(writers: usize, forget_at: Option<Instant>, pace: Pace) -> Self {
        let ground = Ground { over: None, failures: 0 };
        let long_ago = now();
        let state = State {
            jobs: VecDeque::new(),
            writers,
            sleepers: Vec::with_capacity(writers),
            is_called: false,
            is_closed: false,
            is_broken: false,
            is_staging: false,
            is_committing: false,
            ground,
            forget_at,
            tidy_at: None,
            anybodys_at: long_ago,
            long_ago,
            commit_time: Duration::ZERO,
        };
        Self { pace, state: Mutex::new(state), idle: Condvar::new(), staging: Condvar::new() }
    }

    /// Adds a job, behind all that were added before.
    ///
    /// # Errors
    /// [`StoreError::Closed`]: nobody is let in any more.
    pub(super) fn send(&self, job: Job) -> Result<(), StoreError> {
        let mut state = self.lock();
        if state.is_closed {
            return Err(StoreError::Closed);
        }
        state.jobs.push_back(job);
        // Who stages saw fewer when it went to sleep, and only this makes them more.
        if state.is_staging && state.jobs.len() == self.pace.worth {
            drop(state);
            self.staging.notify_one();
        } else {
            self.call(state);
        }
        Ok(())
    }

    /// Wakes a writer if there is work for one that sleeps, or will be before it wakes. To be called wherever that may have come true:
    /// more waits, the staging is free, or the disk, or there is something to do at a time.
    fn call(&self, mut state: MutexGuard<'_, State>) {
        if state.is_overslept(self.pace) {
            state.is_called = true;
            drop(state);
            self.idle.notify_one();
        }
    }

    /// Lets nobody in any more; who was let in is served.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.idle.notify_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    /// A writer ended by a defect: nobody is served any more.
    pub(super) fn break_off(&self) {
        let mut state = self.lock();
        state.is_broken = true;
        state.is_closed = true;
        state.jobs.clear();
        drop(state);
        self.idle.notify_all();
        self.staging.notify_all();
    }

    /// Waits until there is something to stage, or it is time to forget.
    pub(super) fn next(&self) -> Call {
        let mut state = self.lock();
        // Who is awake needs no waking.
        state.anybodys_at = state.long_ago;
        loop {
            let (due_at, now) = (state.due_at(self.pace), now());
            if due_at.is_some_and(|at| at <= now) && !state.is_broken {
                state.is_staging = true;
                return Call::Stage;
            }
            if state.is_broken || (state.is_closed && state.jobs.is_empty() && !state.is_staging) {
                state.writers = state.writers.saturating_sub(1);
                self.idle.notify_all();
                return Call::End { is_last: state.writers == 0 && !state.is_broken };
            }
            // While the other writer stages: it need not call then for what comes at a time.
            let until = due_at.or_else(|| state.chore_at().filter(|at| *at > now));
            state.sleepers.push(until);
            state = match until {
                Some(at) => {
                    let left = at.saturating_duration_since(now);
                    self.idle.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.idle.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
            if let Some(own) = state.sleepers.iter().position(|sleeper| *sleeper == until) {
                state.sleepers.swap_remove(own);
            }
            state.is_called = false;
        }
    }

    /// Whether it is time to forget.
    pub(super) fn must_forget(&self) -> bool {
        self.lock().forget_at.is_some_and(|at| at <= now())
    }

    /// Whether it is time to tidy up; says so once.
    pub(super) fn must_tidy(&self) -> bool {
        self.lock().tidy_at.take_if(|at| *at <= now()).is_some()
    }

    /// To tidy up at a time.
    pub(super) fn tidy_by(&self, at: Instant) {
        let mut state = self.lock();
        state.tidy_at.get_or_insert(at);
        self.call(state);
    }

    /// Says when to forget next.
    pub(super) fn set_forget_at(&self, at: Option<Instant>) {
        let mut state = self.lock();
        state.forget_at = at;
        self.call(state);
    }

    /// Moves what waits into a group, as far as it has room.
    pub(super) fn take(&self, jobs: &mut Jobs) {
        let mut state = self.lock();
        while jobs.has_room() {
            let Some(job) = state.jobs.pop_front() else { break };
            jobs.bytes += job.weight();
            jobs.all.push(job);
        }
        if state.jobs.is_empty() {
            state.jobs.shrink_to(QUEUE);
        }
    }

    /// To forget at a time at the latest.
    pub(super) fn forget_by(&self, at: Instant) {
        let mut state = self.lock();
        state.forget_at = state.forget_at.into_iter().chain([at]).min();
        self.call(state);
    }

    /// What the group that is staged now stands on.
    pub(super) fn ground(&self) -> Ground {
        let Ground { over, failures } = &self.lock().ground;
        Ground { over: over.clone(), failures: *failures }
    }

    /// Waits until the disk is ready, or more has come than is worth to wait with.
    pub(super) fn turn(&self, jobs: &Jobs) -> Turn {
        let mut state = self.lock();
        loop {
            if state.is_broken {
                return Turn::Broken;
            }
            if !state.is_committing {
                state.is_committing = true;
                return Turn::Commit;
            }
            if state.jobs.len() >= self.pace.worth && jobs.has_room() {
                return Turn::More;
            }
            state = self.staging.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until the disk is ready; `false` if the other writer ended by a defect.
    pub(super) fn begin_commit(&self) -> bool {
        let mut state = self.lock();
        while state.is_committing && !state.is_broken {
            state = self.staging.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.is_committing = true;
        !state.is_broken
    }

    /// The group that is staged is on its way: the next may be staged on it.
    pub(super) fn set_out(&self, group: Arc<Layer>) {
        let mut state = self.lock();
        state.ground.over = Some(group);
        self.end_staging(state);
    }

    /// The commit is done, or has failed.
    pub(super) fn end_commit(&self, took: Option<Duration>, is_done: bool, forget_at: Option<Instant>) {
        let mut state = self.lock();
        if let Some(took) = took {
            state.commit_time = (state.commit_time * 3 + took) / 4;
        }
        state.is_committing = false;
        if !is_done {
            state.ground.over = None;
            state.ground.failures += 1;
        }
        if let Some(at) = forget_at {
            state.forget_at = state.forget_at.into_iter().chain([at]).min();
        }
        if state.is_staging {
            drop(state);
            self.staging.notify_one();
        } else {
            // What comes to an empty queue is staged at once, while the last group is settled.
            state.anybodys_at = if state.jobs.is_empty() { state.long_ago } else { now() + self.pace.late };
            self.call(state);
        }
    }

    /// The engine shows a group: what is staged from now on need not stand on it.
    pub(super) fn end_settling(&self, group: &Arc<Layer>) {
        self.lock().ground.over.take_if(|over| Arc::ptr_eq(over, group));
    }

    /// What was staged changes nothing.
    pub(super) fn end_nothing(&self) {
        let mut state = self.lock();
        state.is_committing = false;
        self.end_staging(state);
    }

    /// Nothing is staged, committed or settled any more.
    pub(super) fn end_all(&self) {
        let mut state = self.lock();
        state.is_committing = false;
        state.ground.over = None;
        self.end_staging(state);
    }

    fn end_staging(&self, mut state: MutexGuard<'_, State>) {
        state.is_staging = false;
        if state.is_closed {
            state.is_called = !state.sleepers.is_empty();
            drop(state);
            self.idle.notify_all();
        } else {
            self.call(state);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // A defect's own message is worth more than this one, which would end the process.
        let is_judged = !state.is_broken && !std::thread::panicking();
        debug_assert!(!is_judged || !state.is_overslept(self.pace), "somebody forgot to call");
        state
    }
}

#[cfg(test)]
mod tests;
