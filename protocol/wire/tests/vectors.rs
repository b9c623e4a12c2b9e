//! Frozen bytes of every frame kind: a change that breaks them breaks every relay and client in use.
//!
//! The file is written anew by `LAPWING_WRITE_VECTORS=1 cargo test -p lapwing-wire --test vectors`, which is right only
//! for kinds that are new.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(clippy::disallowed_methods, reason = "writes the vectors on demand")]

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use lapwing_wire::{
    address::{AccessTicket, RelayAddress, RelayKey},
    capability::{ChannelBinding, PublicKey, RelayIdentity, Right, SecretKey, Subject},
    codec,
    frame::*,
    ids::{BlobHash, MailboxId, RunningHash, TripwireId},
    limits::{FRAME_PREFIX, MAX_FRAME},
    succession::{Succession, relay_key},
    tripwire::*,
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use serde::{Serialize, de::DeserializeOwned};
use serde_bytes::ByteBuf;

const FILE: &str = "tests/vectors/frames.json";

fn binding() -> ChannelBinding {
    ChannelBinding::from_bytes([0x11; 32])
}

fn mailbox() -> MailboxId {
    MailboxId::from_bytes([0x22; 32])
}

fn window() -> Window {
    let place = Stored { seq: Seq::new(41), hash: RunningHash::from_bytes([0x33; 32]) };
    let item = |byte, place| Item { place, envelope: ByteBuf::from(vec![byte; 1024]) };
    let next = Stored { seq: place.seq.next(), ..place };
    Window { mailbox: mailbox(), newest: Seq::new(70_000), items: vec![item(1, place), item(2, next)] }
}

fn tripwire() -> (PublicKey<lapwing_wire::capability::TripwireOwner>, TokenRecord, SealedList) {
    let mut rng = ChaCha20Rng::from_seed([7; 32]);
    let owner = SecretKey::from_seed([0x44; 32]).public();
    let id = TripwireId::of_owner(&owner);
    let list_key = ListKey::from_bytes([0x55; 32]);
    let record = OpenRecord {
        tripwire: id,
        meaning: Meaning::Fire,
        list_key: list_key.clone(),
        status_key: StatusKey::from_bytes([0x66; 32]),
    };
    let actions = [
        Action::append(mailbox(), vec![3; 1024], &SecretKey::from_seed([0x77; 32])),
        Action::sink(mailbox(), &SecretKey::from_seed([0x78; 32])),
    ];
    let record = TokenRecord::seal(&Token::from_bytes([9; 32]), &record, &mut rng);
    (owner, record, SealedList::seal(&actions, &id, &list_key, &mut rng).unwrap())
}

fn lineage() -> Vec<Succession> {
    let keys = [0x91, 0x92, 0x93].map(|byte| SecretKey::<RelayIdentity>::from_seed([byte; 32]));
    let step = |from: usize, to: usize| Succession::signed(&keys[from], relay_key(&keys[to].public()));
    vec![step(0, 1), step(1, 2)]
}

fn requests() -> Vec<(&'static str, RequestBody)> {
    let read = Read { mailbox: mailbox(), after: Seq::new(300), count: 128 };
    let close = Close { mailbox: mailbox() };
    let access = SecretKey::from_seed([0x79; 32]);
    let hash = BlobHash::of(b"blob");
    let (owner, record, token_list) = tripwire();
    let owner_key = SecretKey::<lapwing_wire::capability::TripwireOwner>::from_seed([0x44; 32]);
    let prove = |subject: Subject, signature| RequestBody::Prove(Prove { subject, signature });
    let rights = [("read", Right::Read), ("write", Right::Write), ("admin", Right::Admin)];
    let mut all: Vec<(&str, RequestBody)> = Vec::new();
    for (name, right) in rights {
        let subject = Subject::Mailbox(mailbox(), right);
        let key = SecretKey::<lapwing_wire::capability::Write>::from_seed([0x80; 32]);
        all.push((name, prove(subject, subject.prove(&key, &binding()))));
    }
    let subject = Subject::Access(access.public());
    all.push(("access", prove(subject, subject.prove(&access, &binding()))));
    let subject = Subject::Tripwire(owner);
    all.push(("tripwire", prove(subject, subject.prove(&owner_key, &binding()))));
    for (name, kind, access) in
        [("create_queue", MailboxKind::Queue, Some(access.public())), ("create_log", MailboxKind::Log, None)]
    {
        let admin = SecretKey::from_seed([0x81; 32]);
        let (read, write) = (PublicKey::from_bytes([0x82; 32]), PublicKey::from_bytes([0x83; 32]));
        all.push((name, RequestBody::Create(Create::signed(&admin, read, write, kind, access, &binding()))));
    }
    all.extend([
        ("close", RequestBody::Close(close.clone())),
        (
            "append",
            RequestBody::Append(Append { mailbox: mailbox(), envelope: ByteBuf::from(vec![4; 1024]) }),
        ),
        ("read_window", RequestBody::Read(read.clone())),
        ("subscribe", RequestBody::Subscribe(read)),
        ("unsubscribe", RequestBody::Unsubscribe(close)),
        (
            "ack",
            RequestBody::Ack(Ack {
                mailbox: mailbox(),
                upto: Seq::new(5),
                also: vec![Seq::new(7), Seq::new(9)],
            }),
        ),
        (
            "blob_put",
            RequestBody::BlobPut(BlobPut {
                hash,
                total: 4,
                offset: 0,
                bytes: ByteBuf::from(b"blob".to_vec()),
                access: Some(access.public()),
            }),
        ),
        ("blob_get", RequestBody::BlobGet(BlobGet { hash, offset: 65_536 })),
        (
            "arm",
            RequestBody::Arm(Arm {
                owner,
                access: Some(access.public()),
                serial: 3,
                records: vec![record],
                token_list,
                causes: Causes::default(),
            }),
        ),
        ("disarm", RequestBody::Disarm(Disarm { owner })),
        ("token", RequestBody::Token(PresentToken { token: Token::from_bytes([9; 32]) })),
        ("lineage", RequestBody::Lineage),
    ]);
    all
}

fn responses() -> Vec<(&'static str, ResponseBody)> {
    let mut rng = ChaCha20Rng::from_seed([8; 32]);
    let status = Status::seal(
        OpenStatus { serial: 3, fired: false, came: Came::default() },
        &StatusKey::from_bytes([6; 32]),
        &mut rng,
    );
    let refused = ResponseBody::Refused;
    vec![
        ("done", ResponseBody::Done),
        (
            "stored",
            ResponseBody::Stored(Stored { seq: Seq::new(41), hash: RunningHash::from_bytes([0x33; 32]) }),
        ),
        ("window", ResponseBody::Window(window())),
        ("blob_progress", ResponseBody::BlobProgress(65_536)),
        ("blob_part", ResponseBody::BlobPart(BlobPart { total: 4, bytes: ByteBuf::from(b"blob".to_vec()) })),
        ("token", ResponseBody::Token(status)),
        ("not_allowed", refused(Refusal::NotAllowed)),
        ("no_access", refused(Refusal::NoAccess)),
        ("full", refused(Refusal::Full)),
        ("busy", refused(Refusal::Busy)),
        ("too_large", refused(Refusal::TooLarge)),
        ("conflict", refused(Refusal::Conflict)),
        ("unsupported", refused(Refusal::Unsupported)),
        ("lineage", ResponseBody::Lineage(lineage())),
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
    add("notice", "window", encode_frame(&Notice::Window(window())).unwrap());
    let relay = RelayAddress::new(RelayKey::of_spki(b"a key"), "2001:db8::7", 443).unwrap();
    add("text", "address", relay.to_string().into_bytes());
    let ticket = AccessTicket::new(relay, SecretKey::from_seed([0x79; 32]));
    add("text", "access_ticket", ticket.to_text().into_bytes());
    found
}

fn frozen() -> BTreeMap<String, String> {
    serde_json::from_str(include_str!("vectors/frames.json")).unwrap()
}

fn body<T: DeserializeOwned>(frozen: &BTreeMap<String, String>, name: &str) -> T {
    let frame = HEXLOWER.decode(frozen[name].as_bytes()).unwrap();
    let (prefix, body) = frame.split_first_chunk::<FRAME_PREFIX>().unwrap();
    assert_eq!(frame_length(*prefix), Ok(body.len()), "{name}");
    codec::decode(body, MAX_FRAME).unwrap()
}

fn reencodes<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: T) {
    let bytes = codec::encode(&value);
    assert_eq!(codec::decode::<T>(&bytes, MAX_FRAME).unwrap(), value);
}

#[test]
fn every_kind_has_its_frozen_bytes() {
    let found = all();
    if std::env::var_os("LAPWING_WRITE_VECTORS").is_some() {
        std::fs::write(FILE, serde_json::to_string_pretty(&found).unwrap() + "\n").unwrap();
        return;
    }
    let frozen = frozen();
    for (name, hex) in &frozen {
        assert!(found.get(name) == Some(hex), "{name} changed");
    }
    assert_eq!(found.len(), frozen.len(), "a new kind needs its vector");
}

#[test]
fn frozen_bytes_are_understood() {
    let frozen = frozen();
    for (number, (name, expected)) in (1..).zip(requests()) {
        let Request { id, body } = body(&frozen, &format!("request/{name}"));
        assert!(id == number && body == expected, "{name}");
        reencodes(body);
    }
    for (number, (name, expected)) in (1..).zip(responses()) {
        let Response { id, body } = body(&frozen, &format!("response/{name}"));
        assert!(id == number && body == expected, "{name}");
        reencodes(body);
    }
    assert_eq!(body::<Notice>(&frozen, "notice/window"), Notice::Window(window()));
}

#[test]
fn frm_03_unknown_fields_are_ignored_but_not_in_arm() {
    #[derive(Serialize)]
    struct Wide<T> {
        id: u64,
        body: T,
        later: &'static str,
    }
    let (owner, record, token_list) = tripwire();
    let plain = RequestBody::Token(PresentToken { token: Token::from_bytes([9; 32]) });
    let bytes = codec::encode(&Wide { id: 4, body: plain.clone(), later: "x" });
    assert_eq!(decode_request(&bytes), Ok(Ok(Request { id: 4, body: plain })));

    let arm =
        Arm { owner, access: None, serial: 1, records: vec![record], token_list, causes: Causes::default() };
    let mut value = ciborium::Value::serialized(&Request { id: 5, body: RequestBody::Arm(arm) }).unwrap();
    let good = codec::encode(&value);
    assert!(matches!(decode_request(&good), Ok(Ok(_))));
    let body = &mut value.as_map_mut().unwrap()[1].1;
    let fields = body.as_map_mut().unwrap()[0].1.as_map_mut().unwrap();
    fields.push(("deadline".into(), 7.into()));
    assert_eq!(decode_request(&codec::encode(&value)), Ok(Err(5)), "unsupported, by its number");
}
