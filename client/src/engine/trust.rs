//! Trusted contacts: who gets whose alerts, and the alerts themselves (design 5.4).
//!
//! The owner makes the alert mailbox at the relay of the tripwire and gives the contact the right to read it. So a
//! firing needs no other relay, and the contact needs nothing but the right.

use lapwing_protocol::{
    alert::{Alert, AlertAck, AlertKey, TrustAnswer, TrustId, TrustRequest, VerifiedAlert},
    content::Body,
    envelope::EnvelopeKey,
};
use lapwing_wire::{
    capability::{AlertSigner, SecretKey},
    frame::{MailboxKind, Seq},
    ids::{RunningHash, labelled_hash},
};
use serde_bytes::ByteBuf;

use super::{
    Cx, Effect, Fault, contact, conversation,
    outgoing::{self, seed},
    plan, relays, voice,
};
use crate::labels::ALERT_RECORD;
use crate::store::{
    AlertRow, ChatId, ContactRow, ContactState, MailboxRow, MailboxState, PlanRow, Purpose, TrustRow,
    TrustSide, Unit,
};

/// The trust of a chat on one side.
pub(super) fn of_chat(
    unit: &Unit<'_>,
    chat: ChatId,
    side: TrustSide,
) -> Result<Option<([u8; 16], TrustRow)>, Fault> {
    let found = unit.scan::<TrustRow>(&[])?.into_iter().find(|(_, row)| row.chat == chat && row.side == side);
    Ok(found)
}

/// The request of a trust's record.
pub(super) fn request(row: &TrustRow) -> Result<TrustRequest, Fault> {
    TrustRequest::import(&row.request).map_err(|_| Fault::Inconsistent("a trust cannot be read"))
}

/// Asks a contact to be a trusted contact.
pub(super) fn add(cx: &mut Cx<'_, '_, '_>, name: &str) -> Result<[u8; 16], Fault> {
    let (chat, _) = contact::find(cx, name)?;
    let established =
        cx.unit.get::<ContactRow>(&chat)?.ok_or(Fault::NotDirect)?.state == ContactState::Established;
    if !established {
        return Err(Fault::NotEstablished);
    }
    if of_chat(cx.unit, chat, TrustSide::Ours)?.is_some() {
        return Err(Fault::AlreadyTrusted);
    }
    let relay = relays::default_relay(cx.unit, None)?.address;
    let trust = TrustId::from_bytes(cx.random());
    let id = *trust.as_bytes();
    let mailbox = outgoing::new_mailbox(cx, &relay, Purpose::AlertOutbox(id), MailboxKind::Queue)?;
    let row = cx.unit.get::<MailboxRow>(&mailbox)?.ok_or(Fault::Inconsistent("a mailbox is missing"))?;
    let signer: SecretKey<AlertSigner> = SecretKey::generate(cx.rng);
    let request = TrustRequest {
        trust,
        relay,
        mailbox,
        read: contact::read_key(&row)?.ok_or(Fault::Inconsistent("a read key is missing"))?,
        key: contact::envelope_key(&row)?,
        seal: AlertKey::from_bytes(cx.random()),
        signer: signer.public(),
    };
    let row = TrustRow {
        side: TrustSide::Ours,
        chat,
        accepted: false,
        request: ByteBuf::from(request.export().expose().to_vec()),
        signer: Some(ByteBuf::from(signer.expose_seed().to_vec())),
        told: None,
        held: None,
    };
    cx.unit.put(&id, &row);
    outgoing::send_content(cx, chat, Body::TrustRequest(request), None, Some(mailbox))?;
    Ok(id)
}

/// A contact asks us.
pub(super) fn requested(cx: &mut Cx<'_, '_, '_>, chat: ChatId, request: &TrustRequest) -> Result<(), Fault> {
    let id = *request.trust.as_bytes();
    // A contact may only replace what he asked himself.
    if cx.unit.get::<TrustRow>(&id)?.is_some_and(|row| row.chat != chat || row.side != TrustSide::Theirs) {
        return Ok(());
    }
    if let Some((old, _)) = of_chat(cx.unit, chat, TrustSide::Theirs)? {
        forget(cx, &old)?;
    }
    let row = TrustRow {
        side: TrustSide::Theirs,
        chat,
        accepted: false,
        request: ByteBuf::from(request.export().expose().to_vec()),
        signer: None,
        told: None,
        held: None,
    };
    cx.unit.put(&id, &row);
    conversation::note(cx, chat, "asks you to be a trusted contact")?;
    cx.tell(Effect::Trust { trust: id });
    Ok(())
}

/// Says yes to a contact who asked: from now on we read the mailbox of his alerts.
pub(super) fn accept(cx: &mut Cx<'_, '_, '_>, name: &str) -> Result<(), Fault> {
    let (chat, _) = contact::find(cx, name)?;
    let (id, mut row) = of_chat(cx.unit, chat, TrustSide::Theirs)?.ok_or(Fault::NoTrust)?;
    if row.accepted {
        return Ok(());
    }
    let request = request(&row)?;
    row.accepted = true;
    cx.unit.put(&id, &row);
    let mailbox = MailboxRow {
        relay: request.relay.clone(),
        purpose: Purpose::Alert(id),
        state: MailboxState::Open,
        kind: MailboxKind::Queue,
        admin: None,
        read: Some(ByteBuf::from(request.read.expose_seed().to_vec())),
        write: None,
        key: ByteBuf::from(request.key.expose().to_vec()),
        cursor: Seq::START,
        hash: Some(RunningHash::START),
        inconsistent: false,
        closes: None,
    };
    if cx.unit.get::<MailboxRow>(&request.mailbox)?.is_some() {
        return Err(Fault::Inconsistent("a mailbox has two owners"));
    }
    cx.unit.put(&request.mailbox, &mailbox);
    outgoing::send_content(cx, chat, Body::TrustAccept(TrustAnswer { trust: request.trust }), None, None)?;
    Ok(())
}

/// A contact said yes.
pub(super) fn accepted(cx: &mut Cx<'_, '_, '_>, chat: ChatId, answer: &TrustAnswer) -> Result<(), Fault> {
    let id = *answer.trust.as_bytes();
    let Some(mut row) = cx.unit.get::<TrustRow>(&id)? else { return Ok(()) };
    if row.chat != chat || row.side != TrustSide::Ours || row.accepted {
        return Ok(());
    }
    row.accepted = true;
    cx.unit.put(&id, &row);
    conversation::note(cx, chat, "is a trusted contact of yours now")?;
    cx.tell(Effect::Trust { trust: id });
    Ok(())
}

/// Ends a trust from our side, whichever side that is; both, where both exist.
pub(super) fn remove(cx: &mut Cx<'_, '_, '_>, name: &str) -> Result<(), Fault> {
    let (chat, _) = contact::find(cx, name)?;
    let mut found = false;
    for side in [TrustSide::Ours, TrustSide::Theirs] {
        let Some((id, _)) = of_chat(cx.unit, chat, side)? else { continue };
        found = true;
        forget(cx, &id)?;
        let answer = TrustAnswer { trust: TrustId::from_bytes(id) };
        match outgoing::send_content(cx, chat, Body::TrustRemove(answer), None, None) {
            Ok(_) | Err(Fault::NotEstablished) => {}
            Err(error) => return Err(error),
        }
    }
    if found { Ok(()) } else { Err(Fault::NoTrust) }
}

/// A contact ended a trust.
pub(super) fn removed(cx: &mut Cx<'_, '_, '_>, chat: ChatId, answer: &TrustAnswer) -> Result<(), Fault> {
    let id = *answer.trust.as_bytes();
    let Some(row) = cx.unit.get::<TrustRow>(&id)? else { return Ok(()) };
    if row.chat != chat {
        return Ok(());
    }
    let text = match row.side {
        TrustSide::Ours => "does not want to be a trusted contact of yours any more",
        TrustSide::Theirs => "does not need you as a trusted contact any more",
    };
    forget(cx, &id)?;
    conversation::note(cx, chat, text)?;
    cx.tell(Effect::Trust { trust: id });
    Ok(())
}

/// Removes a trust's records; plans that alerted through it are armed anew without it.
fn forget(cx: &mut Cx<'_, '_, '_>, id: &[u8; 16]) -> Result<(), Fault> {
    let Some(row) = cx.unit.get::<TrustRow>(id)? else { return Ok(()) };
    cx.unit.delete::<TrustRow>(id);
    let mailbox = request(&row)?.mailbox;
    match row.side {
        TrustSide::Ours => outgoing::close_mailbox(cx, &mailbox)?,
        TrustSide::Theirs => cx.unit.delete::<MailboxRow>(&mailbox),
    }
    for (plan, mut row) in cx.unit.scan::<PlanRow>(&[])? {
        if row.alerts.contains(id) {
            row.alerts.retain(|alert| alert != id);
            voice::share(cx, &mut row)?;
            cx.unit.put(&plan, &row);
            plan::rearm(cx, &plan)?;
        }
    }
    voice::tell(cx)
}

/// An envelope in the mailbox of a contact's alerts. `false` if it was refused.
pub(super) fn alert(cx: &mut Cx<'_, '_, '_>, trust: [u8; 16], sealed: &[u8]) -> Result<bool, Fault> {
    let Some(row) = cx.unit.get::<TrustRow>(&trust)? else { return Ok(false) };
    let Some(alert) = open(&row, &trust, sealed)? else { return Ok(false) };
    let id = alert_row_id(&trust, alert.alert().id.as_bytes());
    // Two relays may carry the same alert: it is shown once.
    if cx.unit.get::<AlertRow>(&id)?.is_some() {
        return Ok(true);
    }
    let stored = AlertRow {
        trust,
        chat: row.chat,
        request: row.request,
        alert: ByteBuf::from(sealed.to_vec()),
        received: cx.now,
        acknowledged: None,
    };
    cx.unit.put(&id, &stored);
    cx.tell(Effect::Alert { alert: id });
    Ok(true)
}

/// Where an alert is kept: ids are chosen by who alerts, and nobody's alert may stand in the way of another's.
fn alert_row_id(trust: &[u8; 16], alert: &[u8; 16]) -> [u8; 16] {
    let mut id = [0; 16];
    id.copy_from_slice(&labelled_hash(ALERT_RECORD, &[trust, alert])[..16]);
    id
}

/// Verifies an alert with the keys of its trust.
pub(super) fn open(row: &TrustRow, trust: &[u8; 16], sealed: &[u8]) -> Result<Option<VerifiedAlert>, Fault> {
    open_with(&row.request, trust, sealed)
}

/// As [`open`], with the trust's request as it was stored.
pub(super) fn open_with(
    request: &[u8],
    trust: &[u8; 16],
    sealed: &[u8],
) -> Result<Option<VerifiedAlert>, Fault> {
    let request = TrustRequest::import(request).map_err(|_| Fault::Inconsistent("a trust cannot be read"))?;
    let Ok(alert) = Alert::open(sealed, &request.seal, &request.signer) else { return Ok(None) };
    Ok((alert.alert().trust.as_bytes() == trust).then_some(alert))
}

/// Acknowledges an alert: it stops repeating, and the contact's chat learns of it.
pub(super) fn acknowledge(cx: &mut Cx<'_, '_, '_>, id: &[u8; 16]) -> Result<(), Fault> {
    let mut row = cx.unit.get::<AlertRow>(id)?.ok_or(Fault::UnknownAlert)?;
    if row.acknowledged.is_some() {
        return Ok(());
    }
    row.acknowledged = Some(cx.now);
    cx.unit.put(id, &row);
    if let Some(trust) = cx.unit.get::<TrustRow>(&row.trust)?
        && let Some(alert) = open(&trust, &row.trust, &row.alert)?
    {
        let ack = AlertAck { trust: TrustId::from_bytes(row.trust), alert: alert.alert().id };
        match outgoing::send_content(cx, trust.chat, Body::AlertAck(ack), None, None) {
            Ok(_) | Err(Fault::NotEstablished) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A trusted contact acknowledged an alert of ours.
pub(super) fn acknowledged(cx: &mut Cx<'_, '_, '_>, chat: ChatId, ack: &AlertAck) -> Result<(), Fault> {
    let known = cx.unit.get::<TrustRow>(ack.trust.as_bytes())?;
    if known.is_some_and(|row| row.chat == chat && row.side == TrustSide::Ours) {
        conversation::note(cx, chat, "has seen your alert")?;
    }
    Ok(())
}

/// The key that signs the alerts of a trust of ours.
pub(super) fn signer(row: &TrustRow) -> Result<SecretKey<AlertSigner>, Fault> {
    let bytes = row.signer.as_ref().ok_or(Fault::Inconsistent("an alert key is missing"))?;
    Ok(SecretKey::from_seed(seed(bytes)?))
}

/// The envelope key of a trust's mailbox.
pub(super) fn envelope_key(request: &TrustRequest) -> EnvelopeKey {
    request.key.duplicate()
}
