//! Tickets for the day on which a session is gone: given, and taken.

use std::time::Duration;

use lapwing_protocol::{
    content::Body,
    renewal::RenewalTicket,
    session::{BundleUse, LocalIdentity},
};
use lapwing_wire::time::Timestamp;
use serde_bytes::ByteBuf;

use super::{
    super::{Cx, Fault, outgoing},
    peer_of, put,
};
use crate::store::{ChatId, ChatRow, ContactRow, ContactState, GivenTicket, RenewalRow};

/// RNW-01: how often a peer gets a new ticket: a backup that is older than the tickets that are open is of no use to
/// a thief, and of little to its owner.
pub(super) const PERIOD: Duration = Duration::from_secs(30 * 24 * 3600);

/// RNW-01: tickets that stay open: with one a month, a backup can be half a year old.
const OPEN: usize = 6;

/// Tickets that are remembered in all: a used one is refused by name.
const REMEMBERED: usize = 16;

/// A contact that is established now gets its first ticket.
pub(in super::super) fn enrol(cx: &mut Cx<'_, '_, '_>, chat: ChatId) -> Result<(), Fault> {
    if cx.unit.get::<RenewalRow>(&chat)?.is_some() {
        return Ok(());
    }
    let contact = cx.unit.get::<ContactRow>(&chat)?.ok_or(Fault::NotDirect)?;
    give_when_due(cx, chat, RenewalRow::default(), &contact)
}

/// Gives a ticket if the last one is old, and says when to look again.
pub(super) fn give_when_due(
    cx: &mut Cx<'_, '_, '_>,
    chat: ChatId,
    row: RenewalRow,
    contact: &ContactRow,
) -> Result<(), Fault> {
    let blocked = cx.unit.get::<ChatRow>(&chat)?.is_none_or(|shown| shown.blocked);
    let can_be_told = contact.state == ContactState::Established && contact.session.is_some() && !blocked;
    if !can_be_told {
        // Looked at again when it may have changed.
        let later = cx.now.plus(PERIOD);
        put(cx, chat, row, Some(later));
        return Ok(());
    }
    let newest = row.given.last().filter(|given| given.open).map(|given| given.made.plus(PERIOD));
    match newest {
        Some(due) if due > cx.now => {
            put(cx, chat, row, Some(due));
            Ok(())
        }
        _ => give(cx, chat, row),
    }
}

/// RNW-01: makes a ticket and sends it inside the session.
pub(super) fn give(cx: &mut Cx<'_, '_, '_>, chat: ChatId, mut row: RenewalRow) -> Result<(), Fault> {
    let contact = cx.unit.get::<ContactRow>(&chat)?.ok_or(Fault::NotDirect)?;
    let mut keys = keys(&contact, &row)?;
    let open = row.given.iter().filter(|given| given.open).count();
    let surplus = (open + 1).saturating_sub(OPEN);
    for given in row.given.iter_mut().filter(|given| given.open).take(surplus) {
        keys.retire_set(given.set);
        given.open = false;
    }
    let now = cx.system_time();
    let bundle = keys.new_bundle(BundleUse::Once, now, &mut cx.rng)?;
    let ticket = RenewalTicket::new(&bundle, &mut cx.rng)
        .map_err(|_| Fault::Inconsistent("a bundle cannot be written"))?;
    row.given.push(GivenTicket {
        set: bundle.set(),
        secret: ByteBuf::from(ticket.secret.expose().to_vec()),
        made: cx.now,
        open: true,
    });
    let forgotten = row.given.len().saturating_sub(REMEMBERED);
    row.given.drain(..forgotten);
    row.keys = ByteBuf::from(keys.export()?.expose().to_vec());
    let due: Timestamp = cx.now.plus(PERIOD);
    put(cx, chat, row, Some(due));
    outgoing::send_content(cx, chat, Body::RenewalTicket(ticket), None, contact.inbox)?;
    Ok(())
}

/// Our identity of the chat with the pre-keys of the tickets that are open.
pub(super) fn keys(contact: &ContactRow, row: &RenewalRow) -> Result<LocalIdentity, Fault> {
    let current = outgoing::local_identity(contact)?;
    if !row.keys.is_empty() {
        let keys = LocalIdentity::import(&row.keys)?;
        if keys.public() == current.public() {
            return Ok(keys);
        }
    }
    let mut fresh = current;
    // What a contact's own ticket offered belongs to that ticket.
    fresh.retire_all_bundles();
    Ok(fresh)
}

/// The peer gave us a ticket. RNW-02: one of somebody else is not kept.
pub(in super::super) fn received(
    cx: &mut Cx<'_, '_, '_>,
    chat: ChatId,
    ticket: &RenewalTicket,
) -> Result<(), Fault> {
    let Some(contact) = cx.unit.get::<ContactRow>(&chat)? else { return Ok(()) };
    enrol(cx, chat)?;
    let Some(mut row) = cx.unit.get::<RenewalRow>(&chat)? else { return Ok(()) };
    if ticket.bundle_of(&peer_of(&contact, &row)?).is_err() {
        return Ok(());
    }
    row.ticket = Some(ByteBuf::from(ticket.export().expose().to_vec()));
    // Whoever was to be succeeded may only have waited for it.
    let due = if row.succeeds { Some(cx.now) } else { row.due };
    put(cx, chat, row, due);
    Ok(())
}
