//! The demo's relay: the real program, in a folder of its own, stopped when the demo ends.

use std::{
    io::{BufRead, BufReader},
    net::UdpSocket,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::{error::Error, signals};

/// A running relay.
pub(super) struct DemoRelay {
    child: Child,
    /// The text that its operator hands out.
    pub(super) access: String,
}

impl DemoRelay {
    /// Makes a relay in `folder` and starts it.
    pub(super) fn start(folder: &Path, program: Option<&Path>) -> Result<Self, Error> {
        let program = find(program)?;
        let dir = folder.join("relay");
        let port = free_port()?;
        let mut make = Command::new(&program);
        make.args(["init", "--json", "--host", "127.0.0.1", "--listen", "127.0.0.1", "--port"])
            .arg(port.to_string())
            .arg("--dir")
            .arg(&dir)
            .stdin(Stdio::null());
        let made = signals::for_others(|| make.output()).map_err(|_| not_started())?;
        let text = String::from_utf8_lossy(&made.stdout);
        let access = text
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .find_map(|line| Some(line.get("access_ticket")?.as_str()?.to_owned()))
            .ok_or_else(not_started)?;
        let mut serve = Command::new(&program);
        serve
            .args(["serve", "--json", "--dir"])
            .arg(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = signals::for_others(|| serve.spawn()).map_err(|_| not_started())?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            // One line says that it listens; without it the program has ended.
            let _ = BufReader::new(stdout).read_line(&mut line);
        }
        let relay = Self { child, access };
        if line.contains("listening") { Ok(relay) } else { Err(not_started()) }
    }
}

impl Drop for DemoRelay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn not_started() -> Error {
    Error::refused(
        "the relay's program did not start",
        "build it with: cargo build --release -p lapwing-relay",
    )
}

/// The relay's program beside this one.
fn find(given: Option<&Path>) -> Result<PathBuf, Error> {
    let beside = || std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("lapwing-relay")));
    given.map(Path::to_path_buf).or_else(beside).filter(|path| path.is_file()).ok_or_else(|| {
        Error::refused(
            "there is no lapwing-relay beside this program",
            "build both: cargo build --release; or name it with --relay PATH",
        )
    })
}

fn free_port() -> Result<u16, Error> {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).and_then(|socket| socket.local_addr());
    socket
        .map(|address| address.port())
        .map_err(|_| Error::refused("no local port is free", "close other programs"))
}
