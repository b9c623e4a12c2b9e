//! The tracer: starts the program, and looks at it whenever it enters or leaves a system call.
//!
//! One thread does it all, because the system accepts a tracer's requests from the thread that started the program
//! only, and because it must wait for no other child of this process.

use std::{
    collections::HashMap,
    fs::File,
    io::{Read, Write as _},
    os::unix::{fs::FileExt, process::CommandExt},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    libc,
    sys::{
        ptrace::{self, Options},
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use super::{
    Call, End, Kill, Memory, Plan, Target, Trace, TraceError, Write, filter,
    table::{self, Shape},
};

/// Flags of an opening that makes a file without a name.
const NAMELESS: u64 = libc::O_TMPFILE.unsigned_abs() as u64;

/// Longest path that a call may name: the system's own limit.
const PATH_LIMIT: usize = 4096;
/// Most buffers of one call: the system's own limit.
const VECTOR_LIMIT: usize = 1024;

pub(super) fn run(plan: &Plan) -> Result<Trace, TraceError> {
    let plan = plan.clone();
    thread::spawn(move || trace(&plan)).join().expect("the tracer's thread")
}

fn trace(plan: &Plan) -> Result<Trace, TraceError> {
    let mut child = start(plan)?;
    let main = Pid::from_raw(libc::pid_t::try_from(child.id()).expect("a process number"));
    // It stands at its first instruction.
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXIT
        | Options::PTRACE_O_TRACESECCOMP
        | Options::PTRACE_O_EXITKILL;
    match waitpid(main, None) {
        Ok(WaitStatus::Stopped(_, Signal::SIGTRAP)) => {}
        other => return Err(TraceError::Start(std::io::Error::other(format!("{other:?}")))),
    }
    ptrace::setoptions(main, options).map_err(|error| TraceError::Forbidden(error.into()))?;
    let open = |name: &str| File::open(format!("/proc/{main}/{name}")).map_err(TraceError::Forbidden);
    let (maps, mem) = (open("maps")?, open("mem")?);

    let input = plan.input.clone();
    let mut stdin = child.stdin.take().expect("a pipe");
    let feeder = thread::spawn(move || {
        // It may end without reading it all.
        let _ = stdin.write_all(&input);
    });
    let stdout = collect(child.stdout.take().expect("a pipe"));
    let stderr = collect(child.stderr.take().expect("a pipe"));
    let (ended, watchdog_hears) = channel::<()>();
    let limit = plan.limit;
    let watchdog = thread::spawn(move || watch(main, limit, &watchdog_hears));

    let mut tracer = Tracer::new(plan, main, maps, mem);
    let end = tracer.follow();
    drop(ended);
    let too_long = watchdog.join().expect("the watchdog");
    let _ = feeder.join();
    let (stdout, stderr) = (stdout.join().expect("a reader"), stderr.join().expect("a reader"));
    if too_long {
        return Err(TraceError::TooLong(plan.limit));
    }
    let Tracer { calls, writes, memory, .. } = tracer;
    Ok(Trace { calls, writes, stdout, stderr, end, memory })
}

#[expect(unsafe_code, reason = "the only way to be traced from the first instruction on")]
fn start(plan: &Plan) -> Result<Child, TraceError> {
    let mut command = Command::new(&plan.program);
    command
        .args(&plan.arguments)
        .envs(plan.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut list = if plan.all_calls { Vec::new() } else { filter::list() };
    let prepare = move || {
        ptrace::traceme()?;
        if list.is_empty() { Ok(()) } else { filter::put(&mut list) }
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; these are system calls.
    unsafe { command.pre_exec(prepare) };
    command.spawn().map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied if plan.program.is_file() => TraceError::Forbidden(error),
        _ => TraceError::Start(error),
    })
}

fn collect(mut from: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}

/// Kills the process if it does not end within its time; answers whether it had to.
fn watch(process: Pid, limit: Duration, ended: &std::sync::mpsc::Receiver<()>) -> bool {
    match ended.recv_timeout(limit) {
        Err(RecvTimeoutError::Timeout) => {
            let _ = kill(process, Signal::SIGKILL);
            true
        }
        _ => false,
    }
}

struct Tracer<'a> {
    plan: &'a Plan,
    main: Pid,
    maps: File,
    mem: File,
    /// Numbers of the threads in the order in which they were seen.
    threads: HashMap<Pid, usize>,
    /// The call that each thread is in.
    pending: HashMap<Pid, Pending>,
    /// What the descriptors stand for.
    files: HashMap<u64, Target>,
    calls: Vec<Call>,
    writes: Vec<Write>,
    changes: usize,
    memory: Option<Memory>,
}

/// A call that was entered.
struct Pending {
    call: Call,
    shape: Shape,
    arguments: [u64; 6],
    /// What is being written to a watched file.
    bytes: Option<Vec<u8>>,
}

impl<'a> Tracer<'a> {
    fn new(plan: &'a Plan, main: Pid, maps: File, mem: File) -> Self {
        let files = (0..3).map(|number| (u64::from(number), Target::Standard(number))).collect();
        Self {
            plan,
            main,
            maps,
            mem,
            threads: HashMap::from([(main, 0)]),
            pending: HashMap::new(),
            files,
            calls: Vec::new(),
            writes: Vec::new(),
            changes: 0,
            memory: None,
        }
    }

    /// Until the process and all its threads are gone.
    fn follow(&mut self) -> End {
        let mut end = End::Signaled(libc::SIGKILL);
        self.resume(self.main, None);
        loop {
            // Only children of this thread: the process that runs the test may have others.
            let flags = WaitPidFlag::__WALL | WaitPidFlag::from_bits_retain(libc::__WNOTHREAD);
            let status = match waitpid(Pid::from_raw(-1), Some(flags)) {
                Ok(status) => status,
                Err(Errno::EINTR) => continue,
                Err(_) => return end,
            };
            match status {
                WaitStatus::PtraceSyscall(thread) => {
                    self.stopped_at_call(thread);
                    self.resume(thread, None);
                }
                WaitStatus::PtraceEvent(thread, _, libc::PTRACE_EVENT_SECCOMP) => {
                    if !self.plan.all_calls {
                        self.stopped_at_call(thread);
                    }
                    self.resume(thread, None);
                }
                WaitStatus::PtraceEvent(thread, _, event) => {
                    if event == libc::PTRACE_EVENT_EXIT
                        && thread == self.main
                        && self.plan.keep_memory
                        && self.memory.is_none()
                    {
                        self.memory = Some(Memory::read(&mut self.maps, &self.mem));
                    }
                    self.resume(thread, None);
                }
                WaitStatus::Stopped(thread, signal) => {
                    // A new thread begins with a stop of its own, which is no signal for the program.
                    let new = self.number(thread);
                    let deliver = !(new.is_none() && signal == Signal::SIGSTOP);
                    self.resume(thread, deliver.then_some(signal));
                }
                WaitStatus::Exited(process, code) if process == self.main => end = End::Exited(code),
                WaitStatus::Signaled(process, signal, _) if process == self.main => {
                    end = End::Signaled(signal as i32);
                }
                _ => {}
            }
        }
    }

    /// Its number, if it was seen before; it has one from now on.
    fn number(&mut self, thread: Pid) -> Option<usize> {
        let known = self.threads.get(&thread).copied();
        let next = self.threads.len();
        self.threads.entry(thread).or_insert(next);
        known
    }

    fn resume(&self, thread: Pid, signal: Option<Signal>) {
        let at_next_call = self.plan.all_calls || self.pending.contains_key(&thread);
        let go_on = if at_next_call { ptrace::syscall } else { ptrace::cont };
        // It may have been killed meanwhile; the next wait tells.
        let _ = go_on(thread, signal);
    }

    fn stopped_at_call(&mut self, thread: Pid) {
        match stop(thread) {
            Some(Stop::Entry { number, arguments }) => {
                let pending = self.enter(thread, number, arguments);
                let changes = pending.call.changes_a_file();
                if changes && self.plan.kill == Some(Kill::Before(self.changes)) {
                    let _ = kill(self.main, Signal::SIGKILL);
                    return;
                }
                self.pending.insert(thread, pending);
            }
            Some(Stop::Exit { result }) => {
                if let Some(pending) = self.pending.remove(&thread) {
                    self.leave(pending, result);
                }
            }
            None => {}
        }
    }

    fn enter(&mut self, thread: Pid, number: u64, arguments: [u64; 6]) -> Pending {
        let (name, shape) = table::call(number);
        let _ = self.number(thread);
        let mut call = Call {
            thread: self.threads[&thread],
            name,
            target: Target::Nothing,
            second: None,
            offset: None,
            length: None,
            flags: None,
            result: 0,
            changes: false,
        };
        let on_descriptor = |files: &HashMap<u64, Target>| {
            files.get(&(arguments[0] & 0xffff_ffff)).cloned().unwrap_or(Target::Other)
        };
        let mut bytes = None;
        match shape {
            Shape::Bare | Shape::NewSocket | Shape::NewOther => {}
            Shape::Descriptor | Shape::Messages | Shape::Close | Shape::Duplicate => {
                call.target = on_descriptor(&self.files)
            }
            Shape::Open { path } => {
                call.target = self.path(arguments[path]);
                call.flags = Some(arguments[path + 1]);
                let nameless = arguments[path + 1] & NAMELESS == NAMELESS;
                if nameless {
                    call.target = self.comes_to(&call.target);
                }
                let writing = libc::O_CREAT | libc::O_TRUNC;
                let writes = nameless || arguments[path + 1] & u64::from(writing.unsigned_abs()) != 0;
                call.changes = writes && is_kept(&call.target);
            }
            Shape::Path { path, second } => {
                call.target = self.path(arguments[path]);
                call.second = second.and_then(|second| self.text(arguments[second]));
                call.changes = true;
            }
            Shape::Look { path } => call.target = self.path(arguments[path]),
            Shape::Transfer { write, at } => {
                call.target = on_descriptor(&self.files);
                call.length = Some(arguments[2]);
                call.offset = at.then_some(arguments[3]);
                call.changes = write && is_kept(&call.target);
                if write && self.is_watched(&call.target) {
                    bytes = Some(self.bytes(arguments[1], arguments[2]));
                }
            }
            Shape::Vector { write, at } => {
                call.target = on_descriptor(&self.files);
                let parts = self.vector(arguments[1], arguments[2]);
                call.length = Some(parts.iter().map(|(_, length)| length).sum());
                call.offset = at.then_some(arguments[3]);
                call.changes = write && is_kept(&call.target);
                if write && self.is_watched(&call.target) {
                    bytes = Some(parts.iter().flat_map(|(at, length)| self.bytes(*at, *length)).collect());
                }
            }
            Shape::Packet => {
                call.target = on_descriptor(&self.files);
                call.length = Some(arguments[2]);
            }
            Shape::Message => {
                call.target = on_descriptor(&self.files);
                // The header: name, its length, the buffers, their number (four words on these systems).
                let header = self.words(arguments[1], 4);
                if let [_, _, list, number] = header.as_slice() {
                    call.length = Some(self.vector(*list, *number).iter().map(|(_, length)| length).sum());
                }
            }
            Shape::Sync => {
                call.target = on_descriptor(&self.files);
                call.changes = is_kept(&call.target);
            }
            Shape::Resize { length } => {
                call.target = on_descriptor(&self.files);
                call.length = Some(arguments[length]);
                call.changes = is_kept(&call.target);
            }
            Shape::Command => {
                call.target = on_descriptor(&self.files);
                call.flags = Some(arguments[1]);
            }
            Shape::Map => {
                call.length = Some(arguments[1]);
                call.flags = Some(arguments[2]);
            }
        }
        Pending { call, shape, arguments, bytes }
    }

    fn leave(&mut self, pending: Pending, result: i64) {
        let Pending { mut call, shape, arguments, bytes } = pending;
        let mut at_end = false;
        let failed = result < 0;
        let number = result.unsigned_abs();
        // Addresses, descriptors and process numbers are other ones in every run.
        call.result = match shape {
            _ if failed => result,
            Shape::Map | Shape::Open { .. } | Shape::NewSocket | Shape::NewOther | Shape::Duplicate => 0,
            Shape::Bare | Shape::Command => 0,
            _ => result,
        };
        if !failed {
            match shape {
                Shape::Open { .. } => drop(self.files.insert(number, call.target.clone())),
                Shape::NewSocket => drop(self.files.insert(number, Target::Socket)),
                Shape::NewOther => drop(self.files.insert(number, Target::Other)),
                Shape::Duplicate => drop(self.files.insert(number, call.target.clone())),
                Shape::Command if arguments[1] == u64::from(libc::F_DUPFD_CLOEXEC.unsigned_abs()) => {
                    self.files.insert(number, call.target.clone());
                }
                Shape::Close => drop(self.files.remove(&arguments[0])),
                Shape::Messages => {
                    // Eight words each; the last begins with the number of bytes that went through.
                    let words = self.words(arguments[1], usize::try_from(number).expect("a count") * 8);
                    let (messages, _) = words.as_chunks::<8>();
                    call.length = Some(messages.iter().map(|message| message[7] & 0xffff_ffff).sum());
                }
                _ => {}
            }
            self.keep(&call, shape, bytes, number);
        }
        if call.changes {
            at_end = self.plan.kill == Some(Kill::After(self.changes));
            self.changes += 1;
        }
        self.calls.push(call);
        if at_end {
            let _ = kill(self.main, Signal::SIGKILL);
        }
    }

    /// What a call did to a watched file.
    fn keep(&mut self, call: &Call, shape: Shape, bytes: Option<Vec<u8>>, written: u64) {
        let Some(file) = call.file().filter(|_| self.is_watched(&call.target)).cloned() else { return };
        // The call itself is added when this is done.
        let at = self.calls.len();
        match (shape, bytes) {
            (Shape::Sync, _) => self.writes.push(Write { file, offset: None, bytes: Vec::new(), call: at }),
            (_, Some(mut bytes)) => {
                bytes.truncate(usize::try_from(written).expect("a length"));
                self.writes.push(Write { file, offset: call.offset, bytes, call: at });
            }
            _ => {}
        }
    }

    fn is_watched(&self, target: &Target) -> bool {
        matches!(target, Target::File(path) if self.plan.watch.contains(path))
    }

    /// A file that is made without a name in this folder: the one that is watched and is not there yet, if there is one.
    fn comes_to(&self, folder: &Target) -> Target {
        let Target::File(folder) = folder else { return folder.clone() };
        let watched = self.plan.watch.iter();
        let mut coming = watched.filter(|path| path.parent() == Some(folder) && !path.exists());
        Target::File(coming.next().unwrap_or(folder).clone())
    }

    fn path(&self, address: u64) -> Target {
        self.text(address).map_or(Target::Nothing, Target::File)
    }

    /// The text at this address, up to its zero.
    fn text(&self, address: u64) -> Option<PathBuf> {
        let mut bytes = vec![0; PATH_LIMIT];
        // The page behind it may not be there: read up to the end of each page.
        let mut read = 0;
        while read < PATH_LIMIT && !bytes[..read].contains(&0) {
            let at = address + read as u64;
            let to_page_end = usize::try_from(4096 - at % 4096).expect("less than a page");
            let take = to_page_end.min(PATH_LIMIT - read);
            self.mem.read_exact_at(&mut bytes[read..read + take], at).ok()?;
            read += take;
        }
        let end = bytes.iter().position(|byte| *byte == 0)?;
        String::from_utf8(bytes[..end].to_vec()).ok().map(PathBuf::from)
    }

    fn bytes(&self, address: u64, length: u64) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(length).expect("a length")];
        // What cannot be read cannot be written either: the call itself fails.
        let _ = self.mem.read_exact_at(&mut bytes, address);
        bytes
    }

    fn words(&self, address: u64, count: usize) -> Vec<u64> {
        let bytes = self.bytes(address, count as u64 * 8);
        bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect()
    }

    /// Address and length of each buffer in a list.
    fn vector(&self, address: u64, count: u64) -> Vec<(u64, u64)> {
        let count = usize::try_from(count).expect("a count").min(VECTOR_LIMIT);
        self.words(address, count * 2).as_chunks::<2>().0.iter().map(|pair| (pair[0], pair[1])).collect()
    }
}

/// Whether what is written there stays: not so for devices and the kernel's own files. Among the devices may lie a file
/// system in memory, with somebody's temporary files.
fn is_kept(target: &Target) -> bool {
    let Target::File(path) = target else { return false };
    let is_device = path.starts_with("/dev") && !path.starts_with("/dev/shm");
    !is_device && !path.starts_with("/proc")
}

enum Stop {
    Entry { number: u64, arguments: [u64; 6] },
    Exit { result: i64 },
}

/// Which stop a thread is at.
#[expect(unsafe_code, reason = "the C library describes the kernel's answer as a union")]
fn stop(thread: Pid) -> Option<Stop> {
    let info = ptrace::syscall_info(thread).ok()?;
    match info.op {
        libc::PTRACE_SYSCALL_INFO_ENTRY => {
            // SAFETY: `op` says that the kernel filled in this member.
            let entry = unsafe { info.u.entry };
            Some(Stop::Entry { number: entry.nr, arguments: entry.args })
        }
        libc::PTRACE_SYSCALL_INFO_SECCOMP => {
            // SAFETY: as above.
            let entry = unsafe { info.u.seccomp };
            Some(Stop::Entry { number: entry.nr, arguments: entry.args })
        }
        libc::PTRACE_SYSCALL_INFO_EXIT => {
            // SAFETY: as above.
            let exit = unsafe { info.u.exit };
            Some(Stop::Exit { result: exit.sval })
        }
        _ => None,
    }
}
