//! The calls, under the names of the C library.

use std::ffi::{c_char, c_int, c_long, c_uint, c_void};

use nix::libc::{self, iovec, mode_t, off_t, size_t, ssize_t};

use crate::{
    state::{call, fail, hang, last_name, state, writes},
    trace::Kind,
};

fn unsigned(number: impl TryInto<u64>) -> u64 {
    number.try_into().unwrap_or(0)
}

fn short(number: c_long) -> c_int {
    c_int::try_from(number).unwrap_or(-1)
}

fn pointer<T>(at: *const T) -> c_long {
    at as c_long
}

unsafe fn bytes<'a>(at: *const c_void, length: usize) -> &'a [u8] {
    if length == 0 { &[] } else { unsafe { std::slice::from_raw_parts(at.cast(), length) } }
}

fn open_at(at: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    let arguments = [at.into(), pointer(path), flags.into(), mode.into(), 0, 0];
    let Some(mut state) = state() else { return short(call(libc::SYS_openat, arguments)) };
    let Some(_) = state.relative(at, path) else { return short(call(libc::SYS_openat, arguments)) };
    let is_nameless = flags & libc::O_TMPFILE == libc::O_TMPFILE;
    let is_new =
        flags & libc::O_CREAT != 0 && call(libc::SYS_faccessat, [at.into(), pointer(path), 0, 0, 0, 0]) != 0;
    if is_new && state.is_full() {
        return short(fail(libc::ENOSPC));
    }
    let number = short(call(libc::SYS_openat, arguments));
    if number >= 0 {
        if is_nameless {
            state.record(Kind::Unknown, 0, 0, 0, &[b"O_TMPFILE"]);
        }
        state.opened(number, is_new);
        if flags & libc::O_TRUNC != 0
            && let Some(file) = state.file(number)
        {
            state.record(Kind::Resize, file, 0, 0, &[]);
        }
        if flags & (libc::O_SYNC | libc::O_DSYNC) != 0 {
            state.record(Kind::Unknown, 0, 0, 0, &[b"O_SYNC"]);
        }
    }
    number
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    open_at(libc::AT_FDCWD, path, flags, mode)
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    open_at(libc::AT_FDCWD, path, flags, mode)
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn openat(at: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    open_at(at, path, flags, mode)
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn openat64(
    at: c_int,
    path: *const c_char,
    flags: c_int,
    mode: mode_t,
) -> c_int {
    open_at(at, path, flags, mode)
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn creat(path: *const c_char, mode: mode_t) -> c_int {
    open_at(libc::AT_FDCWD, path, libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC, mode)
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn creat64(path: *const c_char, mode: mode_t) -> c_int {
    open_at(libc::AT_FDCWD, path, libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC, mode)
}

/// Does a write of one piece and records it. `offset` is `None` for the file's own position.
fn put(number: c_int, at: *const c_void, length: size_t, offset: Option<off_t>) -> ssize_t {
    let write = |length: usize| {
        let size = c_long::try_from(length).unwrap_or(c_long::MAX);
        match offset {
            Some(offset) => call(libc::SYS_pwrite64, [number.into(), pointer(at), size, offset, 0, 0]),
            None => call(libc::SYS_write, [number.into(), pointer(at), size, 0, 0, 0]),
        }
    };
    let Some((mut state, file)) = writes(number) else { return ssize(write(length)) };
    let length = match state.room(file, length) {
        Ok(length) => length,
        Err(error) => return ssize(fail(error)),
    };
    let written = write(length);
    if let Ok(count) = usize::try_from(written)
        && count > 0
    {
        let start = offset.map_or_else(|| position(number) - written, c_long::from);
        state.record(Kind::Write, file, unsigned(start), 0, &[unsafe { bytes(at, count) }]);
    }
    ssize(written)
}

/// As `put`, of several pieces.
fn put_all(number: c_int, pieces: *const iovec, count: c_int, offset: Option<off_t>) -> ssize_t {
    let write = |count: c_int| match offset {
        Some(offset) => call(libc::SYS_pwritev, [number.into(), pointer(pieces), count.into(), offset, 0, 0]),
        None => call(libc::SYS_writev, [number.into(), pointer(pieces), count.into(), 0, 0, 0]),
    };
    let Some((mut state, file)) = writes(number) else { return ssize(write(count)) };
    // Of one byte nobody takes a half.
    if let Err(error) = state.room(file, 1) {
        return ssize(fail(error));
    }
    let written = write(count);
    if let Ok(mut left) = usize::try_from(written)
        && left > 0
    {
        let start = offset.map_or_else(|| position(number) - written, c_long::from);
        let pieces = unsafe { std::slice::from_raw_parts(pieces, usize::try_from(count).unwrap_or(0)) };
        let mut parts = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let length = piece.iov_len.min(left);
            left -= length;
            parts.push(unsafe { bytes(piece.iov_base, length) });
        }
        state.record(Kind::Write, file, unsigned(start), 0, &parts);
    }
    ssize(written)
}

/// A read, which is recorded by nobody: it may fail.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pread(
    number: c_int,
    to: *mut c_void,
    length: size_t,
    offset: off_t,
) -> ssize_t {
    if state().is_some_and(|state| state.is_blind(number)) {
        return ssize(fail(libc::EIO));
    }
    let size = c_long::try_from(length).unwrap_or(c_long::MAX);
    ssize(call(libc::SYS_pread64, [number.into(), pointer(to), size, offset, 0, 0]))
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pread64(
    number: c_int,
    to: *mut c_void,
    length: size_t,
    offset: off_t,
) -> ssize_t {
    unsafe { pread(number, to, length, offset) }
}

fn ssize(number: c_long) -> ssize_t {
    ssize_t::try_from(number).unwrap_or(-1)
}

fn position(number: c_int) -> c_long {
    call(libc::SYS_lseek, [number.into(), 0, libc::SEEK_CUR.into(), 0, 0, 0])
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn write(number: c_int, at: *const c_void, length: size_t) -> ssize_t {
    put(number, at, length, None)
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pwrite(
    number: c_int,
    at: *const c_void,
    length: size_t,
    offset: off_t,
) -> ssize_t {
    put(number, at, length, Some(offset))
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pwrite64(
    number: c_int,
    at: *const c_void,
    length: size_t,
    offset: off_t,
) -> ssize_t {
    put(number, at, length, Some(offset))
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn writev(number: c_int, pieces: *const iovec, count: c_int) -> ssize_t {
    put_all(number, pieces, count, None)
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pwritev(
    number: c_int,
    pieces: *const iovec,
    count: c_int,
    offset: off_t,
) -> ssize_t {
    put_all(number, pieces, count, Some(offset))
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pwritev64(
    number: c_int,
    pieces: *const iovec,
    count: c_int,
    offset: off_t,
) -> ssize_t {
    put_all(number, pieces, count, Some(offset))
}

fn resize(number: c_int, length: off_t) -> c_int {
    let mut state = state();
    let file = state.as_mut().and_then(|state| state.file(number));
    let done = call(libc::SYS_ftruncate, [number.into(), length, 0, 0, 0, 0]);
    if done == 0
        && let (Some(state), Some(file)) = (&mut state, file)
    {
        state.record(Kind::Resize, file, unsigned(length), 0, &[]);
    }
    short(done)
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ftruncate(number: c_int, length: off_t) -> c_int {
    resize(number, length)
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ftruncate64(number: c_int, length: off_t) -> c_int {
    resize(number, length)
}

fn resize_path(path: *const c_char, length: off_t) -> c_int {
    let number = open_at(libc::AT_FDCWD, path, libc::O_WRONLY | libc::O_CLOEXEC, 0);
    if number < 0 {
        return number;
    }
    let done = resize(number, length);
    call(libc::SYS_close, [number.into(), 0, 0, 0, 0, 0]);
    done
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn truncate(path: *const c_char, length: off_t) -> c_int {
    resize_path(path, length)
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn truncate64(path: *const c_char, length: off_t) -> c_int {
    resize_path(path, length)
}

fn reserve(number: c_int, mode: c_int, offset: off_t, length: off_t) -> c_int {
    let mut state = state();
    let file = state.as_mut().and_then(|state| state.file(number));
    if file.is_some() && state.as_mut().is_some_and(|state| state.is_full()) {
        return short(fail(libc::ENOSPC));
    }
    let done = call(libc::SYS_fallocate, [number.into(), mode.into(), offset, length, 0, 0]);
    if done == 0
        && let (Some(state), Some(file)) = (&mut state, file)
    {
        match mode {
            0 => state.record(Kind::Reserve, file, unsigned(offset), unsigned(length), &[]),
            libc::FALLOC_FL_KEEP_SIZE => {}
            _ => state.record(Kind::Unknown, 0, 0, 0, &[b"fallocate that changes content"]),
        }
    }
    short(done)
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn fallocate(number: c_int, mode: c_int, offset: off_t, length: off_t) -> c_int {
    reserve(number, mode, offset, length)
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn fallocate64(
    number: c_int,
    mode: c_int,
    offset: off_t,
    length: off_t,
) -> c_int {
    reserve(number, mode, offset, length)
}

/// Gives the error instead of setting it.
fn reserve_or_errno(number: c_int, offset: off_t, length: off_t) -> c_int {
    if reserve(number, 0, offset, length) == 0 { 0 } else { unsafe { *libc::__errno_location() } }
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn posix_fallocate(number: c_int, offset: off_t, length: off_t) -> c_int {
    reserve_or_errno(number, offset, length)
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn posix_fallocate64(number: c_int, offset: off_t, length: off_t) -> c_int {
    reserve_or_errno(number, offset, length)
}

/// Does a call that changes one name, or moves one to another, and records it.
fn names(
    kind: Kind,
    first: (c_int, *const c_char),
    second: Option<(c_int, *const c_char)>,
    number: c_long,
    arguments: [c_long; 6],
) -> c_int {
    let Some(mut state) = state() else { return short(call(number, arguments)) };
    // Before the call: afterwards the name may lead elsewhere.
    let from = state.relative(first.0, first.1);
    let to = second.and_then(|(at, path)| state.relative(at, path));
    if from.is_some() && kind == Kind::MakeFolder && state.is_full() {
        return short(fail(libc::ENOSPC));
    }
    let lost = match (kind, second) {
        (Kind::Unlink | Kind::DropFolder, _) => last_name(first.0, first.1),
        (Kind::Rename, Some((at, path))) => last_name(at, path),
        _ => None,
    };
    let done = call(number, arguments);
    if done == 0 {
        if let Some(identity) = lost.filter(|_| from.is_some()) {
            state.forget(identity);
        }
        match (from, second, to) {
            (Some(path), None, _) => state.record(kind, 0, 0, 0, &[&path]),
            (Some(from), Some(_), Some(to)) => state.record(kind, 0, 0, 0, &[&from, &[0], &to]),
            (None, _, None) => {}
            _ => state.record(Kind::Unknown, 0, 0, 0, &[b"a move across the folder's border"]),
        }
    }
    short(done)
}

fn move_name(from: (c_int, *const c_char), to: (c_int, *const c_char), flags: c_uint) -> c_int {
    let arguments = [from.0.into(), pointer(from.1), to.0.into(), pointer(to.1), flags.into(), 0];
    names(Kind::Rename, from, Some(to), libc::SYS_renameat2, arguments)
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    move_name((libc::AT_FDCWD, from), (libc::AT_FDCWD, to), 0)
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn renameat(
    at: c_int,
    from: *const c_char,
    to_at: c_int,
    to: *const c_char,
) -> c_int {
    move_name((at, from), (to_at, to), 0)
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn renameat2(
    at: c_int,
    from: *const c_char,
    to_at: c_int,
    to: *const c_char,
    flags: c_uint,
) -> c_int {
    move_name((at, from), (to_at, to), flags)
}

fn unlink_at(at: c_int, path: *const c_char, flags: c_int) -> c_int {
    let kind = if flags & libc::AT_REMOVEDIR != 0 { Kind::DropFolder } else { Kind::Unlink };
    let arguments = [at.into(), pointer(path), flags.into(), 0, 0, 0];
    names(kind, (at, path), None, libc::SYS_unlinkat, arguments)
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    unlink_at(libc::AT_FDCWD, path, 0)
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn unlinkat(at: c_int, path: *const c_char, flags: c_int) -> c_int {
    unlink_at(at, path, flags)
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn rmdir(path: *const c_char) -> c_int {
    unlink_at(libc::AT_FDCWD, path, libc::AT_REMOVEDIR)
}

fn make_folder(at: c_int, path: *const c_char, mode: mode_t) -> c_int {
    let arguments = [at.into(), pointer(path), mode.into(), 0, 0, 0];
    names(Kind::MakeFolder, (at, path), None, libc::SYS_mkdirat, arguments)
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mkdir(path: *const c_char, mode: mode_t) -> c_int {
    make_folder(libc::AT_FDCWD, path, mode)
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mkdirat(at: c_int, path: *const c_char, mode: mode_t) -> c_int {
    make_folder(at, path, mode)
}

fn link_name(from: (c_int, *const c_char), to: (c_int, *const c_char), flags: c_int) -> c_int {
    let arguments = [from.0.into(), pointer(from.1), to.0.into(), pointer(to.1), flags.into(), 0];
    names(Kind::Link, from, Some(to), libc::SYS_linkat, arguments)
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn link(from: *const c_char, to: *const c_char) -> c_int {
    link_name((libc::AT_FDCWD, from), (libc::AT_FDCWD, to), 0)
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn linkat(
    at: c_int,
    from: *const c_char,
    to_at: c_int,
    to: *const c_char,
    flags: c_int,
) -> c_int {
    link_name((at, from), (to_at, to), flags)
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn symlinkat(target: *const c_char, at: c_int, path: *const c_char) -> c_int {
    let arguments = [pointer(target), at.into(), pointer(path), 0, 0, 0];
    unknown_if_inside(at, path, b"symlink");
    short(call(libc::SYS_symlinkat, arguments))
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn symlink(target: *const c_char, path: *const c_char) -> c_int {
    unsafe { symlinkat(target, libc::AT_FDCWD, path) }
}

fn unknown_if_inside(at: c_int, path: *const c_char, name: &[u8]) {
    if let Some(mut state) = state()
        && state.relative(at, path).is_some()
    {
        state.record(Kind::Unknown, 0, 0, 0, &[name]);
    }
}

/// Does a flush and records its beginning and its success. Others may write meanwhile.
fn flush(number: c_int, kernel: c_long) -> c_int {
    let begun = state().and_then(|mut state| {
        let file = state.file(number)?;
        Some((file, state.begin(file)))
    });
    if begun.is_some() {
        hang();
        if let Some(error) = state().and_then(|mut state| state.flush_failure()) {
            return short(fail(error));
        }
    }
    let done = call(kernel, [number.into(), 0, 0, 0, 0, 0]);
    if done == 0
        && let Some((file, sync)) = begun
        && let Some(mut state) = state()
    {
        state.record(Kind::SyncEnd, file, sync, 0, &[]);
    }
    short(done)
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn fsync(number: c_int) -> c_int {
    flush(number, libc::SYS_fsync)
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn fdatasync(number: c_int) -> c_int {
    flush(number, libc::SYS_fdatasync)
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn sync() {
    let begun = state().map(|mut state| state.begin(0));
    call(libc::SYS_sync, [0; 6]);
    if let (Some(sync), Some(mut state)) = (begun, state()) {
        state.record(Kind::SyncEnd, 0, sync, 0, &[]);
    }
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn syncfs(number: c_int) -> c_int {
    let begun = state().map(|mut state| state.begin(0));
    let done = call(libc::SYS_syncfs, [number.into(), 0, 0, 0, 0, 0]);
    if done == 0
        && let (Some(sync), Some(mut state)) = (begun, state())
    {
        state.record(Kind::SyncEnd, 0, sync, 0, &[]);
    }
    short(done)
}

fn map(
    at: *mut c_void,
    length: size_t,
    rights: c_int,
    flags: c_int,
    number: c_int,
    offset: off_t,
) -> *mut c_void {
    let shared = flags & (libc::MAP_SHARED | libc::MAP_SHARED_VALIDATE) != 0;
    if number >= 0
        && shared
        && rights & libc::PROT_WRITE != 0
        && let Some(mut state) = state()
        && state.file(number).is_some()
    {
        state.record(Kind::Unknown, 0, 0, 0, &[b"a shared writable mapping"]);
    }
    let length = c_long::try_from(length).unwrap_or(c_long::MAX);
    let arguments = [pointer(at), length, rights.into(), flags.into(), number.into(), offset];
    call(libc::SYS_mmap, arguments) as *mut c_void
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mmap(
    at: *mut c_void,
    length: size_t,
    rights: c_int,
    flags: c_int,
    number: c_int,
    offset: off_t,
) -> *mut c_void {
    map(at, length, rights, flags, number, offset)
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mmap64(
    at: *mut c_void,
    length: size_t,
    rights: c_int,
    flags: c_int,
    number: c_int,
    offset: off_t,
) -> *mut c_void {
    map(at, length, rights, flags, number, offset)
}

/// Refused where a watched file takes the bytes, so that the caller writes them.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn copy_file_range(
    from: c_int,
    from_at: *mut off_t,
    to: c_int,
    to_at: *mut off_t,
    length: size_t,
    flags: c_uint,
) -> ssize_t {
    if state().is_some_and(|mut state| state.file(to).is_some()) {
        return ssize(fail(libc::ENOSYS));
    }
    let length = c_long::try_from(length).unwrap_or(c_long::MAX);
    let arguments = [from.into(), pointer(from_at), to.into(), pointer(to_at), length, flags.into()];
    ssize(call(libc::SYS_copy_file_range, arguments))
}

/// As `copy_file_range`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn sendfile64(
    to: c_int,
    from: c_int,
    at: *mut off_t,
    length: size_t,
) -> ssize_t {
    if state().is_some_and(|mut state| state.file(to).is_some()) {
        return ssize(fail(libc::EINVAL));
    }
    let length = c_long::try_from(length).unwrap_or(c_long::MAX);
    ssize(call(libc::SYS_sendfile, [to.into(), from.into(), pointer(at), length, 0, 0]))
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn sendfile(to: c_int, from: c_int, at: *mut off_t, length: size_t) -> ssize_t {
    unsafe { sendfile64(to, from, at, length) }
}
