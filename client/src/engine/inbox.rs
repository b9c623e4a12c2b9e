//! What a relay delivers: each envelope once, in order, checked against what the relay said before.
//!
//! Rules: INB-01 what cannot be opened or taken is passed over, alone: keeping it would let anybody who may append stop
//! the mailbox; INB-02 a first envelope whose running hash does not continue ours, and INB-03 a newest number behind
//! our cursor or another envelope under it, mean that the relay lost or changed what it had: it is told, and everything that the relay has is read
//! again before any of it is acknowledged, which the sessions' own replay protection makes harmless; INB-04 only a
//! record that cannot be stored holds a mailbox up: then nothing is acknowledged, and it comes again.

use lapwing_protocol::envelope;
use lapwing_wire::{
    frame::{Item, MailboxKind, Seq, Window},
    ids::{MailboxId, RunningHash},
};

use super::{Cx, Effect, Fault, contact, copies, group, relays, trust};
use crate::store::{MailboxRow, Purpose};

/// Takes a window of one mailbox. The cursor moves in the same unit of work as all that the envelopes change.
pub(super) fn window(cx: &mut Cx<'_, '_, '_>, window: Window, caught_up: bool) -> Result<(), Fault> {
    let Window { mailbox, newest, items } = window;
    let Some(mut row) = cx.unit.get::<MailboxRow>(&mailbox)? else { return Ok(()) };
    let is_behind = newest < row.cursor;
    let last = items.iter().find(|item| item.place.seq == row.cursor);
    let is_another = last.is_some_and(|last| row.hash.is_some_and(|known| known != last.place.hash));
    let first = items.iter().find(|item| item.place.seq > row.cursor);
    if is_behind || is_another || first.is_some_and(|first| follows(&row, first) == Some(false)) {
        return relays::rolled_back(cx, &mailbox, row);
    }
    for item in items {
        if item.place.seq <= row.cursor {
            continue;
        }
        if follows(&row, &item) == Some(false) {
            row.inconsistent = true;
            cx.tell(Effect::Inconsistent);
        }
        row.cursor = item.place.seq;
        row.hash = Some(item.place.hash);
        cx.unit.put(&mailbox, &row);
        take_alone(cx, &mailbox, &row, &item)?;
        // Taking an envelope may have changed or ended the mailbox.
        match cx.unit.get::<MailboxRow>(&mailbox)? {
            Some(changed) => row = changed,
            None => return Ok(()),
        }
    }
    if caught_up && row.closes.is_some_and(|closes| closes <= cx.now) {
        contact::drained(cx, &mailbox, row.purpose)?;
    } else if caught_up && let Purpose::Group(chat) = row.purpose {
        group::caught_up(cx, chat, &mailbox)?;
    }
    Ok(())
}

/// Whether the relay's running hash continues ours. `None` where it cannot be told: acknowledged or expired
/// envelopes lie between.
fn follows(row: &MailboxRow, item: &Item) -> Option<bool> {
    let known: RunningHash = row.hash?;
    (item.place.seq == row.cursor.next())
        .then(|| known.next(item.place.seq.value(), &item.id()) == item.place.hash)
}

/// INB-01, INB-04.
fn take_alone(
    cx: &mut Cx<'_, '_, '_>,
    mailbox: &MailboxId,
    row: &MailboxRow,
    item: &Item,
) -> Result<(), Fault> {
    let told = cx.effects.len();
    cx.unit.savepoint();
    match take(cx, mailbox, row, item) {
        Ok(true) => {}
        Ok(false) => cx.tell(Effect::Refused),
        Err(fault @ Fault::Store(_)) => return Err(fault),
        Err(fault) => {
            cx.unit.roll_back();
            cx.group = None;
            cx.effects.truncate(told);
            cx.tell(Effect::Defect(fault));
        }
    }
    Ok(())
}

fn take(cx: &mut Cx<'_, '_, '_>, mailbox: &MailboxId, row: &MailboxRow, item: &Item) -> Result<bool, Fault> {
    let key = contact::envelope_key(row)?;
    let Ok(message) = envelope::open(&key, mailbox, &item.envelope) else { return Ok(false) };
    match row.purpose {
        Purpose::Ticket(chat) => contact::on_ticket_mailbox(cx, chat, message.expose()),
        Purpose::Direct(chat) => contact::on_direct_mailbox(cx, chat, message.expose()),
        Purpose::Group(chat) => group::entry(cx, chat, mailbox, item.place.seq, message.expose()),
        Purpose::Alert(trust) => trust::alert(cx, trust, message.expose()),
        Purpose::Home => copies::found(cx, message.expose()),
        Purpose::AlertOutbox(_) => Ok(false),
    }
}

/// Up to where what was taken from this mailbox is acknowledged to its relay, if at all. Of what we left for copies of this
/// vault the newest stays: they have to find it (CPY-06).
#[must_use]
pub fn acknowledged_to(row: &MailboxRow) -> Option<Seq> {
    let stays = if row.purpose == Purpose::Home { copies::KEPT } else { 0 };
    let upto = Seq::new(row.cursor.value().saturating_sub(stays));
    (row.kind == MailboxKind::Queue && upto > Seq::START).then_some(upto)
}
