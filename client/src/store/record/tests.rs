use lapwing_wire::codec;
use proptest::prelude::*;
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_bytes::ByteBuf;

use super::*;

/// Every kind of thing that records are made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Everything {
    small: u8,
    large: u64,
    signed: i64,
    text: String,
    letter: Option<bool>,
    bytes: ByteBuf,
    #[serde(with = "serde_bytes")]
    name: [u8; 16],
    plain: [u8; 4],
    kind: Kind,
    list: Vec<(u32, Kind)>,
    map: std::collections::BTreeMap<String, Wrapped>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    later: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Wrapped(Option<ByteBuf>);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Nothing,
    One(u16),
    Two(u8, String),
    Named { at: Option<u64>, all: Vec<bool> },
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Nothing),
        any::<u16>().prop_map(Kind::One),
        any::<(u8, String)>().prop_map(|(number, text)| Kind::Two(number, text)),
        any::<(Option<u64>, Vec<bool>)>().prop_map(|(at, all)| Kind::Named { at, all }),
    ]
}

prop_compose! {
    fn everything()(
        numbers: (u8, u64, i64, Option<bool>, Option<u32>),
        text: String,
        bytes: Vec<u8>,
        name: [u8; 16],
        plain: [u8; 4],
        one in kind(),
        list in prop::collection::vec((any::<u32>(), kind()), 0..4),
        map: std::collections::BTreeMap<String, Option<Vec<u8>>>,
    ) -> Everything {
        let (small, large, signed, letter, later) = numbers;
        let map = map.into_iter().map(|(key, value)| (key, Wrapped(value.map(ByteBuf::from)))).collect();
        Everything {
            small, large, signed, text, letter, bytes: ByteBuf::from(bytes), name, plain, kind: one, list, map, later,
        }
    }
}

/// What a list shows of it.
#[derive(Debug, PartialEq, Deserialize)]
struct Part {
    text: String,
    later: Option<IgnoredAny>,
}

proptest! {
    #[test]
    fn what_was_written_is_read_and_a_part_of_it_too(value in everything()) {
        let bytes = codec::encode(&value);
        prop_assert_eq!(read::<Everything>(&bytes).unwrap(), value.clone());
        let part: Part = read(&bytes).unwrap();
        prop_assert_eq!(part.text, value.text);
        prop_assert_eq!(part.later.is_some(), value.later.is_some());
        prop_assert!(read::<IgnoredAny>(&bytes).is_ok());
    }

    #[test]
    fn whatever_is_read_reads_the_same_with_the_careful_reader(
        value in everything(),
        at: prop::sample::Index,
        byte: u8,
        cut: prop::sample::Index,
    ) {
        let mut bytes = codec::encode(&value);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let cut = cut.index(2 * bytes.len());
        bytes.truncate(cut.max(1));
        if let Ok(fast) = read::<Everything>(&bytes) {
            prop_assert_eq!(codec::decode::<Everything>(&bytes, usize::MAX).unwrap(), fast);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _read = read::<Everything>(&bytes);
        let _skipped = read::<IgnoredAny>(&bytes);
    }
}

#[test]
fn depth_and_claimed_lengths_and_bytes_behind_the_end_are_refused() {
    assert!(read::<IgnoredAny>(&[0x81; 60_000]).is_err());
    assert!(read::<ByteBuf>(&[0x5b, 0x40, 0, 0, 0, 0, 0, 0, 0, 1]).is_err());
    assert!(read::<Vec<u8>>(&[0x9b, 0x40, 0, 0, 0, 0, 0, 0, 0, 1]).is_err());
    assert!(read::<u8>(&[7, 0]).is_err());
    // Indefinite lengths, tags, floats: the careful reader's.
    for unusual in [&[0x9f, 0xff][..], &[0xc0, 0x60], &[0xf9, 0, 0], &[0xf7]] {
        assert!(read::<IgnoredAny>(unusual).is_err());
    }
}
