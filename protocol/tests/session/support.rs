//! Two people, libsignal without our door as a control, and a knife for stored records.

use std::time::{Duration, SystemTime};

use lapwing_protocol::session::{
    BundleIn, BundleUse, Ciphertext, Context, LocalIdentity, Session, SessionError, accept_first,
};
use libsignal_protocol as signal;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

pub const CONTEXT: Context<'static> = Context::new(b"test");

pub fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

pub fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// One end of a conversation.
pub struct Side {
    pub local: LocalIdentity,
    pub session: Session,
    pub rng: ChaCha20Rng,
}

impl Side {
    pub fn send(&mut self, text: &[u8]) -> Ciphertext {
        self.session.encrypt(text, CONTEXT, now(), &mut self.rng).unwrap()
    }

    pub fn receive(&mut self, message: &Ciphertext) -> Result<Vec<u8>, SessionError> {
        self.receive_bytes(message.as_bytes())
    }

    pub fn receive_bytes(&mut self, message: &[u8]) -> Result<Vec<u8>, SessionError> {
        let plaintext = self.session.decrypt(&mut self.local, message, CONTEXT, &mut self.rng)?;
        Ok(plaintext.expose().to_vec())
    }

    /// Everything that is stored of this side.
    pub fn stored(&self) -> (Vec<u8>, Vec<u8>) {
        let session = self.session.export().unwrap().expose().to_vec();
        (session, self.local.export().unwrap().expose().to_vec())
    }

    /// Stores and reads back, as a client does between two operations.
    pub fn reopen(&mut self) {
        let (session, local) = self.stored();
        self.session = Session::import(&session).unwrap();
        self.local = LocalIdentity::import(&local).unwrap();
        assert_eq!(self.stored(), (session, local));
    }

    /// The message is refused with `error`, and nothing that is stored changes.
    #[track_caller]
    pub fn refuses(&mut self, message: &[u8], error: SessionError) {
        let before = self.stored();
        assert_eq!(self.receive_bytes(message), Err(error));
        assert!(self.stored() == before, "a refusal changed the stored state");
    }
}

/// An inviter's bundle, and a joiner who has begun a session with it.
pub fn begun(seed: u8, uses: BundleUse) -> (LocalIdentity, Side) {
    let mut rng = rng(seed);
    let mut inviter = LocalIdentity::generate(&mut rng).unwrap();
    let bundle = inviter.new_bundle(uses, now(), &mut rng).unwrap().encode().unwrap();
    let joiner = LocalIdentity::generate(&mut rng).unwrap();
    let bundle = BundleIn::decode(&bundle).unwrap().verify().unwrap();
    let session = Session::initiate(&joiner, &bundle, now(), &mut rng).unwrap();
    (inviter, Side { local: joiner, session, rng })
}

/// Joiner and inviter after the first message and its answer.
pub fn pair(seed: u8) -> (Side, Side) {
    let (mut inviter, mut joiner) = begun(seed, BundleUse::Once);
    let mut other = rng(seed.wrapping_add(100));
    let first = joiner.send(b"first");
    let accepted = accept_first(&mut inviter, None, first.as_bytes(), CONTEXT, &mut other).unwrap();
    assert_eq!(accepted.plaintext.expose(), b"first");
    let mut inviter = Side { local: inviter, session: accepted.session, rng: other };
    let answer = inviter.send(b"answer");
    assert_eq!(joiner.receive(&answer).unwrap(), b"answer");
    (joiner, inviter)
}

/// The private key of an identity, as libsignal's type.
pub fn private_key(local: &LocalIdentity) -> signal::PrivateKey {
    let stored: ciborium::Value = ciborium::from_reader(local.export().unwrap().expose()).unwrap();
    let key = field(&stored, "key").as_bytes().unwrap().clone();
    signal::PrivateKey::deserialize(&key).unwrap()
}

pub fn field<'a>(map: &'a ciborium::Value, name: &str) -> &'a ciborium::Value {
    map.as_map().unwrap().iter().find(|(key, _)| key.as_text() == Some(name)).map(|(_, value)| value).unwrap()
}

pub fn field_mut<'a>(map: &'a mut ciborium::Value, name: &str) -> &'a mut ciborium::Value {
    let entries = map.as_map_mut().unwrap();
    entries.iter_mut().find(|(key, _)| key.as_text() == Some(name)).map(|(_, value)| value).unwrap()
}

/// CBOR bytes with one field of the outermost map replaced.
pub fn edited(bytes: &[u8], name: &str, edit: impl FnOnce(&mut ciborium::Value)) -> Vec<u8> {
    let mut value: ciborium::Value = ciborium::from_reader(bytes).unwrap();
    edit(field_mut(&mut value, name));
    let mut out = Vec::new();
    ciborium::into_writer(&value, &mut out).unwrap();
    out
}

/// The libsignal record inside an exported session.
pub fn record_of(session: &Session) -> Vec<u8> {
    let stored: ciborium::Value = ciborium::from_reader(session.export().unwrap().expose()).unwrap();
    field(&stored, "rec").as_bytes().unwrap().clone()
}

/// Removes or replaces one length-delimited field of a protobuf message.
pub fn with_field(message: &[u8], number: u64, replace: impl Fn(&[u8]) -> Option<Vec<u8>>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = message;
    while !rest.is_empty() {
        let whole = rest;
        let (tag, after) = varint(rest);
        let (value, after) = match tag & 7 {
            0 => {
                let (_, after) = varint(after);
                (None, after)
            }
            1 => (None, &after[8..]),
            2 => {
                let (len, after) = varint(after);
                let (value, after) = after.split_at(len as usize);
                (Some(value), after)
            }
            _ => panic!("unexpected wire type"),
        };
        match value {
            Some(value) if tag >> 3 == number => {
                if let Some(new) = replace(value) {
                    put_varint(&mut out, tag);
                    put_varint(&mut out, new.len() as u64);
                    out.extend_from_slice(&new);
                }
            }
            _ => out.extend_from_slice(&whole[..whole.len() - after.len()]),
        }
        rest = after;
    }
    out
}

fn varint(bytes: &[u8]) -> (u64, &[u8]) {
    let mut value = 0;
    for (i, byte) in bytes.iter().enumerate() {
        value |= u64::from(byte & 0x7F) << (7 * i);
        if byte & 0x80 == 0 {
            return (value, &bytes[i + 1..]);
        }
    }
    panic!("varint without end");
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Field numbers of libsignal's `storage.proto`.
pub const CURRENT_SESSION: u64 = 1;
pub const PQ_RATCHET_STATE: u64 = 15;

/// libsignal without our door: one party with the pre-keys of `local`, or none.
pub struct Raw {
    pub store: signal::InMemSignalProtocolStore,
    pub peer: signal::ProtocolAddress,
    pub rng: ChaCha20Rng,
}

impl Raw {
    pub fn new(private: signal::PrivateKey, seed: u8) -> Self {
        let pair = signal::IdentityKeyPair::try_from(private).unwrap();
        Self {
            store: signal::InMemSignalProtocolStore::new(pair, 1).unwrap(),
            peer: signal::ProtocolAddress::new("peer".to_owned(), signal::DeviceId::new(1).unwrap()),
            rng: rng(seed),
        }
    }

    /// Takes over the session of `side`.
    pub fn with_session(side: &Side, seed: u8) -> Self {
        let mut raw = Self::new(private_key(&side.local), seed);
        raw.replace_record(&record_of(&side.session));
        raw
    }

    pub fn replace_record(&mut self, record: &[u8]) {
        use signal::SessionStore as _;
        let record = signal::SessionRecord::deserialize(record).unwrap();
        run(self.store.session_store.store_session(&self.peer, &record)).unwrap();
    }

    pub fn encrypt(&mut self, text: &[u8]) -> signal::CiphertextMessage {
        run(signal::message_encrypt(
            text,
            &self.peer,
            &mut self.store.session_store,
            &mut self.store.identity_store,
            now(),
            &mut self.rng,
        ))
        .unwrap()
    }

    pub fn decrypt(
        &mut self,
        message: &signal::SignalMessage,
    ) -> Result<Vec<u8>, signal::SignalProtocolError> {
        run(signal::message_decrypt_signal(
            message,
            &self.peer,
            &mut self.store.session_store,
            &mut self.store.identity_store,
            &mut self.rng,
        ))
    }
}

pub fn run<T>(future: impl Future<Output = T>) -> T {
    futures_util::FutureExt::now_or_never(future).expect("in-memory stores answer at once")
}

/// Our wire form of a libsignal message.
pub fn wire(message: &signal::CiphertextMessage) -> Vec<u8> {
    [&[message.message_type() as u8], message.serialize()].concat()
}

/// What a forger can make who knows identity keys only: a message with a random ratchet key and no valid MAC.
pub fn forged(
    ratchet: signal::PublicKey,
    counter: u32,
    pq_ratchet: &[u8],
    from: &Session,
) -> signal::SignalMessage {
    let own = identity(from.own());
    let peer = identity(from.peer());
    signal::SignalMessage::new(4, &[5; 32], ratchet, counter, 0, &[0x5A; 64], &own, &peer, pq_ratchet)
        .unwrap()
}

pub fn identity(key: &lapwing_protocol::identity::IdentityKey) -> signal::IdentityKey {
    signal::IdentityKey::new(signal::PublicKey::from_djb_public_key_bytes(key.as_bytes()).unwrap())
}

pub fn fresh_key(seed: u8) -> signal::PublicKey {
    signal::KeyPair::generate(&mut rng(seed)).public_key
}
