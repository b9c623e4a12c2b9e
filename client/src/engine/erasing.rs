//! Erasing: messages, what a chat holds of them, and whole chats.
//!
//! ERA-03 one commit decides; what is too much for it is recorded there and erased in steps, by the same command or by
//! whichever comes next, before anything is shown. ERA-04 a message that has not left when it is erased does not leave any
//! more; what has left is with others. ERA-05 of a chat that is deleted nothing stays but operations for relays that name
//! no chat: mailboxes to be closed, and words of the program that were already on their way. ERA-06 a chat is not deleted
//! while somebody's safety hangs on it: a trust, an alert that nobody has acknowledged, a group that was not left. ERA-07
//! keys that cannot be destroyed keep nothing else from being erased; until they are, no command says that it is done, and
//! every one says that it is not.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use super::{Cx, Effect, Fault, bodies, contact, expiry, files, group, outgoing, retention};
use crate::store::{
    AlertRow, ArrivalRow, ChainRow, ChatId, ChatKind, ChatRow, ContactRow, ContactState, DraftRow,
    ErasingRow, GroupRow, InvitationRow, JoiningRow, MailboxRow, MessageRow, MessageState, NameRow, OpId,
    OpKind, OpRow, Order, Purpose, RenewalDueRow, RenewalRow, SeenRow, TakenTicketRow, TimerRow, TrustRow,
    Unit, UnsealedRow, Writer,
};

/// Records removed in one commit. More would hold many pages of a full volume at once.
const STEP: usize = 500;

/// Erases messages, and afterwards sets right what their chats say of them.
#[derive(Default)]
pub(super) struct Eraser {
    /// Operations that carry messages which have not left; looked for when the first one is met.
    waiting: Option<HashMap<(ChatId, Order), Vec<OpId>>>,
    touched: BTreeSet<ChatId>,
    withdrawn: BTreeMap<ChatId, u64>,
}

impl Eraser {
    /// Erases one message, if it is there.
    pub(super) fn erase(&mut self, cx: &mut Cx<'_, '_, '_>, place: (ChatId, Order)) -> Result<(), Fault> {
        let Some(row) = cx.unit.get::<MessageRow>(&place)? else { return Ok(()) };
        let (chat, order) = place;
        cx.unit.delete::<MessageRow>(&place);
        files::erase(cx, place);
        bodies::release(cx, chat, row.stored, &row.key)?;
        if row.lives.is_some() {
            expiry::forget_deadline(cx, place)?;
        }
        let waits = row.state == MessageState::Waiting;
        if waits {
            self.withdraw(cx, place)?;
            *self.withdrawn.entry(chat).or_default() += 1;
        }
        if let Some(mut shown) = cx.unit.get::<ChatRow>(&chat)? {
            let unread = row.writer != Writer::Me && order > shown.read_to;
            shown.unread = shown.unread.saturating_sub(u64::from(unread));
            shown.waiting = shown.waiting.saturating_sub(u64::from(waits));
            cx.unit.put(&chat, &shown);
            self.touched.insert(chat);
        } else if cx.unit.get::<ArrivalRow>(&chat)?.is_none() {
            // Of a chat that is being erased nobody sends again; one that is coming is shown with what is known of it.
            return Ok(());
        }
        if row.writer == Writer::Peer {
            retention::mark_erased(cx, chat, row.id, row.stored);
        }
        Ok(())
    }

    /// ERA-04
    fn withdraw(&mut self, cx: &mut Cx<'_, '_, '_>, place: (ChatId, Order)) -> Result<(), Fault> {
        cx.unit.delete::<UnsealedRow>(&place);
        let waiting = match &mut self.waiting {
            Some(waiting) => waiting,
            empty => empty.insert(carried(cx)?),
        };
        for op in waiting.remove(&place).into_iter().flatten() {
            cx.unit.delete::<OpRow>(&op);
        }
        Ok(())
    }

    /// Sets right when each chat had its last message. Answers how many messages of ours had not left, by chat.
    pub(super) fn finish(self, cx: &mut Cx<'_, '_, '_>) -> Result<BTreeMap<ChatId, u64>, Fault> {
        for chat in self.touched {
            let Some(mut shown) = cx.unit.get::<ChatRow>(&chat)? else { continue };
            let last = cx.unit.range::<MessageRow>(chat.as_bytes(), None, 1, true)?;
            let last = last.first().map(|(_, row)| row.stored);
            if shown.last != last {
                shown.last = last;
                cx.unit.put(&chat, &shown);
            }
        }
        Ok(self.withdrawn)
    }
}

fn carried(cx: &Cx<'_, '_, '_>) -> Result<HashMap<(ChatId, Order), Vec<OpId>>, Fault> {
    let mut carried: HashMap<_, Vec<OpId>> = HashMap::new();
    for (op, row) in cx.unit.scan::<OpRow>(&[])? {
        if let OpKind::Append { chat, order: Some(order), .. } = row.kind {
            carried.entry((chat, order)).or_default().push(op);
        }
    }
    Ok(carried)
}

/// Erases messages by their numbers: all or none. Answers how many of them had not left.
pub(super) fn messages(cx: &mut Cx<'_, '_, '_>, name: &str, numbers: &[Order]) -> Result<u64, Fault> {
    let (chat, _) = contact::find(cx, name)?;
    let mut eraser = Eraser::default();
    for order in numbers {
        cx.unit.get::<MessageRow>(&(chat, *order))?.ok_or(Fault::UnknownMessage)?;
        eraser.erase(cx, (chat, *order))?;
    }
    cx.tell(Effect::Erased);
    Ok(eraser.finish(cx)?.values().sum())
}

/// Erases what a chat holds, or what came before so long a time. ERA-03.
pub(super) fn clear(cx: &mut Cx<'_, '_, '_>, name: &str, older: Option<Duration>) -> Result<(), Fault> {
    let (chat, _) = contact::find(cx, name)?;
    let before = older.map(|older| cx.now.minus(older));
    if before.is_none() {
        drop_draft(cx, &chat)?;
        bodies::release_all(cx, &chat)?;
    }
    let last = cx.unit.range::<MessageRow>(chat.as_bytes(), None, 1, true)?;
    if let Some(((_, upto), _)) = last.first() {
        let upto = *upto;
        // What an earlier one has left to do is part of this one, or is done first: this one erases less of what it
        // decided on, and more of what came since must not go with it.
        if let Some(before) = before
            && let Some(mut job) = cx.unit.get::<ErasingRow>(&chat)?
            && job.before.is_none_or(|earlier| earlier > before)
        {
            while !step(cx, chat, &mut job)? {}
        }
        cx.unit.put(&chat, &ErasingRow { upto, before, after: 0, whole: false });
    }
    cx.tell(Effect::Erased);
    Ok(())
}

/// Removes a draft and frees the key that sealed it.
pub(super) fn drop_draft(cx: &mut Cx<'_, '_, '_>, chat: &ChatId) -> Result<bool, Fault> {
    let Some(draft) = cx.unit.get::<DraftRow>(chat)? else { return Ok(false) };
    cx.unit.delete::<DraftRow>(chat);
    bodies::release(cx, *chat, draft.stored, &draft.key)?;
    Ok(true)
}

/// Deletes a chat with all that it holds. ERA-03, ERA-05, ERA-06.
pub(super) fn chat(cx: &mut Cx<'_, '_, '_>, name: &str, leave: bool) -> Result<(), Fault> {
    let (chat, row) = contact::find(cx, name)?;
    require_unused(cx.unit, &chat)?;
    if row.kind == ChatKind::Group {
        leave_first(cx, name, &chat, leave)?;
    }
    let established =
        cx.unit.get::<ContactRow>(&chat)?.is_none_or(|contact| contact.state == ContactState::Established);
    end_operations(cx, &chat, established)?;
    end_mailboxes(cx, &chat, row.kind)?;
    remove(cx, chat, &row)
}

/// MOV-01: a chat that another compartment has now goes here: nothing is closed, nothing is told to anybody.
pub(super) fn departed(cx: &mut Cx<'_, '_, '_>, chat: &ChatId) -> Result<(), Fault> {
    let Some(row) = cx.unit.get::<ChatRow>(chat)? else { return Ok(()) };
    end_operations(cx, chat, false)?;
    for (mailbox, known) in cx.unit.scan::<MailboxRow>(&[])? {
        if matches!(known.purpose, Purpose::Ticket(of) | Purpose::Direct(of) if of == *chat) {
            cx.unit.delete::<MailboxRow>(&mailbox);
        }
    }
    remove(cx, *chat, &row)
}

/// All records that name a chat; its messages follow in steps.
fn remove(cx: &mut Cx<'_, '_, '_>, chat: ChatId, row: &ChatRow) -> Result<(), Fault> {
    end_invitations(cx, &chat)?;
    drop_draft(cx, &chat)?;
    files::forget(cx, &chat)?;
    bodies::release_all(cx, &chat)?;
    cx.unit.delete::<NameRow>(&row.name);
    cx.unit.delete::<ChatRow>(&chat);
    cx.unit.delete::<ContactRow>(&chat);
    cx.unit.delete::<JoiningRow>(&chat);
    cx.unit.delete::<TimerRow>(&chat);
    cx.unit.delete::<GroupRow>(&chat);
    cx.unit.delete::<ChainRow>(&chat);
    if let Some(renewal) = cx.unit.get::<RenewalRow>(&chat)? {
        cx.unit.delete::<RenewalRow>(&chat);
        if let Some(due) = renewal.due {
            cx.unit.delete::<RenewalDueRow>(&(due, chat));
        }
    }
    retention::forget_members(cx, &chat)?;
    for (mailbox, taken) in cx.unit.scan::<TakenTicketRow>(&[])? {
        if taken.chat == chat {
            cx.unit.delete::<TakenTicketRow>(&mailbox);
        }
    }
    for (id, alert) in cx.unit.scan::<AlertRow>(&[])? {
        if alert.chat == chat {
            cx.unit.delete::<AlertRow>(&id);
        }
    }
    for (place, _) in cx.unit.scan::<UnsealedRow>(chat.as_bytes())? {
        cx.unit.delete::<UnsealedRow>(&place);
    }
    cx.unit.put(&chat, &ErasingRow { upto: Order::MAX, before: None, after: 0, whole: true });
    cx.group = None;
    cx.tell(Effect::Erased);
    Ok(())
}

/// ERA-06
pub(super) fn require_unused(unit: &Unit<'_>, chat: &ChatId) -> Result<(), Fault> {
    if unit.scan::<TrustRow>(&[])?.iter().any(|(_, trust)| trust.chat == *chat) {
        return Err(Fault::TrustedChat);
    }
    let open = |(_, alert): &(_, AlertRow)| alert.chat == *chat && alert.acknowledged.is_none();
    if unit.scan::<AlertRow>(&[])?.iter().any(open) {
        return Err(Fault::AlertWaits);
    }
    Ok(())
}

fn leave_first(cx: &mut Cx<'_, '_, '_>, name: &str, chat: &ChatId, leave: bool) -> Result<(), Fault> {
    let member = cx.unit.get::<GroupRow>(chat)?.is_some_and(|held| !held.ended && held.epoch.is_some());
    match (member, leave) {
        (false, _) => Ok(()),
        (true, false) => Err(Fault::StillMember),
        (true, true) => group::leave(cx, name),
    }
}

/// What waits for the chat's relays: messages and what makes no sense alone go, the program's own words lose their chat's
/// name.
fn end_operations(cx: &mut Cx<'_, '_, '_>, chat: &ChatId, keep_words: bool) -> Result<(), Fault> {
    for (op, mut row) in cx.unit.scan::<OpRow>(&[])? {
        match &mut row.kind {
            OpKind::Append { chat: of, order: None, .. } if of == chat && keep_words => {
                *of = ChatId::NOBODY;
                cx.unit.put(&op, &row);
            }
            OpKind::Append { chat: of, .. }
            | OpKind::GetBundle { chat: of, .. }
            | OpKind::GetChain { chat: of, .. }
                if of == chat =>
            {
                cx.unit.delete::<OpRow>(&op);
            }
            _ => {}
        }
    }
    Ok(())
}

fn end_mailboxes(cx: &mut Cx<'_, '_, '_>, chat: &ChatId, kind: ChatKind) -> Result<(), Fault> {
    for (mailbox, row) in cx.unit.scan::<MailboxRow>(&[])? {
        let of_chat = match row.purpose {
            Purpose::Ticket(of) | Purpose::Direct(of) | Purpose::Group(of) => of == *chat,
            Purpose::Alert(_) | Purpose::AlertOutbox(_) | Purpose::Home => false,
        };
        match kind {
            _ if !of_chat => {}
            ChatKind::Direct => outgoing::close_mailbox(cx, &mailbox)?,
            // Who made a log leaves it to its age: others have to read in it what became of the group.
            ChatKind::Group => cx.unit.delete::<MailboxRow>(&mailbox),
        }
    }
    Ok(())
}

fn end_invitations(cx: &mut Cx<'_, '_, '_>, chat: &ChatId) -> Result<(), Fault> {
    for (id, row) in cx.unit.scan::<InvitationRow>(&[])? {
        if row.through != *chat && row.chat != Some(*chat) {
            continue;
        }
        cx.unit.delete::<InvitationRow>(&id);
        // Nobody can let us in any more.
        if let (false, Some(joining)) = (row.ours, row.chat)
            && let Some(mut held) = cx.unit.get::<GroupRow>(&joining)?
            && held.epoch.is_none()
        {
            held.ended = true;
            cx.unit.put(&joining, &held);
        }
    }
    Ok(())
}

/// ERA-03: goes on with what was decided. `true` if there is more.
pub(super) fn go_on(cx: &mut Cx<'_, '_, '_>) -> Result<bool, Fault> {
    let Some((chat, mut job)) = cx.unit.range::<ErasingRow>(&[], None, 1, false)?.into_iter().next() else {
        return Ok(false);
    };
    if step(cx, chat, &mut job)? {
        cx.unit.delete::<ErasingRow>(&chat);
    } else {
        cx.unit.put(&chat, &job);
    }
    Ok(true)
}

/// One page of a job. `true` if it is done.
fn step(cx: &mut Cx<'_, '_, '_>, chat: ChatId, job: &mut ErasingRow) -> Result<bool, Fault> {
    let page = cx.unit.range::<MessageRow>(chat.as_bytes(), Some(&(chat, job.after)), STEP, false)?;
    let mut eraser = Eraser::default();
    let full = page.len() == STEP;
    let mut last = job.after;
    for ((_, order), row) in page {
        last = order;
        if order <= job.upto && job.before.is_none_or(|before| row.stored < before) {
            eraser.erase(cx, (chat, order))?;
        }
    }
    eraser.finish(cx)?;
    job.after = last;
    let mut done = !full || last >= job.upto;
    if done && job.whole {
        let seen = cx.unit.range::<SeenRow>(chat.as_bytes(), None, STEP, false)?;
        done = seen.len() < STEP;
        for (place, _) in seen {
            cx.unit.delete::<SeenRow>(&place);
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, collections::BTreeSet, ops::ControlFlow};

    use lapwing_protocol::content::{Body, Content, MessageId};
    use lapwing_wire::time::Timestamp;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;
    use serde_bytes::ByteBuf;
    use zeroize::Zeroizing;

    use super::*;
    use crate::{
        engine::{conversation, drafts},
        store::{
            Base, BodyKeyName, BodyKeyRow, Changes, DoomedKeyRow, MemoryBase, SpareKeyRow, StoreError, Unit,
            destroy_doomed_keys,
        },
    };

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    /// Has room for so many keys.
    struct Narrow {
        base: MemoryBase,
        keys: RefCell<BTreeSet<BodyKeyName>>,
        room: usize,
    }

    impl Base for Narrow {
        fn get(&self, key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
            self.base.get(key)
        }

        fn visit(
            &self,
            from: &[u8],
            to: &[u8],
            backwards: bool,
            see: &mut (dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + '_),
        ) -> Result<(), StoreError> {
            self.base.visit(from, to, backwards, see)
        }

        fn body_key(&self, name: &BodyKeyName) -> Result<Option<Zeroizing<[u8; 32]>>, StoreError> {
            self.base.body_key(name)
        }

        fn make_body_key(&self, name: &BodyKeyName) -> Result<Zeroizing<[u8; 32]>, StoreError> {
            let mut keys = self.keys.borrow_mut();
            if !keys.contains(name) && keys.len() == self.room {
                return Err(StoreError::Full);
            }
            keys.insert(*name);
            self.base.make_body_key(name)
        }

        fn destroy_body_keys(&self, names: &[BodyKeyName]) -> Result<(), StoreError> {
            names.iter().for_each(|name| {
                self.keys.borrow_mut().remove(name);
            });
            self.base.destroy_body_keys(names)
        }

        fn commit(&self, changes: Changes) -> Result<(), StoreError> {
            self.base.commit(changes)
        }
    }

    fn chat(number: u8) -> ChatId {
        ChatId::from_bytes([100 + number; 16])
    }

    fn id(number: u8) -> MessageId {
        MessageId::from_bytes([number; 16])
    }

    fn does<T>(base: &dyn Base, act: impl FnOnce(&mut Cx<'_, '_, '_>) -> T) -> T {
        let mut unit = Unit::new(base);
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let mut cx = Cx { unit: &mut unit, now: NOW, rng: &mut rng, effects: Vec::new(), group: None };
        let done = act(&mut cx);
        base.commit(unit.into_changes()).unwrap();
        done
    }

    fn begin(base: &dyn Base, number: u8) {
        let row = ChatRow {
            name: format!("chat {number}"),
            kind: ChatKind::Direct,
            created: NOW,
            blocked: false,
            read_to: 0,
            unread: 0,
            waiting: 0,
            last: None,
        };
        does(base, |cx| {
            cx.unit.put(&row.name, &NameRow { chat: chat(number) });
            cx.unit.put(&chat(number), &row);
        });
    }

    fn comes(base: &dyn Base, to: u8, message: u8) {
        let body = Body::Text(format!("text {message}"));
        let content = Content { id: id(message), sent: NOW, body };
        does(base, |cx| conversation::take(cx, chat(to), content)).unwrap();
    }

    fn orders(base: &dyn Base, of: u8) -> Vec<Order> {
        let rows = Unit::new(base).scan::<MessageRow>(chat(of).as_bytes()).unwrap();
        rows.into_iter().map(|((_, order), _)| order).collect()
    }

    fn erase_all(base: &dyn Base, of: u8) {
        let all = orders(base, of);
        does(base, |cx| messages(cx, &format!("chat {of}"), &all)).unwrap();
        destroy_doomed_keys(base).unwrap();
    }

    #[test]
    fn era_01_the_spare_key_dies_with_the_last_text_under_it() {
        let base = Narrow { base: MemoryBase::default(), keys: RefCell::default(), room: 2 };
        (1..=3).for_each(|number| begin(&base, number));
        let spare = || Unit::new(&base).get::<SpareKeyRow>(&()).unwrap();
        comes(&base, 1, 1);
        let first = spare().unwrap();
        assert_eq!(first.bodies, 0, "made while there is room, and not used");
        // The table is full: these have no key of their own day.
        comes(&base, 2, 2);
        comes(&base, 3, 3);
        comes(&base, 1, 4);
        assert_eq!(spare().unwrap().bodies, 2);
        assert_eq!(Unit::new(&base).scan::<BodyKeyRow>(&[]).unwrap().len(), 1);
        erase_all(&base, 2);
        assert_eq!(spare().unwrap().bodies, 1);
        assert!(base.body_key(&first.name).unwrap().is_some());
        erase_all(&base, 3);
        assert!(spare().is_none() && base.body_key(&first.name).unwrap().is_none());
        assert!(Unit::new(&base).scan::<DoomedKeyRow>(&[]).unwrap().is_empty());
        assert_eq!(orders(&base, 1).len(), 2, "the others are readable");
        // The next one has another name, and takes the room that there is.
        comes(&base, 2, 5);
        let next = spare().unwrap();
        assert!(next.name != first.name && next.bodies == 1);
        // Where a chat goes as a whole, so does what lies under the spare key.
        does(&base, |cx| clear(cx, "chat 2", None)).unwrap();
        while does(&base, go_on).unwrap() {}
        destroy_doomed_keys(&base).unwrap();
        assert!(base.body_key(&next.name).unwrap().is_none());
    }

    #[test]
    fn era_01_the_key_of_a_draft_dies_with_it() {
        let base = MemoryBase::default();
        begin(&base, 1);
        let draft = |text: &str| does(&base, |cx| drafts::keep(cx, "chat 1", text)).unwrap();
        let keys = || Unit::new(&base).scan::<BodyKeyRow>(&[]).unwrap();
        draft("for later");
        draft("or rather this");
        let (_, key) = keys().remove(0);
        assert_eq!((keys().len(), key.bodies), (1, 1), "the one before counts no more");
        assert!(base.body_key(&key.name).unwrap().is_some());
        does(&base, |cx| drafts::delete(cx, "chat 1")).unwrap();
        destroy_doomed_keys(&base).unwrap();
        assert!(keys().is_empty() && base.body_key(&key.name).unwrap().is_none());
    }

    #[test]
    fn rnw_08_what_was_erased_here_does_not_come_back_with_a_renewal() {
        let base = MemoryBase::default();
        begin(&base, 1);
        begin(&base, 2);
        let renewed = RenewalRow { keys: ByteBuf::new(), renewed: Some(NOW), ..RenewalRow::default() };
        for number in [1, 2] {
            does(&base, |cx| cx.unit.put(&chat(number), &renewed));
        }
        comes(&base, 1, 1);
        comes(&base, 1, 2);
        erase_all(&base, 1);
        // The writer did not know that they had come.
        comes(&base, 1, 1);
        comes(&base, 1, 2);
        assert!(orders(&base, 1).is_empty());
        // What is new comes; in another chat the same id is another message.
        comes(&base, 1, 3);
        comes(&base, 2, 1);
        assert_eq!((orders(&base, 1).len(), orders(&base, 2).len()), (1, 1));
        let ids = base.range(&[], &[0xff; 64], usize::MAX, false).unwrap();
        let holds = |id: &MessageId| {
            ids.iter().any(|(key, value)| {
                [key.as_slice(), value].iter().any(|part| part.windows(16).any(|w| w == id.as_bytes()))
            })
        };
        assert!(!holds(&id(2)) && holds(&id(3)), "no id of what was erased stays");
        // Deleting the chat takes the marks with it.
        does(&base, |cx| super::chat(cx, "chat 1", false)).unwrap();
        while does(&base, go_on).unwrap() {}
        assert!(Unit::new(&base).scan::<SeenRow>(&[]).unwrap().is_empty());
    }
}
