//! Inputs that crash, slow down or weaken the pinned libsignal: each with a control that shows it would, and the
//! proof that the door refuses it and nothing changes.

use std::panic::{AssertUnwindSafe, catch_unwind};

use lapwing_protocol::session::{
    BundleUse, LocalIdentity, MAX_MESSAGE, Session, SessionError, accept_first, claimed_sender,
};
use libsignal_protocol as signal;

use crate::support::{
    CONTEXT, CURRENT_SESSION, PQ_RATCHET_STATE, Raw, Side, begun, forged, fresh_key, pair, private_key,
    record_of, rng, wire, with_field,
};

/// `pq_ratchet` fields that the pinned decoder must never see, and the answer.
fn bad_fields() -> Vec<(&'static str, Vec<u8>, SessionError)> {
    let chunk = [7_u8; 32];
    vec![
        ("three bytes: index out of bounds", vec![1, 1, 0], SessionError::Malformed),
        ("empty: downgrade", vec![], SessionError::Downgrade),
        ("version 0", vec![0, 1, 0, 0], SessionError::Downgrade),
        ("version 2: would be ignored", vec![2, 1, 0, 0], SessionError::Downgrade),
        ("epoch 0: underflow", vec![1, 0, 0, 0], SessionError::Malformed),
        (
            "overlong epoch: shift overflow",
            [&[1], &[0x80; 12][..], &[1, 0, 0]].concat(),
            SessionError::Malformed,
        ),
        ("overlong index", [&[1, 1], &[0x80; 12][..], &[1, 0]].concat(), SessionError::Malformed),
        (
            "overlong chunk index",
            [&[1, 1, 0, 1], &[0x80; 12][..], &[1], &chunk].concat(),
            SessionError::Malformed,
        ),
        ("index above 32 bits", vec![1, 1, 0x80, 0x80, 0x80, 0x80, 0x10, 0], SessionError::Malformed),
        (
            "chunk index above 16 bits",
            [&[1, 1, 0, 1, 0x80, 0x80, 0x04], &chunk[..]].concat(),
            SessionError::Malformed,
        ),
        ("chunk cut short", [&[1, 1, 0, 5, 0], &chunk[1..]].concat(), SessionError::Malformed),
        ("unknown type", vec![1, 1, 0, 7], SessionError::Malformed),
        ("only a version", vec![1], SessionError::Malformed),
        ("bytes after the end", vec![1, 1, 0, 0, 0], SessionError::Malformed),
    ]
}

fn whisper(message: signal::SignalMessage) -> Vec<u8> {
    wire(&signal::CiphertextMessage::SignalMessage(message))
}

/// The parts of an honest first message, to be put together differently.
fn taken_apart(message: &[u8]) -> signal::PreKeySignalMessage {
    signal::PreKeySignalMessage::try_from(&message[1..]).unwrap()
}

struct Changed {
    version: u8,
    base: signal::PublicKey,
    identity: signal::IdentityKey,
    kyber: Option<Vec<u8>>,
    message: signal::SignalMessage,
}

impl Changed {
    fn of(first: &signal::PreKeySignalMessage) -> Self {
        Self {
            version: 4,
            base: *first.base_key(),
            identity: *first.identity_key(),
            kyber: first.kyber_ciphertext().map(|ciphertext| ciphertext.to_vec()),
            message: first.message().clone(),
        }
    }

    fn wire(self, first: &signal::PreKeySignalMessage) -> Vec<u8> {
        let payload = first
            .kyber_pre_key_id()
            .zip(self.kyber)
            .map(|(id, ciphertext)| signal::KyberPayload::new(id, ciphertext.into()));
        let message = signal::PreKeySignalMessage::new(
            self.version,
            first.registration_id(),
            first.pre_key_id(),
            first.signed_pre_key_id(),
            payload,
            self.base,
            self.identity,
            self.message,
        )
        .unwrap();
        wire(&signal::CiphertextMessage::PreKeySignalMessage(message))
    }
}

/// A first message is refused with `error`, and the inviter's stored state stays as it is.
#[track_caller]
fn first_refused(inviter: &mut LocalIdentity, message: &[u8], error: SessionError) {
    let before = inviter.export().unwrap();
    let refused = accept_first(inviter, None, message, CONTEXT, &mut rng(99));
    assert_eq!(refused.err(), Some(error));
    assert_eq!(inviter.export().unwrap().expose(), before.expose());
}

#[test]
fn control_the_pinned_libsignal_panics_on_three_bytes() {
    let (alice, bob) = pair(110);
    let mut raw = Raw::with_session(&bob, 111);
    let message = forged(fresh_key(112), 0, &[1, 1, 0], &alice.session);
    let outcome = catch_unwind(AssertUnwindSafe(|| raw.decrypt(&message)));
    assert!(outcome.is_err(), "the pin no longer panics: see docs/decisions/0001 before relaxing the guard");
}

#[test]
fn ses_03_bad_post_quantum_fields_are_refused_in_a_running_session() {
    let (mut alice, mut bob) = pair(113);
    for (what, field, error) in bad_fields() {
        let message = whisper(forged(fresh_key(114), 0, &field, &alice.session));
        assert_eq!(claimed_sender(&message), Err(error), "{what}");
        bob.refuses(&message, error);
    }
    let honest = alice.send(b"still fine");
    assert_eq!(bob.receive(&honest).unwrap(), b"still fine");
}

#[test]
fn ses_03_bad_post_quantum_fields_are_refused_inside_a_first_message() {
    let (mut inviter, mut joiner) = begun(115, BundleUse::Once);
    let honest = joiner.send(b"hello").into_bytes();
    let first = taken_apart(&honest);
    for (what, field, error) in bad_fields() {
        let inner = forged(*first.message().sender_ratchet_key(), 0, &field, &joiner.session);
        let message = Changed { message: inner, ..Changed::of(&first) }.wire(&first);
        assert_eq!(claimed_sender(&message), Err(error), "{what}");
        first_refused(&mut inviter, &message, error);
    }
    assert!(accept_first(&mut inviter, None, &honest, CONTEXT, &mut rng(116)).is_ok());
}

#[test]
fn ses_03_a_peer_who_drops_the_post_quantum_ratchet_is_refused_though_libsignal_would_agree() {
    // The peer's software, changed to send without the ratchet: every MAC is valid.
    let stripped = |side: &Side| {
        with_field(&record_of(&side.session), CURRENT_SESSION, |session| {
            Some(with_field(session, PQ_RATCHET_STATE, |_| None))
        })
    };
    let (mut inviter, joiner) = begun(117, BundleUse::Once);
    let mut peer = Raw::with_session(&joiner, 118);
    peer.replace_record(&stripped(&joiner));
    let message = peer.encrypt(b"no ratchet");
    let signal::CiphertextMessage::PreKeySignalMessage(first) = &message else { panic!("a first message") };
    assert!(first.message().pq_ratchet().is_empty());

    // Control: libsignal by itself accepts the same message with the same pre-keys.
    let mut control = Raw::new(private_key(&inviter), 119);
    lend_pre_keys(&inviter, &mut control);
    let store = &mut control.store;
    let accepted = crate::support::run(signal::message_decrypt_prekey(
        first,
        &control.peer,
        &mut store.session_store,
        &mut store.identity_store,
        &mut store.pre_key_store,
        &store.signed_pre_key_store,
        &mut store.kyber_pre_key_store,
        &mut control.rng,
    ));
    // The plaintext has no frame of ours, but libsignal hands it out.
    assert_eq!(accepted.unwrap(), b"no ratchet");

    first_refused(&mut inviter, &wire(&message), SessionError::Downgrade);
    // Nor is such a record ever read back.
    let stored = crate::support::edited(joiner.session.export().unwrap().expose(), "rec", |record| {
        *record = ciborium::Value::Bytes(stripped(&joiner));
    });
    assert_eq!(Session::import(&stored).err(), Some(SessionError::DamagedRecord));
}

/// Copies the pre-keys of `local` into libsignal's own stores.
fn lend_pre_keys(local: &LocalIdentity, raw: &mut Raw) {
    use crate::support::{field, run};
    use signal::{GenericSignedPreKey as _, KyberPreKeyStore as _, PreKeyStore as _, SignedPreKeyStore as _};
    let stored: ciborium::Value = ciborium::from_reader(local.export().unwrap().expose()).unwrap();
    let set = &field(&stored, "sets").as_array().unwrap()[0];
    let bytes = |name: &str| field(set, name).as_bytes().unwrap().clone();
    let signed = signal::SignedPreKeyRecord::deserialize(&bytes("signed")).unwrap();
    let kyber = signal::KyberPreKeyRecord::deserialize(&bytes("kyber")).unwrap();
    let one_time = signal::PreKeyRecord::deserialize(&bytes("one")).unwrap();
    let store = &mut raw.store;
    run(store.signed_pre_key_store.save_signed_pre_key(signed.id().unwrap(), &signed)).unwrap();
    run(store.kyber_pre_key_store.save_kyber_pre_key(kyber.id().unwrap(), &kyber)).unwrap();
    run(store.pre_key_store.save_pre_key(one_time.id().unwrap(), &one_time)).unwrap();
}

#[test]
fn ses_04_counters_that_cost_seconds_are_refused_at_once() {
    let (mut alice, mut bob) = pair(120);
    let known = {
        let message = alice.send(b"known");
        bob.receive(&message).unwrap();
        let message = signal::SignalMessage::try_from(&message.as_bytes()[1..]).unwrap();
        *message.sender_ratchet_key()
    };
    for counter in [2_003, 25_000, u32::MAX] {
        for key in [known, fresh_key(121)] {
            let message = whisper(forged(key, counter, &[1, 1, 0, 0], &alice.session));
            bob.refuses(&message, SessionError::TooFarAhead);
        }
    }
    let (mut inviter, mut joiner) = begun(122, BundleUse::Once);
    let honest = joiner.send(b"hello").into_bytes();
    let first = taken_apart(&honest);
    let inner = forged(*first.message().sender_ratchet_key(), 25_000, &[1, 1, 0, 0], &joiner.session);
    let message = Changed { message: inner, ..Changed::of(&first) }.wire(&first);
    first_refused(&mut inviter, &message, SessionError::TooFarAhead);
}

#[test]
fn ses_05_low_order_keys_are_refused_wherever_they_appear() {
    let zero = signal::PublicKey::from_djb_public_key_bytes(&[0; 32]).unwrap();
    let (alice, mut bob) = pair(123);
    bob.refuses(&whisper(forged(zero, 0, &[1, 1, 0, 0], &alice.session)), SessionError::WeakKey);

    let (mut inviter, mut joiner) = begun(124, BundleUse::Once);
    let honest = joiner.send(b"hello").into_bytes();
    let first = taken_apart(&honest);
    let base = Changed { base: zero, ..Changed::of(&first) };
    let identity = Changed { identity: signal::IdentityKey::new(zero), ..Changed::of(&first) };
    let ratchet = forged(zero, 0, &[1, 1, 0, 0], &joiner.session);
    let ratchet = Changed { message: ratchet, ..Changed::of(&first) };
    for changed in [base, identity, ratchet] {
        first_refused(&mut inviter, &changed.wire(&first), SessionError::WeakKey);
    }
}

#[test]
fn ses_02_other_versions_and_padded_encodings_are_refused() {
    let (mut inviter, mut joiner) = begun(125, BundleUse::Once);
    let honest = joiner.send(b"hello").into_bytes();
    let first = taken_apart(&honest);
    assert_eq!(Changed::of(&first).wire(&first), honest);

    let version_3 = Changed { version: 3, ..Changed::of(&first) }.wire(&first);
    first_refused(&mut inviter, &version_3, SessionError::Malformed);
    let no_kyber = Changed { kyber: None, version: 3, ..Changed::of(&first) }.wire(&first);
    first_refused(&mut inviter, &no_kyber, SessionError::Malformed);
    for kyber in [vec![], vec![8], vec![8; 1570], vec![7; 1569]] {
        let message = Changed { kyber: Some(kyber), ..Changed::of(&first) }.wire(&first);
        first_refused(&mut inviter, &message, SessionError::Malformed);
    }
    // libsignal's parser takes the low half of the first byte for nothing.
    let mut low_half = honest.clone();
    low_half[1] = 0x43;
    first_refused(&mut inviter, &low_half, SessionError::Malformed);
    // A field nobody knows, and a key with a byte after it.
    first_refused(&mut inviter, &[&honest[..], &[0x78, 1]].concat(), SessionError::Malformed);
    let longer_key = with_field(&honest[2..], 2, |key| Some([key, &[0]].concat()));
    first_refused(&mut inviter, &[&honest[..2], &longer_key].concat(), SessionError::Malformed);
}

#[test]
fn ses_01_what_is_not_a_message_is_refused() {
    let (alice, mut bob) = pair(126);
    let honest = whisper(forged(fresh_key(127), 0, &[1, 1, 0, 0], &alice.session));
    let mut other_types: Vec<Vec<u8>> = (0..=255_u8).map(|kind| [&[kind], &honest[1..]].concat()).collect();
    other_types.retain(|message| message[0] != 2);
    for message in other_types {
        bob.refuses(&message, SessionError::Malformed);
    }
    for message in [&[][..], &[2], &[3], &[2, 0x44], &[3, 0x44], &honest[..20], &vec![2; MAX_MESSAGE + 1]] {
        bob.refuses(message, SessionError::Malformed);
    }
}

#[test]
fn ses_06_the_pinned_identity_is_checked_before_any_work() {
    let (mut inviter, mut joiner) = begun(128, BundleUse::Many);
    let first = joiner.send(b"hello").into_bytes();
    let accepted = accept_first(&mut inviter, None, &first, CONTEXT, &mut rng(129)).unwrap();
    let mut bob = Side { local: inviter, session: accepted.session, rng: rng(130) };
    let parts = taken_apart(&first);
    let other = signal::IdentityKey::new(fresh_key(131));
    let message = Changed { identity: other, ..Changed::of(&parts) }.wire(&parts);
    bob.refuses(&message, SessionError::UntrustedIdentity);
    // libsignal lifts its limits for a session with oneself.
    let own = crate::support::identity(bob.local.public());
    let reflected = Changed { identity: own, ..Changed::of(&parts) }.wire(&parts);
    first_refused(&mut bob.local, &reflected, SessionError::UntrustedIdentity);
}
