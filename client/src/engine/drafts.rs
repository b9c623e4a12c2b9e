//! Drafts: a text for each chat that its owner has not sent, sealed as messages are.

use lapwing_protocol::content::MAX_TEXT;
use lapwing_wire::time::Timestamp;
use zeroize::Zeroizing;

use super::{Cx, Effect, Fault, bodies, contact, conversation, erasing};
use crate::store::{ChatId, Counter, DraftRow, Order, Unit};

/// Keeps a text for later; an earlier draft of the chat goes.
pub(super) fn keep(cx: &mut Cx<'_, '_, '_>, name: &str, text: &str) -> Result<(), Fault> {
    let (chat, _) = contact::find(cx, name)?;
    if text.trim().is_empty() {
        return Err(Fault::EmptyText);
    }
    if text.len() > MAX_TEXT {
        return Err(Fault::TextTooLong);
    }
    erasing::drop_draft(cx, &chat)?;
    let number = cx.unit.next(Counter::Order)?;
    let sealed = bodies::seal(cx, chat, number, text)?;
    let row = DraftRow { stored: cx.now, number, key: sealed.key, body: sealed.body };
    cx.unit.put(&chat, &row);
    Ok(())
}

/// Removes a draft.
pub(super) fn delete(cx: &mut Cx<'_, '_, '_>, name: &str) -> Result<(), Fault> {
    let (chat, _) = contact::find(cx, name)?;
    if !erasing::drop_draft(cx, &chat)? {
        return Err(Fault::NoDraft);
    }
    cx.tell(Effect::Erased);
    Ok(())
}

/// Sends a draft: it is a message, and no draft any more, in one commit.
pub(super) fn send(cx: &mut Cx<'_, '_, '_>, name: &str) -> Result<(ChatId, Order), Fault> {
    let (chat, _) = contact::find(cx, name)?;
    let (text, _) = of(cx.unit, &chat)?.ok_or(Fault::NoDraft)?;
    let order = conversation::send(cx, chat, &text)?;
    erasing::drop_draft(cx, &chat)?;
    Ok((chat, order))
}

/// The draft of a chat, and when it was last changed.
pub(super) fn of(unit: &Unit<'_>, chat: &ChatId) -> Result<Option<(Zeroizing<String>, Timestamp)>, Fault> {
    let Some(row) = unit.get::<DraftRow>(chat)? else { return Ok(None) };
    let text = bodies::open(unit, chat, row.number, &row.key, &row.body)?;
    Ok(text.map(|text| (text, row.stored)))
}
