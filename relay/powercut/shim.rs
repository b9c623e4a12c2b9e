//! The power-cut model's eyes: a library for `LD_PRELOAD` that records every write-side call under one folder.
//!
//! It stands between a program and the C library, does each call by the kernel's own number and records it in the order
//! in which the kernel did it (`trace.rs`); the model (`model.rs`) decides later what a power cut would have left. It
//! can also play a full disk, a disk that hangs, one that fails once, and one that cannot read some files (`pread`).
//!
//! Handled: `open`, `openat`, `creat`, `write`, `writev`, `pwrite`, `pwritev`, `ftruncate`, `truncate`, `fallocate`,
//! `posix_fallocate`, `rename`, `renameat`, `renameat2`, `unlink`, `unlinkat`, `rmdir`, `mkdir`, `mkdirat`, `link`,
//! `linkat`, `fsync`, `fdatasync`, `sync`, `syncfs`. `sync_file_range` promises nothing and is passed on unrecorded.
//! `copy_file_range` and `sendfile` are refused, so that callers write. What the model cannot follow (a shared
//! writable mapping, `msync`, symbolic links, files without names) is recorded as unknown, and the model refuses the trace. A call
//! that goes past the C library is found afterwards: the model compares what it saw with what is on the disk.
#![expect(unsafe_code, reason = "stands between a program and the C library")]
#![allow(clippy::missing_safety_doc, missing_docs, reason = "each function is the C library's of that name")]
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "arguments are handed on as the C library's contract has them"
)]

mod calls;
mod state;
mod trace;
