//! In which table of the database a record lies.
//!
//! The database finds its way by separators: beginnings of keys, which it keeps for as long as rows beside them live,
//! whether or not the row they were taken from does. So a key may outlive its row. Where keys are numbers and ids that
//! were drawn here at random, this tells nobody with whom, what or when. Records whose keys say more (a chat's name, a
//! day, the name of a mailbox at a relay, a member) have a table of their own for each kind: it is small, and is written
//! anew, from the rows that live, before the volume is scrubbed after something was removed from it.
//!
//! Rules (docs/records-format.md): REC-01 the kinds with a table of their own; REC-02 what was removed from is noted in
//! the commit that removes; REC-03 and written anew before the scrubbing that ends the session; REC-04 what an older
//! program left in the one table for all is read there, and moved when something of its kind is written.

use super::{
    rows::{
        AlertRow, AuthorRow, BodyKeyRow, DueRow, HeirRow, InvitationRow, MailboxRow, NameRow, PeerRow,
        RelayRow, RenewalDueRow, SeenRow, TakenTicketRow, TrustRow,
    },
    unit::Row,
};

/// A table of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// The one for records of one kind.
    Own(u8, &'static str),
    /// The one for all others. Last: it holds the note of [`REMOVED_FROM`].
    Shared,
}

/// REC-01, in order of their numbers.
const OWN: [(u8, &str); 14] = [
    (RelayRow::TABLE, "records-02"),
    (MailboxRow::TABLE, "records-05"),
    (TrustRow::TABLE, "records-08"),
    (AlertRow::TABLE, "records-09"),
    (PeerRow::TABLE, "records-0d"),
    (AuthorRow::TABLE, "records-0e"),
    (InvitationRow::TABLE, "records-0f"),
    (SeenRow::TABLE, "records-12"),
    (NameRow::TABLE, "records-13"),
    (TakenTicketRow::TABLE, "records-15"),
    (HeirRow::TABLE, "records-17"),
    (BodyKeyRow::TABLE, "records-20"),
    (DueRow::TABLE, "records-24"),
    (RenewalDueRow::TABLE, "records-31"),
];

/// REC-02: key of the note from which tables something was removed since they were last written anew. Its value is a
/// number: bit `n` for the records `n`, bit 0 for the table of all others after REC-04.
pub(super) const REMOVED_FROM: [u8; 2] = [0x00, 3];

impl Place {
    /// Where a record with this key lies.
    pub(super) fn of(key: &[u8]) -> Self {
        let kind = key.first().copied().unwrap_or(0);
        OWN.binary_search_by_key(&kind, |(own, _)| *own)
            .ok()
            .and_then(|at| OWN.get(at))
            .map_or(Self::Shared, |(own, name)| Self::Own(*own, name))
    }

    /// Its name in the database.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Own(_, name) => name,
            Self::Shared => "records",
        }
    }

    /// Its bit in the note.
    pub(super) const fn bit(self) -> u64 {
        match self {
            Self::Own(kind, _) => 1 << kind,
            Self::Shared => 1,
        }
    }

    /// The tables that a note names.
    pub(super) fn noted(bits: u64) -> Vec<Self> {
        OWN.into_iter()
            .map(|(kind, name)| Self::Own(kind, name))
            .chain([Self::Shared])
            .filter(|place| bits & place.bit() != 0)
            .collect()
    }
}

/// A range of keys as pieces of one table each, in order.
pub(super) fn pieces<'k>(from: &'k [u8], to: &'k [u8]) -> Vec<(Place, &'k [u8], &'k [u8])> {
    /// Every number of a kind as a key that begins it.
    static BEGINS: [u8; 256] = {
        let mut all = [0; 256];
        let mut number: u8 = 0;
        while number < u8::MAX {
            number += 1;
            all[number as usize] = number;
        }
        all
    };
    let begin = |kind: u8| BEGINS.get(usize::from(kind)..=usize::from(kind)).unwrap_or_default();
    let mut found = Vec::new();
    let mut at = from;
    for (kind, name) in OWN {
        let (first, end) = (begin(kind), begin(kind + 1));
        if at >= to || to <= first {
            break;
        }
        if at >= end {
            continue;
        }
        if at < first {
            found.push((Place::Shared, at, first));
            at = first;
        }
        found.push((Place::Own(kind, name), at, to.min(end)));
        at = end;
    }
    if at < to {
        found.push((Place::Shared, at, to));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rec_01_each_kind_has_the_table_of_its_number_and_bits_are_distinct() {
        assert!(OWN.is_sorted_by(|one, other| one.0 < other.0), "binary search");
        for (kind, name) in OWN {
            assert_eq!(name, format!("records-{kind:02x}"));
            assert_eq!(Place::of(&[kind, 7]), Place::Own(kind, name));
            assert_eq!(Place::noted(1 << kind), [Place::Own(kind, name)]);
        }
        assert_eq!(Place::of(&REMOVED_FROM), Place::Shared);
        assert_eq!(Place::noted(u64::MAX).len(), OWN.len() + 1);
        assert_eq!(Place::noted(1), [Place::Shared]);
        assert!(Place::noted(0).is_empty());
    }

    #[test]
    fn a_range_falls_into_pieces_that_follow_each_other_and_each_lie_in_one_table() {
        let ends: Vec<Vec<u8>> = (0..=0x40_u8)
            .flat_map(|kind| [vec![kind], vec![kind, 0], vec![kind, 0xff, 1]])
            .chain([vec![], vec![0xff; 64]])
            .collect();
        for from in &ends {
            for to in &ends {
                let pieces = pieces(from, to);
                if from >= to {
                    assert!(pieces.is_empty(), "{from:x?} {to:x?}");
                    continue;
                }
                assert_eq!((pieces[0].1, pieces[pieces.len() - 1].2), (&from[..], &to[..]));
                assert!(pieces.iter().all(|(_, from, to)| from < to));
                assert!(pieces.windows(2).all(|pair| pair[0].2 == pair[1].1 && pair[0].0 != pair[1].0));
                for key in ends.iter().filter(|key| !key.is_empty()) {
                    let piece = pieces.iter().find(|(_, from, to)| (*from..*to).contains(&&key[..]));
                    assert_eq!(piece.is_some(), (from..to).contains(&key));
                    assert!(piece.is_none_or(|(place, ..)| *place == Place::of(key)), "{key:x?}");
                }
            }
        }
    }
}
