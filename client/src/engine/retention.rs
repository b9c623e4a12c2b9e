//! Records that have outlived their use.
//!
//! RET-01 what tells that a message of a group was seen lives twice as long as a log is read after it was left: no copy of
//! the message can come later; so does the mark of an erased message of a contact (RNW-08). RET-02 a ticket that was taken
//! is remembered until it ends. RET-03 an invitation that nobody answered is forgotten after ninety days. RET-04 of an author's sender keys the newest stays two days after it came; the
//! older ones opened what lay before it in the log. RET-05 when a group ends for us, sessions and keys of its members go;
//! when a contact comes to nothing, its session.

use std::time::Duration;

use lapwing_protocol::content::MessageId;
use lapwing_wire::{ids::labelled_hash, time::Timestamp};

use super::{Cx, Fault};
use crate::{
    labels::ERASED_MESSAGE,
    store::{AuthorRow, ChatId, ClockRow, ContactRow, InvitationRow, PeerRow, SeenRow, TakenTicketRow},
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

/// RNW-08: a message that its writer may send again is known to have been here, after it was erased, by this: a hash
/// that only who has the message's id can make. RET-01 ends it.
pub(super) fn mark_erased(cx: &mut Cx<'_, '_, '_>, chat: ChatId, id: MessageId, stored: Timestamp) {
    // No renewal sends again what is older.
    if cx.now.since(stored) < SEEN {
        cx.unit.put(&(chat, mark_of(&id)), &SeenRow { at: day(cx.now) });
    }
}

/// RNW-08
pub(super) fn was_erased(cx: &Cx<'_, '_, '_>, chat: ChatId, id: &MessageId) -> Result<bool, Fault> {
    Ok(cx.unit.get::<SeenRow>(&(chat, mark_of(id)))?.is_some())
}

/// Of the id alone: the chat may go to another compartment, where it has another id and nobody has the message's.
fn mark_of(id: &MessageId) -> MessageId {
    let mut mark = [0; 16];
    mark.copy_from_slice(&labelled_hash(ERASED_MESSAGE, &[id.as_bytes()])[..16]);
    MessageId::from_bytes(mark)
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
    let (latest, ahead) = clock.map_or_else(|| (cx.now, Vec::new()), |clock| (clock.latest, clock.ahead));
    cx.unit.put(&(), &ClockRow { latest, swept: Some(cx.now), ahead });
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

#[cfg(test)]
mod tests {
    use lapwing_protocol::group::MemberId;
    use lapwing_wire::ids::MailboxId;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;
    use serde_bytes::ByteBuf;

    use super::*;
    use crate::store::{Base, MemoryBase, Row, Unit};

    const CHAT: ChatId = ChatId::from_bytes([1; 16]);

    fn put<R: Row>(base: &MemoryBase, key: &R::Key, row: &R) {
        let mut unit = Unit::new(base);
        unit.put(key, row);
        base.commit(unit.into_changes()).unwrap();
    }

    fn sweep_at(base: &MemoryBase, now: Timestamp) {
        for _ in 0..100 {
            let mut unit = Unit::new(base);
            let mut rng = ChaCha20Rng::from_seed([1; 32]);
            let mut cx = Cx { unit: &mut unit, now, rng: &mut rng, effects: Vec::new(), group: None };
            let more = sweep(&mut cx).unwrap();
            base.commit(unit.into_changes()).unwrap();
            if !more {
                return;
            }
        }
        panic!("it never ends");
    }

    fn count<R: Row>(base: &MemoryBase) -> usize {
        Unit::new(base).scan::<R>(&[]).unwrap().len()
    }

    fn days(count: u64) -> Timestamp {
        Timestamp::from_millis(0).plus(Duration::from_secs(count * 24 * 3600))
    }

    #[test]
    fn ret_01_ids_of_messages_are_forgotten_after_sixty_days_and_looked_for_once_a_day() {
        let base = MemoryBase::default();
        for number in 0..1200u32 {
            let mut id = [0; 16];
            id[..4].copy_from_slice(&number.to_be_bytes());
            let at = if number % 2 == 0 { days(0) } else { days(50) };
            put(&base, &(CHAT, MessageId::from_bytes(id)), &SeenRow { at: day(at) });
        }
        sweep_at(&base, days(60));
        assert_eq!(count::<SeenRow>(&base), 1200);
        sweep_at(&base, days(60).plus(Duration::from_secs(3600)));
        assert_eq!(count::<SeenRow>(&base), 1200, "once a day");
        sweep_at(&base, days(61));
        assert_eq!(count::<SeenRow>(&base), 600);
        sweep_at(&base, days(111));
        assert_eq!(count::<SeenRow>(&base), 0);
        // With nothing to look for, nothing is noted: a compartment without groups is not written to.
        let before = base.get(&[0x26]).unwrap();
        sweep_at(&base, days(200));
        assert_eq!(base.get(&[0x26]).unwrap(), before);
    }

    #[test]
    fn ret_02_and_ret_03_tickets_and_invitations_that_are_over_are_forgotten() {
        let base = MemoryBase::default();
        let ticket = |until| TakenTicketRow { chat: CHAT, until };
        put(&base, &MailboxId::from_bytes([1; 32]), &ticket(Some(days(7))));
        put(&base, &MailboxId::from_bytes([2; 32]), &ticket(None));
        let invitation = |ours: bool, chat: Option<ChatId>, member: Option<MemberId>| InvitationRow {
            through: CHAT,
            group: [2; 32],
            chat,
            name: "group".to_owned(),
            ours,
            request: None,
            member,
            made: days(0),
        };
        put(&base, &[1; 16], &invitation(true, Some(CHAT), None));
        put(&base, &[2; 16], &invitation(false, None, None));
        put(&base, &[3; 16], &invitation(true, Some(CHAT), Some(MemberId::from_bytes([3; 32]))));
        put(&base, &[4; 16], &invitation(false, Some(CHAT), None));
        sweep_at(&base, days(7).minus(Duration::from_millis(1)));
        assert_eq!((count::<TakenTicketRow>(&base), count::<InvitationRow>(&base)), (2, 4));
        sweep_at(&base, days(90));
        assert_eq!((count::<TakenTicketRow>(&base), count::<InvitationRow>(&base)), (1, 4));
        sweep_at(&base, days(91));
        assert_eq!(count::<InvitationRow>(&base), 2);
    }

    #[test]
    fn ret_04_old_sender_keys_go_two_days_after_the_newest_came() {
        let base = MemoryBase::default();
        let place = (CHAT, MemberId::from_bytes([4; 32]));
        let row = AuthorRow {
            keys: [1, 2, 3].map(|byte| ByteBuf::from(vec![byte])).to_vec(),
            track: ByteBuf::new(),
            renewed: Some(days(10)),
            epoch: 0,
        };
        put(&base, &place, &row);
        let keys = |base: &MemoryBase| Unit::new(base).get::<AuthorRow>(&place).unwrap().unwrap().keys;
        sweep_at(&base, days(11));
        assert_eq!(keys(&base).len(), 3);
        sweep_at(&base, days(13));
        assert_eq!(keys(&base), [ByteBuf::from(vec![3])]);
    }
}
