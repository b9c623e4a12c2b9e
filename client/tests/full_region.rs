//! A compartment at its limit: nothing is lost, nothing stops the vault from opening.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends at the first thing that is not as it must be"
)]

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use lapwing::{
    cli::prompt::TypedPassphrase,
    client::{Client, World},
    engine::{Command, DEFAULT_VALIDITY, Fault, moving, view},
    net::{ConnectError, Link, Transport},
    store::{ArrivalRow, ChatId, DeadlineRow, DueRow, MessageRow, MessageState, StoreError, Unit, Writer},
};
use lapwing_protocol::content::MessageId;
use lapwing_vault::{ContainerSize, Cost};
use lapwing_wire::{
    address::{AccessTicket, RelayAddress, RelayKey},
    capability::SecretKey,
    time::Timestamp,
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use serde_bytes::ByteBuf;
use zeroize::Zeroizing;

struct NoNetwork;

#[async_trait]
impl Transport for NoNetwork {
    async fn connect(&self, _relay: &RelayAddress) -> Result<Arc<dyn Link>, ConnectError> {
        Err(ConnectError::Unreachable)
    }
}

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const HOUR: Duration = Duration::from_secs(3600);

fn world() -> World {
    world_at(NOW)
}

fn world_at(now: Timestamp) -> World {
    World {
        cost: Cost { memory_kib: 64, passes: 1, lanes: 1 },
        transport: Arc::new(NoNetwork),
        clock: Arc::new(move || now),
        offline: false,
    }
}

fn passphrase() -> TypedPassphrase {
    TypedPassphrase::new(Zeroizing::new("heron orbit velvet candle".to_owned())).unwrap()
}

fn message() -> MessageRow {
    MessageRow {
        id: MessageId::from_bytes([1; 16]),
        writer: Writer::Peer,
        sent: Timestamp::from_millis(1),
        stored: Timestamp::from_millis(1),
        state: MessageState::Received,
        lives: None,
        key: [0; 16],
        body: ByteBuf::from(vec![0xa5; 16_000]),
    }
}

/// Puts messages into the first compartment until it is full; answers how many fit.
fn fill(client: &Client) -> u64 {
    let base = &client.compartments()[0].base;
    for order in 1.. {
        let mut unit = Unit::new(&**base);
        unit.put(&(ChatId::from_bytes([7; 16]), order), &message());
        match base.commit(unit.into_changes()) {
            Ok(()) => {}
            Err(StoreError::Full) => return order - 1,
            Err(error) => panic!("{error}"),
        }
    }
    0
}

async fn open(path: &Path) -> Client {
    Client::unlock(&world(), path, &passphrase()).await.unwrap()
}

#[tokio::test]
async fn a_full_compartment_opens_reads_and_takes_small_changes_but_no_message() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vault");
    let client = Client::create(&world(), &path, ContainerSize::MIN, &passphrase(), &mut |_, _| {}).unwrap();
    let stored = fill(&client);
    assert!(stored > 10, "only {stored} messages fitted");
    client.close().await.unwrap();

    let mut client = tokio::time::timeout(Duration::from_secs(60), open(&path)).await.unwrap();
    let read = |client: &Client| {
        let unit = Unit::new(&*client.compartments()[0].base);
        u64::try_from(unit.scan::<MessageRow>(&[7; 16]).unwrap().len()).unwrap()
    };
    assert_eq!(read(&client), stored);
    client.command(0, Command::Name { name: "still here".to_owned() }).unwrap();
    // Reopening gives a page or two back; then the limit holds again.
    assert!(fill(&client) <= 2, "messages were taken beyond the limit");
    client.close().await.unwrap();

    let client = open(&path).await;
    assert_eq!(client.compartments()[0].name, "still here");
    assert_eq!(read(&client), stored);
    client.close().await.unwrap();
}

/// Makes whatever may go past the limit, of every kind and size, until nothing more is taken. Answers how much that was.
fn drain(client: &mut Client) -> usize {
    let mut made = 0;
    let taken = client.read(0, view::chats).unwrap().len();
    for number in 0..1000 {
        let name = format!("guest {}", taken + number);
        if client.command(0, Command::Invite { name, relay: None, validity: DEFAULT_VALIDITY }).is_err() {
            break;
        }
        made += 1;
    }
    let guests = made;
    for len in [3000, 900, 300, 60, 1] {
        for number in 0..guests {
            let draft = Command::Draft { chat: format!("guest {}", taken + number), text: "x".repeat(len) };
            made += usize::from(client.command(0, draft).is_ok());
        }
    }
    for number in 0..100 {
        let name = format!("{number}{}", "n".repeat(60));
        if client
            .command(0, Command::Rename { chat: format!("guest {}", taken + number % guests.max(1)), name })
            .is_err()
        {
            break;
        }
    }
    made
}

#[tokio::test]
async fn vlt_56_where_nothing_more_is_taken_all_can_be_erased_expires_and_grows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vault");
    let mut client =
        Client::create(&world(), &path, ContainerSize::MIN, &passphrase(), &mut |_, _| {}).unwrap();
    let relay = RelayAddress::new(RelayKey::of_spki(b"a relay"), "relay.example", 443).unwrap();
    let access = SecretKey::generate(&mut ChaCha20Rng::seed_from_u64(5));
    client.add_relay(0, &AccessTicket::new(relay, access).to_text()).unwrap();
    for name in ["walrus", "otter", "stoat"] {
        let invite = Command::Invite { name: name.to_owned(), relay: None, validity: DEFAULT_VALIDITY };
        client.command(0, invite).unwrap();
        client.command(0, Command::Draft { chat: name.to_owned(), text: "burn this".to_owned() }).unwrap();
    }
    let walrus = client.read(0, |unit| view::chat(unit, "walrus")).unwrap().id;
    let base = Arc::clone(&client.compartments()[0].base);
    for order in 70_001..=70_005 {
        let mut unit = Unit::new(&*base);
        let at = NOW.plus(HOUR);
        unit.put(&(walrus, order), &message());
        unit.put(&(walrus, order), &DeadlineRow { at, runs: true, right: Vec::new() });
        unit.put(&(at, walrus, order), &DueRow {});
        base.commit(unit.into_changes()).unwrap();
    }
    drop(base);
    fill(&client);
    let drained = drain(&mut client);
    assert!(drained > 0, "{drained}: small things are taken past the limit");
    let texts =
        |client: &Client| client.read(0, |unit| Ok(unit.scan::<MessageRow>(walrus.as_bytes())?.len()));

    // What is there can be read, and that it was read is noted.
    client.command(0, Command::MarkRead { chat: walrus, order: 70_005 }).unwrap();
    client.command(0, Command::DeleteDraft { chat: "otter".into() }).unwrap();
    client.command(0, Command::Erase { chat: "walrus".into(), orders: vec![70_002] }).unwrap();
    assert_eq!(texts(&client).unwrap(), 4);
    client.close().await.unwrap();
    // What falls due while it is locked is gone before anything is shown.
    let mut client = Client::unlock(&world_at(NOW.plus(2 * HOUR)), &path, &passphrase()).await.unwrap();
    assert!(client.unerased().is_empty(), "{:?}", client.unerased());
    assert_eq!(texts(&client).unwrap(), 0);
    drain(&mut client);
    client.command(0, Command::Clear { chat: "stoat".into(), older: None }).unwrap();
    client.command(0, Command::Delete { chat: "stoat".into(), leave: false }).unwrap();
    drain(&mut client);
    client.command(0, Command::Delete { chat: "walrus".into(), leave: false }).unwrap();
    drain(&mut client);
    let size = ContainerSize::new(16 << 20).unwrap();
    client.grow(&path, size, &mut |_, _| {}).await.unwrap();
    let client = open(&path).await;
    let names: Vec<String> = client.read(0, view::chats).unwrap().into_iter().map(|chat| chat.name).collect();
    assert!(names.contains(&"otter".to_owned()) && !names.contains(&"walrus".to_owned()));
    client.close().await.unwrap();
}

#[tokio::test]
async fn mov_09_a_backup_that_would_leave_out_a_chat_on_its_way_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vault");
    let mut client =
        Client::create(&world(), &path, ContainerSize::MIN, &passphrase(), &mut |_, _| {}).unwrap();
    client.create_compartment("work").unwrap();
    let (chat, from) = (ChatId::from_bytes([7; 16]), ChatId::from_bytes([8; 16]));
    let source = moving::end(&[1; 16], &client.compartments()[0].place);
    let base = Arc::clone(&client.compartments()[1].base);
    let mut unit = Unit::new(&*base);
    unit.put(&chat, &ArrivalRow { id: [1; 16], from, source, live: false });
    base.commit(unit.into_changes()).unwrap();
    let secret = TypedPassphrase::new(Zeroizing::new("plinth oxbow garnet mulled".to_owned())).unwrap();
    let file = folder.path().join("backup");
    for number in [0, 1] {
        let refused = client.create_backup(&world(), &file, &secret, &[number], &mut |_| {}).unwrap_err();
        assert!(refused.message().contains("is not in its place yet"), "{}", refused.message());
        assert!(!file.exists());
    }
    let mut unit = Unit::new(&*base);
    unit.delete::<ArrivalRow>(&chat);
    base.commit(unit.into_changes()).unwrap();
    assert_eq!(client.create_backup(&world(), &file, &secret, &[0, 1], &mut |_| {}).unwrap().compartments, 2);
}

#[tokio::test]
async fn rec_03_tables_that_have_no_room_to_be_written_anew_are_told_until_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vault");
    let client = Client::create(&world(), &path, ContainerSize::MIN, &passphrase(), &mut |_, _| {}).unwrap();
    let chat = ChatId::from_bytes([7; 16]);
    let due = |order: u64| (NOW.plus(HOUR * u32::try_from(order).unwrap()), chat, order);
    let base = Arc::clone(&client.compartments()[0].base);
    for page in 0..6 {
        let mut unit = Unit::new(&*base);
        for order in page * 1000..(page + 1) * 1000 {
            unit.put(&due(order), &DueRow {});
        }
        base.commit(unit.into_changes()).unwrap();
    }
    let stored = fill(&client);
    let mut unit = Unit::new(&*base);
    unit.delete::<DueRow>(&due(17));
    base.commit(unit.into_changes()).unwrap();
    drop(base);
    assert!(matches!(client.scrub(), Err(Fault::NotErased(_))));
    assert!(
        matches!(client.close().await, Err(Fault::NotErased(_))),
        "ERA-07: nobody is told that it is gone"
    );
    // The next session tells it too, and does it when there is room.
    let client = open(&path).await;
    assert!(matches!(client.scrub(), Err(Fault::NotErased(_))));
    let base = Arc::clone(&client.compartments()[0].base);
    for order in 1..=stored {
        let mut unit = Unit::new(&*base);
        unit.delete::<MessageRow>(&(chat, order));
        base.commit(unit.into_changes()).unwrap();
    }
    drop(base);
    client.close().await.unwrap();
}
