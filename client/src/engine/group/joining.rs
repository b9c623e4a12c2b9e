//! Founding a group, inviting, answering, being let in.
//!
//! Everything here travels inside the direct chats of the two people: inviting, saying yes with one's keys for the
//! group, and the welcome with the group's history, which the newcomer verifies from its first commit.

use lapwing_protocol::{
    content::Body,
    group::{
        Chain, Entry, EpochKeys, Group, GroupDecline, GroupId, GroupInvite, GroupJoin, GroupWelcome,
        InvitationId, MemberEntry, MemberId, Role, Settings,
    },
    session::{BundleUse, LocalIdentity},
};
use lapwing_wire::{
    address::RelayKey,
    frame::{BlobPart, MailboxKind, ResponseBody, Seq},
    ids::{BlobHash, MailboxId, RunningHash},
    limits::MIN_BLOB_PART,
};
use serde_bytes::ByteBuf;

use super::{
    super::{Cx, Effect, Fault, contact, conversation, expiry, outgoing, relays},
    state::{Loaded, new_chat, refused},
    writing,
};
use crate::store::{
    ChainRow, ChatId, ContactRow, ContactState, GroupRow, InvitationRow, KeptEpoch, MailboxRow, MailboxState,
    OpId, OpKind, OpRow, Purpose,
};

/// Founds a group; its log lies on a relay of ours.
pub(super) fn create(
    cx: &mut Cx<'_, '_, '_>,
    name: &str,
    alias: &str,
    relay: Option<&RelayKey>,
) -> Result<ChatId, Fault> {
    let name = contact::checked_name(name)?;
    let relay = relays::default_relay(cx.unit, relay)?.address;
    let chat = new_chat(cx, &name, true)?;
    let (local, founder) = identity(cx, alias, Role::Owner)?;
    let keys = new_log(cx, chat, &relay, 0)?;
    let now = cx.now;
    let group = Group::create(&local, founder.clone(), &name, Settings::default(), &keys, now, &mut cx.rng)
        .map_err(|error| refused(&error))?;
    let row = GroupRow {
        local: ByteBuf::from(local.export()?.expose().to_vec()),
        bundle: ByteBuf::from(founder.bundle),
        epoch: Some(KeptEpoch {
            keys: ByteBuf::from(keys.export().expose().to_vec()),
            mailbox: keys.mailbox,
            left: None,
        }),
        ..empty()
    };
    cx.unit.put(&chat, &row);
    cx.unit.put(&chat, &ChainRow { state: ByteBuf::from(group.export()) });
    Ok(chat)
}

/// A member who has nothing yet.
pub(in crate::engine) fn empty() -> GroupRow {
    GroupRow {
        local: ByteBuf::new(),
        bundle: ByteBuf::new(),
        epoch: None,
        older: Vec::new(),
        sender: None,
        given_to: Vec::new(),
        sender_made: None,
        counter: 0,
        previous: [0; 32],
        coming: None,
        welcome: None,
        ended: false,
    }
}

/// A fresh identity for one group, with a bundle that every member may use.
fn identity(cx: &mut Cx<'_, '_, '_>, alias: &str, role: Role) -> Result<(LocalIdentity, MemberEntry), Fault> {
    let alias = contact::checked_name(alias)?;
    let mut local = LocalIdentity::generate(&mut cx.rng)?;
    let now = cx.system_time();
    let bundle = local.new_bundle(BundleUse::Many, now, &mut cx.rng)?.encode()?;
    let entry = MemberEntry { identity: *local.public(), bundle, name: alias, role };
    Ok((local, entry))
}

/// Makes the log of an epoch.
pub(super) fn new_log(
    cx: &mut Cx<'_, '_, '_>,
    chat: ChatId,
    relay: &lapwing_wire::address::RelayAddress,
    epoch: u64,
) -> Result<EpochKeys, Fault> {
    let mailbox = outgoing::new_mailbox(cx, relay, Purpose::Group(chat), MailboxKind::Log)?;
    let row = cx.unit.get::<MailboxRow>(&mailbox)?.ok_or(Fault::Inconsistent("a mailbox is missing"))?;
    let route = outgoing::route_to(cx, &mailbox)?;
    Ok(EpochKeys {
        epoch,
        relay: relay.clone(),
        mailbox,
        read: contact::read_key(&row)?.ok_or(Fault::Inconsistent("a read key is missing"))?,
        write: route.write,
        key: route.key,
    })
}

/// Invites a contact.
pub(super) fn invite(cx: &mut Cx<'_, '_, '_>, group: &str, chat: &str) -> Result<(), Fault> {
    let loaded = Loaded::named(cx, group)?;
    loaded.require_admin()?;
    let (through, _) = contact::find(cx, chat)?;
    let known = cx.unit.get::<ContactRow>(&through)?.ok_or(Fault::NotDirect)?;
    if known.state != ContactState::Established {
        return Err(Fault::NotEstablished);
    }
    let invitation = InvitationId::from_bytes(cx.random());
    // One open invitation per contact and group: a second replaces the first.
    for (old, row) in cx.unit.scan::<InvitationRow>(&[])? {
        let same = row.ours && row.through == through && row.chat == Some(loaded.chat);
        if same && row.member.is_some_and(|member| loaded.group.member(&member).is_some()) {
            return Err(Fault::Group("this contact is a member already".to_owned()));
        }
        if same {
            cx.unit.delete::<InvitationRow>(&old);
        }
    }
    let row = InvitationRow {
        through,
        group: *loaded.group.id().as_bytes(),
        chat: Some(loaded.chat),
        name: loaded.group.name().to_owned(),
        ours: true,
        request: None,
        member: None,
        made: cx.now,
    };
    cx.unit.put(invitation.as_bytes(), &row);
    let body = GroupInvite { group: loaded.group.id(), name: loaded.group.name().to_owned(), invitation };
    outgoing::send_content(cx, through, Body::GroupInvite(body), None, None)?;
    Ok(())
}

/// A contact invites us.
pub(in super::super) fn invited(
    cx: &mut Cx<'_, '_, '_>,
    through: ChatId,
    invite: &GroupInvite,
) -> Result<(), Fault> {
    let id = *invite.invitation.as_bytes();
    if cx.unit.get::<InvitationRow>(&id)?.is_some() {
        return Ok(());
    }
    for (old, row) in cx.unit.scan::<InvitationRow>(&[])? {
        let replaced = !row.ours
            && row.through == through
            && row.group == *invite.group.as_bytes()
            && row.chat.is_none();
        if replaced {
            cx.unit.delete::<InvitationRow>(&old);
        }
    }
    let row = InvitationRow {
        through,
        group: *invite.group.as_bytes(),
        chat: None,
        name: invite.name.clone(),
        ours: false,
        request: None,
        member: None,
        made: cx.now,
    };
    cx.unit.put(&id, &row);
    conversation::note(cx, through, &format!("invites you to the group {}", invite.name))?;
    cx.tell(Effect::Invitation { invitation: id });
    Ok(())
}

/// What waits for our yes or no, by the group's name or the chat that it came through.
fn waiting(cx: &Cx<'_, '_, '_>, what: &str) -> Result<([u8; 16], InvitationRow), Fault> {
    let through = contact::find(cx, what).ok().map(|(chat, _)| chat);
    let mut found = cx.unit.scan::<InvitationRow>(&[])?.into_iter().filter(|(_, row)| {
        let open = if row.ours { row.request.is_some() } else { row.chat.is_none() };
        open && (row.name == what.trim() || Some(row.through) == through)
    });
    found.next().ok_or(Fault::NoInvitation)
}

/// Says yes.
pub(super) fn approve(
    cx: &mut Cx<'_, '_, '_>,
    what: &str,
    alias: &str,
    name: Option<&str>,
) -> Result<ChatId, Fault> {
    let (id, mut row) = waiting(cx, what)?;
    if row.ours {
        let request = row.request.take().ok_or(Fault::NoInvitation)?;
        let Ok(content) = lapwing_protocol::content::Content::decode(&request) else {
            return Err(Fault::Inconsistent("a request cannot be read"));
        };
        let Body::GroupJoin(join) = content.body else { return Err(Fault::NoInvitation) };
        let chat = row.chat.ok_or(Fault::NoInvitation)?;
        cx.unit.put(&id, &row);
        let_in(cx, row.through, &join)?;
        return Ok(chat);
    }
    let chat = new_chat(cx, name.unwrap_or(&row.name), name.is_some())?;
    let (local, entry) = identity(cx, alias, Role::Member)?;
    let group = GroupId::from_bytes(row.group);
    let join = GroupJoin::new(&local, group, InvitationId::from_bytes(id), entry.clone(), &mut cx.rng)
        .map_err(|error| refused(&error))?;
    let held = GroupRow {
        local: ByteBuf::from(local.export()?.expose().to_vec()),
        bundle: ByteBuf::from(entry.bundle),
        ..empty()
    };
    cx.unit.put(&chat, &held);
    row.chat = Some(chat);
    cx.unit.put(&id, &row);
    outgoing::send_content(cx, row.through, Body::GroupJoin(join), None, None)?;
    Ok(chat)
}

/// Says no.
pub(super) fn decline(cx: &mut Cx<'_, '_, '_>, what: &str) -> Result<(), Fault> {
    let (id, row) = waiting(cx, what)?;
    cx.unit.delete::<InvitationRow>(&id);
    let body =
        GroupDecline { group: GroupId::from_bytes(row.group), invitation: InvitationId::from_bytes(id) };
    outgoing::send_content(cx, row.through, Body::GroupDecline(body), None, None)?;
    Ok(())
}

/// The other side said no.
pub(in super::super) fn declined(
    cx: &mut Cx<'_, '_, '_>,
    through: ChatId,
    decline: &GroupDecline,
) -> Result<(), Fault> {
    let id = *decline.invitation.as_bytes();
    let Some(row) = cx.unit.get::<InvitationRow>(&id)? else { return Ok(()) };
    if row.through != through || row.member.is_some() {
        return Ok(());
    }
    cx.unit.delete::<InvitationRow>(&id);
    if let (false, Some(chat)) = (row.ours, row.chat)
        && let Some(mut group) = cx.unit.get::<GroupRow>(&chat)?
        && group.epoch.is_none()
    {
        group.ended = true;
        cx.unit.put(&chat, &group);
    }
    let text = if row.ours { "does not want to join the group" } else { "does not let you into the group" };
    conversation::note(cx, through, &format!("{text} {}", row.name))?;
    cx.tell(Effect::Invitation { invitation: id });
    Ok(())
}

/// A contact says yes to an invitation of ours, or asks again.
pub(in super::super) fn join_requested(
    cx: &mut Cx<'_, '_, '_>,
    through: ChatId,
    join: &GroupJoin,
) -> Result<(), Fault> {
    let id = *join.invitation.as_bytes();
    let Some(mut row) = cx.unit.get::<InvitationRow>(&id)? else { return Ok(()) };
    if !row.ours || row.through != through || row.member.is_some() {
        return Ok(());
    }
    match let_in(cx, through, join) {
        Ok(()) => Ok(()),
        // Kept for an admin to decide by hand: no right any more, the group ended, a name that is taken, ...
        Err(Fault::Group(_) | Fault::NotAdmin | Fault::GroupEnded | Fault::UnknownChat) => {
            let content = lapwing_protocol::content::Content {
                id: lapwing_protocol::content::MessageId::from_bytes(cx.random()),
                sent: cx.now,
                body: Body::GroupJoin(join.clone()),
            };
            let kept = content.encode().map_err(|_| Fault::TextTooLong)?;
            row.request = Some(ByteBuf::from(kept.expose().to_vec()));
            cx.unit.put(&id, &row);
            conversation::note(cx, through, &format!("asks to be let into the group {}", row.name))?;
            cx.tell(Effect::Invitation { invitation: id });
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Commits the addition and welcomes the newcomer.
fn let_in(cx: &mut Cx<'_, '_, '_>, through: ChatId, join: &GroupJoin) -> Result<(), Fault> {
    let id = *join.invitation.as_bytes();
    let mut row = cx.unit.get::<InvitationRow>(&id)?.ok_or(Fault::NoInvitation)?;
    let chat = row.chat.ok_or(Fault::NoInvitation)?;
    let mut loaded = Loaded::of(cx.unit, chat)?;
    if loaded.row.ended {
        return Err(Fault::GroupEnded);
    }
    loaded.require_admin()?;
    let keys = loaded.keys()?.ok_or(Fault::GroupNotReady)?;
    let verified =
        join.verify(loaded.group.id(), InvitationId::from_bytes(id)).map_err(|error| refused(&error))?;
    let member = MemberEntry {
        identity: verified.identity,
        bundle: verified.bundle.clone(),
        name: loaded.group.roster().unique_name(&verified.name),
        role: Role::Member,
    };
    let (newcomer, name) = (member.id(), member.name.clone());
    let now = cx.now;
    let staged =
        loaded.group.stage_add(&loaded.local, member, now, &mut cx.rng).map_err(|error| refused(&error))?;
    let commit = Entry::Commit(staged.signed().to_vec());
    loaded.group.merge(staged).map_err(|error| refused(&error))?;
    let cursor = cx.unit.get::<MailboxRow>(&keys.mailbox)?.map_or(Seq::START, |mailbox| mailbox.cursor);
    let (welcome, blob) =
        GroupWelcome::new(&loaded.group, InvitationId::from_bytes(id), &keys, cursor, &mut cx.rng)
            .map_err(|error| refused(&error))?;
    // Nothing is staged before everything has been tried: the caller may go on after a refusal.
    writing::append(cx, chat, &keys, &commit, None)?;
    if let Some(bytes) = blob {
        let hash = BlobHash::of(&bytes);
        let put = OpKind::PutBlob { hash, bytes: ByteBuf::from(bytes), offset: 0 };
        outgoing::push(cx, &keys.relay, put, None)?;
    }
    loaded.put(cx)?;
    row.member = Some(newcomer);
    row.request = None;
    cx.unit.put(&id, &row);
    outgoing::send_content(cx, through, Body::GroupWelcome(welcome), None, Some(keys.mailbox))?;
    conversation::note(cx, chat, &format!("{name} is in the group now"))?;
    if expiry::of_group(cx.unit, &chat)?.is_some() {
        writing::announce_timer(cx, chat)?;
    }
    cx.tell(Effect::Group { chat });
    Ok(())
}

/// An admin let us in.
pub(in super::super) fn welcomed(
    cx: &mut Cx<'_, '_, '_>,
    through: ChatId,
    welcome: GroupWelcome,
) -> Result<(), Fault> {
    let id = *welcome.invitation.as_bytes();
    let Some(row) = cx.unit.get::<InvitationRow>(&id)? else { return Ok(()) };
    let Some(chat) = row.chat else { return Ok(()) };
    if row.ours || row.through != through || row.group != *welcome.group.as_bytes() {
        return Ok(());
    }
    let Some(mut held) = cx.unit.get::<GroupRow>(&chat)? else { return Ok(()) };
    if held.epoch.is_some() || held.ended {
        return Ok(());
    }
    match &welcome.chain {
        Chain::Inline(_) => enter(cx, chat, &id, &row, &welcome, None),
        Chain::Blob(place) => {
            let (relay, hash) = (place.relay.clone(), place.hash);
            let content = lapwing_protocol::content::Content {
                id: lapwing_protocol::content::MessageId::from_bytes(id),
                sent: cx.now,
                body: Body::GroupWelcome(welcome),
            };
            let kept = content.encode().map_err(|_| Fault::TextTooLong)?;
            held.welcome = Some(ByteBuf::from(kept.expose().to_vec()));
            cx.unit.put(&chat, &held);
            outgoing::push(cx, &relay, OpKind::GetChain { hash, chat, got: ByteBuf::new() }, None)?;
            Ok(())
        }
    }
}

fn enter(
    cx: &mut Cx<'_, '_, '_>,
    chat: ChatId,
    id: &[u8; 16],
    invitation: &InvitationRow,
    welcome: &GroupWelcome,
    blob: Option<&[u8]>,
) -> Result<(), Fault> {
    let Some(mut held) = cx.unit.get::<GroupRow>(&chat)? else { return Ok(()) };
    let local = LocalIdentity::import(&held.local)?;
    let me = MemberId::of(local.public());
    let group = GroupId::from_bytes(invitation.group);
    let Ok(group) = welcome.open(group, InvitationId::from_bytes(*id), &me, blob) else {
        conversation::note(cx, chat, "the welcome to this group was not genuine and was refused")?;
        return Ok(());
    };
    let keys = &welcome.keys;
    if cx.unit.get::<MailboxRow>(&keys.mailbox)?.is_some() {
        held.ended = true;
        cx.unit.put(&chat, &held);
        conversation::note(cx, chat, "you are in this group already, in another chat")?;
        return Ok(());
    }
    cx.unit.put(&keys.mailbox, &log_row(chat, keys, welcome.cursor));
    held.epoch = Some(KeptEpoch {
        keys: ByteBuf::from(keys.export().expose().to_vec()),
        mailbox: keys.mailbox,
        left: None,
    });
    held.welcome = None;
    cx.unit.put(&chat, &held);
    cx.unit.put(&chat, &ChainRow { state: ByteBuf::from(group.export()) });
    conversation::note(cx, chat, "you are in this group now")?;
    cx.tell(Effect::Group { chat });
    Ok(())
}

/// The row of a log that somebody else made.
pub(super) fn log_row(chat: ChatId, keys: &EpochKeys, cursor: Seq) -> MailboxRow {
    MailboxRow {
        relay: keys.relay.clone(),
        purpose: Purpose::Group(chat),
        state: MailboxState::Open,
        kind: MailboxKind::Log,
        admin: None,
        read: Some(ByteBuf::from(keys.read.expose_seed().to_vec())),
        write: Some(ByteBuf::from(keys.write.expose_seed().to_vec())),
        key: ByteBuf::from(keys.key.expose().to_vec()),
        cursor,
        hash: (cursor == Seq::START).then_some(RunningHash::START),
        inconsistent: false,
        closes: None,
    }
}

/// A part of the history that a welcome names.
pub(in super::super) fn chain_answer(
    cx: &mut Cx<'_, '_, '_>,
    op: OpId,
    mut row: OpRow,
    body: ResponseBody,
) -> Result<(), Fault> {
    let OpKind::GetChain { hash: _, chat, got } = &mut row.kind else { return Ok(()) };
    let chat = *chat;
    let Some(held) = cx.unit.get::<GroupRow>(&chat)? else {
        cx.unit.delete::<OpRow>(&op);
        return Ok(());
    };
    let kept = held.welcome.as_ref().and_then(|w| lapwing_protocol::content::Content::decode(w).ok());
    let Some(Body::GroupWelcome(welcome)) = kept.map(|content| content.body) else {
        cx.unit.delete::<OpRow>(&op);
        return Ok(());
    };
    let Chain::Blob(place) = &welcome.chain else { return Ok(()) };
    match body {
        ResponseBody::BlobPart(part) if is_next_part(&part, got.len(), place.total) => {
            got.extend_from_slice(&part.bytes);
        }
        ResponseBody::Refused(refusal) => {
            row.refused = Some(refusal);
            cx.unit.put(&op, &row);
            return Ok(());
        }
        _ => {
            cx.unit.delete::<OpRow>(&op);
            conversation::note(
                cx,
                chat,
                "the history of this group could not be fetched; ask for a new invitation",
            )?;
            return Ok(());
        }
    }
    let here = u64::try_from(got.len()).unwrap_or(u64::MAX);
    if here < place.total {
        row.refused = None;
        cx.unit.put(&op, &row);
        return Ok(());
    }
    let blob = std::mem::take(got).into_vec();
    cx.unit.delete::<OpRow>(&op);
    let id = *welcome.invitation.as_bytes();
    let Some(invitation) = cx.unit.get::<InvitationRow>(&id)? else { return Ok(()) };
    enter(cx, chat, &id, &invitation, &welcome, Some(&blob))
}

/// Whether a part fits what is here of a blob. Small parts are refused, but for the last: a relay could make us write
/// each of a million.
fn is_next_part(part: &BlobPart, here: usize, total: u64) -> bool {
    let end = u64::try_from(here.saturating_add(part.bytes.len())).unwrap_or(u64::MAX);
    part.total == total && (end == total || (end < total && part.bytes.len() >= MIN_BLOB_PART))
}

/// Whether a mailbox is a log of this group that we read.
pub(super) fn is_log(row: &GroupRow, mailbox: &MailboxId) -> bool {
    row.epoch.iter().chain(&row.older).any(|epoch| epoch.mailbox == *mailbox)
}
