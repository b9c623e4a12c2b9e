//! Frozen bytes of the frames of anchors and of a tripwire's other causes, and what another program made of the byte
//! tables.
//!
//! `LAPWING_WRITE_VECTORS=1 cargo test -p lapwing-wire --test anchor_vectors` writes the file anew, which is right only
//! for kinds that are new.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(clippy::disallowed_methods, reason = "writes the vectors on demand")]

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use lapwing_wire::{
    anchor::*,
    capability::*,
    codec,
    frame::{self, *},
    ids::{AnchorId, MailboxId, TripwireId},
    limits::{ANCHOR_ENTRIES, FRAME_PREFIX, MAX_FRAME},
    oprf::{Blinded, Evaluated, OprfKey},
    sharing::{self, Share},
    tripwire::*,
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

const FILE: &str = "tests/vectors/anchor.json";

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::from_seed([0x21; 32])
}

fn owner() -> SecretKey<AnchorOwner> {
    SecretKey::from_seed([0x41; 32])
}

fn anchor() -> AnchorId {
    AnchorId::of_owner(&owner().public())
}

fn entry() -> Entry {
    let mut rng = rng();
    let keys = EntryKeys::derive(&anchor(), &[0x51; 64]);
    let share = keys.seal_share(&VaultShare::from_bytes([0x52; 32]), &mut rng);
    let deed = Deed {
        fires: Some(Token::from_bytes([0x53; 32])),
        destroys: true,
        group: GroupKey::from_bytes([0x54; 32]),
    };
    Entry::seal(&anchor(), keys.proof(), &share, &keys.seal_mark(9, &mut rng), &deed, &mut rng)
}

fn arm() -> Arm {
    let mut rng = rng();
    let tripwire_owner = SecretKey::<TripwireOwner>::from_seed([0x44; 32]);
    let tripwire = TripwireId::of_owner(&tripwire_owner.public());
    let key = ListKey::from_bytes([0x55; 32]);
    let mailbox = MailboxId::from_bytes([0x22; 32]);
    let alert = || vec![Action::append(mailbox, vec![3; 1024], &SecretKey::from_seed([0x77; 32]))];
    let destroy = vec![
        Action::sink(mailbox, &SecretKey::from_seed([0x78; 32])),
        Action::refresh(&owner(), None),
        Action::refresh(&owner(), Some(GroupKey::from_bytes([0x54; 32]))),
    ];
    let shares = sharing::split(&key, 2, 3, &mut rng).unwrap();
    let voices: Vec<_> = (0x61..)
        .zip(shares)
        .map(|(byte, share)| (SecretKey::<Trigger>::from_seed([byte; 32]).public(), share))
        .collect();
    let quorum = Quorum::seal(&tripwire, &key, 2, &voices, &destroy, &mut rng).unwrap();
    Arm {
        owner: tripwire_owner.public(),
        access: None,
        serial: 4,
        records: Vec::new(),
        token_list: SealedList::seal(&[], &tripwire, &key, &mut rng).unwrap(),
        causes: Causes {
            alerting: Some(Deadline { after_s: 86_400, actions: alert() }),
            destroying: Some(Deadline { after_s: 172_800, actions: destroy }),
            quorum: Some(quorum),
            frozen: Some(Frozen::new(&owner(), &tripwire, alert())),
        },
    }
}

fn requests() -> Vec<(&'static str, RequestBody)> {
    let binding = ChannelBinding::from_bytes([0x11; 32]);
    let (anchor, blinded) = (anchor(), Blinded::from_bytes([0x31; 32]));
    let (trigger, thaw) =
        (SecretKey::<Trigger>::from_seed([0x61; 32]), SecretKey::<Thaw>::from_seed([0x62; 32]));
    let keys = EntryKeys::derive(&anchor, &[0x51; 64]);
    let stage = OuterKey::from_bytes([0x57; 32]).stage();
    let prove = |subject, signature| RequestBody::Prove(Prove { subject, signature });
    let create = CreateAnchor {
        owner: owner().public(),
        access: None,
        serial: 1,
        key: OprfKey::from_bytes([0x56; 32]),
        outer: OuterKey::from_bytes([0x57; 32]),
        entries: vec![entry(); ANCHOR_ENTRIES],
        thaw: ThawRule {
            threshold: 1,
            voices: vec![thaw.public()],
            kit: Some(PublicKey::from_bytes([0x63; 32])),
        },
    };
    let ask = RequestBody::Anchor;
    let subjects = [
        ("prove_anchor", Subject::Anchor(owner().public())),
        ("prove_trigger", Subject::Trigger(trigger.public())),
        ("prove_thaw", Subject::Thaw(thaw.public())),
    ];
    let signatures = [
        subjects[0].1.prove(&owner(), &binding),
        subjects[1].1.prove(&trigger, &binding),
        subjects[2].1.prove(&thaw, &binding),
    ];
    let mut all: Vec<_> = subjects
        .into_iter()
        .zip(signatures)
        .map(|((name, subject), proof)| (name, prove(subject, proof)))
        .collect();
    all.extend([
        ("arm_causes", RequestBody::Arm(arm())),
        (
            "trigger",
            RequestBody::Trigger(RaiseTrigger {
                tripwire: TripwireId::from_bytes([0x64; 32]),
                key: trigger.public(),
                share: Share::from_bytes([0x65; 33]),
            }),
        ),
        ("create", ask(AnchorRequest::Create(create))),
        ("set", ask(AnchorRequest::Set(SetEntry { owner: owner().public(), index: 7, entry: entry() }))),
        ("remove", ask(AnchorRequest::Remove(RemoveAnchor { owner: owner().public() }))),
        ("evaluate", ask(AnchorRequest::Evaluate(Evaluate { anchor, blinded }))),
        ("prove", ask(AnchorRequest::Prove(ProveEntry { anchor, blinded, proof: keys.proof().clone() }))),
        (
            "stage",
            ask(AnchorRequest::Stage(frame::Stage {
                anchor,
                outer: OuterKey::from_bytes([0x58; 32]),
                mark: entry().mark(),
            })),
        ),
        ("commit", ask(AnchorRequest::Commit(Settle { anchor, stage }))),
        ("abort", ask(AnchorRequest::Abort(Settle { anchor, stage }))),
        (
            "add",
            ask(AnchorRequest::Add(AddEntry {
                anchor,
                blinded,
                index: 2,
                proof: keys.proof().clone(),
                share: entry().share(),
                mark: entry().mark(),
            })),
        ),
        ("thaw", ask(AnchorRequest::Thaw(RaiseThaw { anchor, key: thaw.public() }))),
    ]);
    all
}

fn responses() -> Vec<(&'static str, ResponseBody)> {
    let release = Release {
        share: entry().share(),
        mark: entry().mark(),
        outer: OuterKey::from_bytes([0x57; 32]),
        staged: OuterKey::from_bytes([0x58; 32]),
    };
    vec![
        ("evaluated", ResponseBody::Anchor(AnchorAnswer::Evaluated(Evaluated::from_bytes([0x32; 32])))),
        ("released", ResponseBody::Anchor(AnchorAnswer::Released(release))),
        ("frozen", ResponseBody::Refused(Refusal::Frozen)),
    ]
}

fn all() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut add = |kind: &str, name: &str, frame: Vec<u8>| {
        assert!(found.insert(format!("{kind}/{name}"), HEXLOWER.encode(&frame)).is_none());
    };
    for (number, (name, body)) in (1..).zip(requests()) {
        add("request", name, encode_frame(&Request { id: number, body }).unwrap());
    }
    for (number, (name, body)) in (1..).zip(responses()) {
        add("response", name, encode_frame(&Response { id: number, body }).unwrap());
    }
    found
}

fn body(frozen: &BTreeMap<String, String>, name: &str) -> Vec<u8> {
    let frame = HEXLOWER.decode(frozen[name].as_bytes()).unwrap();
    frame[FRAME_PREFIX..].to_vec()
}

#[test]
fn every_kind_has_its_frozen_bytes_and_they_are_understood() {
    let found = all();
    if std::env::var_os("LAPWING_WRITE_VECTORS").is_some() {
        std::fs::write(FILE, serde_json::to_string_pretty(&found).unwrap() + "\n").unwrap();
        return;
    }
    let frozen: BTreeMap<String, String> = serde_json::from_str(include_str!("vectors/anchor.json")).unwrap();
    for (name, hex) in &frozen {
        assert!(found.get(name) == Some(hex), "{name} changed");
    }
    assert_eq!(found.len(), frozen.len(), "a new kind needs its vector");
    for (number, (name, expected)) in (1..).zip(requests()) {
        let request = decode_request(&body(&frozen, &format!("request/{name}"))).unwrap();
        assert!(request == Ok(Request { id: number, body: expected }), "{name}");
    }
    for (number, (name, expected)) in (1..).zip(responses()) {
        let response: Response =
            codec::decode(&body(&frozen, &format!("response/{name}")), MAX_FRAME).unwrap();
        assert!(response == Response { id: number, body: expected }, "{name}");
    }
}

#[test]
fn frm_03_unknown_fields_of_causes_and_anchors_are_not_overlooked() {
    let mut value = ciborium::Value::serialized(&Request { id: 5, body: RequestBody::Arm(arm()) }).unwrap();
    assert!(matches!(decode_request(&codec::encode(&value)), Ok(Ok(_))));
    let body = &mut value.as_map_mut().unwrap()[1].1;
    let fields = body.as_map_mut().unwrap()[0].1.as_map_mut().unwrap();
    let causes = fields.iter_mut().find(|(name, _)| name.as_text() == Some("causes")).unwrap();
    causes.1.as_map_mut().unwrap().push(("third".into(), 7.into()));
    assert_eq!(decode_request(&codec::encode(&value)), Ok(Err(5)), "unsupported, by its number");

    let evaluate = Evaluate { anchor: anchor(), blinded: Blinded::from_bytes([1; 32]) };
    let body = RequestBody::Anchor(AnchorRequest::Evaluate(evaluate));
    let mut value = ciborium::Value::serialized(&Request { id: 6, body }).unwrap();
    let body = &mut value.as_map_mut().unwrap()[1].1;
    let inner = &mut body.as_map_mut().unwrap()[0].1.as_map_mut().unwrap()[0].1;
    inner.as_map_mut().unwrap().push(("later".into(), 7.into()));
    assert_eq!(decode_request(&codec::encode(&value)), Ok(Err(6)));
}

/// RFC 8032 section 7.1, test 1.
const SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";

fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    HEXLOWER.decode(hex.as_bytes()).unwrap().try_into().unwrap()
}

fn signature(hex: &str) -> Signature {
    Signature::from_bytes(bytes(hex))
}

/// Made from the byte tables alone by another program (Python's hashlib, hmac and `cryptography`).
#[test]
fn anc_02_anc_03_an_entry_made_by_others_opens() {
    let owner = SecretKey::<AnchorOwner>::from_seed(bytes(SEED));
    let anchor = AnchorId::of_owner(&owner.public());
    assert_eq!(anchor.as_bytes(), &bytes("8dc3911f68eb2ef16384e858a9b2bf0b2834da2d851295e119c78fbe403272ea"));
    let keys = EntryKeys::derive(&anchor, &[0x51; 64]);
    assert_eq!(
        keys.proof().expose(),
        &bytes("30b64cb1a556fe5ac1099a3343bf82806f7b9dcaae1906a42fd65b97b4a3d9f9")
    );
    let entry = Entry::from_bytes(bytes(concat!(
        "a171e31fa5c717d84304a201009862b53b62be0c89117266a8faf8ca2aba0241010101010101010101010101010101",
        "010101010101010101771a2f3f17ac2d3a3d939cfccbf390667990a6fe97098c2750d4d5db59b14e9bc10166f266e3",
        "606fe8c98b8617d02a4802020202020202020202020202020202020202020202020283b007d6a5b111cf913eb836b2",
        "3bb6c385c55d7241ebd75446b814cd4779c29c3a9c8e22e8abce598bf2e250f34805e78d07af0867276bbc315d19f3",
        "802cb35e01bcbc7333991ed0ed058dcf355a2bc2d30303030303030303030303030303030303030303030303030303",
        "030303030303f80c2910ef39cf6a4129c9f38ce056380ba2a23991095720b9d2d627334af674040404040404040404",
        "04040404040404040404040404040447e0ac3d9ade56a00b04096bf8215295c377935d213131c4a82163349829ad62",
    )));
    let group = GroupKey::from_bytes([0x54; 32]);
    let deed = Deed { fires: Some(Token::from_bytes([0x53; 32])), destroys: true, group: group.clone() };
    assert_eq!(entry.open(&anchor, keys.proof()), Some(deed));
    assert!(entry.is_of(&group));
    assert_eq!(keys.open_share(&entry.share()), Some(VaultShare::from_bytes([0x52; 32])));
    assert_eq!(keys.open_mark(&entry.mark()), Some(9));
    let stage = codec::encode(&OuterKey::from_bytes([0x57; 32]).stage());
    assert!(
        stage.ends_with(&bytes::<32>("668241850d00c25f8fa59bf41da3c9bc0c0fb50e3f0ccc9b308e329ce9679cdf"))
    );
    let tripwire = TripwireId::from_bytes([0x64; 32]);
    let hash = codec::encode(&Share::from_bytes([0x65; 33]).hash(&tripwire));
    assert!(hash.ends_with(&bytes::<32>("22803b5f2ac84e2253bca6827412efb1b44da2b84e4d9584483dd09d71cca72c")));
}

#[test]
fn cap_02_trp_07_trp_15_signatures_of_anchors_are_as_described() {
    let owner = SecretKey::<AnchorOwner>::from_seed(bytes(SEED));
    let refresh = |spare| match Action::refresh(&owner, spare) {
        Action::Refresh { permission, .. } => permission,
        _ => panic!("a refreshing"),
    };
    assert_eq!(
        refresh(Some(GroupKey::from_bytes([0x54; 32]))),
        signature(
            "8c3475bcf5b299233fd9a0346b5e44d4b0a36aea5bb4456b0cbd408de1378fa924bd27d41bde69388e533ae347efdeb76732227cf6ce2857eb7b3297f8a98e0e"
        )
    );
    assert_eq!(
        refresh(None),
        signature(
            "db8890b35caaa9cc0adbf6b9492122a3a87e0faff5702859209ec6ad04164e63befe4c05d5af1b2cbe8427392a6a6338c00c24f5b9a3b596f9091c5bf0a7420b"
        )
    );
    let frozen = Frozen::new(&owner, &TripwireId::from_bytes([0x64; 32]), Vec::new());
    assert_eq!(
        frozen.permission,
        signature(
            "60126ff80046cb83f93c17b880439249787334b2b8353b72ef55dc21fedb1de23017da7834d7fc9d47599c133676d911134f94b7d49c2a2f26613fa7e7e05004"
        )
    );
    let binding = ChannelBinding::from_bytes([0x11; 32]);
    let public = *owner.public().as_bytes();
    for (subject, proof) in [
        (
            Subject::Anchor(PublicKey::from_bytes(public)),
            "d529ea33036cea6a33ebe29bb24c528b8cb12d282a9a13c88184631e855282df621106bf0617c57a8b9a00fd88306ac0d75f8651ecab6fb232999559e4be6305",
        ),
        (
            Subject::Trigger(PublicKey::from_bytes(public)),
            "b0354d0b759220287447afc6bfbe6b19ece27638bcb7a3870a85be15a627534729f8ad6ea4b4d11cb9cd6ab400997355005b9c145107dca4fbeb4f947b82f605",
        ),
        (
            Subject::Thaw(PublicKey::from_bytes(public)),
            "cec4818622b59a553f813315d544f9fff925052533430bae3f86fc4c5681bc4d8d8ea7e4a02a24e79dc15d7940fec738c9e37faf20a89665d71151e7d97b4d06",
        ),
    ] {
        assert_eq!(subject.prove(&owner, &binding), signature(proof));
    }
}

#[test]
fn trp_02_a_status_tells_which_causes_came() {
    let sealed = serde_bytes::ByteBuf::from(HEXLOWER.decode(
        b"777777777777777777777777777777777777777777777777666e5be3e4325fe025fb80e49560890c31ccbc14ad22b18f7b1f408bea41bfa5",
    ).unwrap());
    let status: Status = codec::decode(&codec::encode(&sealed), 1000).unwrap();
    let came = Came { alerting: true, quorum: true, ..Came::default() };
    assert_eq!(
        status.open(&StatusKey::from_bytes([0x66; 32])),
        Some(OpenStatus { serial: 7, fired: false, came })
    );
}
