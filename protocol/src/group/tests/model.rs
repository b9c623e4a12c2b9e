//! Random commits by random people against a model that knows the rules in its own words.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Add(usize, Role),
    Remove(usize),
    /// The member wishes to leave; the author answers.
    Leave(usize),
    Close,
}

/// Who is in the group, by the reference's own bookkeeping.
#[derive(Clone)]
struct Model {
    roles: BTreeMap<usize, Role>,
    removals: u64,
    steps: u64,
    over: bool,
}

impl Model {
    fn allows(&self, author: usize, step: &Step) -> bool {
        let Some(by) = self.roles.get(&author) else { return false };
        let staff = [Role::Owner, Role::Admin].contains(by);
        let here = |whom: &usize| self.roles.contains_key(whom);
        let right = match step {
            Step::Add(whom, role) => {
                let grants = match by {
                    Role::Owner => *role != Role::Owner,
                    _ => [Role::Member, Role::Reader].contains(role),
                };
                !here(whom) && grants
            }
            Step::Remove(whom) => here(whom) && *whom != author && self.roles[whom] != Role::Owner,
            Step::Leave(whom) => here(whom) && *whom != author,
            Step::Close => true,
        };
        staff && right && !self.over
    }

    fn take(&mut self, step: &Step) {
        self.steps += 1;
        match step {
            Step::Add(whom, role) => {
                self.roles.insert(*whom, *role);
            }
            Step::Remove(whom) | Step::Leave(whom) => {
                self.roles.remove(whom);
                self.removals += 1;
            }
            Step::Close => self.over = true,
        }
    }
}

fn stage(group: &Group, author: usize, step: &Step) -> Result<Staged, GroupError> {
    match step {
        Step::Add(whom, role) => stage_add(group, author, *whom, *role),
        Step::Remove(whom) => stage_remove(group, author, *whom, None),
        Step::Leave(whom) => {
            let wish = group.wish_to_leave(me(*whom), &mut rng(1))?;
            stage_remove(group, author, *whom, Some(&wish))
        }
        Step::Close => group.stage_close(me(author), NOW, &mut rng(2)),
    }
}

/// The same step as a liar would commit it, past his own program's checks.
fn lie(group: &Group, author: usize, step: &Step) -> Vec<u8> {
    let op = match step {
        Step::Add(whom, role) => Op::Add { member: entry(*whom, *role) },
        Step::Remove(whom) | Step::Leave(whom) => {
            let epoch = group.epoch() + 1;
            Op::Remove { member: id(*whom), leave: None, keys: epoch_keys(epoch, 100 + epoch).hash() }
        }
        Step::Close => Op::Close,
    };
    forged(group, author, op, |_| ())
}

fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
    let role = prop::sample::select(vec![Role::Owner, Role::Admin, Role::Member, Role::Reader]);
    let step = prop_oneof![
        8 => (0..6usize, role).prop_map(|(whom, role)| Step::Add(whom, role)),
        5 => (0..6usize).prop_map(Step::Remove),
        2 => (0..6usize).prop_map(Step::Leave),
        1 => Just(Step::Close),
    ];
    // Person 0, who owns the group, acts more often, so that it fills.
    let author = prop_oneof![3 => Just(0usize), 4 => 0..6usize];
    prop::collection::vec((author, step), 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn groups_do_what_the_model_does(steps in steps()) {
        let mut group = founded();
        // Another member, who sees only what lies in the log.
        let mut replica = Group::from_chain(&chain(&group)).unwrap();
        let mut model = Model { roles: BTreeMap::from([(0, Role::Owner)]), removals: 0, steps: 0, over: false };
        for (author, step) in steps {
            let before = state(&group);
            let staged = stage(&group, author, &step);
            prop_assert_eq!(staged.is_ok(), model.allows(author, &step), "{} {:?}", author, step);
            prop_assert_eq!(&state(&group), &before, "staging changes nothing");
            match staged {
                Ok(staged) => {
                    let seen = replica.verify(staged.signed()).unwrap();
                    prop_assert_eq!(seen.hash(), staged.hash());
                    replica.merge(seen).unwrap();
                    group.merge(staged).unwrap();
                    model.take(&step);
                }
                Err(_) => prop_assert!(replica.verify(&lie(&replica, author, &step)).is_err()),
            }
            let roles: BTreeMap<MemberId, Role> =
                model.roles.iter().map(|(person, role)| (id(*person), *role)).collect();
            let actual: BTreeMap<MemberId, Role> =
                group.roster().iter().map(|(id, entry)| (*id, entry.role)).collect();
            prop_assert_eq!(actual, roles);
            prop_assert_eq!(group.epoch(), model.removals);
            prop_assert_eq!(group.next_number(), model.steps + 1);
            prop_assert_eq!(group.is_closed(), model.over);
            prop_assert_eq!(&state(&replica), &state(&group));
        }
        // Who comes late, and who reads the stored chain, is where the others are.
        prop_assert_eq!(&state(&Group::from_chain(&chain(&group)).unwrap()), &state(&group));
        prop_assert_eq!(&state(&Group::import(&group.export()).unwrap()), &state(&group));
    }
}
