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
    engine::Command,
    net::{ConnectError, Link, Transport},
    store::{ChatId, MessageRow, MessageState, StoreError, Unit, Writer},
};
use lapwing_protocol::content::MessageId;
use lapwing_vault::{ContainerSize, Cost};
use lapwing_wire::{address::RelayAddress, time::Timestamp};
use serde_bytes::ByteBuf;
use zeroize::Zeroizing;

struct NoNetwork;

#[async_trait]
impl Transport for NoNetwork {
    async fn connect(&self, _relay: &RelayAddress) -> Result<Arc<dyn Link>, ConnectError> {
        Err(ConnectError::Unreachable)
    }
}

fn world() -> World {
    World {
        cost: Cost { memory_kib: 64, passes: 1, lanes: 1 },
        transport: Arc::new(NoNetwork),
        clock: Arc::new(|| Timestamp::from_millis(1_700_000_000_000)),
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
    client.close().await;

    let mut client = tokio::time::timeout(Duration::from_secs(60), open(&path)).await.unwrap();
    let read = |client: &Client| {
        let unit = Unit::new(&*client.compartments()[0].base);
        u64::try_from(unit.scan::<MessageRow>(&[7; 16]).unwrap().len()).unwrap()
    };
    assert_eq!(read(&client), stored);
    client.command(0, Command::Name { name: "still here".to_owned() }).unwrap();
    // Reopening gives a page or two back; then the limit holds again.
    assert!(fill(&client) <= 2, "messages were taken beyond the limit");
    client.close().await;

    let client = open(&path).await;
    assert_eq!(client.compartments()[0].name, "still here");
    assert_eq!(read(&client), stored);
    client.close().await;
}
