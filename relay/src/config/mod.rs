//! The configuration file: TOML, every key optional, durations and sizes as people write them.
//!
//! [`Config::example`] is what `init` writes: every key with its default; a test compares both.

mod host;
mod keys;
mod limits;
mod units;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use lapwing_wire::{
    address::{RelayAddress, RelayKey},
    limits::MAX_BLOB,
};
use serde::{Deserialize, Serialize};

use crate::{
    limits::Limits,
    server::ServerOptions,
    store::{EngineName, MEMORY},
};
pub use host::host_fault;
pub use limits::LimitsConfig;
pub use units::{Size, Span};

/// A configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Not TOML, or a value of the wrong kind; the text names line and key.
    #[error("the configuration file is not valid: {0}")]
    Form(String),
    /// A value of another kind than what belongs there.
    #[error("the configuration value `{key}` is not what belongs there: {why}")]
    Kind {
        /// Which.
        key: String,
        /// What belongs there.
        why: String,
    },
    /// A value that makes no sense.
    #[error("the configuration value `{0}` cannot be used: {1}")]
    Range(&'static str, &'static str),
}

/// Least quota of an access ticket: one envelope of the smallest size.
pub(crate) const LEAST_TICKET: Size = Size(1 << 10);

/// All that an operator may set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Where and how it listens. Read at start.
    pub network: Network,
    /// The disk. Read again at SIGHUP.
    pub storage: Storage,
    /// What clients may use. Read again at SIGHUP.
    pub limits: LimitsConfig,
    /// What a new access ticket allows unless `access issue` says otherwise. Read at each `access issue`.
    pub access: AccessConfig,
    /// Numbers for a monitoring program. Read at start.
    pub metrics: MetricsConfig,
}

/// `[metrics]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MetricsConfig {
    /// Address and port on this machine; empty for none.
    pub listen: String,
}

impl MetricsConfig {
    /// Where to listen; `None` for nowhere.
    ///
    /// # Errors
    /// [`ConfigError::Range`] for what is no loopback address with a port: anybody could read the numbers.
    pub fn address(&self) -> Result<Option<SocketAddr>, ConfigError> {
        if self.listen.is_empty() {
            return Ok(None);
        }
        match self.listen.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => Ok(Some(address)),
            _ => Err(ConfigError::Range("metrics.listen", "empty, or 127.0.0.1:PORT or [::1]:PORT")),
        }
    }
}

/// `[network]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    /// Name or IP address under which clients reach the relay; part of its address.
    pub host: String,
    /// UDP port. 0 takes a free one at each start.
    pub port: u16,
    /// Local address; `::` is all, IPv4 included.
    pub listen: IpAddr,
    /// Name of the protocol in the TLS handshake.
    pub alpn: String,
    /// See [`ServerOptions::max_connections`].
    pub max_connections: usize,
    /// See [`ServerOptions::connections_per_network`].
    pub connections_per_network: usize,
    /// See [`ServerOptions::stranger_timeout`].
    pub stranger_timeout: Span,
    /// See [`ServerOptions::retry_above`].
    pub retry_above: usize,
    /// See [`ServerOptions::idle_timeout`].
    pub idle_timeout: Span,
    /// See [`ServerOptions::keep_alive`].
    pub keep_alive: Span,
    /// See [`ServerOptions::stall_timeout`].
    pub stall_timeout: Span,
    /// See [`ServerOptions::socket_buffer`].
    pub socket_buffer: Size,
}

/// `[storage]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Storage {
    /// What keeps the store. A store that exists cannot change it.
    pub engine: EngineName,
    /// Space that stays free on the disk; below it, nothing new is taken.
    pub reserve: Size,
    /// See [`StoreOptions::memory`](crate::store::StoreOptions).
    pub memory: Size,
}

/// `[access]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AccessConfig {
    /// Bytes of envelopes, blobs and tripwires at one time.
    pub size: Size,
    /// Mailboxes at one time.
    pub mailboxes: u64,
}

impl Default for Network {
    fn default() -> Self {
        let ServerOptions {
            listen,
            alpn,
            max_connections,
            connections_per_network,
            stranger_timeout,
            retry_above,
            idle_timeout,
            keep_alive,
            stall_timeout,
            socket_buffer,
        } = ServerOptions::default();
        Self {
            host: "localhost".into(),
            port: listen.port(),
            listen: listen.ip(),
            alpn: String::from_utf8_lossy(&alpn).into_owned(),
            max_connections,
            connections_per_network,
            stranger_timeout: Span(stranger_timeout),
            retry_above,
            idle_timeout: Span(idle_timeout),
            keep_alive: Span(keep_alive),
            stall_timeout: Span(stall_timeout),
            socket_buffer: Size(u64::try_from(socket_buffer).unwrap_or(u64::MAX)),
        }
    }
}

impl Default for Storage {
    fn default() -> Self {
        // A memtable flush and a rotated journal write some hundred MiB before they free any; what merging the index writes is
        // counted apart (`store::fjall::kept_for_merging`).
        Self { engine: EngineName::default(), reserve: Size(512 << 20), memory: Size(MEMORY) }
    }
}

impl Default for AccessConfig {
    fn default() -> Self {
        Self { size: Size(1 << 30), mailboxes: 1000 }
    }
}

impl Config {
    /// Reads a configuration, and names the keys that mean nothing to this version.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(text: &str) -> Result<(Self, Vec<String>), ConfigError> {
        let form = |error: toml::de::Error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            let line = before.map_or(1, |before| before.matches('\n').count() + 1);
            ConfigError::Form(format!("line {line}: {}", error.message().replace('\n', " ")))
        };
        let table: toml::Table = toml::from_str(text).map_err(form)?;
        let known = toml::Table::try_from(Self::default()).unwrap_or_default();
        let mut config: Self = toml::from_str(text)
            .map_err(|error| keys::find_wrong(&table, &known).unwrap_or_else(|| form(error)))?;
        // A file from before the second key: what its operator chose holds for both.
        if !keys::names(&table, "limits", "blob_retention") {
            config.limits.blob_retention = config.limits.retention;
        }
        config.check()?;
        let mut unknown = Vec::new();
        keys::find_unknown(&table, &known, "", &mut unknown);
        Ok((config, unknown))
    }

    /// The server's options.
    pub fn server(&self) -> ServerOptions {
        let Network {
            host: _,
            port,
            listen,
            alpn,
            max_connections,
            connections_per_network,
            stranger_timeout,
            retry_above,
            idle_timeout,
            keep_alive,
            stall_timeout,
            socket_buffer,
        } = &self.network;
        ServerOptions {
            listen: SocketAddr::new(*listen, *port),
            alpn: alpn.clone().into_bytes(),
            max_connections: *max_connections,
            connections_per_network: *connections_per_network,
            stranger_timeout: stranger_timeout.0,
            retry_above: *retry_above,
            idle_timeout: idle_timeout.0,
            keep_alive: keep_alive.0,
            stall_timeout: stall_timeout.0,
            socket_buffer: usize::try_from(socket_buffer.0).unwrap_or(usize::MAX),
        }
    }

    /// The service's bounds.
    pub fn limits(&self) -> Limits {
        self.limits.bounds()
    }

    /// The documented file with every key, for this host, port, local address and engine.
    pub fn example(host: &str, port: u16, listen: IpAddr, engine: EngineName) -> String {
        let Self {
            network:
                Network {
                    host: _,
                    port: _,
                    listen: _,
                    alpn,
                    max_connections,
                    connections_per_network,
                    stranger_timeout,
                    retry_above,
                    idle_timeout,
                    keep_alive,
                    stall_timeout,
                    socket_buffer,
                },
            storage: Storage { engine: _, reserve, memory },
            limits:
                LimitsConfig {
                    mailbox_size,
                    admin_reserve,
                    retention,
                    blob_retention,
                    unfinished_blobs,
                    blob_size,
                    blobs_per_ticket,
                    open,
                    proofs_per_connection,
                    subscriptions_per_connection,
                },
            access: AccessConfig { size, mailboxes },
            metrics: MetricsConfig { listen: metrics },
        } = Self::default();
        format!(
            r#"# Configuration of a Lapwing relay. Every key is optional; the values are the defaults.
# Sizes: B, KiB, MiB, GiB. Durations: "30s", "15m", "12h", "30days".

# Read when the relay starts.
[network]
# Name or IP address under which clients reach the relay. Part of the address that you hand out.
host = "{host}"
# UDP port. 443 passes most firewalls. 0 takes a free port at each start.
port = {port}
# Local address; "::" is all addresses, IPv4 included.
listen = "{listen}"
# Name of the protocol in the TLS handshake. Clients must use the same.
alpn = "{alpn}"
# Connections at a time, some 50 KiB each when idle. Above, new ones are refused. An eighth of them (or 64) may have proved nothing.
max_connections = {max_connections}
# Connections at a time from one network: one IPv4 address, one IPv6 /56. Raise it where many people share an address
# (a proxy, an onion service, a venue).
connections_per_network = {connections_per_network}
# When three quarters of max_connections are taken, or somebody of their network was refused: silence after which those who proved nothing are closed, oldest first. When three
# quarters of the places of those are taken: how long they may stay.
stranger_timeout = "{stranger_timeout}"
# Handshakes at a time above which an address must first prove that it receives.
retry_above = {retry_above}
# Silence after which a connection is dead.
idle_timeout = "{idle_timeout}"
# Silence after which the relay sends a packet, so that routers keep the path open.
keep_alive = "{keep_alive}"
# How long a client may take to accept an answer or to complete a request.
stall_timeout = "{stall_timeout}"
# UDP socket buffers. The system may grant less: see `lapwing-relay status` and net.core.rmem_max.
socket_buffer = "{socket_buffer}"

[storage]
# The embedded database: "fjall", or "sled" in a program that was built with it. Read at start; a store that exists
# keeps its own.
engine = "{engine}"
# Read again at SIGHUP. Space that stays free on the disk. Below it nothing new is taken; what is there stays, and is read and deleted.
reserve = "{reserve}"
# Read when the relay starts. Memory for what was used lately: half for mailboxes in use, a thousand for each MiB of it (others are
# looked up on the disk), half for what was read from the disk. As much as a half is added as envelopes come, 1.5 bytes for each.
memory = "{memory}"

# Read again at SIGHUP.
[limits]
# Envelopes waiting in one mailbox. At it, senders are told that the mailbox is full.
mailbox_size = "{mailbox_size}"
# What a mailbox's administrator may append beyond that, and beyond the quota of its access ticket.
admin_reserve = "{admin_reserve}"
# How long envelopes are kept, in whole days.
retention = "{retention}"
# How long attachments are kept, in whole days.
blob_retention = "{blob_retention}"
# How long an attachment may stay half uploaded, in whole days.
unfinished_blobs = "{unfinished_blobs}"
# Largest attachment, at most 100 MiB.
blob_size = "{blob_size}"
# What the attachments of one access ticket may take of its quota; beyond it, new ones are refused.
blobs_per_ticket = "{blobs_per_ticket}"
# Whether everybody may create mailboxes without an access ticket. Then only the reserve bounds what strangers store.
open = {open}
# Rights that one connection may hold.
proofs_per_connection = {proofs_per_connection}
# Mailboxes that one connection may watch.
subscriptions_per_connection = {subscriptions_per_connection}

# What a new access ticket allows, unless `lapwing-relay access issue` says otherwise.
[access]
# Bytes of everything at one time.
size = "{size}"
# Mailboxes at one time.
mailboxes = {mailboxes}

# Read when the relay starts. Numbers for a monitoring program (Prometheus), without anything about users; they show when the
# relay is busy.
[metrics]
# Address and port on this machine, as "127.0.0.1:9464"; empty for none.
listen = "{metrics}"
"#
        )
    }

    fn check(&self) -> Result<(), ConfigError> {
        let bad = |key, why| Err(ConfigError::Range(key, why));
        // What an address can say. Whether anybody reaches it is for `init` and `doctor`: who knows this relay already does.
        if RelayAddress::new(RelayKey::from_bytes([0; 32]), &self.network.host, 1).is_err() {
            return bad(
                "network.host",
                host_fault(&self.network.host).unwrap_or("it is no name or IP address"),
            );
        }
        if self.network.alpn.is_empty() || self.network.alpn.len() > 255 {
            return bad("network.alpn", "it has 1 to 255 bytes");
        }
        if self.network.max_connections == 0 {
            return bad("network.max_connections", "at least 1");
        }
        if self.network.connections_per_network == 0 {
            return bad("network.connections_per_network", "at least 1");
        }
        if self.network.idle_timeout.0 < Duration::from_secs(5)
            || self.network.idle_timeout.0 > Duration::from_secs(24 * 3600)
        {
            return bad("network.idle_timeout", "5 seconds to one day");
        }
        if self.network.keep_alive.0.is_zero() || self.network.keep_alive.0 >= self.network.idle_timeout.0 {
            return bad("network.keep_alive", "more than zero and less than idle_timeout");
        }
        if self.network.stall_timeout.0 < Duration::from_secs(1) {
            return bad("network.stall_timeout", "at least 1 second");
        }
        if self.storage.memory.0 < 16 << 20 {
            return bad("storage.memory", "at least 16 MiB");
        }
        if self.limits.mailbox_size.0 < 64 << 10 {
            return bad("limits.mailbox_size", "at least one envelope of 64 KiB");
        }
        if self.limits.retention.0 < Duration::from_secs(24 * 3600) {
            return bad("limits.retention", "at least one day");
        }
        if self.limits.blob_retention.0 < Duration::from_secs(24 * 3600) {
            return bad("limits.blob_retention", "at least one day");
        }
        if self.limits.blob_size.0 > MAX_BLOB {
            return bad("limits.blob_size", "at most 100 MiB");
        }
        if self.limits.proofs_per_connection == 0 || self.limits.subscriptions_per_connection == 0 {
            return bad("limits.*_per_connection", "at least 1");
        }
        if self.access.size < LEAST_TICKET {
            return bad("access.size", "at least one envelope of 1 KiB");
        }
        if self.access.mailboxes == 0 {
            return bad("access.mailboxes", "at least 1");
        }
        self.metrics.address().map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_file_is_the_defaults() {
        let defaults = Config::default();
        let Network { host, port, listen, .. } = &defaults.network;
        let text = Config::example(host, *port, *listen, EngineName::Fjall);
        let (config, unknown) = Config::parse(&text).unwrap();
        assert_eq!(config, defaults);
        assert_eq!(unknown, Vec::<String>::new());
        let written: toml::Table = toml::from_str(&text).unwrap();
        let complete = toml::Table::try_from(Config::default()).unwrap();
        assert_eq!(written, complete, "every key is in the file");
        assert_eq!(Config::parse("").unwrap().0, defaults);
    }

    /// The operator's page names every key with its default.
    #[test]
    fn the_operators_page_is_the_defaults() {
        let page = include_str!("../../../docs/relay-operation.md");
        let (_, section) = page.split_once("\n## Configuration\n").unwrap();
        let (section, _) = section.split_once("\n## ").unwrap();
        let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        let mut written = toml::Table::new();
        let mut named = Vec::new();
        for row in section.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let values = match cells[2] {
                "from `init`" => vec![Config::default().network.host],
                "empty" => vec![String::new()],
                cell => quoted(cell),
            };
            for (name, value) in quoted(cells[1]).into_iter().zip(values) {
                let (part, key) = name.split_once('.').unwrap();
                let part = written.entry(part).or_insert_with(|| toml::Table::new().into());
                let value = value
                    .parse::<i64>()
                    .map(toml::Value::from)
                    .or_else(|_| value.parse::<bool>().map(toml::Value::from))
                    .unwrap_or_else(|_| value.into());
                part.as_table_mut().unwrap().insert(key.to_owned(), value);
                named.push(name);
            }
        }
        assert_eq!(Config::parse(&written.to_string()).unwrap(), (Config::default(), Vec::new()));
        let complete = toml::Table::try_from(Config::default()).unwrap();
        let keys = complete
            .iter()
            .flat_map(|(part, keys)| keys.as_table().unwrap().keys().map(move |key| format!("{part}.{key}")));
        let (mut keys, mut named) = (keys.collect::<Vec<_>>(), named);
        keys.sort();
        named.sort();
        assert_eq!(named, keys, "every key, once");
    }

    #[test]
    fn what_an_older_file_says_of_retention_holds_for_attachments_too() {
        let days = |text: &str| Config::parse(text).unwrap().0.limits.blob_retention.to_string();
        assert_eq!(days("[limits]\nretention = \"3days\""), "3days");
        assert_eq!(days("[limits]\nretention = \"90days\"\nblob_retention = \"7days\""), "7days");
        assert_eq!(days(""), "30days");
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for (text, key) in [
            ("[network]\nhost = \"not a host\"", "network.host"),
            ("[network]\nalpn = \"\"", "network.alpn"),
            ("[network]\nmax_connections = 0", "network.max_connections"),
            ("[network]\nidle_timeout = \"1s\"", "network.idle_timeout"),
            ("[network]\nkeep_alive = \"2m\"", "network.keep_alive"),
            ("[network]\nstall_timeout = \"1ms\"", "network.stall_timeout"),
            ("[storage]\nmemory = \"1 MiB\"", "storage.memory"),
            ("[limits]\nmailbox_size = \"1 KiB\"", "limits.mailbox_size"),
            ("[limits]\nretention = \"1h\"", "limits.retention"),
            ("[limits]\nretention = \"3days\"\nblob_retention = \"1h\"", "limits.blob_retention"),
            ("[limits]\nblob_size = \"1 GiB\"", "limits.blob_size"),
            ("[access]\nsize = \"0 B\"", "access.size"),
            ("[access]\nmailboxes = 0", "access.mailboxes"),
            ("[metrics]\nlisten = \"0.0.0.0:9464\"", "metrics.listen"),
            ("[metrics]\nlisten = \"localhost\"", "metrics.listen"),
        ] {
            assert!(
                matches!(Config::parse(text), Err(ConfigError::Range(named, _)) if named == key),
                "{text}"
            );
        }
        assert!(matches!(Config::parse("host ="), Err(ConfigError::Form(_))));
    }
}
