use super::*;
use crate::group::{ForkProof, MAX_FORK_PROOF};

/// Two groups that shared `staffed` and then took different next commits by these authors.
fn branches(first: usize, second: usize) -> (Group, Group) {
    let (mut left, mut right) = (staffed(), staffed());
    assert_eq!(left.head(), right.head());
    add(&mut left, first, 5, Role::Member).unwrap();
    add(&mut right, second, 6, Role::Member).unwrap();
    (left, right)
}

fn proof(group: &Group, signed: &[u8]) -> ForkProof {
    match refusal(group, signed) {
        GroupError::Fork(proof) => *proof,
        other => panic!("no fork: {other:?}"),
    }
}

#[test]
fn grp_13_a_second_valid_commit_for_one_position_is_a_proof_for_everybody() {
    let (left, right) = branches(1, 1);
    let number = left.next_number() - 1;
    let found = proof(&left, chain(&right).last().unwrap());
    // It travels as bytes and convinces both branches, and a third party that has only what came before.
    let found = ForkProof::decode(&found.encode()).unwrap();
    for judge in [&left, &right, &staffed()] {
        let judge = Group::from_chain(&chain(judge)).unwrap();
        let fork = found.verify(&judge).unwrap();
        assert_eq!((fork.number, fork.authors), (number, (id(1), id(1))));
        assert_eq!(fork.equivocator(), Some(id(1)));
    }
    assert_eq!(found.group(), left.id());
    assert_eq!(found.commits().0, &chain(&left).last().unwrap()[..]);
}

#[test]
fn grp_13_two_admins_at_once_fork_without_lying() {
    let (left, right) = branches(1, 2);
    let found = proof(&right, chain(&left).last().unwrap());
    let fork = found.verify(&left).unwrap();
    assert_eq!(fork.equivocator(), None);
    assert_eq!(fork.authors, (id(2), id(1)));
}

#[test]
fn grp_13_a_fork_is_found_long_after_and_after_its_author_was_removed() {
    let (mut left, right) = branches(1, 1);
    remove(&mut left, 0, 1).unwrap();
    add(&mut left, 0, 7, Role::Member).unwrap();
    let found = proof(&left, chain(&right).last().unwrap());
    assert_eq!(found.verify(&left).unwrap().equivocator(), Some(id(1)));
    // What follows the other branch is told apart from a gap and from a lie.
    let mut further = right;
    add(&mut further, 2, 7, Role::Member).unwrap();
    assert_eq!(refusal(&left, chain(&further).last().unwrap()), GroupError::OtherBranch);
}

#[test]
fn grp_13_what_would_not_have_held_there_is_no_fork() {
    let (left, _) = branches(1, 1);
    let before = staffed();
    let signed_by = |by: usize| forged(&before, by, Op::Close, |_| ());
    assert_eq!(refusal(&left, &signed_by(3)), GroupError::NotAllowed);
    assert_eq!(refusal(&left, &signed_by(7)), GroupError::NotAMember);
    let named = forged(&before, 3, Op::Close, |commit| commit.author = id(1));
    assert_eq!(refusal(&left, &named), GroupError::BadSignature);
    // Person 5 became a member only by the commit whose place is contested.
    assert_eq!(refusal(&left, &signed_by(5)), GroupError::NotAMember);
    let wrong = forged(&before, 1, Op::Close, |commit| commit.epoch = 1);
    assert_eq!(refusal(&left, &wrong), GroupError::WrongEpoch);
}

/// What keeps a stranger, a mere member, or somebody of another time from making every reader replay the chain.
#[test]
fn grp_13_a_contested_position_is_looked_at_only_for_who_could_have_taken_it() {
    let mut group = staffed();
    let taken = group.next_number();
    remove(&mut group, 0, 1).unwrap();
    add(&mut group, 0, 5, Role::Admin).unwrap();
    add(&mut group, 0, 6, Role::Member).unwrap();
    let past = |by: usize, number: u64, name: usize| {
        let previous = group.at(number).unwrap().head();
        let commit = forged(&group, by, Op::Close, |commit| {
            commit.number = number;
            commit.previous = previous;
            commit.author = id(name);
        });
        group.check_past(&CommitIn::decode(&commit).unwrap())
    };
    // Admin 1 could take the place from which he was removed, and none after it.
    assert_eq!(past(1, taken, 1), Ok(()));
    assert_eq!(past(1, taken + 1, 1), Err(GroupError::NotAMember));
    // Admin 5 could take none up to the one at which he was added.
    assert_eq!(past(5, taken + 1, 5), Err(GroupError::NotAMember));
    assert_eq!(past(5, taken + 2, 5), Ok(()));
    assert_eq!(past(3, taken, 3), Err(GroupError::NotAllowed));
    assert_eq!(past(7, taken, 7), Err(GroupError::NotAMember));
    assert_eq!(past(3, taken, 0), Err(GroupError::BadSignature));
    let other = forged(&group, 0, Op::Close, |commit| commit.number = taken);
    assert_eq!(group.check_past(&CommitIn::decode(&other).unwrap()), Err(GroupError::OtherBranch));
}

#[test]
fn grp_13_a_made_up_proof_proves_nothing() {
    let (left, right) = branches(1, 1);
    let last = |group: &Group| chain(group).pop().unwrap();
    let verify = |first: Vec<u8>, second: Vec<u8>| ForkProof::new(left.id(), first, second).verify(&left);
    assert_eq!(verify(last(&left), last(&left)), Err(GroupError::NoProof));
    let first = chain(&left)[0].clone();
    assert!(verify(first.clone(), first).is_err());
    let earlier = chain(&left)[2].clone();
    assert_eq!(verify(last(&left), earlier), Err(GroupError::NoProof));
    let before = staffed();
    let not_allowed = forged(&before, 3, Op::Close, |_| ());
    assert_eq!(verify(last(&left), not_allowed), Err(GroupError::NoProof));
    let named = forged(&before, 3, Op::Close, |commit| commit.author = id(1));
    assert_eq!(verify(last(&left), named), Err(GroupError::NoProof));
    let good = ForkProof::new(left.id(), last(&left), last(&right));
    assert!(good.verify(&left).is_ok());
    let other = {
        let keys = epoch_keys(0, 0);
        Group::create(me(1), entry(1, Role::Owner), "g", Settings::default(), &keys, NOW, &mut rng(0))
            .unwrap()
    };
    assert_eq!(good.verify(&other), Err(GroupError::WrongGroup));
    assert_eq!(good.verify(&founded()), Err(GroupError::Gap { expected: 1 }));
}

#[test]
fn grp_13_changed_proofs_prove_nothing() {
    let (left, right) = branches(1, 1);
    let bytes = proof(&left, chain(&right).last().unwrap()).encode();
    for at in (0..bytes.len()).step_by(11) {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        let outcome = ForkProof::decode(&changed).and_then(|proof| proof.verify(&left));
        assert!(outcome.is_err(), "byte {at}");
    }
    assert_eq!(ForkProof::decode(&vec![0; MAX_FORK_PROOF + 1]).unwrap_err(), GroupError::TooLong);
}
