//! `init`: from nothing to a relay with one access ticket.

use std::{sync::Arc, time::Duration};

use lapwing_wire::address::RelayAddress;
use qrcode::{QrCode, render::unicode};
use serde_json::json;

use super::{CliError, InitArgs, access::unexpected, output::Output};
use crate::{
    clock::{Clock, SystemClock},
    config::{Config, host_fault},
    key::RelaySecret,
    operator::{Ask, Desk, Reply},
    place::{Place, quoted},
    service::Service,
    store::{KeptStore, StoreError, StoreOptions},
};

pub(super) async fn run(args: &InitArgs, place: &Place, output: &Output) -> Result<(), CliError> {
    let InitArgs { host, port, listen, engine } = args;
    if let Some(why) = host_fault(host) {
        return Err(CliError::Host { host: host.clone(), why });
    }
    let secret = RelaySecret::generate(&mut rand::rng());
    let key = secret.public()?;
    // Checked before anything is written; port 0 stands for one that is not known yet.
    let checked = RelayAddress::new(key, host, (*port).max(1))?;
    let address = (*port != 0).then_some(checked);
    let text = Config::example(host, *port, *listen, *engine);
    let (config, _) = Config::parse(&text)?;
    place.create(&secret, &text, &[])?;
    let desk = open(place, &config, address.clone()).await?;
    let issued = match &address {
        Some(_) => Some(issue(&desk, &config).await?),
        None => None,
    };
    desk.service().shutdown().await;
    show(place, address.as_ref(), issued.as_ref(), output);
    Ok(())
}

/// How often it is tried to take the folder, which a command may give free in a moment, and how long is waited in between.
const TRIES: usize = 10;
const MOMENT: Duration = Duration::from_millis(20);

/// Takes the folder for as long as this process lives: no other uses what is in it, and `wipe` knows whom to end.
///
/// # Errors
/// [`StoreError::Locked`] if another process has it.
pub(super) async fn hold(place: &Place) -> Result<(), CliError> {
    let mut lock = place.lock()?;
    for _ in 0..TRIES {
        if lock.try_take()? {
            lock.keep();
            return Ok(());
        }
        tokio::time::sleep(MOMENT).await;
    }
    Err(StoreError::Locked.into())
}

/// As `hold`, of a folder that has to hold a relay, also after whoever had it is gone: that may have been a `wipe`.
///
/// # Errors
/// As of [`Place::check_config`] if there is none.
pub(super) async fn hold_relay(place: &Place) -> Result<(), CliError> {
    // A folder of something else gets no file of this program.
    place.check_config()?;
    hold(place).await?;
    Ok(place.check_config()?)
}

/// A relay that does not run, for its operator.
pub(super) async fn open(
    place: &Place,
    config: &Config,
    address: Option<RelayAddress>,
) -> Result<Desk, CliError> {
    hold_relay(place).await?;
    let store = open_store(place, config).await?;
    let service =
        Service::start(Arc::clone(&store) as _, config.limits(), &mut rand::rng(), SystemClock.now()).await?;
    Ok(Desk::new(Arc::new(service), store, place.clone(), address, None))
}

/// Opens the store off the runtime's threads: its journal may take a second to replay.
pub(super) async fn open_store(place: &Place, config: &Config) -> Result<Arc<dyn KeptStore>, CliError> {
    let options = StoreOptions {
        reserve: config.storage.reserve.0,
        memory: config.storage.memory.0,
        ..StoreOptions::at(place.store())
    };
    let engine = config.storage.engine;
    let opened = tokio::task::spawn_blocking(move || engine.open(&options)).await;
    Ok(opened.map_err(|_| StoreError::Closed)??)
}

struct Issued {
    name: String,
    ticket: String,
}

async fn issue(desk: &Desk, config: &Config) -> Result<Issued, CliError> {
    let ask =
        Ask::AccessIssue { bytes: config.access.size.0, mailboxes: config.access.mailboxes, expires: None };
    match desk.answer(ask, SystemClock.now()).await {
        Reply::Issued { name, ticket } => Ok(Issued { name, ticket }),
        other => Err(unexpected(other)),
    }
}

fn show(place: &Place, address: Option<&RelayAddress>, issued: Option<&Issued>, output: &Output) {
    let dir = place.dir().display().to_string();
    let text_address = address.map(RelayAddress::to_string);
    let mut text = format!("The relay is in {dir}.\n");
    match (&text_address, issued) {
        (Some(address), Some(Issued { name, ticket })) => {
            text.push_str(&format!("\nIts address:\n{address}\n"));
            if !output.is_json()
                && let Ok(code) = QrCode::new(address.as_bytes())
            {
                text.push_str(&format!(
                    "\n{}\n",
                    code.render::<unicode::Dense1x2>().quiet_zone(true).build()
                ));
            }
            text.push_str(&format!(
                "\nIts first access ticket (who has it may create mailboxes here; it is not shown again):\n{ticket}\n\
                 \nThe ticket's name, for `access list` and `access revoke`: {name}\n"
            ));
        }
        _ => text.push_str("\nIts port is chosen at each start: `lapwing-relay serve` prints it.\n"),
    }
    text.push_str(&format!("\nNext: {}", next(place)));
    let json = json!({
        "dir": dir, "address": text_address,
        "access_ticket": issued.map(|issued| &issued.ticket), "name": issued.map(|issued| &issued.name),
    });
    output.result("relay", json, &text);
}

/// What an operator types next.
pub(super) fn next(place: &Place) -> String {
    if *place == Place::new(None) {
        return "lapwing-relay serve".to_owned();
    }
    format!("lapwing-relay serve --dir {}", quoted(place.dir()))
}
