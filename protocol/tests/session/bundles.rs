//! Bundles: who may begin a session, how often, and with which keys.

use lapwing_protocol::session::{
    BundleIn, BundleUse, LocalIdentity, MAX_BUNDLE, MAX_BUNDLE_USES, MAX_OPEN_BUNDLES, Session, SessionError,
    accept_first,
};
use libsignal_protocol as signal;

use crate::support::{CONTEXT, Side, edited, field_mut, now, private_key, rng};

fn bundle_of(local: &mut LocalIdentity, uses: BundleUse, seed: u8) -> Vec<u8> {
    local.new_bundle(uses, now(), &mut rng(seed)).unwrap().encode().unwrap()
}

fn verified(bytes: &[u8]) -> Result<lapwing_protocol::session::Bundle, SessionError> {
    BundleIn::decode(bytes).and_then(BundleIn::verify)
}

/// A newcomer's first message to the owner of `bundle`.
fn first_message(bundle: &[u8], seed: u8) -> Vec<u8> {
    let mut rng = rng(seed);
    let local = LocalIdentity::generate(&mut rng).unwrap();
    let mut session = Session::initiate(&local, &verified(bundle).unwrap(), now(), &mut rng).unwrap();
    session.encrypt(b"hi", CONTEXT, now(), &mut rng).unwrap().into_bytes()
}

#[test]
fn ses_09_a_one_time_bundle_opens_one_session() {
    let mut owner = LocalIdentity::generate(&mut rng(20)).unwrap();
    let bundle = bundle_of(&mut owner, BundleUse::Once, 21);
    let (one, two) = (first_message(&bundle, 22), first_message(&bundle, 23));
    assert!(accept_first(&mut owner, None, &one, CONTEXT, &mut rng(24)).is_ok());
    assert_eq!(owner.open_bundles(), 0);
    for message in [&one, &two] {
        let refused = accept_first(&mut owner, None, message, CONTEXT, &mut rng(25));
        assert_eq!(refused.err(), Some(SessionError::NoPreKeys));
    }
}

#[test]
fn ses_09_a_reusable_bundle_opens_many_sessions_but_each_first_message_only_once() {
    let mut owner = LocalIdentity::generate(&mut rng(26)).unwrap();
    let bundle = bundle_of(&mut owner, BundleUse::Many, 27);
    for peer in 0..5 {
        let message = first_message(&bundle, 30 + peer);
        let accepted = accept_first(&mut owner, None, &message, CONTEXT, &mut rng(28)).unwrap();
        assert_eq!(accepted.plaintext.expose(), b"hi");
        let before = owner.export().unwrap();
        let replay = accept_first(&mut owner, None, &message, CONTEXT, &mut rng(28));
        assert_eq!(replay.err(), Some(SessionError::Duplicate));
        assert_eq!(owner.export().unwrap().expose(), before.expose());
        owner = LocalIdentity::import(before.expose()).unwrap();
    }
    let bundle_in = verified(&bundle).unwrap();
    assert!(owner.retire_bundle(&bundle_in));
    assert!(!owner.retire_bundle(&bundle_in));
    let late = accept_first(&mut owner, None, &first_message(&bundle, 40), CONTEXT, &mut rng(28));
    assert_eq!(late.err(), Some(SessionError::NoPreKeys));
}

#[test]
fn ses_09_a_reusable_bundle_is_used_up_after_its_bound() {
    let mut owner = LocalIdentity::generate(&mut rng(41)).unwrap();
    let bundle = bundle_of(&mut owner, BundleUse::Many, 42);
    let used = |uses: usize| {
        let stored = edited(owner.export().unwrap().expose(), "sets", |sets| {
            let seen = (0..uses).map(|n| {
                let mut base = [0xEE; 32];
                base[..8].copy_from_slice(&(n as u64).to_be_bytes());
                ciborium::Value::Bytes(base.to_vec())
            });
            *field_mut(&mut sets.as_array_mut().unwrap()[0], "seen") = ciborium::Value::Array(seen.collect());
        });
        LocalIdentity::import(&stored)
    };
    let message = first_message(&bundle, 43);
    let mut last = used(MAX_BUNDLE_USES - 1).unwrap();
    assert!(accept_first(&mut last, None, &message, CONTEXT, &mut rng(44)).is_ok());
    assert!(LocalIdentity::import(last.export().unwrap().expose()).is_ok());
    let refused = accept_first(&mut last, None, &first_message(&bundle, 45), CONTEXT, &mut rng(44));
    assert_eq!(refused.err(), Some(SessionError::NoPreKeys));
    assert_eq!(used(MAX_BUNDLE_USES + 1).err(), Some(SessionError::DamagedRecord));
}

#[test]
fn ses_09_a_handshake_that_leaves_out_the_one_time_key_is_refused() {
    let mut inviter = LocalIdentity::generate(&mut rng(46)).unwrap();
    let bundle = bundle_of(&mut inviter, BundleUse::Once, 47);
    let without = edited(&bundle, "opk", |opk| *opk = ciborium::Value::Null);
    let local = LocalIdentity::generate(&mut rng(48)).unwrap();
    let mut session = Session::initiate(&local, &verified(&without).unwrap(), now(), &mut rng(49)).unwrap();
    let message = session.encrypt(b"weak", CONTEXT, now(), &mut rng(50)).unwrap();
    let before = inviter.export().unwrap();
    let refused = accept_first(&mut inviter, None, message.as_bytes(), CONTEXT, &mut rng(51));
    assert_eq!(refused.err(), Some(SessionError::NoPreKeys));
    assert_eq!(inviter.export().unwrap().expose(), before.expose());
}

#[test]
fn ses_10_one_peer_cannot_pile_up_handshakes_in_a_session() {
    let mut owner = LocalIdentity::generate(&mut rng(52)).unwrap();
    let bundle = bundle_of(&mut owner, BundleUse::Many, 53);
    let mut peer_rng = rng(54);
    let peer = LocalIdentity::generate(&mut peer_rng).unwrap();
    let mut handshake = || {
        let bundle = verified(&bundle).unwrap();
        let mut session = Session::initiate(&peer, &bundle, now(), &mut peer_rng).unwrap();
        session.encrypt(b"again", CONTEXT, now(), &mut peer_rng).unwrap()
    };
    let accepted = accept_first(&mut owner, None, handshake().as_bytes(), CONTEXT, &mut rng(55)).unwrap();
    let mut side = Side { local: owner, session: accepted.session, rng: rng(56) };
    for _ in 0..3 {
        assert_eq!(side.receive(&handshake()).unwrap(), b"again");
        side.reopen();
    }
    let fifth = handshake();
    side.refuses(fifth.as_bytes(), SessionError::TooManyHandshakes);
}

#[test]
fn ses_09_a_session_and_an_identity_from_different_times_are_noticed() {
    let mut owner = LocalIdentity::generate(&mut rng(90)).unwrap();
    let bundle = bundle_of(&mut owner, BundleUse::Many, 91);
    let before = owner.export().unwrap();
    let mut peer_rng = rng(92);
    let peer = LocalIdentity::generate(&mut peer_rng).unwrap();
    let mut session = Session::initiate(&peer, &verified(&bundle).unwrap(), now(), &mut peer_rng).unwrap();
    let mut first = || session.encrypt(b"hi", CONTEXT, now(), &mut peer_rng).unwrap();
    let accepted = accept_first(&mut owner, None, first().as_bytes(), CONTEXT, &mut rng(93)).unwrap();
    // The session forgets the handshake that libsignal's record has, the identity that it was accepted.
    let forgetful = edited(accepted.session.export().unwrap().expose(), "hand", |hand| {
        *hand = ciborium::Value::Array(Vec::new());
    });
    let session = Session::import(&forgetful).unwrap();
    let mut side = Side { local: LocalIdentity::import(before.expose()).unwrap(), session, rng: rng(94) };
    side.refuses(first().as_bytes(), SessionError::DamagedRecord);
}

#[test]
fn ses_06_nobody_else_can_begin_a_handshake_in_a_session() {
    let mut owner = LocalIdentity::generate(&mut rng(57)).unwrap();
    let bundle = bundle_of(&mut owner, BundleUse::Many, 58);
    let accepted =
        accept_first(&mut owner, None, &first_message(&bundle, 59), CONTEXT, &mut rng(60)).unwrap();
    let peer = *accepted.session.peer();
    let mut side = Side { local: owner, session: accepted.session, rng: rng(61) };
    let intruder = first_message(&bundle, 62);
    side.refuses(&intruder, SessionError::UntrustedIdentity);
    let refused = accept_first(&mut side.local, Some(&peer), &intruder, CONTEXT, &mut rng(63));
    assert_eq!(refused.err(), Some(SessionError::UntrustedIdentity));
    assert!(accept_first(&mut side.local, None, &intruder, CONTEXT, &mut rng(63)).is_ok());
}

#[test]
fn ses_06_a_session_with_oneself_is_refused() {
    let mut owner = LocalIdentity::generate(&mut rng(64)).unwrap();
    let bundle = bundle_of(&mut owner, BundleUse::Once, 65);
    let refused = Session::initiate(&owner, &verified(&bundle).unwrap(), now(), &mut rng(66));
    assert_eq!(refused.err(), Some(SessionError::UntrustedIdentity));
}

#[test]
fn open_bundles_are_bounded() {
    let mut owner = LocalIdentity::generate(&mut rng(67)).unwrap();
    for n in 0..MAX_OPEN_BUNDLES {
        bundle_of(&mut owner, BundleUse::Once, 70 + n as u8);
    }
    let one_more = owner.new_bundle(BundleUse::Once, now(), &mut rng(68));
    assert_eq!(one_more.err(), Some(SessionError::TooManyBundles));
    assert!(LocalIdentity::import(owner.export().unwrap().expose()).is_ok());
    owner.retire_all_bundles();
    assert_eq!(owner.open_bundles(), 0);
}

#[test]
fn ses_05_weak_keys_in_a_bundle_are_refused_even_when_signed() {
    let mut owner = LocalIdentity::generate(&mut rng(80)).unwrap();
    let bundle = bundle_of(&mut owner, BundleUse::Once, 81);
    let key = private_key(&owner);
    let mut low_order = [0; 32];
    for first in [0, 1] {
        low_order[0] = first;
        let point = signal::PublicKey::from_djb_public_key_bytes(&low_order).unwrap();
        let signature = key.calculate_signature(&point.serialize(), &mut rng(82)).unwrap();
        let signed = edited(&bundle, "spk", |spk| *spk = ciborium::Value::Bytes(low_order.to_vec()));
        let signed = edited(&signed, "sps", |sps| *sps = ciborium::Value::Bytes(signature.to_vec()));
        assert_eq!(verified(&signed).err(), Some(SessionError::WeakKey));
        for name in ["opk", "id"] {
            let weak = edited(&bundle, name, |value| *value = ciborium::Value::Bytes(low_order.to_vec()));
            assert_eq!(verified(&weak).err(), Some(SessionError::WeakKey), "{name}");
        }
    }
}

#[test]
fn a_bundle_with_another_identity_or_altered_keys_is_refused() {
    let mut owner = LocalIdentity::generate(&mut rng(83)).unwrap();
    let bundle = bundle_of(&mut owner, BundleUse::Once, 84);
    let other = LocalIdentity::generate(&mut rng(85)).unwrap();
    let swapped = edited(&bundle, "id", |id| {
        *id = ciborium::Value::Bytes(other.public().as_bytes().to_vec());
    });
    assert_eq!(verified(&swapped).err(), Some(SessionError::BadSignature));
    for name in ["sps", "kps", "kpk"] {
        let altered = edited(&bundle, name, |value| {
            let ciborium::Value::Bytes(bytes) = value else { panic!("bytes") };
            bytes[40] ^= 1;
        });
        assert_eq!(verified(&altered).err(), Some(SessionError::BadSignature), "{name}");
    }
    let other_kem = edited(&bundle, "kpk", |value| {
        let ciborium::Value::Bytes(bytes) = value else { panic!("bytes") };
        bytes[0] = 7;
    });
    assert_eq!(verified(&other_kem).err(), Some(SessionError::Malformed));
}

#[test]
fn ses_01_bundles_are_bounded_and_versioned_and_may_gain_fields() {
    let mut owner = LocalIdentity::generate(&mut rng(86)).unwrap();
    let bundle = bundle_of(&mut owner, BundleUse::Once, 87);
    let malformed = |bytes: &[u8]| assert_eq!(verified(bytes).err(), Some(SessionError::Malformed));
    malformed(&[]);
    malformed(&bundle[..bundle.len() - 1]);
    malformed(&[&bundle[..], &[0]].concat());
    malformed(&vec![0xA0; MAX_BUNDLE + 1]);
    malformed(&edited(&bundle, "v", |v| *v = 2.into()));
    malformed(&edited(&bundle, "set", |set| *set = 0.into()));
    malformed(&edited(&bundle, "set", |set| *set = 0x0100_0000.into()));
    malformed(&edited(&bundle, "reg", |reg| *reg = 0.into()));
    malformed(&edited(&bundle, "kpk", |key| *key = ciborium::Value::Bytes(vec![8; 100])));

    let mut value: ciborium::Value = ciborium::from_reader(&bundle[..]).unwrap();
    value.as_map_mut().unwrap().push(("later".into(), "unknown".into()));
    let mut extended = Vec::new();
    ciborium::into_writer(&value, &mut extended).unwrap();
    assert_eq!(verified(&extended).unwrap().identity(), owner.public());
}
