//! The servers that are compared, each started anew for each round.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::Stdio,
};

use lapwing_wire::address::{AccessTicket, RelayAddress};

use crate::process::{Disk, Process, command, free_port};

/// Where the programs are.
#[derive(clap::Args, Clone, Debug)]
pub struct Programs {
    /// Our relay
    #[arg(long, default_value = "target/release/lapwing-relay", global = true)]
    pub relay: PathBuf,
    /// Redis
    #[arg(long, default_value = "redis-server", global = true)]
    pub redis: PathBuf,
    /// NATS
    #[arg(long, default_value = "nats-server", global = true)]
    pub nats: PathBuf,
    /// Mosquitto
    #[arg(long, default_value = "mosquitto", global = true)]
    pub mosquitto: PathBuf,
    /// `network.socket_buffer` of our relay, as its configuration has it; else as it comes
    #[arg(long, global = true)]
    pub socket_buffer: Option<String>,
}

/// A server and its port.
pub struct Server {
    /// What runs.
    pub process: Process,
    /// Where it listens.
    pub port: u16,
}

/// A running relay.
pub struct Relay {
    /// What runs.
    pub process: Process,
    /// The permission to create mailboxes on it.
    pub ticket: AccessTicket,
    /// Where it listens, with its key.
    pub address: RelayAddress,
}

impl Programs {
    /// Our relay as `init` makes it, but for how many may come from one address, since all come from this machine, and what was
    /// asked for.
    pub fn relay(&self, disk: &Disk) -> Relay {
        let program = self.relay.canonicalize().unwrap_or_else(|_| {
            panic!("there is no {}; `cargo build --release -p lapwing-relay` makes it", self.relay.display())
        });
        let folder = tempfile::tempdir_in(&disk.folder).unwrap();
        let dir = folder.path().join("relay");
        let port = free_port().to_string();
        let none = Disk { folder: disk.folder.clone(), longer: None };
        let run = |arguments: &[&str]| {
            let output = command(&program, &none).arg("--dir").arg(&dir).args(arguments).output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(output.status.success(), "{arguments:?}: {text}");
            serde_json::from_str::<serde_json::Value>(text.lines().next().unwrap()).unwrap()
        };
        run(&["--json", "init", "--host", "127.0.0.1", "--listen", "127.0.0.1", "--port", &port]);
        let file = dir.join("relay.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let wider: Vec<String> = text
            .lines()
            .map(|line| match (line.split(' ').next(), &self.socket_buffer) {
                (Some(name @ ("max_connections" | "connections_per_network")), _) => {
                    format!("{name} = 20000")
                }
                (Some(name @ "socket_buffer"), Some(size)) => format!("{name} = \"{size}\""),
                _ => line.to_owned(),
            })
            .collect();
        std::fs::write(&file, wider.join("\n")).unwrap();
        let issued = run(&["--json", "access", "issue", "--mailboxes", "100000", "--size", "16GiB"]);
        let ticket = AccessTicket::from_text(issued["access_ticket"].as_str().unwrap()).unwrap();
        let mut child = command(&program, disk)
            .args(["serve", "--json", "--dir"])
            .arg(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("listening"), "the relay does not listen: {line}");
        let address = ticket.relay().clone();
        Relay { process: Process::of(child, folder), ticket, address }
    }

    /// Redis that flushes before it answers.
    pub fn redis(&self, disk: &Disk) -> Server {
        let arguments = "--bind 127.0.0.1 --appendonly yes --appendfsync always";
        let arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
        serve(&self.redis, disk, |_, port| {
            let mut all = arguments.clone();
            all.extend(["--port".to_owned(), port.to_string()]);
            all
        })
    }

    /// NATS with JetStream, as it comes.
    pub fn nats(&self, disk: &Disk) -> Server {
        serve(&self.nats, disk, |folder, port| {
            let folder = folder.join("jetstream").display().to_string();
            ["-js", "-sd", &folder, "-a", "127.0.0.1", "-p", &port.to_string()].map(str::to_owned).to_vec()
        })
    }

    /// Mosquitto with persistence, and without a bound on what waits for somebody who is away.
    pub fn mosquitto(&self, disk: &Disk) -> Server {
        serve(&self.mosquitto, disk, |folder, port| {
            let file = folder.join("mosquitto.conf");
            let place = folder.display();
            let mut out = std::fs::File::create(&file).unwrap();
            writeln!(out, "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\nlog_dest none")
                .unwrap();
            writeln!(out, "persistence true\npersistence_location {place}/\nmax_queued_messages 0").unwrap();
            vec!["-c".to_owned(), file.display().to_string()]
        })
    }
}

fn serve(program: &Path, disk: &Disk, arguments: impl Fn(&Path, u16) -> Vec<String>) -> Server {
    let folder = tempfile::tempdir_in(&disk.folder).unwrap();
    let port = free_port();
    let arguments = arguments(folder.path(), port);
    Server { process: Process::start(program, &arguments, disk, folder).listening(port), port }
}
