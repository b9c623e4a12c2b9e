//! A real `lapwing-relay serve`.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use lapwing_wire::address::RelayAddress;

const PROGRAM: &str = env!("CARGO_BIN_EXE_lapwing-relay");

pub struct Process {
    child: Child,
    pub address: RelayAddress,
}

/// Runs a command to its end.
pub fn run(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(PROGRAM).arg("--dir").arg(dir).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// The first JSON line of a command that must succeed.
pub fn run_json(dir: &Path, arguments: &[&str]) -> serde_json::Value {
    let output = run(dir, &[arguments, &["--json"]].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(text.lines().next().expect("a line")).unwrap()
}

impl Process {
    /// Starts a relay and waits until it listens.
    pub fn start(dir: &Path) -> Self {
        Self::start_program(Path::new(PROGRAM), dir)
    }

    /// As `start`, of a program that was built in another way.
    pub fn start_program(program: &Path, dir: &Path) -> Self {
        Self::spawn(program, dir, Stdio::null(), &[])
    }

    /// As `start`, with its standard error in a file.
    pub fn start_logging(dir: &Path, log: std::fs::File) -> Self {
        Self::spawn(Path::new(PROGRAM), dir, log.into(), &[])
    }

    /// As `start_logging`, with variables of its environment set.
    pub fn start_with(dir: &Path, log: std::fs::File, with: &[(&str, &Path)]) -> Self {
        Self::spawn(Path::new(PROGRAM), dir, log.into(), with)
    }

    fn spawn(program: &Path, dir: &Path, log: Stdio, with: &[(&str, &Path)]) -> Self {
        let mut child = Command::new(program)
            .args(["serve", "--json", "--dir"])
            .arg(dir)
            .envs(with.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&line).expect("the ready line");
        assert_eq!(ready["type"], "listening");
        let address = ready["address"].as_str().unwrap().parse().unwrap();
        Self { child, address }
    }

    pub fn socket(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.address.port()))
    }

    /// Bytes of its memory that are resident.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
        line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() << 10
    }

    /// SIGKILL, and nothing of it remains.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let id = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(id, signal).unwrap();
    }

    pub fn wait(mut self) -> std::process::ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
