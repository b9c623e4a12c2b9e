//! What the shim remembers, and how it writes the trace.

use std::{
    collections::BTreeMap,
    ffi::{CStr, CString, c_char, c_int, c_long},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use nix::libc;

use crate::trace::{BLIND, FAIL, FOLDER, FULL, HANG, HEAD, HOLD, Kind, MADE, OF_FLUSH, TRACE, WATCHED};

/// Above the numbers that programs expect for files of their own.
const TRACE_NUMBER: c_int = 900;
const MARKS: &[u8] = b"marks";

static STATE: OnceLock<Option<Mutex<State>>> = OnceLock::new();

pub(crate) struct State {
    folder: Vec<u8>,
    full: Option<CString>,
    hold: Option<CString>,
    fail: Option<CString>,
    blind: Option<CString>,
    trace: c_int,
    /// Device and inode of every file that was opened under the folder.
    known: BTreeMap<(u64, u64), u64>,
    /// What the program writes as marks; it is on no disk that could be full.
    marks: Option<u64>,
    next: u64,
    syncs: u64,
    /// The first write to a full disk is cut in half, as real ones are.
    was_full: bool,
}

/// The state, if this process is watched.
pub(crate) fn state() -> Option<MutexGuard<'static, State>> {
    let state = STATE.get_or_init(State::start).as_ref()?;
    Some(state.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The state and the number of a watched file that is about to be written to, as soon as nothing holds writes.
pub(crate) fn writes(number: c_int) -> Option<(MutexGuard<'static, State>, u64)> {
    let mut state = state()?;
    let file = state.file(number)?;
    while state.marks != Some(file) && state.hold.as_deref().is_some_and(exists) {
        drop(state);
        std::thread::sleep(std::time::Duration::from_millis(1));
        state = self::state()?;
    }
    Some((state, file))
}

fn variable(name: &str) -> Option<Vec<u8>> {
    use std::os::unix::ffi::OsStringExt;
    std::env::var_os(name).map(OsStringExt::into_vec).filter(|value| !value.is_empty())
}

pub(crate) fn call(number: c_long, arguments: [c_long; 6]) -> c_long {
    let [a, b, c, d, e, f] = arguments;
    unsafe { libc::syscall(number, a, b, c, d, e, f) }
}

pub(crate) fn fail(errno: c_int) -> c_long {
    unsafe { *libc::__errno_location() = errno };
    -1
}

/// Waits while the file that makes flushes hang exists.
pub(crate) fn hang() {
    let Some(marker) = variable(HANG).and_then(|path| CString::new(path).ok()) else { return };
    while exists(&marker) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

pub(crate) fn exists(path: &CStr) -> bool {
    call(libc::SYS_faccessat, [libc::AT_FDCWD.into(), path.as_ptr() as c_long, 0, 0, 0, 0]) == 0
}

/// The first bytes of a file, by the kernel's own calls: those of the C library come back here. `None` if there is none.
fn content<const MOST: usize>(path: &CStr) -> Option<Vec<u8>> {
    let open = [libc::AT_FDCWD.into(), path.as_ptr() as c_long, libc::O_RDONLY.into(), 0, 0, 0];
    let file = call(libc::SYS_openat, open);
    if file < 0 {
        return None;
    }
    let mut bytes = [0u8; MOST];
    let most = c_long::try_from(MOST).unwrap_or(0);
    let count = call(libc::SYS_read, [file, bytes.as_mut_ptr() as c_long, most, 0, 0, 0]);
    call(libc::SYS_close, [file, 0, 0, 0, 0, 0]);
    bytes.get(..usize::try_from(count).ok()?).map(<[u8]>::to_vec)
}

impl State {
    fn start() -> Option<Mutex<Self>> {
        let folder = variable(WATCHED)?;
        let trace = CString::new(variable(TRACE)?).ok()?;
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND | libc::O_CLOEXEC;
        let at = libc::AT_FDCWD.into();
        let low = call(libc::SYS_openat, [at, trace.as_ptr() as c_long, flags.into(), 0o600, 0, 0]);
        let high = call(libc::SYS_fcntl, [low, libc::F_DUPFD_CLOEXEC.into(), TRACE_NUMBER.into(), 0, 0, 0]);
        call(libc::SYS_close, [low, 0, 0, 0, 0, 0]);
        let trace = c_int::try_from(high).ok().filter(|number| *number >= 0)?;
        let [full, hold, fail, blind] =
            [FULL, HOLD, FAIL, BLIND].map(|name| variable(name).and_then(|path| CString::new(path).ok()));
        Some(Mutex::new(Self {
            folder,
            full,
            hold,
            fail,
            blind,
            trace,
            known: BTreeMap::new(),
            marks: None,
            next: 1,
            syncs: 0,
            was_full: false,
        }))
    }

    /// Whether the disk is full now.
    pub(crate) fn is_full(&mut self) -> bool {
        let is_full = self.full.as_deref().is_some_and(exists);
        self.was_full &= is_full;
        is_full
    }

    /// How much of a write the disk takes, or the error that it tells. Of the first write a full one takes one half, of the
    /// others nothing.
    pub(crate) fn room(&mut self, file: u64, length: usize) -> Result<usize, c_int> {
        if self.marks == Some(file) {
            return Ok(length);
        }
        if let Some(error) = self.failure(0) {
            return Err(error);
        }
        if !self.is_full() {
            return Ok(length);
        }
        let is_first = !std::mem::replace(&mut self.was_full, true);
        if is_first && length > 1 { Ok(length / 2) } else { Err(libc::ENOSPC) }
    }

    /// The error that the next flush is to get, once.
    pub(crate) fn flush_failure(&mut self) -> Option<c_int> {
        self.failure(OF_FLUSH)
    }

    /// The error that the next write, or flush, is to get, once.
    fn failure(&mut self, of: u8) -> Option<c_int> {
        let path = self.fail.as_deref()?;
        let error = content::<1>(path)?.first().copied().filter(|error| error & OF_FLUSH == of)?;
        call(libc::SYS_unlinkat, [libc::AT_FDCWD.into(), path.as_ptr() as c_long, 0, 0, 0, 0]);
        Some(c_int::from(error & !OF_FLUSH))
    }

    /// Whether the disk cannot read a file now.
    pub(crate) fn is_blind(&self, number: c_int) -> bool {
        // One that is just being written names nothing yet.
        let under = self.blind.as_deref().and_then(content::<64>).filter(|under| !under.is_empty());
        let Some(under) = under else { return false };
        link(number).and_then(|path| self.inside(&path)).is_some_and(|path| path.starts_with(&under))
    }

    /// The number of an open file, if it lies under the folder.
    pub(crate) fn file(&mut self, number: c_int) -> Option<u64> {
        if number == self.trace {
            return None;
        }
        self.known.get(&identity(number)?).copied()
    }

    /// Forgets a file whose last name is gone: the system gives its number to another.
    pub(crate) fn forget(&mut self, identity: (u64, u64)) {
        self.known.remove(&identity);
    }

    /// The path of a call, relative to the folder.
    pub(crate) fn relative(&self, at: c_int, path: *const c_char) -> Option<Vec<u8>> {
        if path.is_null() {
            return None;
        }
        let path = unsafe { CStr::from_ptr(path) }.to_bytes();
        if path.first() == Some(&b'/') {
            return self.inside(path);
        }
        let mut whole = link(at)?;
        if !path.is_empty() {
            whole.push(b'/');
            whole.extend_from_slice(path);
        }
        self.inside(&whole)
    }

    fn inside(&self, path: &[u8]) -> Option<Vec<u8>> {
        let rest = path.strip_prefix(&self.folder[..])?;
        match rest.split_first() {
            None => Some(Vec::new()),
            Some((b'/', rest)) => Some(rest.to_vec()),
            Some(_) => None,
        }
    }

    /// Records an open file; `made` says that it was not there before.
    pub(crate) fn opened(&mut self, number: c_int, made: bool) {
        let Some(path) = link(number).and_then(|path| self.inside(&path)) else { return };
        let Some(identity) = identity(number) else { return };
        if !made && self.known.contains_key(&identity) {
            return;
        }
        let file = self.next;
        self.next += 1;
        self.known.insert(identity, file);
        if path == MARKS {
            self.marks = Some(file);
        }
        let flags = if made { MADE } else { 0 } | if is_folder(number) { FOLDER } else { 0 };
        self.record(Kind::Open, file, flags, 0, &[&path]);
    }

    /// A flush begins; its number.
    pub(crate) fn begin(&mut self, file: u64) -> u64 {
        self.syncs += 1;
        self.record(Kind::SyncBegin, file, self.syncs, 0, &[]);
        self.syncs
    }

    pub(crate) fn record(&mut self, kind: Kind, file: u64, a: u64, b: u64, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let mut record = Vec::with_capacity(HEAD + length);
        record.push(kind as u8);
        for number in [file, a, b] {
            record.extend_from_slice(&number.to_le_bytes());
        }
        record.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
        for part in parts {
            record.extend_from_slice(part);
        }
        let mut rest = &record[..];
        while !rest.is_empty() {
            let at = rest.as_ptr() as c_long;
            let size = c_long::try_from(rest.len()).unwrap_or(c_long::MAX);
            let written = call(libc::SYS_write, [self.trace.into(), at, size, 0, 0, 0]);
            match usize::try_from(written) {
                Ok(count) if count > 0 => rest = rest.get(count..).unwrap_or_default(),
                // A trace with a hole would let a store pass: the process must not go on.
                _ => std::process::abort(),
            }
        }
    }
}

fn stat(number: c_int) -> Option<libc::stat> {
    let mut found = std::mem::MaybeUninit::<libc::stat>::zeroed();
    let done = unsafe { libc::fstat(number, found.as_mut_ptr()) };
    (done == 0).then(|| unsafe { found.assume_init() })
}

fn identity(number: c_int) -> Option<(u64, u64)> {
    stat(number).map(|found| (found.st_dev, found.st_ino))
}

/// Device and inode of the file that a name leads to, if that is its last name.
pub(crate) fn last_name(at: c_int, path: *const c_char) -> Option<(u64, u64)> {
    let mut found = std::mem::MaybeUninit::<libc::stat>::zeroed();
    let done = unsafe { libc::fstatat(at, path, found.as_mut_ptr(), libc::AT_SYMLINK_NOFOLLOW) };
    let found = (done == 0).then(|| unsafe { found.assume_init() })?;
    let is_folder = found.st_mode & libc::S_IFMT == libc::S_IFDIR;
    (is_folder || found.st_nlink == 1).then_some((found.st_dev, found.st_ino))
}

fn is_folder(number: c_int) -> bool {
    stat(number).is_some_and(|found| found.st_mode & libc::S_IFMT == libc::S_IFDIR)
}

/// Where an open file or folder lies; the working folder for `AT_FDCWD`.
fn link(number: c_int) -> Option<Vec<u8>> {
    let name = match number {
        libc::AT_FDCWD => c"/proc/self/cwd".to_owned(),
        number => CString::new(format!("/proc/self/fd/{number}")).ok()?,
    };
    let mut path = vec![0u8; 4096];
    let at = libc::AT_FDCWD.into();
    let size = c_long::try_from(path.len()).ok()?;
    let buffer = path.as_mut_ptr() as c_long;
    let length = call(libc::SYS_readlinkat, [at, name.as_ptr() as c_long, buffer, size, 0, 0]);
    path.truncate(usize::try_from(length).ok()?);
    Some(path)
}
