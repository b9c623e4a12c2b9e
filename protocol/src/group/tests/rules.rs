use lapwing_wire::codec;
use proptest::prelude::*;
use serde_bytes::{ByteArray, ByteBuf};

use super::*;
use crate::{
    group::{
        CommitHash, GroupId, KeysHash, MAX_CHAIN, MAX_CHAIN_BYTES, MAX_COMMIT, MAX_MEMBERS, MemberEntry,
        MessageBinding, MessageHash, RosterHash,
    },
    labels,
};

#[test]
fn grp_01_a_group_is_its_first_commit_and_no_two_are_one() {
    let group = founded();
    let keys = epoch_keys(0, 0);
    let other =
        Group::create(me(0), entry(0, Role::Owner), "g", Settings::default(), &keys, NOW, &mut rng(9))
            .unwrap();
    assert_ne!(group.id(), other.id());
    assert_eq!(Group::from_chain(&chain(&group)).unwrap().id(), group.id());
    let foreign = stage_add(&other, 0, 1, Role::Member).unwrap();
    assert_eq!(refusal(&group, foreign.signed()), GroupError::WrongGroup);
    assert_eq!(refusal(&group, &chain(&other)[0]), GroupError::WrongGroup);
    assert_eq!(refusal(&group, &chain(&group)[0]), GroupError::Known);
    // A commit of another group inside a chain.
    let mixed = [chain(&group)[0].clone(), foreign.signed().to_vec()];
    assert_eq!(Group::from_chain(&mixed).unwrap_err(), GroupError::WrongGroup);
    assert_eq!(Group::from_chain::<Vec<u8>>(&[]).unwrap_err(), GroupError::Malformed);
    assert_eq!(Group::from_chain(&[foreign.signed()]).unwrap_err(), GroupError::Malformed);
}

#[test]
fn grp_02_a_commit_holds_only_with_its_authors_signature() {
    let group = staffed();
    let close = Op::Close;
    // Signed by member 3 in the name of admin 1.
    let named = forged(&group, 3, close.clone(), |commit| commit.author = id(1));
    assert_eq!(refusal(&group, &named), GroupError::BadSignature);
    // Signed as another kind of statement.
    let commit = forged(&group, 1, close, |_| ());
    assert!(group.verify(&commit).is_ok());
    let statement = statement_of(&commit);
    let leave = me(1).sign(labels::LEAVE, &statement, &mut rng(1)).unwrap();
    assert_eq!(refusal(&group, &signed(&statement, leave.as_bytes())), GroupError::BadSignature);
    assert_eq!(refusal(&group, &signed(&statement, &[0; 64])), GroupError::BadSignature);
}

#[test]
fn grp_03_a_commit_follows_the_last_one_and_no_other() {
    let group = staffed();
    let number = group.next_number();
    let with = |change: &dyn Fn(&mut Commit)| forged(&group, 1, Op::Close, change);
    assert_eq!(refusal(&group, &with(&|c| c.number += 1)), GroupError::Gap { expected: number });
    assert_eq!(refusal(&group, &with(&|c| c.number = u64::MAX)), GroupError::Gap { expected: number });
    let other = CommitHash::from_bytes([1; 32]);
    assert_eq!(refusal(&group, &with(&|c| c.previous = other)), GroupError::OtherBranch);
    assert_eq!(refusal(&group, &with(&|c| c.number -= 1)), GroupError::OtherBranch);
    // Another signature of a statement that is in the chain is the same commit.
    let last = chain(&group).pop().unwrap();
    let statement = statement_of(&last);
    let again = me(0).sign(labels::COMMIT, &statement, &mut rng(123)).unwrap();
    let again = signed(&statement, again.as_bytes());
    assert_ne!(again, last);
    assert_eq!(refusal(&group, &again), GroupError::Known);
}

#[test]
fn grp_04_a_member_is_named_by_the_identity_of_this_group() {
    let group = staffed();
    for i in 0..5 {
        let found = group.member(&id(i)).unwrap();
        assert_eq!((found.identity, found.id()), (*me(i).public(), id(i)));
    }
    // Under a name that belongs to another identity, nothing holds.
    let named = forged(&group, 1, Op::Close, |commit| commit.author = id(0));
    assert_eq!(refusal(&group, &named), GroupError::BadSignature);
    let identities: std::collections::BTreeSet<MemberId> = (0..8).map(id).collect();
    assert_eq!(identities.len(), 8);
}

#[test]
fn grp_05_only_owner_and_admins_who_are_members_author_commits() {
    let group = staffed();
    for op in [Op::Add { member: entry(5, Role::Member) }, removal(3), Op::Close] {
        for by in [0, 1, 2] {
            assert!(group.verify(&forged(&group, by, op.clone(), |_| ())).is_ok());
        }
        for by in [3, 4] {
            assert_eq!(refusal(&group, &forged(&group, by, op.clone(), |_| ())), GroupError::NotAllowed);
        }
        assert_eq!(refusal(&group, &forged(&group, 6, op, |_| ())), GroupError::NotAMember);
    }
    assert_eq!(stage_add(&group, 3, 5, Role::Member).unwrap_err(), GroupError::NotAllowed);
    assert_eq!(stage_add(&group, 6, 5, Role::Member).unwrap_err(), GroupError::NotAMember);
}

#[test]
fn grp_05_a_removed_author_is_refused() {
    let mut group = staffed();
    remove(&mut group, 0, 1).unwrap();
    assert_eq!(refusal(&group, &forged(&group, 1, Op::Close, |_| ())), GroupError::NotAMember);
    // Nor by acting as if he did not know.
    let mut behind = staffed();
    let late = forged(&behind, 1, Op::Close, |commit| commit.number += 1);
    assert!(matches!(refusal(&group, &late), GroupError::NotAMember | GroupError::OtherBranch));
    close(&mut behind, 1).unwrap();
}

#[test]
fn grp_06_nobody_is_added_twice_and_no_name_is() {
    let group = staffed();
    let again = Op::Add { member: entry(3, Role::Member) };
    assert_eq!(refusal(&group, &forged(&group, 0, again, |_| ())), GroupError::AlreadyMember);
    let named = MemberEntry { name: "P3".to_owned(), ..entry(5, Role::Member) };
    let named = Op::Add { member: named };
    assert_eq!(refusal(&group, &forged(&group, 0, named, |_| ())), GroupError::NameTaken);
    let mixed = MemberEntry { bundle: entry(6, Role::Member).bundle, ..entry(5, Role::Member) };
    let mixed = Op::Add { member: mixed };
    assert_eq!(refusal(&group, &forged(&group, 0, mixed, |_| ())), GroupError::BadMember);
}

#[test]
fn grp_06_somebody_removed_can_be_added_again() {
    let mut group = staffed();
    remove(&mut group, 1, 3).unwrap();
    add(&mut group, 1, 3, Role::Reader).unwrap();
    assert_eq!(group.member(&id(3)).unwrap().role, Role::Reader);
    assert_eq!(group.roster().since(&id(3)), Some(group.next_number() - 1));
    remove(&mut group, 1, 3).unwrap();
    assert!(group.member(&id(3)).is_none());
    assert_eq!(group.epoch(), 2);
    assert_eq!(state(&Group::from_chain(&chain(&group)).unwrap()), state(&group));
}

#[test]
fn grp_07_there_is_one_owner_who_alone_makes_admins() {
    let group = staffed();
    for by in [0, 1] {
        let owner = Op::Add { member: entry(5, Role::Owner) };
        assert_eq!(refusal(&group, &forged(&group, by, owner, |_| ())), GroupError::NotAllowed);
    }
    let admin = Op::Add { member: entry(5, Role::Admin) };
    assert_eq!(refusal(&group, &forged(&group, 1, admin.clone(), |_| ())), GroupError::NotAllowed);
    assert!(group.verify(&forged(&group, 0, admin, |_| ())).is_ok());
    let keys = epoch_keys(0, 0);
    for role in [Role::Admin, Role::Member, Role::Reader] {
        let made = Group::create(me(0), entry(0, role), "g", Settings::default(), &keys, NOW, &mut rng(0));
        assert_eq!(made.unwrap_err(), GroupError::NotAllowed);
    }
    let other =
        Group::create(me(0), entry(1, Role::Owner), "g", Settings::default(), &keys, NOW, &mut rng(0));
    assert_eq!(other.unwrap_err(), GroupError::BadMember);
}

#[test]
fn grp_07_a_first_commit_by_another_or_twice_is_refused() {
    let group = founded();
    let first = first_of(&group);
    let sign = |by: usize, commit: Commit| commit.sign(me(by), &mut rng(1)).unwrap().encode();
    let refuse = |bytes: Vec<u8>| Group::from_chain(&[bytes]).unwrap_err();
    assert_eq!(refuse(sign(1, first.clone())), GroupError::BadSignature);
    assert_eq!(refuse(sign(1, Commit { author: id(1), ..first.clone() })), GroupError::NotAMember);
    assert_eq!(refuse(sign(0, Commit { number: 1, ..first.clone() })), GroupError::Malformed);
    assert_eq!(refuse(sign(0, Commit { epoch: 1, ..first.clone() })), GroupError::WrongEpoch);
    let named = CommitHash::from_bytes([1; 32]);
    assert_eq!(refuse(sign(0, Commit { previous: named, ..first.clone() })), GroupError::Malformed);
    let named = GroupId::from_bytes([1; 32]);
    assert_eq!(refuse(sign(0, Commit { group: named, ..first.clone() })), GroupError::Malformed);
    // A founder's bundle is his own, like everybody's.
    let mixed = MemberEntry { bundle: entry(1, Role::Owner).bundle, ..entry(0, Role::Owner) };
    let keys = epoch_keys(0, 0);
    let made = Group::create(me(0), mixed, "g", Settings::default(), &keys, NOW, &mut rng(0));
    assert_eq!(made.unwrap_err(), GroupError::BadMember);
    // A second founding inside the chain.
    let again = forged(&group, 0, first.op, |_| ());
    assert_eq!(refusal(&group, &again), GroupError::Malformed);
}

#[test]
fn grp_08_the_owner_stays_and_nobody_removes_himself() {
    let group = staffed();
    assert_eq!(refusal(&group, &forged(&group, 1, removal(0), |_| ())), GroupError::OwnerStays);
    for by in [0, 1] {
        assert_eq!(refusal(&group, &forged(&group, by, removal(by), |_| ())), GroupError::RemovesItself);
    }
    assert_eq!(refusal(&group, &forged(&group, 1, removal(6), |_| ())), GroupError::NoSuchMember);
    assert!(group.verify(&forged(&group, 1, removal(2), |_| ())).is_ok());
}

#[test]
fn grp_09_a_removal_raises_the_epoch_by_one_and_nothing_else_does() {
    let mut group = staffed();
    assert_eq!(group.epoch(), 0);
    let ops = [Op::Add { member: entry(5, Role::Member) }, removal(3), Op::Close];
    for op in ops {
        let right = group.epoch() + u64::from(op.begins_epoch());
        for wrong in (0..4).filter(|epoch| *epoch != right).chain([u64::MAX]) {
            let commit = forged(&group, 0, op.clone(), |commit| commit.epoch = wrong);
            assert_eq!(refusal(&group, &commit), GroupError::WrongEpoch);
        }
    }
    remove(&mut group, 0, 3).unwrap();
    assert_eq!(group.epoch(), 1);
    add(&mut group, 0, 3, Role::Member).unwrap();
    assert_eq!(group.epoch(), 1);
}

#[test]
fn grp_10_a_wish_to_leave_is_the_leavers_own_and_for_one_membership() {
    let mut group = staffed();
    let wish = group.wish_to_leave(me(3), &mut rng(1)).unwrap();
    assert_eq!(group.verify_leave(&wish), Ok(id(3)));
    assert_eq!(group.wish_to_leave(me(6), &mut rng(1)).unwrap_err(), GroupError::NotAMember);
    assert_eq!(founded_by(1).verify_leave(&wish), Err(GroupError::WrongGroup));
    for at in 0..wish.len() {
        let mut changed = wish.clone();
        changed[at] ^= 1;
        assert!(group.verify_leave(&changed).is_err(), "byte {at}");
    }
    // Another's wish removes nobody, and none is believed later.
    assert_eq!(stage_remove(&group, 1, 2, Some(&wish)).unwrap_err(), GroupError::BadLeave);
    let staged = stage_remove(&group, 1, 3, Some(&wish)).unwrap();
    group.merge(staged).unwrap();
    assert_eq!(group.verify_leave(&wish), Err(GroupError::BadLeave));
    add(&mut group, 1, 3, Role::Member).unwrap();
    assert_eq!(group.verify_leave(&wish), Err(GroupError::BadLeave));
    assert_eq!(stage_remove(&group, 1, 3, Some(&wish)).unwrap_err(), GroupError::BadLeave);
}

#[test]
fn grp_10_the_owner_leaves_with_his_own_signed_wish() {
    let mut group = staffed();
    let wish = group.wish_to_leave(me(0), &mut rng(1)).unwrap();
    let staged = stage_remove(&group, 1, 0, Some(&wish)).unwrap();
    group.merge(staged).unwrap();
    assert!(!group.roster().contains(&id(0)));
    // The admins go on; nobody can make another owner or admin.
    add(&mut group, 1, 5, Role::Member).unwrap();
    assert_eq!(add(&mut group, 1, 6, Role::Admin), Err(GroupError::NotAllowed));
    assert_eq!(state(&Group::from_chain(&chain(&group)).unwrap()), state(&group));
}

#[test]
fn grp_11_the_chain_names_the_keys_of_the_epoch() {
    let mut group = staffed();
    assert_eq!(group.check_keys(&epoch_keys(0, 0)), Ok(()));
    assert_eq!(group.check_keys(&epoch_keys(0, 1)), Err(GroupError::WrongKeys));
    assert_eq!(group.check_keys(&epoch_keys(1, 0)), Err(GroupError::WrongEpoch));
    // The keys that the removed member holds exclude nobody.
    let same = Op::Remove { member: id(3), leave: None, keys: epoch_keys(0, 0).hash() };
    assert_eq!(refusal(&group, &forged(&group, 0, same, |_| ())), GroupError::WrongKeys);
    for epoch in [0, 2] {
        let keys = epoch_keys(epoch, 5);
        let staged = group.stage_remove(me(0), &id(3), None, &keys, NOW, &mut rng(1));
        assert_eq!(staged.unwrap_err(), GroupError::WrongKeys);
    }
    let keys = epoch_keys(1, 5);
    let staged = group.stage_remove(me(0), &id(3), None, &keys, NOW, &mut rng(1)).unwrap();
    group.merge(staged).unwrap();
    assert_eq!(group.check_keys(&keys), Ok(()));
    assert_eq!(group.check_keys(&epoch_keys(1, 6)), Err(GroupError::WrongKeys));
    let founding =
        Group::create(me(0), entry(0, Role::Owner), "g", Settings::default(), &keys, NOW, &mut rng(0));
    assert_eq!(founding.unwrap_err(), GroupError::WrongKeys);
}

#[test]
fn grp_14_a_message_counts_in_its_group_epoch_and_roster_from_a_writer() {
    let mut group = staffed();
    let with = |group: &Group, author: usize| MessageBinding {
        group: group.id(),
        epoch: group.epoch(),
        roster: group.roster_hash(),
        author: id(author),
        counter: 1,
        previous: MessageHash::NONE,
    };
    for author in [0, 1, 2, 3] {
        assert_eq!(group.check_message(&id(author), &with(&group, author)), Ok(()));
        assert!(group.may_write(&id(author)));
    }
    let before = with(&group, 3);
    let check = |group: &Group, binding| group.check_message(&id(3), &binding);
    assert_eq!(group.check_message(&id(4), &with(&group, 4)), Err(GroupError::NotAllowed));
    assert!(!group.may_write(&id(4)));
    assert_eq!(group.check_message(&id(5), &with(&group, 5)), Err(GroupError::NotAMember));
    assert_eq!(group.check_message(&id(2), &before), Err(GroupError::WrongAuthor));
    let foreign = MessageBinding { group: GroupId::from_bytes([1; 32]), ..before };
    assert_eq!(check(&group, foreign), Err(GroupError::WrongGroup));
    let unknown = MessageBinding { roster: RosterHash::from_bytes([1; 32]), ..before };
    assert_eq!(check(&group, unknown), Err(GroupError::UnknownRoster));
    assert_eq!(check(&group, MessageBinding { epoch: 1, ..before }), Err(GroupError::UnknownRoster));

    // After an addition, and after one removal, what was written before still counts; after two it does not.
    add(&mut group, 0, 5, Role::Member).unwrap();
    assert_eq!(check(&group, before), Ok(()));
    remove(&mut group, 0, 5).unwrap();
    assert_eq!(check(&group, before), Ok(()));
    assert_eq!(check(&group, with(&group, 3)), Ok(()));
    // Not under the roster of one epoch in the other.
    let mixed = MessageBinding { epoch: 1, ..before };
    assert_eq!(check(&group, mixed), Err(GroupError::UnknownRoster));
    remove(&mut group, 0, 4).unwrap();
    assert_eq!(check(&group, before), Err(GroupError::WrongEpoch));
    // Nor from who has been removed, in whatever epoch he says it was.
    let last = with(&group, 3);
    remove(&mut group, 0, 3).unwrap();
    assert_eq!(check(&group, last), Err(GroupError::NotAMember));
    assert_eq!(check(&group, with(&group, 3)), Err(GroupError::NotAMember));
    close(&mut group, 0).unwrap();
    assert_eq!(group.check_message(&id(1), &with(&group, 1)), Err(GroupError::Closed));
    assert!(!group.may_write(&id(0)));
}

#[test]
fn grp_14_rosters_are_known_alike_after_reading_the_stored_chain() {
    let mut group = staffed();
    remove(&mut group, 0, 3).unwrap();
    let roster = group.roster_hash();
    add(&mut group, 0, 5, Role::Member).unwrap();
    for copy in [Group::import(&group.export()).unwrap(), Group::from_chain(&chain(&group)).unwrap()] {
        assert!(copy.had_roster(1, &roster) && copy.had_roster(1, &group.roster_hash()));
        assert!(copy.had_roster(0, &staffed().roster_hash()));
    }
}

#[test]
fn grp_16_five_hundred_members_and_no_more() {
    let mut group = founded();
    let mut seeded = rng(5);
    let stored: Vec<Vec<u8>> = {
        let mut chain = chain(&group);
        for n in 1..MAX_MEMBERS as u64 {
            let (_, newcomer) = person(10_000 + n, &format!("member {n}"));
            let staged = group.stage_add(me(0), newcomer, NOW, &mut seeded).unwrap();
            chain.push(staged.signed().to_vec());
            group.merge(staged).unwrap();
        }
        chain
    };
    assert_eq!(group.roster().len(), MAX_MEMBERS);
    assert_eq!(stage_add(&group, 0, 1, Role::Member).unwrap_err(), GroupError::Full);
    let newcomer = Group::from_chain(&stored).unwrap();
    assert_eq!(state(&newcomer), state(&group));
    assert_eq!(Group::import(&group.export()).unwrap().head(), group.head());
    // One leaves, one comes.
    let (gone, _) = group.roster().iter().find(|(id, _)| **id != super::id(0)).unwrap();
    let gone = *gone;
    let keys = epoch_keys(1, 1);
    let staged = group.stage_remove(me(0), &gone, None, &keys, NOW, &mut seeded).unwrap();
    group.merge(staged).unwrap();
    add(&mut group, 0, 1, Role::Member).unwrap();
}

#[test]
fn grp_16_a_chain_ends_at_its_bound() {
    let mut group = founded();
    // The same person comes and goes. Each round is an epoch.
    while group.next_number() < MAX_CHAIN {
        if group.roster().contains(&id(1)) {
            remove(&mut group, 0, 1).unwrap();
        } else {
            add(&mut group, 0, 1, Role::Member).unwrap();
        }
    }
    assert!(group.chain_bytes() <= MAX_CHAIN_BYTES);
    let ops =
        if group.roster().contains(&id(1)) { removal(1) } else { Op::Add { member: entry(1, Role::Member) } };
    assert_eq!(refusal(&group, &forged(&group, 0, ops, |_| ())), GroupError::ChainFull);
    assert_eq!(Group::import(&group.export()).unwrap().head(), group.head());
}

#[test]
fn grp_16_long_commits_and_bad_names_are_refused() {
    let group = founded();
    assert_eq!(refusal(&group, &vec![0; MAX_COMMIT + 1]), GroupError::TooLong);
    let bad = MemberEntry { name: "\u{1b}[2J".to_owned(), ..entry(1, Role::Member) };
    assert_eq!(group.stage_add(me(0), bad.clone(), NOW, &mut rng(1)).unwrap_err(), GroupError::BadName);
    assert_eq!(refusal(&group, &forged(&group, 0, Op::Add { member: bad }, |_| ())), GroupError::BadName);
    let keys = epoch_keys(0, 0);
    let made = Group::create(me(0), entry(0, Role::Owner), "", Settings::default(), &keys, NOW, &mut rng(0));
    assert_eq!(made.unwrap_err(), GroupError::BadName);
}

#[test]
fn grp_19_kinds_and_versions_of_later_programs_stop_the_chain() {
    let group = staffed();
    let later = |kind: &str| Op::Unsupported { kind: kind.to_owned(), body: vec![0xff] };
    for kind in ["role", "settings", "anything"] {
        for by in [0, 1] {
            // A later kind may begin an epoch, too.
            for epoch in [0, 1] {
                let commit = forged(&group, by, later(kind), |commit| commit.epoch = epoch);
                assert_eq!(refusal(&group, &commit), GroupError::NeedsNewerVersion);
            }
        }
    }
    let mut longer = chain(&group);
    longer.push(forged(&group, 0, later("role"), |_| ()));
    assert_eq!(Group::from_chain(&longer).unwrap_err(), GroupError::NeedsNewerVersion);
    let newer = altered(&forged(&group, 0, Op::Close, |_| ()), "v", 2.into());
    assert_eq!(refusal(&group, &newer), GroupError::NeedsNewerVersion);
    let odd = altered(&forged(&group, 0, Op::Close, |_| ()), "n", "x".into());
    assert_eq!(refusal(&group, &odd), GroupError::Malformed);
    let first = altered(&chain(&founded())[0], "v", 2.into());
    assert_eq!(Group::from_chain(&[first]).unwrap_err(), GroupError::NeedsNewerVersion);
}

/// Otherwise any member, and any thief of the epoch's keys, could stop a group for ever by one entry.
#[test]
fn grp_19_only_who_may_commit_stops_the_chain() {
    let group = staffed();
    let later = Op::Unsupported { kind: "later".to_owned(), body: Vec::new() };
    assert_eq!(refusal(&group, &forged(&group, 3, later.clone(), |_| ())), GroupError::NotAllowed);
    assert_eq!(refusal(&group, &forged(&group, 6, later.clone(), |_| ())), GroupError::NotAMember);
    let named = forged(&group, 3, later.clone(), |commit| commit.author = id(0));
    assert_eq!(refusal(&group, &named), GroupError::BadSignature);
    let elsewhere =
        forged(&group, 0, later.clone(), |commit| commit.previous = CommitHash::from_bytes([1; 32]));
    assert_eq!(refusal(&group, &elsewhere), GroupError::OtherBranch);
    let ahead = forged(&group, 0, later, |commit| commit.number += 1);
    assert!(matches!(refusal(&group, &ahead), GroupError::Gap { .. }));
}

#[test]
fn grp_20_nothing_follows_the_end() {
    let mut group = staffed();
    close(&mut group, 1).unwrap();
    assert!(group.is_closed());
    for op in [Op::Add { member: entry(5, Role::Member) }, removal(3), Op::Close] {
        assert_eq!(refusal(&group, &forged(&group, 0, op, |_| ())), GroupError::Closed);
    }
    assert_eq!(state(&Group::from_chain(&chain(&group)).unwrap()), state(&group));
}

#[test]
fn a_staged_commit_that_no_longer_fits_changes_nothing() {
    let mut group = staffed();
    let first = stage_add(&group, 0, 5, Role::Member).unwrap();
    let second = stage_add(&group, 1, 6, Role::Member).unwrap();
    group.merge(first).unwrap();
    let before = state(&group);
    assert_eq!(group.merge(second), Err(GroupError::Stale));
    assert_eq!(state(&group), before);
    let foreign = stage_add(&founded_by(1), 1, 5, Role::Member).unwrap();
    assert_eq!(group.merge(foreign), Err(GroupError::Stale));
    // Staged on another branch, for the same number.
    let mut branch = staffed();
    add(&mut branch, 1, 6, Role::Member).unwrap();
    let elsewhere = stage_add(&branch, 0, 7, Role::Member).unwrap();
    assert_eq!(elsewhere.commit().number, group.next_number());
    assert_eq!(group.merge(elsewhere), Err(GroupError::Stale));
    assert_eq!(state(&group), before);
}

#[test]
fn stored_groups_are_read_back_and_damaged_ones_refused() {
    let mut group = staffed();
    remove(&mut group, 1, 3).unwrap();
    let stored = group.export();
    assert_eq!(state(&Group::import(&stored).unwrap()), state(&group));
    for cut in (0..stored.len()).step_by(7) {
        assert!(Group::import(&stored[..cut]).is_err());
    }
    assert_eq!(Group::import(b"").unwrap_err(), GroupError::Malformed);
}

#[test]
fn debug_shows_nothing() {
    let group = staffed();
    let staged = stage_add(&group, 0, 5, Role::Member).unwrap();
    let text = format!(
        "{group:?} {staged:?} {:?} {:?} {:?} {:?} {:?}",
        staged.commit(),
        staged.commit().op,
        group.roster(),
        entry(1, Role::Member),
        group.id(),
    );
    assert_eq!(text, "Group(..) Staged(..) Commit(..) Op(..) Roster(..) MemberEntry(..) GroupId(..)");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn changed_commits_never_verify(which in 0usize..3, at: prop::sample::Index, flip in 1u8..) {
        let group = staffed_once();
        let op = [Op::Add { member: entry(5, Role::Member) }, removal(3), Op::Close][which].clone();
        let mut commit = forged(group, 0, op, |_| ());
        let at = at.index(commit.len());
        commit[at] ^= flip;
        prop_assert!(group.verify(&commit).is_err());
    }

    #[test]
    fn any_bytes_never_verify(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(staffed_once().verify(&bytes).is_err());
        prop_assert!(staffed_once().verify_leave(&bytes).is_err());
        prop_assert!(Group::import(&bytes).is_err());
    }
}

/// The statement and signature of other than ours in one signed commit.
fn signed(statement: &[u8], signature: &[u8; 64]) -> Vec<u8> {
    #[derive(serde::Serialize)]
    struct Signed<'a> {
        #[serde(with = "serde_bytes")]
        s: &'a [u8],
        g: ByteArray<64>,
    }
    codec::encode(&Signed { s: statement, g: ByteArray::new(*signature) })
}

/// A commit of person 0 with one field of its statement replaced, rightly signed.
fn altered(commit: &[u8], field: &str, value: ciborium::Value) -> Vec<u8> {
    let mut statement: ciborium::Value = codec::decode(&statement_of(commit), MAX_COMMIT).unwrap();
    for (name, old) in statement.as_map_mut().unwrap() {
        if name.as_text() == Some(field) {
            *old = value.clone();
        }
    }
    let statement = codec::encode(&statement);
    let signature = me(0).sign(labels::COMMIT, &statement, &mut rng(1)).unwrap();
    signed(&statement, signature.as_bytes())
}

fn statement_of(commit: &[u8]) -> Vec<u8> {
    #[derive(serde::Deserialize)]
    struct Signed {
        s: ByteBuf,
    }
    codec::decode::<Signed>(commit, MAX_COMMIT).unwrap().s.into_vec()
}

fn staffed_once() -> &'static Group {
    static STAFFED: LazyLock<Group> = LazyLock::new(staffed);
    &STAFFED
}

fn founded_by(i: usize) -> Group {
    let keys = epoch_keys(0, 0);
    Group::create(me(i), entry(i, Role::Owner), "g", Settings::default(), &keys, NOW, &mut rng(0)).unwrap()
}

fn first_of(group: &Group) -> Commit {
    CommitIn::decode(&chain(group)[0]).unwrap().commit
}

fn removal(i: usize) -> Op {
    Op::Remove { member: id(i), leave: None, keys: KeysHash::from_bytes([0xee; 32]) }
}
