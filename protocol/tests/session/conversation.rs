//! What two people notice: messages arrive, in any order, once, and only where they belong.

use std::time::Duration;

use lapwing_protocol::session::{
    BundleIn, BundleUse, Context, MAX_COUNTER_AHEAD, MAX_MESSAGE, MAX_PLAINTEXT, Session, SessionError,
    accept_first, claimed_sender,
};
use rand::{Rng as _, seq::SliceRandom as _};

use crate::support::{CONTEXT, Side, begun, edited, now, pair, rng};

#[test]
fn a_conversation_survives_storing_after_every_step() {
    let (mut alice, mut bob) = pair(1);
    let mut dice = rng(2);
    let mut on_the_way: Vec<(bool, Vec<u8>, Vec<u8>)> = Vec::new();
    let mut delivered = 0;
    for n in 0..400_u32 {
        let to_bob = dice.random();
        if dice.random_ratio(3, 5) {
            let text = n.to_be_bytes().to_vec();
            let sender = if to_bob { &mut alice } else { &mut bob };
            let message = sender.send(&text).into_bytes();
            sender.reopen();
            on_the_way.push((to_bob, text, message));
        } else if !on_the_way.is_empty() {
            let (to_bob, text, message) = on_the_way.swap_remove(dice.random_range(0..on_the_way.len()));
            let receiver = if to_bob { &mut bob } else { &mut alice };
            assert_eq!(receiver.receive_bytes(&message).unwrap(), text);
            receiver.reopen();
            delivered += 1;
        }
    }
    assert!(delivered > 100, "the run delivered only {delivered} messages");
}

#[test]
fn ses_07_a_thousand_shuffled_messages_all_arrive_and_each_only_once() {
    let (mut alice, mut bob) = pair(3);
    let mut messages: Vec<_> = (0..1_000_u32).map(|n| (n, alice.send(&n.to_be_bytes()))).collect();
    messages.shuffle(&mut rng(4));
    for (n, message) in &messages {
        assert_eq!(bob.receive(message).unwrap(), n.to_be_bytes());
    }
    for (_, message) in messages.iter().step_by(50) {
        bob.refuses(message.as_bytes(), SessionError::Duplicate);
    }
}

#[test]
fn ses_04_two_thousand_lost_messages_are_survived_and_one_more_is_refused() {
    let (mut alice, mut bob) = pair(5);
    bob.receive(&alice.send(b"seen")).unwrap();
    for _ in 0..MAX_COUNTER_AHEAD - 1 {
        alice.send(b"lost");
    }
    let last_good = alice.send(b"last good");
    let too_far = alice.send(b"too far");
    bob.refuses(too_far.as_bytes(), SessionError::TooFarAhead);
    assert_eq!(bob.receive(&last_good).unwrap(), b"last good");
    // With the good one seen, the other is within reach.
    assert_eq!(bob.receive(&too_far).unwrap(), b"too far");
}

#[test]
fn both_may_begin_at_once() {
    let (mut inviter_local, mut alice) = begun(6, BundleUse::Once);
    let mut other = rng(7);
    // The inviter begins as well, from a bundle that the joiner gave out.
    let bundle = alice.local.new_bundle(BundleUse::Once, now(), &mut other).unwrap().encode().unwrap();
    let bundle = BundleIn::decode(&bundle).unwrap().verify().unwrap();
    let session = Session::initiate(&inviter_local, &bundle, now(), &mut other).unwrap();
    let from_alice = alice.send(b"from alice");
    assert_eq!(claimed_sender(from_alice.as_bytes()).unwrap().as_ref(), Some(alice.local.public()));
    inviter_local =
        lapwing_protocol::session::LocalIdentity::import(inviter_local.export().unwrap().expose()).unwrap();
    let mut bob = Side { local: inviter_local, session, rng: other };
    let from_bob = bob.send(b"from bob");

    assert_eq!(bob.receive(&from_alice).unwrap(), b"from alice");
    assert_eq!(alice.receive(&from_bob).unwrap(), b"from bob");
    // Both bundles were used up by it.
    assert_eq!((alice.local.open_bundles(), bob.local.open_bundles()), (0, 0));
    for round in 0..20_u8 {
        let (a, b) = (alice.send(&[round]), bob.send(&[round, round]));
        assert_eq!(bob.receive(&a).unwrap(), [round]);
        assert_eq!(alice.receive(&b).unwrap(), [round, round]);
        alice.reopen();
        bob.reopen();
    }
    assert_eq!(claimed_sender(alice.send(b"later").as_bytes()), Ok(None));
}

#[test]
fn several_first_messages_may_arrive_in_any_order() {
    let (mut inviter, mut joiner) = begun(8, BundleUse::Once);
    let messages: Vec<_> = (0..5_u8).map(|n| joiner.send(&[n])).collect();
    let mut other = rng(9);
    let accepted = accept_first(&mut inviter, None, messages[3].as_bytes(), CONTEXT, &mut other).unwrap();
    assert_eq!(accepted.plaintext.expose(), [3]);
    let mut bob = Side { local: inviter, session: accepted.session, rng: other };
    for n in [4, 0, 2, 1] {
        assert_eq!(bob.receive(&messages[n]).unwrap(), [n as u8]);
    }
    bob.refuses(messages[3].as_bytes(), SessionError::Duplicate);
}

#[test]
fn ses_08_a_message_for_another_context_is_refused() {
    let (mut alice, mut bob) = pair(10);
    let message = alice.session.encrypt(b"here", Context::new(b"one group"), now(), &mut alice.rng).unwrap();
    bob.refuses(message.as_bytes(), SessionError::WrongContext);
    let opened =
        bob.session.decrypt(&mut bob.local, message.as_bytes(), Context::new(b"one group"), &mut bob.rng);
    assert_eq!(opened.unwrap().expose(), b"here");
}

#[test]
fn a_message_for_somebody_else_is_refused() {
    let (mut alice, mut bob) = pair(11);
    let (mut carol, _) = pair(12);
    let message = alice.send(b"for bob");
    carol.refuses(message.as_bytes(), SessionError::Undecryptable);
    // Nor does our own message come back as one of the peer's.
    alice.refuses(message.as_bytes(), SessionError::Undecryptable);
    assert_eq!(bob.receive(&message).unwrap(), b"for bob");
}

#[test]
fn ses_06_a_session_decrypts_only_with_the_identity_it_belongs_to() {
    let (mut alice, mut bob) = pair(13);
    let (stranger, _) = begun(14, BundleUse::Once);
    let message = alice.send(b"text");
    let own = std::mem::replace(&mut bob.local, stranger);
    bob.refuses(message.as_bytes(), SessionError::UntrustedIdentity);
    bob.local = own;
    assert_eq!(bob.receive(&message).unwrap(), b"text");
}

#[test]
fn the_longest_plaintext_fits_the_largest_message_and_one_byte_more_is_refused() {
    let (mut inviter, mut joiner) = begun(15, BundleUse::Once);
    let longest = vec![0xA5; MAX_PLAINTEXT];
    let before = joiner.stored();
    let outcome = joiner.session.encrypt(&[&longest[..], &[0]].concat(), CONTEXT, now(), &mut joiner.rng);
    assert_eq!(outcome, Err(SessionError::TooLong));
    assert!(joiner.stored() == before);
    let message = joiner.send(&longest);
    assert!(
        message.as_bytes().len() < MAX_MESSAGE - 512,
        "no room for sealing: {}",
        message.as_bytes().len()
    );
    let accepted = accept_first(&mut inviter, None, message.as_bytes(), CONTEXT, &mut rng(16)).unwrap();
    assert_eq!(accepted.plaintext.expose(), longest);
}

#[test]
fn a_session_that_nobody_answers_expires_after_thirty_days() {
    let (_, mut joiner) = begun(17, BundleUse::Once);
    let day = Duration::from_secs(24 * 3600);
    let at = |days| now() + day * days;
    assert!(joiner.session.encrypt(b"still", CONTEXT, at(29), &mut joiner.rng).is_ok());
    let before = joiner.stored();
    let late = joiner.session.encrypt(b"late", CONTEXT, at(31), &mut joiner.rng);
    assert_eq!(late, Err(SessionError::Expired));
    assert!(joiner.stored() == before);
    // An answered session does not expire.
    let (mut alice, _) = pair(18);
    assert!(alice.session.encrypt(b"any time", CONTEXT, at(4_000), &mut alice.rng).is_ok());
}

#[test]
fn ses_06_a_stored_session_of_other_identities_is_refused() {
    let (alice, bob) = pair(24);
    let (carol, _) = pair(25);
    let stored = alice.session.export().unwrap();
    for name in ["own", "peer"] {
        for other in [carol.local.public().as_bytes(), &[0; 32]] {
            let altered = edited(stored.expose(), name, |key| *key = ciborium::Value::Bytes(other.to_vec()));
            assert_eq!(Session::import(&altered).err(), Some(SessionError::DamagedRecord), "{name}");
        }
    }
    for (name, value) in [("v", 2.into()), ("rec", ciborium::Value::Bytes(Vec::new()))] {
        let altered = edited(stored.expose(), name, |field| *field = value);
        assert_eq!(Session::import(&altered).err(), Some(SessionError::DamagedRecord), "{name}");
    }
    assert_eq!(Session::import(stored.expose()).unwrap().peer(), bob.local.public());
}

#[test]
fn debug_shows_nothing() {
    let (alice, _) = pair(19);
    let shown = format!("{:?} {:?} {:?}", alice.session, alice.local, CONTEXT);
    assert_eq!(shown, "Session(..) LocalIdentity(..) Context(..)");
}
