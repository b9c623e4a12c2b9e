//! The peer begins the session anew.

use lapwing_protocol::{
    content::{Body, Content},
    route::Route,
    session::{self, Handshake, LocalIdentity, Session},
};
use serde_bytes::ByteBuf;

use super::{
    super::{
        Cx, Fault, contact, conversation,
        outgoing::{self, DIRECT},
    },
    FORMER, begin, encrypt_waiting_anew, peer_of, refusal, tickets,
};
use crate::store::{ChatId, ContactRow, ContactState, FormerSession, RenewalRow};

/// Takes a message that begins a session of a known chat anew. `None` if it is nothing of that kind, otherwise
/// whether it was taken.
pub(in super::super) fn accept(
    cx: &mut Cx<'_, '_, '_>,
    chat: ChatId,
    message: &[u8],
) -> Result<Option<bool>, Fault> {
    if !session::carries_handshake(message) {
        return Ok(None);
    }
    let Some(row) = cx.unit.get::<RenewalRow>(&chat)? else { return Ok(None) };
    let Some(contact) = cx.unit.get::<ContactRow>(&chat)? else { return Ok(None) };
    let Ok(Some(handshake)) = session::claimed_handshake(message) else { return Ok(Some(false)) };
    let sessions = contact.session.iter().chain(row.former.as_ref().map(|former| &former.session));
    for stored in sessions {
        if Session::import(stored)?.knows_handshake(&handshake.base) {
            return Ok(None);
        }
    }
    let Some(given) = row.given.iter().find(|given| given.set == handshake.set) else { return Ok(None) };
    let before = match &row.former {
        Some(former) => Some(*Session::import(&former.session)?.peer()),
        None => None,
    };
    // RNW-04. Of an identity that was succeeded, only what has to be refused is looked at.
    let is_pinned = handshake.sender == peer_of(&contact, &row)?;
    if !is_pinned && (given.open || Some(handshake.sender) != before) {
        return Ok(Some(false));
    }
    if !given.open {
        let secret = given.secret.clone();
        refusal::refuse(cx, chat, row, &contact, &secret, &handshake)?;
        return Ok(Some(false));
    }
    with_ticket(cx, chat, row, contact, &handshake, message).map(Some)
}

fn with_ticket(
    cx: &mut Cx<'_, '_, '_>,
    chat: ChatId,
    row: RenewalRow,
    contact: ContactRow,
    handshake: &Handshake,
    message: &[u8],
) -> Result<bool, Fault> {
    let mut keys = tickets::keys(&contact, &row)?;
    // Where both begin at once, both handshakes live in one session, and the ratchet settles which goes on.
    let crossing = row.waiting.is_some() && contact.session.is_some();
    let (session, plaintext) = match contact.session.as_ref().filter(|_| crossing) {
        Some(stored) => {
            let mut session = Session::import(stored)?;
            let Ok(plaintext) = session.decrypt(&mut keys, message, DIRECT, &mut cx.rng) else {
                return Ok(false);
            };
            (session, plaintext)
        }
        None => {
            let peer = Some(&handshake.sender);
            let Ok(accepted) = session::accept_first(&mut keys, peer, message, DIRECT, &mut cx.rng) else {
                return Ok(false);
            };
            (accepted.session, accepted.plaintext)
        }
    };
    // RNW-04: anything else would have to wait for its beginning, and changes nothing.
    let Ok(Content { id: _, sent: _, body: Body::Renewal(route) }) = Content::decode(plaintext.expose())
    else {
        return Ok(false);
    };
    let keeps_former = crossing;
    take_over(cx, chat, row, contact, Renewed { session, route, keys, keeps_former })?;
    encrypt_waiting_anew(cx, chat)?;
    conversation::note(
        cx,
        chat,
        "renewed the session, as after restoring a backup; compare safety numbers if this surprises you",
    )?;
    Ok(true)
}

/// A session that the peer began anew with one of our tickets.
pub(super) struct Renewed {
    pub(super) session: Session,
    /// Where he reads from now on.
    pub(super) route: Route,
    /// Our identity, with what the tickets need.
    pub(super) keys: LocalIdentity,
    /// The session so far goes on inside it.
    pub(super) keeps_former: bool,
}

/// The chat goes on with that session; the answer is the next ticket.
pub(super) fn take_over(
    cx: &mut Cx<'_, '_, '_>,
    chat: ChatId,
    mut row: RenewalRow,
    mut contact: ContactRow,
    renewed: Renewed,
) -> Result<(), Fault> {
    let Renewed { session, route, mut keys, keeps_former } = renewed;
    // RNW-03.
    keys.retire_all_bundles();
    row.given.iter_mut().for_each(|given| given.open = false);
    row.keys = ByteBuf::from(keys.export()?.expose().to_vec());
    row.refused.clear();
    let until = cx.now.plus(FORMER);
    if let Some(session) = contact.session.take().filter(|_| !keeps_former) {
        row.former = Some(FormerSession { session, local: None, unanswered: false, until });
    }
    row.old_route = contact.route.replace(ByteBuf::from(route.export().expose().to_vec()));
    contact.session = Some(ByteBuf::from(session.export()?.expose().to_vec()));
    contact.state = ContactState::Established;
    if contact.inbox.is_none() {
        let relay = begin::relay_of(cx, &contact)?;
        let purpose = crate::store::Purpose::Direct(chat);
        let kind = lapwing_wire::frame::MailboxKind::Queue;
        contact.inbox = Some(outgoing::new_mailbox(cx, &relay, purpose, kind)?);
    }
    cx.unit.put(&chat, &contact);
    begin::settle(cx, chat, &mut row)?;
    // The answer: the peer knows by it that we have accepted.
    tickets::give(cx, chat, row)
}

/// The peer's `renewal` inside a session that we have: he does not know our answer, or names another mailbox.
pub(in super::super) fn repeated(cx: &mut Cx<'_, '_, '_>, chat: ChatId, route: &Route) -> Result<(), Fault> {
    let contact = cx.unit.get::<ContactRow>(&chat)?.ok_or(Fault::NotDirect)?;
    let known = contact.route.as_ref().and_then(|known| Route::import(known).ok()).map(|known| known.mailbox);
    if known == Some(route.mailbox) {
        outgoing::send_content(cx, chat, Body::Ready, None, contact.inbox)?;
        return Ok(());
    }
    contact::moved(cx, chat, route)
}
