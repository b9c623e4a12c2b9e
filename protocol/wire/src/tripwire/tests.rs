//! Records, lists and statuses.

use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use super::*;
use crate::{
    capability::{Trigger, TripwireOwner},
    limits::{MAX_DEADLINE, MAX_VOICES, MIN_DEADLINE},
    sharing,
};

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::from_seed([1; 32])
}

fn tripwire() -> TripwireId {
    TripwireId::of_owner(&SecretKey::<TripwireOwner>::from_seed([3; 32]).public())
}

#[test]
fn trp_01_records_have_one_size_and_open_with_their_token_only() {
    let mut rng = rng();
    let token = Token::generate(&mut rng);
    for meaning in [Meaning::Nothing, Meaning::Renew, Meaning::Fire] {
        let record = OpenRecord {
            tripwire: tripwire(),
            meaning,
            list_key: ListKey::generate(&mut rng),
            status_key: StatusKey::generate(&mut rng),
        };
        let sealed = TokenRecord::seal(&token, &record, &mut rng);
        assert_eq!(sealed.sealed.len(), RECORD_LENGTH);
        let open = sealed.open(&token).unwrap();
        assert_eq!(open.meaning, meaning);
        assert_eq!(open.list_key, record.list_key);
        assert_eq!(open.status_key, record.status_key);
        assert!(sealed.open(&Token::generate(&mut rng)).is_none());
    }
}

#[test]
fn trp_02_a_status_is_for_its_owner() {
    let mut rng = rng();
    let key = StatusKey::generate(&mut rng);
    for bits in 0..16 {
        let said = OpenStatus { serial: 7, fired: bits % 3 == 0, came: Came::of_bits(bits) };
        assert_eq!(Status::seal(said, &key, &mut rng).open(&key), Some(said));
    }
    assert_eq!(Status::random(&mut rng).open(&key), None);
}

#[test]
fn trp_03_a_list_opens_with_its_key_for_its_tripwire_only() {
    let mut rng = rng();
    let key = ListKey::generate(&mut rng);
    let writer = SecretKey::from_seed([4; 32]);
    let mailbox = MailboxId::from_bytes([5; 32]);
    let actions = vec![Action::append(mailbox, vec![6; 1024], &writer)];
    let list = SealedList::seal(&actions, &tripwire(), &key, &mut rng).unwrap();
    assert_eq!((list.as_bytes().len() - NONCE - TAG) % LIST_STEP, 0);
    assert_eq!(list.open(&tripwire(), &key), Some(actions.clone()));
    assert_eq!(list.open(&tripwire(), &ListKey::generate(&mut rng)), None);
    assert_eq!(list.open(&TripwireId::from_bytes([0; 32]), &key), None);
    let Action::Append { mailbox, envelope, permission } = &actions[0] else { panic!("an append") };
    let id = EnvelopeId::of(envelope);
    assert!(Action::check_append(&writer.public(), mailbox, &id, permission).is_ok());
    assert!(Action::check_append(&writer.public(), mailbox, &EnvelopeId::of(b""), permission).is_err());
}

#[test]
fn too_many_actions_are_refused() {
    let mut rng = rng();
    let key = ListKey::generate(&mut rng);
    let writer = SecretKey::from_seed([4; 32]);
    let mailbox = MailboxId::from_bytes([5; 32]);
    let actions: Vec<_> = (0..4).map(|_| Action::append(mailbox, vec![6; 64 << 10], &writer)).collect();
    assert_eq!(SealedList::seal(&actions, &tripwire(), &key, &mut rng), Err(ListTooLong));
}

fn deadline(after_s: u64, actions: Vec<Action>) -> Option<Deadline> {
    Some(Deadline { after_s, actions })
}

#[test]
fn trp_11_only_a_second_deadline_destroys_and_their_spans_have_bounds() {
    let (least, most) = (MIN_DEADLINE.as_secs(), MAX_DEADLINE.as_secs());
    let alert = || {
        vec![Action::append(MailboxId::from_bytes([5; 32]), vec![6; 1024], &SecretKey::from_seed([4; 32]))]
    };
    let sink = || vec![Action::sink(MailboxId::from_bytes([5; 32]), &SecretKey::from_seed([4; 32]))];
    let refresh = || vec![Action::refresh(&SecretKey::from_seed([4; 32]), None)];
    let causes = |alerting, destroying| Causes { alerting, destroying, ..Causes::default() };
    for (causes, expected) in [
        (causes(None, None), Ok(())),
        (causes(deadline(least, alert()), None), Ok(())),
        (causes(deadline(least, alert()), deadline(2 * least, sink())), Ok(())),
        (causes(deadline(least, alert()), deadline(most, refresh())), Ok(())),
        (causes(deadline(least - 1, alert()), None), Err(BadCauses::Deadline)),
        (causes(deadline(most + 1, alert()), None), Err(BadCauses::Deadline)),
        (causes(deadline(u64::MAX, alert()), deadline(u64::MAX, sink())), Err(BadCauses::Deadline)),
        (causes(deadline(least, alert()), deadline(2 * least - 1, sink())), Err(BadCauses::Deadline)),
        (causes(None, deadline(least, sink())), Err(BadCauses::Destroys)),
        (causes(deadline(least, sink()), None), Err(BadCauses::Destroys)),
        (causes(deadline(least, refresh()), None), Err(BadCauses::Destroys)),
    ] {
        assert_eq!(causes.check(), expected, "{causes:?}");
    }
    let frozen = |actions| {
        let frozen = Frozen::new(&SecretKey::from_seed([4; 32]), &tripwire(), actions);
        Causes { frozen: Some(frozen), ..Causes::default() }.check()
    };
    assert_eq!((frozen(alert()), frozen(sink())), (Ok(()), Err(BadCauses::Destroys)));
}

#[test]
fn trp_14_one_voice_never_destroys() {
    let mut rng = rng();
    let key = ListKey::generate(&mut rng);
    let actions = [
        Action::append(MailboxId::from_bytes([5; 32]), vec![6; 1024], &SecretKey::from_seed([4; 32])),
        Action::sink(MailboxId::from_bytes([5; 32]), &SecretKey::from_seed([4; 32])),
    ];
    let voices = |threshold: usize, rng: &mut ChaCha20Rng| -> Vec<_> {
        let shares = sharing::split(&key, threshold, 3, rng).unwrap();
        shares.into_iter().map(|share| (SecretKey::<Trigger>::generate(rng).public(), share)).collect()
    };
    let one = voices(1, &mut rng);
    let refused = Quorum::seal(&tripwire(), &key, 1, &one, &actions, &mut rng);
    assert_eq!(refused, Err(BadCauses::Destroys));
    // Whoever seals it nevertheless has a list that only alerts.
    let list = SealedList::seal(&actions, &tripwire(), &key, &mut rng).unwrap();
    assert_eq!(open_list(&list, 1, &tripwire(), &[&one[2].1]).unwrap(), actions[..1]);
    let two = voices(2, &mut rng);
    let quorum = Quorum::seal(&tripwire(), &key, 2, &two, &actions, &mut rng).unwrap();
    assert_eq!(quorum.open(&tripwire(), &[&two[2].1, &two[0].1]).unwrap(), actions);
    assert_eq!(quorum.open(&tripwire(), &[&two[2].1]), None);
    assert_eq!(quorum.open(&tripwire(), &[&two[2].1, &one[0].1]), None, "a wrong share");
    let twice = [two[0].clone(), two[0].clone()];
    assert_eq!(Quorum::seal(&tripwire(), &key, 2, &twice, &[], &mut rng), Err(BadCauses::Voices));
    assert_eq!(Quorum::seal(&tripwire(), &key, 4, &two, &[], &mut rng), Err(BadCauses::Voices));
    let many: Vec<_> = (0..=MAX_VOICES).map(|_| voices(2, &mut rng).remove(0)).collect();
    assert_eq!(Quorum::seal(&tripwire(), &key, 2, &many, &[], &mut rng), Err(BadCauses::Voices));
}
