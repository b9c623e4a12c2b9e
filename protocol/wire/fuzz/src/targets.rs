//! What each fuzz target does with its input. Shared with the test that replays the corpus.

use lapwing_wire::{
    address::{AccessTicket, RelayAddress},
    anchor::{Entry, EntryKeys},
    armor,
    capability::PublicKey,
    codec,
    frame::{Notice, Request, Response, decode_request, encode_frame, frame_length},
    ids::{AnchorId, TripwireId},
    limits::{FRAME_PREFIX, MAX_FRAME},
    oprf::{Blinded, Blinding, Evaluated, OprfKey},
    sharing::{SHARE_LENGTH, Share, combine},
    tripwire::{ListKey, SealedList, Token, TokenRecord},
};
use rand_chacha::rand_core::SeedableRng;
use serde::{Serialize, de::DeserializeOwned};
use serde_bytes::ByteBuf;

/// What is understood is said again in a way that is understood alike.
fn stable<T: Serialize + DeserializeOwned + PartialEq>(value: &T) {
    let frame = encode_frame(value).expect("what came in one frame fits into one");
    let again: T = codec::decode(&frame[FRAME_PREFIX..], MAX_FRAME).expect("our own frames are understood");
    assert!(again == *value, "a round trip changes nothing");
}

/// A frame with its prefix, as relay and client read it.
pub fn frame(data: &[u8]) {
    let Some((prefix, body)) = data.split_first_chunk::<FRAME_PREFIX>() else { return };
    if let Ok(length) = frame_length(*prefix) {
        assert!(length <= MAX_FRAME);
    }
    if let Ok(Ok(request)) = decode_request(body) {
        stable::<Request>(&request);
    }
    if let Ok(response) = codec::decode::<Response>(body, MAX_FRAME) {
        stable(&response);
    }
    if let Ok(notice) = codec::decode::<Notice>(body, MAX_FRAME) {
        stable(&notice);
    }
}

/// Addresses, access tickets, text made of bytes.
pub fn text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(address) = text.parse::<RelayAddress>() {
        let again: RelayAddress = address.to_string().parse().expect("our own text is understood");
        assert!(again == address);
        assert!(address.host().chars().all(|c| c.is_ascii_graphic()), "a host can be shown");
    }
    if let Ok(ticket) = AccessTicket::from_text(text) {
        let again = AccessTicket::from_text(&ticket.to_text()).expect("our own text is understood");
        assert!(again.secret().public() == ticket.secret().public());
    }
    if let Ok(bytes) = armor::decode("lapwing", text) {
        assert!(armor::decode("lapwing", &armor::encode("lapwing", &bytes)).as_deref() == Ok(&bytes));
    }
}

/// Sealed records and lists under a key that the corpus knows.
pub fn tripwire(data: &[u8]) {
    let token = Token::from_bytes([9; 32]);
    let record = TokenRecord { lookup: token.lookup(), sealed: ByteBuf::from(data) };
    if let Some(open) = record.open(&token) {
        assert!(format!("{open:?}") == "OpenRecord(..)");
    }
    // RFC 8032 section 7.1, test 1: the owner of the list in the corpus.
    let owner = PublicKey::from_bytes([
        0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a, 0x0e,
        0xe1, 0x72, 0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a,
    ]);
    let id = TripwireId::of_owner(&owner);
    let list = SealedList::from_bytes(data.to_vec());
    if let Some(actions) = list.open(&id, &ListKey::from_bytes([0x55; 32])) {
        assert!(list.is_acceptable());
        let bytes = codec::encode(&actions);
        let again: Vec<lapwing_wire::tripwire::Action> =
            codec::decode(&bytes, MAX_FRAME).expect("our own lists are understood");
        assert!(again == actions);
    }
}

/// Entries of anchors under a proof that the corpus knows, group elements, shares.
pub fn anchor(data: &[u8]) {
    // RFC 8032 section 7.1, test 1: the owner of the entry in the corpus.
    let owner = PublicKey::from_bytes([
        0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a, 0x0e,
        0xe1, 0x72, 0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a,
    ]);
    let id = AnchorId::of_owner(&owner);
    if let Ok(bytes) = data.try_into() {
        let entry = Entry::from_bytes(bytes);
        let keys = EntryKeys::derive(&id, &[0x51; 64]);
        if let Some(deed) = entry.open(&id, keys.proof()) {
            // The badge is not under the deed's seal: an entry may say that it is of no group.
            let _ = entry.is_of(&deed.group);
        }
        let _ = keys.open_share(&entry.share());
        let mark = entry.mark();
        let _ = keys.open_mark(&mark);
        assert!(entry.with_mark(&mark) == entry);
    }
    if let Ok(bytes) = data.try_into() {
        let (blinded, evaluated) = (Blinded::from_bytes(bytes), Evaluated::from_bytes(bytes));
        let key = OprfKey::from_bytes([1; 32]);
        assert!(key.evaluate(&blinded).is_ok() == blinded.is_element());
        let mut rng = rand_chacha::ChaCha20Rng::from_seed([2; 32]);
        if let Ok((blinding, _)) = Blinding::begin(b"input", &mut rng) {
            let _ = blinding.finish(&evaluated);
        }
    }
    let shares: Vec<Share> = data
        .chunks_exact(SHARE_LENGTH)
        .filter_map(|bytes| bytes.try_into().ok())
        .map(Share::from_bytes)
        .take(8)
        .collect();
    let borrowed: Vec<&Share> = shares.iter().collect();
    for threshold in 0..=borrowed.len() {
        let _ = combine(&borrowed, threshold);
    }
}
