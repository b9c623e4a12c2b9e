use lapwing_wire::frame::Seq;

use super::*;
use crate::{
    content::{Body, Content, MessageId},
    group::{Chain, GroupId, GroupJoin, GroupWelcome, InvitationId, MAX_INLINE_CHAIN},
    session::MAX_PLAINTEXT,
};

fn invitation() -> InvitationId {
    InvitationId::from_bytes([9; 16])
}

fn through_the_wire(body: Body) -> Body {
    let content = Content { id: MessageId::from_bytes([1; 16]), sent: NOW, body };
    Content::decode(content.encode().unwrap().expose()).unwrap().body
}

#[test]
fn grp_17_only_who_asked_by_this_invitation_is_added() {
    let group = founded();
    let join = GroupJoin::new(me(1), group.id(), invitation(), entry(1, Role::Member), &mut rng(1)).unwrap();
    let Body::GroupJoin(join) = through_the_wire(Body::GroupJoin(join)) else { panic!("a join") };
    assert_eq!(join.verify(group.id(), invitation()).unwrap(), &entry(1, Role::Member));
    let refuse = |join: &GroupJoin| join.verify(group.id(), invitation()).unwrap_err();

    let other = GroupId::from_bytes([1; 32]);
    assert_eq!(join.verify(other, invitation()).unwrap_err(), GroupError::WrongGroup);
    let other = InvitationId::from_bytes([1; 16]);
    assert_eq!(join.verify(group.id(), other).unwrap_err(), GroupError::WrongInvitation);
    // The proof is of this group, invitation, identity, name and bundle.
    assert_eq!(
        GroupJoin { invitation: other, ..join.clone() }.verify(group.id(), other).unwrap_err(),
        GroupError::BadSignature
    );
    let renamed = MemberEntry { name: "other".to_owned(), ..join.member.clone() };
    assert_eq!(refuse(&GroupJoin { member: renamed, ..join.clone() }), GroupError::BadSignature);
    let rekeyed = MemberEntry { bundle: entry(2, Role::Member).bundle, ..join.member.clone() };
    assert_eq!(refuse(&GroupJoin { member: rekeyed, ..join.clone() }), GroupError::BadSignature);
    assert_eq!(
        refuse(&GroupJoin { member: entry(2, Role::Member), ..join.clone() }),
        GroupError::BadSignature
    );
    // Rightly signed, with a bundle of somebody else.
    let mixed = MemberEntry { bundle: entry(2, Role::Member).bundle, ..entry(1, Role::Member) };
    let mixed = GroupJoin::new(me(1), group.id(), invitation(), mixed, &mut rng(1)).unwrap();
    assert_eq!(refuse(&mixed), GroupError::BadMember);
    let foreign = GroupJoin::new(me(1), group.id(), invitation(), entry(2, Role::Member), &mut rng(1));
    assert_eq!(foreign.unwrap_err(), GroupError::BadMember);
}

#[test]
fn grp_18_a_newcomer_verifies_the_chain_itself_and_keys() {
    let group = staffed();
    let keys = epoch_keys(0, 0);
    let (welcome, blob) = GroupWelcome::new(&group, invitation(), &keys, Seq::new(7), &mut rng(1)).unwrap();
    assert!(blob.is_none());
    let Body::GroupWelcome(welcome) = through_the_wire(Body::GroupWelcome(welcome)) else {
        panic!("a welcome")
    };
    let open = |welcome: &GroupWelcome, me| welcome.open(group.id(), invitation(), &id(me), None);
    assert_eq!(state(&open(&welcome, 3).unwrap()), state(&group));
    assert_eq!((welcome.cursor, welcome.keys.hash()), (Seq::new(7), keys.hash()));

    assert_eq!(open(&welcome, 6).unwrap_err(), GroupError::NotAMember);
    let other = InvitationId::from_bytes([1; 16]);
    assert_eq!(welcome.open(group.id(), other, &id(3), None).unwrap_err(), GroupError::WrongInvitation);
    let other = GroupId::from_bytes([1; 32]);
    assert_eq!(welcome.open(other, invitation(), &id(3), None).unwrap_err(), GroupError::WrongGroup);
    // A lying admin: other keys, another group's chain under this id, a shortened chain.
    let lying = GroupWelcome { keys: epoch_keys(0, 1), ..copy(&welcome) };
    assert_eq!(open(&lying, 3).unwrap_err(), GroupError::WrongKeys);
    let lying = GroupWelcome { keys: epoch_keys(1, 0), ..copy(&welcome) };
    assert_eq!(open(&lying, 3).unwrap_err(), GroupError::WrongEpoch);
    let foreign = {
        let mut group =
            Group::create(me(1), entry(1, Role::Owner), "g", Settings::default(), &keys, NOW, &mut rng(0))
                .unwrap();
        add(&mut group, 1, 3, Role::Member).unwrap();
        group
    };
    let lying = GroupWelcome { chain: Chain::Inline(chain(&foreign)), ..copy(&welcome) };
    assert_eq!(open(&lying, 3).unwrap_err(), GroupError::WrongGroup);
    let short = chain(&group)[..3].to_vec();
    let lying = GroupWelcome { chain: Chain::Inline(short), ..copy(&welcome) };
    assert_eq!(open(&lying, 3).unwrap_err(), GroupError::NotAMember);
    let wrong = GroupWelcome::new(&group, invitation(), &epoch_keys(0, 1), Seq::new(7), &mut rng(1));
    assert_eq!(wrong.unwrap_err(), GroupError::WrongKeys);
}

#[test]
fn grp_18_a_long_chain_travels_as_a_sealed_blob() {
    let mut group = staffed();
    let mut seeded = rng(3);
    while group.chain_bytes() <= MAX_INLINE_CHAIN {
        let number = group.next_number();
        let (_, newcomer) = person(20_000 + number, &format!("member {number}"));
        let staged = group.stage_add(me(0), newcomer, NOW, &mut seeded).unwrap();
        group.merge(staged).unwrap();
    }
    let keys = epoch_keys(0, 0);
    let (welcome, blob) = GroupWelcome::new(&group, invitation(), &keys, Seq::START, &mut seeded).unwrap();
    let blob = blob.unwrap();
    assert_eq!(blob.len() % (16 << 10), 0);
    let Body::GroupWelcome(welcome) = through_the_wire(Body::GroupWelcome(welcome)) else {
        panic!("a welcome")
    };
    let open = |blob: Option<&[u8]>| welcome.open(group.id(), invitation(), &id(3), blob);
    assert_eq!(state(&open(Some(&blob)).unwrap()), state(&group));
    assert_eq!(open(None).unwrap_err(), GroupError::ChainNeeded);
    let mut changed = blob.clone();
    changed[100] ^= 1;
    assert_eq!(open(Some(&changed)).unwrap_err(), GroupError::Malformed);
    assert_eq!(open(Some(&[])).unwrap_err(), GroupError::Malformed);
}

#[test]
fn grp_18_the_longest_welcome_fits_one_message() {
    let group = staffed();
    let keys = epoch_keys(0, 0);
    let (welcome, _) = GroupWelcome::new(&group, invitation(), &keys, Seq::START, &mut rng(1)).unwrap();
    // As many bytes as an inline chain may have, in commits as short as they come.
    let commits = vec![vec![0; 200]; MAX_INLINE_CHAIN / 200];
    let welcome = GroupWelcome { chain: Chain::Inline(commits), ..welcome };
    let content =
        Content { id: MessageId::from_bytes([1; 16]), sent: NOW, body: Body::GroupWelcome(welcome) };
    assert!(content.encode().unwrap().expose().len() < MAX_PLAINTEXT);
}

fn copy(welcome: &GroupWelcome) -> GroupWelcome {
    GroupWelcome::from_raw(welcome.raw()).unwrap()
}
