//! Rules of groups, each by its number; a reference model; forged and damaged commits.

mod fork;
mod invite;
mod model;
mod rules;

use std::sync::LazyLock;

use super::{
    Group, GroupError, MemberEntry, MemberId, Op, Role, Settings, Staged,
    commit::{Commit, CommitIn},
};
use crate::{
    session::LocalIdentity,
    testing::{NOW, epoch_keys, person, rng},
};

/// Identities are costly to make and never changed by a group: all tests share these.
static PEOPLE: LazyLock<Vec<(LocalIdentity, MemberEntry)>> =
    LazyLock::new(|| (0..8).map(|i| person(i, &format!("p{i}"))).collect());

fn me(i: usize) -> &'static LocalIdentity {
    &PEOPLE[i].0
}

fn entry(i: usize, role: Role) -> MemberEntry {
    MemberEntry { role, ..PEOPLE[i].1.clone() }
}

fn id(i: usize) -> MemberId {
    MemberId::of(me(i).public())
}

/// A group of person 0.
fn founded() -> Group {
    let keys = epoch_keys(0, 0);
    Group::create(me(0), entry(0, Role::Owner), "g", Settings::default(), &keys, NOW, &mut rng(0)).unwrap()
}

/// Owner 0, admin 1, admin 2, member 3, reader 4.
fn staffed() -> Group {
    let mut group = founded();
    for (i, role) in [(1, Role::Admin), (2, Role::Admin), (3, Role::Member), (4, Role::Reader)] {
        add(&mut group, 0, i, role).unwrap();
    }
    group
}

fn stage_add(group: &Group, by: usize, whom: usize, role: Role) -> Result<Staged, GroupError> {
    group.stage_add(me(by), entry(whom, role), NOW, &mut rng(by as u64))
}

fn add(group: &mut Group, by: usize, whom: usize, role: Role) -> Result<(), GroupError> {
    let staged = stage_add(group, by, whom, role)?;
    group.merge(staged)
}

fn stage_remove(group: &Group, by: usize, whom: usize, leave: Option<&[u8]>) -> Result<Staged, GroupError> {
    let epoch = group.epoch() + 1;
    let keys = epoch_keys(epoch, 100 + epoch);
    group.stage_remove(me(by), &id(whom), leave, &keys, NOW, &mut rng(by as u64))
}

fn remove(group: &mut Group, by: usize, whom: usize) -> Result<(), GroupError> {
    let staged = stage_remove(group, by, whom, None)?;
    group.merge(staged)
}

fn close(group: &mut Group, by: usize) -> Result<(), GroupError> {
    let staged = group.stage_close(me(by), NOW, &mut rng(by as u64))?;
    group.merge(staged)
}

fn chain(group: &Group) -> Vec<Vec<u8>> {
    group.commits().map(<[u8]>::to_vec).collect()
}

/// Everything that a group's state is, for comparison.
#[derive(Debug, PartialEq)]
struct State {
    stored: Vec<u8>,
    roster: [u8; 32],
    members: Vec<(MemberId, Role, Option<u64>)>,
    epoch: u64,
    closed: bool,
}

fn state(group: &Group) -> State {
    let members =
        group.roster().iter().map(|(id, entry)| (*id, entry.role, group.roster().since(id))).collect();
    State {
        stored: group.export(),
        roster: *group.roster_hash().as_bytes(),
        members,
        epoch: group.epoch(),
        closed: group.is_closed(),
    }
}

/// A commit as a lying member would make it: the next one of `group`, changed, and rightly signed by `by`.
fn forged(group: &Group, by: usize, op: Op, change: impl FnOnce(&mut Commit)) -> Vec<u8> {
    let epoch = group.epoch() + u64::from(op.begins_epoch());
    let mut commit = Commit {
        group: group.id(),
        number: group.next_number(),
        previous: group.head(),
        epoch,
        author: id(by),
        made: NOW,
        op,
    };
    change(&mut commit);
    commit.sign(me(by), &mut rng(77)).unwrap().encode()
}

/// The error with which `group` refuses `signed`; the group stays as it was.
fn refusal(group: &Group, signed: &[u8]) -> GroupError {
    let before = state(group);
    let error = group.verify(signed).unwrap_err();
    assert_eq!(state(group), before);
    error
}
