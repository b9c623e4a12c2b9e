//! Frozen bytes: what was written by the first version of each format is read forever.
//!
//! `sessions.json` was made once, from seeded generators, and is never made again: a change of format gets a new
//! version and new vectors beside these.

use std::collections::BTreeMap;

use lapwing_protocol::{
    identity::IdentityKey,
    labels::Label,
    session::{
        BundleIn, Context, LocalIdentity, OwnSenderKey, PeerSenderKey, SafetyNumber, Session, accept_first,
    },
    signing::Signature,
};

use crate::support::{now, rng};

const CONTEXT: Context<'static> = Context::new(b"vector context");
const LABEL: Label = Label::new("vector/1 label");

struct Vectors(BTreeMap<String, String>);

impl Vectors {
    fn load() -> Self {
        Self(serde_json::from_str(include_str!("../vectors/sessions.json")).unwrap())
    }

    fn text(&self, name: &str) -> &str {
        &self.0[name]
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        let hex = self.text(name);
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
    }
}

#[test]
fn identity_and_bundle_are_read_and_written_as_frozen() {
    let vectors = Vectors::load();
    let stored = vectors.bytes("local identity");
    let local = LocalIdentity::import(&stored).unwrap();
    assert_eq!(local.export().unwrap().expose(), stored);
    assert_eq!(local.open_bundles(), 2);
    assert_eq!(local.public().as_bytes()[..], vectors.bytes("identity key"));
    for name in ["bundle once", "bundle many"] {
        let bytes = vectors.bytes(name);
        let bundle = BundleIn::decode(&bytes).unwrap().verify().unwrap();
        assert_eq!(bundle.identity(), local.public());
        assert_eq!(bundle.encode().unwrap(), bytes);
    }
}

#[test]
fn a_frozen_first_message_is_accepted_by_the_frozen_identity() {
    let vectors = Vectors::load();
    let mut local = LocalIdentity::import(&vectors.bytes("local identity")).unwrap();
    let accepted =
        accept_first(&mut local, None, &vectors.bytes("first message"), CONTEXT, &mut rng(1)).unwrap();
    assert_eq!(accepted.plaintext.expose(), b"first");
    assert_eq!(accepted.session.peer().as_bytes()[..], vectors.bytes("peer identity key"));
    assert_eq!(local.open_bundles(), 1);
}

#[test]
fn frozen_sessions_go_on() {
    let vectors = Vectors::load();
    let mut local = LocalIdentity::import(&vectors.bytes("local identity after")).unwrap();
    let stored = vectors.bytes("session");
    let mut session = Session::import(&stored).unwrap();
    assert_eq!(session.export().unwrap().expose(), stored);
    let text = session.decrypt(&mut local, &vectors.bytes("next message"), CONTEXT, &mut rng(1)).unwrap();
    assert_eq!(text.expose(), b"next");
    let answer = session.encrypt(b"answer", CONTEXT, now(), &mut rng(2)).unwrap();

    let mut peer_local = LocalIdentity::import(&vectors.bytes("peer local identity")).unwrap();
    let mut peer = Session::import(&vectors.bytes("peer session")).unwrap();
    let text = peer.decrypt(&mut peer_local, answer.as_bytes(), CONTEXT, &mut rng(3)).unwrap();
    assert_eq!(text.expose(), b"answer");
}

#[test]
fn frozen_sender_keys_go_on() {
    let vectors = Vectors::load();
    let (own, peer) = (vectors.bytes("own sender key"), vectors.bytes("peer sender key"));
    let mut own_key = OwnSenderKey::import(&own).unwrap();
    let mut peer_key = PeerSenderKey::import(&peer).unwrap();
    assert_eq!(own_key.export().unwrap().expose(), own);
    assert_eq!(peer_key.export().unwrap().expose(), peer);
    let text = peer_key.decrypt(&vectors.bytes("group message"), CONTEXT).unwrap();
    assert_eq!(text.expose(), b"group");
    let later = own_key.encrypt(b"later", CONTEXT, &mut rng(4)).unwrap();
    assert_eq!(peer_key.decrypt(later.as_bytes(), CONTEXT).unwrap().expose(), b"later");
    let author = *peer_key.author();
    let mut again = PeerSenderKey::accept(&author, &vectors.bytes("distribution")).unwrap();
    assert_eq!(again.decrypt(later.as_bytes(), CONTEXT).unwrap().expose(), b"later");
}

#[test]
fn frozen_signature_and_safety_number() {
    let vectors = Vectors::load();
    let key = |name| IdentityKey::from_bytes(vectors.bytes(name).try_into().unwrap()).unwrap();
    let (one, other) = (key("identity key"), key("peer identity key"));
    let signature = Signature::from_bytes(vectors.bytes("signature").try_into().unwrap());
    assert_eq!(signature.verify(&one, LABEL, b"statement"), Ok(()));
    assert_eq!(SafetyNumber::of(&one, &other).unwrap().digits(), vectors.text("safety number"));
}
