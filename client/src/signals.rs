//! Signals that ask this process to end: who is told of them, and what they do where nobody listens.
//!
//! One thread takes them for all. They are kept from every other: a thread inherits what is kept from the one that begins
//! it, so that no pool and no runtime, whenever it begins its threads, has one in which a signal ends the process behind
//! the back of whoever listens: at a question, where the terminal would be left without an echo, or while a command waits
//! with an open vault.
//!
//! | who listens | what a signal does |
//! | --- | --- |
//! | nobody | what it always does: it ends the process, and the next unlock overwrites what is left (VLT-57) |
//! | somebody | the listener is told; the command ends in order |
//! | nobody any more, and one was told | `SIGTERM` and `SIGHUP` nothing, for the command is ending: a window that is closed sends several; `SIGINT` and `SIGQUIT` end the process, for a person insists |

use std::{
    sync::{LazyLock, Mutex, MutexGuard, PoisonError, mpsc::sync_channel},
    thread,
};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, raise};
use tokio::sync::watch;

/// Those that ask a process to end.
const ENDING: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];

/// The thread that takes them waits, and little else.
const STACK: usize = 128 << 10;

/// Whom to tell.
struct Listeners {
    count: usize,
    /// One was told: the command is ending.
    told: bool,
}

impl Listeners {
    /// What becomes of one that nobody was told of.
    fn untold(&self, signal: Signal) {
        if !self.told || matches!(signal, Signal::SIGINT | Signal::SIGQUIT) {
            act(signal);
        }
    }
}

static LISTENERS: Mutex<Listeners> = Mutex::new(Listeners { count: 0, told: false });

/// The signal that came last.
static CAME: LazyLock<watch::Sender<Option<Signal>>> = LazyLock::new(|| watch::Sender::new(None));

fn listeners() -> MutexGuard<'static, Listeners> {
    LISTENERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes them over for this process. Call it on the first thread, before there is another one. A library does not: where
/// this is not called, signals act as they always do, and nobody who listens is told.
pub(crate) fn take_over() {
    let wanted: SigSet = ENDING.into_iter().collect();
    let Ok(before) = wanted.thread_swap_mask(SigmaskHow::SIG_BLOCK) else { return };
    // What was kept from this process before it began is somebody else's.
    let mut ours: SigSet = ENDING.into_iter().filter(|signal| !before.contains(*signal)).collect();
    let (ready, begun) = sync_channel(1);
    let watching = thread::Builder::new().stack_size(STACK).spawn(move || {
        // Whoever ignores it for this process wants it to outlive its terminal: `nohup`. It is left waiting for ever. Read
        // here: how much the system tells varies, and all unlocks of the first thread make the same calls.
        if is_ignored(Signal::SIGHUP) {
            ours.remove(Signal::SIGHUP);
        }
        // The first thread waits for it.
        let _ = ready.send(());
        while let Ok(signal) = ours.wait() {
            came(signal);
        }
        // A system that does not let them be waited for: they act as they always do, here.
        let _ = ours.thread_unblock();
        loop {
            thread::park();
        }
    });
    match watching {
        // What the thread reads comes before all that follows here, in every run.
        Ok(_) => drop(begun.recv()),
        // They act as they always do.
        Err(_) => drop(before.thread_set_mask()),
    }
}

/// Does something that begins other processes, on a thread from which nothing is kept: they inherit that.
pub(crate) fn for_others<T>(begin: impl FnOnce() -> T) -> T {
    let kept = ENDING.into_iter().collect::<SigSet>().thread_swap_mask(SigmaskHow::SIG_UNBLOCK);
    let begun = begin();
    if let Ok(kept) = kept {
        let _ = kept.thread_set_mask();
    }
    begun
}

/// Keeps SIGINT from this thread, where it is raised for Ctrl-C.
pub(crate) fn keep_interrupt() {
    let _ = SigSet::from(Signal::SIGINT).thread_block();
}

/// Takes the one that was raised on this thread, from which it is kept.
pub(crate) fn take_interrupt() {
    let _ = SigSet::from(Signal::SIGINT).wait();
}

fn came(signal: Signal) {
    let mut listeners = listeners();
    if listeners.count > 0 {
        listeners.told = true;
        CAME.send_replace(Some(signal));
    } else {
        listeners.untold(signal);
    }
}

/// Lets it do what it does by itself. Returns where this process ignores it.
fn act(signal: Signal) {
    let only = SigSet::from(signal);
    // To this thread, from which it is kept until the next line.
    if raise(signal).is_ok() && only.thread_unblock().is_ok() {
        let _ = only.thread_block();
    }
}

/// Whether this process was begun so that it ignores a signal. `false` where the system does not tell.
fn is_ignored(signal: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal as i32 - 1) & 1 == 1
}

/// Listens for them, until it is dropped.
pub(crate) struct Stop {
    came: watch::Receiver<Option<Signal>>,
    /// It was told.
    heard: bool,
}

impl Stop {
    /// Begins to listen.
    pub(crate) fn listen() -> Self {
        let mut listeners = listeners();
        listeners.count += 1;
        Self { came: CAME.subscribe(), heard: false }
    }

    /// Waits until one came.
    pub(crate) async fn asked(&mut self) {
        if self.came.changed().await.is_err() {
            return std::future::pending().await;
        }
        self.heard = true;
    }

    /// Whether one came since this was asked last.
    pub(crate) fn was_asked(&mut self) -> bool {
        let came = self.came.has_changed().unwrap_or(false);
        self.came.mark_unchanged();
        self.heard |= came;
        came
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        let mut listeners = listeners();
        listeners.count -= 1;
        // It came too late for whoever listened: it is not lost.
        if listeners.count == 0
            && self.came.has_changed().unwrap_or(false)
            && let Some(signal) = *self.came.borrow()
        {
            listeners.told = self.heard;
            listeners.untold(signal);
        }
    }
}
