//! The relays of a compartment.

use lapwing_wire::{
    address::{AccessTicket, RelayAddress, RelayKey},
    capability::{Access, SecretKey},
    frame::MailboxKind,
};
use serde_bytes::ByteBuf;

use super::{Cx, Fault, outgoing};
use crate::store::{MailboxRow, OpRow, Purpose, RelayRow, Unit};

/// Adds a relay, or takes a new access ticket or address for one that is there. A mailbox of its own shows that the
/// compartment lives there (design 5.2: a tripwire only uses relays on which the cover has a live mailbox).
pub(super) fn add(cx: &mut Cx<'_, '_, '_>, text: &str) -> Result<RelayAddress, Fault> {
    let ticket = AccessTicket::from_text(text).map_err(|_| Fault::AccessTicket)?;
    add_ticket(cx, ticket.relay(), ticket.secret())
}

/// As [`add`], with the parts of the ticket.
pub(super) fn add_ticket(
    cx: &mut Cx<'_, '_, '_>,
    relay: &RelayAddress,
    access: &SecretKey<Access>,
) -> Result<RelayAddress, Fault> {
    let key = *relay.key().as_bytes();
    let known = cx.unit.get::<RelayRow>(&key)?.is_some();
    let row = RelayRow {
        address: relay.clone(),
        access: ByteBuf::from(access.expose_seed().to_vec()),
        refused: None,
    };
    cx.unit.put(&key, &row);
    if !known {
        outgoing::new_mailbox(cx, relay, Purpose::Home, MailboxKind::Queue)?;
    }
    Ok(relay.clone())
}

/// Removes a relay that no chat receives at.
pub(super) fn remove(cx: &mut Cx<'_, '_, '_>, key: &RelayKey) -> Result<(), Fault> {
    let id = *key.as_bytes();
    if cx.unit.get::<RelayRow>(&id)?.is_none() {
        return Err(Fault::UnknownRelay);
    }
    let mailboxes = cx.unit.scan::<MailboxRow>(&[])?;
    if mailboxes.iter().any(|(_, row)| row.relay.key() == key && row.purpose != Purpose::Home) {
        return Err(Fault::RelayInUse);
    }
    for (mailbox, row) in mailboxes {
        if row.relay.key() == key {
            cx.unit.delete::<MailboxRow>(&mailbox);
        }
    }
    for (op, row) in cx.unit.scan::<OpRow>(&[])? {
        if row.relay.key() == key {
            cx.unit.delete::<OpRow>(&op);
        }
    }
    cx.unit.delete::<RelayRow>(&id);
    Ok(())
}

/// The relay that new chats receive at: the one that was asked for, or the first.
///
/// # Errors
/// [`Fault::NoRelay`], [`Fault::UnknownRelay`].
pub fn default_relay(unit: &Unit<'_>, wanted: Option<&RelayKey>) -> Result<RelayRow, Fault> {
    match wanted {
        Some(key) => unit.get::<RelayRow>(key.as_bytes())?.ok_or(Fault::UnknownRelay),
        None => unit
            .range::<RelayRow>(&[], None, 1, false)?
            .into_iter()
            .next()
            .map(|(_, row)| row)
            .ok_or(Fault::NoRelay),
    }
}

/// Every relay that this compartment has to talk to: its own, and those where it has something to read or to do.
///
/// # Errors
/// [`Fault::Store`].
pub fn connected_relays(unit: &Unit<'_>) -> Result<Vec<RelayAddress>, Fault> {
    let mut all: Vec<RelayAddress> = Vec::new();
    let mut add = |address: RelayAddress| {
        if all.iter().all(|known| known.key() != address.key()) {
            all.push(address);
        }
    };
    unit.scan::<RelayRow>(&[])?.into_iter().for_each(|(_, row)| add(row.address));
    unit.scan::<MailboxRow>(&[])?
        .into_iter()
        .filter(|(_, row)| row.read.is_some())
        .for_each(|(_, row)| add(row.relay));
    unit.scan::<OpRow>(&[])?.into_iter().for_each(|(_, row)| add(row.relay));
    Ok(all)
}
