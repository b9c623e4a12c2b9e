//! Real processes, what they use, and their end.

use std::{
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long a program may take until it listens.
const PATIENCE: Duration = Duration::from_secs(60);

/// A disk, as all servers of one comparison find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Where files lie.
    pub folder: PathBuf,
    /// The preloaded library, and microseconds that each flush takes longer.
    pub longer: Option<(PathBuf, u64)>,
}

impl Disk {
    /// What it is called in a table.
    pub fn name(&self) -> String {
        match &self.longer {
            Some((_, micros)) => format!("flush of {} ms", *micros as f64 / 1000.0),
            None if self.folder.starts_with("/dev/shm") => "no flush".to_owned(),
            None => "this disk".to_owned(),
        }
    }

    /// Whether a flush is known to take no longer than a good disk needs.
    pub fn is_quick(&self) -> bool {
        self.folder.starts_with("/dev/shm") && self.least() <= Duration::from_micros(100)
    }

    /// Shortest time in which an answer can follow a flush.
    pub fn least(&self) -> Duration {
        Duration::from_micros(self.longer.as_ref().map_or(0, |(_, micros)| *micros))
    }
}

/// A server that ends, and whose files go, when it is dropped.
pub struct Process {
    child: Child,
    _folder: tempfile::TempDir,
}

impl Process {
    /// Starts a program whose files lie in `folder`.
    pub fn start(program: &Path, arguments: &[String], disk: &Disk, folder: tempfile::TempDir) -> Self {
        let child = command(program, disk)
            .args(arguments)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", program.display()));
        Self { child, _folder: folder }
    }

    /// This program itself with a hidden command that says a line when it listens. The line.
    pub fn own(arguments: &[&str], disk: &Disk) -> (Self, String) {
        let mut child = command(&std::env::current_exe().unwrap(), disk)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        (Self::of(child, tempfile::tempdir().unwrap()), line)
    }

    /// From a child that runs already.
    pub fn of(child: Child, folder: tempfile::TempDir) -> Self {
        Self { child, _folder: folder }
    }

    /// Waits until something answers at a TCP port.
    pub fn listening(self, port: u16) -> Self {
        let begun = Instant::now();
        while TcpStream::connect(local(port)).is_err() {
            assert!(begun.elapsed() < PATIENCE, "the server does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        self
    }

    /// Time of the processors that it took so far.
    pub fn spent(&self) -> Duration {
        let mut clock = 0;
        let id = libc::pid_t::try_from(self.child.id()).unwrap();
        // SAFETY: the call fills the one number that it is given.
        assert_eq!(unsafe { libc::clock_getcpuclockid(id, &mut clock) }, 0, "the server has ended");
        clock_time(clock)
    }

    /// Bytes of its memory that are resident.
    pub fn resident(&self) -> u64 {
        resident(self.child.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a child that has ended.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A program, with the disk as it is to be.
pub fn command(program: &Path, disk: &Disk) -> Command {
    let mut command = Command::new(program);
    if let Some((library, micros)) = &disk.longer {
        command.env("LD_PRELOAD", library).env("FLUSH_MICROS", micros.to_string());
    }
    command
}

/// Time of the processors that this process took so far.
pub fn own_spent() -> Duration {
    clock_time(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// Of that, what the system took.
pub fn own_system_time() -> Duration {
    // SAFETY: all zeros are a value of this structure of numbers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the call fills the one structure that it is given.
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) }, 0);
    let libc::timeval { tv_sec, tv_usec } = usage.ru_stime;
    Duration::new(tv_sec.unsigned_abs(), u32::try_from(tv_usec).unwrap() * 1000)
}

/// Bytes of a process's memory that are resident.
pub fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() << 10
}

fn clock_time(clock: libc::clockid_t) -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills the one structure that it is given.
    assert_eq!(unsafe { libc::clock_gettime(clock, &mut now) }, 0);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap())
}

/// Lets this process and those that it starts have as many connections as the system allows.
pub fn allow_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the calls fill and read the one structure that they are given.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
    }
}

/// A port that neither TCP nor UDP uses now.
pub fn free_port() -> u16 {
    loop {
        let port = TcpListener::bind(local(0)).unwrap().local_addr().unwrap().port();
        if UdpSocket::bind(local(port)).is_ok() {
            return port;
        }
    }
}

/// A port of this machine.
pub fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Processes that wanted the processor in the last minute, on average: figures taken under load say less.
pub fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("unknown").to_owned()
}
