//! What a relay delivers: each envelope once, in order, checked against what the relay said before.

use lapwing_protocol::envelope;
use lapwing_wire::{
    frame::{Item, MailboxKind, Seq, Window},
    ids::{MailboxId, RunningHash},
};

use super::{Cx, Effect, Fault, contact, group, trust};
use crate::store::{MailboxRow, Purpose};

/// Takes a window of one mailbox. The cursor moves in the same unit of work as all that the envelopes change.
///
/// What cannot be opened is passed over (INB-01): keeping it would let anybody who may append stop the mailbox.
/// A running hash that does not continue the one we know (INB-02), or a relay whose newest number lies behind our
/// cursor (INB-03), is told; in the second case everything that the relay has is read again, which the sessions'
/// own replay protection makes harmless.
pub(super) fn window(cx: &mut Cx<'_, '_, '_>, window: Window, caught_up: bool) -> Result<(), Fault> {
    let Window { mailbox, newest, items } = window;
    let Some(mut row) = cx.unit.get::<MailboxRow>(&mailbox)? else { return Ok(()) };
    if newest < row.cursor {
        row.cursor = Seq::START;
        row.hash = None;
        row.inconsistent = true;
        cx.unit.put(&mailbox, &row);
        cx.tell(Effect::Inconsistent);
        return Ok(());
    }
    for item in items {
        if item.place.seq <= row.cursor {
            continue;
        }
        if follows(&row, &item) == Some(false) && !row.inconsistent {
            row.inconsistent = true;
            cx.tell(Effect::Inconsistent);
        }
        row.cursor = item.place.seq;
        row.hash = Some(item.place.hash);
        cx.unit.put(&mailbox, &row);
        take(cx, &mailbox, &row, &item)?;
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

fn take(cx: &mut Cx<'_, '_, '_>, mailbox: &MailboxId, row: &MailboxRow, item: &Item) -> Result<(), Fault> {
    let key = contact::envelope_key(row)?;
    let taken = match envelope::open(&key, mailbox, &item.envelope) {
        Err(_) => false,
        Ok(message) => match row.purpose {
            Purpose::Ticket(chat) => contact::on_ticket_mailbox(cx, chat, message.expose())?,
            Purpose::Direct(chat) => contact::on_direct_mailbox(cx, chat, message.expose())?,
            Purpose::Group(chat) => group::entry(cx, chat, mailbox, item.place.seq, message.expose())?,
            Purpose::Alert(trust) => trust::alert(cx, trust, message.expose())?,
            Purpose::AlertOutbox(_) | Purpose::Home => false,
        },
    };
    if !taken {
        cx.tell(Effect::Refused);
    }
    Ok(())
}

/// Whether what was taken from this mailbox is acknowledged to its relay.
#[must_use]
pub fn is_acknowledged(row: &MailboxRow) -> bool {
    row.kind == MailboxKind::Queue
}
