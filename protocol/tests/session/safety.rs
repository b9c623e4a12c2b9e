//! Safety numbers against a second computation, and signed statements.

use lapwing_protocol::{
    identity::IdentityKey,
    labels::Label,
    session::{LocalIdentity, SafetyNumber},
    signing::{InvalidSignature, Signature},
};
use sha2::{Digest, Sha512};

use crate::support::{private_key, rng};

/// Signal's numeric fingerprint, from its description.
fn half(key: &IdentityKey) -> String {
    let typed = [&[5][..], key.as_bytes()].concat();
    let id = [b"lapwing/1 safety number", &key.as_bytes()[..]].concat();
    let mut hash = Sha512::digest([&[0, 0], &typed[..], &id, &typed].concat());
    for _ in 1..5_200 {
        hash = Sha512::digest([&hash[..], &typed].concat());
    }
    hash[..30]
        .chunks(5)
        .map(|five| format!("{:05}", five.iter().fold(0_u64, |n, byte| n << 8 | u64::from(*byte)) % 100_000))
        .collect()
}

fn identities() -> (LocalIdentity, LocalIdentity) {
    (LocalIdentity::generate(&mut rng(150)).unwrap(), LocalIdentity::generate(&mut rng(151)).unwrap())
}

#[test]
fn ses_12_the_number_is_the_same_for_both_and_as_described() {
    let (alice, bob) = identities();
    let number = SafetyNumber::of(alice.public(), bob.public()).unwrap();
    assert_eq!(number, SafetyNumber::of(bob.public(), alice.public()).unwrap());
    let mut halves = [half(alice.public()), half(bob.public())];
    halves.sort();
    assert_eq!(number.digits(), halves.concat());

    let carol = LocalIdentity::generate(&mut rng(152)).unwrap();
    assert_ne!(number, SafetyNumber::of(alice.public(), carol.public()).unwrap());
}

#[test]
fn ses_12_the_number_is_shown_in_groups_and_compared_in_any() {
    let (alice, bob) = identities();
    let number = SafetyNumber::of(alice.public(), bob.public()).unwrap();
    let shown = number.to_string();
    assert_eq!(shown.lines().count(), 3);
    assert!(shown.split_whitespace().all(|group| group.len() == 5));
    assert_eq!(shown.split_whitespace().count(), 12);
    assert!(number.matches(&shown));
    assert!(number.matches(number.digits()));
    let digits = number.digits();
    let last = if digits.ends_with('0') { '1' } else { '0' };
    assert!(!number.matches(&format!("{}{last}", &digits[..59])));
    assert!(!number.matches(&digits[..59]));
    assert!(!number.matches(&format!("{digits}0")));
    assert!(!number.matches(""));
    assert_eq!(format!("{number:?}"), "SafetyNumber(..)");
}

#[test]
fn ses_13_a_signature_counts_for_its_label_statement_and_signer_only() {
    const ONE: Label = Label::new("test/1 one");
    const OTHER: Label = Label::new("test/1 on");
    let (alice, bob) = identities();
    let signature = alice.sign(ONE, b"statement", &mut rng(153)).unwrap();
    assert_eq!(signature.verify(alice.public(), ONE, b"statement"), Ok(()));
    assert_eq!(signature.verify(alice.public(), ONE, b"statemenT"), Err(InvalidSignature));
    // The label's length is part of what is signed: moving a byte from label to statement does not help.
    assert_eq!(signature.verify(alice.public(), OTHER, b"estatement"), Err(InvalidSignature));
    assert_eq!(signature.verify(bob.public(), ONE, b"statement"), Err(InvalidSignature));
    for bit in 0..512 {
        let mut bytes = *signature.as_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let altered = Signature::from_bytes(bytes);
        assert_eq!(altered.verify(alice.public(), ONE, b"statement"), Err(InvalidSignature), "bit {bit}");
    }
    assert_eq!(format!("{signature:?}"), "Signature(..)");
}

#[test]
fn ses_13_a_pre_key_signature_is_no_statement_and_the_other_way_round() {
    const LABEL: Label = Label::new("test/1 statement");
    let (alice, bob) = identities();
    let pre_key = [&[5][..], bob.public().as_bytes()].concat();
    let key = private_key(&alice);
    let as_pre_key = key.calculate_signature(&pre_key, &mut rng(154)).unwrap();
    let as_pre_key = Signature::from_bytes(as_pre_key.as_ref().try_into().unwrap());
    assert_eq!(as_pre_key.verify(alice.public(), LABEL, &pre_key), Err(InvalidSignature));
    let statement = alice.sign(LABEL, &pre_key, &mut rng(155)).unwrap();
    let public = key.public_key().unwrap();
    assert!(!public.verify_signature(&pre_key, statement.as_bytes()));
}
