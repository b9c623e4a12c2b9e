use lapwing_protocol::content::MessageId;
use lapwing_wire::{codec, time::Timestamp};
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use serde_bytes::ByteBuf;

use super::*;
use crate::{
    engine::{
        Cx,
        conversation::{self, NewMessage},
    },
    store::{MemoryBase, MessageState, Writer},
};

const DAY: u64 = 24 * 3600 * 1000;

fn chat(number: u8) -> ChatId {
    ChatId::from_bytes([number; 16])
}

/// A compartment with these texts, each in its chat, a quarter of a day after the one before.
fn compartment<'a>(texts: impl IntoIterator<Item = (u8, &'a str)>) -> MemoryBase {
    let base = MemoryBase::default();
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let mut unit = Unit::new(&base);
    for (number, (of, text)) in (0..).zip(texts) {
        let now = Timestamp::from_millis(100 * DAY + number * DAY / 4);
        if unit.get::<ChatRow>(&chat(of)).unwrap().is_none() {
            let (name, kind) = (format!("chat {of}"), ChatKind::Direct);
            let row = ChatRow {
                name,
                kind,
                created: now,
                blocked: false,
                read_to: 0,
                unread: 0,
                waiting: 0,
                last: None,
            };
            unit.put(&chat(of), &row);
        }
        let mut cx = Cx { unit: &mut unit, now, rng: &mut rng, effects: Vec::new(), group: None };
        let id = MessageId::from_bytes(cx.random());
        let (writer, state) = (Writer::Peer, MessageState::Received);
        conversation::store(&mut cx, chat(of), &NewMessage { id, writer, sent: now, state, text }).unwrap();
    }
    base.commit(unit.into_changes()).unwrap();
    base
}

fn find(base: &MemoryBase, text: &str, within: Option<u8>, last: usize) -> Vec<String> {
    let query = Query::new(text).unwrap();
    let hits = search(base, &query, within.map(chat).as_ref(), last, 2).unwrap();
    hits.into_iter().map(|hit| format!("{}: {}", hit.name, hit.message.text.unwrap().expose())).collect()
}

#[test]
fn the_newest_messages_of_all_chats_come_first_whatever_their_case() {
    let base = compartment([
        (1, "meet at the FORD"),
        (2, "the Ford, then"),
        (1, "not this"),
        (3, "a\u{301} ford \u{202e}"),
        (2, "afford it"),
    ]);
    let all = [
        "chat 2: afford it",
        "chat 3: a\u{301} ford \u{202e}",
        "chat 2: the Ford, then",
        "chat 1: meet at the FORD",
    ];
    assert_eq!(find(&base, " fOrd\n", None, 10), all);
    assert_eq!(find(&base, "ford", None, 2), all[..2]);
    assert_eq!(find(&base, "ford", Some(2), 10), [all[0], all[2]]);
    assert_eq!(find(&base, "Á", None, 10), all[1..2]);
    assert!(find(&base, "bridge", None, 10).is_empty());
    assert!(find(&base, "ford", None, 0).is_empty());
    let query = Query::new("ford").unwrap();
    assert!(matches!(search(&base, &query, Some(&chat(9)), 10, 2), Err(Fault::UnknownChat)));
}

#[test]
fn a_text_without_its_key_is_not_found() {
    let base = compartment([
        (1, "one ford"),
        (1, "two ford"),
        (1, "three ford"),
        (1, "four ford"),
        (1, "five ford"),
    ]);
    let unit = Unit::new(&base);
    let first = unit.get::<MessageRow>(&(chat(1), 1)).unwrap().unwrap();
    base.destroy_body_keys(&[first.key]).unwrap();
    // A day has four messages.
    assert_eq!(find(&base, "ford", None, 10), ["chat 1: five ford"]);
}

#[test]
fn nothing_is_looked_for_without_a_text() {
    assert!(Query::new("").is_none());
    assert!(Query::new(" \t\n").is_none());
}

#[test]
fn a_search_changes_nothing() {
    let base = compartment([(1, "one ford")]);
    assert_eq!(find(&base, "ford", None, 1).len(), 1);
    assert_eq!(Unit::new(&base).next(Counter::Order).unwrap(), 2);
}

#[test]
fn what_cannot_be_read_is_an_error_and_not_passed_over() {
    let base = compartment([(1, "one ford")]);
    let key = [&[MessageRow::TABLE], MessageRow::key_bytes(&(chat(1), 1)).as_slice()].concat();
    base.commit([(key, Some(Zeroizing::new(vec![0xa0])))].into_iter().collect()).unwrap();
    let query = Query::new("ford").unwrap();
    assert!(matches!(search(&base, &query, None, 1, 2), Err(Fault::Store(StoreError::Record))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_cut_of_the_work_finds_what_a_plain_look_at_all_finds(
        texts in prop::collection::vec((0u8..5, "[abA ]{1,6}"), 0..120),
        last in 0usize..12,
        workers in 0usize..4,
    ) {
        prop_assume!(texts.iter().all(|(_, text)| !text.trim().is_empty()));
        let base = compartment(texts.iter().map(|(of, text)| (*of, text.as_str())));
        let mut expected: Vec<(Order, String)> = (1..)
            .zip(texts.iter().map(|(_, text)| text.clone()))
            .filter(|(_, text)| text.to_lowercase().contains("ab"))
            .collect();
        expected.sort_by_key(|(order, _)| Reverse(*order));
        expected.truncate(last);
        let found = search(&base, &Query::new("aB").unwrap(), None, last, workers).unwrap();
        let found: Vec<(Order, String)> =
            found.into_iter().map(|hit| (hit.message.order, hit.message.text.unwrap().into_exposed())).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn work_is_cut_so_that_every_order_is_in_one_piece(chats in 0u8..9, end in 0u64..5_000) {
        let work = Work::new((0..chats).map(chat).collect(), end);
        let mut covered = vec![0u64; usize::from(chats)];
        let mut before = u64::MAX;
        let mut pieces = 0;
        while let Some(piece) = work.next() {
            prop_assert!(piece.from <= before, "newest first");
            before = piece.from;
            covered[usize::from(piece.chat.as_bytes()[0])] += piece.before - piece.from;
            pieces += 1;
        }
        prop_assert_eq!(pieces, work.len());
        prop_assert!(covered.iter().all(|orders| *orders > end));
    }

    #[test]
    fn the_sealed_text_of_a_record_is_what_the_whole_record_says(
        key: [u8; 16],
        body in prop::collection::vec(any::<u8>(), 0..600),
        time: u64,
        own: bool,
    ) {
        let row = MessageRow {
            id: MessageId::from_bytes([7; 16]),
            writer: if own { Writer::Me } else { Writer::Member(lapwing_protocol::group::MemberId::from_bytes([9; 32])) },
            sent: Timestamp::from_millis(time),
            stored: Timestamp::from_millis(time / 2),
            state: MessageState::Received,
            lives: None,
            key,
            body: ByteBuf::from(body.clone()),
        };
        let bytes = codec::encode(&row);
        let sealed = MessageRow::sealed(&bytes).unwrap();
        prop_assert_eq!(sealed.key, key);
        prop_assert_eq!(sealed.body, body.as_slice());
    }
}
