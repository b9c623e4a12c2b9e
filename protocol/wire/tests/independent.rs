//! What another implementation computed from the byte tables alone (Python's hashlib, hmac and `cryptography`, with
//! HChaCha20 from its draft), so that these formats are not only what our code happens to do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use data_encoding::HEXLOWER;
use lapwing_wire::{
    address::RelayKey,
    armor,
    capability::{Admin, ChannelBinding, PublicKey, Right, SecretKey, Signature, Subject, Write},
    frame::{Create, MailboxKind, Read, Request, RequestBody, Seq, encode_frame},
    ids::{BlobHash, EnvelopeId, MailboxId, RunningHash, TripwireId},
    tripwire::{
        Action, Came, ListKey, Meaning, OpenStatus, SealedList, Status, StatusKey, Token, TokenRecord,
    },
};
use serde_bytes::ByteBuf;

/// RFC 8032 section 7.1, test 1.
const SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
const PUBLIC: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    HEXLOWER.decode(hex.as_bytes()).unwrap().try_into().unwrap()
}

fn mailbox() -> MailboxId {
    MailboxId::from_bytes(bytes("7755855dffa7042013fd82c4a5c39f1b70eb7ffff563b4312a6e5528c8aa1848"))
}

fn signature(hex: &str) -> Signature {
    Signature::from_bytes(bytes(hex))
}

#[test]
fn cap_01_frm_06_frm_07_names_are_labelled_hashes() {
    let admin = PublicKey::<Admin>::from_bytes(bytes(PUBLIC));
    assert_eq!(MailboxId::of_admin(&admin), mailbox());
    let envelope = EnvelopeId::of(&[0x5a; 1024]);
    assert_eq!(
        envelope.as_bytes(),
        &bytes("31325416e42fd69a4a646fe80187b4eb6caad8cda5aaab54c3b7268ad2d603a4")
    );
    let first = RunningHash::START.next(1, &envelope);
    assert_eq!(first.as_bytes(), &bytes("e0c3527e05ee0d1dc2557d0757377d8867d278ca70f65761de8434004813eb0c"));
    let second = first.next(2, &envelope);
    assert_eq!(second.as_bytes(), &bytes("a75db023a7f99988fdd944481196042f70aabe3a88d8b229fa054ac8bb572c47"));
    assert_eq!(
        BlobHash::of(b"hello").as_bytes(),
        &bytes("b5a709030609290283a2eb64c75c812e3b51f5921411c658d9318186bd9e6191")
    );
    let mut spki = HEXLOWER.decode(b"302a300506032b6570032100").unwrap();
    spki.extend_from_slice(&bytes::<32>(PUBLIC));
    assert_eq!(
        RelayKey::of_spki(&spki).as_bytes(),
        &bytes("103d52446b0c759af88d0eab61f7e08ae79d77a73e86caf2c31c3564dd35762b")
    );
    let owner = PublicKey::from_bytes(bytes(PUBLIC));
    assert_eq!(
        TripwireId::of_owner(&owner).as_bytes(),
        &bytes("f7e3602640ba4d37982d380ac61092ebe068be07f7ab49d9b70587f4ffc3a0d2")
    );
    assert_eq!(
        Token::from_bytes([9; 32]).lookup().as_bytes(),
        &bytes("8d636aa0cc03124cb3789f2cf5608488cab0485f4233b1e15bd3b7616e48b527")
    );
}

#[test]
fn cap_02_cap_03_cap_04_trp_07_signatures() {
    let binding = ChannelBinding::from_bytes([0x11; 32]);
    let writer = SecretKey::<Write>::from_seed(bytes(SEED));
    let proof = Subject::Mailbox(mailbox(), Right::Write).prove(&writer, &binding);
    assert_eq!(
        proof,
        signature(
            "22c1847535758437d15fa27106409a517d69e3f7b0bdc66489e753151bf740e01f88e0adc1e746260750fa5a0309729f35d923bac78f971902e348c72017f80e"
        )
    );
    let admin = SecretKey::<Admin>::from_seed(bytes(SEED));
    let (read, write) = (PublicKey::from_bytes([0x22; 32]), PublicKey::from_bytes([0x33; 32]));
    let create = Create::signed(&admin, read, write, MailboxKind::Log, None, &binding);
    assert_eq!(
        create.signature,
        signature(
            "537f9ecd48d7752ed0e6770545301fe35c7afabd2e97c24ddb404afd254fc97efd616d036bfb24bd50485505081e68d63e41c84cbc5cd50d45a829775bb23808"
        )
    );
    let Action::Append { permission, .. } = Action::append(mailbox(), vec![0x5a; 1024], &writer) else {
        panic!("an append")
    };
    assert_eq!(
        permission,
        signature(
            "81b297ecafbb1e392a018066c04b6ebcdf9c3788f69b0873c616c4f944c52cbde665a0cc324f5f9c4efe24023041400919cffd9ebd0f1b78c1837224385efd0b"
        )
    );
    let Action::Sink { permission, .. } = Action::sink(mailbox(), &admin) else { panic!("a sink") };
    assert_eq!(
        permission,
        signature(
            "a969ce849408b9f14044fb2f4aae6edce94758e77962b14243384b0d228cabe3d8ff7d249cfc18153553530795046b360e6bd1c004aebe54f1f9c95750e7ce0f"
        )
    );
}

#[test]
fn a_frame_is_a_length_and_cbor() {
    let read = Read { mailbox: mailbox(), after: Seq::new(5), count: 128 };
    let frame = encode_frame(&Request { id: 7, body: RequestBody::Read(read) }).unwrap();
    let expected = "0000004aa26269640764626f6479a16472656164a3676d61696c626f785820\
                    7755855dffa7042013fd82c4a5c39f1b70eb7ffff563b4312a6e5528c8aa1848\
                    6561667465720565636f756e741880";
    assert_eq!(HEXLOWER.encode(&frame), expected);
}

#[test]
fn trp_01_trp_02_trp_03_sealed_by_others_opens() {
    let token = Token::from_bytes([9; 32]);
    let sealed = "444444444444444444444444444444444444444444444444ce184d412a2bd872a1499fc6f9b72af511aff0553e0146d4bf252ec1c0faf1f5fddcbc63\
                  1f2dcf8b13ce41e2aef9c7b1cc95a46f638409cc5ba5763a43a5160696759854e61986c8045e034a77a2812a9d33abfe6b9b5a9529c31471236fe6e3\
                  a2f1d9c27513d482bacdda2413a62d18df";
    let sealed = ByteBuf::from(HEXLOWER.decode(sealed.as_bytes()).unwrap());
    let record = TokenRecord { lookup: token.lookup(), sealed }.open(&token).unwrap();
    let tripwire = TripwireId::of_owner(&PublicKey::from_bytes(bytes(PUBLIC)));
    assert_eq!((record.tripwire, record.meaning), (tripwire, Meaning::Fire));
    assert_eq!(record.list_key, ListKey::from_bytes([0x55; 32]));
    assert_eq!(record.status_key, StatusKey::from_bytes([0x66; 32]));

    let list = include_bytes!("../fuzz/corpus/tripwire/good_list").to_vec();
    let actions = SealedList::from_bytes(list).open(&tripwire, &record.list_key).unwrap();
    let admin = SecretKey::from_seed(bytes(SEED));
    assert_eq!(actions, [Action::sink(mailbox(), &admin)]);

    let sealed = "777777777777777777777777777777777777777777777777666e5be3e4325fe024fe80e49560890c2f1dc768e0aecba0f7e38cb48a0eb99d";
    let status: Status = lapwing_wire::codec::decode(
        &lapwing_wire::codec::encode(&ByteBuf::from(HEXLOWER.decode(sealed.as_bytes()).unwrap())),
        1000,
    )
    .unwrap();
    let said = status.open(&record.status_key).unwrap();
    assert_eq!(said, OpenStatus { serial: 7, fired: true, came: Came::default() });
}

#[test]
fn text_has_a_checksum() {
    assert_eq!(armor::encode("lapwing", &[1, 2, 3]), "lapwing:aebagwqh3wla");
}
