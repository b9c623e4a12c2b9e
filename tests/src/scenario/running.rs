//! A command that goes on while the scenario does other things.

use std::{
    io::{BufRead, BufReader, PipeWriter, Read, Write},
    os::fd::OwnedFd,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread::{JoinHandle, spawn},
    time::Duration,
};

use super::{
    outcome::Outcome,
    wait::{PATIENCE, until},
};

/// Lines kept for a scenario that does not look; more than any scenario prints.
const LINES: usize = 4096;

/// A process whose output is read as it comes. Dropped, it is killed and reaped.
#[derive(Debug)]
pub struct Running {
    command: String,
    child: Child,
    lines: Receiver<String>,
    seen: String,
    errors: Option<JoinHandle<String>>,
}

impl Running {
    /// Starts `program` with these arguments and gives it `input` on standard input, which then ends.
    #[must_use]
    pub fn start(program: &Path, arguments: &[&str], input: &[u8]) -> Self {
        Self::spawn(Command::new(program).args(arguments), arguments.join(" "), input.to_vec())
    }

    /// Starts a prepared command; `name` is for messages.
    #[must_use]
    pub fn spawn(command: &mut Command, name: String, input: Vec<u8>) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        feed(&mut child, input);
        let stdout = child.stdout.take().expect("a pipe");
        let mut stderr = child.stderr.take().expect("a pipe");
        let (sender, lines) = sync_channel(LINES);
        spawn(move || read_lines(stdout, &sender));
        let errors = spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            text
        });
        Self { command: name, child, lines, seen: String::new(), errors: Some(errors) }
    }

    /// Starts a prepared command whose standard output and standard error both go into this pipe.
    #[must_use]
    pub fn into_pipe(command: &mut Command, name: String, input: Vec<u8>, pipe: PipeWriter) -> Self {
        let errors = pipe.try_clone().expect("a second end of the pipe");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(pipe)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        // Ours are closed with the command's own, or the pipe would never lose its last writer.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        feed(&mut child, input);
        let (_, lines) = sync_channel(0);
        Self { command: name, child, lines, seen: String::new(), errors: None }
    }

    /// Starts a prepared command whose standard error is this terminal.
    #[must_use]
    pub fn at_terminal(command: &mut Command, name: String, input: Vec<u8>, terminal: OwnedFd) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(terminal)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        command.stderr(Stdio::null());
        feed(&mut child, input);
        let stdout = child.stdout.take().expect("a pipe");
        let (sender, lines) = sync_channel(LINES);
        spawn(move || read_lines(stdout, &sender));
        Self { command: name, child, lines, seen: String::new(), errors: None }
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line of standard output that `wanted` accepts.
    ///
    /// # Panics
    /// None came within `limit`.
    pub fn line(&mut self, limit: Duration, wanted: impl Fn(&str) -> bool) -> String {
        let mut found = None;
        until(limit, || {
            while let Ok(line) = self.lines.try_recv() {
                self.seen.push_str(&line);
                if found.is_none() && wanted(&line) {
                    found = Some(line.trim_end().to_owned());
                    break;
                }
            }
            found.is_some()
        });
        found.unwrap_or_else(|| panic!("{} did not print it within {limit:?}: {:?}", self.command, self.seen))
    }

    /// Whether it goes on.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child's state").is_none()
    }

    /// Ends it without a word.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a signal, by its name without `SIG`.
    pub fn signal(&self, name: &str) {
        send_signal(self.id(), name);
    }

    /// As [`Running::signal`], and waits until the process has taken it: another one of its kind is one more then.
    ///
    /// # Panics
    /// It is not taken.
    pub fn signal_taken(&self, name: &str) {
        self.signal(name);
        assert!(until(PATIENCE, || !has_pending(self.id())), "{name} was not taken by {}", self.command);
    }

    /// Waits for its end and answers what it printed.
    ///
    /// # Panics
    /// It does not end by itself within [`PATIENCE`].
    #[must_use]
    pub fn end(self) -> Outcome {
        self.end_within(PATIENCE)
    }

    /// As [`Running::end`], with another limit.
    ///
    /// # Panics
    /// It does not end by itself within `limit`.
    #[must_use]
    pub fn end_within(mut self, limit: Duration) -> Outcome {
        let mut status = None;
        let ended = until(limit, || {
            self.drain();
            status = self.child.try_wait().expect("a child's state");
            status.is_some()
        });
        assert!(ended, "{} did not end within {limit:?}; it printed {:?}", self.command, self.seen);
        // The reader ends with the pipe: what is left is all there is.
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => self.seen.push_str(&line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("{} left its output open behind it", self.command),
            }
        }
        let errors = self.errors.take().map(|errors| errors.join().expect("the reader of standard error"));
        Outcome {
            command: self.command.clone(),
            code: status.and_then(|status| status.code()),
            stdout: std::mem::take(&mut self.seen),
            stderr: errors.unwrap_or_default(),
        }
    }

    fn drain(&mut self) {
        while let Ok(line) = self.lines.try_recv() {
            self.seen.push_str(&line);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal to a process of this scenario, by the shell, which every system has.
pub(super) fn send_signal(process: u32, name: &str) {
    let status =
        Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &process.to_string()]).status();
    assert!(status.is_ok_and(|status| status.success()), "{name} cannot be sent to {process}");
}

/// Whether a signal waits to be taken by a process, of those that it does not ignore. None does where there is no such
/// process.
#[must_use]
pub fn has_pending(process: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let mask = |name: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
        u64::from_str_radix(mask.trim(), 16).expect("a mask")
    };
    mask("ShdPnd:") & !mask("SigIgn:") != 0
}

/// Gives a command its standard input. It may end without reading it all; the thread then ends with the pipe.
fn feed(child: &mut Child, input: Vec<u8>) {
    let mut stdin = child.stdin.take().expect("a pipe");
    spawn(move || stdin.write_all(&input));
}

fn read_lines(from: impl Read, to: &SyncSender<String>) {
    let mut from = BufReader::new(from);
    loop {
        let mut line = String::new();
        match from.read_line(&mut line) {
            Ok(1..) if to.send(line).is_ok() => {}
            _ => return,
        }
    }
}
