//! Thousands of altered messages: none panics, none is taken for genuine, none harms the session (SES-07).

use lapwing_protocol::session::{BundleUse, LocalIdentity, Session, SessionError, accept_first};
use proptest::{collection::vec, prelude::*, sample::Index};

use crate::support::{CONTEXT, Side, begun, pair, rng};

/// One alteration of a message.
#[derive(Debug, Clone)]
enum Change {
    Flip(Index, u8),
    Set(Index, u8),
    Cut(Index),
    Insert(Index, Vec<u8>),
    Remove(Index, u8),
    Repeat(Index, u8),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (any::<Index>(), 1..=255_u8).prop_map(|(at, bits)| Change::Flip(at, bits)),
        4 => (any::<Index>(), prop_oneof![Just(0), Just(0x7F), Just(0x80), Just(0xFF), any::<u8>()])
            .prop_map(|(at, byte)| Change::Set(at, byte)),
        1 => any::<Index>().prop_map(Change::Cut),
        2 => (any::<Index>(), vec(any::<u8>(), 1..12)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        2 => (any::<Index>(), 1..40_u8).prop_map(|(at, count)| Change::Remove(at, count)),
        1 => (any::<Index>(), 1..40_u8).prop_map(|(at, count)| Change::Repeat(at, count)),
    ]
}

fn altered(message: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut bytes = message.to_vec();
    for change in changes {
        if bytes.is_empty() {
            break;
        }
        let len = bytes.len();
        match change {
            Change::Flip(at, bits) => bytes[at.index(len)] ^= bits,
            Change::Set(at, byte) => bytes[at.index(len)] = *byte,
            Change::Cut(at) => bytes.truncate(at.index(len)),
            Change::Insert(at, new) => {
                let at = at.index(len);
                bytes.splice(at..at, new.iter().copied());
            }
            Change::Remove(at, count) => {
                let at = at.index(len);
                bytes.drain(at..len.min(at + usize::from(*count)));
            }
            Change::Repeat(at, count) => {
                let at = at.index(len);
                let piece = bytes[at..len.min(at + usize::from(*count))].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
    bytes
}

/// What is stored of an established pair, and the next message to the second one.
struct Scene {
    session: Vec<u8>,
    local: Vec<u8>,
    message: Vec<u8>,
}

fn running() -> Scene {
    let (mut alice, mut bob) = pair(140);
    // Some turns, so that the ratchets carry chunks.
    for _ in 0..4 {
        let message = alice.send(b"ping");
        bob.receive(&message).unwrap();
        let message = bob.send(b"pong");
        alice.receive(&message).unwrap();
    }
    let message = alice.send(b"genuine").into_bytes();
    let (session, local) = bob.stored();
    Scene { session, local, message }
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 200, ..ProptestConfig::default() }
}

#[test]
fn ses_07_altered_messages_leave_a_running_session_unharmed() {
    let scene = running();
    let mut runner = proptest::test_runner::TestRunner::new(cases(4_000));
    let outcome = runner.run(&vec(change(), 1..6), |changes| {
        let message = altered(&scene.message, &changes);
        prop_assume!(message != scene.message);
        let mut bob = Side {
            local: LocalIdentity::import(&scene.local).unwrap(),
            session: Session::import(&scene.session).unwrap(),
            rng: rng(141),
        };
        let error = bob.receive_bytes(&message).expect_err("an altered message is never accepted");
        prop_assert_ne!(error, SessionError::Panicked);
        prop_assert!(bob.stored() == (scene.session.clone(), scene.local.clone()));
        Ok(())
    });
    outcome.unwrap();
    let mut bob = Side {
        local: LocalIdentity::import(&scene.local).unwrap(),
        session: Session::import(&scene.session).unwrap(),
        rng: rng(141),
    };
    assert_eq!(bob.receive_bytes(&scene.message).unwrap(), b"genuine");
}

#[test]
fn ses_07_altered_first_messages_leave_the_identity_unharmed() {
    let (inviter, mut joiner) = begun(142, BundleUse::Once);
    let genuine = joiner.send(b"genuine").into_bytes();
    let stored = inviter.export().unwrap();
    let mut runner = proptest::test_runner::TestRunner::new(cases(2_000));
    let outcome = runner.run(&vec(change(), 1..6), |changes| {
        let message = altered(&genuine, &changes);
        prop_assume!(message != genuine);
        let mut inviter = LocalIdentity::import(stored.expose()).unwrap();
        match accept_first(&mut inviter, None, &message, CONTEXT, &mut rng(143)) {
            // The registration id is under no MAC and means nothing to us.
            Ok(accepted) => prop_assert_eq!(accepted.plaintext.expose(), b"genuine"),
            Err(error) => {
                prop_assert_ne!(error, SessionError::Panicked);
                prop_assert!(inviter.export().unwrap().expose() == stored.expose());
            }
        }
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn altered_stored_states_are_refused_or_contained() {
    let scene = running();
    let mut runner = proptest::test_runner::TestRunner::new(cases(1_000));
    let outcome = runner.run(&(vec(change(), 1..3), any::<bool>()), |(changes, session_side)| {
        if session_side {
            if let Ok(mut session) = Session::import(&altered(&scene.session, &changes)) {
                let mut local = LocalIdentity::import(&scene.local).unwrap();
                let before = session.export().unwrap();
                if session.decrypt(&mut local, &scene.message, CONTEXT, &mut rng(144)).is_err() {
                    prop_assert!(session.export().unwrap().expose() == before.expose());
                }
            }
        } else if let Ok(local) = LocalIdentity::import(&altered(&scene.local, &changes)) {
            prop_assert!(LocalIdentity::import(local.export().unwrap().expose()).is_ok());
        }
        Ok(())
    });
    outcome.unwrap();
}
