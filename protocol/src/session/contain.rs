//! The second lock of the door to libsignal: a panic ends one unit of work and nothing else (SES-07).
//!
//! The pinned libsignal can panic on hostile bytes (docs/decisions/0001). The guard refuses the known ones; this
//! module makes an unknown one an error. The caller runs libsignal on copies and throws them away on `Err`.
//!
//! A panic normally prints a message with a source position, which would tell a bystander that a hostile message
//! arrived, and would tear a terminal screen. So the process's panic hook is wrapped while a call is under way and
//! put back after the last one; only panics of the calling thread inside the call are silenced.
//!
//! Known gap: a panic hook that another thread *sets* (rather than wraps) while a call is under way replaces the
//! silencing one; it stays in place afterwards, and the panic is then contained but not silent.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

type Hook = Box<dyn Fn(&PanicHookInfo<'_>) + Sync + Send + 'static>;

/// The silencing hook, while at least one call is under way in any thread.
struct Installed {
    calls: usize,
    address: usize,
    previous: Arc<Hook>,
}

static INSTALLED: Mutex<Option<Installed>> = Mutex::new(None);

thread_local! {
    /// Calls under way in this thread.
    static SILENT: Cell<u32> = const { Cell::new(0) };
}

/// The work panicked. What it had in hand must be thrown away.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Panicked;

/// Runs `work`; a panic inside becomes `Err` and prints nothing.
pub(super) fn contain<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    let _silence = Silence::begin();
    // Unwind safety: every caller moves copies of its records into `work` and drops them on `Err`.
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| Panicked)
}

/// Keeps this thread's panics silent until dropped.
struct Silence {
    wrapped: bool,
}

impl Silence {
    fn begin() -> Self {
        // A thread that is already unwinding may not touch the hook: that would abort the process.
        let wrapped = !thread::panicking();
        if wrapped {
            wrap_hook();
        }
        SILENT.with(|calls| calls.set(calls.get() + 1));
        Self { wrapped }
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        SILENT.with(|calls| calls.set(calls.get().saturating_sub(1)));
        if self.wrapped {
            unwrap_hook();
        }
    }
}

fn address(hook: &Hook) -> usize {
    (&raw const **hook).cast::<()>().addr()
}

fn wrap_hook() {
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(installed) = installed.as_mut() {
        installed.calls += 1;
        return;
    }
    let previous = Arc::new(take_hook());
    let outer = Arc::clone(&previous);
    let hook: Hook = Box::new(move |info| {
        // A thread that is being torn down has no count any more and is not in a call.
        if SILENT.try_with(Cell::get).unwrap_or(0) == 0 {
            outer(info);
        }
    });
    *installed = Some(Installed { calls: 1, address: address(&hook), previous });
    set_hook(hook);
}

fn unwrap_hook() {
    let mut slot = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(mut installed) = slot.take() else { return };
    installed.calls -= 1;
    if installed.calls > 0 {
        *slot = Some(installed);
        return;
    }
    let current = take_hook();
    if address(&current) == installed.address {
        drop(current);
        match Arc::try_unwrap(installed.previous) {
            Ok(previous) => set_hook(previous),
            Err(shared) => set_hook(Box::new(move |info| shared(info))),
        }
    } else {
        // Somebody set or wrapped a hook meanwhile: it stays. If it wrapped ours, ours passes panics on.
        set_hook(current);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_pass_and_panics_become_errors() {
        assert_eq!(contain(|| 5), Ok(5));
        assert_eq!(contain(|| panic!("contained")), Err::<(), _>(Panicked));
        assert_eq!(contain(|| contain(|| panic!("inner"))), Ok(Err::<(), _>(Panicked)));
    }

    #[test]
    fn many_threads_enter_and_leave_without_losing_the_hook() {
        let threads: Vec<_> = (0..8)
            .map(|n| {
                thread::spawn(move || {
                    for round in 0..50 {
                        let outcome = contain(|| assert!((n + round) % 3 != 0, "contained"));
                        assert_eq!(outcome.is_err(), (n + round) % 3 == 0);
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(SILENT.with(Cell::get), 0);
    }
}
