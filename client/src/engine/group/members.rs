//! Removing and leaving; the epochs that follow.

use lapwing_protocol::group::{DirectBody, Entry, EpochKeys, MemberId, Role};
use lapwing_wire::frame::Seq;

use super::{
    super::{Cx, Effect, Fault, contact, conversation},
    joining,
    state::{Loaded, refused},
    writing,
};
use crate::store::{AuthorRow, InvitationRow, MailboxRow, PeerRow};

/// Removes a member; answers his name in the group.
pub(super) fn remove(cx: &mut Cx<'_, '_, '_>, group: &str, member: &str) -> Result<String, Fault> {
    let mut loaded = Loaded::named(cx, group)?;
    loaded.require_admin()?;
    let id = find(cx, &loaded, member)?;
    let name = loaded.name_of(&id);
    exclude(cx, &mut loaded, id, None)?;
    Ok(name)
}

/// A member by his name in the group, or by the chat that he was invited through.
fn find(cx: &Cx<'_, '_, '_>, loaded: &Loaded, name: &str) -> Result<MemberId, Fault> {
    if let Some((id, _)) = loaded.group.roster().by_name(name.trim()) {
        return Ok(*id);
    }
    let through = contact::find(cx, name).map_err(|_| Fault::UnknownMember)?.0;
    cx.unit
        .scan::<InvitationRow>(&[])?
        .into_iter()
        .filter(|(_, row)| row.ours && row.through == through && row.chat == Some(loaded.chat))
        .find_map(|(_, row)| row.member.filter(|member| loaded.group.member(member).is_some()))
        .ok_or(Fault::UnknownMember)
}

/// GRM-01: a removal makes a new log with new keys, which go to every remaining member inside the pairwise sessions;
/// commit and keys travel in the old log, so that everybody who reads it to its end knows both.
pub(super) fn exclude(
    cx: &mut Cx<'_, '_, '_>,
    loaded: &mut Loaded,
    member: MemberId,
    leave: Option<&[u8]>,
) -> Result<(), Fault> {
    let old = loaded.keys()?.ok_or(Fault::GroupNotReady)?;
    let next = loaded.group.epoch().checked_add(1).ok_or(Fault::Inconsistent("too many epochs"))?;
    let keys = joining::new_log(cx, loaded.chat, &old.relay, next)?;
    let now = cx.now;
    let staged = loaded
        .group
        .stage_remove(&loaded.local, &member, leave, &keys, now, &mut cx.rng)
        .map_err(|error| refused(&error))?;
    let name = loaded.name_of(&member);
    let (signed, head) = (staged.signed().to_vec(), staged.hash());
    loaded.group.merge(staged).map_err(|error| refused(&error))?;
    let me = loaded.me();
    let remaining: Vec<MemberId> =
        loaded.group.roster().iter().map(|(id, _)| *id).filter(|id| *id != me).collect();
    let body = DirectBody::NewEpoch { keys: keys.duplicate(), head };
    let directs = writing::directs(cx, loaded, &remaining, &body)?;
    // Nobody is told of a log that its relay has not confirmed.
    let after = Some(keys.mailbox);
    writing::append_after(cx, loaded.chat, &old, &Entry::Commit(signed), None, after)?;
    writing::append_directs(cx, loaded.chat, &old, directs, after)?;
    forget(cx, loaded, &member);
    leave_log(cx, loaded, &keys)?;
    loaded.put(cx)?;
    conversation::note(cx, loaded.chat, &format!("{name} is not in the group any more"))?;
    cx.tell(Effect::Group { chat: loaded.chat });
    Ok(())
}

/// Goes over to the log of these keys. What was sealed for the old one and has not left is sealed anew.
pub(super) fn leave_log(cx: &mut Cx<'_, '_, '_>, loaded: &mut Loaded, keys: &EpochKeys) -> Result<(), Fault> {
    let old = loaded.row.epoch.as_ref().map(|epoch| epoch.mailbox);
    if let Some(old) = old {
        writing::unseal_unsent(cx, loaded.chat, &old)?;
    }
    loaded.enter(cx, keys);
    if cx.unit.get::<MailboxRow>(&keys.mailbox)?.is_none() {
        cx.unit.put(&keys.mailbox, &joining::log_row(loaded.chat, keys, Seq::START));
    }
    Ok(())
}

/// Forgets session and sender keys of who is not a member any more.
pub(super) fn forget(cx: &mut Cx<'_, '_, '_>, loaded: &Loaded, member: &MemberId) {
    cx.unit.delete::<PeerRow>(&(loaded.chat, *member));
    cx.unit.delete::<AuthorRow>(&(loaded.chat, *member));
}

/// Leaves the group, or ends it for everybody.
pub(super) fn leave(cx: &mut Cx<'_, '_, '_>, group: &str, end: bool) -> Result<(), Fault> {
    let mut loaded = Loaded::named(cx, group)?;
    let keys = loaded.keys()?.ok_or(Fault::GroupNotReady)?;
    let now = cx.now;
    if end {
        if loaded.role() != Some(Role::Owner) {
            return Err(Fault::NotAdmin);
        }
        let staged =
            loaded.group.stage_close(&loaded.local, now, &mut cx.rng).map_err(|error| refused(&error))?;
        let signed = staged.signed().to_vec();
        loaded.group.merge(staged).map_err(|error| refused(&error))?;
        writing::append(cx, loaded.chat, &keys, &Entry::Commit(signed), None)?;
        return loaded.end(cx, "you ended this group");
    }
    if loaded.role() == Some(Role::Owner) {
        return Err(Fault::OwnerLeaves);
    }
    let wish = loaded.group.wish_to_leave(&loaded.local, &mut cx.rng).map_err(|error| refused(&error))?;
    writing::append(cx, loaded.chat, &keys, &Entry::Leave(wish), None)?;
    loaded.end(cx, "you left this group")
}
