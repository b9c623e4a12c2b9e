//! What a group message says of itself, and how its author is held to it.
//!
//! ```text
//! group content = CBOR map { "g": group id 32, "e": epoch, "r": roster hash 32, "a": author's member id 32,
//!                 "c": author's counter, "p": hash of the author's previous message 32, "m": content, as bytes }
//! message hash  = SHA-256( "lapwing/1 group message" 00 | { length u32 BE | part }* )
//!                 parts: group id, epoch u64 BE, roster hash, author, counter u64 BE, previous hash, content
//! ```
//!
//! It is the plaintext of a sender-key message. Sender keys prove who wrote it and nothing else; all other things that
//! a message must be bound to stand here and are checked before it is shown.
//!
//! Invariants: a message counts in its group, from its author, in this epoch or the one before, under a roster that
//! the group had then, if the author is a member now whose role may write (GRP-14); an author's messages form one
//! chain of counters 1, 2, 3, ... and hashes, of which every reader sees the same (GRP-15).
//! Known gap: that an author told two readers different things is noticed by a reader who gets both; that messages are
//! held back is noticed at the next one, by its counter.

use std::{collections::BTreeMap, fmt};

use lapwing_wire::{codec, ids::labelled_hash};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use zeroize::Zeroize;

use super::{
    chain::Group,
    error::GroupError,
    id::{GroupId, MemberId, MessageHash, RosterHash},
};
use crate::{
    content::{Content, ContentError},
    labels,
    secret::SecretBytes,
    session::MAX_PLAINTEXT,
};

/// Messages of one author that a reader remembers. A relay that delays one by more loses it; honest relays keep the
/// order. 72 bytes each, for each of up to 500 authors.
pub const TRACK_WINDOW: u64 = 64;

/// Longest exported track in bytes.
pub const MAX_TRACK: usize = 8 << 10;

const VERSION: u8 = 1;

/// What a message is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageBinding {
    /// The group.
    pub group: GroupId,
    /// The epoch in which it was written.
    pub epoch: u64,
    /// The roster as its author saw it.
    pub roster: RosterHash,
    /// Who wrote it.
    pub author: MemberId,
    /// 1, 2, 3, ... over all messages of the author in the group.
    pub counter: u64,
    /// The author's message before it; [`MessageHash::NONE`] in the first.
    pub previous: MessageHash,
}

/// The plaintext of a group message.
pub struct GroupContent {
    binding: MessageBinding,
    content: Content,
    encoded: SecretBytes,
    hash: MessageHash,
}

#[derive(Serialize, Deserialize)]
struct RawGroupContent {
    g: GroupId,
    e: u64,
    r: RosterHash,
    a: MemberId,
    c: u64,
    p: MessageHash,
    m: ByteBuf,
}

impl GroupContent {
    /// A message to be sent.
    ///
    /// # Errors
    /// [`ContentError`] for content that cannot be sent.
    pub fn new(binding: MessageBinding, content: Content) -> Result<Self, ContentError> {
        let encoded = content.encode()?;
        let hash = hash(&binding, encoded.expose());
        let group_content = Self { binding, content, encoded, hash };
        if group_content.encode().expose().len() > MAX_PLAINTEXT {
            return Err(ContentError::TooLong);
        }
        Ok(group_content)
    }

    /// What the message is bound to.
    #[must_use]
    pub const fn binding(&self) -> &MessageBinding {
        &self.binding
    }

    /// What it says.
    #[must_use]
    pub const fn content(&self) -> &Content {
        &self.content
    }

    /// What it says, taken out.
    #[must_use]
    pub fn into_content(self) -> Content {
        self.content
    }

    /// GRP-15: the hash that the author's next message names.
    #[must_use]
    pub const fn hash(&self) -> MessageHash {
        self.hash
    }

    /// The message's bytes, to be encrypted under the author's sender key.
    #[must_use]
    pub fn encode(&self) -> SecretBytes {
        let MessageBinding { group, epoch, roster, author, counter, previous } = self.binding;
        let mut raw = RawGroupContent {
            g: group,
            e: epoch,
            r: roster,
            a: author,
            c: counter,
            p: previous,
            m: ByteBuf::from(self.encoded.expose()),
        };
        let bytes = SecretBytes::new(codec::encode(&raw));
        raw.m.as_mut_slice().zeroize();
        bytes
    }

    /// Reads a decrypted message. [`Group::check_message`] and [`AuthorTrack::check`] tell what it is worth.
    ///
    /// # Errors
    /// [`ContentError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ContentError> {
        let RawGroupContent { g, e, r, a, c, p, m } = codec::decode(bytes, MAX_PLAINTEXT)?;
        let encoded = SecretBytes::new(m.into_vec());
        let content = Content::decode(encoded.expose())?;
        let binding = MessageBinding { group: g, epoch: e, roster: r, author: a, counter: c, previous: p };
        let hash = hash(&binding, encoded.expose());
        Ok(Self { binding, content, encoded, hash })
    }
}

impl fmt::Debug for GroupContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { binding: _, content: _, encoded: _, hash: _ } = self;
        f.write_str("GroupContent(..)")
    }
}

fn hash(binding: &MessageBinding, content: &[u8]) -> MessageHash {
    let MessageBinding { group, epoch, roster, author, counter, previous } = binding;
    MessageHash::from_bytes(labelled_hash(
        labels::GROUP_MESSAGE.as_bytes(),
        &[
            group.as_bytes(),
            &epoch.to_be_bytes(),
            roster.as_bytes(),
            author.as_bytes(),
            &counter.to_be_bytes(),
            previous.as_bytes(),
            content,
        ],
    ))
}

impl Group {
    /// GRP-14: whether a message that `from`'s sender key opened may be shown.
    ///
    /// # Errors
    /// [`GroupError::UnknownRoster`] if commits must be read first, [`GroupError::WrongEpoch`] for an epoch that has
    /// ended before the last one, [`GroupError::NotAMember`] for who was removed, [`GroupError::NotAllowed`] for a
    /// reader, [`GroupError::WrongAuthor`], [`GroupError::WrongGroup`], [`GroupError::Closed`].
    pub fn check_message(&self, from: &MemberId, binding: &MessageBinding) -> Result<(), GroupError> {
        let MessageBinding { group, epoch, roster, author, counter: _, previous: _ } = binding;
        if *group != self.id() {
            return Err(GroupError::WrongGroup);
        }
        if author != from {
            return Err(GroupError::WrongAuthor);
        }
        if self.is_closed() {
            return Err(GroupError::Closed);
        }
        let entry = self.member(author).ok_or(GroupError::NotAMember)?;
        if !entry.role.may_write() {
            return Err(GroupError::NotAllowed);
        }
        if self.had_roster(*epoch, roster) {
            Ok(())
        } else if *epoch >= self.epoch() {
            Err(GroupError::UnknownRoster)
        } else {
            Err(GroupError::WrongEpoch)
        }
    }

    /// Whether a member may write messages now.
    #[must_use]
    pub fn may_write(&self, member: &MemberId) -> bool {
        !self.is_closed() && self.member(member).is_some_and(|entry| entry.role.may_write())
    }
}

/// What a reader knows of one author's messages.
#[derive(Clone, Default)]
pub struct AuthorTrack {
    highest: u64,
    seen: BTreeMap<u64, Seen>,
}

#[derive(Clone, Copy)]
struct Seen {
    hash: MessageHash,
    previous: MessageHash,
}

/// A message that fits its author's track and waits for [`AuthorTrack::merge`].
#[must_use = "a checked message is not remembered until it is merged"]
#[derive(Clone)]
pub struct Checked {
    /// Messages of the author that are missing right before this one.
    pub gap: u64,
    /// Whether later messages of the author were read before it.
    pub late: bool,
    counter: u64,
    seen: Seen,
}

/// GRP-15: why a message does not fit its author's track.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrackError {
    /// Read before, or so old that it cannot be told. Drop it.
    #[error("the message was read before")]
    Replay,
    /// The author has written two different messages in one place. Show it: the author or its device lies.
    #[error("the author wrote two different messages in one place")]
    Equivocation,
    /// A counter that no message has. The author's program is at fault.
    #[error("the message has an impossible number")]
    BadCounter,
    /// Stored bytes that are no track.
    #[error("a stored record is damaged")]
    Malformed,
}

#[derive(Serialize, Deserialize)]
struct RawTrack {
    v: u8,
    h: u64,
    s: Vec<(u64, MessageHash, MessageHash)>,
}

impl AuthorTrack {
    /// Nothing read yet. The first message that arrives starts the track, wherever the author is by then: a newcomer
    /// cannot know the earlier ones.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Checks a message whose binding [`Group::check_message`] has accepted.
    ///
    /// # Errors
    /// [`TrackError`].
    pub fn check(&self, content: &GroupContent) -> Result<Checked, TrackError> {
        let MessageBinding { group: _, epoch: _, roster: _, author: _, counter, previous } =
            *content.binding();
        let hash = content.hash();
        if counter == 0 || counter == u64::MAX || (counter == 1) != (previous == MessageHash::NONE) {
            return Err(TrackError::BadCounter);
        }
        if let Some(seen) = self.seen.get(&counter) {
            return Err(if seen.hash == hash { TrackError::Replay } else { TrackError::Equivocation });
        }
        if counter <= self.floor() {
            return Err(TrackError::Replay);
        }
        // Both neighbours, where they are known, must agree with it.
        let before = self.seen.get(&(counter - 1)).is_none_or(|seen| seen.hash == previous);
        let after = self.seen.get(&(counter + 1)).is_none_or(|seen| seen.previous == hash);
        if !before || !after {
            return Err(TrackError::Equivocation);
        }
        let late = counter < self.highest;
        let gap = if self.highest == 0 || late { 0 } else { counter - self.highest - 1 };
        Ok(Checked { gap, late, counter, seen: Seen { hash, previous } })
    }

    /// Remembers a checked message.
    pub fn merge(&mut self, checked: Checked) {
        let Checked { gap: _, late: _, counter, seen } = checked;
        self.highest = self.highest.max(counter);
        self.seen.insert(counter, seen);
        let floor = self.floor();
        self.seen.retain(|counter, _| *counter > floor);
    }

    /// The highest counter read; 0 before any. An author's own track gives the next message's counter.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.highest
    }

    /// The hash of the message with the highest counter: what an author's own next message names.
    #[must_use]
    pub fn last_hash(&self) -> MessageHash {
        self.seen.get(&self.highest).map_or(MessageHash::NONE, |seen| seen.hash)
    }

    /// The track, to be sealed and stored.
    #[must_use]
    pub fn export(&self) -> Vec<u8> {
        let Self { highest, seen } = self;
        let s = seen.iter().map(|(counter, Seen { hash, previous })| (*counter, *hash, *previous)).collect();
        codec::encode(&RawTrack { v: VERSION, h: *highest, s })
    }

    /// Reads what [`AuthorTrack::export`] wrote.
    ///
    /// # Errors
    /// [`TrackError::Malformed`] for other bytes.
    pub fn import(bytes: &[u8]) -> Result<Self, TrackError> {
        let RawTrack { v, h, s } = codec::decode(bytes, MAX_TRACK).map_err(|_| TrackError::Malformed)?;
        let count = s.len();
        let seen: BTreeMap<u64, Seen> =
            s.into_iter().map(|(counter, hash, previous)| (counter, Seen { hash, previous })).collect();
        let track = Self { highest: h, seen };
        let floor = track.floor();
        let inside = track.seen.keys().all(|counter| *counter > floor && *counter <= h);
        let ends = track.seen.last_key_value().map_or(0, |(counter, _)| *counter) == h;
        let good = v == VERSION && count == track.seen.len() && inside && ends && h < u64::MAX;
        if good { Ok(track) } else { Err(TrackError::Malformed) }
    }

    /// Up to here nothing is remembered and everything refused.
    const fn floor(&self) -> u64 {
        self.highest.saturating_sub(TRACK_WINDOW)
    }
}

impl fmt::Debug for AuthorTrack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthorTrack(..)")
    }
}

impl fmt::Debug for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Checked(..)")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        content::{Body, MAX_TEXT, MessageId},
        testing::NOW,
        vectors,
    };

    fn message(counter: u64, previous: MessageHash, text: &str) -> GroupContent {
        let content =
            Content { id: MessageId::from_bytes([1; 16]), sent: NOW, body: Body::Text(text.to_owned()) };
        GroupContent::new(MessageBinding { counter, previous, ..vectors::binding() }, content).unwrap()
    }

    /// The first `count` messages of an author.
    fn written(count: u64) -> Vec<GroupContent> {
        let mut previous = MessageHash::NONE;
        (1..=count)
            .map(|counter| {
                let next = message(counter, previous, "text");
                previous = next.hash();
                next
            })
            .collect()
    }

    fn read(track: &mut AuthorTrack, message: &GroupContent) -> Result<(u64, bool), TrackError> {
        let before = track.export();
        match track.check(message) {
            Ok(checked) => {
                let said = (checked.gap, checked.late);
                track.merge(checked);
                *track = AuthorTrack::import(&track.export()).unwrap();
                Ok(said)
            }
            Err(error) => {
                assert_eq!(track.export(), before);
                Err(error)
            }
        }
    }

    #[test]
    fn messages_round_trip() {
        let sent = message(7, MessageHash::from_bytes([5; 32]), "text");
        let bytes = sent.encode();
        let back = GroupContent::decode(bytes.expose()).unwrap();
        assert_eq!(back.binding(), sent.binding());
        assert_eq!(back.hash(), sent.hash());
        assert_eq!(back.encode().expose(), bytes.expose());
        assert!(matches!(back.into_content().body, Body::Text(text) if text == "text"));
        assert_eq!(GroupContent::decode(b"\xa0").unwrap_err(), ContentError::Malformed);
        assert_eq!(GroupContent::decode(&vec![0; MAX_PLAINTEXT + 1]).unwrap_err(), ContentError::TooLong);
        let largest = message(1, MessageHash::NONE, &"x".repeat(MAX_TEXT));
        assert!(largest.encode().expose().len() <= MAX_PLAINTEXT);
    }

    #[test]
    fn grp_15_the_hash_covers_every_part() {
        let base = vectors::binding();
        let changed = [
            MessageBinding { group: GroupId::from_bytes([99; 32]), ..base },
            MessageBinding { epoch: 99, ..base },
            MessageBinding { roster: RosterHash::from_bytes([99; 32]), ..base },
            MessageBinding { author: MemberId::from_bytes([99; 32]), ..base },
            MessageBinding { counter: 99, ..base },
            MessageBinding { previous: MessageHash::from_bytes([99; 32]), ..base },
        ];
        let expected = hash(&base, b"content");
        assert!(changed.iter().all(|binding| hash(binding, b"content") != expected));
        assert_ne!(hash(&base, b"other"), expected);
    }

    #[test]
    fn grp_15_replays_are_refused_and_gaps_are_told() {
        let all = written(10);
        let mut track = AuthorTrack::new();
        assert_eq!(read(&mut track, &all[0]), Ok((0, false)));
        assert_eq!(read(&mut track, &all[0]), Err(TrackError::Replay));
        assert_eq!(read(&mut track, &all[4]), Ok((3, false)));
        assert_eq!(read(&mut track, &all[2]), Ok((0, true)));
        assert_eq!(read(&mut track, &all[2]), Err(TrackError::Replay));
        assert_eq!(read(&mut track, &all[5]), Ok((0, false)));
        assert_eq!((track.last(), track.last_hash()), (6, all[5].hash()));
    }

    #[test]
    fn grp_15_a_newcomer_begins_anywhere() {
        let all = written(10);
        let mut track = AuthorTrack::new();
        assert_eq!(read(&mut track, &all[6]), Ok((0, false)));
        assert_eq!(read(&mut track, &all[8]), Ok((1, false)));
    }

    #[test]
    fn grp_15_two_messages_in_one_place_are_noticed_by_counter_and_by_either_neighbour() {
        let all = written(5);
        let mut track = AuthorTrack::new();
        read(&mut track, &all[0]).unwrap();
        read(&mut track, &all[1]).unwrap();
        let other = message(2, all[0].hash(), "other");
        assert_eq!(read(&mut track, &other), Err(TrackError::Equivocation));
        let after_other = message(3, other.hash(), "text");
        assert_eq!(read(&mut track, &after_other), Err(TrackError::Equivocation));
        read(&mut track, &all[3]).unwrap();
        let before_other = message(3, all[1].hash(), "other");
        assert_eq!(read(&mut track, &before_other), Err(TrackError::Equivocation));
        assert_eq!(read(&mut track, &all[2]), Ok((0, true)));
    }

    #[test]
    fn grp_15_impossible_counters_are_refused() {
        let mut track = AuthorTrack::new();
        for (counter, previous) in [
            (0, MessageHash::NONE),
            (u64::MAX, MessageHash::from_bytes([1; 32])),
            (1, MessageHash::from_bytes([1; 32])),
            (2, MessageHash::NONE),
        ] {
            assert_eq!(read(&mut track, &message(counter, previous, "x")), Err(TrackError::BadCounter));
        }
    }

    #[test]
    fn grp_15_a_track_stays_small_and_forgets_only_towards_refusal() {
        let all = written(3 * TRACK_WINDOW);
        let mut track = AuthorTrack::new();
        for message in &all {
            read(&mut track, message).unwrap();
        }
        assert!(track.export().len() <= MAX_TRACK, "{}", track.export().len());
        for message in &all {
            assert_eq!(read(&mut track, message), Err(TrackError::Replay));
        }
    }

    #[test]
    fn damaged_tracks_are_refused() {
        let mut track = AuthorTrack::new();
        for message in &written(3) {
            read(&mut track, message).unwrap();
        }
        let good = track.export();
        assert!(AuthorTrack::import(&good).is_ok());
        for cut in 0..good.len() {
            assert_eq!(AuthorTrack::import(&good[..cut]).unwrap_err(), TrackError::Malformed);
        }
        let seen = |counter| (counter, MessageHash::NONE, MessageHash::NONE);
        for (v, h, s) in
            [(2, 0, vec![]), (1, 5, vec![]), (1, 3, vec![seen(4)]), (1, 99, vec![seen(2), seen(99)])]
        {
            assert!(AuthorTrack::import(&codec::encode(&RawTrack { v, h, s })).is_err());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// In whatever order and however often the relay hands them out: each message once.
        #[test]
        fn grp_15_each_message_is_read_once(order in prop::collection::vec(0usize..40, 0..120)) {
            let all = written(40);
            let mut track = AuthorTrack::new();
            let mut model = BTreeSet::new();
            for at in order {
                let outcome = read(&mut track, &all[at]);
                if model.insert(at) {
                    prop_assert!(outcome.is_ok());
                } else {
                    prop_assert_eq!(outcome, Err(TrackError::Replay));
                }
            }
            prop_assert_eq!(track.last(), model.last().map_or(0, |at| *at as u64 + 1));
        }

        #[test]
        fn changed_messages_never_panic(at: prop::sample::Index, byte: u8) {
            let mut bytes = message(3, MessageHash::from_bytes([1; 32]), "text").encode().expose().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(read) = GroupContent::decode(&bytes) {
                let _ = AuthorTrack::new().check(&read);
            }
        }
    }
}
