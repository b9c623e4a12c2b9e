//! What should be gone by now, and is not: erasing it failed, as on a disk that cannot be written. It is shown nowhere, and
//! counted nowhere.

use std::collections::BTreeMap;

use lapwing_wire::time::Timestamp;

use super::{Fault, view};
use crate::store::{ChatId, ChatRow, DueRow, MessageRow, MessageState, Order, Unit, Writer};

/// Records read at once.
const PAGE: usize = 500;

/// As [`view::chats`], for showing: what should be gone by now (TMR-05) and could not be erased is counted no more.
///
/// # Errors
/// [`Fault::Store`].
pub fn chats_at(unit: &Unit<'_>, now: Timestamp) -> Result<Vec<view::ChatView>, Fault> {
    let mut all = view::chats(unit)?;
    let overdue = overdue(unit, now)?;
    for chat in &mut all {
        let Some(orders) = overdue.get(&chat.id) else { continue };
        let read_to = unit.get::<ChatRow>(&chat.id)?.ok_or(Fault::UnknownChat)?.read_to;
        for order in orders {
            let Some(row) = unit.get::<MessageRow>(&(chat.id, *order))? else { continue };
            let unread = row.writer != Writer::Me && *order > read_to;
            chat.unread = chat.unread.saturating_sub(usize::from(unread));
            chat.waiting = chat.waiting.saturating_sub(usize::from(row.state == MessageState::Waiting));
        }
        // The last one that may be shown: no more are looked at than are overdue, and one.
        let last = unit.range::<MessageRow>(chat.id.as_bytes(), None, orders.len() + 1, true)?;
        let shown = last.into_iter().find(|((_, order), _)| !orders.contains(order));
        chat.last = shown.map(|(_, row)| row.stored);
    }
    Ok(all)
}

/// Messages whose time is over and that are still there, because erasing them failed.
fn overdue(unit: &Unit<'_>, now: Timestamp) -> Result<BTreeMap<ChatId, Vec<Order>>, Fault> {
    let mut found: BTreeMap<ChatId, Vec<Order>> = BTreeMap::new();
    let mut after = None;
    loop {
        let page = unit.range::<DueRow>(&[], after.as_ref(), PAGE, false)?;
        for (place @ (at, chat, order), DueRow {}) in &page {
            if *at > now {
                return Ok(found);
            }
            found.entry(*chat).or_default().push(*order);
            after = Some(*place);
        }
        if page.len() < PAGE {
            return Ok(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use lapwing_protocol::content::MessageId;
    use serde_bytes::ByteBuf;

    use super::*;
    use crate::store::{Base, ChatKind, MemoryBase};

    const CHAT: ChatId = ChatId::from_bytes([1; 16]);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn tmr_05_what_is_overdue_and_could_not_be_erased_is_counted_nowhere() {
        let base = MemoryBase::default();
        let mut unit = Unit::new(&base);
        let row = ChatRow {
            name: "bo".to_owned(),
            kind: ChatKind::Group,
            created: at(0),
            blocked: false,
            read_to: 1,
            unread: 2,
            waiting: 1,
            last: Some(at(4)),
        };
        unit.put(&CHAT, &row);
        // Read, unread, ours that waits, unread; the third and the fourth are overdue first.
        let writers = [Writer::Peer, Writer::Peer, Writer::Me, Writer::Peer];
        for (order, (writer, due)) in (1..).zip(writers.into_iter().zip([40, 30, 20, 10])) {
            let state = if writer == Writer::Me { MessageState::Waiting } else { MessageState::Received };
            let message = MessageRow {
                id: MessageId::from_bytes([0; 16]),
                writer,
                sent: at(order),
                stored: at(order),
                state,
                lives: Some(300),
                key: [0; 16],
                body: ByteBuf::new(),
            };
            unit.put(&(CHAT, order), &message);
            unit.put(&(at(due), CHAT, order), &DueRow {});
        }
        base.commit(unit.into_changes()).unwrap();
        let unit = Unit::new(&base);
        let counted = |now: u64| {
            let shown = &chats_at(&unit, at(now)).unwrap()[0];
            (shown.unread, shown.waiting, shown.last)
        };
        assert_eq!(counted(9), (2, 1, Some(at(4))));
        assert_eq!(counted(10), (1, 1, Some(at(3))));
        assert_eq!(counted(20), (1, 0, Some(at(2))));
        assert_eq!(counted(30), (0, 0, Some(at(1))));
        assert_eq!(counted(40), (0, 0, None));
    }
}
