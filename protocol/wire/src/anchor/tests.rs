//! Entries and what opens them.

use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use super::*;

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::from_seed([1; 32])
}

const ANCHOR: AnchorId = AnchorId::from_bytes([2; 32]);

fn made(rng: &mut ChaCha20Rng, keys: &EntryKeys, deed: &Deed) -> Entry {
    let share = keys.seal_share(&VaultShare::from_bytes([6; 32]), rng);
    let mark = keys.seal_mark(41, rng);
    Entry::seal(&ANCHOR, keys.proof(), &share, &mark, deed, rng)
}

#[test]
fn anc_02_an_entry_opens_with_its_proof_at_its_anchor_only() {
    let mut rng = rng();
    let keys = EntryKeys::derive(&ANCHOR, &[3; 64]);
    let other = EntryKeys::derive(&ANCHOR, &[4; 64]);
    for (fires, destroys) in [(None, false), (Some(Token::from_bytes([5; 32])), false), (None, true)] {
        let deed = Deed { fires, destroys, group: GroupKey::generate(&mut rng) };
        let entry = made(&mut rng, &keys, &deed);
        assert_eq!(entry.open(&ANCHOR, keys.proof()), Some(deed));
        assert_eq!(entry.open(&ANCHOR, other.proof()), None);
        assert_eq!(entry.open(&AnchorId::from_bytes([9; 32]), keys.proof()), None);
        assert_eq!(Entry::random(&mut rng).open(&ANCHOR, keys.proof()), None);
        // Whatever is changed of what the relay reads, it does nothing.
        for at in (0..VERIFIER).chain(VERIFIER + SHARE_LENGTH..VERIFIER + SHARE_LENGTH + DEED) {
            let mut bytes = *entry.as_bytes();
            bytes[at] ^= 1;
            assert_eq!(Entry::from_bytes(bytes).open(&ANCHOR, keys.proof()), None);
        }
    }
}

#[test]
fn anc_03_share_and_serial_are_for_the_passphrase_and_not_for_the_proof() {
    let mut rng = rng();
    let keys = EntryKeys::derive(&ANCHOR, &[3; 64]);
    let other = EntryKeys::derive(&AnchorId::from_bytes([9; 32]), &[3; 64]);
    let deed = Deed { fires: None, destroys: false, group: GroupKey::generate(&mut rng) };
    let entry = made(&mut rng, &keys, &deed);
    assert_eq!(keys.open_share(&entry.share()), Some(VaultShare::from_bytes([6; 32])));
    assert_eq!(keys.open_mark(&entry.mark()), Some(41));
    assert_eq!(other.open_share(&entry.share()), None);
    assert_eq!(other.open_mark(&entry.mark()), None);
    let next = entry.with_mark(&keys.seal_mark(42, &mut rng));
    assert_eq!(keys.open_mark(&next.mark()), Some(42));
    assert_eq!(next.open(&ANCHOR, keys.proof()), Some(deed));
    // What the relay is shown is no key of what it must not read.
    let proof = *keys.proof().expose();
    for label in [labels::ANCHOR_SHARE, labels::ANCHOR_MARK] {
        let sealed = entry.share();
        assert!(open(&proof, &sealed.0, label, &ANCHOR).is_none());
        assert!(open(&keys.proof().deed_key(), &sealed.0, label, &ANCHOR).is_none());
    }
}

#[test]
fn anc_02_entries_of_a_group_are_found_by_its_key_only() {
    let mut rng = rng();
    let keys = EntryKeys::derive(&ANCHOR, &[3; 64]);
    let (one, two) = (GroupKey::generate(&mut rng), GroupKey::generate(&mut rng));
    let entry = |rng: &mut ChaCha20Rng, group: &GroupKey| {
        made(rng, &keys, &Deed { fires: None, destroys: false, group: group.clone() })
    };
    let [a, b, c] = [&one, &one, &two].map(|group| entry(&mut rng, group));
    assert!(a.is_of(&one) && b.is_of(&one) && c.is_of(&two));
    assert!(!a.is_of(&two) && !c.is_of(&one) && !Entry::random(&mut rng).is_of(&one));
    // Nothing that two entries of one group have in common is in both of them: only the verifier is, of one passphrase.
    let shared = a.as_bytes()[VERIFIER..]
        .windows(8)
        .filter(|part| b.as_bytes()[VERIFIER..].windows(8).any(|other| other == *part));
    assert_eq!(shared.count(), 0);
}

#[test]
fn debug_shows_no_byte() {
    let mut rng = rng();
    let keys = EntryKeys::derive(&ANCHOR, &[3; 64]);
    let deed = Deed { fires: None, destroys: false, group: GroupKey::from_bytes([7; 32]) };
    let text = format!(
        "{keys:?} {:?} {:?} {:?}",
        keys.proof(),
        Entry::random(&mut rng),
        OuterKey::from_bytes([1; 32])
    );
    assert_eq!(text, "EntryKeys(..) Proof(..) Entry(..) OuterKey(..)");
    assert_eq!(format!("{deed:?}"), "Deed { fires: None, destroys: false, group: GroupKey(..) }");
}
