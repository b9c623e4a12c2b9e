//! A relay: the real program, in a folder of its own, on a loopback port that stays the same.

use std::{
    net::UdpSocket,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use serde_json::Value;

use super::{
    outcome::Outcome,
    programs,
    running::{Running, send_signal},
};

/// Ports below the range from which systems give ports to clients: while a relay is down, nobody else gets its port.
const PORTS: std::ops::Range<u16> = 10_240..30_720;

/// How long a relay may take to listen, the replay of its journal after a kill included.
const START: Duration = Duration::from_secs(60);

/// How long it may take to end in order.
const STOP: Duration = Duration::from_secs(30);

/// Ports given out by this process so far.
static GIVEN: AtomicU16 = AtomicU16::new(0);

/// A relay. Dropped, its process is ended and reaped.
#[derive(Debug)]
pub struct Relay {
    dir: PathBuf,
    /// The port it always listens on.
    pub port: u16,
    /// The first access ticket.
    pub access: String,
    /// Its address, with its key.
    pub address: String,
    process: Option<Running>,
}

impl Relay {
    /// Makes a relay in `dir` and starts it.
    #[must_use]
    pub fn start(dir: &Path) -> Self {
        let mut relay = Self::init(dir, free_port());
        relay.serve();
        relay
    }

    /// Makes a relay in `dir` for this port, and does not start it.
    #[must_use]
    pub fn init(dir: &Path, port: u16) -> Self {
        let number = port.to_string();
        let words = [
            "--json",
            "init",
            "--host",
            "127.0.0.1",
            "--listen",
            "127.0.0.1",
            "--port",
            &number,
            "--dir",
            text(dir),
        ];
        let made = Running::start(&programs::lapwing_relay(), &words, b"").end().done();
        let access = made.text("relay", "access_ticket");
        let address = made.text("relay", "address");
        Self { dir: dir.to_owned(), port, access, address, process: None }
    }

    /// A relay that somebody else makes in `dir`.
    #[must_use]
    pub fn nowhere(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), port: 0, access: String::new(), address: String::new(), process: None }
    }

    /// Runs a command of its program on its folder.
    #[must_use]
    pub fn runs(&self, words: &[&str]) -> Outcome {
        let all = [words, &["--json", "--dir", text(&self.dir)]].concat();
        Running::start(&programs::lapwing_relay(), &all, b"").end()
    }

    /// Starts it, again on its port, and waits until it listens.
    pub fn serve(&mut self) {
        let words = ["--json", "serve", "--dir", text(&self.dir)];
        let mut process = Running::start(&programs::lapwing_relay(), &words, b"");
        process.line(START, |line| line.contains("\"listening\""));
        self.process = Some(process);
    }

    /// Kills it in the middle of whatever it does.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Ends it in order, and answers how it ended.
    pub fn stop(&mut self) -> Outcome {
        let process = self.process.take().expect("a running relay");
        process.signal("TERM");
        process.end_within(STOP)
    }

    /// Stops its time: it keeps its port and answers nothing.
    pub fn freeze(&self) {
        send_signal(self.id(), "STOP");
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        send_signal(self.id(), "CONT");
    }

    /// What it says about itself.
    #[must_use]
    pub fn status(&self) -> Value {
        let words = ["--json", "status", "--dir", text(&self.dir)];
        Running::start(&programs::lapwing_relay(), &words, b"").end().done().one("status")
    }

    fn id(&self) -> u32 {
        self.process.as_ref().expect("a running relay").id()
    }
}

/// A port of loopback that nobody uses now and that no client will be given by the system.
#[must_use]
pub fn free_port() -> u16 {
    let span = PORTS.end - PORTS.start;
    // Tests run as processes of their own: each begins to look somewhere else.
    let seed = u16::try_from(process::id().wrapping_mul(37) % u32::from(span)).expect("less than the span");
    for _ in 0..span {
        let step = GIVEN.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + seed.wrapping_add(step) % span;
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no local port is free");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of a scenario is text")
}
