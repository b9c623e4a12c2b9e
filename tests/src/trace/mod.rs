//! Runs a real program under ptrace and sees every system call it makes.
//!
//! What a trace shows: each call with its thread, its arguments as far as they mean the same in every run (sizes,
//! offsets, flags, paths; never addresses), its result; the bytes of every write to the files that are watched, which
//! together are every version of every block that the program ever wrote; and, if asked for, all memory that the
//! process still had when it ended. It can end the process with SIGKILL before or after its n-th call that changes a
//! file.
//!
//! The program that is traced forbids dumps and with them later tracers (`PR_SET_DUMPABLE` 0). One that is attached
//! from the first instruction keeps working, and the two files of `/proc` through which memory is read are opened
//! before the program runs: no privilege is needed. What a trace shows is therefore what nobody else can see.
//!
//! Linux on x86-64 and aarch64, where the C library is GNU's; elsewhere, and where ptrace is forbidden (some containers
//! do), [`run`] says so.
//!
//! | module | what |
//! | --- | --- |
//! | [`call`] | one system call, and what it was about |
//! | [`disk`] | what a power cut would have left of the files of a folder |
//! | [`memory`] | what a process leaves behind |
//! | [`places`] | where a command is killed |
//! | [`relay`] | a relay whose time the test moves |
//! | [`scene`] | a vault in a folder of its own, and a chat in it |
//! | [`subject`] | somebody with a vault whose commands are traced |
//! | [`sweep`] | kills a command everywhere and looks what is left |
//! | `table` | names and kinds of the calls |
//! | `filter` | lets the program run on at calls that change nothing |
//! | `process` | the tracer itself |

pub mod call;
pub mod disk;
#[cfg(all(target_os = "linux", target_env = "gnu", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod filter;
pub mod memory;
pub mod places;
#[cfg(all(target_os = "linux", target_env = "gnu", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod process;
pub mod relay;
#[expect(clippy::print_stdout, reason = "a long run tells what it did")]
pub mod scene;
pub mod subject;
pub mod sweep;
#[cfg(all(target_os = "linux", target_env = "gnu", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod table;

use std::{path::PathBuf, time::Duration};

pub use call::{Call, Target, Write};
pub use memory::{Memory, Span};
pub use places::Places;
pub use subject::Subject;
pub use sweep::Sweep;

/// How long a traced program may take, unless somebody says otherwise: as long as a whole test may. Where a machine has
/// much else to do, each stop at a call waits for its turn.
const LIMIT: Duration = Duration::from_secs(240);

/// What to run, and what to do with it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// What it reads from standard input, which then ends.
    pub input: Vec<u8>,
    /// Added to its environment.
    pub environment: Vec<(String, String)>,
    /// Files of which every written byte is kept.
    pub watch: Vec<PathBuf>,
    /// Where it is killed, if it is.
    pub kill: Option<Kill>,
    /// Whether its memory is read at its end.
    pub keep_memory: bool,
    /// Whether all its calls are seen, or only those that change a file or tell what a descriptor stands for. It is many
    /// times slower with all.
    pub all_calls: bool,
    /// How long it may take.
    pub limit: Duration,
}

impl Plan {
    /// Runs this program to its end.
    #[must_use]
    pub fn new(program: PathBuf, arguments: &[&str], input: &[u8]) -> Self {
        Self {
            program,
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            input: input.to_vec(),
            environment: Vec::new(),
            watch: Vec::new(),
            kill: None,
            keep_memory: false,
            all_calls: true,
            limit: LIMIT,
        }
    }

    /// Keeps what is written to this file.
    #[must_use]
    pub fn watching(mut self, file: PathBuf) -> Self {
        self.watch.push(file);
        self
    }

    /// Kills it there.
    #[must_use]
    pub fn killed(mut self, kill: Kill) -> Self {
        self.kill = Some(kill);
        self
    }

    /// Sees no other calls than those that change a file.
    #[must_use]
    pub fn changes_only(mut self) -> Self {
        self.all_calls = false;
        self
    }

    /// Reads its memory at its end.
    #[must_use]
    pub fn keeping_memory(mut self) -> Self {
        self.keep_memory = true;
        self
    }
}

/// Where a process is ended with SIGKILL: at its n-th call that changes a file, counted from 0
/// ([`Call::changes_a_file`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kill {
    /// The call is not carried out any more.
    Before(usize),
    /// The call has been carried out.
    After(usize),
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
}

/// What was seen.
#[derive(Debug)]
pub struct Trace {
    /// All calls, in the order in which they ended.
    pub calls: Vec<Call>,
    /// What was written to the watched files, in order.
    pub writes: Vec<Write>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// How it ended.
    pub end: End,
    /// Its memory, if that was asked for and it was not killed.
    pub memory: Option<Memory>,
}

impl Trace {
    /// The calls that change a file.
    pub fn changes(&self) -> impl Iterator<Item = &Call> {
        self.calls.iter().filter(|call| call.changes_a_file())
    }

    /// Whether it ended by itself and with success.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.end == End::Exited(0)
    }

    /// Standard output and error as text, for messages.
    #[must_use]
    pub fn told(&self) -> String {
        [&self.stdout, &self.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
    }
}

/// Why nothing was seen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// Not on this system.
    #[error("system calls can be traced on Linux with GNU's C library only (x86-64, aarch64)")]
    Unsupported,
    /// The system does not let a process trace its child.
    #[error("this system forbids ptrace: {0}; in a container, allow it (--cap-add SYS_PTRACE)")]
    Forbidden(std::io::Error),
    /// The program could not be started.
    #[error("the program cannot be started: {0}")]
    Start(std::io::Error),
    /// It did not end in time, and was killed.
    #[error("the program did not end within {0:?}")]
    TooLong(Duration),
}

/// Runs the program of `plan` and waits for its end.
///
/// # Errors
/// See [`TraceError`]. The program does not outlive this call.
pub fn run(plan: &Plan) -> Result<Trace, TraceError> {
    #[cfg(all(
        target_os = "linux",
        target_env = "gnu",
        any(target_arch = "x86_64", target_arch = "aarch64")
    ))]
    return process::run(plan);
    #[cfg(not(all(
        target_os = "linux",
        target_env = "gnu",
        any(target_arch = "x86_64", target_arch = "aarch64")
    )))]
    {
        let _ = plan;
        Err(TraceError::Unsupported)
    }
}
