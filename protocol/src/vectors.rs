//! One value of every format of this crate's messages, made from fixed seeds, and the frozen bytes of each.
//!
//! `tests/vectors/messages.json` holds the bytes. A change there is a change of the protocol: it needs a new version or
//! kind, never a new vector.

use std::collections::BTreeMap;

use lapwing_wire::{
    capability::SecretKey,
    frame::Seq,
    ids::{BlobHash, TripwireId},
    sharing::Share,
    time::Timestamp,
};

use crate::{
    alert::{
        Alert, AlertAck, AlertId, AlertKey, Cause, HeldVoice, Kind, PlanVoices, Quarantine, Status,
        TrustAnswer, TrustId, TrustRequest, Voices,
    },
    attachment::{Attachment, AttachmentKey, FileName, MediaType},
    content::{Body, Content, Hello, MessageId},
    envelope::{self, EnvelopeKey},
    group::{
        Direct, DirectBody, Entry, ForkProof, Group, GroupContent, GroupDecline, GroupError, GroupId,
        GroupInvite, GroupJoin, GroupWelcome, InvitationId, MemberEntry, MemberId, MessageBinding,
        MessageHash, Role, RosterHash, Settings,
    },
    renewal::{self, RenewalTicket, Successor, TicketSecret},
    secret::SecretBytes,
    session::LocalIdentity,
    testing::{NOW, epoch_keys, hex, one_time_bundle, person, relay, rng, route},
    ticket::{self, Ticket},
    timer::{Lifetime, Timer},
};

pub(crate) fn alert() -> Alert {
    Alert {
        trust: TrustId::from_bytes([1; 16]),
        id: AlertId::from_bytes([2; 16]),
        serial: 3,
        tripwire: TripwireId::from_bytes([4; 32]),
        kind: Kind::Alert,
        status: Status::Actual,
        cause: Cause::Token,
        made: NOW,
        text: "I was made to unlock.".to_owned(),
        place: Some("the station".to_owned()),
        instructions: None,
        quarantine: vec![Quarantine { group: GroupId::from_bytes([5; 32]), notice: vec![6; 7] }],
    }
}

pub(crate) fn trust_request() -> TrustRequest {
    TrustRequest {
        trust: TrustId::from_bytes([1; 16]),
        relay: relay(),
        mailbox: route(1).mailbox,
        read: SecretKey::from_seed([2; 32]),
        key: EnvelopeKey::from_bytes([3; 32]),
        seal: AlertKey::from_bytes([4; 32]),
        signer: SecretKey::from_seed([5; 32]).public(),
    }
}

/// Voices for a plan at two relays.
pub(crate) fn voices() -> Voices {
    let voice = |n: u8| HeldVoice {
        relay: relay(),
        tripwire: TripwireId::from_bytes([n; 32]),
        key: SecretKey::from_seed([n + 1; 32]),
        share: Share::from_bytes([n + 2; 33]),
    };
    let plan = PlanVoices { needed: 2, of: 3, voices: vec![voice(6), voice(16)] };
    Voices { trust: TrustId::from_bytes([1; 16]), number: 1_800_000_000_000, plans: vec![plan] }
}

/// A founder and the group that she has just made.
pub(crate) fn founded() -> (LocalIdentity, Group) {
    let (ann, entry) = person(1, "ann");
    let entry = MemberEntry { role: Role::Owner, ..entry };
    let keys = epoch_keys(0, 1);
    let group =
        Group::create(&ann, entry, "the group", Settings::default(), &keys, NOW, &mut rng(1)).unwrap();
    (ann, group)
}

fn invitation() -> InvitationId {
    InvitationId::from_bytes([9; 16])
}

fn join() -> GroupJoin {
    let (_, group) = founded();
    let (bob, entry) = person(2, "bob");
    GroupJoin::new(&bob, group.id(), invitation(), entry, &mut rng(2)).unwrap()
}

fn welcome() -> GroupWelcome {
    let (_, group) = founded();
    let keys = epoch_keys(0, 1);
    GroupWelcome::new(&group, invitation(), &keys, Seq::new(7), &mut rng(3)).unwrap().0
}

fn renewal_ticket() -> RenewalTicket {
    let mut rng = rng(8);
    let (mut ann, _) = person(1, "ann");
    let bundle = one_time_bundle(&mut ann, &mut rng);
    RenewalTicket::new(&bundle, &mut rng).unwrap()
}

fn attachment() -> Attachment {
    Attachment {
        relay: relay(),
        hash: BlobHash::from_bytes([4; 32]),
        key: AttachmentKey::from_bytes([5; 32]),
        size: 123_456,
        name: FileName::of("встреча.jpg"),
        media: MediaType::parse("image/jpeg"),
        text: "look".to_owned(),
    }
}

/// One body of every kind.
pub(crate) fn bodies() -> Vec<Body> {
    let trust = TrustId::from_bytes([1; 16]);
    let group = GroupId::from_bytes([5; 32]);
    vec![
        Body::Hello(Hello { route: route(1), alias: Some("bob".to_owned()) }),
        Body::Route(route(2)),
        Body::Ready,
        Body::Text("hello, мир".to_owned()),
        Body::File(attachment()),
        Body::Timer(Timer { lifetime: Lifetime::from_secs(3600), number: 1_800_000_000_000 }),
        Body::TrustRequest(trust_request()),
        Body::TrustAccept(TrustAnswer { trust }),
        Body::TrustRemove(TrustAnswer { trust }),
        Body::AlertAck(AlertAck { trust, alert: AlertId::from_bytes([2; 16]) }),
        Body::GroupInvite(GroupInvite { group, name: "the group".to_owned(), invitation: invitation() }),
        Body::GroupJoin(join()),
        Body::GroupWelcome(welcome()),
        Body::GroupDecline(GroupDecline { group, invitation: invitation() }),
        Body::RenewalTicket(renewal_ticket()),
        Body::Renewal(route(3)),
        Body::Voices(voices()),
        Body::Successor(Successor { identity: *person(2, "bob").0.public(), first: vec![3; 9] }),
    ]
}

/// One entry of every kind.
pub(crate) fn entries() -> Vec<Entry> {
    let (to, from) = (MemberId::from_bytes([1; 32]), MemberId::from_bytes([2; 32]));
    vec![
        Entry::Commit(vec![1, 2, 3]),
        Entry::Direct { to, from, message: vec![4; 5] },
        Entry::Directs(vec![
            Direct { to, from, message: vec![4; 5] },
            Direct { to: from, from: to, message: vec![6; 7] },
        ]),
        Entry::Message { from, distribution: [8; 16], message: vec![9; 10] },
        Entry::Leave(vec![11; 12]),
    ]
}

/// One direct body of every kind.
pub(crate) fn direct_bodies() -> Vec<DirectBody> {
    let (_, group) = founded();
    vec![
        DirectBody::SenderKey { distribution: SecretBytes::new(vec![1; 96]), epoch: 2 },
        DirectBody::NewEpoch { keys: epoch_keys(1, 2), head: group.head() },
    ]
}

pub(crate) fn binding() -> MessageBinding {
    MessageBinding {
        group: GroupId::from_bytes([1; 32]),
        epoch: 2,
        roster: RosterHash::from_bytes([3; 32]),
        author: MemberId::from_bytes([4; 32]),
        counter: 5,
        previous: MessageHash::from_bytes([6; 32]),
    }
}

/// Add, remove, close, and a proof that two commits exclude each other.
fn chain() -> BTreeMap<&'static str, Vec<u8>> {
    let (ann, mut group) = founded();
    let (bob, entry) = person(2, "bob");
    let mut rng = rng(4);
    let mut out = BTreeMap::new();
    out.insert("commit create", group.commits().next().unwrap().to_vec());
    let add = group.stage_add(&ann, entry, NOW, &mut rng).unwrap();
    let close = group.stage_close(&ann, NOW, &mut rng).unwrap();
    out.insert("commit add", add.signed().to_vec());
    group.merge(add).unwrap();
    let Err(GroupError::Fork(proof)) = group.verify(close.signed()) else { panic!("a fork") };
    out.insert("fork proof", proof.encode());
    let leave = group.wish_to_leave(&bob, &mut rng).unwrap();
    let bob = MemberId::of(bob.public());
    let remove = group.stage_remove(&ann, &bob, Some(&leave), &epoch_keys(1, 2), NOW, &mut rng).unwrap();
    out.insert("leave", leave);
    out.insert("commit remove", remove.signed().to_vec());
    group.merge(remove).unwrap();
    let close = group.stage_close(&ann, NOW, &mut rng).unwrap();
    out.insert("commit close", close.signed().to_vec());
    group.merge(close).unwrap();
    out.insert("group state", group.export());
    out.insert("group id", group.id().as_bytes().to_vec());
    out.insert("group head", group.head().as_bytes().to_vec());
    out.insert("roster hash", group.roster_hash().as_bytes().to_vec());
    out
}

/// The bytes of everything, by name.
fn all() -> BTreeMap<String, String> {
    let mut out: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for (name, bytes) in chain() {
        out.insert(name.to_owned(), bytes);
    }
    for body in bodies() {
        let content = Content { id: MessageId::from_bytes([7; 16]), sent: NOW, body };
        out.insert(format!("content {}", content.body.kind()), content.encode().unwrap().expose().to_vec());
    }
    for (name, entry) in ["commit", "direct", "directs", "message", "leave"].iter().zip(entries()) {
        out.insert(format!("entry {name}"), entry.encode().unwrap());
    }
    for (name, body) in ["sender_key", "new_epoch"].iter().zip(direct_bodies()) {
        out.insert(format!("direct {name}"), body.encode().unwrap().expose().to_vec());
    }
    let text = Content { id: MessageId::from_bytes([7; 16]), sent: NOW, body: Body::Text("hi".to_owned()) };
    let message = GroupContent::new(binding(), text).unwrap();
    out.insert("group content".to_owned(), message.encode().expose().to_vec());
    out.insert("group message hash".to_owned(), message.hash().as_bytes().to_vec());
    out.insert("route".to_owned(), route(1).export().expose().to_vec());
    let keys = epoch_keys(1, 2);
    out.insert("epoch keys".to_owned(), keys.export().expose().to_vec());
    out.insert("epoch keys hash".to_owned(), keys.hash().as_bytes().to_vec());
    let sealed =
        alert().seal(&AlertKey::from_bytes([1; 32]), &SecretKey::from_seed([2; 32]), &mut rng(5)).unwrap();
    out.insert("alert".to_owned(), sealed);
    let envelope = envelope::seal(&route(1).key, &route(1).mailbox, b"content", &mut rng(6)).unwrap();
    out.insert("envelope".to_owned(), envelope);
    let blob = ticket::seal_bundle(&route(1).key, &person(1, "ann").1.bundle, &mut rng(7)).unwrap();
    let ticket = Ticket { route: route(1), bundle: BlobHash::of(&blob), expires: NOW, reusable: true };
    out.insert("ticket".to_owned(), ticket.to_text().into_bytes());
    let refusal = renewal::refuse(&TicketSecret::from_bytes([1; 32]), &[2; 32]);
    out.insert("renewal refusal".to_owned(), refusal);
    out.insert("ticket bundle hash".to_owned(), BlobHash::of(&blob).as_bytes().to_vec());
    // Computed by another program too, from docs/protocol-attachments.md.
    let chunks = Attachment { size: 11, ..attachment() }.chunks().unwrap();
    let mut chunk = Vec::new();
    chunks.seal(0, b"eleven here", &mut chunk).unwrap();
    out.insert("file blob hash".to_owned(), BlobHash::of(&chunk).as_bytes().to_vec());
    out.insert("file chunk begins".to_owned(), chunk[..48].to_vec());
    out.into_iter().map(|(name, bytes)| (name, hex(&bytes))).collect()
}

#[test]
fn every_format_has_its_frozen_bytes() {
    let frozen: BTreeMap<String, String> =
        serde_json::from_str(include_str!("../tests/vectors/messages.json")).unwrap();
    let made = all();
    if frozen != made {
        // For a format that is new: what its vector would be.
        println!("{}", serde_json::to_string_pretty(&made).unwrap());
    }
    for (name, bytes) in &made {
        assert_eq!(frozen.get(name), Some(bytes), "{name}");
    }
    assert_eq!(frozen.len(), made.len());
}

/// The frozen bytes are read, not only written: what an older version stored or sent stays readable.
#[test]
fn frozen_bytes_are_read_back() {
    let frozen: BTreeMap<String, String> =
        serde_json::from_str(include_str!("../tests/vectors/messages.json")).unwrap();
    let bytes = |name: &str| -> Vec<u8> {
        let text = &frozen[name];
        (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
    };
    let commits = ["commit create", "commit add", "commit remove", "commit close"].map(bytes);
    let group = Group::from_chain(&commits).unwrap();
    assert_eq!(group.id().as_bytes().as_slice(), bytes("group id"));
    assert_eq!(group.head().as_bytes().as_slice(), bytes("group head"));
    assert!(group.is_closed() && group.epoch() == 1 && group.roster().len() == 1);
    assert_eq!(Group::import(&bytes("group state")).unwrap().head(), group.head());
    let fork = ForkProof::decode(&bytes("fork proof")).unwrap().verify(&group).unwrap();
    assert_eq!((fork.number, fork.equivocator().is_some()), (1, true));
    let key = AlertKey::from_bytes([1; 32]);
    let opened = Alert::open(&bytes("alert"), &key, &SecretKey::from_seed([2; 32]).public()).unwrap();
    assert_eq!(opened.into_alert(), alert());
    let opened = envelope::open(&route(1).key, &route(1).mailbox, &bytes("envelope")).unwrap();
    assert_eq!(opened.expose(), b"content");
    let text = String::from_utf8(bytes("ticket")).unwrap();
    assert!(Ticket::from_text(&text, Timestamp::from_millis(0)).unwrap().reusable);
    for name in frozen.keys() {
        if name.starts_with("content ") {
            let content = Content::decode(&bytes(name)).unwrap();
            assert_eq!(format!("content {}", content.body.kind()), *name);
        } else if name.starts_with("entry ") {
            assert!(Entry::decode(&bytes(name)).is_ok(), "{name}");
        } else if name.starts_with("direct ") {
            assert!(DirectBody::decode(&bytes(name)).is_ok(), "{name}");
        }
    }
}
