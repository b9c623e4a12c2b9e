//! Which package may name which module. The arrows of the architecture, as a table.

use super::source::is_word;
use super::{Finding, Source};

/// What production code below a folder must not name.
#[derive(Debug, Clone, Copy)]
pub struct Layer {
    /// Folder of the sources, with `/` at its end.
    pub folder: &'static str,
    /// Folders inside it that another row answers for.
    pub except: &'static [&'static str],
    /// Paths, matched by whole components anywhere in a path that the code names.
    pub banned: &'static [&'static str],
    /// Why.
    pub reason: &'static str,
}

/// What reaches files, sockets, processes and clocks: all that a pure package takes as an argument. Types that only
/// carry a value are not among them: `std::net::IpAddr`, and the `SystemTime` that libsignal takes.
const OUTSIDE_WORLD: &[&str] = &[
    "std::fs",
    "std::net::*",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "ToSocketAddrs",
    "std::process",
    "std::env",
    "std::time::Instant",
    "Instant::now",
    "SystemTime::now",
    "UNIX_EPOCH::elapsed",
    "tokio",
    "quinn",
    "rustls",
];

/// The rules of the design's section 2 and of the house style.
pub const LAYERS: &[Layer] = &[
    Layer {
        folder: "protocol/wire/src/",
        except: &[],
        banned: OUTSIDE_WORLD,
        reason: "lapwing-wire is pure: no I/O, no clock, no runtime",
    },
    Layer {
        folder: "protocol/wire/src/",
        except: &[],
        banned: &["SystemTime", "Instant", "libsignal_protocol", "lapwing_protocol", "lapwing_vault", "redb"],
        reason: "lapwing-wire is what the relay links: no cryptography of messages, time as an argument",
    },
    Layer {
        folder: "protocol/src/",
        except: &[],
        banned: OUTSIDE_WORLD,
        reason: "lapwing-protocol is pure: no I/O, no clock, no runtime",
    },
    Layer {
        folder: "protocol/src/",
        except: &["protocol/src/session/", "protocol/src/identity.rs", "protocol/src/signing.rs"],
        banned: &["SystemTime", "Instant", "libsignal_protocol"],
        reason: "libsignal stays behind the door in session/, its keys in identity.rs and signing.rs",
    },
    Layer {
        folder: "client/vault/src/",
        except: &[],
        banned: &[
            "lapwing_wire",
            "lapwing_protocol",
            "libsignal_protocol",
            "quinn",
            "rustls",
            "tokio",
            "std::net",
        ],
        reason: "the vault knows nothing of messaging or networks",
    },
    Layer {
        folder: "relay/src/",
        except: &[],
        banned: &["lapwing_protocol", "lapwing_vault", "lapwing", "libsignal_protocol"],
        reason: "the relay does not link the code that could decrypt",
    },
    Layer {
        folder: "client/src/",
        except: &[],
        banned: &["lapwing_relay", "libsignal_protocol"],
        reason: "client and relay meet only in lapwing-wire; libsignal stays behind lapwing-protocol",
    },
    Layer {
        folder: "client/src/engine/",
        except: &["client/src/engine/driver"],
        banned: OUTSIDE_WORLD,
        reason: "the engine is pure: only its driver awaits",
    },
];

/// Paths in `source`, a file at `file`, that its layers must not name.
pub fn imports(file: &str, source: &Source, layers: &[Layer]) -> Vec<Finding> {
    let mine: Vec<_> = layers
        .iter()
        .filter(|layer| file.starts_with(layer.folder))
        .filter(|layer| !layer.except.iter().any(|folder| file.starts_with(folder)))
        .collect();
    if mine.is_empty() {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (position, path) in paths(source) {
        for layer in &mine {
            if let Some(banned) = layer.banned.iter().find(|banned| contains_path(&path, banned)) {
                let what = format!("names `{}` (banned: `{banned}`): {}", path.join("::"), layer.reason);
                findings.push(Finding::new(file, source.line(position), what));
            }
        }
    }
    findings
}

/// Every path that the code names, use-trees spread out: `a::{b, c::D}` gives `a::b` and `a::c::D`.
pub fn paths(source: &Source) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(c) = source.at(at) {
        at = if is_word(c) { path(source, at, &[], &mut found) } else { at + 1 };
    }
    found
}

/// Reads one path that begins at `start` below `prefix`; returns where it ends.
fn path(source: &Source, start: usize, prefix: &[String], found: &mut Vec<(usize, Vec<String>)>) -> usize {
    let mut parts = prefix.to_vec();
    let mut at = start;
    loop {
        let word: String = source.code().iter().skip(at).take_while(|c| is_word(**c)).collect();
        at += word.chars().count();
        if word != "self" || parts.is_empty() {
            parts.push(word);
        }
        let colons = source.skip_space(at);
        if (source.at(colons), source.at(colons + 1)) != (Some(':'), Some(':')) {
            break;
        }
        let next = source.skip_space(colons + 2);
        match source.at(next) {
            Some('{') => {
                let end = source.closing(next);
                let mut inner = next + 1;
                while inner < end {
                    match source.at(inner) {
                        Some(c) if is_word(c) => inner = path(source, inner, &parts, found),
                        _ => inner += 1,
                    }
                }
                return end;
            }
            Some(c) if is_word(c) => at = next,
            Some('*') => {
                parts.push("*".to_owned());
                break;
            }
            // A turbofish: the path so far is what is named.
            _ => break,
        }
    }
    found.push((start, parts));
    at
}

fn contains_path(path: &[String], banned: &str) -> bool {
    let banned: Vec<_> = banned.split("::").collect();
    path.windows(banned.len()).any(|run| run.iter().zip(&banned).all(|(is, wanted)| is == wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Vec<String> {
        paths(&Source::parse(text))
            .into_iter()
            .map(|(_, path)| path.join("::"))
            .filter(|p| p.contains("::"))
            .collect()
    }

    fn breaks(file: &str, text: &str) -> bool {
        !imports(file, &Source::parse(text), LAYERS).is_empty()
    }

    #[test]
    fn use_trees_are_spread_out() {
        assert_eq!(
            named("use std::{fs::{self, File}, io, net::*};\nlet x = a::b(c::D::<u8>::e);"),
            ["std::fs", "std::fs::File", "std::io", "std::net::*", "a::b", "c::D"]
        );
    }

    #[test]
    fn planted_violations_of_each_layer_are_found() {
        for (file, text) in [
            ("protocol/wire/src/frame.rs", "use std::{io, fs};"),
            ("protocol/wire/src/time.rs", "let now = std::time::SystemTime::now();"),
            ("protocol/wire/src/address.rs", "use std::net::{IpAddr, ToSocketAddrs};"),
            ("protocol/wire/src/address.rs", "use std::net::*;"),
            ("protocol/src/ticket.rs", "use tokio::sync::mpsc;"),
            ("protocol/src/alert.rs", "use std::time::{Duration, Instant};"),
            ("protocol/src/content.rs", "use libsignal_protocol::SessionRecord;"),
            ("protocol/src/session/guard.rs", "let now = SystemTime::now();"),
            ("client/vault/src/slot.rs", "use lapwing_protocol::session;"),
            ("client/vault/src/slot.rs", "fn f(x: lapwing_wire::MailboxId) {}"),
            ("client/vault/src/slot.rs", "use quinn::Endpoint;"),
            ("relay/src/mailbox.rs", "use lapwing_protocol as p;"),
            ("client/src/net/quic.rs", "use lapwing_relay::Relay;"),
            ("client/src/engine/inbox.rs", "std::fs::read(x)"),
        ] {
            assert!(breaks(file, text), "{file}: {text}");
        }
    }

    #[test]
    fn what_a_layer_may_use_passes() {
        for (file, text) in [
            ("protocol/wire/src/frame.rs", "use std::{io, collections::BTreeMap}; // std::fs"),
            ("protocol/wire/src/address.rs", "use std::net::IpAddr;"),
            ("protocol/src/session/guard.rs", "use std::time::SystemTime; use libsignal_protocol::x;"),
            ("client/vault/src/backend.rs", "use std::fs::File;"),
            ("relay/src/mailbox.rs", "use lapwing_wire::MailboxId;"),
            ("client/src/net/quic.rs", "use tokio::net::UdpSocket;"),
            ("client/src/engine/driver.rs", "use tokio::time;"),
        ] {
            assert!(!breaks(file, text), "{file}: {text}");
        }
    }
}
