//! What a record may come to without another word in it.
//!
//! ```text
//! measure = bytes of the record, with every number and every null in it as long as a number can be: 9 bytes
//! ```
//!
//! Invariants: a record is never longer than its measure; one that differs from another in numbers alone, and in times that
//! were not known, has the same. So where the sum of the measures does not grow, numbers can be counted up as often as one
//! likes, and the records never come to more bytes than that sum (VLT-56). They may come closer to it: a list of short
//! numbers has up to nine times its bytes as its measure, and a text of the same measure may take its place. That sum, not
//! what the records come to now, is what bounds a volume in which nothing but deleting is allowed.

/// Bytes of the longest number: its head and 64 bits.
const NUMBER_LEN: usize = 9;

/// The measure of a record. What is not CBOR as records are written counts as it is.
pub(super) fn measure(record: &[u8]) -> usize {
    record.len() + growth(record).unwrap_or(0)
}

/// How many bytes its numbers could take beyond those that they take now.
fn growth(mut rest: &[u8]) -> Option<usize> {
    let mut more = 0;
    while let Some((head, tail)) = rest.split_first() {
        let (kind, short) = (head >> 5, head & 0x1f);
        let len_len: usize = match short {
            0..24 => 0,
            24 => 1,
            25 => 2,
            26 => 4,
            27 => 8,
            _ => return None,
        };
        let (argument, tail) = tail.split_at_checked(len_len)?;
        rest = match kind {
            0 | 1 => {
                more += NUMBER_LEN - 1 - len_len;
                tail
            }
            // Bytes and texts.
            2 | 3 => {
                let len = if argument.is_empty() {
                    u64::from(short)
                } else {
                    argument.iter().fold(0, |len, byte| len << 8 | u64::from(*byte))
                };
                tail.split_at_checked(usize::try_from(len).ok()?)?.1
            }
            // Lists and maps: what they hold follows.
            4 | 5 => tail,
            7 if *head == 0xf6 => {
                more += NUMBER_LEN - 1;
                tail
            }
            7 if len_len == 0 => tail,
            _ => return None,
        };
    }
    Some(more)
}

#[cfg(test)]
mod tests {
    use lapwing_wire::{codec, time::Timestamp};
    use proptest::prelude::*;
    use serde::Serialize;
    use serde_bytes::ByteBuf;

    use super::*;

    #[derive(Serialize)]
    struct Record {
        name: String,
        known: bool,
        read_to: u64,
        below: i64,
        last: Option<Timestamp>,
        body: ByteBuf,
        ids: Vec<ByteBuf>,
        at: Vec<Timestamp>,
    }

    fn record(words: (&str, &[u8]), numbers: (u64, i64, Option<u64>)) -> Vec<u8> {
        let body = ByteBuf::from(words.1.to_vec());
        codec::encode(&Record {
            name: words.0.to_owned(),
            known: numbers.0.is_multiple_of(2),
            read_to: numbers.0,
            below: numbers.1,
            last: numbers.2.map(Timestamp::from_millis),
            ids: vec![body.clone(), ByteBuf::new()],
            body,
            at: vec![Timestamp::from_millis(numbers.0); 2],
        })
    }

    proptest! {
        #[test]
        fn numbers_alone_do_not_change_it_and_no_record_is_longer(
            name: String,
            body in prop::collection::vec(any::<u8>(), 0..400),
            numbers: (u64, i64, Option<u64>),
        ) {
            let (words, most) = ((name.as_str(), body.as_slice()), (u64::MAX, i64::MIN, Some(u64::MAX)));
            let now = record(words, numbers);
            prop_assert!(now.len() <= measure(&now));
            prop_assert_eq!(measure(&now), record(words, most).len());
        }

        #[test]
        fn every_other_byte_counts(body in prop::collection::vec(any::<u8>(), 0..70_000), more in 1usize..300) {
            let longer = [body.as_slice(), &vec![0; more]].concat();
            let of = |body: &[u8]| measure(&record(("a", body), (1, -1, None)));
            prop_assert!(of(&longer) >= of(&body) + 2 * more);
        }

        #[test]
        fn what_is_no_record_counts_as_it_is_or_more_and_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(measure(&bytes) >= bytes.len());
        }
    }

    #[test]
    fn a_length_that_lies_counts_as_it_is() {
        for bytes in [
            &[0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1][..],
            &[0x42, 1],
            &[0x19, 1],
            &[0x9f, 1],
        ] {
            assert_eq!(measure(bytes), bytes.len());
        }
    }
}
