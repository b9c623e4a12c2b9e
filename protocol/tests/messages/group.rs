//! People who meet by a ticket, form a group, talk in it, and part: every byte goes through the formats and real
//! sessions, as through a relay.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use lapwing_protocol::{
    content::{Body, Content, Hello, MessageId},
    envelope::{self, EnvelopeKey},
    group::{
        AuthorTrack, Direct, DirectBody, Entry, EpochKeys, Group, GroupContent, GroupError, GroupJoin,
        GroupWelcome, InvitationId, MemberEntry, MemberId, MessageBinding, Role, Settings, TrackError,
        context,
    },
    route::Route,
    session::{
        BundleUse, Context, LocalIdentity, OwnSenderKey, PeerSenderKey, Session, SessionError, accept_first,
    },
    ticket::{self, Ticket},
};
use lapwing_wire::{
    address::{RelayAddress, RelayKey},
    capability::SecretKey,
    frame::Seq,
    ids::{BlobHash, MailboxId},
    padding::SizeClass,
    time::Timestamp,
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const DIRECT: Context<'static> = Context::new(b"contact");

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(NOW.as_millis())
}

fn relay() -> RelayAddress {
    RelayAddress::new(RelayKey::of_spki(b"a relay"), "example.org", 443).unwrap()
}

fn route(rng: &mut ChaCha20Rng) -> Route {
    Route {
        relay: relay(),
        mailbox: MailboxId::of_admin(&SecretKey::generate(rng).public()),
        write: SecretKey::generate(rng),
        key: EnvelopeKey::generate(rng),
    }
}

fn epoch_keys(epoch: u64, rng: &mut ChaCha20Rng) -> EpochKeys {
    EpochKeys {
        epoch,
        relay: relay(),
        mailbox: MailboxId::of_admin(&SecretKey::generate(rng).public()),
        read: SecretKey::generate(rng),
        write: SecretKey::generate(rng),
        key: EnvelopeKey::generate(rng),
    }
}

fn content(body: Body, rng: &mut ChaCha20Rng) -> Content {
    Content { id: MessageId::generate(rng), sent: NOW, body }
}

/// Why a message was not shown.
#[derive(Debug, PartialEq)]
enum Unread {
    Envelope,
    NoKey,
    Session(SessionError),
    Group(GroupError),
    Track(TrackError),
}

/// A member's client, without storage and network.
struct Member {
    identity: LocalIdentity,
    group: Group,
    keys: EpochKeys,
    own: OwnSenderKey,
    own_track: AuthorTrack,
    sessions: BTreeMap<MemberId, Session>,
    senders: BTreeMap<(MemberId, [u8; 16]), PeerSenderKey>,
    tracks: BTreeMap<MemberId, AuthorTrack>,
    rng: ChaCha20Rng,
}

impl Member {
    fn new(identity: LocalIdentity, group: Group, keys: EpochKeys, mut rng: ChaCha20Rng) -> Self {
        let own = OwnSenderKey::generate(identity.public(), &mut rng).unwrap();
        Self {
            identity,
            group,
            keys,
            own,
            own_track: AuthorTrack::new(),
            sessions: BTreeMap::new(),
            senders: BTreeMap::new(),
            tracks: BTreeMap::new(),
            rng,
        }
    }

    fn id(&self) -> MemberId {
        MemberId::of(self.identity.public())
    }

    fn seal(&mut self, entry: &Entry) -> Vec<u8> {
        self.keys.seal(&entry.encode().unwrap(), &mut self.rng).unwrap()
    }

    /// Tells one member something, inside the session of the two, which begins with the bundle in the chain.
    fn tell(&mut self, to: MemberId, body: &DirectBody) -> Vec<u8> {
        let context = context(&self.group.id());
        if !self.sessions.contains_key(&to) {
            let bundle = self.group.member(&to).unwrap().verified_bundle().unwrap();
            let session = Session::initiate(&self.identity, &bundle, now(), &mut self.rng).unwrap();
            self.sessions.insert(to, session);
        }
        let session = self.sessions.get_mut(&to).unwrap();
        let body = body.encode().unwrap();
        let message = session
            .encrypt(body.expose(), Context::new(&context), now(), &mut self.rng)
            .unwrap()
            .into_bytes();
        let entries = Entry::pack(vec![Direct { to, from: self.id(), message }]).unwrap();
        self.seal(&entries[0])
    }

    fn tell_sender_key(&mut self, to: MemberId) -> Vec<u8> {
        let distribution = self.own.distribution(&mut self.rng).unwrap();
        let epoch = self.group.epoch();
        self.tell(to, &DirectBody::SenderKey { distribution, epoch })
    }

    fn say(&mut self, text: &str) -> Vec<u8> {
        let binding = MessageBinding {
            group: self.group.id(),
            epoch: self.group.epoch(),
            roster: self.group.roster_hash(),
            author: self.id(),
            counter: self.own_track.last() + 1,
            previous: self.own_track.last_hash(),
        };
        let content = content(Body::Text(text.to_owned()), &mut self.rng);
        let message = GroupContent::new(binding, content).unwrap();
        let checked = self.own_track.check(&message).unwrap();
        self.own_track.merge(checked);
        let context = context(&self.group.id());
        let sealed =
            self.own.encrypt(message.encode().expose(), Context::new(&context), &mut self.rng).unwrap();
        let entry = Entry::Message {
            from: self.id(),
            distribution: *self.own.distribution_id().as_bytes(),
            message: sealed.into_bytes(),
        };
        self.seal(&entry)
    }

    /// Reads one envelope of the log. The text of a message, if it was one.
    fn read(&mut self, envelope: &[u8]) -> Result<Option<String>, Unread> {
        let entry = self.keys.open(envelope).map_err(|_| Unread::Envelope)?;
        let context = context(&self.group.id());
        match Entry::decode(entry.expose()).unwrap() {
            Entry::Commit(signed) => {
                let staged = self.group.verify(&signed).map_err(Unread::Group)?;
                self.group.merge(staged).map_err(Unread::Group)?;
                Ok(None)
            }
            Entry::Direct { to, from, message } if to == self.id() => {
                let peer = self.group.member(&from).ok_or(Unread::Group(GroupError::NotAMember))?.identity;
                let context = Context::new(&context);
                let body = match self.sessions.get_mut(&from) {
                    Some(session) => session
                        .decrypt(&mut self.identity, &message, context, &mut self.rng)
                        .map_err(Unread::Session)?,
                    None => {
                        let accepted =
                            accept_first(&mut self.identity, Some(&peer), &message, context, &mut self.rng)
                                .map_err(Unread::Session)?;
                        self.sessions.insert(from, accepted.session);
                        accepted.plaintext
                    }
                };
                match DirectBody::decode(body.expose()).unwrap() {
                    DirectBody::SenderKey { distribution, epoch } => {
                        assert_eq!(epoch, self.group.epoch());
                        let key = PeerSenderKey::accept(&peer, distribution.expose()).unwrap();
                        self.senders.insert((from, *key.distribution_id().as_bytes()), key);
                    }
                    DirectBody::NewEpoch { keys, head } => {
                        assert_eq!(head, self.group.head());
                        self.group.check_keys(&keys).map_err(Unread::Group)?;
                        self.keys = keys;
                        self.own = OwnSenderKey::generate(self.identity.public(), &mut self.rng).unwrap();
                    }
                    _ => panic!("an unknown direct body"),
                }
                Ok(None)
            }
            Entry::Message { from, distribution, message } => {
                let key = self.senders.get_mut(&(from, distribution)).ok_or(Unread::NoKey)?;
                let plain = key.decrypt(&message, Context::new(&context)).map_err(Unread::Session)?;
                let message = GroupContent::decode(plain.expose()).unwrap();
                self.group.check_message(&from, message.binding()).map_err(Unread::Group)?;
                let track = self.tracks.entry(from).or_default();
                let checked = track.check(&message).map_err(Unread::Track)?;
                track.merge(checked);
                match message.into_content().body {
                    Body::Text(text) => Ok(Some(text)),
                    _ => panic!("no text"),
                }
            }
            _ => Ok(None),
        }
    }
}

fn person(rng: &mut ChaCha20Rng, name: &str, role: Role) -> (LocalIdentity, MemberEntry) {
    let mut identity = LocalIdentity::generate(rng).unwrap();
    let bundle = identity.new_bundle(BundleUse::Many, now(), rng).unwrap().encode().unwrap();
    let entry = MemberEntry { identity: *identity.public(), bundle, name: name.to_owned(), role };
    (identity, entry)
}

/// A newcomer, invited, asking, added and welcomed; the commit's envelope for the others.
fn join(admin: &mut Member, name: &str, seed: u8) -> (Member, Vec<u8>) {
    let mut rng = ChaCha20Rng::from_seed([seed; 32]);
    let invitation = InvitationId::generate(&mut admin.rng);
    let group = admin.group.id();
    let (identity, entry) = person(&mut rng, name, Role::Member);
    let join = GroupJoin::new(&identity, group, invitation, entry, &mut rng).unwrap();
    let wanted = join.verify(group, invitation).unwrap();
    let entry = MemberEntry {
        name: admin.group.roster().unique_name(&wanted.name),
        role: Role::Member,
        ..wanted.clone()
    };
    let staged = admin.group.stage_add(&admin.identity, entry, NOW, &mut admin.rng).unwrap();
    let commit = admin.seal(&Entry::Commit(staged.signed().to_vec()));
    admin.group.merge(staged).unwrap();
    let (welcome, _) =
        GroupWelcome::new(&admin.group, invitation, &admin.keys, Seq::START, &mut admin.rng).unwrap();
    let content = content(Body::GroupWelcome(welcome), &mut admin.rng).encode().unwrap();
    let Body::GroupWelcome(welcome) = Content::decode(content.expose()).unwrap().body else {
        panic!("a welcome")
    };
    let me = MemberId::of(identity.public());
    let verified = welcome.open(group, invitation, &me, None).unwrap();
    (Member::new(identity, verified, welcome.keys.duplicate(), rng), commit)
}

fn founded() -> Member {
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let (identity, founder) = person(&mut rng, "ann", Role::Owner);
    let keys = epoch_keys(0, &mut rng);
    let group =
        Group::create(&identity, founder, "the group", Settings::default(), &keys, NOW, &mut rng).unwrap();
    Member::new(identity, group, keys, rng)
}

#[test]
fn two_people_meet_by_a_ticket() {
    let mut rng = ChaCha20Rng::from_seed([2; 32]);
    let mut ann = LocalIdentity::generate(&mut rng).unwrap();
    let inbox = route(&mut rng);
    let bundle = ann.new_bundle(BundleUse::Once, now(), &mut rng).unwrap().encode().unwrap();
    let blob = ticket::seal_bundle(&inbox.key, &bundle, &mut rng).unwrap();
    let expires = NOW.plus(Duration::from_secs(3600));
    let text =
        Ticket { route: inbox.duplicate(), bundle: BlobHash::of(&blob), expires, reusable: false }.to_text();

    let ticket = Ticket::from_text(&text, NOW).unwrap();
    let bob = LocalIdentity::generate(&mut rng).unwrap();
    let bundle = ticket.open_bundle(&blob).unwrap();
    let mut session = Session::initiate(&bob, &bundle, now(), &mut rng).unwrap();
    let hello = Hello { route: route(&mut rng), alias: Some("bob".to_owned()) };
    let hello = content(Body::Hello(hello), &mut rng).encode().unwrap();
    let first = session.encrypt(hello.expose(), DIRECT, now(), &mut rng).unwrap();
    let envelope = ticket.route.seal(first.as_bytes(), &mut rng).unwrap();
    assert_eq!(SizeClass::of_sealed(envelope.len()), Some(SizeClass::Medium), "a first message takes 4 KiB");

    let opened = envelope::open(&inbox.key, &inbox.mailbox, &envelope).unwrap();
    let mut accepted = accept_first(&mut ann, None, opened.expose(), DIRECT, &mut rng).unwrap();
    let Body::Hello(hello) = Content::decode(accepted.plaintext.expose()).unwrap().body else {
        panic!("hello")
    };
    assert_eq!(hello.alias.as_deref(), Some("bob"));
    let answer = content(Body::Route(route(&mut rng)), &mut rng).encode().unwrap();
    let answer = accepted.session.encrypt(answer.expose(), DIRECT, now(), &mut rng).unwrap();
    let envelope = hello.route.seal(answer.as_bytes(), &mut rng).unwrap();
    let opened = envelope::open(&hello.route.key, &hello.route.mailbox, &envelope).unwrap();
    let mut bob = bob;
    let plain = session.decrypt(&mut bob, opened.expose(), DIRECT, &mut rng).unwrap();
    assert!(matches!(Content::decode(plain.expose()).unwrap().body, Body::Route(_)));
    let text = content(Body::Text("hello".to_owned()), &mut rng).encode().unwrap();
    let text = session.encrypt(text.expose(), DIRECT, now(), &mut rng).unwrap();
    let envelope = hello.route.seal(text.as_bytes(), &mut rng).unwrap();
    assert_eq!(SizeClass::of_sealed(envelope.len()), Some(SizeClass::Small), "a short text takes 1 KiB");
}

#[test]
fn who_is_removed_reads_and_writes_nothing_more() {
    let mut ann = founded();
    let (mut bob, _) = join(&mut ann, "bob", 11);
    let (mut carol, commit) = join(&mut ann, "bob", 12);
    assert_eq!(bob.read(&commit), Ok(None));
    assert_eq!(carol.group.member(&carol.id()).unwrap().name, "bob 2");
    assert_eq!(bob.group.roster_hash(), carol.group.roster_hash());

    // Everybody tells everybody the sender key.
    let (a, b, c) = (ann.id(), bob.id(), carol.id());
    for (to, envelope) in [(b, ann.tell_sender_key(b)), (c, ann.tell_sender_key(c))] {
        if to == b {
            bob.read(&envelope).unwrap()
        } else {
            carol.read(&envelope).unwrap()
        };
    }
    for (to, envelope) in [(a, bob.tell_sender_key(a)), (c, bob.tell_sender_key(c))] {
        if to == a {
            ann.read(&envelope).unwrap()
        } else {
            carol.read(&envelope).unwrap()
        };
    }
    let hello = ann.say("hello");
    assert_eq!(SizeClass::of_sealed(hello.len()), Some(SizeClass::Small), "one append of 1 KiB for all");
    assert_eq!(bob.read(&hello), Ok(Some("hello".to_owned())));
    assert_eq!(carol.read(&hello), Ok(Some("hello".to_owned())));
    assert_eq!(carol.read(&hello), Err(Unread::Session(SessionError::Duplicate)));
    let answer = bob.say("answer");
    assert_eq!(ann.read(&answer), Ok(Some("answer".to_owned())));
    assert_eq!(carol.read(&answer), Ok(Some("answer".to_owned())));

    // Ann removes Bob: the commit in the old log, the new keys to Carol alone.
    let keys = epoch_keys(1, &mut ann.rng);
    let staged = ann.group.stage_remove(&ann.identity, &b, None, &keys, NOW, &mut ann.rng).unwrap();
    let commit = ann.seal(&Entry::Commit(staged.signed().to_vec()));
    ann.group.merge(staged).unwrap();
    let head = ann.group.head();
    let told = ann.tell(c, &DirectBody::NewEpoch { keys: keys.duplicate(), head });
    let old_keys = std::mem::replace(&mut ann.keys, keys.duplicate());
    ann.own = OwnSenderKey::generate(ann.identity.public(), &mut ann.rng).unwrap();
    assert_eq!(carol.read(&commit), Ok(None));
    assert_eq!(carol.read(&told), Ok(None));
    assert_eq!(carol.keys.hash(), keys.hash());
    let sender_key = ann.tell_sender_key(c);
    assert_eq!(carol.read(&sender_key), Ok(None));

    // Bob learns that he is out, and nothing else.
    assert_eq!(bob.read(&commit), Ok(None));
    assert!(!bob.group.roster().contains(&b));
    assert_eq!(bob.read(&told), Ok(None), "addressed to another");
    let secret = ann.say("after");
    assert_eq!(carol.read(&secret), Ok(Some("after".to_owned())));
    assert_eq!(bob.read(&secret), Err(Unread::Envelope));
    assert_eq!(bob.group.check_keys(&bob.keys), Err(GroupError::WrongEpoch));
    // Not even with the new envelope key, were it betrayed to him: the sender key is new, too.
    bob.keys = keys.duplicate();
    assert_eq!(bob.read(&secret), Err(Unread::NoKey));

    // What he writes is not shown, in the old log or the new one.
    let late = bob.say("late");
    assert_eq!(carol.read(&late), Err(Unread::Group(GroupError::NotAMember)));
    carol.keys = old_keys.duplicate();
    bob.keys = old_keys;
    let late = bob.say("late again");
    assert_eq!(carol.read(&late), Err(Unread::Group(GroupError::NotAMember)));
    // Nor does a commit of his, made as if he were still in.
    let wish = ann.group.stage_close(&bob.identity, NOW, &mut bob.rng);
    assert_eq!(wish.unwrap_err(), GroupError::NotAMember);
}

#[test]
fn an_admin_cannot_tell_two_members_different_keys() {
    let mut ann = founded();
    let (mut bob, _) = join(&mut ann, "bob", 21);
    let (_, _) = join(&mut ann, "carol", 22);
    let carol = ann.group.roster().by_name("carol").map(|(id, _)| *id).unwrap();
    let commits: Vec<Vec<u8>> = ann.group.commits().map(<[u8]>::to_vec).collect();
    bob.group = Group::from_chain(&commits).unwrap();
    let named = epoch_keys(1, &mut ann.rng);
    let staged = ann.group.stage_remove(&ann.identity, &carol, None, &named, NOW, &mut ann.rng).unwrap();
    let commit = ann.seal(&Entry::Commit(staged.signed().to_vec()));
    ann.group.merge(staged).unwrap();
    bob.read(&commit).unwrap();
    let other = epoch_keys(1, &mut ann.rng);
    let head = ann.group.head();
    let lie = ann.tell(bob.id(), &DirectBody::NewEpoch { keys: other, head });
    assert_eq!(bob.read(&lie), Err(Unread::Group(GroupError::WrongKeys)));
    let truth = ann.tell(bob.id(), &DirectBody::NewEpoch { keys: named.duplicate(), head });
    assert_eq!(bob.read(&truth), Ok(None));
    assert_eq!(bob.keys.hash(), named.hash());
}
