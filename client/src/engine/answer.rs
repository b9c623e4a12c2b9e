//! What a relay answers to an operation.

use lapwing_protocol::route::Route;
use lapwing_wire::frame::{Refusal, ResponseBody};

use super::{Cx, Effect, Fault, contact, conversation, group, outgoing, plan, voice};
use crate::store::{
    ChatId, ContactRow, ContactState, MailboxRow, MailboxState, MessageState, OpId, OpKind, OpRow, RelayRow,
};

/// Nothing is left to do for an operation.
pub(super) fn obsolete(cx: &mut Cx<'_, '_, '_>, op: OpId) {
    cx.unit.delete::<OpRow>(&op);
}

/// Takes the answer to an operation that is still recorded; another one came from an earlier try.
pub(super) fn answer(cx: &mut Cx<'_, '_, '_>, op: OpId, body: ResponseBody) -> Result<(), Fault> {
    let Some(mut row) = cx.unit.get::<OpRow>(&op)? else { return Ok(()) };
    match (&mut row.kind, body) {
        (OpKind::GetBundle { hash: _, chat }, body) => {
            let chat = *chat;
            contact::bundle_answer(cx, op, chat, body)
        }
        (OpKind::GetChain { .. }, body) => group::chain_answer(cx, op, row, body),
        (OpKind::PutBlob { hash: _, bytes, offset }, ResponseBody::BlobProgress(done)) => {
            let total = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            if done >= total {
                cx.unit.delete::<OpRow>(&op);
            } else {
                *offset = done;
                row.refused = None;
                cx.unit.put(&op, &row);
            }
            Ok(())
        }
        (OpKind::Create { mailbox }, ResponseBody::Done) => {
            cx.unit.delete::<OpRow>(&op);
            if let Some(mut created) = cx.unit.get::<MailboxRow>(mailbox)? {
                created.state = MailboxState::Open;
                cx.unit.put(mailbox, &created);
            }
            accepted(cx, &row)
        }
        (OpKind::Append { chat, order, .. }, ResponseBody::Stored(_)) => {
            cx.unit.delete::<OpRow>(&op);
            if let Some(order) = *order {
                conversation::set_state(cx, *chat, order, MessageState::Sent)?;
                cx.tell(Effect::Delivered { chat: *chat, order });
            }
            Ok(())
        }
        (OpKind::Arm { plan }, ResponseBody::Done) => {
            let plan = *plan;
            cx.unit.delete::<OpRow>(&op);
            plan::confirmed(cx, &plan, row.relay.key())
        }
        (_, ResponseBody::Refused(refusal)) => refused(cx, op, row, refusal),
        (OpKind::Trigger { trust, tripwire }, ResponseBody::Done) => {
            cx.unit.delete::<OpRow>(&op);
            voice::taken(cx, trust, tripwire)
        }
        (OpKind::Close { .. } | OpKind::Disarm { .. }, ResponseBody::Done) => {
            cx.unit.delete::<OpRow>(&op);
            Ok(())
        }
        // An answer that does not belong to the question: the relay is at fault; asked again later.
        (_, _) => refused(cx, op, row, Refusal::Unsupported),
    }
}

fn refused(cx: &mut Cx<'_, '_, '_>, op: OpId, mut row: OpRow, refusal: Refusal) -> Result<(), Fault> {
    let lasting = match (&row.kind, refusal) {
        // Room may come; a ticket may be renewed by the operator; a newer relay may understand.
        (_, Refusal::Full | Refusal::Busy | Refusal::NoAccess | Refusal::Frozen | Refusal::Unsupported) => {
            false
        }
        (_, Refusal::NotAllowed | Refusal::TooLarge | Refusal::Conflict) => true,
    };
    if refusal == Refusal::NoAccess
        && let Some(mut relay) = cx.unit.get::<RelayRow>(row.relay.key().as_bytes())?
    {
        relay.refused = Some(refusal);
        cx.unit.put(row.relay.key().as_bytes(), &relay);
    }
    if !lasting {
        row.refused = Some(refusal);
        cx.unit.put(&op, &row);
        return Ok(());
    }
    if let (OpKind::Arm { plan }, Refusal::Conflict) = (&row.kind, refusal) {
        plan::conflicted(cx, plan, row.relay.key())?;
        // Tried again at once after the first conflict; a relay that sees nothing but conflicts waits.
        let again = if row.refused == Some(Refusal::Conflict) {
            op
        } else {
            cx.unit.delete::<OpRow>(&op);
            outgoing::push(cx, &row.relay, OpKind::Arm { plan: *plan }, None)?
        };
        row.refused = Some(Refusal::Conflict);
        cx.unit.put(&again, &row);
        return Ok(());
    }
    cx.unit.delete::<OpRow>(&op);
    if let OpKind::Append { chat, .. } = &row.kind {
        conversation::undelivered(cx, &row.kind)?;
        unreachable_contact(cx, *chat, &row.kind)?;
    }
    Ok(())
}

/// The mailbox of a contact is gone. Where it was the ticket's, somebody else used the ticket.
fn unreachable_contact(cx: &mut Cx<'_, '_, '_>, chat: ChatId, kind: &OpKind) -> Result<(), Fault> {
    let OpKind::Append { mailbox, order, .. } = kind else { return Ok(()) };
    let Some(contact) = cx.unit.get::<ContactRow>(&chat)? else { return Ok(()) };
    let current =
        contact.route.as_ref().and_then(|route| Route::import(route).ok()).map(|route| route.mailbox);
    if contact.state == ContactState::Joined && current == Some(*mailbox) {
        return contact::failed(cx, chat, contact);
    }
    // A message of a person is shown as not delivered; what the program itself had to say would be missed by nobody.
    if order.is_none() && contact.state == ContactState::Established && current == Some(*mailbox) {
        conversation::note(
            cx,
            chat,
            "does not receive here any more: something the program had to tell did not arrive",
        )?;
    }
    Ok(())
}

fn accepted(cx: &mut Cx<'_, '_, '_>, row: &OpRow) -> Result<(), Fault> {
    if let Some(mut relay) = cx.unit.get::<RelayRow>(row.relay.key().as_bytes())?
        && relay.refused.take().is_some()
    {
        cx.unit.put(row.relay.key().as_bytes(), &relay);
    }
    Ok(())
}
