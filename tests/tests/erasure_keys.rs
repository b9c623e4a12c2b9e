//! Keys of records: the database keeps beginnings of keys as long as rows beside them live, so names, times and ids of what
//! was erased could outlive it there. With the passphrase, every unit of the volume is opened and searched for them.

#![expect(clippy::unwrap_used, reason = "scenario tests")]

use std::{collections::HashSet, time::Duration};

use lapwing::{
    engine::{self, Command, Effect, Event},
    store::{
        AlertRow, AuthorRow, Base, BodyKeyRow, ChatId, ChatKind, ChatRow, ClockRow, ContactRow, ContactState,
        DeadlineRow, DueRow, HeirRow, InvitationRow, MailboxRow, MessageRow, MessageState, NameRow, PeerRow,
        RelayRow, RenewalDueRow, Row, SeenRow, TakenTicketRow, TrustRow, Unit, VolumeBase, Writer,
    },
};
use lapwing_protocol::content::MessageId;
use lapwing_vault::{
    Container, ContainerSize, Cost, MemoryBackend, Passphrase, Session, redb::TableDefinition,
    testing::plaintexts,
};
use lapwing_wire::time::Timestamp;
use rand_chacha::{
    ChaCha20Rng,
    rand_core::{RngCore, SeedableRng},
};
use zeroize::Zeroizing;

const CHEAP: Cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };
const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const HOUR: Duration = Duration::from_secs(3600);
const CHATS: usize = 300;
/// As long as a number of the database, or half a word.
const FRAGMENT: usize = 8;

/// An unlocked container in memory, and the records of its volume.
struct Owner {
    backend: MemoryBackend,
    session: Session,
    base: VolumeBase,
    rng: ChaCha20Rng,
}

impl Owner {
    fn new(seed: u64) -> Self {
        let backend = MemoryBackend::new();
        let handle = backend.another_handle();
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let passphrase = Passphrase::new("heron orbit velvet candle");
        let made =
            Container::create(handle, ContainerSize::MIN, &passphrase, CHEAP, &mut rng, &mut |_, _| {});
        Self::over(backend, made.unwrap(), rng)
    }

    fn over(backend: MemoryBackend, session: Session, mut rng: ChaCha20Rng) -> Self {
        let volume = session.open_volume(session.volumes()[0], &mut rng).unwrap();
        Self { backend, session, base: VolumeBase::new(volume), rng }
    }

    /// The next session, over what a disk holds now: nothing of this one was closed.
    fn killed(self) -> Self {
        let Self { backend, session, base, mut rng } = self;
        let next = MemoryBackend::with_image(backend.image());
        drop((base, session));
        let locked = Container::open(next.another_handle()).unwrap();
        let passphrase = Passphrase::new("heron orbit velvet candle");
        let session = locked.unlock(&passphrase, CHEAP, &mut rng, Duration::from_secs(1)).unwrap();
        Self::over(next, session, rng)
    }

    fn unit<T>(&mut self, change: impl FnOnce(&mut Unit<'_>, &mut ChaCha20Rng) -> T) -> T {
        let mut unit = Unit::new(&self.base);
        let done = change(&mut unit, &mut self.rng);
        let changes = unit.into_changes();
        self.base.commit(changes).unwrap();
        done
    }

    /// What is to be erased by then goes, in as many commits as it takes.
    fn sweep(&mut self, now: Timestamp) {
        let more = |effects: &[Effect]| effects.iter().any(|effect| matches!(effect, Effect::MoreToErase));
        while more(&self.unit(|unit, rng| engine::handle(unit, Event::Sweep, now, rng)).unwrap()) {}
    }

    /// Every sequence of this length that stands in a unit, live or not, of the database or of the keys.
    fn fragments(&self) -> HashSet<[u8; FRAGMENT]> {
        let mut found = HashSet::new();
        for plain in plaintexts(&self.session, self.session.volumes()[0]) {
            found.extend(windows(&plain).filter(|window| *window != [0; FRAGMENT]));
        }
        found
    }
}

fn windows(bytes: &[u8]) -> impl Iterator<Item = [u8; FRAGMENT]> {
    bytes.windows(FRAGMENT).map(|window| window.try_into().unwrap())
}

/// What stands in `gone` and in nothing of `lives`.
fn only_in<'k>(gone: impl Iterator<Item = &'k Vec<u8>>, lives: &[Vec<u8>]) -> Vec<[u8; FRAGMENT]> {
    let known: HashSet<_> = lives.iter().flat_map(|key| windows(key)).collect();
    let all: HashSet<_> = gone.flat_map(|key| windows(key)).filter(|part| !known.contains(part)).collect();
    all.into_iter().collect()
}

fn count_in(parts: &[[u8; FRAGMENT]], found: &HashSet<[u8; FRAGMENT]>) -> usize {
    parts.iter().filter(|part| found.contains(*part)).count()
}

fn name(number: usize) -> String {
    format!("the people of the northern valley {number:03}, those who meet at the old mill {number:03}")
}

/// Two of three are erased: as many as leave neighbours everywhere.
const fn stays(number: usize) -> bool {
    number.is_multiple_of(3)
}

/// Messages of each chat.
const EACH: u64 = 5;

/// Chats with names that are alike, messages in each with a time of its own at which they disappear. Answers the times.
fn crowd(owner: &mut Owner) -> Vec<(usize, Timestamp)> {
    owner.unit(|unit, rng| {
        unit.put(&(), &ClockRow { latest: NOW, swept: None, ahead: Vec::new() });
        let mut times = Vec::new();
        for number in 0..CHATS {
            let mut id = [0; 16];
            rng.fill_bytes(&mut id);
            let chat = ChatId::from_bytes(id);
            put_chat(unit, chat, &name(number));
            for order in 1..=EACH {
                // So near to each other that all of a time is needed to tell it from the next.
                let at = NOW.plus(HOUR).plus(Duration::from_millis(u64::from(rng.next_u32() % 4000)));
                put_message(unit, (chat, number as u64 * EACH + order), at, rng);
                times.push((number, at));
            }
        }
        times
    })
}

fn put_chat(unit: &mut Unit<'_>, chat: ChatId, name: &str) {
    unit.put(&name.to_owned(), &NameRow { chat });
    let row = ChatRow {
        name: name.to_owned(),
        kind: ChatKind::Direct,
        created: NOW,
        blocked: false,
        read_to: 0,
        unread: 1,
        waiting: 0,
        last: None,
    };
    unit.put(&chat, &row);
    let contact = ContactRow {
        state: ContactState::Failed,
        local: Vec::new().into(),
        session: None,
        route: None,
        inbox: None,
        ticket_mailbox: None,
        ticket: None,
        verified: false,
    };
    unit.put(&chat, &contact);
}

fn put_message(unit: &mut Unit<'_>, place: (ChatId, u64), at: Timestamp, rng: &mut ChaCha20Rng) {
    let mut id = [0; 16];
    rng.fill_bytes(&mut id);
    let row = MessageRow {
        id: MessageId::from_bytes(id),
        writer: Writer::Peer,
        sent: NOW,
        stored: NOW,
        state: MessageState::Received,
        lives: Some(3600),
        key: [0; 16],
        body: vec![0xa5; 60].into(),
    };
    unit.put(&place, &row);
    unit.put(&place, &DeadlineRow { at, runs: true, right: Vec::new() });
    unit.put(&(at, place.0, place.1), &DueRow {});
}

fn delete_some(owner: &mut Owner) {
    for number in (0..CHATS).filter(|number| !stays(*number)) {
        let delete = || Event::Command(Command::Delete { chat: name(number), leave: false });
        let effects = owner.unit(|unit, rng| engine::handle(unit, delete(), NOW, rng));
        effects.unwrap();
    }
}

/// Fragments that only names of deleted chats have, and names of the others.
fn names() -> (Vec<[u8; FRAGMENT]>, Vec<Vec<u8>>) {
    let of = |stay: bool| (0..CHATS).filter(move |number| stays(*number) == stay).map(name).map(String::into);
    let (gone, lives): (Vec<Vec<u8>>, Vec<Vec<u8>>) = (of(false).collect(), of(true).collect());
    (only_in(gone.iter(), &lives), lives)
}

fn living_are_found(owner: &Owner, lives: &[Vec<u8>]) {
    let found = owner.fragments();
    for name in lives {
        assert!(windows(name).all(|part| found.contains(&part)), "the search finds what is there");
    }
}

#[test]
fn rec_03_no_part_of_a_deleted_chats_name_is_in_any_unit() {
    let mut owner = Owner::new(310);
    crowd(&mut owner);
    owner.base.scrub().unwrap();
    let (gone, lives) = names();
    assert!(gone.len() > 1000, "{}", gone.len());
    delete_some(&mut owner);
    // The control: overwriting what no tree leads to is not enough, as the branches lead to beginnings of keys.
    owner.base.volume().scrub().unwrap();
    let left = count_in(&gone, &owner.fragments());
    assert!(left > 0, "no part of a name survives in branches: the search would find nothing anyway");
    owner.base.scrub().unwrap();
    let found = owner.fragments();
    assert_eq!(count_in(&gone, &found), 0);
    living_are_found(&owner, &lives);
}

#[test]
fn rec_02_a_session_that_was_killed_is_made_up_for_by_the_end_of_the_next() {
    let mut owner = Owner::new(311);
    crowd(&mut owner);
    delete_some(&mut owner);
    let owner = owner.killed();
    let (gone, lives) = names();
    assert!(count_in(&gone, &owner.fragments()) > 0);
    owner.base.scrub().unwrap();
    assert_eq!(count_in(&gone, &owner.fragments()), 0);
    living_are_found(&owner, &lives);
    // The names that live lead to their chats as before.
    let unit = Unit::new(&owner.base);
    for name in lives.iter().map(|name| String::from_utf8(name.clone()).unwrap()) {
        let chat = unit.get::<NameRow>(&name).unwrap().unwrap().chat;
        assert_eq!(unit.get::<ChatRow>(&chat).unwrap().unwrap().name, name);
    }
}

#[test]
fn rec_03_no_time_at_which_an_erased_message_was_due_is_in_any_unit() {
    let mut owner = Owner::new(312);
    let all = crowd(&mut owner);
    let times = |stay: bool| {
        let of = all.iter().filter(move |(number, _)| stays(*number) == stay);
        of.map(|(_, at)| at.as_millis().to_be_bytes().to_vec())
    };
    let (gone, lives): (Vec<_>, Vec<_>) = (times(false).collect(), times(true).collect());
    let gone = only_in(gone.iter(), &lives);
    assert!(gone.len() > CHATS, "{}", gone.len());
    assert_eq!(count_in(&gone, &owner.fragments()), gone.len(), "they are there");
    delete_some(&mut owner);
    owner.sweep(NOW);
    assert_eq!(Unit::new(&owner.base).scan::<DueRow>(&[]).unwrap().len(), lives.len());
    owner.base.volume().scrub().unwrap();
    let control = count_in(&gone, &owner.fragments());
    assert!(control > 0, "no time survives in a branch: the search would find nothing anyway");
    owner.base.scrub().unwrap();
    let found = owner.fragments();
    assert_eq!(count_in(&gone, &found), 0);
    for time in lives {
        assert!(windows(&time).all(|part| found.contains(&part)));
    }
}

/// REC-04: a vault in which everything is in one table, as programs made them before.
#[test]
fn rec_04_an_older_vault_is_read_and_its_names_leave_the_table_for_all() {
    const RECORDS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("records");
    let mut owner = Owner::new(314);
    crowd(&mut owner);
    let all = owner.base.range(&[], &[0xff; 64], usize::MAX, false).unwrap();
    let mut older = Owner::new(315);
    let write = older.base.volume().begin_write().unwrap();
    {
        let mut table = write.open_table(RECORDS).unwrap();
        for (key, value) in &all {
            table.insert(key.as_slice(), value.as_slice()).unwrap();
        }
    }
    write.commit().unwrap();
    let same = |one: &Owner| one.base.range(&[], &[0xff; 64], usize::MAX, false).unwrap() == all;
    assert!(same(&older), "it is read as it is");
    let name_row = Unit::new(&older.base).get::<NameRow>(&name(3)).unwrap().unwrap();
    older.unit(|unit, _| unit.put(&name(3), &name_row));
    assert_eq!(older.base.range(&[0x13], &[0x14], usize::MAX, false).unwrap().len(), CHATS, "none is lost");
    older.base.scrub().unwrap();
    assert!(same(&older), "moved, and the note is gone");
    let (gone, lives) = names();
    delete_some(&mut older);
    older.base.scrub().unwrap();
    assert_eq!(count_in(&gone, &older.fragments()), 0);
    living_are_found(&older, &lives);
}

/// REC-01: what outlives its records is of kinds whose keys are numbers, and ids that were drawn here.
#[test]
fn rec_01_only_keys_that_name_and_date_nothing_outlive_their_records() {
    const NAMING: [u8; 14] = [
        RelayRow::TABLE,
        MailboxRow::TABLE,
        TrustRow::TABLE,
        AlertRow::TABLE,
        PeerRow::TABLE,
        AuthorRow::TABLE,
        InvitationRow::TABLE,
        SeenRow::TABLE,
        NameRow::TABLE,
        TakenTicketRow::TABLE,
        HeirRow::TABLE,
        BodyKeyRow::TABLE,
        DueRow::TABLE,
        RenewalDueRow::TABLE,
    ];
    let mut owner = Owner::new(313);
    let mut kept = Vec::new();
    let mut gone = Vec::new();
    for kind in 0x01..=0x3f_u8 {
        // Alike, as only such keys leave more of themselves than their first bytes.
        let mut like = [kind; 17];
        owner.rng.fill_bytes(&mut like[1..]);
        let number = |owner: &mut Owner| owner.rng.next_u32().to_be_bytes();
        let keys: Vec<Vec<u8>> = (0..200).map(|_| [&like[..], &number(&mut owner)].concat()).collect();
        let (stay, go): (Vec<_>, Vec<_>) = (keys[..100].to_vec(), keys[100..].to_vec());
        let value = || Some(Zeroizing::new(vec![kind; 80]));
        owner.base.commit(keys.into_iter().map(|key| (key, value())).collect()).unwrap();
        owner.base.commit(go.iter().map(|key| (key.clone(), None)).collect()).unwrap();
        gone.push((kind, only_in(go.iter(), &stay)));
        kept.extend(stay);
    }
    owner.base.scrub().unwrap();
    let found = owner.fragments();
    assert!(kept.iter().all(|key| windows(key).all(|part| found.contains(&part))));
    let mut control = 0;
    for (kind, parts) in gone {
        let left = count_in(&parts, &found);
        if NAMING.contains(&kind) {
            assert_eq!(left, 0, "keys of records {kind:02x}");
        } else {
            control += left;
        }
    }
    assert!(control > 5, "{control}: keys that outlive their records are found");
    let all = owner.base.range(&[], &[0xff; 64], usize::MAX, false).unwrap();
    assert_eq!(all.len(), kept.len(), "and the note that told what to write anew is gone");
    assert!(all.windows(2).all(|pair| pair[0].0 < pair[1].0), "in order through all tables");
    let backwards = owner.base.range(&[], &[0xff; 64], usize::MAX, true).unwrap();
    assert!(all.iter().rev().map(|(key, _)| key).eq(backwards.iter().map(|(key, _)| key)));
    let some = owner.base.range(&[0x04, 0x80], &[0x13, 0x80], 150, true).unwrap();
    assert!(some.iter().all(|(key, _)| key[..] >= [0x04, 0x80][..] && key[..] < [0x13, 0x80][..]));
    assert_eq!(some.len(), 150);
}
