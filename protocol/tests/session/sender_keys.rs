//! Sender keys: one message for everybody who holds the distribution.

use lapwing_protocol::session::{
    Context, DistributionId, LocalIdentity, MAX_DISTRIBUTION, MAX_MESSAGE, MAX_PLAINTEXT,
    MAX_SENDER_KEY_MESSAGES, OwnSenderKey, PeerSenderKey, SessionError, distribution_of,
};
use libsignal_protocol as signal;
use proptest::prelude::*;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha20Rng;

use crate::support::{CONTEXT, edited, rng};

struct Author {
    identity: LocalIdentity,
    key: OwnSenderKey,
    rng: ChaCha20Rng,
}

impl Author {
    fn new(seed: u8) -> Self {
        let mut rng = rng(seed);
        let identity = LocalIdentity::generate(&mut rng).unwrap();
        let key = OwnSenderKey::generate(identity.public(), &mut rng).unwrap();
        Self { identity, key, rng }
    }

    fn say(&mut self, text: &[u8]) -> Vec<u8> {
        self.key.encrypt(text, CONTEXT, &mut self.rng).unwrap().into_bytes()
    }

    fn reader(&mut self) -> PeerSenderKey {
        let distribution = self.key.distribution(&mut self.rng).unwrap();
        PeerSenderKey::accept(self.identity.public(), distribution.expose()).unwrap()
    }
}

#[track_caller]
fn refuses(reader: &mut PeerSenderKey, message: &[u8], error: SessionError) {
    let before = reader.export().unwrap();
    assert_eq!(reader.decrypt(message, CONTEXT).err(), Some(error));
    assert_eq!(reader.export().unwrap().expose(), before.expose());
}

fn opened(reader: &mut PeerSenderKey, message: &[u8]) -> Result<Vec<u8>, SessionError> {
    reader.decrypt(message, CONTEXT).map(|text| text.expose().to_vec())
}

#[test]
fn all_readers_open_one_message_in_any_order_and_once() {
    let mut author = Author::new(160);
    let mut readers = [author.reader(), author.reader(), author.reader()];
    let mut messages: Vec<_> = (0..200_u8).map(|n| (n, author.say(&[n]))).collect();
    for (i, reader) in readers.iter_mut().enumerate() {
        messages.shuffle(&mut rng(161 + i as u8));
        for (n, message) in &messages {
            assert_eq!(distribution_of(message).unwrap(), reader.distribution_id());
            assert_eq!(opened(reader, message).unwrap(), [*n]);
        }
        refuses(reader, &messages[0].1, SessionError::Duplicate);
        assert_eq!(reader.author(), author.identity.public());
    }
}

#[test]
fn keys_survive_storing_after_every_step() {
    let mut author = Author::new(164);
    let mut reader = author.reader();
    for n in 0..100_u8 {
        let stored = author.key.export().unwrap();
        author.key = OwnSenderKey::import(stored.expose()).unwrap();
        assert_eq!(author.key.export().unwrap().expose(), stored.expose());
        assert_eq!(author.key.sent(), u32::from(n));
        let message = author.say(&[n]);
        let stored = reader.export().unwrap();
        reader = PeerSenderKey::import(stored.expose()).unwrap();
        assert_eq!(reader.export().unwrap().expose(), stored.expose());
        if n % 3 != 0 {
            assert_eq!(opened(&mut reader, &message).unwrap(), [n]);
        }
    }
    let (own, peer) = (author.key.export().unwrap(), reader.export().unwrap());
    assert!(OwnSenderKey::import(peer.expose()).is_err());
    assert!(PeerSenderKey::import(own.expose()).is_err());
    assert!(PeerSenderKey::import(&edited(peer.expose(), "v", |v| *v = 2.into())).is_err());
    assert!(OwnSenderKey::import(&edited(own.expose(), "sent", |v| *v = 2_001.into())).is_err());
    assert_eq!(format!("{:?} {:?}", author.key, reader), "OwnSenderKey(..) PeerSenderKey(..)");
}

#[test]
fn a_late_member_reads_nothing_older() {
    let mut author = Author::new(165);
    let before = author.say(b"before");
    let mut late = author.reader();
    refuses(&mut late, &before, SessionError::Duplicate);
    assert_eq!(opened(&mut late, &author.say(b"after")).unwrap(), b"after");
}

#[test]
fn ses_11_a_rotated_key_is_another_key() {
    let mut author = Author::new(166);
    let mut removed = author.reader();
    author.key = OwnSenderKey::generate(author.identity.public(), &mut author.rng).unwrap();
    assert_ne!(author.key.distribution_id(), removed.distribution_id());
    let message = author.say(b"without the removed member");
    refuses(&mut removed, &message, SessionError::Undecryptable);
    assert_eq!(opened(&mut author.reader(), &author.say(b"next")).unwrap(), b"next");
}

#[test]
fn ses_11_a_key_ends_after_its_bound_and_the_last_message_is_within_everybodys_reach() {
    let mut author = Author::new(167);
    let mut reader = author.reader();
    for _ in 1..MAX_SENDER_KEY_MESSAGES {
        author.say(b"lost");
    }
    let last = author.say(b"last");
    let before = author.key.export().unwrap();
    let over = author.key.encrypt(b"over", CONTEXT, &mut author.rng);
    assert_eq!(over, Err(SessionError::SenderKeyUsedUp));
    assert_eq!(author.key.export().unwrap().expose(), before.expose());
    assert_eq!(opened(&mut reader, &last).unwrap(), b"last");
    assert!(PeerSenderKey::import(reader.export().unwrap().expose()).is_ok());
}

#[test]
fn ses_11_iterations_beyond_the_bound_are_refused_before_any_signature_is_checked() {
    let mut author = Author::new(168);
    let mut reader = author.reader();
    let genuine = signal::SenderKeyMessage::try_from(&author.say(b"x")[1..]).unwrap();
    let any_key = signal::KeyPair::generate(&mut rng(169)).private_key;
    for iteration in [MAX_SENDER_KEY_MESSAGES, 25_000, u32::MAX] {
        let forged = signal::SenderKeyMessage::new(
            3,
            genuine.distribution_id(),
            genuine.chain_id(),
            iteration,
            vec![0; 32].into(),
            &mut rng(170),
            &any_key,
        )
        .unwrap();
        refuses(&mut reader, &[&[7], forged.serialized()].concat(), SessionError::TooFarAhead);
    }
}

#[test]
fn a_member_cannot_speak_for_another() {
    let mut author = Author::new(171);
    let mut reader = author.reader();
    let genuine = signal::SenderKeyMessage::try_from(&author.say(b"x")[1..]).unwrap();
    // A member knows the chain key, but not the signing key.
    let other_key = signal::KeyPair::generate(&mut rng(172)).private_key;
    let forged = signal::SenderKeyMessage::new(
        3,
        genuine.distribution_id(),
        genuine.chain_id(),
        genuine.iteration(),
        genuine.ciphertext().into(),
        &mut rng(173),
        &other_key,
    )
    .unwrap();
    refuses(&mut reader, &[&[7], forged.serialized()].concat(), SessionError::BadSignature);
}

#[test]
fn ses_08_a_group_message_is_bound_to_author_and_context() {
    let mut author = Author::new(174);
    let mut reader = author.reader();
    let elsewhere = author.key.encrypt(b"x", Context::new(b"other group"), &mut author.rng).unwrap();
    refuses(&mut reader, elsewhere.as_bytes(), SessionError::WrongContext);
    // Somebody passes the author's distribution on as their own.
    let thief = LocalIdentity::generate(&mut rng(175)).unwrap();
    let distribution = author.key.distribution(&mut author.rng).unwrap();
    let mut stolen = PeerSenderKey::accept(thief.public(), distribution.expose()).unwrap();
    refuses(&mut stolen, &author.say(b"y"), SessionError::WrongContext);
}

#[test]
fn bad_distributions_are_refused() {
    let author = Author::new(176);
    let public = author.identity.public();
    let distribution = author.key.distribution(&mut rng(177)).unwrap();
    let refused = |bytes: &[u8], error| assert_eq!(PeerSenderKey::accept(public, bytes).err(), Some(error));
    refused(&[], SessionError::Malformed);
    refused(&distribution.expose()[..distribution.expose().len() - 1], SessionError::Malformed);
    refused(&[distribution.expose(), &[0; MAX_DISTRIBUTION]].concat(), SessionError::Malformed);
    let mut other_version = distribution.expose().to_vec();
    other_version[0] = 0x43;
    refused(&other_version, SessionError::Malformed);

    let with = |iteration, key: [u8; 32]| {
        let key = signal::PublicKey::from_djb_public_key_bytes(&key).unwrap();
        let id = uuid::Uuid::from_bytes([1; 16]);
        signal::SenderKeyDistributionMessage::new(3, id, 1, iteration, vec![2; 32], key).unwrap()
    };
    let good = *public.as_bytes();
    assert!(PeerSenderKey::accept(public, with(MAX_SENDER_KEY_MESSAGES, good).serialized()).is_ok());
    refused(with(MAX_SENDER_KEY_MESSAGES + 1, good).serialized(), SessionError::TooFarAhead);
    refused(with(0, [0; 32]).serialized(), SessionError::WeakKey);
}

#[test]
fn messages_are_bounded() {
    let mut author = Author::new(178);
    let mut reader = author.reader();
    let long = vec![7; MAX_PLAINTEXT];
    let message = author.say(&long);
    assert!(message.len() < MAX_MESSAGE - 512);
    assert_eq!(opened(&mut reader, &message).unwrap(), long);
    let longer = author.key.encrypt(&[&long[..], &[0]].concat(), CONTEXT, &mut author.rng);
    assert_eq!(longer, Err(SessionError::TooLong));
    refuses(&mut reader, &[], SessionError::Malformed);
    refuses(&mut reader, &vec![7; MAX_MESSAGE + 1], SessionError::Malformed);
    for kind in (0..=255_u8).filter(|kind| *kind != 7) {
        refuses(&mut reader, &[&[kind], &message[1..]].concat(), SessionError::Malformed);
    }
    assert_eq!(distribution_of(&[7, 0x33]), Err::<DistributionId, _>(SessionError::Malformed));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ses_07_altered_messages_are_refused_and_change_nothing(at in any::<prop::sample::Index>(), bits in 1..=255_u8, cut in 0..3_usize) {
        let mut author = Author::new(179);
        let mut reader = author.reader();
        let genuine = author.say(b"genuine");
        let mut message = genuine.clone();
        message.truncate(genuine.len() - cut);
        let at = at.index(message.len());
        message[at] ^= bits;
        let before = reader.export().unwrap();
        let error = reader.decrypt(&message, CONTEXT).expect_err("an altered message is never accepted");
        prop_assert_ne!(error, SessionError::Panicked);
        prop_assert!(reader.export().unwrap().expose() == before.expose());
        prop_assert_eq!(opened(&mut reader, &genuine).unwrap(), b"genuine");
    }
}
