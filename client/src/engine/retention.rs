//! Records that have outlived their use.
//!
//! RET-01 what tells that a message of a group was seen lives twice as long as a log is read after it was left: no copy of
//! the message can come later. RET-02 a ticket that was taken is remembered until it ends. RET-03 an invitation that nobody
//! answered is forgotten after ninety days. RET-04 of an author's sender keys the newest stays two days after it came; the
//! older ones opened what lay before it in the log. RET-05 when a group ends for us, sessions and keys of its members go;
//! when a contact comes to nothing, its session.

use std::time::Duration;

use lapwing_wire::time::Timestamp;

use super::{Cx, Fault};
use crate::store::{
    AuthorRow, ChatId, ClockRow, ContactRow, InvitationRow, PeerRow, SeenRow, TakenTicketRow,
};

/// RET-01
const SEEN: Duration = Duration::from_secs(60 * 24 * 3600);
/// RET-03
const UNANSWERED: Duration = Duration::from_secs(90 * 24 * 3600);
/// RET-04
const OLD_SENDER_KEYS: Duration = Duration::from_secs(2 * 24 * 3600);
/// How often what takes long is looked for.
const EVERY: Duration = Duration::from_secs(24 * 3600);
/// Records removed in one commit.
const STEP: usize = 500;
/// Records read at once.
const PAGE: usize = 1000;

/// The day of a time: no more than what is kept for days needs.
pub(super) const fn day(at: Timestamp) -> Timestamp {
    const DAY_MS: u64 = 24 * 3600 * 1000;
    Timestamp::from_millis(at.as_millis() / DAY_MS * DAY_MS)
}

/// Removes what has outlived its use. `true` if there is more.
pub(super) fn sweep(cx: &mut Cx<'_, '_, '_>) -> Result<bool, Fault> {
    for (mailbox, row) in cx.unit.scan::<TakenTicketRow>(&[])? {
        // RET-02
        if row.until.is_some_and(|until| until <= cx.now) {
            cx.unit.delete::<TakenTicketRow>(&mailbox);
        }
    }
    for (id, row) in cx.unit.scan::<InvitationRow>(&[])? {
        let open = if row.ours { row.member.is_none() && row.request.is_none() } else { row.chat.is_none() };
        if open && cx.now.since(row.made) > UNANSWERED {
            cx.unit.delete::<InvitationRow>(&id);
        }
    }
    // A compartment without groups has nothing of the rest, and keeps no note of having looked.
    let has_groups = !cx.unit.range::<AuthorRow>(&[], None, 1, false)?.is_empty()
        || !cx.unit.range::<SeenRow>(&[], None, 1, false)?.is_empty();
    let clock = cx.unit.get::<ClockRow>(&())?;
    let swept = clock.as_ref().and_then(|clock| clock.swept);
    if !has_groups || swept.is_some_and(|swept| cx.now.since(swept) < EVERY) {
        return Ok(false);
    }
    drop_old_keys(cx)?;
    if drop_seen(cx)? {
        return Ok(true);
    }
    let latest = clock.map_or(cx.now, |clock| clock.latest);
    cx.unit.put(&(), &ClockRow { latest, swept: Some(cx.now) });
    Ok(false)
}

/// RET-04
fn drop_old_keys(cx: &mut Cx<'_, '_, '_>) -> Result<(), Fault> {
    let mut after = None;
    loop {
        let page = cx.unit.range::<AuthorRow>(&[], after.as_ref(), PAGE, false)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = Some(*last);
        for (place, mut row) in page {
            if row.keys.len() > 1 && row.renewed.is_none_or(|came| cx.now.since(came) > OLD_SENDER_KEYS) {
                row.keys.drain(..row.keys.len() - 1);
                row.renewed = None;
                cx.unit.put(&place, &row);
            }
        }
    }
}

/// RET-01. `true` if a commit is full.
fn drop_seen(cx: &mut Cx<'_, '_, '_>) -> Result<bool, Fault> {
    let mut after = None;
    let mut dropped = 0;
    loop {
        let page = cx.unit.range::<SeenRow>(&[], after.as_ref(), PAGE, false)?;
        let Some((last, _)) = page.last() else { return Ok(false) };
        after = Some(*last);
        for (place, row) in page {
            if cx.now.since(row.at) > SEEN {
                cx.unit.delete::<SeenRow>(&place);
                dropped += 1;
                if dropped == STEP {
                    return Ok(true);
                }
            }
        }
    }
}

/// RET-05: sessions and sender keys of a group's members.
pub(super) fn forget_members(cx: &mut Cx<'_, '_, '_>, chat: &ChatId) -> Result<(), Fault> {
    for (place, _) in cx.unit.scan::<PeerRow>(chat.as_bytes())? {
        cx.unit.delete::<PeerRow>(&place);
    }
    for (place, _) in cx.unit.scan::<AuthorRow>(chat.as_bytes())? {
        cx.unit.delete::<AuthorRow>(&place);
    }
    Ok(())
}

/// RET-05: the session of a contact that came to nothing, and the way to its mailbox.
pub(super) fn forget_session(contact: &mut ContactRow) {
    contact.session = None;
    contact.route = None;
    contact.ticket = None;
}
