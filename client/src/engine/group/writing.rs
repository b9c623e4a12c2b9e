//! Writing to a group.
//!
//! GRW-01: a message is sealed only when the log was read to its end and our epoch is the chain's, so that whoever was
//! removed by a commit that we can know of cannot read it. GRW-02: our sender key goes to every member who lacks it
//! through a pairwise session, before the first message that needs it. GRW-03: sender key, counters, envelope and the
//! message's state change in one commit. GRW-04: a sender key, which does not heal by itself, serves 100 messages and one
//! day (design 6.3).

use std::time::Duration;

use lapwing_protocol::{
    content::{Body, Content, MAX_TEXT, MessageId},
    group::{
        Direct, DirectBody, Entry, EpochKeys, GroupContent, MemberId, MessageBinding, MessageHash, Role,
        context,
    },
    secret::SecretBytes,
    session::{Context, OwnSenderKey, Session},
};
use serde_bytes::ByteBuf;

use super::{
    super::{
        Cx, Effect, Fault,
        conversation::{self, NewMessage},
        expiry, files, outgoing,
    },
    state::Loaded,
};
use crate::store::{
    ChatId, Counter, GroupRow, MessageRow, MessageState, OpKind, OpRow, Order, PeerRow, Unit, UnsealedRow,
    Writer,
};

/// GRW-04: messages under one sender key.
const SENDER_KEY_MESSAGES: u32 = 100;

/// GRW-04: how long a sender key is used.
const SENDER_KEY_AGE: Duration = Duration::from_secs(24 * 3600);

/// Whether we may write to a group.
pub(in super::super) fn require_writable(unit: &Unit<'_>, chat: ChatId) -> Result<(), Fault> {
    let row = unit.get::<GroupRow>(&chat)?.ok_or(Fault::NotAGroup)?;
    if row.ended {
        return Err(Fault::GroupEnded);
    }
    let loaded = Loaded::of(unit, chat)?;
    if loaded.role().is_some_and(Role::may_write) { Ok(()) } else { Err(Fault::NotAdmin) }
}

/// Writes a message; it is sealed when the log was read to its end.
pub(in super::super) fn send(cx: &mut Cx<'_, '_, '_>, chat: ChatId, text: &str) -> Result<Order, Fault> {
    require_writable(cx.unit, chat)?;
    if text.len() > MAX_TEXT {
        return Err(Fault::TextTooLong);
    }
    let id = MessageId::from_bytes(cx.random());
    let message = NewMessage { id, writer: Writer::Me, sent: cx.now, state: MessageState::Waiting, text };
    let order = conversation::store(cx, chat, &message)?;
    cx.unit.put(&(chat, order), &UnsealedRow { since: cx.now, timer: false });
    Ok(order)
}

/// TMR-06: the group's timer is told to all with the next messages; as they are, it is sealed when the log was read to its
/// end.
pub(in super::super) fn announce_timer(cx: &mut Cx<'_, '_, '_>, chat: ChatId) -> Result<(), Fault> {
    let order = cx.unit.next(Counter::Order)?;
    cx.unit.put(&(chat, order), &UnsealedRow { since: cx.now, timer: true });
    Ok(())
}

/// What is to be sealed in this place, and its id. `None` where nothing is left to say.
fn waiting_content(
    cx: &mut Cx<'_, '_, '_>,
    place: (ChatId, Order),
    waiting: &UnsealedRow,
) -> Result<Option<Content>, Fault> {
    if waiting.timer {
        let Some(timer) = expiry::of_group(cx.unit, &place.0)? else { return Ok(None) };
        let id = MessageId::from_bytes(cx.random());
        return Ok(Some(Content { id, sent: cx.now, body: Body::Timer(timer) }));
    }
    let Some(row) = cx.unit.get::<MessageRow>(&place)? else { return Ok(None) };
    let Some(body) = files::body_of(cx.unit, place, &row)? else { return Ok(None) };
    Ok(Some(Content { id: row.id, sent: row.sent, body }))
}

/// Seals what waits for this group.
pub(super) fn seal_waiting(cx: &mut Cx<'_, '_, '_>, chat: ChatId) -> Result<(), Fault> {
    let waiting = cx.unit.scan::<UnsealedRow>(chat.as_bytes())?;
    if waiting.is_empty() {
        return Ok(());
    }
    let mut loaded = Loaded::of(cx.unit, chat)?;
    if loaded.row.ended || !loaded.role().is_some_and(Role::may_write) {
        return give_up(cx, chat);
    }
    // GRW-01: between a removal and the new epoch's keys, messages wait.
    let Some(keys) = loaded.keys()? else { return Ok(()) };
    let mut sender = sender_key(cx, &mut loaded)?;
    give_sender_key(cx, &mut loaded, &sender, &keys)?;
    let bound = context(&loaded.group.id());
    for ((_, order), row) in waiting {
        cx.unit.delete::<UnsealedRow>(&(chat, order));
        let Some(content) = waiting_content(cx, (chat, order), &row)? else { continue };
        if sender.sent() >= SENDER_KEY_MESSAGES {
            loaded.drop_sender_key();
            sender = sender_key(cx, &mut loaded)?;
            give_sender_key(cx, &mut loaded, &sender, &keys)?;
        }
        let binding = MessageBinding {
            group: loaded.group.id(),
            epoch: loaded.group.epoch(),
            roster: loaded.group.roster_hash(),
            author: loaded.me(),
            counter: loaded.row.counter.saturating_add(1),
            previous: MessageHash::from_bytes(loaded.row.previous),
        };
        let content = GroupContent::new(binding, content).map_err(|_| Fault::TextTooLong)?;
        let message = sender.encrypt(content.encode().expose(), Context::new(&bound), &mut cx.rng)?;
        loaded.row.counter = binding.counter;
        loaded.row.previous = *content.hash().as_bytes();
        let entry = Entry::Message {
            from: loaded.me(),
            distribution: *sender.distribution_id().as_bytes(),
            message: message.into_bytes(),
        };
        append(cx, chat, &keys, &entry, Some(order))?;
    }
    loaded.row.sender = Some(ByteBuf::from(sender.export()?.expose().to_vec()));
    loaded.put(cx)
}

/// GRW-04: the sender key in use, or a new one where the one in use has served its time.
fn sender_key(cx: &mut Cx<'_, '_, '_>, loaded: &mut Loaded) -> Result<OwnSenderKey, Fault> {
    let in_time = loaded.row.sender_made.is_some_and(|made| cx.now.since(made) < SENDER_KEY_AGE);
    if let Some(stored) = &loaded.row.sender
        && in_time
    {
        let sender = OwnSenderKey::import(stored)?;
        if sender.sent() < SENDER_KEY_MESSAGES {
            return Ok(sender);
        }
    }
    loaded.drop_sender_key();
    loaded.row.sender_made = Some(cx.now);
    Ok(OwnSenderKey::generate(loaded.local.public(), &mut cx.rng)?)
}

/// GRW-02
fn give_sender_key(
    cx: &mut Cx<'_, '_, '_>,
    loaded: &mut Loaded,
    sender: &OwnSenderKey,
    keys: &EpochKeys,
) -> Result<(), Fault> {
    let me = loaded.me();
    let lacking: Vec<MemberId> = loaded
        .group
        .roster()
        .iter()
        .map(|(id, _)| *id)
        .filter(|id| *id != me && !loaded.row.given_to.contains(id))
        .collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let distribution = sender.distribution(&mut cx.rng)?;
    let body = DirectBody::SenderKey {
        epoch: keys.epoch,
        distribution: SecretBytes::copy_of(distribution.expose()),
    };
    let sent = directs(cx, loaded, &lacking, &body)?;
    append_directs(cx, loaded.chat, keys, sent, None)?;
    loaded.row.given_to.extend(lacking);
    Ok(())
}

/// Encrypts one body for several members, each in his pairwise session, begun where there is none.
pub(super) fn directs(
    cx: &mut Cx<'_, '_, '_>,
    loaded: &Loaded,
    members: &[MemberId],
    body: &DirectBody,
) -> Result<Vec<Direct>, Fault> {
    let bound = context(&loaded.group.id());
    let plain = body.encode().map_err(|_| Fault::TextTooLong)?;
    let now = cx.system_time();
    let mut all = Vec::with_capacity(members.len());
    for member in members {
        let key = (loaded.chat, *member);
        let mut session = match cx.unit.get::<PeerRow>(&key)? {
            Some(row) => Session::import(&row.session)?,
            None => {
                let entry = loaded.group.member(member).ok_or(Fault::UnknownMember)?;
                let bundle = entry.verified_bundle().map_err(|error| super::state::refused(&error))?;
                Session::initiate(&loaded.local, &bundle, now, &mut cx.rng)?
            }
        };
        let message = session.encrypt(plain.expose(), Context::new(&bound), now, &mut cx.rng)?;
        cx.unit.put(&key, &PeerRow { session: ByteBuf::from(session.export()?.expose().to_vec()) });
        all.push(Direct { to: *member, from: loaded.me(), message: message.into_bytes() });
    }
    Ok(all)
}

/// Records directs for the log of these keys, packed into as few entries as they fit.
pub(super) fn append_directs(
    cx: &mut Cx<'_, '_, '_>,
    chat: ChatId,
    keys: &EpochKeys,
    directs: Vec<Direct>,
    after: Option<lapwing_wire::ids::MailboxId>,
) -> Result<(), Fault> {
    for entry in Entry::pack(directs).map_err(|error| super::state::refused(&error))? {
        append_after(cx, chat, keys, &entry, None, after)?;
    }
    Ok(())
}

/// Records one entry for the log of these keys.
pub(super) fn append(
    cx: &mut Cx<'_, '_, '_>,
    chat: ChatId,
    keys: &EpochKeys,
    entry: &Entry,
    order: Option<Order>,
) -> Result<(), Fault> {
    append_after(cx, chat, keys, entry, order, Some(keys.mailbox))
}

/// As [`append`], waiting for another mailbox.
pub(super) fn append_after(
    cx: &mut Cx<'_, '_, '_>,
    chat: ChatId,
    keys: &EpochKeys,
    entry: &Entry,
    order: Option<Order>,
    after: Option<lapwing_wire::ids::MailboxId>,
) -> Result<(), Fault> {
    let bytes = entry.encode().map_err(|_| Fault::TextTooLong)?;
    let envelope = keys.seal(&bytes, &mut cx.rng).map_err(|_| Fault::TextTooLong)?;
    let kind = OpKind::Append {
        mailbox: keys.mailbox,
        write: ByteBuf::from(keys.write.expose_seed().to_vec()),
        key: ByteBuf::from(keys.key.expose().to_vec()),
        envelope: ByteBuf::from(envelope),
        chat,
        order,
    };
    outgoing::push(cx, &keys.relay, kind, after)?;
    Ok(())
}

/// What still waits for a group that ended is marked as not delivered.
pub(super) fn give_up(cx: &mut Cx<'_, '_, '_>, chat: ChatId) -> Result<(), Fault> {
    files::give_up(cx, chat)?;
    for ((_, order), row) in cx.unit.scan::<UnsealedRow>(chat.as_bytes())? {
        cx.unit.delete::<UnsealedRow>(&(chat, order));
        if !row.timer {
            conversation::set_state(cx, chat, order, MessageState::Failed)?;
            cx.tell(Effect::Undelivered { chat, order });
        }
    }
    Ok(())
}

/// What is sealed for a group and has not left is marked as not delivered.
pub(super) fn give_up_sealed(cx: &mut Cx<'_, '_, '_>, chat: ChatId) -> Result<(), Fault> {
    for (op, row) in cx.unit.scan::<OpRow>(&[])? {
        if matches!(&row.kind, OpKind::Append { chat: of, order: Some(_), .. } if *of == chat) {
            cx.unit.delete::<OpRow>(&op);
            conversation::undelivered(cx, &row.kind)?;
        }
    }
    Ok(())
}

/// Messages that were sealed for an epoch that ended before they left are sealed anew (design 6.1: what was unsent is
/// re-sealed); everything else that waited for its log stays, for who reads it there.
pub(super) fn unseal_unsent(
    cx: &mut Cx<'_, '_, '_>,
    chat: ChatId,
    log: &lapwing_wire::ids::MailboxId,
) -> Result<(), Fault> {
    for (op, row) in cx.unit.scan::<OpRow>(&[])? {
        if let OpKind::Append { mailbox, chat: of, order: Some(order), write: _, key: _, envelope: _ } =
            &row.kind
            && mailbox == log
            && *of == chat
        {
            cx.unit.delete::<OpRow>(&op);
            let timer = cx.unit.get::<MessageRow>(&(chat, *order))?.is_none();
            cx.unit.put(&(chat, *order), &UnsealedRow { since: cx.now, timer });
        }
    }
    Ok(())
}
