//! What an operator should know before people rely on the relay: each finding with what to do.
//!
//! | module | what |
//! | --- | --- |
//! | here | what a finding is; the relay's folder |
//! | `kept` | the store |
//! | `disk` | how fast it flushes, what it is, what is free |
//! | `host` | clock, swap, open files |
//! | `network` | socket buffers, the port, the way in from outside |

mod disk;
mod host;
mod kept;
mod network;

use std::os::unix::fs::MetadataExt;

use serde::Serialize;

use crate::{
    config::{Config, host_fault},
    operator::Status,
    place::{Place, quoted},
    store::{ANCHOR_KEYS, LOG_KEYS},
};

/// What the relay says when it is asked how it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nobody answers on its folder.
    NotRunning,
    /// How it does.
    Status(Status),
    /// It runs, and did not say: why.
    None(String),
}

/// What `relay.toml` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// It can be used.
    Config {
        /// This.
        config: Box<Config>,
        /// Keys that mean nothing.
        unknown: Vec<String>,
        /// See [`Config::names_host`].
        names_host: bool,
    },
    /// It cannot be used: why.
    Unusable(String),
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Fine,
    /// Worth knowing.
    Note,
    /// People will suffer from it, or a secret lies open.
    Care,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub message: String,
    /// What to do; nothing if it is fine.
    pub advice: Option<String>,
}

impl Finding {
    fn fine(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, level: Level::Fine, message: message.into(), advice: None }
    }

    fn note(check: &'static str, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, level: Level::Note, message: message.into(), advice: Some(advice.into()) }
    }

    fn care(check: &'static str, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, level: Level::Care, message: message.into(), advice: Some(advice.into()) }
    }
}

/// Looks at everything. What needs a configuration that cannot be used is looked at with the defaults, but for what would mean
/// nothing then.
///
/// Writes a file of 4 KiB into the relay's folder for two seconds at most, and removes it.
pub async fn examine(place: &Place, read: &Read, answer: &Answer) -> Vec<Finding> {
    let defaults = Config::default();
    let (config, known) = match read {
        Read::Config { config, .. } => (&**config, Some(&**config)),
        Read::Unusable(_) => (&defaults, None),
    };
    let status = match answer {
        Answer::Status(status) => Some(status),
        Answer::NotRunning | Answer::None(_) => None,
    };
    let mut found = vec![configuration(read), permissions(place), key(place)];
    found.push(kept::examine(place, known, answer));
    found.extend(disk::examine(place, config, status));
    found.extend(host::examine());
    found.extend(network::examine(place, config, known.is_some(), answer).await);
    found
}

fn configuration(read: &Read) -> Finding {
    let (config, unknown, names_host) = match read {
        Read::Unusable(error) => {
            return Finding::care(
                "configuration",
                format!("{error}. What follows is looked at with the defaults"),
                "correct relay.toml, or restore it from your backup; `lapwing-relay init` in an empty folder writes a fresh example",
            );
        }
        Read::Config { config, unknown, names_host } => (config, unknown, *names_host),
    };
    let host = "the name or IP address under which people reach this machine belongs into network.host; then hand out new tickets";
    if !names_host {
        return Finding::care(
            "configuration",
            "relay.toml has no network.host: the address and new tickets say localhost",
            host,
        );
    }
    if let Some(why) = host_fault(&config.network.host) {
        return Finding::care(
            "configuration",
            format!("nobody reaches network.host, {}: {why}", config.network.host),
            host,
        );
    }
    if unknown.is_empty() {
        return Finding::fine("configuration", "relay.toml is in order");
    }
    let keys: Vec<_> = unknown.iter().map(|key| key.escape_debug().to_string()).collect();
    Finding::care(
        "configuration",
        format!("relay.toml has unknown keys: {}", keys.join(", ")),
        "they have no effect; correct the spelling or remove them",
    )
}

/// Whoever can read the folder can be the relay.
fn permissions(place: &Place) -> Finding {
    let own = nix::unistd::Uid::effective().as_raw();
    let secret = [
        place.dir().to_path_buf(),
        place.key_file(),
        place.config(),
        place.store(),
        place.store().join("store.keys"),
        place.store().join(ANCHOR_KEYS),
        place.store().join(LOG_KEYS),
    ];
    let mut wrong = Vec::new();
    for path in secret {
        let Ok(found) = std::fs::metadata(&path) else { continue };
        let name = quoted(&path);
        if found.mode() & 0o077 != 0 {
            wrong.push(format!("chmod go= {name}"));
        }
        if found.uid() != own && own != 0 {
            wrong.push(format!("chown {own} {name}"));
        }
    }
    if wrong.is_empty() {
        return Finding::fine("permissions", "only its owner can read the relay's files");
    }
    Finding::care(
        "permissions",
        "other users of this machine can read or own the relay's files",
        format!(
            "run: {}. If somebody else may have read the key: lapwing-relay rotate-key",
            wrong.join("; ")
        ),
    )
}

fn key(place: &Place) -> Finding {
    if matches!(place.key_file().try_exists(), Ok(false)) {
        return Finding::care(
            "key",
            "relay.key is not there",
            "restore relay.key and relay.lineage from your backup",
        );
    }
    let shown = place.secret().map_err(|error| error.to_string());
    let shown = shown.and_then(|secret| secret.public().map_err(|error| error.to_string()));
    let lineage = place.lineage().map_err(|error| error.to_string());
    match (shown, lineage) {
        (Err(error), _) | (_, Err(error)) => {
            Finding::care("key", error, "restore relay.key and relay.lineage from your backup")
        }
        (Ok(shown), Ok(lineage)) => match lineage.last() {
            None => Finding::fine("key", "the relay has its first key"),
            Some(last) if *last.claimed_next() == shown => Finding::fine(
                "key",
                format!("the relay has changed its key {} times; people follow", lineage.len()),
            ),
            Some(last) if last.claimed_by() == shown => Finding::care(
                "key",
                "a change of the key was cut off",
                "run `lapwing-relay rotate-key` again, or start the relay: both finish it",
            ),
            Some(_) => Finding::care(
                "key",
                "relay.key is not the one that the earlier keys vouch for: people who know an earlier key are lost",
                "restore relay.key and relay.lineage together, from one backup",
            ),
        },
    }
}
