//! What a person's records say of each other, and whether anything is left of what was erased.

use std::collections::BTreeMap;

use lapwing::{
    engine::Command,
    store::{
        Base, BodyKeyName, BodyKeyRow, ChatId, ChatRow, DeadlineRow, DoomedKeyRow, DraftRow, DueRow,
        ErasingRow, MessageRow, MessageState, Row, SpareKeyRow, Unit, Writer,
    },
};

use super::Person;

/// What `read` does after it has shown everything.
pub fn mark_read(person: &mut Person, chat: &str) {
    let id = person.chat(chat).id;
    let last = person.look(|unit| unit.range::<MessageRow>(id.as_bytes(), None, 1, true)).expect("records");
    if let Some(((_, order), _)) = last.first() {
        person.must(Command::MarkRead { chat: id, order: *order });
    }
}

/// The texts of people in a chat.
pub fn texts(person: &Person, chat: &str) -> Vec<String> {
    let lines = person.lines(chat).into_iter();
    lines.filter(|line| line.writer != "program").map(|line| line.text).collect()
}

fn rows<R: Row>(unit: &Unit<'_>) -> Vec<(R::Key, R)> {
    unit.scan::<R>(&[]).expect("records")
}

/// Every record of a person, key and value.
pub fn raw(person: &Person) -> Vec<Vec<u8>> {
    let all = person.copy_of_records().range(&[], &[0xff; 64], usize::MAX, false).expect("records");
    all.into_iter().map(|(key, value)| [key.as_slice(), &value].concat()).collect()
}

/// Whether any record holds these bytes.
pub fn holds(person: &Person, needle: &[u8]) -> bool {
    raw(person).iter().any(|record| record.windows(needle.len()).any(|part| part == needle))
}

/// What the records say of each other fits: keys and what lies under them, deadlines, counts of chats; nothing is left to
/// erase.
pub fn assert_in_order(person: &Person, what: &str) {
    let base = person.base();
    person.look(|unit| {
        assert!(rows::<DoomedKeyRow>(unit).is_empty() && rows::<ErasingRow>(unit).is_empty(), "{what}");
        let messages = rows::<MessageRow>(unit);
        let mut under: BTreeMap<(ChatId, BodyKeyName), u64> = BTreeMap::new();
        for ((chat, _), row) in &messages {
            *under.entry((*chat, row.key)).or_default() += 1;
            assert!(
                base.body_key(&row.key).expect("records").is_some(),
                "{what}: a message has lost its key"
            );
        }
        for (chat, row) in rows::<DraftRow>(unit) {
            *under.entry((chat, row.key)).or_default() += 1;
        }
        if let [((), spare)] = &rows::<SpareKeyRow>(unit)[..] {
            let of_spare: Vec<_> = under.keys().filter(|(_, key)| *key == spare.name).copied().collect();
            let sealed: u64 = of_spare.iter().filter_map(|place| under.remove(place)).sum();
            assert_eq!(sealed, spare.bodies, "{what}: bodies under the key of all chats");
            assert!(base.body_key(&spare.name).expect("records").is_some(), "{what}: the key of all chats");
        }
        let keys = rows::<BodyKeyRow>(unit);
        assert_eq!(keys.len(), under.len(), "{what}: keys and what they seal");
        for ((chat, _), row) in keys {
            assert_eq!(under.get(&(chat, row.name)), Some(&row.bodies), "{what}: bodies under a key");
        }
        let deadlines: Vec<_> =
            rows::<DeadlineRow>(unit).into_iter().map(|((chat, order), row)| (row.at, chat, order)).collect();
        let mut sorted = deadlines.clone();
        sorted.sort_unstable_by_key(|(at, chat, order)| (*at, *chat, *order));
        let due: Vec<_> = rows::<DueRow>(unit).into_iter().map(|(place, _)| place).collect();
        assert_eq!(due, sorted, "{what}: deadlines and their order");
        let timed = messages.iter().filter(|(_, row)| row.lives.is_some()).count();
        assert_eq!(timed, due.len(), "{what}: each message with a lifetime has a deadline");
        for (id, chat) in rows::<ChatRow>(unit) {
            let of = || messages.iter().filter(|((chat, _), _)| *chat == id);
            let unread = of().filter(|((_, o), row)| *o > chat.read_to && row.writer != Writer::Me).count();
            let waiting = of().filter(|(_, row)| row.state == MessageState::Waiting).count();
            let last = of().map(|(_, row)| row.stored).next_back();
            assert_eq!(chat.unread, u64::try_from(unread).expect("records"), "{what}: unread");
            assert_eq!(chat.waiting, u64::try_from(waiting).expect("records"), "{what}: waiting");
            assert_eq!(chat.last, last, "{what}: last");
        }
    });
}
