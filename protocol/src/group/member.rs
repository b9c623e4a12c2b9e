//! Members, roles, and the roster.

use std::{collections::BTreeMap, fmt};

use lapwing_wire::ids::labelled_hash;
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteArray, ByteBuf};

use super::{
    error::GroupError,
    id::{MemberId, RosterHash},
};
use crate::{
    identity::IdentityKey,
    labels,
    session::{Bundle, BundleIn, MAX_BUNDLE},
};

/// GRP-16: most members of a group. A newcomer's client sends a sender key to each, some 3 KiB apiece: at 500 that
/// is a minute of a slow link. An `Add` beyond it is refused.
pub const MAX_MEMBERS: usize = 500;

/// GRP-16: longest name of a person or group, in bytes of UTF-8.
pub const MAX_NAME: usize = 64;

/// What a member may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Role {
    /// Made the group. May do everything, and is not removed by others.
    Owner,
    /// Adds and removes members, closes the group.
    Admin,
    /// Reads and writes.
    Member,
    /// Reads.
    Reader,
}

impl Role {
    /// GRP-05: whether the role may author commits.
    #[must_use]
    pub const fn may_commit(self) -> bool {
        matches!(self, Self::Owner | Self::Admin)
    }

    /// GRP-14: whether the role may write messages.
    #[must_use]
    pub const fn may_write(self) -> bool {
        matches!(self, Self::Owner | Self::Admin | Self::Member)
    }

    /// GRP-12: the role's byte in the roster hash.
    const fn byte(self) -> u8 {
        match self {
            Self::Owner => 1,
            Self::Admin => 2,
            Self::Member => 3,
            Self::Reader => 4,
        }
    }
}

/// A member as a commit describes it.
///
/// CBOR map `{ "i": identity 32, "b": bundle, "n": name, "r": role }`.
#[derive(Clone, PartialEq, Eq)]
pub struct MemberEntry {
    /// The identity that this person has in this group.
    pub identity: IdentityKey,
    /// An encoded bundle for many uses, with which other members begin sessions.
    pub bundle: Vec<u8>,
    /// How the person is called in this group. Untrusted text, unique within the roster.
    pub name: String,
    /// What the person may do.
    pub role: Role,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct RawMember {
    i: ByteArray<32>,
    b: ByteBuf,
    n: String,
    r: Role,
}

impl MemberEntry {
    /// The member's id.
    #[must_use]
    pub fn id(&self) -> MemberId {
        MemberId::of(&self.identity)
    }

    /// The bundle, with its checks: signatures, keys, and that it belongs to this identity.
    ///
    /// # Errors
    /// [`GroupError::BadMember`].
    pub fn verified_bundle(&self) -> Result<Bundle, GroupError> {
        if self.bundle.len() > MAX_BUNDLE {
            return Err(GroupError::BadMember);
        }
        let bundle =
            BundleIn::decode(&self.bundle).and_then(BundleIn::verify).map_err(|_| GroupError::BadMember)?;
        if *bundle.identity() == self.identity { Ok(bundle) } else { Err(GroupError::BadMember) }
    }

    pub(crate) fn raw(&self) -> RawMember {
        let Self { identity, bundle, name, role } = self;
        RawMember {
            i: ByteArray::new(*identity.as_bytes()),
            b: ByteBuf::from(bundle.clone()),
            n: name.clone(),
            r: *role,
        }
    }

    pub(crate) fn from_raw(raw: RawMember) -> Result<Self, GroupError> {
        let RawMember { i, b, n, r } = raw;
        let identity = IdentityKey::from_bytes(*i).map_err(|_| GroupError::BadMember)?;
        if b.len() > MAX_BUNDLE {
            return Err(GroupError::BadMember);
        }
        check_name(&n)?;
        Ok(Self { identity, bundle: b.into_vec(), name: n, role: r })
    }
}

impl fmt::Debug for MemberEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { identity: _, bundle: _, name: _, role: _ } = self;
        f.write_str("MemberEntry(..)")
    }
}

/// GRP-16: a name has 1 to [`MAX_NAME`] bytes, no control characters, no space at its ends.
pub(crate) fn check_name(name: &str) -> Result<(), GroupError> {
    let good = !name.is_empty()
        && name.len() <= MAX_NAME
        && name.trim() == name
        && !name.chars().any(char::is_control);
    if good { Ok(()) } else { Err(GroupError::BadName) }
}

/// A member's place in the roster.
#[derive(Clone)]
struct Seat {
    entry: MemberEntry,
    /// Number of the commit that added the member.
    since: u64,
}

/// Who is in a group.
#[derive(Clone, Default)]
pub struct Roster(BTreeMap<MemberId, Seat>);

impl Roster {
    /// The member with this id.
    #[must_use]
    pub fn get(&self, id: &MemberId) -> Option<&MemberEntry> {
        self.0.get(id).map(|seat| &seat.entry)
    }

    /// Number of the commit that added the member: whose is smaller is senior.
    #[must_use]
    pub fn since(&self, id: &MemberId) -> Option<u64> {
        self.0.get(id).map(|seat| seat.since)
    }

    /// Whether somebody is a member.
    #[must_use]
    pub fn contains(&self, id: &MemberId) -> bool {
        self.0.contains_key(id)
    }

    /// How many members there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nobody, which only an empty roster of a future format could be.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All members in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (&MemberId, &MemberEntry)> {
        self.0.iter().map(|(id, seat)| (id, &seat.entry))
    }

    /// The member with this name; case does not matter.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<(&MemberId, &MemberEntry)> {
        let wanted = folded(name);
        self.iter().find(|(_, entry)| folded(&entry.name) == wanted)
    }

    /// A valid name that nobody has, as close to `wanted` as possible: with control characters and surrounding space
    /// removed, shortened, and numbered (`ann 2`) if taken.
    #[must_use]
    pub fn unique_name(&self, wanted: &str) -> String {
        let clean: String = wanted.chars().filter(|c| !c.is_control()).collect();
        let clean = match clean.trim() {
            "" => "member",
            name => name,
        };
        let base = shortened(clean, MAX_NAME).to_owned();
        if self.by_name(&base).is_none() {
            return base;
        }
        // One of these is free: there are more of them than members.
        for number in 2..=self.len() + 2 {
            let tail = format!(" {number}");
            let name = format!("{}{tail}", shortened(clean, MAX_NAME - tail.len()));
            if self.by_name(&name).is_none() {
                return name;
            }
        }
        base
    }

    /// GRP-12: `SHA-256( "lapwing/1 roster" 00 | 8 | epoch u64 BE | length | { member id 32 | role 1 }* )`, members in
    /// the order of their ids.
    #[must_use]
    pub fn hash(&self, epoch: u64) -> RosterHash {
        let mut members = Vec::with_capacity(self.0.len() * 33);
        for (id, entry) in self.iter() {
            members.extend_from_slice(id.as_bytes());
            members.push(entry.role.byte());
        }
        RosterHash::from_bytes(labelled_hash(labels::ROSTER.as_bytes(), &[&epoch.to_be_bytes(), &members]))
    }

    pub(super) fn insert(&mut self, entry: MemberEntry, since: u64) {
        self.0.insert(entry.id(), Seat { entry, since });
    }

    pub(super) fn remove(&mut self, id: &MemberId) {
        self.0.remove(id);
    }
}

impl fmt::Debug for Roster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Roster(..)")
    }
}

fn folded(name: &str) -> String {
    name.to_lowercase()
}

/// The longest start of `name` that has at most `max` bytes, ends between characters and not in a space.
fn shortened(name: &str, max: usize) -> &str {
    let mut end = name.len().min(max);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.get(..end).unwrap_or_default().trim_end()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing;

    fn named(names: &[&str]) -> Roster {
        let mut roster = Roster::default();
        let (_, entry) = testing::person(1, "x");
        for (i, name) in names.iter().enumerate() {
            // Only the id matters here: each gets a seat of its own.
            let mut id = [0; 32];
            id[0] = u8::try_from(i).unwrap();
            let seat = Seat { entry: MemberEntry { name: (*name).to_owned(), ..entry.clone() }, since: 0 };
            roster.0.insert(MemberId::from_bytes(id), seat);
        }
        roster
    }

    #[test]
    fn grp_16_names_are_short_and_printable() {
        for good in ["a", "Ann B.", "Зоя", &"n".repeat(MAX_NAME)] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in ["", " a", "a ", "a\nb", "\u{1b}[2J", "\u{9b}", &"n".repeat(MAX_NAME + 1)] {
            assert_eq!(check_name(bad), Err(GroupError::BadName), "{bad:?}");
        }
    }

    #[test]
    fn grp_12_the_roster_hash_covers_members_roles_and_epoch_and_no_order() {
        let (_, ann) = testing::person(1, "ann");
        let (_, bob) = testing::person(2, "bob");
        let roster = |entries: &[&MemberEntry]| {
            let mut roster = Roster::default();
            for entry in entries {
                roster.insert((*entry).clone(), 0);
            }
            roster
        };
        let base = roster(&[&ann, &bob]).hash(3);
        assert_eq!(roster(&[&bob, &ann]).hash(3), base);
        assert_ne!(roster(&[&bob, &ann]).hash(4), base);
        assert_ne!(roster(&[&ann]).hash(3), base);
        let promoted = MemberEntry { role: Role::Admin, ..ann };
        assert_ne!(roster(&[&promoted, &bob]).hash(3), base);
    }

    #[test]
    fn a_bundle_of_somebody_else_is_refused() {
        let (_, ann) = testing::person(1, "ann");
        let (_, bob) = testing::person(2, "bob");
        assert!(ann.verified_bundle().is_ok());
        let mixed = MemberEntry { bundle: bob.bundle, ..ann.clone() };
        assert_eq!(mixed.verified_bundle().unwrap_err(), GroupError::BadMember);
        let damaged = MemberEntry { bundle: vec![0; 10], ..ann };
        assert_eq!(damaged.verified_bundle().unwrap_err(), GroupError::BadMember);
    }

    #[test]
    fn names_are_made_unique() {
        let roster = named(&["ann", "Ann 2", "member"]);
        assert_eq!(roster.unique_name("bob"), "bob");
        assert_eq!(roster.unique_name("ANN"), "ANN 3");
        assert_eq!(roster.unique_name("\u{1b}\n"), "member 2");
        let long = "ж".repeat(40);
        let first = roster.unique_name(&long);
        assert_eq!(first.len(), MAX_NAME);
        assert_eq!(named(&[&first]).unique_name(&long), format!("{} 2", "ж".repeat(31)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn a_unique_name_is_valid_and_free(wanted in "\\PC{0,80}|[a-c \u{1b}]{0,70}", rounds in 1usize..8) {
            let mut names: Vec<String> = Vec::new();
            for _ in 0..rounds {
                let refs: Vec<&str> = names.iter().map(String::as_str).collect();
                let roster = named(&refs);
                let name = roster.unique_name(&wanted);
                prop_assert_eq!(check_name(&name), Ok(()));
                prop_assert!(roster.by_name(&name).is_none());
                names.push(name);
            }
        }
    }
}
