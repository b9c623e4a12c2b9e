//! Flushes that take a fixed time longer, in any program that is started with this library preloaded.
//!
//! ```text
//! LD_PRELOAD=liblapwing_peers_flush.so FLUSH_MICROS=1000 redis-server ...
//! ```
//! One definition for all sides of a comparison, so that the modelled disk is the same. The real flush is made first: on a file
//! system in memory it costs nothing. Programs that call the kernel themselves (those written in Go) are not reached.

use std::{ffi::c_int, sync::OnceLock, time::Duration};

static LONGER: OnceLock<Duration> = OnceLock::new();

fn flush(call: libc::c_long, descriptor: c_int) -> c_int {
    // SAFETY: the system call that the caller asked for, with the caller's own argument; it touches no memory.
    let answer = unsafe { libc::syscall(call, descriptor) };
    let longer = *LONGER.get_or_init(|| {
        let micros = std::env::var("FLUSH_MICROS").ok().and_then(|text| text.parse().ok());
        Duration::from_micros(micros.unwrap_or(0))
    });
    if !longer.is_zero() {
        std::thread::sleep(longer);
    }
    if answer == 0 { 0 } else { -1 }
}

// SAFETY: the C library's own function has this signature, and what it promises is kept: see `flush`.
#[unsafe(no_mangle)]
extern "C" fn fsync(descriptor: c_int) -> c_int {
    flush(libc::SYS_fsync, descriptor)
}

// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn fdatasync(descriptor: c_int) -> c_int {
    flush(libc::SYS_fdatasync, descriptor)
}
