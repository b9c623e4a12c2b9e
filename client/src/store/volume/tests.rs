use std::time::Duration;

use lapwing_vault::{Container, ContainerSize, Cost, MemoryBackend, Passphrase, Session};
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use lapwing_wire::time::Timestamp;
use serde_bytes::ByteBuf;

use super::{
    super::{
        base::MemoryBase,
        rows::{ChatId, ChatKind, DraftRow},
        unit::Unit,
    },
    *,
};

const TINY: Cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };

fn volume(rng: &mut ChaCha20Rng) -> (MemoryBackend, Session, VolumeBase) {
    let backend = MemoryBackend::new();
    let (size, passphrase) = (ContainerSize::MIN, Passphrase::new("copper lantern"));
    let handle = backend.another_handle();
    let session = Container::create(handle, size, &passphrase, TINY, rng, &mut |_, _| {}).unwrap();
    let base = VolumeBase::new(session.open_volume(session.volumes()[0], rng).unwrap());
    (backend, session, base)
}

fn unlocked(backend: &MemoryBackend, rng: &mut ChaCha20Rng) -> (Session, VolumeBase) {
    let locked = Container::open(backend.another_handle()).unwrap();
    let session = locked.unlock(&Passphrase::new("copper lantern"), TINY, rng, Duration::ZERO).unwrap();
    let base = VolumeBase::new(session.open_volume(session.volumes()[0], rng).unwrap());
    (session, base)
}

fn key(chat: u8, order: u64) -> Vec<u8> {
    [&[MessageRow::TABLE][..], &[chat; 16], &order.to_be_bytes()].concat()
}

fn all(base: &dyn Base) -> Vec<(Vec<u8>, Zeroizing<Vec<u8>>)> {
    base.range(&[], &[0xff; 64], usize::MAX, false).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn runs_of_messages_are_put_like_any_other_records(
        seed: u64,
        commits in prop::collection::vec(
            prop::collection::vec((0u8..3, 0u64..80, 0usize..900, 0u8..8), 1..40), 1..12),
    ) {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let (_backend, _session, base) = volume(&mut rng);
        let reference = MemoryBase::default();
        for commit in commits {
            let changes: Vec<_> = commit
                .into_iter()
                .map(|(chat, order, len, kind)| match kind {
                    // Another kind of record between them, a deletion, or a message.
                    0 => (vec![0x03, chat], Some(Zeroizing::new(vec![kind; len]))),
                    1 => (key(chat, order), None),
                    _ => (key(chat, order), Some(Zeroizing::new(vec![kind; len]))),
                })
                .collect();
            base.commit(changes.iter().cloned().collect()).unwrap();
            reference.commit(changes.into_iter().collect()).unwrap();
            prop_assert_eq!(all(&base), all(&reference));
        }
    }
}

#[test]
fn messages_of_one_commit_leave_their_pages_full() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let (_backend, _session, base) = volume(&mut rng);
    const LEN: usize = 400;
    for round in 0..10 {
        let of = |chat| (round * 20..(round + 1) * 20).map(move |order| key(chat, order));
        let messages = (0..4).flat_map(of).map(|key| (key, Some(Zeroizing::new(vec![7; LEN]))));
        base.commit(messages.collect()).unwrap();
    }
    let bytes = all(&base).iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() as u64;
    let read = base.volume.begin_read().unwrap();
    let stats =
        redb::ReadableTableMetadata::stats(&read.open_table(Place::Shared.definition()).unwrap()).unwrap();
    // One after the other they would fill 57 of a hundred bytes.
    assert!(stats.leaf_pages() * 4096 * 75 < bytes * 100, "{} pages, {bytes} bytes", stats.leaf_pages());
}

#[test]
fn what_does_not_fit_says_so_and_changes_nothing() {
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    let (_backend, _session, base) = volume(&mut rng);
    base.commit([(key(1, 1), Some(Zeroizing::new(vec![1])))].into_iter().collect()).unwrap();
    let before = all(&base);
    let messages = (2..400).map(|order| (key(1, order), Some(Zeroizing::new(vec![7; 16 << 10]))));
    assert!(matches!(base.commit(messages.collect()), Err(StoreError::Full)));
    assert_eq!(all(&base), before);
}

#[test]
fn what_takes_the_place_of_other_records_fits_where_nothing_else_does() {
    let mut rng = ChaCha20Rng::seed_from_u64(4);
    let (_backend, _session, base) = volume(&mut rng);
    let value = |len: usize| Some(Zeroizing::new(vec![5; len]));
    let other = |number: u8| vec![0x35, number];
    base.commit([(other(0), value(60 << 10))].into_iter().collect()).unwrap();
    let mut order = 0;
    let full = loop {
        order += 1;
        match base.commit([(key(1, order), value(8 << 10))].into_iter().collect()) {
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(full, StoreError::Full));
    let big = [(other(1), value(60 << 10))];
    assert!(matches!(base.commit(big.iter().cloned().collect()), Err(StoreError::Full)));
    base.commit([(other(0), None)].into_iter().chain(big).collect()).unwrap();
    assert_eq!(
        (base.get(&other(0)).unwrap(), base.get(&other(1)).unwrap().map(|v| v.len())),
        (None, Some(60 << 10))
    );
}

#[test]
fn vlt_56_past_the_limit_nothing_grows_without_end_and_the_room_for_deleting_stays() {
    let mut rng = ChaCha20Rng::seed_from_u64(6);
    let (_backend, _session, base) = volume(&mut rng);
    let chat = ChatId::from_bytes([1; 16]);
    let shown = |read_to, name: &str| ChatRow {
        name: name.to_owned(),
        kind: ChatKind::Direct,
        created: Timestamp::from_millis(0),
        blocked: false,
        read_to,
        unread: 0,
        waiting: 0,
        last: None,
    };
    let put_chat = |read_to, name: &str| {
        let mut unit = Unit::new(&base);
        unit.put(&chat, &shown(read_to, name));
        base.commit(unit.into_changes())
    };
    let draft = |len: usize| {
        let mut unit = Unit::new(&base);
        let (stored, body) = (Timestamp::from_millis(1 << 40), ByteBuf::from(vec![9; len]));
        unit.put(&chat, &DraftRow { stored, number: 1, key: [2; 16], body });
        base.commit(unit.into_changes())
    };
    put_chat(1, "walrus").unwrap();
    draft(10).unwrap();
    let message = |order, len| [(key(1, order), Some(Zeroizing::new(vec![5; len])))].into_iter().collect();
    let mut order = 0;
    while base.commit(message(order, 8 << 10)).is_ok() {
        order += 1;
    }
    // What may be small has its room, and no more.
    let small = |number: u64, len: usize| {
        let key = [&[0x35][..], &[3; 16], &number.to_be_bytes()].concat();
        base.commit([(key, Some(Zeroizing::new(vec![0x60; len])))].into_iter().collect())
    };
    let mut number = 0;
    for len in [16 << 10, 1 << 10, 1] {
        while small(number, len).is_ok() {
            number += 1;
        }
    }
    // Step by step, by less than a number takes: each step would be let through where only the step is looked at.
    let mut len = 10;
    assert!((0..50).all(|_| {
        len += 6;
        matches!(draft(len), Err(StoreError::Full))
    }));
    assert!(matches!(draft(17), Err(StoreError::Full)));
    assert!(matches!(put_chat(1, "walrus2"), Err(StoreError::Full)));
    let before = base.volume.usage().unwrap().used;
    for read_to in [30, 70_000, u64::MAX, 1, u64::MAX] {
        put_chat(read_to, "walrus").unwrap();
    }
    assert!(base.volume.usage().unwrap().used <= before + 8 * 4096, "pages that wait to be freed");
    // Whatever was tried, all of it can be deleted.
    for order in 0..order {
        base.commit([(key(1, order), None)].into_iter().collect()).unwrap();
    }
    draft(17).unwrap();
}

#[test]
fn key_of_a_unit_that_is_committed_is_there_after_an_unlock_and_that_of_another_is_not() {
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    let (backend, session, base) = volume(&mut rng);
    let made = base.make_body_key(&[1; 16]).unwrap();
    assert_eq!(base.make_body_key(&[1; 16]).unwrap(), made);
    assert_eq!(base.body_key(&[1; 16]).unwrap(), Some(made.clone()));
    base.commit([(key(1, 1), Some(Zeroizing::new(vec![1])))].into_iter().collect()).unwrap();
    base.make_body_key(&[2; 16]).unwrap();
    drop((base, session));
    let (_session, base) = unlocked(&backend, &mut rng);
    assert_eq!(base.body_key(&[1; 16]).unwrap(), Some(made));
    assert_eq!(base.body_key(&[2; 16]).unwrap(), None);
}
