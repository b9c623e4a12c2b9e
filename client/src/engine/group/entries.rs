//! What a group's log delivers, entry by entry.

use lapwing_protocol::{
    content::Body,
    group::{
        AuthorTrack, Direct, DirectBody, Entry, EpochKeys, GroupContent, GroupError, MemberId, Op, Role,
        Staged, TrackError, context,
    },
    session::{self, Context, PeerSenderKey, Session},
};
use lapwing_wire::{frame::Seq, ids::MailboxId};
use serde_bytes::ByteBuf;

use super::{
    super::{
        Cx, Effect, Fault,
        conversation::{self, NewMessage},
        expiry, files, retention,
    },
    joining, members,
    state::Loaded,
    writing,
};
use crate::store::{AuthorRow, ChatId, GroupRow, MessageState, PeerRow, SeenRow, Writer};

/// Sender keys kept per author: the one in use and those that the last rotations left messages under.
const KEPT_SENDER_KEYS: usize = 4;

/// Takes one entry. `false` if it was refused.
pub(in super::super) fn entry(
    cx: &mut Cx<'_, '_, '_>,
    chat: ChatId,
    log: &MailboxId,
    _place: Seq,
    bytes: &[u8],
) -> Result<bool, Fault> {
    let held = cx.unit.get::<GroupRow>(&chat)?;
    if held.is_none_or(|row| row.ended || !joining::is_log(&row, log)) {
        return Ok(false);
    }
    let Ok(entry) = Entry::decode(bytes) else { return Ok(false) };
    let mut loaded = Loaded::taken(cx, chat)?;
    let taken = match entry {
        Entry::Commit(signed) => commit(cx, &mut loaded, &signed)?,
        Entry::Direct { to, from, message } => direct(cx, &mut loaded, &Direct { to, from, message })?,
        Entry::Directs(all) => {
            let mut taken = false;
            for one in &all {
                taken |= direct(cx, &mut loaded, one)?;
            }
            taken
        }
        Entry::Message { from, distribution, message } => {
            written(cx, &mut loaded, &from, &distribution, &message)?
        }
        Entry::Leave(wish) => wish_to_leave(cx, &mut loaded, &wish)?,
        _ => false,
    };
    loaded.leave_for(cx);
    Ok(taken)
}

fn commit(cx: &mut Cx<'_, '_, '_>, loaded: &mut Loaded, signed: &[u8]) -> Result<bool, Fault> {
    let staged = match loaded.group.verify(signed) {
        Ok(staged) => staged,
        // Our own, or one that the welcome's history already had.
        Err(GroupError::Known) => return Ok(true),
        Err(GroupError::Fork(_)) => {
            let text = "somebody signed two different versions of this group's membership; the first one counts here";
            conversation::note(cx, loaded.chat, text)?;
            return Ok(false);
        }
        Err(GroupError::NeedsNewerVersion) => {
            conversation::note(cx, loaded.chat, "this group needs a newer version of lapwing")?;
            return Ok(false);
        }
        Err(_) => return Ok(false),
    };
    apply(cx, loaded, staged)?;
    Ok(true)
}

fn apply(cx: &mut Cx<'_, '_, '_>, loaded: &mut Loaded, staged: Staged) -> Result<(), Fault> {
    let author = loaded.name_of(&staged.commit().author);
    let op = staged.commit().op.clone();
    let gone = match &op {
        Op::Remove { member, .. } => Some((*member, loaded.name_of(member))),
        _ => None,
    };
    loaded.group.merge(staged).map_err(|error| super::state::refused(&error))?;
    match (op, gone) {
        (Op::Add { member }, _) => {
            loaded.put(cx)?;
            conversation::note(cx, loaded.chat, &format!("{author} let {} into the group", member.name))?;
        }
        (Op::Remove { .. }, Some((member, _))) if member == loaded.me() => {
            return loaded.end_from_outside(cx, "you are not in this group any more");
        }
        (Op::Remove { leave, .. }, Some((member, name))) => {
            members::forget(cx, loaded, &member);
            // Its sender key dies with the epoch, even before the new keys are here.
            loaded.drop_sender_key();
            if let Some(coming) = loaded.row.coming.take()
                && let Ok(keys) = EpochKeys::import(&coming)
                && loaded.group.check_keys(&keys).is_ok()
            {
                members::leave_log(cx, loaded, &keys)?;
            }
            loaded.put(cx)?;
            let text = if leave.is_some() {
                format!("{name} left the group")
            } else {
                format!("{author} removed {name} from the group")
            };
            conversation::note(cx, loaded.chat, &text)?;
        }
        (Op::Close, _) => return loaded.end_from_outside(cx, &format!("{author} ended this group")),
        _ => loaded.put(cx)?,
    }
    cx.tell(Effect::Group { chat: loaded.chat });
    Ok(())
}

fn direct(cx: &mut Cx<'_, '_, '_>, loaded: &mut Loaded, direct: &Direct) -> Result<bool, Fault> {
    let Direct { to, from, message } = direct;
    if *from == loaded.me() {
        return Ok(true);
    }
    if *to != loaded.me() {
        // For somebody else.
        return Ok(true);
    }
    let Some(sender) = loaded.group.member(from).cloned() else { return Ok(false) };
    let bound = context(&loaded.group.id());
    let key = (loaded.chat, *from);
    let (session, plaintext) = match cx.unit.get::<PeerRow>(&key)? {
        Some(row) => {
            let mut session = Session::import(&row.session)?;
            match session.decrypt(&mut loaded.local, message, Context::new(&bound), &mut cx.rng) {
                Ok(plaintext) => (session, plaintext),
                Err(_) => return Ok(false),
            }
        }
        None => {
            let expected = Some(&sender.identity);
            match session::accept_first(
                &mut loaded.local,
                expected,
                message,
                Context::new(&bound),
                &mut cx.rng,
            ) {
                Ok(accepted) => (accepted.session, accepted.plaintext),
                Err(_) => return Ok(false),
            }
        }
    };
    cx.unit.put(&key, &PeerRow { session: ByteBuf::from(session.export()?.expose().to_vec()) });
    let taken = match DirectBody::decode(plaintext.expose()) {
        Ok(DirectBody::SenderKey { distribution, epoch: _ }) => {
            accept_sender_key(cx, loaded, from, &sender.identity, distribution.expose())?
        }
        Ok(DirectBody::NewEpoch { keys, head: _ }) if sender.role.may_commit() => {
            new_epoch(cx, loaded, &keys)?;
            true
        }
        _ => false,
    };
    loaded.put(cx)?;
    Ok(taken)
}

fn accept_sender_key(
    cx: &mut Cx<'_, '_, '_>,
    loaded: &Loaded,
    from: &MemberId,
    identity: &lapwing_protocol::identity::IdentityKey,
    distribution: &[u8],
) -> Result<bool, Fault> {
    let Ok(key) = PeerSenderKey::accept(identity, distribution) else { return Ok(false) };
    let place = (loaded.chat, *from);
    let mut row = cx.unit.get::<AuthorRow>(&place)?.unwrap_or_else(|| AuthorRow {
        keys: Vec::new(),
        track: ByteBuf::from(AuthorTrack::new().export()),
        renewed: None,
        epoch: 0,
    });
    let known = row.keys.iter().any(|kept| {
        PeerSenderKey::import(kept).is_ok_and(|kept| kept.distribution_id() == key.distribution_id())
    });
    if !known {
        row.keys.push(ByteBuf::from(key.export()?.expose().to_vec()));
        let excess = row.keys.len().saturating_sub(KEPT_SENDER_KEYS);
        row.keys.drain(..excess);
        row.renewed = Some(cx.now);
        cx.unit.put(&place, &row);
    }
    Ok(true)
}

/// Keys of a coming epoch: used when the commit that names them is here, kept until then.
fn new_epoch(cx: &mut Cx<'_, '_, '_>, loaded: &mut Loaded, keys: &EpochKeys) -> Result<(), Fault> {
    let in_use = loaded.row.epoch.as_ref().is_some_and(|epoch| epoch.mailbox == keys.mailbox);
    if in_use {
        return Ok(());
    }
    if loaded.group.check_keys(keys).is_ok() {
        members::leave_log(cx, loaded, keys)?;
        cx.tell(Effect::Group { chat: loaded.chat });
    } else if keys.epoch > loaded.group.epoch() {
        loaded.row.coming = Some(ByteBuf::from(keys.export().expose().to_vec()));
    }
    Ok(())
}

fn written(
    cx: &mut Cx<'_, '_, '_>,
    loaded: &mut Loaded,
    from: &MemberId,
    distribution: &[u8; 16],
    message: &[u8],
) -> Result<bool, Fault> {
    if *from == loaded.me() {
        return Ok(true);
    }
    let place = (loaded.chat, *from);
    let Some(mut row) = cx.unit.get::<AuthorRow>(&place)? else { return Ok(false) };
    let mut found = None;
    for (index, stored) in row.keys.iter().enumerate() {
        let key = PeerSenderKey::import(stored)?;
        if key.distribution_id().as_bytes() == distribution {
            found = Some((index, key));
            break;
        }
    }
    let Some((index, mut key)) = found else { return Ok(false) };
    let bound = context(&loaded.group.id());
    let Ok(plaintext) = key.decrypt(message, Context::new(&bound)) else { return Ok(false) };
    let Ok(content) = GroupContent::decode(plaintext.expose()) else { return Ok(false) };
    if loaded.group.check_message(from, content.binding()).is_err() {
        return Ok(false);
    }
    let mut track = AuthorTrack::import(&row.track)
        .map_err(|_| Fault::Inconsistent("an author's track cannot be read"))?;
    let checked = match track.check(&content) {
        Ok(checked) => checked,
        Err(TrackError::Equivocation) => {
            let text = format!("{} wrote two different messages in one place", loaded.name_of(from));
            conversation::note(cx, loaded.chat, &text)?;
            return Ok(false);
        }
        Err(_) => return Ok(false),
    };
    // What was sealed and had not left when an epoch ended was sealed anew under another number: a gap there says
    // nothing.
    let epoch = content.binding().epoch;
    let gap = if epoch > row.epoch { 0 } else { checked.gap };
    row.epoch = row.epoch.max(epoch);
    track.merge(checked);
    if let Some(kept) = row.keys.get_mut(index) {
        *kept = ByteBuf::from(key.export()?.expose().to_vec());
    }
    row.track = ByteBuf::from(track.export());
    cx.unit.put(&place, &row);
    let content = content.into_content();
    // The same message may come in two epochs: it was sealed anew because its author could not know that the first
    // one had arrived.
    if cx.unit.get::<SeenRow>(&(loaded.chat, content.id))?.is_some() {
        return Ok(true);
    }
    cx.unit.put(&(loaded.chat, content.id), &SeenRow { at: retention::day(cx.now) });
    if gap > 0 {
        let text = format!("{gap} earlier message(s) of {} did not arrive", loaded.name_of(from));
        conversation::note(cx, loaded.chat, &text)?;
    }
    match content.body {
        Body::Text(text) => {
            let message = NewMessage {
                id: content.id,
                writer: Writer::Member(*from),
                sent: content.sent,
                state: MessageState::Received,
                text: &text,
            };
            let order = conversation::store(cx, loaded.chat, &message)?;
            cx.tell(Effect::Message { chat: loaded.chat, order });
        }
        Body::File(attachment) => {
            let message = NewMessage {
                id: content.id,
                writer: Writer::Member(*from),
                sent: content.sent,
                state: MessageState::Received,
                text: &attachment.text,
            };
            let order = conversation::store(cx, loaded.chat, &message)?;
            files::keep(cx, (loaded.chat, order), &attachment)?;
            cx.tell(Effect::Message { chat: loaded.chat, order });
        }
        // TMR-06
        Body::Timer(timer) => {
            let author = loaded.group.member(from).filter(|member| member.role.may_commit());
            let Some(name) = author.map(|author| author.name.clone()) else { return Ok(false) };
            expiry::received_in_group(cx, loaded.chat, timer, &name)?;
        }
        Body::Unsupported { kind: _ } => {
            let text = "a message arrived that this version of lapwing does not understand";
            conversation::note(cx, loaded.chat, text)?;
        }
        // Nothing else belongs into a group.
        _ => return Ok(false),
    }
    Ok(true)
}

/// Somebody wants to leave: an admin's client answers with the removal.
fn wish_to_leave(cx: &mut Cx<'_, '_, '_>, loaded: &mut Loaded, wish: &[u8]) -> Result<bool, Fault> {
    let Ok(member) = loaded.group.verify_leave(wish) else { return Ok(false) };
    if member == loaded.me() || !loaded.role().is_some_and(Role::may_commit) || loaded.keys()?.is_none() {
        return Ok(true);
    }
    members::exclude(cx, loaded, member, Some(wish))?;
    Ok(true)
}

/// The log was read to its end: what waits can be sealed.
pub(in super::super) fn caught_up(
    cx: &mut Cx<'_, '_, '_>,
    chat: ChatId,
    log: &MailboxId,
) -> Result<(), Fault> {
    let Some(row) = cx.unit.get::<GroupRow>(&chat)? else { return Ok(()) };
    if row.ended || row.epoch.as_ref().is_none_or(|epoch| epoch.mailbox != *log) {
        return Ok(());
    }
    writing::seal_waiting(cx, chat)
}
