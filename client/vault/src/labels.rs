//! Every domain-separation label of the container format. A label names purpose and format version; changing
//! a format means a new label, never a new meaning.

/// Trial key that opens the inner layer of a slot: `SLOT ‖ slot index`.
pub(crate) const SLOT: &[u8] = b"lapwing vault 1 slot";
/// Trial key that opens the outer-key box of a slot: `OPENER ‖ slot index`.
pub(crate) const OPENER: &[u8] = b"lapwing vault 1 opener";
/// From the header key: the key of the MAC over a header copy.
pub(crate) const HEADER_MAC: &[u8] = b"lapwing vault 1 header mac";
/// From the header key: the key that seals the ring of openers.
pub(crate) const HEADER_RING: &[u8] = b"lapwing vault 1 header ring";
/// From the header key: the key that seals the generation.
pub(crate) const HEADER_GENERATION: &[u8] = b"lapwing vault 1 header generation";
/// From a volume key: the volume's name.
pub(crate) const VOLUME_ID: &[u8] = b"lapwing vault 1 volume id";
/// From a volume key: the allocation units.
pub(crate) const ALLOCATION: &[u8] = b"lapwing vault 1 allocation";
/// From a volume key: the key table.
pub(crate) const KEY_TABLE: &[u8] = b"lapwing vault 1 key table";
/// From the key of a key table: where in it a name is looked for first.
pub(crate) const KEY_PLACE: &[u8] = b"lapwing vault 1 place of a key";
/// From a volume key: the superblocks.
pub(crate) const SUPERBLOCK: &[u8] = b"lapwing vault 1 superblock";
/// From a volume key: the data units.
pub(crate) const UNITS: &[u8] = b"lapwing vault 1 units";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_unique_and_none_is_a_prefix_of_another() {
        let all = [
            SLOT,
            OPENER,
            HEADER_MAC,
            HEADER_RING,
            HEADER_GENERATION,
            VOLUME_ID,
            ALLOCATION,
            KEY_TABLE,
            KEY_PLACE,
            SUPERBLOCK,
            UNITS,
        ];
        for (i, one) in all.iter().enumerate() {
            for (j, other) in all.iter().enumerate() {
                assert!(i == j || !one.starts_with(other), "{i} {j}");
            }
        }
    }
}
