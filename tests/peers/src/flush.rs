//! Flushes, counted and if wanted modelled: every `fsync` and `fdatasync` of this process ends here, whoever calls it.
//!
//! The definitions take the place of the C library's, because a program's own symbols come first. So both sides are
//! counted by the same counter, and wait equally long where the flush is modelled.

use std::{
    ffi::c_int,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

static COUNT: AtomicU64 = AtomicU64::new(0);
/// Microseconds of a modelled flush; the disk itself is flushed while this is [`REAL`].
static MODEL: AtomicU64 = AtomicU64::new(REAL);
const REAL: u64 = u64::MAX;

/// What a flush is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flush {
    /// The disk's own.
    Real,
    /// Nothing but this wait: for files in memory.
    Modelled(Duration),
}

impl Flush {
    /// From now on, in the whole process.
    pub fn set(self) {
        let micros = match self {
            Self::Real => REAL,
            Self::Modelled(wait) => u64::try_from(wait.as_micros()).unwrap_or(REAL - 1),
        };
        MODEL.store(micros, Ordering::SeqCst);
    }
}

/// Flushes so far.
pub fn count() -> u64 {
    COUNT.load(Ordering::SeqCst)
}

fn flush(descriptor: c_int, call: libc::c_long) -> c_int {
    COUNT.fetch_add(1, Ordering::SeqCst);
    match MODEL.load(Ordering::SeqCst) {
        // SAFETY: the system call that the caller asked for, with the caller's own argument; it touches no memory.
        REAL => unsafe { libc::syscall(call, descriptor) as c_int },
        0 => 0,
        micros => {
            std::thread::sleep(Duration::from_micros(micros));
            0
        }
    }
}

// SAFETY: the C library's own function has this signature, and what it promises is kept: see `flush`.
#[unsafe(no_mangle)]
extern "C" fn fsync(descriptor: c_int) -> c_int {
    flush(descriptor, libc::SYS_fsync)
}

// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn fdatasync(descriptor: c_int) -> c_int {
    flush(descriptor, libc::SYS_fdatasync)
}
