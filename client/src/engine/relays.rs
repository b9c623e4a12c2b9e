//! The relays of a compartment.

use std::{collections::BTreeMap, time::Duration};

use lapwing_wire::{
    address::{AccessTicket, RelayAddress, RelayKey},
    capability::{Access, SecretKey},
    frame::{MailboxKind, Refusal, Seq},
    ids::{MailboxId, RunningHash},
};
use serde_bytes::ByteBuf;

use super::{Cx, Effect, Fault, copies, outgoing, plan};
use crate::store::{
    ChatRow, HeirRow, MailboxRow, MailboxState, OpKind, OpRow, PlanRow, Purpose, RelayRow, Unit,
};

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
    // A ticket of a relay that has changed its key since is of the same relay.
    let relay = &RelayAddress::new(named(cx.unit, relay.key())?, relay.host(), relay.port())
        .map_err(|_| Fault::AccessTicket)?;
    let key = *relay.key().as_bytes();
    let known = cx.unit.get::<RelayRow>(&key)?.is_some();
    let row = RelayRow {
        address: relay.clone(),
        access: ByteBuf::from(access.expose_seed().to_vec()),
        refused: None,
        retold: None,
    };
    cx.unit.put(&key, &row);
    if !known {
        outgoing::new_mailbox(cx, relay, Purpose::Home, MailboxKind::Queue)?;
    }
    Ok(relay.clone())
}

/// Removes a relay that nothing of this compartment lies at. What still waits for somebody's mailbox there goes on.
pub(super) fn remove(cx: &mut Cx<'_, '_, '_>, key: &RelayKey) -> Result<(), Fault> {
    let key = &named(cx.unit, key)?;
    let id = *key.as_bytes();
    if cx.unit.get::<RelayRow>(&id)?.is_none() {
        return Err(Fault::UnknownRelay);
    }
    let here: Vec<_> =
        cx.unit.scan::<MailboxRow>(&[])?.into_iter().filter(|(_, row)| row.relay.key() == key).collect();
    let is_kept_by_a_plan = |(_, plan): &(_, PlanRow)| plan.tripwires.iter().any(|t| t.relay.key() == key);
    if here.iter().any(|(_, row)| row.purpose != Purpose::Home)
        || cx.unit.scan::<PlanRow>(&[])?.iter().any(is_kept_by_a_plan)
    {
        return Err(Fault::RelayInUse);
    }
    for (mailbox, _) in here {
        outgoing::close_mailbox(cx, &mailbox)?;
    }
    cx.unit.delete::<RelayRow>(&id);
    Ok(())
}

/// INB-02, INB-03: the relay lost or changed what it had. Everything that it has is read again.
pub(super) fn rolled_back(
    cx: &mut Cx<'_, '_, '_>,
    mailbox: &MailboxId,
    mut row: MailboxRow,
) -> Result<(), Fault> {
    row.cursor = Seq::START;
    row.hash = None;
    row.inconsistent = true;
    cx.unit.put(mailbox, &row);
    cx.tell(Effect::Inconsistent);
    tell_anew(cx, &row.relay)
}

/// The relay says that it has no mailbox of ours that it had confirmed: it is made again, with the same keys, so that
/// whoever sends to it needs to know nothing.
pub(super) fn gone(cx: &mut Cx<'_, '_, '_>, mailbox: &MailboxId) -> Result<(), Fault> {
    let Some(mut row) = cx.unit.get::<MailboxRow>(mailbox)? else { return Ok(()) };
    if row.admin.is_none() && row.closes.is_some() && matches!(row.purpose, Purpose::Direct(_)) {
        // One that was left, and that nobody can close: it has expired there.
        cx.unit.delete::<MailboxRow>(mailbox);
        return Ok(());
    }
    // Of somebody else's mailbox this is how we learn that it was closed.
    if row.admin.is_none() || row.state != MailboxState::Open {
        return Ok(());
    }
    row.state = MailboxState::Creating;
    row.cursor = Seq::START;
    row.hash = Some(RunningHash::START);
    row.inconsistent = true;
    cx.unit.put(mailbox, &row);
    outgoing::push(cx, &row.relay, OpKind::Create { mailbox: *mailbox }, None)?;
    cx.tell(Effect::Inconsistent);
    tell_anew(cx, &row.relay)
}

/// How often a relay that forgets is told everything anew at most: it may be lying.
const RETELL: Duration = Duration::from_secs(3600);

/// A relay that forgot one thing may have forgotten others that nobody reads: mailboxes for alerts, tripwires.
pub(super) fn tell_anew(cx: &mut Cx<'_, '_, '_>, relay: &RelayAddress) -> Result<(), Fault> {
    let id = *relay.key().as_bytes();
    let Some(mut known) = cx.unit.get::<RelayRow>(&id)? else { return Ok(()) };
    if known.retold.is_some_and(|told| cx.now.since(told) < RETELL) {
        return Ok(());
    }
    known.retold = Some(cx.now);
    cx.unit.put(&id, &known);
    for (mailbox, row) in cx.unit.scan::<MailboxRow>(&[])? {
        if row.relay.key() == relay.key() && row.admin.is_some() && row.state == MailboxState::Open {
            outgoing::push(cx, relay, OpKind::Create { mailbox }, None)?;
        }
    }
    plan::forgotten(cx, relay.key())
}

/// SUC-02: from now on the relay is known by another key. A compartment that has nothing to do with the relay learns
/// nothing of it.
pub(super) fn inherit(cx: &mut Cx<'_, '_, '_>, relay: &RelayKey, heir: RelayKey) -> Result<(), Fault> {
    let id = *relay.as_bytes();
    if connected_relays(cx.unit)?.iter().any(|known| known.key() == relay)
        && cx.unit.get::<HeirRow>(&id)?.is_none_or(|row| row.key != heir)
    {
        cx.unit.put(&id, &HeirRow { key: heir });
    }
    Ok(())
}

/// The relays that have changed their keys: the key under which each is known here, and the one that it has.
///
/// # Errors
/// [`Fault::Store`].
pub fn heirs(unit: &Unit<'_>) -> Result<Vec<([u8; 32], RelayKey)>, Fault> {
    Ok(unit.scan::<HeirRow>(&[])?.into_iter().map(|(known, row)| (known, row.key)).collect())
}

/// The address with which a relay is shown to people: with the key that it has now.
///
/// # Errors
/// [`Fault::Store`].
pub(super) fn current(unit: &Unit<'_>, relay: &RelayAddress) -> Result<RelayAddress, Fault> {
    let heir = unit.get::<HeirRow>(relay.key().as_bytes())?;
    let heir = heir.and_then(|row| RelayAddress::new(row.key, relay.host(), relay.port()).ok());
    Ok(heir.unwrap_or_else(|| relay.clone()))
}

/// A relay of a compartment.
#[derive(Debug)]
pub struct RelayView {
    /// Where it is, with the key under which it is known here.
    pub address: RelayAddress,
    /// The same with the key that it has now: what people see.
    pub shown: RelayAddress,
    /// What it said to the access ticket.
    pub refused: Option<Refusal>,
    /// Operations that wait for it.
    pub waiting: usize,
    /// It contradicted itself in some mailbox.
    pub inconsistent: bool,
}

/// The relays.
///
/// # Errors
/// [`Fault::Store`].
pub fn list(unit: &Unit<'_>) -> Result<Vec<RelayView>, Fault> {
    let mut ops = Vec::new();
    for (_, op) in unit.scan::<OpRow>(&[])? {
        if !copies::is_mark(unit, &op)? {
            ops.push(op);
        }
    }
    let mailboxes = unit.scan::<MailboxRow>(&[])?;
    let view = |row: RelayRow| {
        let key = *row.address.key();
        Ok(RelayView {
            shown: current(unit, &row.address)?,
            waiting: ops.iter().filter(|op| *op.relay.key() == key).count(),
            inconsistent: mailboxes.iter().any(|(_, m)| *m.relay.key() == key && m.inconsistent),
            address: row.address,
            refused: row.refused,
        })
    };
    unit.scan::<RelayRow>(&[])?.into_iter().map(|(_, row)| view(row)).collect()
}

/// The key under which a relay is known here.
fn named(unit: &Unit<'_>, key: &RelayKey) -> Result<RelayKey, Fault> {
    let known = unit.scan::<RelayRow>(&[])?;
    for (_, row) in &known {
        if unit.get::<HeirRow>(row.address.key().as_bytes())?.is_some_and(|heir| heir.key == *key) {
            return Ok(*row.address.key());
        }
    }
    Ok(*key)
}

/// The relay that new chats receive at: the one that was asked for, or the first.
///
/// # Errors
/// [`Fault::NoRelay`], [`Fault::UnknownRelay`].
pub fn default_relay(unit: &Unit<'_>, wanted: Option<&RelayKey>) -> Result<RelayRow, Fault> {
    match wanted {
        Some(key) => unit.get::<RelayRow>(named(unit, key)?.as_bytes())?.ok_or(Fault::UnknownRelay),
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

/// Chats for which something waits that a relay was offered and did not take, and what it said.
///
/// # Errors
/// [`Fault::Store`].
pub fn held_up(unit: &Unit<'_>) -> Result<BTreeMap<String, Refusal>, Fault> {
    let mut found = BTreeMap::new();
    for (_, row) in unit.scan::<OpRow>(&[])? {
        if let (OpKind::Append { chat, .. }, Some(refusal)) = (&row.kind, row.refused)
            && let Some(named) = unit.get::<ChatRow>(chat)?
        {
            found.entry(named.name).or_insert(refusal);
        }
    }
    Ok(found)
}

/// Relays that were asked for something else than to take a message, as a ticket's mailbox or a plan, and took nothing new: it waits.
///
/// # Errors
/// [`Fault::Store`].
pub fn busy_relays(unit: &Unit<'_>) -> Result<Vec<RelayAddress>, Fault> {
    let mut found: Vec<RelayAddress> = Vec::new();
    for (_, OpRow { relay, kind, after: _, refused }) in unit.scan::<OpRow>(&[])? {
        let is_message = matches!(kind, OpKind::Append { .. });
        if !is_message && refused == Some(Refusal::Busy) && !found.contains(&relay) {
            found.push(relay);
        }
    }
    Ok(found)
}

/// Whether a relay refused a mailbox or a bundle, which wait for it: what an invitation needs.
///
/// # Errors
/// [`Fault::Store`].
pub fn is_invitation_refused(unit: &Unit<'_>) -> Result<bool, Fault> {
    let ops = unit.scan::<OpRow>(&[])?;
    let is_of_ticket = |kind: &OpKind| matches!(kind, OpKind::Create { .. } | OpKind::PutBlob { .. });
    Ok(ops.iter().any(|(_, op)| op.refused.is_some() && is_of_ticket(&op.kind)))
}
