//! `init`, `status`.

use std::fmt;

use lapwing_vault::{ContainerSize, Placement};
use serde::Serialize;

use crate::{
    cli::{args::InitArgs, exit::Exit, output::Record, progress::Progress, shell::Shell, size, table::Table},
    client::Client,
    clock,
    engine::{self, copies, renewal, view},
    error::Error,
};

pub(super) async fn init(shell: &mut Shell, args: &InitArgs) -> Result<Exit, Error> {
    let container = ContainerSize::new(args.size)
        .map_err(|error| Error::usage(error.to_string(), "try: lapwing init --size 256MiB"))?;
    if shell.vault.try_exists().unwrap_or(false) {
        return Err(Error::refused(
            "something exists at this path already",
            "choose another path with --vault; nothing was changed",
        ));
    }
    shell.output.talk(
        "A vault is one file of fixed size. There is no way back to it without its\npassphrase: nobody can reset it, and what is forgotten is lost.\nRandom words are strong and easy to keep: lapwing passphrase suggest, or --suggest here.",
    );
    let passphrase = shell.set_passphrase("new passphrase", args.new)?;
    if let Some(folder) = shell.vault.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        make_folder(folder)?;
    }
    let bar = Progress::bar(&shell.output, "writing the vault", container.bytes());
    let client =
        Client::create(&shell.world, &shell.vault, container, &passphrase, &mut |done, _| bar.set(done))?;
    drop(bar);
    shell.close(client).await;
    shell.output.emit(&Made { path: shell.vault.display().to_string(), bytes: container.bytes() })?;
    if let Some(other) = Placement::unfinished_beside(&shell.vault) {
        shell.output.warn(format_args!(
            "{} lies beside it: what was ended while it made a vault here leaves such a file, which opens for nobody; see what it is and remove it",
            other.display()
        ));
    }
    shell.output.talk("Next: ask your relay's operator for an access ticket, then run: lapwing relay add -");
    Ok(Exit::Done)
}

pub(super) fn make_folder(folder: &std::path::Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| {
        Error::refused(
            format!("the folder for the vault cannot be made: {}", error.kind()),
            "choose another path with --vault",
        )
    })
}

/// A vault that was made, or made larger.
#[derive(Serialize)]
pub(super) struct Made {
    pub(super) path: String,
    pub(super) bytes: u64,
}

impl Record for Made {
    const TYPE: &'static str = "vault";
    fn human(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "made a vault of {} at {}", size::words(self.bytes), self.path)
    }
}

#[derive(Serialize)]
struct Status {
    compartments: Vec<CompartmentStatus>,
}

#[derive(Serialize)]
struct CompartmentStatus {
    name: String,
    used_bytes: u64,
    limit_bytes: u64,
    relays: usize,
    chats: usize,
    unread: usize,
    waiting: usize,
    alerts: usize,
    inconsistent_relays: usize,
    renewing: Vec<String>,
    copied: bool,
    damaged_keys: usize,
    lost_keys: usize,
}

impl Record for Status {
    const TYPE: &'static str = "status";
    fn human(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table =
            Table::new(&["compartment", "relays", "chats", "unread", "waiting", "alerts", "used"]);
        for one in &self.compartments {
            // What keeps a full compartment usable lives beyond the limit.
            let percent = (one.used_bytes.saturating_mul(100) / one.limit_bytes.max(1)).min(100);
            table.row([
                one.name.clone(),
                one.relays.to_string(),
                one.chats.to_string(),
                one.unread.to_string(),
                one.waiting.to_string(),
                one.alerts.to_string(),
                format!("{percent} % of {}", size::words(one.limit_bytes)),
            ]);
        }
        write!(f, "{table}")?;
        for one in self.compartments.iter().filter(|one| one.inconsistent_relays > 0) {
            writeln!(f, "a relay of {} contradicted itself: messages may be missing there", one.name)?;
        }
        for one in self.compartments.iter().filter(|one| !one.renewing.is_empty()) {
            writeln!(
                f,
                "sessions of {} begun anew and not answered yet: {}",
                one.name,
                one.renewing.join(", ")
            )?;
        }
        for one in self.compartments.iter().filter(|one| one.damaged_keys > 0) {
            writeln!(f, "some keys of {} do not open any more; what to do: lapwing doctor", one.name)?;
        }
        for one in self.compartments.iter().filter(|one| one.damaged_keys == 0 && one.lost_keys > 0) {
            writeln!(
                f,
                "{} keys of {} are lost, and the texts under them; see: lapwing doctor",
                one.lost_keys, one.name
            )?;
        }
        for one in self.compartments.iter().filter(|one| one.copied) {
            writeln!(
                f,
                "{} was used in another place too, by a copy of this vault; use only one, and there run: lapwing chat renew --all",
                one.name
            )?;
        }
        Ok(())
    }
}

pub(super) async fn status(shell: &mut Shell) -> Result<Exit, Error> {
    let mut client = shell.unlock().await?;
    shell.settle(&mut client).await;
    let now = clock::now();
    let mut compartments = Vec::new();
    for (number, compartment) in client.compartments().iter().enumerate() {
        let chats = client.read(number, |unit| view::chats_at(unit, now))?;
        let relays = client.read(number, view::relays)?;
        let alerts = client.read(number, view::alerts)?;
        let waiting = client.read(number, view::waiting)?.len();
        let (used_bytes, limit_bytes) = client.space(number)?;
        let damaged = client.damaged_keys().iter().find(|(name, _)| *name == compartment.name);
        compartments.push(CompartmentStatus {
            name: compartment.name.clone(),
            used_bytes,
            limit_bytes,
            relays: relays.len(),
            chats: chats.len(),
            unread: chats.iter().map(|chat| chat.unread).sum(),
            waiting,
            alerts: alerts.iter().filter(|alert| alert.acknowledged.is_none()).count(),
            renewing: client.read(number, renewal::renewals)?.into_iter().map(|view| view.name).collect(),
            copied: client.read(number, copies::copied)?.is_some(),
            damaged_keys: damaged.map_or(0, |(_, units)| *units),
            lost_keys: client.read(number, engine::keys_without_answer)?,
            inconsistent_relays: relays.iter().filter(|relay| relay.inconsistent).count(),
        });
    }
    shell.close(client).await;
    shell.output.emit(&Status { compartments })?;
    Ok(Exit::Done)
}
