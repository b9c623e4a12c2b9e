//! `doctor`: what is unsafe about this computer and this vault, and what to do about it.
//!
//! Every check is a pure function over what a [`Host`] reads, so that it can be tried on computers that are not there.
//!
//! | module | what |
//! | --- | --- |
//! | `host` | the thin reader: files of the system, variables, names in a folder |
//! | `memory` | swap, hibernation, dumps, locked memory, who may look at the process |
//! | `place` | the vault's file, its file system, what copies it |
//! | `screen` | the terminal, the shell's history, variables, other processes |
//!
//! It reads nothing of the vault but the file's outside until it has unlocked, and nothing it says depends on what a
//! passphrase opens.

mod host;
mod memory;
mod place;
mod screen;

use std::{collections::BTreeSet, fmt};

use lapwing_wire::address::RelayAddress;
use serde::Serialize;

use self::host::{Host, System};
use crate::{
    cli::{exit::Exit, output::Record, shell::Shell},
    client::Client,
    engine::{self, Fault, view},
    error::Error,
};

/// One thing that was looked at.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    check: &'static str,
    ok: bool,
    message: String,
    hint: &'static str,
}

impl Finding {
    fn well(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, ok: true, message: message.into(), hint: "" }
    }

    fn care(check: &'static str, message: impl Into<String>, hint: &'static str) -> Self {
        Self { check, ok: false, message: message.into(), hint }
    }
}

impl Record for Finding {
    const TYPE: &'static str = "finding";
    fn human(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ok {
            return write!(f, "ok    {}", self.message);
        }
        write!(f, "CARE  {}\n      hint: {}", self.message, self.hint)
    }
}

pub(super) async fn doctor(shell: &mut Shell) -> Result<Exit, Error> {
    let host = System;
    let mut findings = computer(&host, &memory::Process::this());
    findings.extend(place::file(&host, &place::File::of(&shell.vault), (shell.world.clock)()));
    for finding in &findings {
        shell.output.emit(finding)?;
    }
    let mut all_well = findings.iter().all(|finding| finding.ok);
    if !shell.world.offline {
        all_well &= relays(shell).await?;
    }
    Ok(if all_well { Exit::Done } else { Exit::Negative })
}

/// What concerns the computer, whatever vault is on it.
fn computer(host: &dyn Host, process: &memory::Process) -> Vec<Finding> {
    let mut findings = memory::checks(host, process);
    findings.extend(screen::checks(host, process.id));
    findings
}

/// Keys that do not open or are lost, and what was due and is not erased.
fn keys(shell: &mut Shell, client: &Client) -> Result<bool, Error> {
    let mut well = client.damaged_keys().is_empty() && client.unerased().is_empty();
    for (name, units) in client.damaged_keys() {
        let message = format!(
            "{units} part(s) of the table of keys of {name} do not open, nor do texts whose keys lie there"
        );
        shell.output.emit(&Finding::care(
            "keys",
            message,
            "copy the vault's file away before anything else: another computer or disk may read it; check this disk; erasing a text whose key lies there overwrites these parts, for good",
        ))?;
    }
    for (number, compartment) in client.compartments().iter().enumerate() {
        let lost = client.read(number, engine::keys_without_answer)?;
        let name = &compartment.name;
        // Where parts do not open now, that is told already, and nobody knows yet what is lost.
        if lost == 0 || client.damaged_keys().iter().any(|(damaged, _)| damaged == name) {
            continue;
        }
        well = false;
        shell.output.emit(&Finding::care(
            "keys",
            format!("{lost} key(s) of {name} are lost: the table of keys was damaged, and its damaged parts were overwritten"),
            "the texts under them open for nobody: lapwing read says \"key damaged\"; ask your contacts for them; this line goes when they are erased: lapwing chat erase",
        ))?;
    }
    for (name, fault) in client.unerased() {
        shell.output.emit(&Finding::care("erasing", format!("{name}: {fault}"), fault.hint()))?;
    }
    Ok(well)
}

fn unfetched(relay: &RelayAddress) -> Finding {
    Finding {
        check: "relay",
        ok: false,
        message: format!("not all that came to {relay} could be fetched"),
        hint: "run: lapwing sync; if that goes on, ask its operator to look at its log",
    }
}

async fn relays(shell: &mut Shell) -> Result<bool, Error> {
    let mut client = shell.unlock().await?;
    let report = client.settle(crate::cli::shell::SETTLE).await;
    shell.announce(&client, &report.effects);
    let mut well = keys(shell, &client)?;
    let unread: BTreeSet<_> = report.unread.iter().map(RelayAddress::key).collect();
    let mut told = BTreeSet::new();
    for number in 0..client.compartments().len() {
        for relay in client.read(number, view::relays)? {
            let trouble = report.trouble.iter().find(|trouble| trouble.relay.key() == relay.address.key());
            let finding = match (trouble, relay.refused, relay.inconsistent) {
                (Some(trouble), _, _) => Finding {
                    check: "relay",
                    ok: false,
                    message: format!("{}: {}", relay.address, trouble.error),
                    hint: "check the network; ask the relay's operator; what waits is kept",
                },
                (None, Some(_), _) => Finding {
                    check: "relay",
                    ok: false,
                    message: format!("{} does not accept the access ticket", relay.address),
                    hint: "ask its operator for a new one and run: lapwing relay add -",
                },
                _ if unread.contains(relay.address.key()) => {
                    told.insert(*relay.address.key());
                    unfetched(&relay.address)
                }
                (None, None, true) => Finding {
                    check: "relay",
                    ok: false,
                    message: format!("{} lost or changed something that it had stored", relay.address),
                    hint: "ask its operator what happened; ask your contacts whether messages are missing",
                },
                _ => Finding {
                    check: "relay",
                    ok: true,
                    message: format!("{} answers", relay.address),
                    hint: "",
                },
            };
            well &= finding.ok;
            shell.output.emit(&finding)?;
        }
        let name = &client.compartments()[number].name;
        if client.crowded().iter().any(|(crowded, _)| crowded == name) {
            well = false;
            shell.output.emit(&Finding {
                check: "space",
                ok: false,
                message: format!("{name} is nearly full"),
                hint: "delete what is not needed, or make the vault larger: lapwing grow --size SIZE",
            })?;
        }
    }
    // A group's log may lie at a relay that is not one's own.
    for relay in report.unread.iter().filter(|relay| !told.contains(relay.key())) {
        well = false;
        shell.output.emit(&unfetched(relay))?;
    }
    for fault in &report.faults {
        well = false;
        if matches!(fault, Fault::NotErased(_)) {
            shell.output.emit(&Finding::care("erasing", fault.to_string(), fault.hint()))?;
            continue;
        }
        shell.output.emit(&Finding {
            check: "records",
            ok: false,
            message: format!("something could not be taken in: {fault}"),
            hint: "please report this; nothing was lost: it is tried again",
        })?;
    }
    shell.close(client).await;
    Ok(well)
}
