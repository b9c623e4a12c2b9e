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
//! | somebody who was told and still has not ended, for it is held up: nobody reads what it writes | `SIGINT` and `SIGQUIT` end the process, so does `SIGTERM` ten seconds after the first signal, after the terminal has its mode back; `SIGHUP` nothing |
//! | nobody any more, and one was told | `SIGTERM` and `SIGHUP` nothing, for the command is ending: a window that is closed sends several; `SIGINT` and `SIGQUIT` end the process, for a person insists |
//!
//! One that whoever began this process made it ignore stays ignored: `nohup`, or `&` in a script.

use std::{
    sync::{LazyLock, Mutex, MutexGuard, PoisonError, mpsc::sync_channel},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, raise};
use tokio::sync::watch;

/// Those that ask a process to end.
const ENDING: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];

/// The thread that takes them waits, and little else.
const STACK: usize = 128 << 10;

/// How long one that listens may take to end before another `SIGTERM` ends the process. Whatever ends a session may send
/// several; a listener that is not held up has heard of the first one long before, and has done what it does by then: tokens
/// that are told once more (4 s), a last mark (2 s).
const HELD_UP: Duration = Duration::from_secs(10);

/// What becomes of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Whoever listens is told.
    Tell,
    /// It does what it does by itself.
    Act,
    /// The command is ending.
    Nothing,
}

/// Whom to tell.
struct Listeners {
    count: usize,
    /// One was told: the command is ending.
    told: bool,
    /// When those were told that listen still.
    since: Option<Instant>,
    /// What a process that ends at once leaves behind otherwise: a terminal without an echo.
    put_back: Option<PutBack>,
}

/// Gives a terminal its mode back.
type PutBack = Box<dyn FnOnce() + Send>;

impl Listeners {
    const fn new() -> Self {
        Self { count: 0, told: false, since: None, put_back: None }
    }

    fn came(&mut self, signal: Signal, now: Instant) -> Outcome {
        if self.count == 0 {
            return self.untold(signal);
        }
        let Some(since) = self.since else {
            self.since = Some(now);
            self.told = true;
            return Outcome::Tell;
        };
        match signal {
            Signal::SIGINT | Signal::SIGQUIT => Outcome::Act,
            Signal::SIGTERM if now.saturating_duration_since(since) >= HELD_UP => Outcome::Act,
            // Also one that began to listen after the first.
            _ => Outcome::Tell,
        }
    }

    /// What becomes of one that nobody was told of.
    const fn untold(&self, signal: Signal) -> Outcome {
        if !self.told || matches!(signal, Signal::SIGINT | Signal::SIGQUIT) {
            Outcome::Act
        } else {
            Outcome::Nothing
        }
    }

    fn leave(&mut self) {
        self.count -= 1;
        if self.count == 0 {
            self.since = None;
            self.put_back = None;
        }
    }
}

static LISTENERS: Mutex<Listeners> = Mutex::new(Listeners::new());

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
        // Whoever ignores one for this process wants the process to outlive it: `nohup`, `&` in a script. It is left waiting
        // for ever. Read here: how much the system tells varies, and all unlocks of the first thread make the same calls.
        let ignored = ignored();
        for signal in ENDING.into_iter().filter(|signal| ignored >> (*signal as i32 - 1) & 1 == 1) {
            ours.remove(signal);
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

#[expect(
    clippy::disallowed_methods,
    reason = "between two signals: monotonic, and only compared with itself"
)]
fn came(signal: Signal) {
    let mut listeners = listeners();
    match listeners.came(signal, Instant::now()) {
        Outcome::Tell => {
            CAME.send_replace(Some(signal));
        }
        Outcome::Act => {
            if let Some(put_back) = listeners.put_back.take() {
                put_back();
            }
            act(signal);
        }
        Outcome::Nothing => {}
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

/// Signals that this process was begun to ignore, the lowest bit for number 1. None where the system does not tell.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Listens for them, until it is dropped.
pub(crate) struct Stop {
    came: watch::Receiver<Option<Signal>>,
    /// It was told.
    heard: bool,
    /// It does not listen any more.
    closed: bool,
}

impl Stop {
    /// Begins to listen.
    pub(crate) fn listen() -> Self {
        let mut listeners = listeners();
        listeners.count += 1;
        Self { came: CAME.subscribe(), heard: false, closed: false }
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

    /// What is done first where a signal ends the process at once while somebody listens.
    pub(crate) fn before_an_end(&self, put_back: impl FnOnce() + Send + 'static) {
        listeners().put_back = Some(Box::new(put_back));
    }

    /// Ends listening. Answers whether one came that it was not told of: it ends the command in order, as it does earlier.
    pub(crate) fn close(mut self) -> bool {
        let mut listeners = listeners();
        self.leave(&mut listeners).is_some()
    }

    /// Answers one that came too late for whoever listened.
    fn leave(&mut self, listeners: &mut Listeners) -> Option<Signal> {
        self.closed = true;
        listeners.leave();
        let is_late = self.came.has_changed().unwrap_or(false);
        is_late.then(|| *self.came.borrow()).flatten()
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        if self.closed {
            return;
        }
        let mut listeners = listeners();
        // It is not lost.
        if let Some(signal) = self.leave(&mut listeners)
            && listeners.count == 0
        {
            listeners.told = self.heard;
            if listeners.untold(signal) == Outcome::Act {
                act(signal);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use Outcome::{Act, Nothing, Tell};
    use Signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    fn the_first_is_told_and_who_is_held_up_is_ended_by_the_second() {
        let now = Instant::now();
        let listening = || Listeners { count: 1, ..Listeners::new() };
        for first in ENDING {
            assert_eq!(Listeners::new().came(first, now), Act);
            for (second, at_once, later) in
                [(SIGINT, Act, Act), (SIGQUIT, Act, Act), (SIGTERM, Tell, Act), (SIGHUP, Tell, Tell)]
            {
                for (after, outcome) in [(Duration::ZERO, at_once), (HELD_UP, later)] {
                    let mut held_up = listening();
                    assert_eq!(held_up.came(first, now), Tell);
                    assert_eq!(
                        held_up.came(second, now + after),
                        outcome,
                        "{second} {after:?} after {first}"
                    );
                }
            }
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    fn while_a_command_is_ending_only_a_person_insists() {
        let now = Instant::now();
        let mut listeners = Listeners { count: 1, ..Listeners::new() };
        assert_eq!(listeners.came(SIGTERM, now), Tell);
        listeners.leave();
        for (signal, outcome) in [(SIGTERM, Nothing), (SIGHUP, Nothing), (SIGINT, Act), (SIGQUIT, Act)] {
            assert_eq!(listeners.came(signal, now + 2 * HELD_UP), outcome, "{signal}");
        }
        // Whoever begins to listen then is told, however long ago the other was.
        listeners.count = 1;
        assert_eq!(listeners.came(SIGINT, now + 2 * HELD_UP), Tell);
    }
}
