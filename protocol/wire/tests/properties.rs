//! Round trips, claimed lengths, damaged input.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use lapwing_wire::{
    address::{AccessTicket, RelayAddress, RelayKey},
    armor,
    capability::{ChannelBinding, PublicKey, RelayIdentity, Right, SecretKey, Signature, Subject},
    codec::{self, DecodeError},
    frame::*,
    ids::{BlobHash, BlobHasher, MailboxId, RunningHash},
    limits::{FRAME_PREFIX, MAX_FRAME},
    padding,
    succession::{Succession, leads, relay_key},
    tripwire::Token,
};
use proptest::{collection::vec, prelude::*};
use serde_bytes::ByteBuf;

fn id() -> impl Strategy<Value = MailboxId> + Clone {
    any::<[u8; 32]>().prop_map(MailboxId::from_bytes)
}

fn body() -> impl Strategy<Value = RequestBody> {
    let read = (id(), any::<u64>(), any::<u16>()).prop_map(|(mailbox, after, count)| Read {
        mailbox,
        after: Seq::new(after),
        count,
    });
    let right = prop_oneof![Just(Right::Read), Just(Right::Write), Just(Right::Admin)];
    let subject = prop_oneof![
        (id(), right).prop_map(|(id, right)| Subject::Mailbox(id, right)),
        any::<[u8; 32]>().prop_map(|key| Subject::Access(PublicKey::from_bytes(key))),
        any::<[u8; 32]>().prop_map(|key| Subject::Tripwire(PublicKey::from_bytes(key))),
    ];
    prop_oneof![
        (subject, any::<[u8; 32]>()).prop_map(|(subject, half)| {
            let mut whole = [0; 64];
            whole[..32].copy_from_slice(&half);
            RequestBody::Prove(Prove { subject, signature: Signature::from_bytes(whole) })
        }),
        (id(), vec(any::<u8>(), 0..70_000)).prop_map(|(mailbox, bytes)| RequestBody::Append(Append {
            mailbox,
            envelope: ByteBuf::from(bytes)
        })),
        read.clone().prop_map(RequestBody::Read),
        read.prop_map(RequestBody::Subscribe),
        (id(), any::<u64>(), vec(any::<u64>(), 0..300)).prop_map(|(mailbox, upto, also)| {
            let also = also.into_iter().map(Seq::new).collect();
            RequestBody::Ack(Ack { mailbox, upto: Seq::new(upto), also })
        }),
        (any::<[u8; 32]>(), any::<u64>(), any::<u64>(), vec(any::<u8>(), 0..70_000)).prop_map(
            |(hash, total, offset, bytes)| {
                let hash = BlobHash::from_bytes(hash);
                RequestBody::BlobPut(BlobPut {
                    hash,
                    total,
                    offset,
                    bytes: ByteBuf::from(bytes),
                    access: None,
                })
            }
        ),
        any::<[u8; 32]>()
            .prop_map(|token| RequestBody::Token(PresentToken { token: Token::from_bytes(token) })),
        Just(RequestBody::Lineage),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn requests_round_trip(number in any::<u64>(), body in body()) {
        let request = Request { id: number, body };
        let frame = encode_frame(&request).unwrap();
        let (prefix, rest) = frame.split_first_chunk::<FRAME_PREFIX>().unwrap();
        prop_assert_eq!(frame_length(*prefix), Ok(rest.len()));
        prop_assert_eq!(decode_request(rest), Ok(Ok(request)));
    }

    #[test]
    fn windows_round_trip(seq in any::<u64>(), hash in any::<[u8; 32]>(), items in vec(vec(any::<u8>(), 0..2000), 0..40)) {
        let place = Stored { seq: Seq::new(seq), hash: RunningHash::from_bytes(hash) };
        let items = items.into_iter().map(|bytes| Item { place, envelope: ByteBuf::from(bytes) }).collect();
        let window = Window { mailbox: MailboxId::from_bytes(hash), newest: Seq::new(seq), items };
        let response = Response { id: seq, body: ResponseBody::Window(window) };
        let frame = encode_frame(&response).unwrap();
        prop_assert_eq!(codec::decode::<Response>(&frame[FRAME_PREFIX..], MAX_FRAME), Ok(response.clone()));
        // Behind another frame stands the same frame.
        let mut both = frame.clone();
        encode_frame_onto(&response, &mut both).unwrap();
        prop_assert_eq!(both, [frame.as_slice(), &frame].concat());
    }

    #[test]
    fn suc_01_damaged_lineages_lead_nowhere_else(
        seeds in vec(any::<[u8; 32]>(), 2..6),
        other in any::<[u8; 32]>(),
        at in any::<prop::sample::Index>(),
        flip in 1u8..,
    ) {
        let keys: Vec<_> = seeds.iter().map(|seed| SecretKey::<RelayIdentity>::from_seed(*seed)).collect();
        let names: Vec<_> = keys.iter().map(|key| relay_key(&key.public())).collect();
        prop_assume!(names.iter().collect::<std::collections::BTreeSet<_>>().len() == names.len());
        let steps: Vec<_> = keys.iter().zip(&names[1..]).map(|(key, next)| Succession::signed(key, *next)).collect();
        let (first, last) = (&names[0], &names[names.len() - 1]);
        prop_assert!(leads(&steps, first, last));
        let stranger = relay_key(&SecretKey::<RelayIdentity>::from_seed(other).public());
        prop_assert!(names.contains(&stranger) || !leads(&steps, first, &stranger));
        let mut bytes = codec::encode(&steps);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if let Ok(bent) = codec::decode::<Vec<Succession>>(&bytes, MAX_FRAME)
            && bent != steps
        {
            prop_assert!(!leads(&bent, first, last));
        }
    }

    #[test]
    fn frm_01_claims_above_the_bound_are_refused(claim in any::<u32>()) {
        let length = usize::try_from(claim).unwrap();
        let expected = if length > MAX_FRAME { Err(DecodeError::TooLong) } else { Ok(length) };
        prop_assert_eq!(frame_length(claim.to_be_bytes()), expected);
    }

    #[test]
    fn a_claimed_length_inside_is_not_believed(head in prop_oneof![Just(0x5b), Just(0x9b), Just(0xbb), Just(0x7b)], claim in any::<u64>()) {
        let mut bytes = vec![head];
        bytes.extend_from_slice(&claim.to_be_bytes());
        prop_assert!(codec::decode::<Request>(&bytes, MAX_FRAME).is_err());
        prop_assert!(codec::decode::<ByteBuf>(&bytes, MAX_FRAME).is_err() || claim == 0);
    }

    #[test]
    fn damaged_requests_do_not_panic(body in body(), flips in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut in any::<prop::sample::Index>()) {
        let mut bytes = codec::encode(&Request { id: 1, body });
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let _ = decode_request(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        prop_assert!(!matches!(decode_request(&bytes), Ok(Ok(_))), "half a request is none");
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in vec(any::<u8>(), 0..600)) {
        let _ = decode_request(&bytes);
        let _ = codec::decode::<Response>(&bytes, MAX_FRAME);
        let _ = codec::decode::<Notice>(&bytes, MAX_FRAME);
    }

    #[test]
    fn arbitrary_text_does_not_panic(text in "\\PC{0,200}") {
        let _ = text.parse::<RelayAddress>();
        let _ = AccessTicket::from_text(&text);
        let _ = armor::decode("lapwing", &text);
    }

    #[test]
    fn addresses_round_trip(spki in vec(any::<u8>(), 0..50), host in "[a-z0-9][a-z0-9.-]{0,60}", port in 1u16..) {
        let address = RelayAddress::new(RelayKey::of_spki(&spki), &host, port).unwrap();
        prop_assert_eq!(address.to_string().parse::<RelayAddress>().unwrap(), address.clone());
        let ticket = AccessTicket::new(address.clone(), SecretKey::from_seed([3; 32]));
        let back = AccessTicket::from_text(&ticket.to_text().to_uppercase()).unwrap();
        prop_assert_eq!(back.relay(), &address);
    }

    #[test]
    fn blobs_hash_alike_in_any_parts(blob in vec(any::<u8>(), 0..3000), step in 1usize..700) {
        let mut hasher = BlobHasher::new(u64::try_from(blob.len()).unwrap());
        blob.chunks(step).for_each(|part| hasher.update(part));
        prop_assert_eq!(hasher.finish(), BlobHash::of(&blob));
    }

    #[test]
    fn padding_comes_off(content in vec(any::<u8>(), 0..1024)) {
        let padded = padding::pad(content.clone(), 1024).unwrap();
        prop_assert_eq!(padding::unpad(padded), Some(content));
    }

    #[test]
    fn cap_03_a_proof_holds_for_its_binding_only(seed in any::<[u8; 32]>(), one in any::<[u8; 32]>(), other in any::<[u8; 32]>()) {
        prop_assume!(one != other);
        let key = SecretKey::<lapwing_wire::capability::Read>::from_seed(seed);
        let subject = Subject::Mailbox(MailboxId::from_bytes(seed), Right::Read);
        let proof = subject.prove(&key, &ChannelBinding::from_bytes(one));
        prop_assert!(subject.check(&key.public(), &ChannelBinding::from_bytes(one), &proof).is_ok());
        prop_assert!(subject.check(&key.public(), &ChannelBinding::from_bytes(other), &proof).is_err());
    }
}

#[test]
fn frm_01_a_frame_that_is_too_long_leaves_nothing_behind() {
    let window = |length: usize| {
        let place = Stored { seq: Seq::new(1), hash: RunningHash::from_bytes([1; 32]) };
        let items = vec![Item { place, envelope: ByteBuf::from(vec![7; length]) }];
        let window = Window { mailbox: MailboxId::from_bytes([2; 32]), newest: Seq::new(1), items };
        Response { id: 2, body: ResponseBody::Window(window) }
    };
    let mut out = encode_frame(&window(1)).unwrap();
    let before = out.clone();
    assert_eq!(encode_frame_onto(&window(MAX_FRAME), &mut out), Err(DecodeError::TooLong));
    assert_eq!(out, before);
    assert_eq!(encode_frame(&window(MAX_FRAME)), Err(DecodeError::TooLong));
    encode_frame_onto(&window(MAX_FRAME - 500), &mut out).unwrap();
    assert!(out.starts_with(&before) && out.len() > MAX_FRAME - 500);
}
