//! How a relay's key changes: each key names the next one, for good.
//!
//! ```text
//! succession = Ed25519 public key of the relay | RelayKey of the next | signature by the first key
//! signature  = Ed25519( "lapwing/1 succession" 00 { length u32 BE | next (32) } )
//! lineage    = successions in the order of time, each by the key that the one before names; at most MAX_LINEAGE
//! ```
//! Invariants: SUC-01 a lineage is followed only from a key that is pinned, along signatures, to the key that proved
//! itself in the handshake; SUC-02 whoever has followed accepts none of the earlier keys any more.
//! Known gap: whoever stole an earlier key can sign another successor for those who have not followed yet.

use serde::{Deserialize, Serialize};

use crate::{
    address::RelayKey,
    capability::{PublicKey, RelayIdentity, SecretKey, Signature},
    labels,
    limits::MAX_LINEAGE,
};

/// SubjectPublicKeyInfo (RFC 8410) of an Ed25519 key, up to its 32 bytes.
const SPKI_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The name of the relay with this key.
pub fn relay_key(key: &PublicKey<RelayIdentity>) -> RelayKey {
    let mut spki = [0; SPKI_HEAD.len() + 32];
    let (head, rest) = spki.split_at_mut(SPKI_HEAD.len());
    head.copy_from_slice(&SPKI_HEAD);
    rest.copy_from_slice(key.as_bytes());
    RelayKey::of_spki(&spki)
}

/// A relay's word that another key is its own from now on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Succession {
    by: PublicKey<RelayIdentity>,
    next: RelayKey,
    signature: Signature,
}

impl Succession {
    /// The word of a key for the next one.
    pub fn signed(by: &SecretKey<RelayIdentity>, next: RelayKey) -> Self {
        let signature = by.sign(labels::SUCCESSION, &[next.as_bytes()]);
        Self { by: by.public(), next, signature }
    }

    /// Whose word it is, whether or not the signature holds.
    pub fn claimed_by(&self) -> RelayKey {
        relay_key(&self.by)
    }

    /// Which key it names, whether or not the signature holds.
    pub const fn claimed_next(&self) -> &RelayKey {
        &self.next
    }

    fn holds(&self) -> bool {
        self.by.verify(labels::SUCCESSION, &[self.next.as_bytes()], &self.signature).is_ok()
    }
}

/// SUC-01: whether signatures lead from one key to the other.
///
/// Every step is checked; what leads elsewhere is ignored. A key is left once, by the first statement of it, so that no
/// lineage goes round in circles.
pub fn leads(lineage: &[Succession], from: &RelayKey, to: &RelayKey) -> bool {
    let mut at = *from;
    for step in lineage.iter().take(MAX_LINEAGE) {
        if at == *to {
            break;
        }
        if step.claimed_by() == at && step.holds() {
            at = step.next;
        }
    }
    at == *to && from != to
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SecretKey<RelayIdentity> {
        SecretKey::from_seed([byte; 32])
    }

    fn name(byte: u8) -> RelayKey {
        relay_key(&key(byte).public())
    }

    fn step(from: u8, to: u8) -> Succession {
        Succession::signed(&key(from), name(to))
    }

    #[test]
    fn suc_01_a_lineage_leads_along_its_signatures_only() {
        let lineage = [step(1, 2), step(2, 3), step(3, 4)];
        for (from, to) in [(1, 2), (1, 4), (2, 4), (3, 4)] {
            assert!(leads(&lineage, &name(from), &name(to)), "{from} {to}");
        }
        for (from, to) in [(4, 1), (2, 1), (1, 5), (5, 4), (1, 1)] {
            assert!(!leads(&lineage, &name(from), &name(to)), "{from} {to}");
        }
        assert!(!leads(&[step(1, 2), step(3, 4)], &name(1), &name(4)), "a gap");
        assert!(!leads(&[step(2, 3), step(1, 2)], &name(1), &name(3)), "out of order");
        assert!(!leads(&[], &name(1), &name(2)));
        let mut forged = step(9, 3);
        forged.by = key(1).public();
        assert!(!leads(&[forged], &name(1), &name(3)), "signed by another key");
        let mut bent = step(1, 2);
        bent.next = name(3);
        assert!(!leads(&[bent], &name(1), &name(3)), "another key than was signed");
    }

    #[test]
    fn suc_01_a_lineage_is_bounded() {
        let count = u8::try_from(MAX_LINEAGE).unwrap();
        let lineage: Vec<_> = (1..=count + 1).map(|n| step(n, n + 1)).collect();
        assert!(leads(&lineage, &name(1), &name(count + 1)));
        assert!(!leads(&lineage, &name(1), &name(count + 2)));
    }
}
