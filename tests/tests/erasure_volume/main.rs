//! Erased means gone from the file: with the passphrase, every unit of the volume is opened, live or not, and searched for
//! everything that an erased chat had; also where the process died at any commit and the next session finished it.

#![expect(clippy::unwrap_used, reason = "scenario tests")]

mod keys;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use lapwing::{
    driver::{Clock, Compartment, Driver},
    engine::{Command, DEFAULT_VALIDITY, Reply, view},
    store::{
        Base, BodyKeyName, BodyKeyRow, Changes, ContactRow, DraftRow, MailboxRow, MessageRow, MessageState,
        OpKind, OpRow, Purpose, Record, StoreError, TimerRow, Unit, Visitor, VolumeBase, Writer,
    },
};
use lapwing_protocol::{content::MessageId, timer::Lifetime};
use lapwing_tests::world::{Person, RelayNumber, World};
use lapwing_vault::{
    Container, ContainerSize, Cost, MemoryBackend, Passphrase, Session, VolumeId,
    testing::{key_units_containing, pages_containing},
};
use zeroize::Zeroizing;

const CHEAP: Cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };
const NAME: &str = "the one with the canary";
const HOUR: Duration = Duration::from_secs(3600);

/// A volume whose process dies at one of its commits, before or after it, or whose disk refuses to destroy keys.
struct Mortal {
    refuses: AtomicBool,
    base: VolumeBase,
    commits: AtomicU64,
    /// The commit at which it dies, and whether that is still made.
    dies: Option<(u64, bool)>,
}

impl Mortal {
    fn died() -> StoreError {
        StoreError::Vault("the process has died".to_owned())
    }

    fn alive(&self) -> Result<&VolumeBase, StoreError> {
        match self.dies {
            Some((at, _)) if self.commits.load(Ordering::Relaxed) >= at => Err(Self::died()),
            _ => Ok(&self.base),
        }
    }
}

impl Base for Mortal {
    fn get(&self, key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        self.alive()?.get(key)
    }

    fn range(&self, from: &[u8], to: &[u8], limit: usize, back: bool) -> Result<Vec<Record>, StoreError> {
        self.alive()?.range(from, to, limit, back)
    }

    fn visit(&self, from: &[u8], to: &[u8], back: bool, visit: &mut Visitor<'_>) -> Result<(), StoreError> {
        self.alive()?.visit(from, to, back, visit)
    }

    fn body_key(&self, name: &BodyKeyName) -> Result<Option<Zeroizing<[u8; 32]>>, StoreError> {
        self.alive()?.body_key(name)
    }

    fn make_body_key(&self, name: &BodyKeyName) -> Result<Zeroizing<[u8; 32]>, StoreError> {
        self.alive()?.make_body_key(name)
    }

    fn destroy_body_keys(&self, names: &[BodyKeyName]) -> Result<(), StoreError> {
        if self.refuses.load(Ordering::Relaxed) {
            return Err(StoreError::Vault("the disk refuses".to_owned()));
        }
        self.alive()?.destroy_body_keys(names)
    }

    fn commit(&self, changes: Changes) -> Result<(), StoreError> {
        let base = self.alive()?;
        let at = self.commits.fetch_add(1, Ordering::Relaxed) + 1;
        match self.dies {
            Some((dies, kept)) if dies == at => {
                if kept {
                    base.commit(changes)?;
                }
                Err(Self::died())
            }
            _ => base.commit(changes),
        }
    }
}

/// An unlocked container in memory, and somebody's client over its volume.
struct Owner {
    backend: MemoryBackend,
    session: Session,
    volume: VolumeId,
    base: Arc<Mortal>,
    driver: Driver,
}

fn passphrase() -> Passphrase {
    Passphrase::new("heron orbit velvet candle")
}

impl Owner {
    fn create(world: &mut World) -> Self {
        let backend = MemoryBackend::new();
        let handle = backend.another_handle();
        let mut rng = world.rng();
        let made =
            Container::create(handle, ContainerSize::MIN, &passphrase(), CHEAP, &mut rng, &mut |_, _| {});
        Self::over(world, backend, made.unwrap(), None)
    }

    /// The next session over what a disk held.
    fn unlock(world: &mut World, image: Vec<u8>, dies: Option<(u64, bool)>) -> Self {
        let backend = MemoryBackend::with_image(image);
        let locked = Container::open(backend.another_handle()).unwrap();
        let session = locked.unlock(&passphrase(), CHEAP, &mut world.rng(), Duration::from_secs(1)).unwrap();
        Self::over(world, backend, session, dies)
    }

    fn over(world: &mut World, backend: MemoryBackend, session: Session, dies: Option<(u64, bool)>) -> Self {
        let volume = session.volumes()[0];
        let open = session.open_volume(volume, &mut world.rng()).unwrap();
        let base = Mortal {
            refuses: AtomicBool::new(false),
            base: VolumeBase::new(open),
            commits: AtomicU64::new(0),
            dies,
        };
        let clock = world.clock.clone();
        let clock: Clock = Arc::new(move || clock.now());
        let driver = Driver::new(world.net.client().1, clock, Box::new(world.rng()));
        Self { backend, session, volume, base: Arc::new(base), driver }
    }

    fn compartment(&self) -> Compartment {
        let base: Arc<dyn Base + Send + Sync> = Arc::<Mortal>::clone(&self.base);
        Compartment { name: "main".to_owned(), place: *self.volume.as_bytes(), base }
    }

    fn must(&mut self, command: Command) -> Reply {
        let compartment = self.compartment();
        self.driver.command(&compartment, command).unwrap()
    }

    async fn settle(&mut self) {
        let compartment = self.compartment();
        self.driver.settle(&[compartment], Duration::from_secs(600)).await;
    }

    /// What an unlock does before it shows anything.
    fn sweep(&mut self) {
        let compartment = self.compartment();
        self.driver.sweep(&compartment).unwrap();
    }

    fn look<T>(&self, look: impl FnOnce(&Unit<'_>) -> T) -> T {
        look(&Unit::new(&*self.base))
    }

    /// What locking does.
    fn scrub(&self) {
        self.base.base.scrub().unwrap();
    }

    /// Units, and copies of the key table, that hold these bytes.
    fn found(&self, canary: &Canary) -> usize {
        pages_containing(&self.session, self.volume, &canary.bytes)
            + key_units_containing(&self.session, self.volume, &canary.bytes)
    }
}

/// Bytes that only the erased chat had.
struct Canary {
    what: String,
    bytes: Vec<u8>,
}

/// From the middle of something secret: enough to be found by nothing else.
fn part(what: &str, bytes: &[u8]) -> Canary {
    let start = bytes.len() / 3;
    Canary { what: what.to_owned(), bytes: bytes[start..(start + 40).min(bytes.len())].to_vec() }
}

/// Everything that the records hold of the chat.
fn canaries(owner: &Owner, when: &str) -> Vec<Canary> {
    owner.look(|unit| {
        let id = view::chat(unit, NAME).unwrap().id;
        let mut all = vec![
            Canary { what: "id of the chat".into(), bytes: id.as_bytes().to_vec() },
            Canary { what: "name of the chat".into(), bytes: NAME.as_bytes().to_vec() },
        ];
        let contact = unit.get::<ContactRow>(&id).unwrap().unwrap();
        all.push(part("session", &contact.session.unwrap()));
        all.push(part("identity", &contact.local));
        all.push(part("route", &contact.route.unwrap()));
        for ((_, order), row) in unit.scan::<MessageRow>(id.as_bytes()).unwrap() {
            all.push(part(&format!("text {order}"), &row.body));
            all.push(Canary { what: format!("id of {order}"), bytes: row.id.as_bytes().to_vec() });
        }
        if let Some(draft) = unit.get::<DraftRow>(&id).unwrap() {
            all.push(part("draft", &draft.body));
        }
        for (_, op) in unit.scan::<OpRow>(&[]).unwrap() {
            if let OpKind::Append { chat, envelope, .. } = &op.kind
                && *chat == id
            {
                all.push(part("envelope that waits", envelope));
            }
        }
        for (_, mailbox) in unit.scan::<MailboxRow>(&[]).unwrap() {
            if mailbox.purpose == Purpose::Direct(id) {
                all.push(part("key of the mailbox", &mailbox.key));
            }
        }
        for (_, row) in unit.scan::<BodyKeyRow>(id.as_bytes()).unwrap() {
            all.push(Canary { what: "name of a key".into(), bytes: row.name.to_vec() });
            let key = unit.body_key(&row.name).unwrap().unwrap();
            all.push(Canary { what: "key of texts".into(), bytes: key.to_vec() });
        }
        assert!(unit.get::<TimerRow>(&id).unwrap().is_some());
        all.into_iter().map(|one| Canary { what: format!("{} {when}", one.what), ..one }).collect()
    })
}

/// A chat with everything that a chat can have, in a volume that is not scrubbed: an image, and what to look for in it.
struct Story {
    image: Vec<u8>,
    canaries: Vec<Canary>,
    /// Of earlier states of the same records: nothing leads to them any more.
    replaced: Vec<Canary>,
    relays: Vec<RelayNumber>,
}

async fn story(world: &mut World) -> (Story, Person) {
    let (a, b) = (world.relay().await, world.relay().await);
    let mut bob = world.person("bob", &[b]);
    let mut owner = Owner::create(world);
    owner.must(Command::AddRelay { ticket: world.net.with_relay(a, |relay| relay.access_ticket()) });
    let invite = Command::Invite { name: NAME.to_owned(), relay: None, validity: DEFAULT_VALIDITY };
    let Reply::Ticket { text, .. } = owner.must(invite) else { unreachable!("a ticket") };
    owner.settle().await;
    bob.join(&text, "owner");
    meet(&mut owner, &mut bob).await;
    let say = |text: &str| Command::Send { chat: NAME.to_owned(), text: text.to_owned() };
    owner.must(say("before there was a timer"));
    let lifetime = Lifetime::of(HOUR);
    owner.must(Command::SetTimer { chat: NAME.to_owned(), lifetime });
    meet(&mut owner, &mut bob).await;
    let before = session(&owner);
    for number in 0..8 {
        owner.must(say(&format!("from the owner {number}")));
        bob.say("owner", &format!("from bob {number}"));
        meet(&mut owner, &mut bob).await;
    }
    owner.must(Command::Draft { chat: NAME.to_owned(), text: "a draft that is replaced".to_owned() });
    owner.must(Command::Draft { chat: NAME.to_owned(), text: "a draft".to_owned() });
    let relays = vec![a, b];
    for relay in &relays {
        world.net.take_down(*relay).await;
    }
    owner.must(say("this one waits"));
    let canaries = canaries(&owner, "now");
    for canary in &canaries {
        assert!(owner.found(canary) > 0, "the search does not find the {}", canary.what);
    }
    // What the session was before, but for what it still is.
    let now = live(&owner);
    let replaced: Vec<Canary> = before
        .chunks_exact(32)
        .filter(|part| now.iter().all(|record| !contains(record, part)))
        .map(|part| Canary { what: "session as it was before".into(), bytes: part.to_vec() })
        .collect();
    assert!(replaced.len() > 10, "{}", replaced.len());
    // As a power cut leaves it.
    (Story { image: owner.backend.image(), canaries, replaced, relays }, bob)
}

/// The session as it is stored.
fn session(owner: &Owner) -> Vec<u8> {
    owner.look(|unit| {
        let id = view::chat(unit, NAME).unwrap().id;
        unit.get::<ContactRow>(&id).unwrap().unwrap().session.unwrap().into_vec()
    })
}

/// Every record of the owner.
fn live(owner: &Owner) -> Vec<Vec<u8>> {
    let all = owner.base.range(&[], &[0xff; 64], usize::MAX, false).unwrap();
    all.into_iter().map(|(key, value)| [key.as_slice(), &value].concat()).collect()
}

fn contains(all: &[u8], part: &[u8]) -> bool {
    all.windows(part.len()).any(|window| window == part)
}

async fn meet(owner: &mut Owner, bob: &mut Person) {
    for _ in 0..4 {
        owner.settle().await;
        bob.settle().await;
    }
}

fn assert_gone(owner: &Owner, canaries: &[Canary], what: &str) {
    for canary in canaries {
        assert_eq!(owner.found(canary), 0, "{what}: the {} is still in the file", canary.what);
    }
}

fn delete() -> Command {
    Command::Delete { chat: NAME.to_owned(), leave: false }
}

#[tokio::test(start_paused = true)]
async fn a_deleted_chat_is_in_no_unit_of_the_volume_even_with_the_passphrase() {
    let mut world = World::new(170);
    let (story, _bob) = story(&mut world).await;
    let mut owner = Owner::unlock(&mut world, story.image, None);
    owner.sweep();
    owner.scrub();
    for canary in story.replaced.iter().take(12) {
        assert_eq!(owner.found(canary), 0, "the {} is still in the file", canary.what);
    }
    owner.must(delete());
    // Keys die in the command itself, not only with the lock.
    for canary in story.canaries.iter().filter(|canary| canary.what.starts_with("key of texts")) {
        assert_eq!(owner.found(canary), 0, "{}", canary.what);
    }
    owner.scrub();
    assert_gone(&owner, &story.canaries, "deleted");
    // With the relay back, the mailbox is closed, and nothing of that stays either.
    for relay in &story.relays {
        world.net.bring_back(*relay);
    }
    owner.settle().await;
    assert!(owner.look(|unit| unit.scan::<OpRow>(&[])).unwrap().is_empty());
    owner.scrub();
    assert_gone(&owner, &story.canaries, "after closing");
}

#[tokio::test(start_paused = true)]
async fn texts_drafts_and_waiting_messages_of_a_cleared_chat_are_in_no_unit() {
    let mut world = World::new(171);
    let (story, _bob) = story(&mut world).await;
    let mut owner = Owner::unlock(&mut world, story.image, None);
    owner.must(Command::Clear { chat: NAME.to_owned(), older: None });
    owner.scrub();
    let (kept, gone): (Vec<_>, Vec<_>) = story.canaries.into_iter().partition(|canary| {
        let lasting =
            ["id of the chat", "name of the chat", "session", "identity", "route", "key of the mailbox"];
        lasting.iter().any(|what| canary.what.starts_with(what))
    });
    assert_gone(&owner, &gone, "cleared");
    assert!(kept.iter().all(|canary| owner.found(canary) > 0), "the contact stays");
}

#[tokio::test(start_paused = true)]
async fn tmr_05_messages_that_fell_due_while_the_vault_was_locked_are_in_no_unit_after_the_next_session() {
    let mut world = World::new(172);
    let (story, _bob) = story(&mut world).await;
    world.clock.advance(8 * 24 * HOUR);
    let mut owner = Owner::unlock(&mut world, story.image, None);
    owner.sweep();
    let left = owner.look(|unit| unit.scan::<MessageRow>(&[])).unwrap();
    let timed = left.iter().filter(|(_, row)| row.lives.is_some()).count();
    // The line that says what was not sent, which is new.
    assert_eq!(timed, 1);
    owner.scrub();
    let texts: Vec<String> = left.iter().map(|((_, order), _)| format!("text {order} now")).collect();
    let gone: Vec<Canary> = story
        .canaries
        .into_iter()
        .filter(|canary| canary.what.starts_with("text ") && !texts.contains(&canary.what))
        .collect();
    assert!(gone.len() >= 17, "{}", gone.len());
    assert_gone(&owner, &gone, "due");
}

#[tokio::test(start_paused = true)]
async fn era_03_a_deletion_that_died_at_any_commit_is_in_no_unit_after_the_next_session() {
    let mut world = World::new(173);
    let (story, _bob) = story(&mut world).await;
    let mut whole = Owner::unlock(&mut world, story.image.clone(), None);
    whole.must(delete());
    let commits = whole.base.commits.load(Ordering::Relaxed);
    assert!(commits >= 3, "{commits}");
    for at in 1..=commits {
        for kept in [false, true] {
            let what = format!("died at commit {at}, kept: {kept}");
            let mut dying = Owner::unlock(&mut world, story.image.clone(), Some((at, kept)));
            let compartment = dying.compartment();
            let _ = dying.driver.command(&compartment, delete());
            // Nothing is scrubbed: this is what the disk holds.
            let image = dying.backend.image();
            drop((dying, compartment));
            let mut next = Owner::unlock(&mut world, image, None);
            next.sweep();
            next.scrub();
            if at == 1 && !kept {
                assert!(next.look(|unit| view::chat(unit, NAME)).is_ok(), "{what}");
                continue;
            }
            assert_gone(&next, &story.canaries, &what);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_compartment_is_cleared_and_takes_messages_again() {
    let mut world = World::new(175);
    let relay = world.relay().await;
    let mut owner = Owner::create(&mut world);
    owner.must(Command::AddRelay { ticket: world.net.with_relay(relay, |relay| relay.access_ticket()) });
    owner.must(Command::Invite { name: NAME.to_owned(), relay: None, validity: DEFAULT_VALIDITY });
    let id = owner.look(|unit| view::chat(unit, NAME)).unwrap().id;
    let put = |owner: &Owner, order: u64| {
        let row = MessageRow {
            id: MessageId::from_bytes([1; 16]),
            writer: Writer::Peer,
            sent: world.clock.now(),
            stored: world.clock.now(),
            state: MessageState::Received,
            lives: None,
            key: [0; 16],
            body: vec![0xa5; 16_000].into(),
        };
        let mut unit = Unit::new(&*owner.base);
        unit.put(&(id, order), &row);
        owner.base.commit(unit.into_changes())
    };
    let full = (1..).find(|order| put(&owner, *order).is_err()).unwrap();
    assert!(full > 20 && matches!(put(&owner, full), Err(StoreError::Full)));
    owner.must(Command::Clear { chat: NAME.to_owned(), older: None });
    assert!(owner.look(|unit| unit.scan::<MessageRow>(&[])).unwrap().is_empty());
    owner.scrub();
    put(&owner, full).unwrap();
}

/// Another compartment of the owner's, which has a relay.
fn another(world: &mut World, relay: RelayNumber) -> Person {
    let mut other = Person::with_records(world, "other", Arc::default());
    other.add_relay(world, relay);
    other
}

#[tokio::test(start_paused = true)]
async fn mov_03_a_chat_that_was_moved_is_in_no_unit_of_its_source_and_another_one_at_its_target() {
    let mut world = World::new(176);
    let (story, mut bob) = story(&mut world).await;
    for relay in &story.relays {
        world.net.bring_back(*relay);
    }
    let mut other = another(&mut world, story.relays[0]);
    let mut owner = Owner::unlock(&mut world, story.image.clone(), None);
    let (from, to) = (owner.compartment(), other.driver().1);
    owner.driver.move_chat(&from, &to, NAME, None).unwrap();
    for canary in story.canaries.iter().filter(|canary| canary.what.starts_with("key of texts")) {
        assert_eq!(owner.found(canary), 0, "{}", canary.what);
    }
    owner.scrub();
    assert_gone(&owner, &story.canaries, "moved");
    assert_gone(&owner, &story.replaced, "moved");
    // What sealed it at its source is of no use for what seals it now.
    let ids = ["id of the chat", "text ", "key of texts", "draft", "identity"];
    for canary in story.canaries.iter().filter(|canary| ids.iter().any(|id| canary.what.starts_with(id))) {
        let same = lapwing_tests::world::records::holds(&other, &canary.bytes);
        // The identity before is needed until what is on its way has come.
        assert!(!same || canary.what.starts_with("identity"), "{}", canary.what);
    }
    let waiting = other.unsent(NAME);
    assert_eq!(waiting, ["this one waits"]);
    meet(&mut owner, &mut bob).await;
    for _ in 0..4 {
        other.settle().await;
        bob.settle().await;
    }
    assert_eq!(bob.heard("owner").last().unwrap(), "this one waits");
    owner.scrub();
    assert_gone(&owner, &story.canaries, "settled");
}

#[tokio::test(start_paused = true)]
async fn mov_02_a_move_that_died_at_any_commit_of_its_source_is_in_no_unit_after_the_next_session() {
    let mut world = World::new(177);
    let (story, _bob) = story(&mut world).await;
    let mut other = another(&mut world, story.relays[0]);
    let disk = other.copy_of_records();
    let mut whole = Owner::unlock(&mut world, story.image.clone(), None);
    let (from, to) = (whole.compartment(), other.driver().1);
    whole.driver.move_chat(&from, &to, NAME, None).unwrap();
    let commits = whole.base.commits.load(Ordering::Relaxed);
    assert!(commits >= 3, "{commits}");
    // The first one decides. One that is not kept is as if the process had died after the one before.
    for (at, kept) in std::iter::once((1, false)).chain((1..=commits).map(|at| (at, true))) {
        let what = format!("died at commit {at}, kept: {kept}");
        let mut other = Person::with_records(&mut world, "other", Arc::new(disk.snapshot()));
        let mut dying = Owner::unlock(&mut world, story.image.clone(), Some((at, kept)));
        let (from, to) = (dying.compartment(), other.driver().1);
        let _ = dying.driver.move_chat(&from, &to, NAME, None);
        let image = dying.backend.image();
        drop((dying, from));
        let mut next = Owner::unlock(&mut world, image, None);
        next.sweep();
        let from = next.compartment();
        next.driver.finish_moves(&[from, to]).unwrap();
        next.scrub();
        assert_eq!(other.look(|unit| view::chat(unit, NAME)).is_ok(), kept, "{what}");
        if kept {
            assert_gone(&next, &story.canaries, &what);
        } else {
            assert!(other.rows::<MessageRow>().is_empty(), "{what}: undone");
        }
    }
}

/// The control: what is deleted and not scrubbed is still there, so the search would find it.
#[tokio::test(start_paused = true)]
async fn without_scrubbing_the_search_finds_what_was_deleted() {
    let mut world = World::new(174);
    let (story, _bob) = story(&mut world).await;
    let mut owner = Owner::unlock(&mut world, story.image, None);
    owner.must(delete());
    let found = story.canaries.iter().filter(|canary| owner.found(canary) > 0).count();
    assert!(found > 10, "{found}");
}
